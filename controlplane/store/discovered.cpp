// SPDX-License-Identifier: Apache-2.0
// What is known of discovered backends, and of this node. No part of the history.
#include "controlplane/store/connection.hpp"

namespace sluice::store {

result<void> state_store::save_discovered(const discovered_texts& by_service) {
  const auto failed = [&] { return connection_->sql_error("saving discovered backends"); };
  transaction all{connection_->db};
  statement put{connection_->db,
                "INSERT INTO discovered (service, body) VALUES (?1, ?2) "
                "ON CONFLICT DO UPDATE SET body = excluded.body"};
  statement remove{connection_->db, "DELETE FROM discovered WHERE service = ?1"};
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

auto state_store::load_discovered() const -> result<discovered_texts> {
  statement rows{connection_->db, "SELECT service, body FROM discovered"};
  if (!rows.ok()) return connection_->sql_error("reading discovered backends");
  discovered_texts out;
  int code = 0;
  while ((code = rows.step()) == SQLITE_ROW) out.emplace(rows.text(0), rows.text(1));
  if (code != SQLITE_DONE) return connection_->sql_error("reading discovered backends");
  return out;
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
