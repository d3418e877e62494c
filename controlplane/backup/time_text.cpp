// SPDX-License-Identifier: Apache-2.0
#include "controlplane/backup/time_text.hpp"

#include <chrono>

#include <fmt/format.h>

namespace sluice::backup {
namespace {

using namespace std::chrono;

// taker reads numbers of a fixed width and single characters from the front of a text.
struct taker {
  std::string_view text;
  bool good{true};

  int number(std::size_t digits, int min, int max) {
    int v = 0;
    good = good && text.size() >= digits;
    for (std::size_t i = 0; good && i < digits; ++i) {
      good = text[i] >= '0' && text[i] <= '9';
      v = v * 10 + (text[i] - '0');
    }
    if (good) text.remove_prefix(digits);
    good = good && v >= min && v <= max;
    return v;
  }
  bool one_of(std::string_view allowed) {
    if (!good || text.empty() || allowed.find(text.front()) == allowed.npos) return false;
    text.remove_prefix(1);
    return true;
  }
  void need(std::string_view allowed) { good = one_of(allowed) && good; }
};

}  // namespace

std::string format_time(std::int64_t ms) {
  const sys_time<milliseconds> t{milliseconds{ms}};
  const auto day = floor<days>(t);
  const year_month_day date{day};
  const hh_mm_ss time{t - day};
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     time.hours().count(), time.minutes().count(), time.seconds().count(),
                     time.subseconds().count());
}

std::optional<std::int64_t> parse_time(std::string_view text) {
  taker in{text};
  const int y = in.number(4, 1970, 9999);
  in.need("-");
  const int m = in.number(2, 1, 12);
  in.need("-");
  const int d = in.number(2, 1, 31);
  in.need("T t");
  const int hour = in.number(2, 0, 23);
  in.need(":");
  const int minute = in.number(2, 0, 59);
  in.need(":");
  const int second = in.number(2, 0, 59);
  std::int64_t fraction = 0;
  if (in.one_of(".")) {
    int digits = 0;
    for (; in.good && !in.text.empty() && in.text.front() >= '0' && in.text.front() <= '9';
         ++digits) {
      if (digits < 3) fraction = fraction * 10 + (in.text.front() - '0');
      in.text.remove_prefix(1);
    }
    for (int i = digits; i < 3; ++i) fraction *= 10;
    in.good = in.good && digits > 0;
  }
  std::int64_t offset = 0;  // minutes
  if (!in.one_of("Zz")) {
    const bool behind = !in.text.empty() && in.text.front() == '-';
    in.need("+-");
    const int hours_off = in.number(2, 0, 23);
    in.need(":");
    offset = hours_off * 60 + in.number(2, 0, 59);
    if (behind) offset = -offset;
  }
  const year_month_day date{year{y}, month{static_cast<unsigned>(m)},
                            std::chrono::day{static_cast<unsigned>(d)}};
  if (!in.good || !in.text.empty() || !date.ok()) return std::nullopt;
  const auto t = sys_days{date} + hours{hour} + minutes{minute - offset} + seconds{second} +
                 milliseconds{fraction};
  return duration_cast<milliseconds>(t.time_since_epoch()).count();
}

}  // namespace sluice::backup
