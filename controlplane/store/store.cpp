// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/store.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <system_error>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "controlplane/store/sqlite.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/fnv.hpp"

namespace sluice::store {
namespace {

constexpr std::int64_t application_id = 0x534c5543;  // "SLUC"
constexpr std::int64_t schema_version = 1;

constexpr const char* schema = R"(
CREATE TABLE revisions (
  number INTEGER PRIMARY KEY,
  time_ms INTEGER NOT NULL,
  author TEXT NOT NULL,
  reason TEXT NOT NULL,
  state TEXT NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE verdicts (
  service TEXT NOT NULL,
  backend TEXT NOT NULL,
  healthy INTEGER NOT NULL,
  since_ms INTEGER NOT NULL,
  PRIMARY KEY (service, backend)
) STRICT, WITHOUT ROWID;
)";

// checksum() is FNV-1a: SQLite checks its own structure, not the text it holds.
std::int64_t checksum(std::string_view text) {
  fnv1a h;
  h.add(text);
  return static_cast<std::int64_t>(h.value());
}

using clock = std::chrono::system_clock;

std::int64_t to_ms(clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count();
}
clock::time_point from_ms(std::int64_t ms) {
  return clock::time_point{std::chrono::milliseconds{ms}};
}

revision_info info_of(const statement& row) {
  return {static_cast<revision_number>(row.integer(0)), from_ms(row.integer(1)), row.text(2),
          row.text(3)};
}

}  // namespace

struct state_store::connection {
  std::string path;
  database db;

  [[nodiscard]] tl::unexpected<std::string> fail(std::string_view what) const {
    return tl::unexpected{path + ": " + std::string{what}};
  }
  // sql_error() says what SQLite's last error means for the operator.
  [[nodiscard]] tl::unexpected<std::string> sql_error(std::string_view doing) const {
    const std::string what = db.message();
    switch (db.code() & 0xff) {
      case SQLITE_NOTADB:
      case SQLITE_CORRUPT:
        return fail("the state file is damaged (" + what +
                    "); move it away and restore a backup, or apply services.yaml again");
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
        return fail("is in use by another process; one control plane per file");
      case SQLITE_FULL:
        return fail("no space left on the device, while " + std::string{doing});
      default:
        return fail(what + ", while " + std::string{doing});
    }
  }

  result<void> prepare_file();
  result<void> check_schema();
  result<void> check_integrity();
  result<revision> revision_of(const statement& row) const;
  result<std::optional<revision>> select_one(const char* sql,
                                             std::optional<revision_number> number) const;
};

state_store::state_store(std::unique_ptr<connection> c) : connection_{std::move(c)} {}
state_store::state_store(state_store&&) noexcept = default;
state_store& state_store::operator=(state_store&&) noexcept = default;
state_store::~state_store() = default;

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
  if (!fresh && *version != schema_version)
    return fail("has the unknown schema " + std::to_string(*version));
  // WAL: a commit is one sequential write and one fsync. The mode sticks to the file.
  const auto mode = db.word("PRAGMA journal_mode=WAL");
  if (!mode) return sql_error("setting it up");
  if (*mode != "wal") return fail("cannot be put in WAL mode (it is in " + *mode + " mode)");
  if (!fresh) {
    // Takes the exclusive lock now rather than at the first commit.
    if (!db.run("BEGIN IMMEDIATE") || !db.run("COMMIT")) return sql_error("locking it");
    return {};
  }
  const std::string stamp = "PRAGMA application_id=" + std::to_string(application_id) +
                            "; PRAGMA user_version=" + std::to_string(schema_version) + ";";
  if (!db.run("BEGIN IMMEDIATE") || !db.run(schema) || !db.run(stamp.c_str()) || !db.run("COMMIT"))
    return sql_error("making its schema");
  return {};
}

result<void> state_store::connection::check_integrity() {
  const auto verdict_text = db.word("PRAGMA integrity_check(1)");
  if (!verdict_text) return sql_error("checking it");
  if (*verdict_text != "ok")
    return fail("the state file is damaged (" + *verdict_text +
                "); move it away and restore a backup, or apply services.yaml again");
  return {};
}

result<state_store> state_store::open(const std::string& path) {
  auto c = std::make_unique<connection>();
  c->path = path;
  return c->prepare_file()
      .and_then([&] { return c->check_schema(); })
      .and_then([&] { return c->check_integrity(); })
      .map([&] { return state_store{std::move(c)}; });
}

result<revision> state_store::connection::revision_of(const statement& row) const {
  revision out{info_of(row), {}};
  const std::string text = row.text(4);
  const std::string name = path + " revision " + std::to_string(out.info.number);
  if (checksum(text) != row.integer(5))
    return tl::unexpected{name + ": its checksum does not match; the state file is damaged"};
  // What was valid when it was committed is taken back whatever the node offers now.
  const config::context any{.max_services = std::numeric_limits<std::uint32_t>::max(),
                            .max_backends = std::numeric_limits<std::uint32_t>::max()};
  auto state = config::parse_services(text, name, any);
  if (!state) return tl::unexpected{sluice::to_string(state.error())};
  out.state = std::move(*state);
  return out;
}

result<std::optional<revision>> state_store::connection::select_one(
    const char* sql, std::optional<revision_number> number) const {
  statement row{db, sql};
  if (!row.ok()) return sql_error("reading a revision");
  if (number) row.bind(1, static_cast<std::int64_t>(*number));
  switch (row.step()) {
    case SQLITE_DONE:
      return std::nullopt;
    case SQLITE_ROW:
      break;
    default:
      return sql_error("reading a revision");
  }
  auto found = revision_of(row);
  if (!found) return tl::unexpected{found.error()};
  return std::optional{std::move(*found)};
}

result<std::optional<revision>> state_store::load_latest() const {
  return connection_->select_one(
      "SELECT number, time_ms, author, reason, state, checksum FROM revisions "
      "ORDER BY number DESC LIMIT 1",
      std::nullopt);
}

result<std::optional<revision>> state_store::get(revision_number number) const {
  if (number > static_cast<revision_number>(std::numeric_limits<std::int64_t>::max()))
    return std::nullopt;
  return connection_->select_one(
      "SELECT number, time_ms, author, reason, state, checksum FROM revisions WHERE number = ?1",
      number);
}

result<revision_number> state_store::commit(const model::desired_state& state,
                                            std::string_view author, std::string_view reason) {
  // A state that could not be read back would keep the next start from coming up.
  const config::context any{.max_services = std::numeric_limits<std::uint32_t>::max(),
                            .max_backends = std::numeric_limits<std::uint32_t>::max()};
  if (const auto errors = config::check(state, any); !errors.empty())
    return connection_->fail("not committed: " + sluice::to_string(errors));
  const std::string text = model::to_yaml(state);
  if (text.size() > yaml::max_bytes)
    return connection_->fail("not committed: the state has " + std::to_string(text.size()) +
                             " bytes; expected at most " + std::to_string(yaml::max_bytes));
  // One statement is one transaction: the next number cannot be taken in between.
  statement insert{connection_->db,
                   "INSERT INTO revisions (number, time_ms, author, reason, state, checksum) "
                   "SELECT coalesce(max(number), 0) + 1, ?1, ?2, ?3, ?4, ?5 FROM revisions "
                   "RETURNING number"};
  if (!insert.ok()) return connection_->sql_error("committing");
  insert.bind(1, to_ms(clock::now()));
  insert.bind(2, author);
  insert.bind(3, reason);
  insert.bind(4, std::string_view{text});
  insert.bind(5, checksum(text));
  if (insert.step() != SQLITE_ROW) return connection_->sql_error("committing");
  const auto number = static_cast<revision_number>(insert.integer(0));
  // With RETURNING the row comes first; the transaction ends with this step.
  if (insert.step() != SQLITE_DONE) return connection_->sql_error("committing");
  return number;
}

result<std::vector<revision_info>> state_store::history(std::size_t n) const {
  statement rows{connection_->db,
                 "SELECT number, time_ms, author, reason FROM revisions "
                 "ORDER BY number DESC LIMIT ?1"};
  if (!rows.ok()) return connection_->sql_error("reading the history");
  rows.bind(1, static_cast<std::int64_t>(std::min<std::size_t>(n, 1u << 30)));
  std::vector<revision_info> out;
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW) out.push_back(info_of(rows));
  if (code != SQLITE_DONE) return connection_->sql_error("reading the history");
  return out;
}

result<void> state_store::save_verdicts(const std::vector<verdict>& verdicts) {
  if (verdicts.empty()) return {};
  transaction all{connection_->db};
  statement put{connection_->db,
                "INSERT INTO verdicts (service, backend, healthy, since_ms) "
                "VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET "
                "healthy = excluded.healthy, since_ms = excluded.since_ms"};
  if (!all.ok() || !put.ok()) return connection_->sql_error("saving health verdicts");
  for (const verdict& v : verdicts) {
    const std::string backend = format_ip(v.backend);
    put.bind(1, std::string_view{v.service});
    put.bind(2, std::string_view{backend});
    put.bind(3, std::int64_t{v.healthy});
    put.bind(4, to_ms(v.since));
    if (put.step() != SQLITE_DONE) return connection_->sql_error("saving health verdicts");
    put.reset();
  }
  if (!all.commit()) return connection_->sql_error("saving health verdicts");
  return {};
}

result<void> state_store::forget_verdicts_except(const model::desired_state& state) {
  const auto all = load_verdicts();
  if (!all) return tl::unexpected{all.error()};
  transaction removal{connection_->db};
  statement remove{connection_->db, "DELETE FROM verdicts WHERE service = ?1 AND backend = ?2"};
  if (!removal.ok() || !remove.ok()) return connection_->sql_error("forgetting health verdicts");
  for (const verdict& v : *all) {
    const model::service* s = model::find_service(state, v.service);
    if (s && model::find_backend(*s, v.backend)) continue;
    const std::string backend = format_ip(v.backend);
    remove.bind(1, std::string_view{v.service});
    remove.bind(2, std::string_view{backend});
    if (remove.step() != SQLITE_DONE) return connection_->sql_error("forgetting health verdicts");
    remove.reset();
  }
  if (!removal.commit()) return connection_->sql_error("forgetting health verdicts");
  return {};
}

result<std::vector<verdict>> state_store::load_verdicts() const {
  statement rows{connection_->db,
                 "SELECT service, backend, healthy, since_ms FROM verdicts "
                 "ORDER BY service, backend"};
  if (!rows.ok()) return connection_->sql_error("reading health verdicts");
  std::vector<verdict> out;
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW) {
    const auto address = parse_ip(rows.text(1));
    // Only a hint of what was: one that cannot be read is as good as none.
    if (address)
      out.push_back({rows.text(0), *address, rows.integer(2) != 0, from_ms(rows.integer(3))});
  }
  if (code != SQLITE_DONE) return connection_->sql_error("reading health verdicts");
  return out;
}

}  // namespace sluice::store
