// SPDX-License-Identifier: Apache-2.0
// neighbour_follower: which interface, next hop, MAC and MTU lead to a backend,
// as the kernel's routes and neighbours say; followed over rtnetlink (rtnetlink(7)).
//
// - A route is asked for per destination (RTM_GETROUTE, a FIB lookup: rules, metrics
//   and ECMP are the kernel's own) and again when routes, rules, links or addresses change,
//   debounced.
// - A neighbour that is missing or failed is asked for through the kernel (RTM_NEWNEIGH
//   with NTF_USE; without CAP_NET_ADMIN by a UDP datagram to the discard port), with
//   backoff.
// - The kernel sees none of the data plane's traffic, so nothing would confirm an entry:
//   every keep_fresh the ones in use are touched (NTF_USE), which makes the kernel probe
//   those that are stale.
// - A MAC that was learnt stays in use while the kernel revalidates or forgets the entry,
//   until the neighbour is known to have failed, or the link is down.
//
// Threading: everything on the loop's thread; see event_loop::invoke().
// Errors: the constructor throws std::system_error (no netlink).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/loop/event_loop.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::neighbour {

enum class resolution : std::uint8_t {
  no_route,     // no route, or one that does not leave through a port of ours (see reason)
  incomplete,   // being asked for, no answer yet
  unreachable,  // asked for, no answer; or the link is down
  resolved,
};
[[nodiscard]] const char* to_string(resolution r) noexcept;

// The way to one address. Fields after `state` that are not known are zero or empty.
struct next_hop {
  ip_address destination;
  resolution state{resolution::no_route};
  std::string reason;  // why it is not resolved
  int interface_index{};
  std::string interface;  // kernel name
  std::string port;       // data plane port name
  ip_address via;         // gateway, or the destination itself when on-link
  mac_address mac{};
  std::uint32_t mtu{};  // the route's MTU metric, else the interface's MTU; bytes

  bool operator==(const next_hop&) const = default;
};

// One interface of interest.
struct interface_state {
  std::string name;
  std::string port;
  bool present{};
  int index{};
  mac_address mac{};
  std::uint32_t mtu{};
  bool up{};       // administratively up
  bool running{};  // up and with carrier

  bool operator==(const interface_state&) const = default;
};

struct follower_options {
  std::chrono::milliseconds debounce{20};
  std::chrono::milliseconds keep_fresh{15000};
  std::chrono::milliseconds retry_first{1000};  // doubled after each request ...
  std::chrono::milliseconds retry_last{15000};  // ... up to this
};

struct follower_counters {
  std::uint64_t notifications{};  // netlink messages that concerned us
  std::uint64_t overruns{};       // ENOBUFS: everything was read anew
  std::uint64_t route_lookups{};
  std::uint64_t solicitations{};  // neighbours asked for through the kernel
};

class neighbour_follower {
 public:
  // Addresses whose next_hop differs from what was last told, sorted. May call
  // set_addresses() and set_interfaces(), but not destroy the follower; the same holds below.
  using change_callback = std::function<void(const std::vector<ip_address>&)>;
  // An interface of interest appeared, vanished or changed MAC, MTU or state.
  using interface_callback = std::function<void()>;

  neighbour_follower(event_loop& loop, change_callback on_change,
                     interface_callback on_interfaces = {}, follower_options options = {});
  ~neighbour_follower();
  neighbour_follower(const neighbour_follower&) = delete;
  neighbour_follower& operator=(const neighbour_follower&) = delete;

  // set_interfaces() names the kernel interfaces that are data plane ports
  // (kernel name -> port name). Routes through others count as no_route.
  void set_interfaces(std::map<std::string, std::string> ports);
  // set_addresses() replaces the addresses that are followed. What is known about those
  // that stay, stays; the new ones are looked up before it returns, without a callback
  // for what is already found.
  void set_addresses(std::vector<ip_address> addresses);

  // nullopt: the address is not followed.
  [[nodiscard]] std::optional<next_hop> find(const ip_address& a) const;
  [[nodiscard]] std::vector<next_hop> snapshot() const;           // sorted by destination
  [[nodiscard]] std::vector<interface_state> interfaces() const;  // sorted by name
  [[nodiscard]] follower_counters counters() const;

 private:
  class impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace sluice::neighbour
