// SPDX-License-Identifier: Apache-2.0
// archive: the data of a backup. Little endian:
//
//   "SLUICEBK" u32 format, then records: u8 type, u32 length, that many bytes
//   type 1, a revision: u64 number, i64 time (ms), u64 keyframe, u8 counted, u32 changes,
//     32 bytes digest of the text, 32 of the chain, text author, text reason, the rest: body
//   type 2, a health verdict: text service, text backend, u8 healthy, i64 since (ms)
//   type 3, a text of a table beside the history (discovered backends, reports of backends, facts
//     about the node): text table, text key, the rest: body. Since format 2.
//   type 255, the end: u64 number of records before it; nothing follows
//
// text: u32 length and bytes. Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/store/store.hpp"

namespace sluice::backup {

struct archive {
  std::vector<store::revision_record> revisions;  // numbers ascend by one
  std::vector<store::verdict> verdicts;
  store::state_store::side_tables side;

  bool operator==(const archive&) const = default;
};

[[nodiscard]] std::string to_bytes(const archive& a);
// parse_archive() trusts nothing; the error says what is wrong with the file.
[[nodiscard]] tl::expected<archive, std::string> parse_archive(std::string_view bytes);

}  // namespace sluice::backup
