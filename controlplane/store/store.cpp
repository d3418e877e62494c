// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/store.hpp"

#include <algorithm>
#include <limits>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "controlplane/store/connection.hpp"

namespace sluice::store {
namespace {

using clock = std::chrono::system_clock;

// A revision is put together from at most this many others. Reading the newest of 100
// takes as long as one fsync; twice as many would save 1% of the file.
constexpr revision_number most_deltas = 100;

// What was valid when it was committed is taken back whatever the node offers now.
constexpr config::context any_node{.max_services = std::numeric_limits<std::uint32_t>::max(),
                                   .max_backends = std::numeric_limits<std::uint32_t>::max()};

revision_info info_of(const revision_record& r) {
  return {r.number, from_ms(r.time_ms), r.author, r.reason, r.changes};
}

bool fits(revision_number n) noexcept {
  return n <= static_cast<revision_number>(std::numeric_limits<std::int64_t>::max());
}

}  // namespace

std::optional<revision_record> record_of(const statement& row) {
  const auto text = from_bytes(row.text(7));
  const auto all = from_bytes(row.text(8));
  if (!text || !all) return std::nullopt;
  revision_record r;
  r.number = static_cast<revision_number>(row.integer(0));
  r.time_ms = row.integer(1);
  r.author = row.text(2);
  r.reason = row.text(3);
  if (!row.is_null(4)) r.changes = static_cast<std::uint32_t>(row.integer(4));
  r.keyframe = static_cast<revision_number>(row.integer(5));
  r.body = row.text(6);
  r.text_digest = *text;
  r.chain_digest = *all;
  return r;
}

state_store::state_store(std::unique_ptr<connection> c) : connection_{std::move(c)} {}
state_store::state_store(state_store&&) noexcept = default;
state_store& state_store::operator=(state_store&&) noexcept = default;
state_store::~state_store() = default;

result<state_store> state_store::open(const std::string& path, std::size_t keep) {
  auto c = std::make_unique<connection>();
  c->path = path;
  c->keep = keep;
  return c->prepare_file()
      .and_then([&] { return c->check_schema(); })
      .and_then([&] { return c->check_integrity(); })
      .map([&] { return state_store{std::move(c)}; });
}

const std::string& state_store::path() const noexcept {
  return connection_->path;
}

result<state_store> state_store::import(const std::string& path, const history_bounds& bounds,
                                        const std::vector<revision_record>& revisions) {
  auto file = open(path);
  if (!file) return file;
  const connection& c = *file->connection_;
  if (const auto before = file->bounds(); !before || before->last != 0)
    return c.fail("holds a history already");
  transaction all{c.db};
  if (!all.ok() || !c.set_fact("lineage", bounds.lineage) ||
      !c.set_fact("anchor", to_hex(bounds.anchor)))
    return c.sql_error("importing");
  for (const revision_record& r : revisions)
    if (auto put = c.insert(r); !put) return tl::unexpected{put.error()};
  if (!all.commit()) return c.sql_error("importing");
  return file;
}

template <class Fn>
result<void> state_store::connection::texts(revision_number first, revision_number last,
                                            Fn&& fn) const {
  statement rows{db, (std::string{"SELECT "} + record_columns +
                      " FROM revisions WHERE number >= (SELECT keyframe FROM revisions WHERE "
                      "number = ?1) AND number <= ?2 ORDER BY number")
                         .c_str()};
  if (!rows.ok()) return sql_error("reading a revision");
  rows.bind(1, static_cast<std::int64_t>(first));
  rows.bind(2, static_cast<std::int64_t>(last));
  text_reader reader;
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW) {
    const auto record = record_of(rows);
    if (!record) return fail("a digest is missing; the state file is damaged");
    const auto text = reader.next(*record);
    if (!text) return tl::unexpected{path + " " + text.error() + "; the state file is damaged"};
    if (record->number >= first) fn(*record, *text);
  }
  if (code != SQLITE_DONE) return sql_error("reading a revision");
  return {};
}

result<void> state_store::connection::load_tail() {
  if (newest) return {};
  const auto last = db.number("SELECT coalesce(max(number), 0) FROM revisions");
  if (!last) return sql_error("reading the newest revision");
  tail at;
  at.chain_digest = anchor();
  const auto number = static_cast<revision_number>(*last);
  const auto key = db.number("SELECT keyframe FROM revisions ORDER BY number DESC LIMIT 1");
  if (number != 0 && !key) return sql_error("reading the newest revision");
  if (number != 0) {
    auto read = texts(static_cast<revision_number>(*key), number,
                      [&](const revision_record& r, std::string_view text) {
                        at.number = r.number;
                        at.keyframe = r.keyframe;
                        if (r.keyframe == r.number)
                          at.keyframe_bytes = r.body.size();
                        else
                          at.delta_bytes += r.body.size();
                        if (r.number == number) at.text = text;
                        at.chain_digest = r.chain_digest;
                      });
    if (!read) return read;
  }
  newest = std::move(at);
  return {};
}

result<std::optional<revision>> state_store::connection::load(revision_number number) const {
  std::optional<revision> out;
  std::string yaml_text;
  auto read = texts(number, number, [&](const revision_record& r, std::string_view text) {
    out = revision{info_of(r), {}};
    yaml_text = text;
  });
  if (!read) return tl::unexpected{read.error()};
  if (!out) return std::nullopt;
  auto state =
      config::parse_services(yaml_text, path + " revision " + std::to_string(number), any_node);
  if (!state) return tl::unexpected{sluice::to_string(state.error())};
  out->state = std::move(*state);
  return out;
}

result<std::optional<revision>> state_store::load_latest() const {
  const auto last = connection_->db.number("SELECT coalesce(max(number), 0) FROM revisions");
  if (!last) return connection_->sql_error("reading a revision");
  return connection_->load(static_cast<revision_number>(*last));
}

result<std::optional<revision>> state_store::get(revision_number number) const {
  if (!fits(number)) return std::nullopt;
  return connection_->load(number);
}

result<revision_record> state_store::connection::make_record(std::string_view text,
                                                             tail& at) const {
  revision_record r;
  r.number = at.number + 1;
  r.text_digest = sha256(text);
  const bool alone = at.keyframe == 0 || r.number - at.keyframe >= most_deltas ||
                     at.delta_bytes > at.keyframe_bytes * 2;
  r.keyframe = alone ? r.number : at.keyframe;
  auto body = pack(text, alone ? std::string_view{} : std::string_view{at.text});
  if (!body) return fail("a revision cannot be packed: " + body.error());
  r.body = std::move(*body);
  at.number = r.number;
  at.keyframe = r.keyframe;
  if (alone) at.keyframe_bytes = r.body.size();
  at.delta_bytes = alone ? 0 : at.delta_bytes + r.body.size();
  at.text = text;
  return r;
}

result<void> state_store::connection::insert(const revision_record& r) const {
  statement put{db, (std::string{"INSERT INTO revisions ("} + record_columns +
                     ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")
                        .c_str()};
  if (!put.ok()) return sql_error("committing");
  put.bind(1, static_cast<std::int64_t>(r.number));
  put.bind(2, r.time_ms);
  put.bind(3, std::string_view{r.author});
  put.bind(4, std::string_view{r.reason});
  if (r.changes)
    put.bind(5, std::int64_t{*r.changes});
  else
    put.bind_null(5);
  put.bind(6, static_cast<std::int64_t>(r.keyframe));
  put.bind_blob(7, r.body);
  put.bind_blob(8, bytes_of(r.text_digest));
  put.bind_blob(9, bytes_of(r.chain_digest));
  if (put.step() != SQLITE_DONE) return sql_error("committing");
  return {};
}

// prune() removes the groups (a keyframe and what builds on it) of which no revision has
// to be kept.
result<void> state_store::connection::prune() const {
  const revision_number last = newest->number;
  if (keep == 0 || last <= keep) return {};
  statement find{db, "SELECT keyframe FROM revisions WHERE number = ?1"};
  if (!find.ok()) return sql_error("forgetting old revisions");
  find.bind(1, static_cast<std::int64_t>(last - keep + 1));
  if (find.step() != SQLITE_ROW) return {};  // forgotten already
  const std::int64_t first = find.integer(0);
  find.reset();
  statement before{db, "SELECT chain_digest FROM revisions WHERE number = ?1"};
  if (!before.ok()) return sql_error("forgetting old revisions");
  before.bind(1, first - 1);
  if (before.step() != SQLITE_ROW) return {};
  const auto digest_before = from_bytes(before.text(0));
  before.reset();
  statement remove{db, "DELETE FROM revisions WHERE number < ?1"};
  if (!digest_before || !remove.ok()) return sql_error("forgetting old revisions");
  remove.bind(1, first);
  if (!set_fact("anchor", to_hex(*digest_before)) || remove.step() != SQLITE_DONE)
    return sql_error("forgetting old revisions");
  return {};
}

result<revision_number> state_store::commit(const model::desired_state& state,
                                            std::string_view author, std::string_view reason,
                                            std::optional<std::uint32_t> changes) {
  // A state that could not be read back would keep the next start from coming up.
  if (const auto errors = config::check(state, any_node); !errors.empty())
    return connection_->fail("not committed: " + sluice::to_string(errors));
  const std::string text = model::to_yaml(state);
  if (text.size() > yaml::max_bytes)
    return connection_->fail("not committed: the state has " + std::to_string(text.size()) +
                             " bytes; expected at most " + std::to_string(yaml::max_bytes));
  if (auto known = connection_->load_tail(); !known) return tl::unexpected{known.error()};
  tail next = *connection_->newest;
  auto record = connection_->make_record(text, next);
  if (!record) return tl::unexpected{record.error()};
  record->time_ms = to_ms(clock::now());
  record->author = author;
  record->reason = reason;
  record->changes = changes;
  record->chain_digest = chain(next.chain_digest, *record);
  next.chain_digest = record->chain_digest;

  transaction all{connection_->db};
  if (!all.ok()) return connection_->sql_error("committing");
  if (auto put = connection_->insert(*record); !put) return tl::unexpected{put.error()};
  std::swap(*connection_->newest, next);
  // Old revisions go a group at a time, so only a new group can have made one too many.
  if (record->keyframe == record->number) {
    if (auto pruned = connection_->prune(); !pruned) {
      std::swap(*connection_->newest, next);
      return tl::unexpected{pruned.error()};
    }
  }
  if (!all.commit()) {
    std::swap(*connection_->newest, next);
    return connection_->sql_error("committing");
  }
  return record->number;
}

result<std::vector<revision_info>> state_store::history(std::size_t n) const {
  statement rows{connection_->db,
                 "SELECT number, time_ms, author, reason, changes FROM revisions "
                 "ORDER BY number DESC LIMIT ?1"};
  if (!rows.ok()) return connection_->sql_error("reading the history");
  rows.bind(1, static_cast<std::int64_t>(std::min<std::size_t>(n, 1u << 30)));
  std::vector<revision_info> out;
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW) {
    revision_info i{static_cast<revision_number>(rows.integer(0)), from_ms(rows.integer(1)),
                    rows.text(2), rows.text(3), std::nullopt};
    if (!rows.is_null(4)) i.changes = static_cast<std::uint32_t>(rows.integer(4));
    out.push_back(std::move(i));
  }
  if (code != SQLITE_DONE) return connection_->sql_error("reading the history");
  return out;
}

result<std::vector<revision_record>> state_store::records(revision_number first,
                                                          std::size_t n) const {
  std::vector<revision_record> out;
  if (!fits(first)) return out;
  statement rows{connection_->db, (std::string{"SELECT "} + record_columns +
                                   " FROM revisions WHERE number >= ?1 ORDER BY number LIMIT ?2")
                                      .c_str()};
  if (!rows.ok()) return connection_->sql_error("reading revisions");
  rows.bind(1, static_cast<std::int64_t>(first));
  rows.bind(2, static_cast<std::int64_t>(std::min<std::size_t>(n, 1u << 30)));
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW) {
    auto record = record_of(rows);
    if (!record) return connection_->fail("a digest is missing; the state file is damaged");
    out.push_back(std::move(*record));
  }
  if (code != SQLITE_DONE) return connection_->sql_error("reading revisions");
  return out;
}

result<history_bounds> state_store::bounds() const {
  history_bounds out;
  out.lineage = connection_->fact("lineage");
  out.anchor = connection_->anchor();
  const auto first = connection_->db.number("SELECT coalesce(min(number), 0) FROM revisions");
  const auto last = connection_->db.number("SELECT coalesce(max(number), 0) FROM revisions");
  if (!first || !last || out.lineage.empty()) return connection_->sql_error("reading its history");
  out.first = static_cast<revision_number>(*first);
  out.last = static_cast<revision_number>(*last);
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
