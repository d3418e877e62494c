// SPDX-License-Identifier: Apache-2.0
#include "dataplane/placement/plan.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "dataplane/abi/version.hpp"

namespace sluice::placement {
namespace {

constexpr std::size_t longest_reason = 63;  // worker_block::placement

struct home_node {
  int node{-1};
  std::string why;
};

home_node find_home(const topology& machine, std::span<const port_place> ports) {
  std::map<int, std::set<unsigned>> cores;
  for (const cpu& c : machine.cpus) cores[c.numa_node].insert(c.core);
  std::map<int, unsigned> votes;
  for (const port_place& p : ports)
    if (p.numa_node >= 0 && cores.contains(p.numa_node)) ++votes[p.numa_node];
  home_node home;
  unsigned most = 0;
  for (const auto& [node, count] : votes)
    if (count > most) most = count, home.node = node;
  if (most > 0) {
    const auto first = std::ranges::find(ports, home.node, &port_place::numa_node);
    home.why = "node " + std::to_string(home.node) + " of port " + first->name;
    return home;
  }
  std::size_t widest = 0;
  for (const auto& [node, of_node] : cores)
    if (of_node.size() > widest) widest = of_node.size(), home.node = node;
  home.why = home.node < 0 ? "no NUMA" : "node " + std::to_string(home.node);
  return home;
}

// one_per_core() returns the first CPU of each core, in the order of the cores; of a core
// with isolated CPUs the first of those.
std::vector<cpu> one_per_core(const topology& machine) {
  std::map<unsigned, cpu> cores;
  for (const cpu& c : machine.cpus) {
    const auto [it, fresh] = cores.emplace(c.core, c);
    if (!fresh && c.isolated && !it->second.isolated) it->second = c;
  }
  std::vector<cpu> out;
  for (const auto& [core, c] : cores) out.push_back(c);
  return out;
}

worker_place place(const cpu& c, std::string reason) {
  if (reason.size() > longest_reason) reason.resize(longest_reason);
  return {c.number, c.numa_node, std::move(reason)};
}

// rank: the order in which cores are given to workers.
enum class rank : std::uint8_t { home_isolated, home, away, left_to_linux };

struct candidate {
  cpu where;
  rank worth;
};

std::vector<candidate> candidates(const topology& machine, int home) {
  const std::vector<cpu> cores = one_per_core(machine);
  std::map<int, unsigned> cores_of;
  std::map<int, bool> has_isolated;
  for (const cpu& c : cores) {
    ++cores_of[c.numa_node];
    has_isolated[c.numa_node] |= c.isolated;
  }
  std::set<int> seen;
  std::vector<candidate> out;
  for (const cpu& c : cores) {
    const bool first_of_node = seen.insert(c.numa_node).second;
    rank worth = c.numa_node == home ? rank::home : rank::away;
    if (has_isolated[c.numa_node]) {
      if (!c.isolated)
        worth = rank::left_to_linux;
      else if (c.numa_node == home)
        worth = rank::home_isolated;
    } else if (first_of_node && (cores_of[c.numa_node] > 1 || c.numa_node != home)) {
      worth = rank::left_to_linux;
    }
    out.push_back({c, worth});
  }
  std::ranges::stable_sort(out, {}, &candidate::worth);
  return out;
}

std::string reason_for(const candidate& c, const home_node& home) {
  const std::string core = "core " + std::to_string(c.where.core);
  switch (c.worth) {
    case rank::home_isolated:
      return core + ", isolated, " + home.why;
    case rank::home:
      return core + ", " + home.why;
    case rank::away:
      return core + ", node " + std::to_string(c.where.numa_node) + ": home node is full";
    case rank::left_to_linux:
      break;
  }
  return core + ", shared with Linux: no other core is left";
}

void fill_others(worker_plan& plan, const topology& machine) {
  std::set<unsigned> used;
  std::set<unsigned> used_cores;
  for (const worker_place& w : plan.workers) {
    used.insert(w.cpu);
    if (const cpu* c = machine.find(w.cpu)) used_cores.insert(c->core);
  }
  plan.others.clear();
  // Best: CPUs of other cores, not isolated. Then anything that no worker has. Then all.
  for (int attempt = 0; attempt < 3 && plan.others.empty(); ++attempt)
    for (const cpu& c : machine.cpus)
      if (attempt == 2 || (!used.contains(c.number) &&
                           (attempt == 1 || (!used_cores.contains(c.core) && !c.isolated))))
        plan.others.push_back(c.number);
}

tl::expected<worker_plan, std::string> plan_list(const topology& machine, const home_node& home,
                                                 const std::vector<unsigned>& list) {
  worker_plan plan;
  std::map<unsigned, unsigned> core_user;
  std::vector<unsigned> known;
  for (const cpu& c : machine.cpus) known.push_back(c.number);
  for (const unsigned number : list) {
    const cpu* c = machine.find(number);
    if (c == nullptr)
      return tl::unexpected{
          "workers: CPU " + std::to_string(number) +
          " does not exist or may not be used; there are: " + format_cpu_list(known)};
    if (const auto [it, fresh] = core_user.emplace(c->core, number); !fresh)
      plan.notes.push_back("CPUs " + std::to_string(it->second) + " and " + std::to_string(number) +
                           " are siblings of one core: their workers slow each other down");
    if (home.node >= 0 && c->numa_node != home.node)
      plan.notes.push_back("CPU " + std::to_string(number) + " is on NUMA node " +
                           std::to_string(c->numa_node) + ", the ports are on " + home.why);
    plan.workers.push_back(place(
        *c, "as listed in workers, core " + std::to_string(c->core) +
                (c->numa_node >= 0 ? ", node " + std::to_string(c->numa_node) : std::string{})));
  }
  return plan;
}

}  // namespace

tl::expected<worker_plan, std::string> plan_workers(const topology& machine,
                                                    std::span<const port_place> ports,
                                                    const workers_config& wish) {
  if (machine.cpus.empty()) return tl::unexpected{std::string{"no CPU may be used"}};
  const home_node home = find_home(machine, ports);
  worker_plan plan;
  if (wish.selection == worker_selection::list) {
    auto listed = plan_list(machine, home, wish.cpus);
    if (!listed) return listed;
    plan = std::move(*listed);
  } else {
    const std::vector<candidate> all = candidates(machine, home.node);
    std::size_t wanted = wish.count;
    if (wish.selection == worker_selection::automatic) {
      // The best rank there is on the home node: a machine of one core has only shared ones.
      wanted = static_cast<std::size_t>(std::ranges::count_if(all, [&all](const candidate& c) {
        return c.worth == all.front().worth && c.worth <= rank::home;
      }));
      wanted = std::max<std::size_t>(wanted, 1);
    } else if (wanted > all.size()) {
      return tl::unexpected{"workers: " + std::to_string(wanted) + " do not fit: there are " +
                            std::to_string(all.size()) +
                            " cores, and workers do not share a core; a CPU list would force it"};
    }
    for (std::size_t i = 0; i < wanted; ++i)
      plan.workers.push_back(place(all[i].where, reason_for(all[i], home)));
  }
  if (plan.workers.empty()) return tl::unexpected{std::string{"workers: at least one is needed"}};
  for (const port_place& p : ports)
    if (p.numa_node >= 0 && home.node >= 0 && p.numa_node != home.node)
      plan.notes.push_back("port " + p.name + " is on NUMA node " + std::to_string(p.numa_node) +
                           ", the workers are placed for " + home.why);
  if (plan.workers.size() > abi::max_workers) {
    plan.notes.push_back("more than " + std::to_string(abi::max_workers) +
                         " workers are not supported");
    plan.workers.resize(abi::max_workers);
  }
  fill_others(plan, machine);
  if (std::ranges::any_of(plan.others, [&plan](unsigned c) {
        return std::ranges::find(plan.workers, c, &worker_place::cpu) != plan.workers.end();
      }))
    plan.notes.emplace_back("no CPU is left to Linux: set idle to yield or sleep");
  return plan;
}

void drop_workers(worker_plan& plan, const topology& machine, std::size_t count) {
  if (count >= plan.workers.size() || count == 0) return;
  plan.workers.resize(count);
  fill_others(plan, machine);
}

}  // namespace sluice::placement
