// SPDX-License-Identifier: Apache-2.0
// The inside of neighbour_follower. Three tables: links (all of the namespace), routes (one
// lookup per followed address) and neighbours (those that a route leads to). A notification
// marks what it may change; after the debounce the marked addresses are looked up and worded
// anew, in slices.
#pragma once

#include <linux/neighbour.h>

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/neighbour/kernel_tables.hpp"
#include "controlplane/neighbour/neighbour_follower.hpp"

namespace sluice::neighbour {

using neighbour_key = std::pair<int, ip_address>;  // interface index, address

struct neighbour_entry {
  std::uint16_t state{NUD_NONE};
  std::optional<mac_address> mac;  // the last that was known, until it failed
  bool failed{false};              // and no answer since
  int ask_error{0};
  std::chrono::milliseconds backoff{0};
  event_loop::time_point asked{};
  event_loop::timer_id timer{0};
  std::set<ip_address> users;
};

struct path {
  next_hop told;
  route_info route;
  std::optional<neighbour_key> via;
  bool route_marked{false};
};

class neighbour_follower::impl {
 public:
  impl(event_loop& loop, change_callback on_change, interface_callback on_interfaces,
       follower_options options);
  ~impl();

  void set_interfaces(std::map<std::string, std::string> ports);
  void set_addresses(std::vector<ip_address> addresses);

  [[nodiscard]] std::optional<next_hop> find(const ip_address& a) const {
    const auto it = paths_.find(a);
    return it == paths_.end() ? std::nullopt : std::optional{it->second.told};
  }
  [[nodiscard]] std::vector<next_hop> snapshot() const {
    std::vector<next_hop> all;
    all.reserve(paths_.size());
    for (const auto& [a, p] : paths_) all.push_back(p.told);
    return all;
  }
  [[nodiscard]] std::vector<interface_state> interfaces() const;
  [[nodiscard]] follower_counters counters() const { return counters_; }

 private:
  void read_notifications();
  void on_message(const nlmsghdr* message);
  void on_link(const nlmsghdr* message);
  void on_neighbour(const neighbour_info& info);
  void confirm_all(int interface_index);
  void read_links();
  void resync();

  void mark(const ip_address& a, path& p, bool route);
  void mark_all();
  void mark_prefix(const prefix& range);
  void arm(event_loop::duration after);
  void flush();

  void look_up(const ip_address& a, path& p);
  void attach(const ip_address& a, path& p);
  void detach(const ip_address& a, path& p);
  [[nodiscard]] next_hop describe(const ip_address& a, const path& p) const;
  [[nodiscard]] const link_info* port_link(int index) const;

  void learn(neighbour_entry& n, std::uint16_t state, const std::optional<mac_address>& mac);
  void tend(const neighbour_key& key);
  void ask(const neighbour_key& key, neighbour_entry& n);
  void schedule_tend(const neighbour_key& key, neighbour_entry& n, event_loop::duration after);
  [[nodiscard]] std::chrono::milliseconds fresh_for(const neighbour_key& key) const;
  void sweep();

  event_loop& loop_;
  change_callback on_change_;
  interface_callback on_interfaces_;
  follower_options options_;
  kernel_tables kernel_;
  notification_socket notifications_;

  std::map<std::string, std::string> ports_;
  std::map<int, link_info> links_;
  std::map<ip_address, path> paths_;
  std::map<neighbour_key, neighbour_entry> neighbours_;
  std::vector<interface_state> told_interfaces_;

  std::set<ip_address> marked_;
  bool resync_wanted_{false};
  event_loop::timer_id flush_timer_{0};
  event_loop::timer_id sweep_timer_{0};
  follower_counters counters_;
};

}  // namespace sluice::neighbour
