// SPDX-License-Identifier: Apache-2.0
// Three tables: links (all of the namespace), routes (one lookup per followed address) and
// neighbours (those that a route leads to). A notification marks what it may change; after
// the debounce the marked addresses are looked up and worded anew, in slices.
#include "controlplane/neighbour/neighbour_follower.hpp"

#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "controlplane/neighbour/kernel_tables.hpp"

namespace sluice::neighbour {

namespace {

using std::chrono::milliseconds;

// A lookup costs some microseconds: a slice keeps the loop's other users waiting for a few
// milliseconds at most.
constexpr std::size_t slice = 512;
// Every so many keep_fresh all routes are looked up again: not every change is notified
// (the kernel drops IPv4 routes of a vanished device in silence, learnt path MTUs expire).
constexpr int sweep_every = 4;

constexpr unsigned nud_valid =
    NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;
constexpr unsigned nud_fixed = NUD_PERMANENT | NUD_NOARP;

using neighbour_key = std::pair<int, ip_address>;  // interface index, address

struct neighbour_entry {
  std::uint16_t state{NUD_NONE};
  std::optional<mac_address> mac;  // the last that was known, until it failed
  bool failed{false};              // and no answer since
  int ask_error{0};
  milliseconds backoff{0};
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
  [[nodiscard]] milliseconds fresh_for(const neighbour_key& key) const;
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

// ---- What the kernel says ---------------------------------------------------------------

void neighbour_follower::impl::read_notifications() {
  const auto status = notifications_.read([this](const nlmsghdr* message) { on_message(message); });
  if (status != notification_socket::read_status::overrun) return;
  ++counters_.overruns;
  resync_wanted_ = true;
  arm(options_.debounce);
}

void neighbour_follower::impl::on_message(const nlmsghdr* message) {
  switch (message->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      on_link(message);
      break;
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      if (auto info = parse_neighbour(message)) {
        if (message->nlmsg_type == RTM_DELNEIGH) {
          info->state = NUD_NONE;
          info->mac.reset();
        }
        on_neighbour(*info);
      }
      break;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      // A host with the Internet's routes hears of many that lead to no backend.
      if (const auto range = parse_route_prefix(message)) mark_prefix(*range);
      break;
    default:  // addresses, rules, next hop objects: any route may change
      ++counters_.notifications;
      mark_all();
  }
}

void neighbour_follower::impl::on_link(const nlmsghdr* message) {
  const auto link = parse_link(message);
  if (!link) return;
  const auto it = links_.find(link->index);
  if (message->nlmsg_type == RTM_DELLINK) {
    if (it == links_.end()) return;
    links_.erase(it);
  } else {
    if (it != links_.end() && it->second == *link) return;  // statistics and the like
    const bool came_up = link->running && it != links_.end() && !it->second.running;
    links_[link->index] = *link;
    if (came_up) confirm_all(link->index);
  }
  ++counters_.notifications;
  mark_all();
}

// confirm_all() asks for the neighbours behind a link that has come up: the kernel forgot
// them when it went down, and what we remember may no longer be there.
void neighbour_follower::impl::confirm_all(int interface_index) {
  for (auto it = neighbours_.lower_bound({interface_index, ip_address{}});
       it != neighbours_.end() && it->first.first == interface_index; ++it) {
    it->second.backoff = milliseconds{0};
    tend(it->first);
  }
}

void neighbour_follower::impl::on_neighbour(const neighbour_info& info) {
  const neighbour_key key{info.interface_index, info.address};
  const auto it = neighbours_.find(key);
  if (it == neighbours_.end()) return;
  ++counters_.notifications;
  neighbour_entry& n = it->second;
  const bool was_usable = n.mac.has_value();
  learn(n, info.state, info.mac);
  if (info.state == NUD_NONE || (was_usable && !n.mac)) {
    // Lost or forgotten just now: one try at once, which the debounce often hides (an `ip
    // neigh flush`, a backend with a new MAC). But no more often than retry_first: a full
    // kernel table forgets entries as fast as they are made.
    n.backoff = milliseconds{0};
    const auto since = loop_.now() - n.asked;
    if (since >= options_.retry_first)
      tend(key);
    else
      schedule_tend(key, n, options_.retry_first - since);
  } else if (!was_usable && n.mac) {
    schedule_tend(key, n, fresh_for(key));
  }
  for (const ip_address& a : n.users) mark(a, paths_.at(a), false);
}

void neighbour_follower::impl::read_links() {
  auto all = kernel_.links();
  if (!all) return;
  links_.clear();
  for (link_info& link : *all) {
    const int index = link.index;
    links_.emplace(index, std::move(link));
  }
}

// resync() reads everything anew: notifications were lost.
void neighbour_follower::impl::resync() {
  read_links();
  for (auto& [key, n] : neighbours_) {
    const auto info = kernel_.neighbour(key.first, key.second);
    learn(n, info ? info->state : std::uint16_t{NUD_NONE},
          info ? info->mac : std::optional<mac_address>{});
  }
  mark_all();
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

// ---- Neighbours -------------------------------------------------------------------------

void neighbour_follower::impl::learn(neighbour_entry& n, std::uint16_t state,
                                     const std::optional<mac_address>& mac) {
  n.state = state;
  if ((state & nud_valid) != 0 && mac) {
    n.mac = mac;
    n.failed = false;
    n.ask_error = 0;
    n.backoff = milliseconds{0};
  } else if (state == NUD_FAILED) {
    n.mac.reset();
    n.failed = true;
  }
  // Else it was forgotten or is being asked for: what was known stays.
}

// tend() asks for a neighbour when that is due, and sets the time of the next look at it.
void neighbour_follower::impl::tend(const neighbour_key& key) {
  neighbour_entry& n = neighbours_.at(key);
  loop_.cancel(std::exchange(n.timer, 0));
  const link_info* const link = port_link(key.first);
  if (link != nullptr && link->running && (n.state & nud_fixed) == 0) ask(key, n);
  if (n.mac) {
    schedule_tend(key, n, fresh_for(key));
    return;
  }
  n.backoff =
      n.backoff.count() == 0 ? options_.retry_first : std::min(n.backoff * 2, options_.retry_last);
  schedule_tend(key, n, n.backoff);
}

void neighbour_follower::impl::ask(const neighbour_key& key, neighbour_entry& n) {
  ++counters_.solicitations;
  n.asked = loop_.now();
  n.ask_error = kernel_.solicit(key.first, key.second);
}

void neighbour_follower::impl::schedule_tend(const neighbour_key& key, neighbour_entry& n,
                                             event_loop::duration after) {
  loop_.cancel(n.timer);
  n.timer = loop_.call_after(after, [this, key] {
    neighbours_.at(key).timer = 0;
    tend(key);
  });
}

// fresh_for() is spread, so that neighbours learnt together are not confirmed together.
milliseconds neighbour_follower::impl::fresh_for(const neighbour_key& key) const {
  const auto last = (std::uint64_t{key.second.bytes[14]} << 8) | key.second.bytes[15];
  const auto spread = static_cast<std::uint64_t>(options_.keep_fresh.count()) / 4 + 1;
  return options_.keep_fresh - milliseconds{last * 2654435761U % spread};
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
