// SPDX-License-Identifier: Apache-2.0
// ICMP: errors about balanced connections and about our own tunnels, echo to a service's
// address, and the answer to a packet that is too big. All of it is rare: nothing here is
// on the way of a packet of a connection.
//
// Answers go out of the port that the packet came in by, to the MAC address that it came
// from: the path knows no routes, and whoever sent the packet can reach the client, or is it.
#include "dataplane/packet/icmp.hpp"

#include <algorithm>
#include <cstring>

#include "dataplane/abi/stateless_choice.hpp"
#include "dataplane/packet/icmp_error.hpp"
#include "dataplane/path/packet_path.hpp"

namespace sluice {

using abi::counter_id;
using wire::quoted;

namespace {

// Answers per second and worker unless the control plane says otherwise: a thousandth of
// what a worker forwards, and enough for every client to learn its path's MTU.
constexpr std::uint32_t default_icmp_rate = 1000;

constexpr std::uint8_t protocol_number(ip_proto p) {
  return static_cast<std::uint8_t>(p);
}

bool in_prefix(const ip_address& a, const ip_address& base, unsigned bits) noexcept {
  for (unsigned i = 0; i < 16 && bits > 0; ++i, bits -= std::min(bits, 8u)) {
    const unsigned mask = bits >= 8 ? 0xffu : 0xff00u >> bits;
    if (((a.bytes[i] ^ base.bytes[i]) & mask) != 0) return false;
  }
  return true;
}

bool is_source(const ip_address& a, const abi::encap_source& source) noexcept {
  if (source.configured == 0) return false;
  const unsigned before = source.base.is_v4() ? 96 : 0;  // stored mapped
  return in_prefix(a, source.base, before + source.prefix);
}

// spread_of() is the flow hash of the client's packets of a connection.
std::uint64_t spread_of(std::uint64_t seed, const ip_address& client, be16 client_port,
                        const ip_address& vip, be16 vip_port, std::uint8_t protocol) noexcept {
  if (vip.is_v4())
    return sluice_flow_hash4(seed, client.v4_raw().raw(), vip.v4_raw().raw(), client_port.raw(),
                             vip_port.raw(), protocol);
  return sluice_flow_hash6(seed, client.high(), client.low(), vip.high(), vip.low(),
                           client_port.raw(), vip_port.raw(), protocol);
}

}  // namespace

// owner_of() returns the backend of a connection, given from the client's side: the one in
// the table, else the one that the hash names. None: the service has none.
abi::backend_ref packet_path::owner_of(const abi::vip_row& vip, const abi::service_row& service,
                                       const ip_address& client, be16 client_port,
                                       be16 vip_port) const noexcept {
  connection::handle found = nullptr;
  if (client.is_v4()) {
    const auto key = connection::key4::make(client.v4_raw(), client_port, vip_port, vip.id);
    found = table_.v4.find(table_.v4.hash(key), key);
  } else {
    const auto key = connection::key6::make(client, client_port, vip_port, vip.id);
    found = table_.v6.find(table_.v6.hash(key), key);
  }
  if (found != nullptr && kept_backend(found->backend(), vip) != nullptr) return found->backend();
  if (service.member_count == 0) return {};
  const std::uint64_t hash =
      abi::choice_hash(view_, service, abi::options_of(view_, service), client, [&] {
        return spread_of(view_.header().hash_seed, client, client_port, vip.address, vip_port,
                         vip.protocol);
      });
  const choice to = checked(service, abi::stateless_choice(view_, service, hash));
  return to.row != nullptr ? to.ref : abi::backend_ref{};
}

// icmp_to_vip() decides on a whole ICMP packet to an address that has a service.
[[gnu::noinline]] void packet_path::icmp_to_vip(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const auto* icmp = wire::at<wire::icmp_header>(
      {p.data, std::min(p.length, std::uint32_t{m.l3} + m.ip_length)}, m.l4);
  if (icmp == nullptr) return drop(p, counter_id::drop_bad_icmp);
  if (wire::is_icmp_error(m.version, icmp->type)) return steer_error(i);
  if (icmp->type == (m.version == 4 ? wire::icmp4_echo : wire::icmp6_echo)) return answer_echo(i);
  leave(p, kernel_reason::icmp, counter_id::drop_unsupported_protocol);
}

// steer_error() sends an error to the backend whose packet it quotes: a packet of the
// VIP to a client, so the connection the other way round.
void packet_path::steer_error(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const std::uint32_t end = std::uint32_t{m.l3} + m.ip_length;
  // Errors fit into any buffer (576 and 1280 bytes): one in pieces is none.
  if (end > p.length || !wire::message_holds(p.data, m)) return drop(p, counter_id::drop_bad_icmp);
  const quoted q = wire::parse_quoted({p.data, end}, m.l4 + sizeof(wire::icmp_header));
  if (q.what == quoted::kind::unreadable || q.version != m.version)
    return drop(p, counter_id::drop_bad_icmp);
  const auto unmatched = [&] { leave(p, kernel_reason::icmp, counter_id::drop_icmp_unmatched); };
  if (q.what != quoted::kind::flow || q.source != wire::destination_of(p, m)) return unmatched();
  const abi::vip_row* vip = view_.find_vip(q.source, q.protocol);
  if (vip == nullptr) return unmatched();
  const abi::service_row* s = view_.find_service(*vip, q.source_port.host());
  if (s == nullptr) return unmatched();
  p.service = s->self;
  if (wire::hop_limit_of(p, m) <= 1) return drop(p, counter_id::drop_ttl_expired);
  if (s->mode == abi::forward_mode::nat || s->mode == abi::forward_mode::full_nat)
    return error_to_backend(i, q);
  if (hand_over(p, q.destination, q.source, q.destination_port, q.source_port)) return;
  const abi::backend_ref to = owner_of(*vip, *s, q.destination, q.destination_port, q.source_port);
  if (to.none()) return drop(p, counter_id::drop_no_backend);
  send(i, to);
  if (p.outcome == verdict::forward) count(counter_id::icmp_errors_steered);
}

// error_about_tunnel() looks at an ICMP packet to an address without a service. If it says
// that one of our tunnel packets was too big for its way to the backend, the client is
// told, in the name of the VIP. False: not ours, nothing was done.
//
// Nobody but a router on that way has seen the tunnel packet, but its content is easy to
// guess. So the quoted packet must be one of a flow that we forward to that backend.
bool packet_path::error_about_tunnel(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const abi::generation_header& config = view_.header();
  if (p.in_port >= port_count_ ||
      !is_source(wire::destination_of(p, m), m.version == 4 ? config.source4 : config.source6))
    return false;
  const std::uint32_t end = std::uint32_t{m.l3} + m.ip_length;
  if (end > p.length) return false;
  const std::span<const std::byte> bytes{p.data, end};
  const auto* icmp = wire::at<wire::icmp_header>(bytes, m.l4);
  if (icmp == nullptr) return false;
  if (m.version == 4
          ? icmp->type != wire::icmp4_unreachable || icmp->code != wire::icmp4_fragmentation_needed
          : icmp->type != wire::icmp6_too_big)
    return false;
  const quoted outer = wire::parse_quoted(bytes, m.l4 + sizeof(wire::icmp_header));
  if (outer.version != m.version || outer.source != wire::destination_of(p, m)) return false;
  const quoted inner = wire::tunnelled(
      bytes, outer, config.gue_port != 0 ? config.gue_port : wire::default_gue_port);
  if (inner.what != quoted::kind::flow || !inner.dont_fragment || !wire::message_holds(p.data, m))
    return false;
  const abi::vip_row* vip = view_.find_vip(inner.destination, inner.protocol);
  if (vip == nullptr) return false;
  const abi::service_row* s = view_.find_service(*vip, inner.destination_port.host());
  if (s == nullptr) return false;
  if (hand_over(p, inner.source, inner.destination, inner.source_port, inner.destination_port))
    return true;
  const abi::backend_ref ref =
      owner_of(*vip, *s, inner.source, inner.source_port, inner.destination_port);
  const abi::backend_row* row = view_.backend(ref);
  if (row == nullptr || row->address != outer.destination) return false;
  p.service = s->self;
  p.backend = ref;

  const std::uint32_t overhead = inner.ip - std::uint32_t{outer.ip};
  std::uint32_t mtu = wire::mtu_of(m.version, *icmp);
  if (mtu == 0) mtu = wire::smaller_mtu(outer.ip_length);
  const std::uint32_t least = inner.version == 4 ? 68 : wire::max_error6;
  mtu = mtu > overhead + least ? mtu - overhead : least;
  if (mtu >= inner.ip_length) {  // it would fit: nothing that the client could do better
    drop(p, counter_id::drop_icmp_unmatched);
    return true;
  }
  if (!error_limit_.take(icmp_rate(), now_ns_)) {
    count(counter_id::icmp_limited);
    drop(p, counter_id::drop_icmp_rate);
    return true;
  }
  reply_too_big(i, inner.ip, end - inner.ip, inner, mtu);
  count(counter_id::icmp_errors_translated);
  return true;
}

// reply_too_big() makes the buffer an error about the packet `about` at offset `at`, of
// which `there` bytes are contiguous: from its destination to its source. The headers go
// in front of it, over what is there or into the headroom, which must suffice.
void packet_path::reply_too_big(std::size_t i, std::uint32_t at, std::uint32_t there,
                                const quoted& about, std::uint32_t mtu) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const bool v4 = about.version == 4;
  const std::uint32_t headers = v4 ? wire::error4_header : wire::error6_header;
  const std::uint32_t quote =
      std::min({there, about.ip_length, (v4 ? wire::max_error4 : wire::max_error6) - headers});
  // The old Ethernet header may lie where the error will.
  std::array<std::byte, 14 + 4 * wire::max_vlan_tags> old;
  const std::uint32_t ethernet = m.l3;
  std::memcpy(old.data(), p.data, ethernet);
  std::byte* const message = p.data + at - headers;
  if (v4) {
    wire::write_too_big4(message, about.destination.v4_raw(), about.source.v4_raw(), quote,
                         static_cast<std::uint16_t>(std::min(mtu, 65535u)));
  } else {
    wire::write_too_big6(message, about.destination, about.source, quote, mtu);
  }
  std::byte* const frame = message - ethernet;
  wire::mac_word sender = 0;
  std::memcpy(&sender, old.data() + 6, 6);
  wire::move_ethernet(frame, old.data(), ethernet, v4 ? ether_type::ipv4 : ether_type::ipv6, sender,
                      port_macs_[p.in_port]);
  p.headroom = static_cast<std::uint16_t>(p.headroom + (frame - p.data));
  p.data = frame;
  p.length = p.total_length = ethernet + headers + quote;
  p.outcome = verdict::reply;
  p.out_port = p.in_port;
}

// too_big() drops a packet that does not fit the way to its backend, whose rows say `mtu`
// for the whole and `overhead` for what we add, and tells its sender where that is due.
[[gnu::noinline]] void packet_path::too_big(std::size_t i, std::uint32_t mtu,
                                            std::uint32_t overhead) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  drop(p, counter_id::drop_too_big);
  // Never about ICMP (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)): `other` is that.
  if (m.kind == wire::parse_kind::other || p.in_port >= port_count_) return;
  quoted about;
  about.version = m.version;
  about.ip_length = m.ip_length;
  about.destination = wire::destination_of(p, m);
  if (m.version == 4) {
    const auto& ip = *reinterpret_cast<const wire::ipv4_header*>(p.data + m.l3);
    // Without DF there is nothing to tell (RFC 1191 section 4): its sender leaves it to the
    // routers to fragment it, and we are none. Nor about later fragments (RFC 1122).
    if ((ip.fragment.host() & wire::ipv4_header::dont_fragment) == 0 ||
        m.kind == wire::parse_kind::fragment)
      return;
    about.source = ip_address::v4(ip.source);
  } else {
    about.source =
        ip_address::v6(reinterpret_cast<const wire::ipv6_header*>(p.data + m.l3)->source);
  }
  const std::uint32_t headers = m.version == 4 ? wire::error4_header : wire::error6_header;
  if (p.headroom < headers) return;
  if (!error_limit_.take(icmp_rate(), now_ns_)) return count(counter_id::icmp_limited);
  const std::uint32_t least = m.version == 4 ? 68 : wire::max_error6;
  reply_too_big(i, m.l3, std::min(p.length - m.l3, m.ip_length), about,
                mtu > overhead + least ? mtu - overhead : least);
  count(counter_id::icmp_too_big_sent);
}

// answers_echo() tells whether a service on a VIP wants pings answered and can take
// connections. The rows are gone through once per generation, and only if somebody pings.
bool packet_path::answers_echo(const ip_address& address) noexcept {
  if (!echo_known_) {
    echo_known_ = true;
    echo_vips_.fill(0);
    for (std::uint32_t n = 0; n < view_.header().service_count; ++n) {
      const abi::service_row* s = view_.service(static_cast<abi::service_id>(n));
      if (s == nullptr || (s->flags & abi::service_answers_echo) == 0 || s->member_count == 0)
        continue;
      const auto vip = static_cast<std::uint16_t>(s->vip);
      echo_vips_[vip / 64] |= std::uint64_t{1} << vip % 64;
    }
  }
  for (const ip_proto protocol : {ip_proto::tcp, ip_proto::udp}) {
    const abi::vip_row* row = view_.find_vip(address, protocol_number(protocol));
    if (row == nullptr) continue;
    const auto vip = static_cast<std::uint16_t>(row->id);
    if ((echo_vips_[vip / 64] >> vip % 64 & 1) != 0) return true;
  }
  return false;
}

// answer_echo() turns an echo request round in its buffer (RFC 1122 section 3.2.2.6, RFC
// 4443 section 4.2). One with IP options or extension headers is not worth the trouble.
void packet_path::answer_echo(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const bool v4 = m.version == 4;
  auto& icmp = *reinterpret_cast<wire::icmp_header*>(p.data + m.l4);
  const unsigned plain = v4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
  if (m.l4 != m.l3 + plain || icmp.code != 0 || p.in_port >= port_count_ ||
      !answers_echo(wire::destination_of(p, m)))
    return leave(p, kernel_reason::icmp, counter_id::drop_unsupported_protocol);
  // A chained packet's checksum is not looked at; what was wrong stays wrong.
  if (m.l3 + m.ip_length <= p.length && !wire::message_holds(p.data, m))
    return drop(p, counter_id::drop_bad_icmp);
  if (!echo_limit_.take(icmp_rate(), now_ns_)) {
    count(counter_id::icmp_limited);
    return drop(p, counter_id::drop_icmp_rate);
  }
  const be16 type_was = be16::from_raw(static_cast<std::uint16_t>(icmp.type));
  icmp.type = v4 ? wire::icmp4_echo_reply : wire::icmp6_echo_reply;
  icmp.checksum =
      wire::updated(icmp.checksum, type_was, be16::from_raw(static_cast<std::uint16_t>(icmp.type)));
  // A message of zeros has a sum of 0, which looks like 0xffff to RFC 1624: both checksums
  // fit where there is anything else in it, and only this one where there is not.
  if (icmp.checksum.raw() == 0) icmp.checksum = be16::from_raw(0xffff);
  if (v4) {
    auto& ip = *reinterpret_cast<wire::ipv4_header*>(p.data + m.l3);
    const be32 vip = ip.destination;
    ip.destination = ip.source;
    ip.source = vip;
    const be16 ttl_was = be16::from_raw(ip.ttl);
    ip.ttl = wire::outer_ttl;
    ip.checksum = wire::updated(ip.checksum, ttl_was, be16::from_raw(ip.ttl));
  } else {
    auto& ip = *reinterpret_cast<wire::ipv6_header*>(p.data + m.l3);
    std::swap(ip.source, ip.destination);
    ip.hop_limit = wire::outer_ttl;
  }
  wire::mac_word sender = 0;
  std::memcpy(&sender, p.data + 6, 6);
  wire::write_macs(p.data, sender, port_macs_[p.in_port]);
  p.outcome = verdict::reply;
  p.out_port = p.in_port;
  count(counter_id::icmp_echo_answered);
}

std::uint32_t packet_path::icmp_rate() const noexcept {
  const std::uint32_t rate = view_.header().icmp_rate;
  return rate != 0 ? rate : default_icmp_rate;
}

}  // namespace sluice
