// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/announcer.hpp"

#include <cstdio>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include <spdlog/spdlog.h>

#include "dataplane/abi/whole_file.hpp"

namespace sluice::reconcile {
namespace {

// Somebody may take away what is ours.
constexpr auto mend_every = std::chrono::seconds{1};
constexpr std::size_t longest_record = 16u << 20;

std::string record_of(const node_config& node) {
  return node.runtime_dir + "/announced";
}

// take_away() ends what a run with another configuration has begun.
void take_away(const std::string& interface, const std::set<ip_address>& addresses) {
  try {
    neighbour::interface_addresses there{interface};
    for (const auto& a : addresses)
      if (const std::string why = there.remove(a); !why.empty())
        spdlog::warn("{} stays on {}: {}", format_ip(a), interface, why);
  } catch (const std::system_error& e) {
    spdlog::warn("{} addresses stay on {}: {}", addresses.size(), interface, e.what());
  }
}

}  // namespace

announcer::announcer(const node_config& node, events::event_log& events)
    : node_{node}, events_{events} {
  if (node_.controlplane.announce) {
    try {
      addresses_ =
          std::make_unique<neighbour::interface_addresses>(node_.controlplane.announce->interface);
    } catch (const std::system_error& e) {
      problem_ = std::string{"nothing is announced: "} + e.what();
    }
  }
  recall();
}

// recall() reads a line for each interface: its name, and the addresses that were put there.
void announcer::recall() {
  const auto text = read_whole_file(record_of(node_), longest_record, file_kinds::regular);
  if (!text) return;
  std::istringstream words{*text};
  std::string interface;
  if (!(words >> interface)) return;
  std::set<ip_address> addresses;
  for (std::string word; words >> word;)
    if (const auto a = parse_ip(word)) addresses.insert(*a);
  if (addresses_ && interface == node_.controlplane.announce->interface) {
    ours_ = std::move(addresses);
    // The data plane may be on its way back, as we are.
    if (!ours_.empty()) memory_ = {true, true, true, decision::time_point::clock::now()};
    return;
  }
  take_away(interface, addresses);
  std::remove(record_of(node_).c_str());
}

bool announcer::remember(const std::set<ip_address>& addresses) {
  const std::string path = record_of(node_);
  const std::string beside = path + ".new";
  {
    std::ofstream file{beside, std::ios::trunc};
    file << node_.controlplane.announce->interface << '\n';
    for (const auto& a : addresses) file << format_ip(a) << '\n';
    if (!file.flush()) {
      problem_ = beside + ": cannot be written; what is announced stays as it is";
      return false;
    }
  }
  if (std::rename(beside.c_str(), path.c_str()) != 0) {
    problem_ = path + ": cannot be replaced; what is announced stays as it is";
    return false;
  }
  return true;
}

void announcer::tell(const ip_address& a, std::optional<decision::announcement> now) {
  const bool announced = now == decision::announcement::announced;
  const std::string why{now ? decision::to_string(*now) : "no service"};
  spdlog::info("{}: {}", format_ip(a), announced ? "announced" : "withdrawn: " + why);
  events_.add("announce", {},
              {{"address", format_ip(a)}, {"announced", announced}, {"reason", why}});
}

void announcer::look(bool forwarding, bool drained, decision::time_point now) {
  if (!addresses_) return;
  memory_ =
      decision::judge_node(forwarding, memory_, node_.controlplane.announce->withdraw_after, now)
          .next;
  shown next;
  for (const auto& [address, has_quorum] : quorums_)
    next.emplace(address, decision::judge_address(memory_, drained, has_quorum));
  if (next != shown_) {
    for (const auto& [address, is] : next) {
      const auto before = shown_.find(address);
      if (before == shown_.end() ? is == decision::announcement::announced || !settled_
                                 : before->second != is)
        tell(address, is);
    }
    for (const auto& [address, was] : shown_)
      if (was == decision::announcement::announced && !next.contains(address))
        tell(address, std::nullopt);
    shown_ = std::move(next);
    settled_ = false;
  }
  if (settled_ && now < applied_at_ + mend_every) return;
  if (!settled_ && !problem_.empty() && now < applied_at_ + mend_every) return;
  applied_at_ = now;
  apply();
}

// apply() notes an address before it is put there, and forgets it after it was taken away: what
// the record says is ours is never less than what is.
void announcer::apply() {
  problem_.clear();
  failures_.clear();
  const auto present = addresses_->present();
  if (!present) {
    problem_ = "nothing is announced: " + present.error();
    return;
  }
  std::set<ip_address> to_add;
  std::set<ip_address> to_remove;
  for (const auto& [address, is] : shown_) {
    if (is != decision::announcement::announced) continue;
    if (!present->contains(address))
      to_add.insert(address);
    else if (!ours_.contains(address))
      failures_[address] = "is on the interface, and not by us: it will not be withdrawn";
  }
  for (const auto& a : ours_) {
    const auto found = shown_.find(a);
    if (found == shown_.end() || found->second != decision::announcement::announced)
      to_remove.insert(a);
  }
  std::set<ip_address> noted = ours_;
  noted.insert(to_add.begin(), to_add.end());
  if (noted != ours_ && !remember(noted)) return;
  ours_ = std::move(noted);
  for (const auto& a : to_add)
    if (std::string why = addresses_->add(a); !why.empty())
      failures_[a] = "is not announced: " + std::move(why);
  bool forgotten = false;
  for (const auto& a : to_remove) {
    if (std::string why = addresses_->remove(a); !why.empty()) {
      failures_[a] = "is not withdrawn: " + std::move(why);
      continue;
    }
    ours_.erase(a);
    forgotten = true;
  }
  if (forgotten && !remember(ours_)) return;
  settled_ = true;
}

std::vector<std::string> announcer::problems() const {
  std::vector<std::string> out;
  if (!problem_.empty()) out.push_back(problem_);
  for (const auto& [address, what] : failures_) out.push_back(format_ip(address) + " " + what);
  for (const auto& [address, is] : shown_)
    if (is != decision::announcement::announced)
      out.push_back(format_ip(address) +
                    " is not announced: " + std::string{decision::to_string(is)});
  return out;
}

}  // namespace sluice::reconcile
