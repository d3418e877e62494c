// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/list_keeper.hpp"

#include <sys/stat.h>

#include <set>
#include <utility>

#include <spdlog/spdlog.h>

namespace sluice::reconcile {
namespace {

template <class Fn>
void for_each_set(const model::desired_state& state, Fn&& fn) {
  for (const auto& s : state.services)
    for (const auto* set : {&s.allow, &s.deny})
      if (set->given()) fn(*set);
}

}  // namespace

auto list_keeper::stamp_of(const std::string& path) -> stamp {
  struct stat s {};
  if (path.empty() || ::stat(path.c_str(), &s) != 0) return {};
  return {s.st_dev, s.st_ino, static_cast<std::uint64_t>(s.st_size),
          static_cast<std::uint64_t>(s.st_mtim.tv_sec) * 1'000'000'000u +
              static_cast<std::uint64_t>(s.st_mtim.tv_nsec)};
}

auto list_keeper::read(const model::prefix_set& set) -> reading {
  // The stamp first: what is written meanwhile is seen as a change later.
  const stamp seen = stamp_of(set.file);
  return {set, seen, lists::load(set)};
}

lists::result<void> list_keeper::prepare(const model::desired_state& state) {
  std::set<model::prefix_set, order> missing;
  {
    const std::lock_guard lock{mutex_};
    for_each_set(state, [&](const auto& set) {
      if (!entries_.contains(set)) missing.insert(set);
    });
  }
  std::vector<config_error> errors;
  for (const auto& set : missing) {
    reading r = read(set);
    if (!r.content) {
      errors.insert(errors.end(), r.content.error().begin(), r.content.error().end());
      continue;
    }
    const std::lock_guard lock{mutex_};
    entries_.insert_or_assign(set, entry{std::move(*r.content), r.seen, {}});
  }
  if (!errors.empty()) return tl::unexpected{std::move(errors)};
  return {};
}

lists::shared_ranges list_keeper::find(const model::prefix_set& set, const content_before& before) {
  if (!set.given()) return nullptr;
  const std::lock_guard lock{mutex_};
  auto [at, fresh] = entries_.try_emplace(set);
  if (fresh) {
    reading r = read(set);
    at->second.seen = r.seen;
    if (r.content) {
      at->second.content = std::move(*r.content);
    } else {
      at->second.content = before ? before() : nullptr;
      at->second.problem =
          r.content.error().front().to_string() +
          (at->second.content ? " (the list stays as it was before)" : " (the list holds nobody)");
      if (!at->second.content) at->second.content = std::make_shared<const lists::range_set>();
      spdlog::error("{}", at->second.problem);
    }
  }
  return at->second.content;
}

void list_keeper::keep_only(const model::desired_state& state) {
  std::set<model::prefix_set, order> wanted;
  for_each_set(state, [&](const auto& set) { wanted.insert(set); });
  const std::lock_guard lock{mutex_};
  std::erase_if(entries_, [&](const auto& e) { return !wanted.contains(e.first); });
  for (auto& [set, e] : entries_)
    if (std::exchange(e.again, false)) e.seen = {};
}

bool list_keeper::refresh() {
  bool news = false;
  if (pending_.valid()) {
    if (pending_.wait_for(std::chrono::seconds{0}) != std::future_status::ready) return false;
    {
      const std::lock_guard lock{mutex_};
      for (auto& [set, e] : entries_) e.before = nullptr;
    }
    for (reading& r : pending_.get()) {
      const std::lock_guard lock{mutex_};
      const auto at = entries_.find(r.set);
      if (at == entries_.end()) continue;
      at->second.seen = r.seen;
      if (!r.content) {
        at->second.problem =
            r.content.error().front().to_string() + " (the list stays as it was before)";
        spdlog::error("{}", at->second.problem);
        continue;
      }
      at->second.problem.clear();
      if (**r.content == *at->second.content) continue;
      spdlog::info("{}: read again, {} ranges", r.set.file, (*r.content)->size());
      at->second.before = std::exchange(at->second.content, std::move(*r.content));
      news = true;
    }
  }
  std::vector<model::prefix_set> changed;
  {
    const std::lock_guard lock{mutex_};
    for (const auto& [set, e] : entries_)
      if (!set.file.empty() && stamp_of(set.file) != e.seen) changed.push_back(set);
  }
  if (!changed.empty())
    pending_ = std::async(std::launch::async, [changed = std::move(changed)] {
      std::vector<reading> out;
      for (const auto& set : changed) out.push_back(read(set));
      return out;
    });
  return news;
}

void list_keeper::undo(const std::string& why) {
  const std::lock_guard lock{mutex_};
  for (auto& [set, e] : entries_) {
    if (!e.before) continue;
    e.content = std::exchange(e.before, nullptr);
    e.again = true;
    e.problem = set.file + ": " + why + " (the list stays as it was before)";
    spdlog::error("{}", e.problem);
  }
}

std::vector<std::string> list_keeper::problems() const {
  std::vector<std::string> out;
  const std::lock_guard lock{mutex_};
  for (const auto& [set, e] : entries_)
    if (!e.problem.empty()) out.push_back(e.problem);
  return out;
}

}  // namespace sluice::reconcile
