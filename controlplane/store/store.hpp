// SPDX-License-Identifier: Apache-2.0
// The desired state and its history on disk (SQLite, WAL, synchronous=FULL): when
// commit() has returned, the revision survives kill -9 and loss of power. Also the last
// known health verdicts, so that a restart comes back as it was.
//
// A state_store is used by one thread at a time; the file by one process (an advisory
// lock in SQLite; a second one is refused with a clear error).
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/model/model.hpp"
#include "controlplane/store/record.hpp"

namespace sluice::store {

struct revision_info {
  revision_number number{};
  std::chrono::system_clock::time_point time;  // to the millisecond
  std::string author;
  std::string reason;
  std::optional<std::uint32_t> changes;  // lines of the difference to the one before
};

struct revision {
  revision_info info;
  model::desired_state state;
};

// verdict: what health checks last said of a backend.
struct verdict {
  std::string service;
  ip_address backend;
  bool healthy{};
  std::chrono::system_clock::time_point since;  // to the millisecond

  bool operator==(const verdict&) const = default;
};

// history_bounds: which revisions a file holds, and of which history.
struct history_bounds {
  std::string lineage;       // 32 hex digits, made with the file
  revision_number first{0};  // 0: none
  revision_number last{0};
  digest anchor{};  // the chain's digest before `first`
};

template <class T>
using result = tl::expected<T, std::string>;  // the error names the file

class state_store {
 public:
  // open() opens or makes the file (its directory must exist). Refuses a file that is
  // damaged, newer than this version, no Sluice state, or open in another process. `keep`
  // revisions at least are kept, up to 100 more; 0: all.
  [[nodiscard]] static result<state_store> open(const std::string& path, std::size_t keep = 0);
  [[nodiscard]] const std::string& path() const noexcept;
  // import() makes a file that is not there yet out of the revisions of another one.
  [[nodiscard]] static result<state_store> import(const std::string& path,
                                                  const history_bounds& bounds,
                                                  const std::vector<revision_record>& revisions);

  state_store(state_store&&) noexcept;
  state_store& operator=(state_store&&) noexcept;
  ~state_store();

  // load_latest() returns the newest revision; nothing when none was ever committed.
  [[nodiscard]] result<std::optional<revision>> load_latest() const;
  // commit() makes a new revision, durable on return.
  [[nodiscard]] result<revision_number> commit(const model::desired_state& state,
                                               std::string_view author, std::string_view reason,
                                               std::optional<std::uint32_t> changes = {});
  // history() returns the newest n, newest first.
  [[nodiscard]] result<std::vector<revision_info>> history(std::size_t n) const;
  // get() returns nothing when there is no such revision.
  [[nodiscard]] result<std::optional<revision>> get(revision_number number) const;

  // records() returns at most n revisions as they are stored, from `first` on.
  [[nodiscard]] result<std::vector<revision_record>> records(revision_number first,
                                                             std::size_t n) const;
  [[nodiscard]] result<history_bounds> bounds() const;

  // save_verdicts() writes all of these in one transaction, replacing older ones of the
  // same (service, backend). Batch: each call costs one fsync.
  [[nodiscard]] result<void> save_verdicts(const std::vector<verdict>& verdicts);
  // forget_verdicts_except() removes those of backends that `state` does not have.
  [[nodiscard]] result<void> forget_verdicts_except(const model::desired_state& state);
  [[nodiscard]] result<std::vector<verdict>> load_verdicts() const;

  // save_discovered() writes what is known of discovered backends, by service, in one
  // transaction; an empty text: nothing is known any more.
  using texts = std::map<std::string, std::string>;
  [[nodiscard]] result<void> save_discovered(const texts& by_service);
  [[nodiscard]] result<texts> load_discovered() const;
  // The same for what backends have said of themselves.
  [[nodiscard]] result<void> save_reports(const texts& by_service);
  [[nodiscard]] result<texts> load_reports() const;

  // What a file holds beside its history and verdicts: texts, by table and key. For backups.
  using side_tables = std::map<std::string, texts>;
  [[nodiscard]] static bool is_side_table(std::string_view name) noexcept;
  [[nodiscard]] result<side_tables> load_side_tables() const;
  // save_side_tables() adds to what is there; refuses a name that is no side table's.
  [[nodiscard]] result<void> save_side_tables(const side_tables& tables);

  // remember() keeps a text under a name, beside the history; "": it is forgotten.
  [[nodiscard]] result<void> remember(const char* name, std::string_view text);
  [[nodiscard]] std::string remembered(const char* name) const;

 private:
  struct connection;
  explicit state_store(std::unique_ptr<connection> c);
  std::unique_ptr<connection> connection_;
};

}  // namespace sluice::store
