// SPDX-License-Identifier: Apache-2.0
// The short way for packets of clients whose connection and session are known: the session is
// found by a hint from the connection's hash instead of by its names, what was compared with the
// tables once is taken for granted for a generation, and the checksums change by what the
// session knows. The packets of a burst are put off until all have been looked up, so that the
// memory of their sessions is fetched meanwhile.
#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <type_traits>

#include "dataplane/path/packet_path.hpp"
#include "dataplane/path/ready.hpp"

namespace sluice {

using abi::connection_state;

namespace {

constexpr std::uint8_t l4_flags =
    connection::tcp_fin | connection::tcp_syn | connection::tcp_rst | connection::tcp_ack;

// change_of() is what to add to the complement of a checksum (RFC 1624 eqn. 3: ~m + m').
std::uint16_t change_of(std::uint64_t before, std::uint64_t after) noexcept {
  return wire::fold(std::uint64_t{static_cast<std::uint16_t>(~wire::fold(before))} +
                    wire::fold(after));
}

// changed_by() is the checksum after such a change.
std::uint16_t changed_by(std::uint16_t checksum, std::uint16_t change) noexcept {
  const std::uint32_t sum = static_cast<std::uint16_t>(~checksum) + std::uint32_t{change};
  return static_cast<std::uint16_t>(~((sum + std::rotl(sum, 16)) >> 16));
}

template <class Address>
std::uint64_t sum_of(const Address& a, const Address& b) noexcept {
  return wire::sum(std::as_bytes(std::span{a.bytes})) +
         wire::sum(std::as_bytes(std::span{b.bytes}));
}

std::uint32_t generation_mark(std::uint64_t generation, bool v6) noexcept {
  return static_cast<std::uint32_t>(generation << 1) | std::uint32_t{v6};
}

}  // namespace

// confirm() notes what has just been found out by translate(). What goes into a stream (toa,
// proxy-v2) is not for the short way.
void packet_path::confirm(nat_session& s, std::uint64_t hash, std::uint64_t vip_bits,
                          bool v6) noexcept {
  if ((s.flags & (nat_toa | nat_proxy)) != 0) return;
  s.confirmed = generation_mark(generation_, v6);
  s.vip_bits = static_cast<std::uint16_t>(vip_bits);
  s.local4 = s.local.v4_raw().raw();
  s.server4 = s.server.v4_raw().raw();
  // The first 12 bytes of IPv4-mapped addresses are alike.
  const std::uint64_t before = sum_of(s.client, s.vip);
  const std::uint64_t after = sum_of(s.local, s.server);
  s.ip_change = change_of(before, after);
  const auto ports = [](be16 a, be16 b) { return std::uint64_t{a.raw()} + b.raw(); };
  s.l4_change = change_of(before + ports(s.client_port, s.vip_port),
                          after + ports(s.local_port, s.server_port));
  nat_->hint(hash, s);
}

template <class Family>
[[gnu::always_inline]] inline bool packet_path::translate_ready(
    const batch<Family>& b, unsigned k, nat_session* s, abi::backend_ref ref,
    abi::backend_counters& line) noexcept {
  const egress& e = egress_in(line);
  constexpr bool v4 = std::is_same_v<Family, connection::ipv4>;
  using header = std::conditional_t<v4, wire::ipv4_header, wire::ipv6_header>;
  constexpr std::size_t n = v4 ? 4 : 16;
  packet& p = *b.packets[k];
  const wire::common c = b.commons[k];
  auto& ip = *reinterpret_cast<header*>(p.data + sizeof(wire::ethernet_header));
  auto* const l4 = reinterpret_cast<std::byte*>(&ip + 1);
  if (s == nullptr || s->confirmed != generation_mark(generation_, !v4)) return false;
  std::uint32_t ports[2];
  std::memcpy(&ports[0], l4, 4);
  std::memcpy(&ports[1], &s->client_port, 4);
  static_assert(offsetof(nat_session, vip_port) == offsetof(nat_session, client_port) + 2);
  if (ports[0] != ports[1] || s->vip_bits != b.keys[k].vip_bits ||
      std::memcmp(&ip.source, s->client.bytes.data() + 16 - n, n) != 0)
    return false;
  const bool tcp = (c & 1) != 0;
  const std::uint32_t flags = c >> wire::common_flags_shift & l4_flags;
  // Nothing begins or ends: the session stays as it is.
  if (s->protocol != wire::protocol_of(c) ||
      s->state != (tcp ? connection_state::established : connection_state::udp) ||
      flags != (tcp ? std::uint32_t{connection::tcp_ack} : 0u) || wire::length_of(c) > e.limit ||
      s->backend != ref || nat_->expired(*s, now_))
    return false;

  if (s->seen != now_) s->seen = now_;
  if (s->in_port != p.in_port) s->in_port = p.in_port;
  if (std::memcmp(s->client_mac.data(), p.data + 6, 6) != 0)
    std::memcpy(s->client_mac.data(), p.data + 6, 6);

  // Source and destination lie side by side, here and there; so do the ports.
  if constexpr (v4) {
    static_assert(offsetof(nat_session, server4) == offsetof(nat_session, local4) + 4);
    std::memcpy(static_cast<void*>(&ip.source), &s->local4, 8);
  } else {
    static_assert(offsetof(nat_session, server) == offsetof(nat_session, local) + 16);
    std::memcpy(static_cast<void*>(&ip.source), &s->local, 32);
  }
  static_assert(offsetof(nat_session, server_port) == offsetof(nat_session, local_port) + 2);
  std::memcpy(l4, &s->local_port, 4);
  // Before the checksum alone is written: this reads more, and would wait for it.
  wire::decrement_ttl(ip);
  if constexpr (v4) ip.checksum = be16::from_raw(changed_by(ip.checksum.raw(), s->ip_change));
  if (tcp) {
    auto& to = reinterpret_cast<wire::tcp_header*>(l4)->checksum;
    to = be16::from_raw(changed_by(to.raw(), s->l4_change));
  } else if (auto& to = reinterpret_cast<wire::udp_header*>(l4)->checksum; to.raw() != 0) {
    const std::uint16_t sum = changed_by(to.raw(), s->l4_change);
    to = be16::from_raw(sum != 0 ? sum : std::uint16_t{0xffff});
  }
  wire::write_macs(p.data, e.hop & wire::mac_mask, port_macs_[e.out_port]);
  count_ready(p, wire::length_of(c), ref, line);
  return true;
}

template <class Family>
void packet_path::translate_put_off(batch<Family>& b, unsigned end) noexcept {
  unsigned count = put_off_count_;
  while (count != 0 && put_off_[count - 1] >= end) --count;
  if (count == 0) return;
  for (unsigned j = 0; j < count; ++j) {
    const unsigned k = put_off_[j];
    nat_session* const s = nat_->hinted(b.hashes[k].value);
    hinted_[j] = s;
    if (s == nullptr) continue;
    __builtin_prefetch(s);
    if constexpr (std::is_same_v<Family, connection::ipv6>) __builtin_prefetch(&s->vip);
  }
  for (unsigned j = 0; j < count; ++j) {
    const unsigned k = put_off_[j];
    const abi::backend_ref ref = b.found[k]->backend();
    if (translate_ready(b, k, hinted_[j], ref, line_of(ref))) [[likely]] {
      ++tally_.forwarded;
      continue;
    }
    spell_out(b, k);
    translated_ = nullptr;
    send(number_of(b.packets[k]), ref);
    if (translated_ != nullptr)
      confirm(*translated_, b.hashes[k].value, b.keys[k].vip_bits,
              !std::is_same_v<Family, connection::ipv4>);
  }
  put_off_count_ -= count;
  std::copy_n(put_off_.data() + count, put_off_count_, put_off_.data());
}

template void packet_path::translate_put_off(batch<connection::ipv4>&, unsigned) noexcept;
template void packet_path::translate_put_off(batch<connection::ipv6>&, unsigned) noexcept;

}  // namespace sluice
