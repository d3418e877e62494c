// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/next_hops.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "controlplane/config/kernel_port.hpp"

namespace sluice::reconcile {
namespace {

template <std::size_t N>
std::string text_of(const std::array<char, N>& a) {
  return {a.begin(), std::find(a.begin(), a.end(), '\0')};
}

std::string state_word(neighbour::resolution r) {
  switch (r) {
    case neighbour::resolution::no_route:
      return "no-route";
    case neighbour::resolution::incomplete:
      return "incomplete";
    case neighbour::resolution::unreachable:
      return "unreachable";
    case neighbour::resolution::resolved:
      return "resolved";
  }
  return "no-route";
}

std::uint16_t to_mtu(std::uint32_t mtu, std::uint16_t otherwise) {
  return mtu == 0 ? otherwise : static_cast<std::uint16_t>(std::min(mtu, 0xffffu));
}

}  // namespace

next_hops::next_hops(event_loop& loop, const node_config& node, change_callback on_change) {
  std::uint8_t index = 0;
  for (const auto& p : node.dataplane.ports) {
    ports_[p.name] = {index++, p.wants_twin() ? p.twin_name() : p.interface, 1500, p.next_hop,
                      config::is_kernel_port(p)};
    if (p.next_hop && fixed_port_.empty()) fixed_port_ = p.name;
  }
  try {
    follower_ = std::make_unique<neighbour::neighbour_follower>(loop, std::move(on_change));
    tell_interfaces();
  } catch (const std::system_error& e) {
    netlink_error_ = std::string{"the kernel's routes cannot be followed: "} + e.what();
  }
}

void next_hops::tell_interfaces() {
  if (!follower_) return;
  std::map<std::string, std::string> names;
  for (const auto& [name, p] : ports_)
    if (!p.interface.empty()) names.emplace(p.interface, name);
  follower_->set_interfaces(std::move(names));
}

bool next_hops::set_data_plane(const publish::observations& data_plane) {
  auto ports = ports_;
  const std::uint32_t count =
      std::min(data_plane.map().info().port_count, static_cast<std::uint32_t>(abi::max_ports));
  for (std::uint32_t i = 0; i < count; ++i) {
    const abi::port_info& info = data_plane.map().port(i);
    const auto known = ports.find(text_of(info.name));
    if (info.in_use == 0 || known == ports.end()) continue;
    known->second.index = static_cast<std::uint8_t>(i);
    if (const std::string kernel = text_of(info.kernel_name); !kernel.empty())
      known->second.interface = kernel;
    if (info.mtu != 0) known->second.mtu = info.mtu;
  }
  if (ports == ports_) return false;
  ports_ = std::move(ports);
  tell_interfaces();
  return true;
}

void next_hops::set_addresses(std::vector<ip_address> addresses) {
  if (follower_) follower_->set_addresses(std::move(addresses));
}

route next_hops::find(const ip_address& backend, model::forward_mode mode) const {
  std::optional<neighbour::next_hop> kernel;
  if (follower_) kernel = follower_->find(backend);
  const auto known_port = kernel ? ports_.find(kernel->port) : ports_.end();
  const bool on_link = kernel && kernel->via == backend;
  const bool resolved =
      kernel && kernel->state == neighbour::resolution::resolved && known_port != ports_.end();
  const bool direct = mode == model::forward_mode::dsr_l2;

  const auto by_kernel = [&] {
    const port& p = known_port->second;
    return route{publish::hop{kernel->mac, p.index, to_mtu(kernel->mtu, p.mtu)},
                 "resolved",
                 {},
                 kernel->port,
                 kernel->via};
  };
  if (direct && resolved && on_link) return by_kernel();
  // The port that the route names, if it has a fixed next hop; without a route, the first.
  const auto fixed = known_port != ports_.end() ? known_port : ports_.find(fixed_port_);
  if (fixed != ports_.end() && fixed->second.fixed) {
    const port& p = fixed->second;
    const std::uint16_t mtu = kernel ? to_mtu(kernel->mtu, p.mtu) : p.mtu;
    return {publish::hop{*p.fixed, p.index, mtu}, "static", {}, fixed->first, {}};
  }
  if (direct && resolved)
    return {std::nullopt, "no-route", "behind a gateway: dsr-l2 needs it on the same segment",
            kernel->port, kernel->via};
  if (resolved) return by_kernel();
  if (kernel)
    return {std::nullopt, state_word(kernel->state), kernel->reason, kernel->port, kernel->via};
  return {std::nullopt,
          "no-route",
          netlink_error_.empty() ? "no next-hop is configured" : netlink_error_,
          {},
          {}};
}

std::optional<probe_way> next_hops::probe_way_to(const ip_address& backend,
                                                 model::forward_mode mode) const {
  const route r = find(backend, mode);
  const auto found = ports_.find(r.port);
  if (found == ports_.end() || !found->second.kernels || found->second.interface.empty())
    return std::nullopt;
  const std::string& interface = found->second.interface;
  if (r.state == "static" && r.hop) return probe_way{interface, {}, r.hop->mac};
  if (r.state == "no-route" || r.via == ip_address{} ||
      (mode == model::forward_mode::dsr_l2 && r.via != backend))
    return std::nullopt;
  return probe_way{interface, r.via, {}};
}

std::vector<std::string> next_hops::kernel_interfaces() const {
  std::vector<std::string> names;
  for (const auto& [name, p] : ports_)
    if (p.kernels && !p.interface.empty()) names.push_back(p.interface);
  return names;
}

}  // namespace sluice::reconcile
