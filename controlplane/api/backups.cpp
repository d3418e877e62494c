// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/backups.hpp"

#include <chrono>
#include <utility>

namespace sluice::api {
namespace {

json time_json(std::int64_t ms) {
  if (ms == 0) return nullptr;
  return rfc3339(std::chrono::system_clock::time_point{std::chrono::milliseconds{ms}});
}

// is_path() takes what means the same to the client and to this process.
bool is_path(const std::string& text) {
  return text.size() > 1 && text.front() == '/' && text.find('\0') == text.npos;
}

std::string_view word(reconcile::copy_state s) {
  switch (s) {
    case reconcile::copy_state::none:
      break;
    case reconcile::copy_state::done:
      return "done";
    case reconcile::copy_state::queued:
      return "queued";
  }
  return "none";
}

}  // namespace

reply make_backup(reconcile::backup_keeper& keeper, const request& r) {
  reconcile::backup_request wanted;
  const auto kind = backup::kind_of(r.parameter("kind").value_or(""));
  if (!kind) return refuse(400, "is full, incremental or differential", "kind");
  wanted.kind = *kind;
  wanted.to = r.parameter("to").value_or("");
  if (!is_path(wanted.to)) return refuse(400, "is the absolute path of a directory", "to");
  if (const auto copy_to = r.parameter("copy_to")) {
    if (!is_path(*copy_to)) return refuse(400, "is the absolute path of a directory", "copy_to");
    wanted.copy_to = *copy_to;
  }
  const std::string mode = r.parameter("copy").value_or("sync");
  if (mode != "sync" && mode != "async") return refuse(400, "is sync or async", "copy");
  wanted.copy = mode == "sync" ? copy_mode::sync : copy_mode::async;
  const auto done = keeper.create(wanted);
  // Not the request is wrong, and not this program: the directory, or the disk.
  if (!done) return refuse(409, done.error());
  return ok({{"created", done->backup.fresh},
             {"copy", std::string{word(done->copy)}},
             {"backup", backup::to_json(done->backup.made.about)}});
}

reply show_backups(reconcile::backup_keeper& keeper, const node_config& node) {
  const auto& config = node.controlplane.backup;
  const auto state = keeper.schedule();
  json list = json::array();
  json problems = keeper.problems();
  if (!config.to.empty()) {
    if (const auto d = backup::directory::read(config.to)) {
      for (const auto& e : d->entries()) list.push_back(backup::to_json(e.about));
      for (const auto& p : d->problems()) problems.push_back(p);
    } else {
      problems.push_back(d.error());
    }
  }
  return ok({{"to", config.to.empty() ? json() : json(config.to)},
             {"copy_to", config.copy_to.empty() ? json() : json(config.copy_to)},
             {"last", time_json(state.last_ms)},
             {"next", time_json(state.next_ms)},
             {"problems", std::move(problems)},
             {"backups", std::move(list)}});
}

}  // namespace sluice::api
