// SPDX-License-Identifier: Apache-2.0
// What the caller wants, the routes to it, and the wording of what is found.
#include "controlplane/neighbour/neighbour_follower.hpp"

#include <linux/rtnetlink.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "controlplane/neighbour/follower_impl.hpp"

namespace sluice::neighbour {

namespace {

// A lookup costs some microseconds: a slice keeps the loop's other users waiting for a few
// milliseconds at most.
constexpr std::size_t slice = 512;
// Every so many keep_fresh all routes are looked up again: not every change is notified
// (the kernel drops IPv4 routes of a vanished device in silence, learnt path MTUs expire).
constexpr int sweep_every = 4;

std::string text_of(int error) {
  return std::strerror(error);
}

std::string why_no_route(const route_info& r) {
  if (r.error == ENETUNREACH) return "no route";
  if (r.error != 0) return "route lookup: " + text_of(r.error);
  switch (r.type) {
    case RTN_LOCAL:
      return "the address is this host's own";
    case RTN_BLACKHOLE:
    case RTN_UNREACHABLE:
    case RTN_PROHIBIT:
    case RTN_THROW:
      return "the route refuses the address";
    default:
      return "the address is not unicast";
  }
}

}  // namespace

const char* to_string(resolution r) noexcept {
  switch (r) {
    case resolution::no_route:
      return "no_route";
    case resolution::incomplete:
      return "incomplete";
    case resolution::unreachable:
      return "unreachable";
    case resolution::resolved:
      return "resolved";
  }
  return "?";
}

neighbour_follower::impl::impl(event_loop& loop, change_callback on_change,
                               interface_callback on_interfaces, follower_options options)
    : loop_{loop},
      on_change_{std::move(on_change)},
      on_interfaces_{std::move(on_interfaces)},
      options_{options} {
  // Subscribed before the first dump: what changes in between is heard.
  read_links();
  const auto bad =
      loop_.add_fd(notifications_.fd(), EPOLLIN, [this](std::uint32_t) { read_notifications(); });
  if (bad) throw std::system_error(bad, "netlink notifications");
  sweep();
}

neighbour_follower::impl::~impl() {
  loop_.remove_fd(notifications_.fd());
  loop_.cancel(flush_timer_);
  loop_.cancel(sweep_timer_);
  for (auto& [key, n] : neighbours_) loop_.cancel(n.timer);
}

// ---- What the caller wants --------------------------------------------------------------

void neighbour_follower::impl::set_interfaces(std::map<std::string, std::string> ports) {
  ports_ = std::move(ports);
  told_interfaces_ = interfaces();
  mark_all();
}

void neighbour_follower::impl::set_addresses(std::vector<ip_address> addresses) {
  std::sort(addresses.begin(), addresses.end());
  for (auto it = paths_.begin(); it != paths_.end();) {
    if (std::binary_search(addresses.begin(), addresses.end(), it->first)) {
      ++it;
      continue;
    }
    detach(it->first, it->second);
    marked_.erase(it->first);
    it = paths_.erase(it);
  }
  for (const ip_address& a : addresses) {
    const auto [it, added] = paths_.try_emplace(a);
    if (!added) continue;
    look_up(a, it->second);
    it->second.told = describe(a, it->second);
  }
}

std::vector<interface_state> neighbour_follower::impl::interfaces() const {
  std::vector<interface_state> all;
  for (const auto& [name, port] : ports_) {
    interface_state& s = all.emplace_back();
    s.name = name;
    s.port = port;
    for (const auto& [index, link] : links_) {
      if (link.name != name) continue;
      s.present = true;
      s.index = index;
      s.mac = link.mac;
      s.mtu = link.mtu;
      s.up = link.up;
      s.running = link.running;
    }
  }
  return all;
}

// ---- From marks to changes --------------------------------------------------------------

void neighbour_follower::impl::mark(const ip_address& a, path& p, bool route) {
  p.route_marked = p.route_marked || route;
  marked_.insert(a);
  arm(options_.debounce);
}

void neighbour_follower::impl::mark_all() {
  for (auto& [a, p] : paths_) mark(a, p, true);
  arm(options_.debounce);  // for the interfaces, when no address is followed
}

void neighbour_follower::impl::mark_prefix(const prefix& range) {
  // Sorted as the prefix is: those that it covers are neighbours in the map.
  auto it = paths_.lower_bound(range.base);
  if (it == paths_.end() || !range.contains(it->first)) return;
  ++counters_.notifications;
  for (; it != paths_.end() && range.contains(it->first); ++it) mark(it->first, it->second, true);
}

void neighbour_follower::impl::arm(event_loop::duration after) {
  // Never pushed back: under a steady stream of notifications the changes still come.
  if (flush_timer_ == 0) flush_timer_ = loop_.call_after(after, [this] { flush(); });
}

void neighbour_follower::impl::flush() {
  flush_timer_ = 0;
  if (std::exchange(resync_wanted_, false)) resync();
  std::vector<ip_address> changed;
  for (std::size_t left = slice; left > 0 && !marked_.empty(); --left) {
    const ip_address a = *marked_.begin();
    marked_.erase(marked_.begin());
    path& p = paths_.at(a);
    if (std::exchange(p.route_marked, false)) look_up(a, p);
    next_hop now = describe(a, p);
    if (now == p.told) continue;
    p.told = std::move(now);
    changed.push_back(a);
  }
  if (!marked_.empty()) {
    loop_.cancel(std::exchange(flush_timer_, 0));
    arm(event_loop::duration::zero());
  }
  auto interfaces_now = interfaces();
  const bool interfaces_changed = interfaces_now != told_interfaces_;
  told_interfaces_ = std::move(interfaces_now);
  // Last, for they may call set_addresses() and set_interfaces().
  if (interfaces_changed && on_interfaces_) on_interfaces_();
  if (!changed.empty() && on_change_) on_change_(changed);
}

// ---- Routes -----------------------------------------------------------------------------

void neighbour_follower::impl::look_up(const ip_address& a, path& p) {
  ++counters_.route_lookups;
  p.route = kernel_.lookup(a);
  attach(a, p);
}

// attach() ties a path to the neighbour that its route leads to.
void neighbour_follower::impl::attach(const ip_address& a, path& p) {
  std::optional<neighbour_key> via;
  if (p.route.error == 0 && p.route.type == RTN_UNICAST &&
      port_link(p.route.interface_index) != nullptr)
    via = neighbour_key{p.route.interface_index, p.route.gateway.value_or(a)};
  if (via == p.via) return;
  detach(a, p);
  p.via = via;
  if (!via) return;
  const auto [it, added] = neighbours_.try_emplace(*via);
  it->second.users.insert(a);
  if (!added) return;
  if (const auto info = kernel_.neighbour(via->first, via->second))
    learn(it->second, info->state, info->mac);
  tend(*via);
}

void neighbour_follower::impl::detach(const ip_address& a, path& p) {
  if (!p.via) return;
  const auto it = neighbours_.find(*p.via);
  p.via.reset();
  it->second.users.erase(a);
  if (!it->second.users.empty()) return;
  loop_.cancel(it->second.timer);
  neighbours_.erase(it);
}

const link_info* neighbour_follower::impl::port_link(int index) const {
  const auto it = links_.find(index);
  return it != links_.end() && ports_.contains(it->second.name) ? &it->second : nullptr;
}

next_hop neighbour_follower::impl::describe(const ip_address& a, const path& p) const {
  next_hop h;
  h.destination = a;
  if (p.route.error != 0 || p.route.type != RTN_UNICAST) {
    h.reason = why_no_route(p.route);
    return h;
  }
  h.interface_index = p.route.interface_index;
  const auto it = links_.find(h.interface_index);
  if (it != links_.end()) h.interface = it->second.name;
  const link_info* const link = port_link(h.interface_index);
  if (link == nullptr || !p.via) {
    h.reason = "the route leaves through " +
               (h.interface.empty() ? "an unknown interface" : h.interface) +
               ", which is not a port of the data plane";
    return h;
  }
  h.port = ports_.at(link->name);
  h.via = p.via->second;
  h.mtu = p.route.mtu != 0 ? p.route.mtu : link->mtu;
  const neighbour_entry& n = neighbours_.at(*p.via);
  if (!link->running) {
    h.state = resolution::unreachable;
    h.reason = "the link of " + link->name + " is down";
  } else if (n.mac) {
    h.state = resolution::resolved;
    h.mac = *n.mac;
  } else {
    h.state = n.failed ? resolution::unreachable : resolution::incomplete;
    h.reason = n.failed ? "the neighbour does not answer" : "the neighbour is being asked for";
    if (n.ask_error == ENOBUFS || n.ask_error == ENOMEM)
      h.reason = "the kernel's neighbour table is full (gc_thresh3)";
    else if (n.ask_error != 0)
      h.reason = "asking for the neighbour: " + text_of(n.ask_error);
  }
  return h;
}

void neighbour_follower::impl::sweep() {
  sweep_timer_ = loop_.call_after(options_.keep_fresh * sweep_every, [this] {
    mark_all();
    sweep();
  });
}

// ---- The public face --------------------------------------------------------------------

neighbour_follower::neighbour_follower(event_loop& loop, change_callback on_change,
                                       interface_callback on_interfaces, follower_options options)
    : impl_{std::make_unique<impl>(loop, std::move(on_change), std::move(on_interfaces), options)} {
}
neighbour_follower::~neighbour_follower() = default;

void neighbour_follower::set_interfaces(std::map<std::string, std::string> ports) {
  impl_->set_interfaces(std::move(ports));
}
void neighbour_follower::set_addresses(std::vector<ip_address> addresses) {
  impl_->set_addresses(std::move(addresses));
}
std::optional<next_hop> neighbour_follower::find(const ip_address& a) const {
  return impl_->find(a);
}
std::vector<next_hop> neighbour_follower::snapshot() const {
  return impl_->snapshot();
}
std::vector<interface_state> neighbour_follower::interfaces() const {
  return impl_->interfaces();
}
follower_counters neighbour_follower::counters() const {
  return impl_->counters();
}

}  // namespace sluice::neighbour
