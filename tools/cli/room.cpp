// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/room.hpp"

#include <algorithm>
#include <fstream>
#include <optional>

#include <fmt/format.h>

#include "controlplane/model/text.hpp"

namespace sluice::cli {

namespace {

constexpr unsigned usual_mtu = 1500;
constexpr unsigned least_ipv6_mtu = 1280;  // RFC 8200 section 5

std::optional<unsigned> interface_mtu(const std::string& name) {
  unsigned mtu = 0;
  if (name.empty() || !(std::ifstream{"/sys/class/net/" + name + "/mtu"} >> mtu) || mtu == 0)
    return std::nullopt;
  return mtu;
}

void find_mtu(const node_config* node, room_report& out) {
  out.mtu = usual_mtu;
  out.source = "assumed";
  if (node == nullptr) return;
  std::optional<unsigned> least;
  for (const port_config& p : node->dataplane.ports) {
    const auto mtu = interface_mtu(p.interface);
    if (!mtu || (least && *least <= *mtu)) continue;
    least = mtu;
    out.source = "of " + p.interface;
  }
  if (least) out.mtu = *least;
}

void warn(const model::service& s, unsigned room, room_report& out) {
  const bool tcp = s.protocol == model::protocol::tcp;
  const unsigned headers = s.address.is_v4() ? 40 : 60;
  const unsigned taken = out.mtu - room;
  const auto say = [&](std::string text) {
    out.warnings.push_back("services[" + s.name + "]: " + std::move(text));
  };
  if (taken != 0 && tcp && s.mss_clamp.off())
    say(
        fmt::format("{} leaves {} of {} bytes, so full packets of clients do not fit and are "
                    "answered with ICMP (too big); expected mss-clamp: auto, or an MTU of {} "
                    "towards the backends",
                    model::to_string(s.forward), room, out.mtu, out.mtu + taken));
  if (taken != 0 && !tcp)
    say(
        fmt::format("{} leaves {} of {} bytes, so larger packets of clients are answered with ICMP "
                    "(too big); expected an MTU of {} towards the backends, unless clients send "
                    "small ones",
                    model::to_string(s.forward), room, out.mtu, out.mtu + taken));
  if (s.mss_clamp.bytes != 0 && s.mss_clamp.bytes + headers > room)
    say(fmt::format(
        "mss-clamp: {} is more than fits ({} bytes); expected auto, or a smaller number",
        s.mss_clamp.bytes, room > headers ? room - headers : 0));
  if (!s.address.is_v4() && room < least_ipv6_mtu)
    say(
        fmt::format("{} leaves {} bytes, and IPv6 needs {}; expected an MTU of {} towards the "
                    "backends",
                    model::to_string(s.forward), room, least_ipv6_mtu, least_ipv6_mtu + taken));
}

}  // namespace

room_report look_at_room(const model::desired_state& state, const node_config* node) {
  room_report out;
  find_mtu(node, out);
  for (const model::service& s : state.services) {
    unsigned least = out.mtu;
    for (const model::backend& b : s.backends) {
      const unsigned overhead = model::overhead(s.forward, b.address.is_v4());
      const unsigned room = out.mtu > overhead ? out.mtu - overhead : 0;
      least = std::min(least, room);
      out.rooms.push_back(
          {s.name, std::string{model::to_string(s.forward)}, b.address, out.mtu, room});
    }
    if (!s.backends.empty()) warn(s, least, out);
  }
  return out;
}

}  // namespace sluice::cli
