// SPDX-License-Identifier: Apache-2.0
// What is known of discovered backends, what backends have said of themselves, and what is known of
// this node. No part of the history.
#include "controlplane/store/connection.hpp"

namespace sluice::store {

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
