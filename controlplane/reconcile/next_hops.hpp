// SPDX-License-Identifier: Apache-2.0
// next_hops: through which port and to which MAC the frames to a backend go.
//
// - A port with `next-hop` in node.yaml sends everything to that MAC: for a backend whose
//   route leaves through that port, or, where the kernel's routes name no port of ours,
//   for every backend (the first such port).
// - Otherwise the kernel's routes and neighbours decide (neighbour_follower).
// - dsr-l2 delivers to the backend's own MAC: what the kernel has resolved on-link wins
//   over `next-hop`, and a backend behind a gateway cannot be reached.
//
// The loop's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/loop/event_loop.hpp"
#include "controlplane/model/model.hpp"
#include "controlplane/neighbour/neighbour_follower.hpp"
#include "controlplane/publish/observations.hpp"
#include "controlplane/publish/published_state.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::reconcile {

// route: what is known of the way to a backend, usable or not.
struct route {
  std::optional<publish::hop> hop;  // nothing: packets cannot be sent
  std::string state;                // static | resolved | incomplete | unreachable | no-route
  std::string reason;               // why there is no hop
  std::string port;                 // name
  ip_address via;                   // all zero: not known

  bool operator==(const route&) const = default;
};

// probe_way: how the kernel sends to a backend as the data plane does.
struct probe_way {
  std::string interface;           // the port's, or of its twin
  ip_address via;                  // whose MAC address the kernel finds
  std::optional<mac_address> mac;  // instead of `via`: the port's next-hop
};

class next_hops {
 public:
  using change_callback = neighbour::neighbour_follower::change_callback;

  // Without netlink (a sandbox) only `next-hop` counts; why is in netlink_error().
  next_hops(event_loop& loop, const node_config& node, change_callback on_change);

  // set_data_plane() takes the kernel's names, numbers and MTUs of the ports from a data
  // plane; true when a port's number or interface changed.
  bool set_data_plane(const publish::observations& data_plane);
  void set_addresses(std::vector<ip_address> addresses);
  [[nodiscard]] route find(const ip_address& backend, model::forward_mode mode) const;
  // probe_way_to() is nothing where no port leads there that is an interface of the kernel.
  [[nodiscard]] std::optional<probe_way> probe_way_to(const ip_address& backend,
                                                      model::forward_mode mode) const;
  // kernel_interfaces() are those of all such ports.
  [[nodiscard]] std::vector<std::string> kernel_interfaces() const;
  [[nodiscard]] const std::string& netlink_error() const noexcept { return netlink_error_; }

 private:
  struct port {
    std::uint8_t index{};
    std::string interface;  // the kernel's; empty: none
    std::uint16_t mtu{1500};
    std::optional<mac_address> fixed;
    bool kernels{};  // the kernel sends and receives by the interface

    bool operator==(const port&) const = default;
  };
  void tell_interfaces();

  std::map<std::string, port> ports_;  // by name
  std::string fixed_port_;             // the first port with a next-hop; empty: none
  std::unique_ptr<neighbour::neighbour_follower> follower_;
  std::string netlink_error_;
};

}  // namespace sluice::reconcile
