// SPDX-License-Identifier: Apache-2.0
#include "controlplane/backup/archive.hpp"

#include <cstring>

#include "dataplane/abi/address_text.hpp"

namespace sluice::backup {
namespace {

constexpr std::string_view magic = "SLUICEBK";
constexpr std::uint32_t data_format = 2;
constexpr std::uint32_t oldest_format = 1;  // the same without side texts

enum class record_type : std::uint8_t { revision = 1, verdict = 2, side_text = 3, end = 255 };

class byte_writer {
 public:
  template <class T>
  void number(T v) {
    const auto u = static_cast<std::uint64_t>(v);
    for (std::size_t i = 0; i < sizeof v; ++i) out_ += static_cast<char>(u >> (8 * i) & 0xff);
  }
  void raw(std::string_view bytes) { out_ += bytes; }
  void text(std::string_view t) {
    number(static_cast<std::uint32_t>(t.size()));
    raw(t);
  }
  void record(record_type type, const byte_writer& payload) {
    number(static_cast<std::uint8_t>(type));
    text(payload.out_);
  }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// The year 10000: what a clock's value may be, before arithmetic on it may overflow.
constexpr std::int64_t end_of_time_ms = 253402300800000;
constexpr bool is_time(std::int64_t ms) noexcept {
  return ms >= 0 && ms < end_of_time_ms;
}

// byte_reader takes from the front; after the first thing that is not there, good() is false
// and everything else is empty.
class byte_reader {
 public:
  explicit byte_reader(std::string_view bytes) : left_{bytes} {}
  template <class T>
  T number() {
    const std::string_view bytes = raw(sizeof(T));
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      v |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return static_cast<T>(v);
  }
  std::string_view raw(std::size_t n) {
    good_ = good_ && n <= left_.size();
    if (!good_) return {};
    const std::string_view out = left_.substr(0, n);
    left_.remove_prefix(n);
    return out;
  }
  std::string_view text() {
    const auto n = number<std::uint32_t>();
    return raw(n);
  }
  store::digest sha() { return store::from_bytes(raw(32)).value_or(store::digest{}); }
  std::string_view rest() { return raw(left_.size()); }
  [[nodiscard]] bool good() const noexcept { return good_; }
  [[nodiscard]] bool empty() const noexcept { return left_.empty(); }

 private:
  std::string_view left_;
  bool good_{true};
};

std::int64_t ms_of(std::chrono::system_clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count();
}

store::revision_record read_revision(byte_reader& in) {
  store::revision_record r;
  r.number = in.number<std::uint64_t>();
  r.time_ms = in.number<std::int64_t>();
  r.keyframe = in.number<std::uint64_t>();
  const bool counted = in.number<std::uint8_t>() != 0;
  const auto changes = in.number<std::uint32_t>();
  if (counted) r.changes = changes;
  r.text_digest = in.sha();
  r.chain_digest = in.sha();
  r.author = in.text();
  r.reason = in.text();
  r.body = in.rest();
  return r;
}

}  // namespace

std::string to_bytes(const archive& a) {
  byte_writer out;
  out.raw(magic);
  out.number(data_format);
  for (const auto& r : a.revisions) {
    byte_writer w;
    w.number(r.number);
    w.number(r.time_ms);
    w.number(r.keyframe);
    w.number(static_cast<std::uint8_t>(r.changes ? 1 : 0));
    w.number(r.changes.value_or(0));
    w.raw(store::bytes_of(r.text_digest));
    w.raw(store::bytes_of(r.chain_digest));
    w.text(r.author);
    w.text(r.reason);
    w.raw(r.body);
    out.record(record_type::revision, w);
  }
  for (const auto& v : a.verdicts) {
    byte_writer w;
    w.text(v.service);
    w.text(format_ip(v.backend));
    w.number(static_cast<std::uint8_t>(v.healthy ? 1 : 0));
    w.number(ms_of(v.since));
    out.record(record_type::verdict, w);
  }
  std::size_t side_texts = 0;
  for (const auto& [table, texts] : a.side)
    for (const auto& [key, body] : texts) {
      byte_writer w;
      w.text(table);
      w.text(key);
      w.raw(body);
      out.record(record_type::side_text, w);
      ++side_texts;
    }
  byte_writer w;
  w.number(std::uint64_t{a.revisions.size() + a.verdicts.size() + side_texts});
  out.record(record_type::end, w);
  return out.take();
}

tl::expected<archive, std::string> parse_archive(std::string_view bytes) {
  const auto fail = [](std::string why) { return tl::unexpected{std::move(why)}; };
  byte_reader in{bytes};
  if (in.raw(magic.size()) != magic) return fail("is no data of a backup of Sluice");
  if (const auto v = in.number<std::uint32_t>();
      in.good() && (v < oldest_format || v > data_format))
    return fail("was written by another version (format " + std::to_string(v) +
                "; this one knows up to " + std::to_string(data_format) + ")");
  archive out;
  for (std::uint64_t records = 0;; ++records) {
    const auto type = in.number<std::uint8_t>();
    const std::string_view payload = in.text();
    if (!in.good()) return fail("is cut off");
    byte_reader p{payload};
    if (type == static_cast<std::uint8_t>(record_type::end)) {
      const auto expected = p.number<std::uint64_t>();
      if (!p.good() || !p.empty() || expected != records || !in.empty())
        return fail("is damaged at its end");
      return out;
    }
    const std::string where = "record " + std::to_string(records + 1);
    if (type == static_cast<std::uint8_t>(record_type::revision)) {
      auto r = read_revision(p);
      const bool follows = out.revisions.empty() || out.revisions.back().number + 1 == r.number;
      if (!p.good() || !is_time(r.time_ms) || r.number == 0 || r.keyframe == 0 ||
          r.keyframe > r.number || !follows)
        return fail("is damaged: " + where + " is no revision, or not the next one");
      out.revisions.push_back(std::move(r));
    } else if (type == static_cast<std::uint8_t>(record_type::verdict)) {
      store::verdict v;
      v.service = p.text();
      const auto backend = parse_ip(p.text());
      v.healthy = p.number<std::uint8_t>() != 0;
      const auto since = p.number<std::int64_t>();
      if (!p.good() || !p.empty() || !backend || !is_time(since))
        return fail("is damaged: " + where + " is no health verdict");
      v.backend = *backend;
      v.since = std::chrono::system_clock::time_point{std::chrono::milliseconds{since}};
      out.verdicts.push_back(std::move(v));
    } else if (type == static_cast<std::uint8_t>(record_type::side_text)) {
      const std::string table{p.text()};
      const std::string key{p.text()};
      if (!p.good() || !store::state_store::is_side_table(table) ||
          !out.side[table].emplace(key, p.rest()).second)
        return fail("is damaged: " + where + " is no text of a table, or one that was there");
    } else {
      return fail("is damaged: " + where + " is of an unknown type");
    }
  }
}

}  // namespace sluice::backup
