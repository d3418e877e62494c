// SPDX-License-Identifier: Apache-2.0
// The open state file, its errors in the operator's words, and its schema. For the files
// of this folder.
#pragma once

#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "controlplane/store/record.hpp"
#include "controlplane/store/sqlite.hpp"
#include "controlplane/store/store.hpp"

namespace sluice::store {

inline std::int64_t to_ms(std::chrono::system_clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count();
}
inline std::chrono::system_clock::time_point from_ms(std::int64_t ms) {
  return std::chrono::system_clock::time_point{std::chrono::milliseconds{ms}};
}

// tail: what the next revision builds on.
struct tail {
  revision_number number{0};
  revision_number keyframe{0};
  std::size_t keyframe_bytes{0};
  std::size_t delta_bytes{0};  // of all since the keyframe
  std::string text;            // of the revision `number`
  digest chain_digest{};
};

struct state_store::connection {
  std::string path;
  database db;
  std::size_t keep{0};         // revisions; 0: all
  std::optional<tail> newest;  // read when it is first needed

  [[nodiscard]] tl::unexpected<std::string> fail(std::string_view what) const {
    return tl::unexpected{path + ": " + std::string{what}};
  }
  // sql_error() says what SQLite's last error means for the operator.
  [[nodiscard]] tl::unexpected<std::string> sql_error(std::string_view doing) const;

  // In schema.cpp.
  result<void> prepare_file();
  result<void> check_schema();
  result<void> make_schema();
  result<void> upgrade_from_1();
  result<void> check_integrity();

  [[nodiscard]] std::string fact(const char* name) const;
  [[nodiscard]] bool set_fact(const char* name, std::string_view value) const;
  [[nodiscard]] digest anchor() const;

  // In side_texts.cpp.
  [[nodiscard]] result<void> save_texts(const char* table,
                                        const state_store::texts& by_service) const;
  [[nodiscard]] result<state_store::texts> load_texts(const char* table) const;

  result<void> load_tail();
  // make_record() fills in what follows from the tail, and moves the tail on.
  result<revision_record> make_record(std::string_view text, tail& at) const;
  result<void> insert(const revision_record& r) const;
  result<void> prune() const;
  // texts() calls fn(record, text) for the revisions first to last.
  template <class Fn>
  result<void> texts(revision_number first, revision_number last, Fn&& fn) const;
  result<std::optional<revision>> load(revision_number number) const;
};

// record_columns are what record_of() reads.
inline constexpr const char* record_columns =
    "number, time_ms, author, reason, changes, keyframe, body, text_digest, chain_digest";
[[nodiscard]] std::optional<revision_record> record_of(const statement& row);

}  // namespace sluice::store
