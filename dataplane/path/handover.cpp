// SPDX-License-Identifier: Apache-2.0
// `steering: owner`: packets whose flow is another worker's.
#include "dataplane/path/packet_path.hpp"

namespace sluice {

bool packet_path::hand_over(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + m.l4);
  const auto owner = [&](be16 source_port, be16 destination_port) {
    if (m.version == 4) {
      const auto& ip = *reinterpret_cast<const wire::ipv4_header*>(p.data + m.l3);
      return owner_->of(&ip.source, &ip.destination, 4, source_port, destination_port);
    }
    const auto& ip = *reinterpret_cast<const wire::ipv6_header*>(p.data + m.l3);
    return owner_->of(&ip.source, &ip.destination, 16, source_port, destination_port);
  };
  if (m.kind == wire::parse_kind::first_fragment) {
    // Where its datagram's fragments meet (note_fragment()), it goes on, handed over or not;
    // anywhere else it has come from there, and stays.
    if (owner(be16{}, be16{}) != self_) return false;
  } else if (accepts_all_) {
    return false;
  }
  return hand_over_to(p, owner(l4.source_port, l4.destination_port));
}

bool packet_path::hand_over(packet& p, const ip_address& client, const ip_address& vip,
                            be16 client_port, be16 vip_port) noexcept {
  if (owner_ == nullptr || accepts_all_) return false;
  const std::size_t skip = client.is_v4() ? 12 : 0;
  return hand_over_to(p, owner_->of(client.bytes.data() + skip, vip.bytes.data() + skip, 16 - skip,
                                    client_port, vip_port));
}

bool packet_path::hand_over_to(packet& p, unsigned worker) noexcept {
  if (worker == self_) return false;
  p.outcome = verdict::hand_over;
  p.out_port = static_cast<std::uint8_t>(worker);
  return true;
}

}  // namespace sluice
