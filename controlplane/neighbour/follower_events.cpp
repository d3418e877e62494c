// SPDX-License-Identifier: Apache-2.0
// What the kernel says, and the neighbours that are asked for through it.
#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <utility>

#include "controlplane/neighbour/follower_impl.hpp"

namespace sluice::neighbour {

using std::chrono::milliseconds;

namespace {

constexpr unsigned nud_valid =
    NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;
constexpr unsigned nud_fixed = NUD_PERMANENT | NUD_NOARP;

}  // namespace

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

}  // namespace sluice::neighbour
