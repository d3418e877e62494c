// SPDX-License-Identifier: Apache-2.0
// What the reference model writes: frames built anew, checksums by definition, or, where a wrong
// one has to stay wrong, by RFC 1624 equation 3 word by word.
#include <algorithm>

#include "tests/reference/path.hpp"

namespace sluice::reference {
namespace {

using abi::counter_id;
using abi::forward_mode;

// mix() is splitmix64's finaliser.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
// little() reads n bytes as a little-endian number.
std::uint64_t little(const address& a, std::size_t from, std::size_t n) {
  std::uint64_t v = 0;
  for (std::size_t i = 0; i < n; ++i) v |= std::uint64_t{a.bytes[from + i]} << 8 * i;
  return v;
}
std::uint64_t swapped(unsigned v) {
  return (v & 0xffu) << 8 | (v >> 8 & 0xffu);
}

octets part(const octets& b, std::size_t from, std::size_t n) {
  const auto at = b.begin() + static_cast<std::ptrdiff_t>(from);
  return octets(at, at + static_cast<std::ptrdiff_t>(n));
}

octets ipv4_header(unsigned tos, std::size_t length, unsigned protocol, const address& source,
                   const address& destination) {
  octets h{0x45, static_cast<std::uint8_t>(tos)};
  add16(h, static_cast<unsigned>(length));
  add16(h, 0);       // id: an atomic datagram needs none
  add16(h, 0x4000);  // DF
  h.push_back(64);
  h.push_back(static_cast<std::uint8_t>(protocol));
  add16(h, 0);
  append(h, source);
  append(h, destination);
  sum_ipv4_header(h);
  return h;
}
octets ipv6_header(unsigned traffic_class, unsigned label, std::size_t payload, unsigned next,
                   const address& source, const address& destination) {
  octets h;
  const std::uint32_t word = 6u << 28 | traffic_class << 20 | label;
  add16(h, word >> 16);
  add16(h, word & 0xffff);
  add16(h, static_cast<unsigned>(payload));
  h.push_back(static_cast<std::uint8_t>(next));
  h.push_back(64);
  append(h, source);
  append(h, destination);
  return h;
}

// source_for() is the tunnel's source address for a flow: what is behind the prefix, of at most
// 32 bits, is the lower half of the hash as a fraction of the hosts there are, without the
// network's and the broadcast address (IPv4), the subnet-router anycast address (IPv6).
address source_for(const tunnel_source& s, std::uint64_t hash) {
  const bool v4 = s.base.size == 4;
  const unsigned free_bits = (v4 ? 32u : 128u) - s.prefix;
  if (free_bits == 0) return s.base;
  const unsigned bits = std::min(free_bits, 32u);
  const std::uint64_t places = std::uint64_t{1} << bits;
  const std::uint64_t fraction = hash & 0xffffffff;
  std::uint64_t host = 0;
  if (v4) {
    host = bits == 1 ? (fraction * 2) >> 32 : 1 + ((fraction * (places - 2)) >> 32);
  } else {
    host = 1 + ((fraction * (places - 1)) >> 32);
  }
  address a = s.base;
  for (unsigned bit = 0; bit < bits; ++bit) {
    std::uint8_t& byte = a.bytes[a.size - 1 - bit / 8];
    const auto mask = static_cast<std::uint8_t>(1u << bit % 8);
    byte = static_cast<std::uint8_t>((host >> bit & 1) != 0 ? byte | mask : byte & ~mask);
  }
  return a;
}

}  // namespace

void sum_ipv4_header(octets& packet) {
  set16(packet, 10, 0);
  set16(packet, 10, ~ones_sum(packet, 0, (packet[0] & 15u) * 4u) & 0xffff);
}

unsigned corrected(unsigned checksum, unsigned before, unsigned after) {
  unsigned sum = (~checksum & 0xffff) + (~before & 0xffff) + after;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

std::uint64_t hash_of_flow(std::uint64_t seed, const reading& r) {
  const std::uint64_t ends =
      swapped(r.source_port) | swapped(r.destination_port) << 16 | std::uint64_t{r.protocol} << 32;
  if (r.version == 4) {
    const std::uint64_t both = little(r.source, 0, 4) | little(r.destination, 0, 4) << 32;
    return mix(mix(seed ^ both) ^ ends);
  }
  std::uint64_t h = seed;
  for (const address* a : {&r.source, &r.destination})
    for (const std::size_t half : {0u, 8u}) h = mix(h ^ little(*a, half, 8));
  return mix(h ^ ends);
}
std::uint64_t hash_of_source(std::uint64_t seed, const address& source) {
  if (source.size == 4) return mix(mix(seed ^ little(source, 0, 4)));
  return mix(mix(seed ^ little(source, 0, 8)) ^ little(source, 8, 8));
}

// framed() puts an Ethernet header with the frame's own VLAN tags before a packet.
octets path::framed(const work& w, unsigned type, const octets& packet, const mac& destination,
                    const mac& source) const {
  octets f(destination.begin(), destination.end());
  f.insert(f.end(), source.begin(), source.end());
  append(f, part(w.in.bytes, 12, w.r.l3 - 14));
  add16(f, type);
  append(f, packet);
  return f;
}

// routed() is the IP packet as it leaves: one off its TTL unless it is only passed on; the MSS
// lowered where the service asks for it.
octets path::routed(const work& w, const backend& b) {
  const reading& r = w.r;
  octets packet = part(w.in.bytes, r.l3, r.ip_length);
  const service& s = tables_->services.at(b.service);
  if (s.mode != forward_mode::dsr_l2) {
    if (r.version == 4) {
      --packet[8];
      sum_ipv4_header(packet);
    } else {
      --packet[7];
    }
  }
  if ((r.tcp_flags & 2) != 0 && s.in_use && s.mss_clamp != 0) clamp_mss(w, packet, s.mss_clamp);
  return packet;
}

void path::clamp_mss(const work& w, octets& packet, unsigned most) {
  const std::size_t l4 = w.r.l4 - w.r.l3;
  // Options that lie in another buffer are not looked at.
  const std::size_t readable = std::min(w.in.contiguous, w.r.l3 + w.r.ip_length) - w.r.l3;
  const std::size_t header = l4 + static_cast<std::size_t>(packet[l4 + 12] >> 4) * 4;
  const std::size_t end = std::min(header, readable);
  for (std::size_t at = l4 + 20; at < end;) {
    const unsigned kind = packet[at];
    if (kind == 0) return;
    if (kind == 1) {
      ++at;
      continue;
    }
    if (at + 2 > end) return;
    const std::size_t length = packet[at + 1];
    if (length < 2 || at + length > end) return;
    if (kind == 2 && length == 4) {
      if (get16(packet, at + 2) <= most) return;
      const octets before = packet;
      set16(packet, at + 2, most);
      unsigned checksum = get16(packet, l4 + 16);
      // The option may lie across the words that are summed.
      for (std::size_t word = (at + 2) / 2 * 2; word < at + 4; word += 2) {
        const auto value = [&](const octets& b) {
          return static_cast<unsigned>(b[word]) << 8 | (word + 1 < b.size() ? b[word + 1] : 0u);
        };
        checksum = corrected(checksum, value(before), value(packet));
      }
      set16(packet, l4 + 16, checksum);
      count(counter_id::mss_clamped);
      return;
    }
    at += length;
  }
}

void path::send(work& w, const named& to) {
  const backend& b = tables_->backends.at(to.row);
  const reading& r = w.r;
  w.out.service = b.service;
  w.out.backend = to;
  if (!b.has_next_hop || b.out_port >= ports_.size()) return drop(w, counter_id::drop_no_next_hop);
  const forward_mode mode = tables_->services.at(b.service).mode;
  if (mode == forward_mode::nat || mode == forward_mode::full_nat) return translate(w, to, b);
  const bool tunnel =
      mode == forward_mode::ipip || mode == forward_mode::gue || mode == forward_mode::gre;
  const bool outer4 = b.at.size == 4;
  std::size_t added = 0;
  if (tunnel) added = outer4 ? 20 : 40;
  if (mode == forward_mode::gue) added += 8;
  if (mode == forward_mode::gre) added += 4;

  if (mode == forward_mode::dsr_dscp && outer4 != (r.version == 4))
    return drop(w, counter_id::drop_bad_table);
  const unsigned mtu = b.mtu != 0 ? b.mtu : 65535;
  if (r.ip_length + added > mtu) return tell_too_big(w, mtu, static_cast<unsigned>(added));
  const tunnel_source& source = outer4 ? tables_->source4 : tables_->source6;
  if (tunnel && w.in.headroom < added) return drop(w, counter_id::drop_no_headroom);
  if (tunnel && !source.configured) return drop(w, counter_id::drop_bad_table);

  octets packet = routed(w, b);
  const mac& our_mac = ports_[b.out_port].mac;
  const unsigned own_type = r.version == 4 ? 0x0800 : 0x86dd;
  if (!tunnel) {
    if (mode == forward_mode::dsr_dscp) {
      packet =
          readdressed(w, packet, {r.protocol, r.source, r.source_port, b.at, r.destination_port});
      const unsigned tos = (r.tos & 3u) | b.dscp << 2;
      if (r.version == 4) {
        packet[1] = static_cast<std::uint8_t>(tos);
        sum_ipv4_header(packet);
      } else {
        packet[0] = static_cast<std::uint8_t>(0x60 | tos >> 4);
        packet[1] = static_cast<std::uint8_t>((packet[1] & 15u) | (tos & 15u) << 4);
      }
    }
    pass_on(w, packet, b.next_hop, b.out_port);
    return sent(w, b);
  }

  const std::uint64_t hash = hash_of_flow(tables_->hash_seed, r);
  octets inside;
  unsigned next = r.version == 4 ? 4 : 41;
  if (mode == forward_mode::gre) {
    next = 47;
    add16(inside, 0);
    add16(inside, own_type);
  } else if (mode == forward_mode::gue) {
    next = 17;
    add16(inside, 49152 + static_cast<unsigned>(hash % 16384));
    add16(inside, tables_->gue_port != 0 ? tables_->gue_port : 6080);
    add16(inside, static_cast<unsigned>(8 + packet.size()));
    add16(inside, 0);
  }
  append(inside, packet);
  octets outer;
  const address from = source_for(source, hash);
  if (outer4) {
    outer = ipv4_header(r.tos, 20 + inside.size(), next, from, b.at);
  } else {
    const auto label = static_cast<unsigned>(hash % (1u << 20));
    outer = ipv6_header(r.tos, label != 0 ? label : 1, inside.size(), next, from, b.at);
  }
  append(outer, inside);
  w.out.out.bytes = framed(w, outer4 ? 0x0800 : 0x86dd, outer, b.next_hop, our_mac);
  w.out.out.contiguous = std::min(w.in.contiguous + added, w.out.out.bytes.size());
  w.out.out.headroom = w.in.headroom - static_cast<unsigned>(added);
  sent(w, b);
}

void path::pass_on(work& w, const octets& packet, const mac& next_hop, unsigned out_port) const {
  octets f = framed(w, w.r.version == 4 ? 0x0800 : 0x86dd, packet, next_hop, ports_[out_port].mac);
  // What is behind the packet stays.
  append(f, part(w.in.bytes, f.size(), w.in.bytes.size() - f.size()));
  w.out.out.bytes = std::move(f);
  w.out.out_port = out_port;
}

void path::sent(work& w, const backend& b) {
  w.out.what = verdict::forward;
  w.out.out_port = b.out_port;
  count(counter_id::forwarded);
  service_counts& s = services_.at(b.service);
  ++s.packets;
  s.bytes += w.r.ip_length;
  backend_counts& c = backends_.at(w.out.backend->row);
  ++c.packets;
  c.bytes += w.r.ip_length;
}

// tell_too_big(): RFC 1191 section 4, RFC 4443 section 3.2.
void path::tell_too_big(work& w, unsigned mtu, unsigned added) {
  drop(w, counter_id::drop_too_big);
  const reading& r = w.r;
  const bool v4 = r.version == 4;
  if (w.in.in_port >= ports_.size() || !r.dont_fragment) return;
  if (v4 && r.what == reading::kind::fragment) return;  // RFC 1122 section 3.2.2
  const std::size_t headers = v4 ? 28 : 48;
  if (w.in.headroom < headers) return;
  const std::size_t most = v4 ? 576 : 1280;
  const unsigned least = v4 ? 68 : 1280;
  const unsigned told = std::max(mtu > added ? mtu - added : 0, least);
  const std::size_t quoted = std::min({w.in.contiguous - r.l3, r.ip_length, most - headers});
  octets message{static_cast<std::uint8_t>(v4 ? 3 : 2), static_cast<std::uint8_t>(v4 ? 4 : 0)};
  add16(message, 0);
  add16(message, v4 ? 0 : told >> 16);
  add16(message, told & 0xffff);
  append(message, part(w.in.bytes, r.l3, quoted));
  octets packet;
  unsigned pseudo = 0;
  if (v4) {
    packet = ipv4_header(0xc0, 20 + message.size(), 1, r.destination, r.source);
  } else {
    packet = ipv6_header(0xc0, 0, message.size(), 58, r.destination, r.source);
    octets covered = part(packet, 8, 32);
    add16(covered, 0);
    add16(covered, static_cast<unsigned>(message.size()));
    add16(covered, 0);
    add16(covered, 58);
    pseudo = ones_sum(covered, 0, covered.size());
  }
  set16(message, 2, ~ones_sum(message, 0, message.size(), pseudo) & 0xffff);
  append(packet, message);
  mac sender;
  std::copy_n(w.in.bytes.begin() + 6, 6, sender.begin());
  w.out.out.bytes = framed(w, v4 ? 0x0800 : 0x86dd, packet, sender, ports_[w.in.in_port].mac);
  w.out.out.contiguous = w.out.out.bytes.size();
  w.out.out.headroom = w.in.headroom - static_cast<unsigned>(headers);
  w.out.what = verdict::reply;
  w.out.out_port = w.in.in_port;
  count(counter_id::icmp_too_big_sent);
}

// icmp(): a whole ICMP packet to a service's address that is no error.
void path::icmp(work& w) {
  if (std::min(w.in.contiguous, w.r.l3 + w.r.ip_length) < w.r.l4 + 8)
    return drop(w, counter_id::drop_bad_icmp);
  if (w.in.bytes[w.r.l4] == (w.r.version == 4 ? 8 : 128)) return echo(w);
  leave(w, kernel_reason::icmp, counter_id::drop_unsupported_protocol);
}

void path::echo(work& w) {
  const reading& r = w.r;
  bool wanted = false;
  for (const service& s : tables_->services)
    wanted = wanted || (s.in_use && s.answers_echo && !s.members.empty() &&
                        tables_->vips[s.vip].at == r.destination);
  if (!r.plain || w.in.bytes[r.l4 + 1] != 0 || w.in.in_port >= ports_.size() || !wanted)
    return leave(w, kernel_reason::icmp, counter_id::drop_unsupported_protocol);
  const bool v4 = r.version == 4;
  octets packet = part(w.in.bytes, r.l3, r.ip_length);
  const std::size_t at = r.l4 - r.l3;
  const std::size_t length = packet.size() - at;
  unsigned pseudo = 0;
  if (!v4) {
    octets covered = part(packet, 8, 32);
    add16(covered, 0);
    add16(covered, static_cast<unsigned>(length));
    add16(covered, 58);
    pseudo = ones_sum(covered, 0, covered.size());
  }
  const bool all_there = r.l3 + r.ip_length <= w.in.contiguous;
  if (all_there && ones_sum(packet, at, length, pseudo) != 0xffff)
    return drop(w, counter_id::drop_bad_icmp);
  const unsigned before = get16(packet, at);
  packet[at] = v4 ? 0 : 129;
  unsigned checksum = corrected(get16(packet, at + 2), before, get16(packet, at));
  if (checksum == 0) checksum = 0xffff;
  set16(packet, at + 2, checksum);
  const std::size_t size = v4 ? 4 : 16;
  const std::size_t addresses = v4 ? 12 : 8;
  for (std::size_t i = 0; i < size; ++i)
    std::swap(packet[addresses + i], packet[addresses + size + i]);
  packet[v4 ? 8 : 7] = 64;
  if (v4) sum_ipv4_header(packet);
  mac sender;
  std::copy_n(w.in.bytes.begin() + 6, 6, sender.begin());
  pass_on(w, packet, sender, w.in.in_port);
  w.out.what = verdict::reply;
  count(counter_id::icmp_echo_answered);
}

}  // namespace sluice::reference
