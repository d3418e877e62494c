// SPDX-License-Identifier: Apache-2.0
#include "controlplane/config/read_health.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <initializer_list>
#include <string>

#include "dataplane/abi/address_text.hpp"

namespace sluice::config {

using yaml::value;

std::optional<ip_address> read_address(const value& v) {
  const auto text = v.text();
  if (!text) return std::nullopt;
  const auto address = parse_ip(*text);
  if (!address) {
    v.error(address.error() + "; expected one such as 192.0.2.1 or \"2001:db8::1\"");
    return std::nullopt;
  }
  return *address;
}

std::optional<std::pair<std::uint16_t, std::uint16_t>> read_span(const value& v, unsigned min,
                                                                 unsigned max,
                                                                 std::string_view expected) {
  const auto text = v.text();
  if (!text) return std::nullopt;
  const auto wrong = [&](std::string_view why) {
    v.error(yaml::shown(*text) + " " + std::string{why} + "; expected " + std::string{expected});
    return std::nullopt;
  };
  const char* const end = text->data() + text->size();
  unsigned long first = 0;
  auto r = std::from_chars(text->data(), end, first);
  if (r.ec == std::errc::invalid_argument) return wrong("is not a number or range");
  unsigned long last = first;
  bool huge = r.ec != std::errc{};
  if (r.ptr != end) {
    if (*r.ptr != '-') return wrong("is not a number or range");
    r = std::from_chars(r.ptr + 1, end, last);
    if (r.ec == std::errc::invalid_argument || r.ptr != end)
      return wrong("is not a number or range");
    huge = huge || r.ec != std::errc{};
  }
  if (huge || first < min || last < min || first > max || last > max)
    return wrong("is out of range");
  if (first > last) return wrong("runs backwards");
  return std::pair{static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)};
}

namespace {

using model::health_check;
using model::health_kind;
using model::health_via;
using std::chrono::milliseconds;
using yaml::assign;
using yaml::map_value;

constexpr milliseconds longest_interval{3'600'000};

bool printable(std::string_view text, char lowest) {
  return std::all_of(text.begin(), text.end(), [&](char c) { return c >= lowest && c <= 0x7e; });
}

void read_http(const map_value& m, health_check& out) {
  if (const auto path = m.find("path")) {
    if (auto text = path->text()) {
      if (text->front() != '/' || text->size() > 1024 || !printable(*text, 0x21))
        path->error(
            "is not a request path; expected one that begins with '/', without spaces, of at most "
            "1024 bytes, such as /healthz");
      else
        out.path = std::move(*text);
    }
  }
  if (const auto host = m.find("host")) {
    if (auto text = host->text()) {
      if (text->size() > 255 || !printable(*text, 0x21))
        host->error("is not a host name; expected one such as www.example.net");
      else
        out.host = std::move(*text);
    }
  }
  if (const auto expect = m.find("expect"))
    if (const auto span = read_span(*expect, 100, 599,
                                    "a status code from 100 to 599, or a range such as "
                                    "\"200-399\"")) {
      out.expect_first = span->first;
      out.expect_last = span->second;
    }
}

// read_rhythm() reads what says when a backend is checked. changed: only what is given changes.
void read_rhythm(const value& v, const map_value& m, bool changed, health_check& out) {
  const auto interval = m.find("interval");
  const auto timeout = m.find("timeout");
  const bool interval_ok =
      !interval || assign(out.interval, interval->duration(milliseconds{10}, longest_interval));
  const bool timeout_ok =
      !timeout || assign(out.timeout, timeout->duration(milliseconds{1}, longest_interval));
  // Only a timeout that was asked for can be wrong; the default follows the interval.
  if (!timeout && !changed) out.timeout = std::min(out.timeout, out.interval);
  if (interval_ok && timeout_ok && out.timeout > out.interval)
    (timeout    ? *timeout
     : interval ? *interval
                : v)
        .error("the timeout (" + std::to_string(out.timeout.count()) +
               "ms) is longer than the interval (" + std::to_string(out.interval.count()) +
               "ms); expected a timeout of at most the interval");
  if (const auto fast = m.find("fast-interval")) {
    if (fast->is_word("auto")) {
      out.fast_interval = milliseconds{0};
    } else if (assign(out.fast_interval, fast->duration(milliseconds{10}, longest_interval)) &&
               interval_ok && out.fast_interval > out.interval) {
      fast->error("is longer than the interval (" + std::to_string(out.interval.count()) +
                  "ms); expected at most that, or auto");
    }
  } else if (interval && interval_ok && out.fast_interval > out.interval) {
    interval->error("is shorter than the fast-interval (" +
                    std::to_string(out.fast_interval.count()) + "ms); expected at least that");
  }
  if (const auto jitter = m.find("jitter")) assign(out.jitter, jitter->integer(0, 50));
}

}  // namespace

void read_health(const value& v, const health_check* base, health_check& out) {
  const auto m = v.map({"type", "path", "host", "expect", "port", "interval", "timeout",
                        "fast-interval", "jitter", "rise", "fall", "via", "source"});
  if (!m) return;
  out = base ? *base : health_check{};
  const auto type = base ? m->find("type") : m->require("type", "http");
  if (type) {
    const auto kind = type->word<health_kind>(
        {{"none", health_kind::none}, {"tcp", health_kind::tcp}, {"http", health_kind::http}});
    if (!kind) return;
    out.kind = *kind;
  } else if (!base) {
    return;
  }

  // A key that would have no effect is a mistake. What a base had for another type goes.
  const auto only_for = [&](std::initializer_list<std::string_view> keys, std::string_view types) {
    for (const std::string_view key : keys)
      if (const auto found = m->find(key))
        found->error("has no effect with this type; expected it only with type " +
                     std::string{types});
  };
  if (out.kind == health_kind::none) {
    only_for({"path", "host", "expect", "port", "interval", "timeout", "fast-interval", "jitter",
              "rise", "fall", "via", "source"},
             "tcp or http");
    out = health_check{};
    return;
  }
  if (out.kind == health_kind::http) {
    read_http(*m, out);
  } else {
    only_for({"path", "host", "expect"}, "http");
    const health_check fresh;
    out.path = fresh.path;
    out.host = fresh.host;
    out.expect_first = fresh.expect_first;
    out.expect_last = fresh.expect_last;
  }
  if (const auto port = m->find("port")) assign(out.port, port->integer(1, 65535));
  if (const auto rise = m->find("rise")) assign(out.rise, rise->integer(1, 1000));
  if (const auto fall = m->find("fall")) assign(out.fall, fall->integer(1, 1000));
  if (const auto via = m->find("via"))
    assign(out.via, via->word<health_via>({{"auto", health_via::automatic},
                                           {"direct", health_via::direct},
                                           {"data-path", health_via::data_path}}));
  if (const auto source = m->find("source")) {
    if (source->is_word("auto"))
      out.source.reset();
    else if (const auto read = read_address(*source))
      out.source = read;
  }
  read_rhythm(v, *m, base != nullptr, out);
}

}  // namespace sluice::config
