// SPDX-License-Identifier: Apache-2.0
// manifest: what a backup is, written beside its data as JSON. Says which backup it builds
// on, by name and by the SHA-256 of that one's manifest, so that a chain cannot be cut or
// mixed without being seen. Pure functions; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>
#include <tl/expected.hpp>

#include "controlplane/store/record.hpp"

namespace sluice::backup {

using store::digest;
using store::revision_number;

enum class backup_kind : std::uint8_t { full, incremental, differential };
[[nodiscard]] std::string_view to_string(backup_kind k) noexcept;
[[nodiscard]] std::optional<backup_kind> kind_of(std::string_view word) noexcept;

inline constexpr std::uint64_t format_version = 1;
inline constexpr std::size_t max_manifest_bytes = 64u << 10;
inline constexpr std::string_view manifest_suffix = ".manifest";
inline constexpr std::string_view data_suffix = ".data";

struct manifest {
  std::uint64_t number{};  // of the directory's backups, from 1
  backup_kind kind{};
  std::string node;
  std::string lineage;  // of the state file, 32 hex digits
  std::int64_t created_ms{};
  std::string parent;      // name; full: empty
  digest parent_sha256{};  // of its manifest
  // The revisions in the data: first to last; first = last + 1: none.
  revision_number first{};
  revision_number last{};
  std::int64_t first_ms{};  // their times; 0 where there is none
  std::int64_t last_ms{};
  digest before{};  // the history's chain before `first`, and at `last`
  digest chain{};
  std::uint64_t bytes{};  // of the data
  digest sha256{};

  [[nodiscard]] std::uint64_t revisions() const noexcept { return last + 1 - first; }
  // name() is the file name without its suffix: "000012-incremental".
  [[nodiscard]] std::string name() const;
  bool operator==(const manifest&) const = default;
};

[[nodiscard]] std::string to_text(const manifest& m);
// parse_manifest() accepts exactly what to_text() writes: every changed byte is an error.
[[nodiscard]] tl::expected<manifest, std::string> parse_manifest(std::string_view text);

// to_json() is a backup as the API and the CLI show it (docs/api.md, BACKUP).
[[nodiscard]] nlohmann::ordered_json to_json(const manifest& m);

}  // namespace sluice::backup
