// SPDX-License-Identifier: Apache-2.0
// What is known of discovered backends, what backends have said of themselves, and what is known of
// this node. No part of the history.
#include <algorithm>
#include <array>

#include "controlplane/store/connection.hpp"

namespace sluice::store {
namespace {

// A table that is made in schema.cpp and not read here, nor part of the history, would be missing
// in backups: backup_test compares all of them.
constexpr std::array<std::string_view, 2> by_service_tables{"discovered", "reports"};
constexpr std::string_view facts_table = "facts";
// Facts that say what the history is; those of a backup are in its manifest.
constexpr std::array<std::string_view, 2> facts_of_history{"lineage", "anchor"};

bool is_in(const auto& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

result<void> state_store::connection::save_texts(const char* table,
                                                 const state_store::texts& by_service) const {
  const auto failed = [&] { return sql_error(std::string{"saving to "} + table); };
  transaction all{db};
  const std::string insert = std::string{"INSERT INTO "} + table +
                             " (service, body) VALUES (?1, ?2) "
                             "ON CONFLICT DO UPDATE SET body = excluded.body";
  const std::string erase = std::string{"DELETE FROM "} + table + " WHERE service = ?1";
  statement put{db, insert.c_str()};
  statement remove{db, erase.c_str()};
  if (!all.ok() || !put.ok() || !remove.ok()) return failed();
  for (const auto& [service, body] : by_service) {
    statement& s = body.empty() ? remove : put;
    s.bind(1, std::string_view{service});
    if (!body.empty()) s.bind(2, std::string_view{body});
    if (s.step() != SQLITE_DONE) return failed();
    s.reset();
  }
  if (!all.commit()) return failed();
  return {};
}

auto state_store::connection::load_texts(const char* table) const -> result<state_store::texts> {
  const std::string select = std::string{"SELECT service, body FROM "} + table;
  statement rows{db, select.c_str()};
  if (!rows.ok()) return sql_error(std::string{"reading "} + table);
  state_store::texts out;
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW) out.emplace(rows.text(0), rows.text(1));
  if (code != SQLITE_DONE) return sql_error(std::string{"reading "} + table);
  return out;
}

result<void> state_store::save_discovered(const texts& by_service) {
  return connection_->save_texts("discovered", by_service);
}
auto state_store::load_discovered() const -> result<texts> {
  return connection_->load_texts("discovered");
}
result<void> state_store::save_reports(const texts& by_service) {
  return connection_->save_texts("reports", by_service);
}
auto state_store::load_reports() const -> result<texts> {
  return connection_->load_texts("reports");
}

bool state_store::is_side_table(std::string_view name) noexcept {
  return name == facts_table || is_in(by_service_tables, name);
}

auto state_store::load_side_tables() const -> result<side_tables> {
  side_tables out;
  for (const std::string_view table : by_service_tables) {
    auto some = connection_->load_texts(std::string{table}.c_str());
    if (!some) return tl::unexpected{some.error()};
    if (!some->empty()) out.emplace(table, std::move(*some));
  }
  statement rows{connection_->db, "SELECT name, value FROM facts"};
  if (!rows.ok()) return connection_->sql_error("reading facts");
  texts facts;
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW)
    if (!is_in(facts_of_history, rows.text(0))) facts.emplace(rows.text(0), rows.text(1));
  if (code != SQLITE_DONE) return connection_->sql_error("reading facts");
  if (!facts.empty()) out.emplace(facts_table, std::move(facts));
  return out;
}

result<void> state_store::save_side_tables(const side_tables& tables) {
  for (const auto& [table, rows] : tables) {
    if (!is_side_table(table)) return connection_->fail("has no table '" + table + "'");
    if (table != facts_table) {
      if (auto saved = connection_->save_texts(table.c_str(), rows); !saved) return saved;
      continue;
    }
    for (const auto& [name, value] : rows) {
      if (is_in(facts_of_history, name)) continue;
      if (auto kept = remember(name.c_str(), value); !kept) return kept;
    }
  }
  return {};
}

result<void> state_store::remember(const char* name, std::string_view text) {
  transaction all{connection_->db};
  if (!all.ok() || !connection_->set_fact(name, text) || !all.commit())
    return connection_->sql_error("remembering something");
  return {};
}

std::string state_store::remembered(const char* name) const {
  return connection_->fact(name);
}

}  // namespace sluice::store
