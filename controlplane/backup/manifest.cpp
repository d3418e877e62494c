// SPDX-License-Identifier: Apache-2.0
#include "controlplane/backup/manifest.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "controlplane/backup/time_text.hpp"

namespace sluice::backup {
namespace {

using json = nlohmann::ordered_json;

constexpr std::uint64_t max_number = 1u << 30;
// Revision numbers are SQLite's integers.
constexpr std::uint64_t max_revision = std::uint64_t{1} << 62;
// The last line of a manifest is "sha256: " and that of all before it.
constexpr std::string_view last_line = "sha256: ";

json time_json(std::int64_t ms) {
  return ms == 0 ? json() : json(format_time(ms));
}

// field_reader takes typed fields; after the first that is missing or wrong, `wrong` names it.
struct field_reader {
  const json& from;
  std::string wrong{};

  template <class Get>
  auto field(const char* key, Get&& get) -> decltype(get(json{})) {
    const auto at = from.find(key);
    if (at != from.end()) {
      auto v = get(*at);
      if (v) return v;
    }
    if (wrong.empty()) wrong = key;
    return {};
  }
  std::uint64_t number(const char* key, std::uint64_t max) {
    return field(key,
                 [max](const json& v) -> std::optional<std::uint64_t> {
                   if (!v.is_number_unsigned() || v.get<std::uint64_t>() > max) return std::nullopt;
                   return v.get<std::uint64_t>();
                 })
        .value_or(0);
  }
  std::string word(const char* key, std::size_t most) {
    return field(key,
                 [most](const json& v) -> std::optional<std::string> {
                   if (!v.is_string() || v.get_ref<const std::string&>().size() > most)
                     return std::nullopt;
                   return v.get<std::string>();
                 })
        .value_or(std::string{});
  }
  digest sha(const char* key) {
    return field(key,
                 [](const json& v) {
                   return v.is_string() ? store::from_hex(v.get_ref<const std::string&>())
                                        : std::optional<digest>{};
                 })
        .value_or(digest{});
  }
  std::int64_t time(const char* key) {
    return field(key,
                 [](const json& v) -> std::optional<std::int64_t> {
                   if (v.is_null()) return 0;
                   return v.is_string() ? parse_time(v.get_ref<const std::string&>())
                                        : std::optional<std::int64_t>{};
                 })
        .value_or(0);
  }
};

}  // namespace

std::string_view to_string(backup_kind k) noexcept {
  switch (k) {
    case backup_kind::full:
      return "full";
    case backup_kind::incremental:
      return "incremental";
    case backup_kind::differential:
      return "differential";
  }
  return "unknown";
}

std::optional<backup_kind> kind_of(std::string_view word) noexcept {
  for (const auto k : {backup_kind::full, backup_kind::incremental, backup_kind::differential})
    if (word == to_string(k)) return k;
  return std::nullopt;
}

std::string manifest::name() const {
  return fmt::format("{:06}-{}", number, to_string(kind));
}

std::string to_text(const manifest& m) {
  const bool chained = m.kind != backup_kind::full;
  const json all{{"format", format_version},
                 {"number", m.number},
                 {"kind", std::string{to_string(m.kind)}},
                 {"node", m.node},
                 {"lineage", m.lineage},
                 {"created", time_json(m.created_ms)},
                 {"parent", chained ? json(m.parent) : json()},
                 {"parent_sha256", chained ? json(store::to_hex(m.parent_sha256)) : json()},
                 {"first", m.first},
                 {"last", m.last},
                 {"first_time", time_json(m.first_ms)},
                 {"last_time", time_json(m.last_ms)},
                 {"before", store::to_hex(m.before)},
                 {"chain", store::to_hex(m.chain)},
                 {"bytes", m.bytes},
                 {"sha256", store::to_hex(m.sha256)}};
  std::string out = all.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  const std::string sum = store::to_hex(store::sha256(out));
  out.append(last_line).append(sum).append("\n");
  return out;
}

json to_json(const manifest& m) {
  return {{"name", m.name()},
          {"kind", std::string{to_string(m.kind)}},
          {"node", m.node},
          {"created", time_json(m.created_ms)},
          {"parent", m.parent.empty() ? json() : json(m.parent)},
          {"first", m.first},
          {"last", m.last},
          {"revisions", m.revisions()},
          {"last_time", time_json(m.last_ms)},
          {"bytes", m.bytes},
          {"sha256", store::to_hex(m.sha256)}};
}

tl::expected<manifest, std::string> parse_manifest(std::string_view text) {
  const auto fail = [](std::string why) { return tl::unexpected{std::move(why)}; };
  if (text.size() > max_manifest_bytes) return fail("is too large for a manifest");
  const std::size_t tail = last_line.size() + 64 + 1;
  if (text.size() < tail || text.substr(text.size() - tail, last_line.size()) != last_line ||
      text.back() != '\n')
    return fail("has no checksum at its end: cut off, or no manifest of Sluice");
  const std::string_view body = text.substr(0, text.size() - tail);
  const json all = json::parse(body, nullptr, false);
  if (!all.is_object()) return fail("is damaged: no JSON");
  field_reader in{all};
  // Before the checksum: what another version means by it is unknown.
  if (const auto format = in.number("format", UINT64_MAX); in.wrong.empty()) {
    if (format > format_version)
      return fail("was written by a newer version (format " + std::to_string(format) +
                  "; this one knows up to " + std::to_string(format_version) + ")");
  }
  if (store::to_hex(store::sha256(body)) != text.substr(text.size() - 65, 64))
    return fail("is damaged: its checksum does not match");
  manifest m;
  m.number = in.number("number", max_number);
  const auto kind = kind_of(in.word("kind", 32));
  m.kind = kind.value_or(backup_kind::full);
  m.node = in.word("node", 64);
  m.lineage = in.word("lineage", 32);
  m.created_ms = in.time("created");
  if (m.kind != backup_kind::full) {
    m.parent = in.word("parent", 64);
    m.parent_sha256 = in.sha("parent_sha256");
  }
  m.first = in.number("first", max_revision);
  m.last = in.number("last", max_revision);
  m.first_ms = in.time("first_time");
  m.last_ms = in.time("last_time");
  m.before = in.sha("before");
  m.chain = in.sha("chain");
  m.bytes = in.number("bytes", UINT64_MAX);
  m.sha256 = in.sha("sha256");
  if (!in.wrong.empty()) return fail("is damaged: " + in.wrong + " is missing or wrong");
  if (!kind || m.number == 0 || m.first == 0 || m.first > m.last + 1)
    return fail("is damaged: its numbers make no sense");
  if (to_text(m) != text) return fail("is damaged: it is not written as manifests are");
  return m;
}

}  // namespace sluice::backup
