// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/admin_log.hpp"

#include <optional>
#include <set>

namespace sluice::reconcile {
namespace {

// More would keep a start waiting, for a state of ten thousands of backends.
constexpr std::size_t revisions_looked_at = 100;

model::admin_state admin_of(const model::desired_state& state, const std::string& service,
                            const ip_address& backend) {
  const model::service* s = model::find_service(state, service);
  const model::backend* b = s != nullptr ? model::find_backend(*s, backend) : nullptr;
  if (b != nullptr) return b->admin;
  return s != nullptr ? model::discovered_admin_of(*s, backend) : model::admin_state::enabled;
}

// for_each_admin_set() calls fn(service's name, backend) for those that are not simply enabled.
template <class Fn>
void for_each_admin_set(const model::desired_state& state, Fn&& fn) {
  for (const auto& s : state.services) {
    for (const auto& b : s.backends)
      if (b.admin != model::admin_state::enabled) fn(s.name, b);
    // What is configured goes first.
    for (const auto& d : s.discovered)
      if (model::find_backend(s, d.address) == nullptr) fn(s.name, d);
  }
}

}  // namespace

bool admin_log::concerns(const model::desired_state& before, const model::desired_state& after) {
  bool found = false;
  for_each_admin_set(after, [&](const std::string& service, const auto& b) {
    found |= admin_of(before, service, b.address) != b.admin;
  });
  return found;
}

void admin_log::note(const model::desired_state& before, const model::desired_state& after,
                     const entry& by) {
  entries next;
  for_each_admin_set(after, [&](const std::string& service, const auto& b) {
    const std::pair key{service, b.address};
    const auto known = entries_.find(key);
    if (admin_of(before, service, b.address) != b.admin)
      next.emplace(key, by);
    else if (known != entries_.end())
      next.insert(*known);
  });
  entries_ = std::move(next);
}

void admin_log::restore(state_keeper& keeper, const model::desired_state& latest) {
  std::set<std::pair<std::string, ip_address>> open;
  for_each_admin_set(
      latest, [&](const std::string& service, const auto& b) { open.emplace(service, b.address); });
  if (open.empty()) return;
  const auto history = keeper.history(revisions_looked_at);
  if (!history) return;
  for (const store::revision_info& info : *history) {
    if (open.empty()) return;
    const auto before = keeper.get(info.number - 1);
    // Of the first revision there is all of it; what is gone from the history is not known.
    if (!before || (!*before && info.number != 1)) return;
    const model::desired_state state = *before ? (*before)->state : model::desired_state{};
    std::erase_if(open, [&](const auto& key) {
      if (admin_of(state, key.first, key.second) == admin_of(latest, key.first, key.second))
        return false;
      entries_[key] = {info.number, info.time, info.author, info.reason};
      return true;
    });
  }
}

}  // namespace sluice::reconcile
