// SPDX-License-Identifier: Apache-2.0
// revision_record: one revision as the state file and backups hold it. Its text (a
// services.yaml) is packed by zstd: alone (a keyframe), or with the text of the revision
// before it as the dictionary, which leaves little more than what changed. Digests chain
// every revision to the one before it.
//
// Pure functions and values; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "controlplane/store/digest.hpp"

namespace sluice::store {

using revision_number = std::uint64_t;  // from 1, without gaps

struct revision_record {
  revision_number number{};
  std::int64_t time_ms{};  // since 1970, UTC
  std::string author;
  std::string reason;
  std::optional<std::uint32_t> changes;  // lines of its diff; nothing: was not counted
  revision_number keyframe{};            // from which the text is put together; itself: alone
  std::string body;                      // the packed text
  digest text_digest{};                  // of the text
  digest chain_digest{};                 // chain() of the one before and this one

  bool operator==(const revision_record&) const = default;
};

// chain() is the digest of all revisions up to r, given that up to the one before it.
[[nodiscard]] digest chain(const digest& before, const revision_record& r);

// pack() compresses a text, with another one (may be empty) as the dictionary.
[[nodiscard]] tl::expected<std::string, std::string> pack(std::string_view text,
                                                          std::string_view base);
// unpack() undoes it. Bounded: refuses what would have more than yaml::max_bytes.
[[nodiscard]] tl::expected<std::string, std::string> unpack(std::string_view body,
                                                            std::string_view base);

// text_reader gives the texts of revisions that are handed to it in ascending order, from
// a keyframe on, and holds each to its digest.
class text_reader {
 public:
  // next() returns the text of r; it lives until the next call.
  [[nodiscard]] tl::expected<std::string_view, std::string> next(const revision_record& r);

 private:
  revision_number last_{0};
  std::string text_;
};

}  // namespace sluice::store
