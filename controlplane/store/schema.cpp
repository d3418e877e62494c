// SPDX-License-Identifier: Apache-2.0
// The state file's tables: made, checked, and brought up to date.
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "controlplane/store/connection.hpp"
#include "dataplane/abi/fnv.hpp"

namespace sluice::store {
namespace {

constexpr std::int64_t application_id = 0x534c5543;  // "SLUC"
// 1: the whole text of each revision. 2: packed texts, chained digests, facts.
constexpr std::int64_t schema_version = 2;

constexpr const char* schema = R"(
CREATE TABLE revisions (
  number INTEGER PRIMARY KEY,
  time_ms INTEGER NOT NULL,
  author TEXT NOT NULL,
  reason TEXT NOT NULL,
  changes INTEGER,
  keyframe INTEGER NOT NULL,
  body BLOB NOT NULL,
  text_digest BLOB NOT NULL,
  chain_digest BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS verdicts (
  service TEXT NOT NULL,
  backend TEXT NOT NULL,
  healthy INTEGER NOT NULL,
  since_ms INTEGER NOT NULL,
  PRIMARY KEY (service, backend)
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
)";

constexpr const char* later_tables = R"(
CREATE TABLE IF NOT EXISTS discovered (
  service TEXT PRIMARY KEY,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reports (
  service TEXT PRIMARY KEY,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
)";

constexpr const char* what_to_do =
    "); move it away and restore a backup (sluice restore), or apply services.yaml again";

std::int64_t checksum_of_schema_1(std::string_view text) {
  fnv1a h;
  h.add(text);
  return static_cast<std::int64_t>(h.value());
}

// new_lineage() names a history, so that backups of another one are not taken for its own.
std::string new_lineage() {
  digest random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
    return {};
  return to_hex(random).substr(0, 32);
}

}  // namespace

tl::unexpected<std::string> state_store::connection::sql_error(std::string_view doing) const {
  const std::string what = db.message();
  switch (db.code() & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return fail("the state file is damaged (" + what + what_to_do);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return fail("is in use by another process; one control plane per file");
    case SQLITE_FULL:
      return fail("no space left on the device, while " + std::string{doing});
    default:
      return fail(what + ", while " + std::string{doing});
  }
}

result<void> state_store::connection::prepare_file() {
  // SQLite would make it readable for everybody.
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (fd < 0)
    return fail(std::string{"cannot be opened: "} + std::generic_category().message(errno));
  ::close(fd);
  if (!db.open(path)) return sql_error("opening it");
  // Held until the process ends, however it ends: a second control plane is refused.
  for (const char* pragma : {"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA synchronous=FULL",
                             "PRAGMA foreign_keys=ON", "PRAGMA trusted_schema=OFF"})
    if (!db.run(pragma)) return sql_error("setting it up");
  return {};
}

result<void> state_store::connection::check_schema() {
  const auto id = db.number("PRAGMA application_id");
  const auto version = db.number("PRAGMA user_version");
  const auto tables = db.number("SELECT count(*) FROM sqlite_schema");
  if (!id || !version || !tables) return sql_error("reading its schema");
  const bool fresh = *id == 0 && *version == 0 && *tables == 0;
  if (!fresh && *id != application_id)
    return fail("is an SQLite file of something else; expected a state file of Sluice, or none");
  if (*version > schema_version)
    return fail("was written by a newer version (schema " + std::to_string(*version) +
                "; this one knows up to " + std::to_string(schema_version) +
                "); use that version, or another file");
  if (!fresh && *version < 1) return fail("has the unknown schema " + std::to_string(*version));
  // WAL: a commit is one sequential write and one fsync. The mode sticks to the file.
  const auto mode = db.word("PRAGMA journal_mode=WAL");
  if (!mode) return sql_error("setting it up");
  if (*mode != "wal") return fail("cannot be put in WAL mode (it is in " + *mode + " mode)");
  // Takes the exclusive lock now rather than at the first commit.
  transaction all{db};
  if (!all.ok()) return sql_error("locking it");
  if (fresh) {
    if (auto made = make_schema(); !made) return made;
  } else if (*version == 1) {
    if (auto done = upgrade_from_1(); !done) return done;
  } else if (!db.run(later_tables)) {
    // What files of before it do not have is no reason for another version: nothing that an
    // older control plane reads has changed.
    return sql_error("making its schema");
  }
  if (!all.commit()) return sql_error("making its schema");
  return {};
}

result<void> state_store::connection::make_schema() {
  const std::string stamp = "PRAGMA application_id=" + std::to_string(application_id) +
                            "; PRAGMA user_version=" + std::to_string(schema_version) + ";";
  const std::string lineage = new_lineage();
  if (lineage.empty()) return fail("the kernel has no random numbers");
  if (!db.run(schema) || !db.run(later_tables) || !db.run(stamp.c_str()) ||
      !set_fact("lineage", lineage))
    return sql_error("making its schema");
  return {};
}

// upgrade_from_1() packs the revisions of a file that holds the whole text of each.
result<void> state_store::connection::upgrade_from_1() {
  if (!db.run("ALTER TABLE revisions RENAME TO revisions_1")) return sql_error("upgrading it");
  if (auto made = make_schema(); !made) return made;
  std::optional<statement> rows_1;  // ends before its table does
  statement& rows =
      rows_1.emplace(db,
                     "SELECT number, time_ms, author, reason, state, checksum FROM revisions_1 "
                     "ORDER BY number");
  if (!rows.ok()) return sql_error("upgrading it");
  tail at;
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW) {
    const std::string text = rows.text(4);
    const auto number = static_cast<revision_number>(rows.integer(0));
    if (checksum_of_schema_1(text) != rows.integer(5))
      return tl::unexpected{path + " revision " + std::to_string(number) +
                            ": its checksum does not match; the state file is damaged"};
    if (at.number == 0) at.number = number - 1;
    auto record = make_record(text, at);
    if (!record) return tl::unexpected{record.error()};
    record->time_ms = rows.integer(1);
    record->author = rows.text(2);
    record->reason = rows.text(3);
    at.chain_digest = record->chain_digest = chain(at.chain_digest, *record);
    if (record->number != number)
      return fail("revisions are missing before " + std::to_string(number));
    if (auto put = insert(*record); !put) return put;
  }
  if (code != SQLITE_DONE) return sql_error("upgrading it");
  rows_1.reset();
  if (!db.run("DROP TABLE revisions_1")) return sql_error("upgrading it");
  return {};
}

result<void> state_store::connection::check_integrity() {
  const auto verdict_text = db.word("PRAGMA integrity_check(1)");
  if (!verdict_text) return sql_error("checking it");
  if (*verdict_text != "ok")
    return fail("the state file is damaged (" + *verdict_text + what_to_do);
  return {};
}

std::string state_store::connection::fact(const char* name) const {
  statement row{db, "SELECT value FROM facts WHERE name = ?1"};
  if (!row.ok()) return {};
  row.bind(1, std::string_view{name});
  return row.step() == SQLITE_ROW ? row.text(0) : std::string{};
}

bool state_store::connection::set_fact(const char* name, std::string_view value) const {
  statement put{db,
                "INSERT INTO facts (name, value) VALUES (?1, ?2) "
                "ON CONFLICT DO UPDATE SET value = excluded.value"};
  if (!put.ok()) return false;
  put.bind(1, std::string_view{name});
  put.bind(2, value);
  return put.step() == SQLITE_DONE;
}

digest state_store::connection::anchor() const {
  return from_hex(fact("anchor")).value_or(digest{});
}

}  // namespace sluice::store
