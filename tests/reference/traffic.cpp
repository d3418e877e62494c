// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/traffic.hpp"

#include <algorithm>

namespace sluice::reference {
namespace {

void add32(octets& b, std::uint64_t v) {
  add16(b, v >> 16 & 0xffff);
  add16(b, v & 0xffff);
}
void add8(octets& b, unsigned v) {
  b.push_back(static_cast<std::uint8_t>(v));
}

// right_checksum() repairs the header of an IPv4 packet, if it is one.
void right_checksum(octets& b, std::size_t l3) {
  if (b.size() < l3 + 20 || get16(b, l3 - 2) != 0x0800) return;
  const std::size_t header = (b[l3] & 15u) * 4u;
  if (header < 20 || b.size() < l3 + header) return;
  set16(b, l3 + 10, 0);
  set16(b, l3 + 10, ~ones_sum(b, l3, header) & 0xffff);
}

}  // namespace

void traffic::begin(flow& f) {
  f = {};
  dice& d = dice_;
  const std::vector<service>& services = estate_->services;
  const std::size_t some = d.below(services.size());
  // Tunnels more than others.
  const bool again = services[some].mode != abi::forward_mode::ipip && d.chance(300);
  const service& s = services[again ? d.below(services.size()) : some];
  const vip& v = estate_->vips[s.vip];
  f.v6 = v.at.size == 16;
  f.tcp = v.protocol == 6;
  f.vip = v.at;
  f.vip_port = d.chance(20) ? d.below(65536) : d.between(s.first, s.last);
  if (d.chance(10)) f.tcp = !f.tcp;
  // Few clients and ports: some flows come back, and some meet.
  const std::uint8_t host = static_cast<std::uint8_t>(d.between(1, 250));
  f.client = f.v6 ? address6({0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0,
                              static_cast<std::uint8_t>(d.below(8)), host})
                  : address4(203, 0, static_cast<std::uint8_t>(113 + d.below(8)), host);
  f.client_port = d.chance(30) ? d.below(65536) : d.between(40000, 40063);
  // A client that uses one port for several flows.
  if (const flow& other = d.one_of(flows_);
      d.chance(160) && other.vip.size != 0 && other.v6 == f.v6) {
    f.client = other.client;
    f.client_port = other.client_port;
    if (d.chance(500)) f.vip = other.vip, f.tcp = other.tcp, f.vip_port = other.vip_port ^ 1u;
  }
  if (d.chance(150)) f.tags = d.between(1, 2);
  for (unsigned i = 0; i < f.tags; ++i) {
    add16(f.before_type, d.chance(800) ? 0x8100 : 0x88a8);
    add16(f.before_type, d.below(65536));
  }
}

// reply() is what a backend sends: mostly of a flow that there is.
traffic::flow traffic::reply() {
  dice& d = dice_;
  const ends& name = d.one_of(replies_);
  flow f;
  f.v6 = name.source.size == 16;
  f.tcp = name.protocol == 6;
  f.fresh = false;
  f.client = name.source;
  f.vip = name.destination;
  f.client_port = name.source_port;
  f.vip_port = d.chance(970) ? name.destination_port : d.below(65536);
  return f;
}

octets traffic::segment(flow& f) {
  dice& d = dice_;
  octets b;
  std::size_t payload = d.below(24);
  if (d.chance(30)) payload = d.between(24, 1460);
  if (d.chance(5)) payload = d.between(1400, 1520);
  add16(b, f.client_port);
  add16(b, f.vip_port);
  if (f.tcp) {
    unsigned flags = 0x10;
    const unsigned kind = d.below(100);
    if (f.fresh ? kind < 65 : kind < 2) {
      flags = 0x02;
    } else if (kind < 90) {
      flags = d.chance(500) ? 0x10 : 0x18;
    } else if (kind < 94) {
      flags = 0x11;
    } else if (kind < 96) {
      flags = d.chance(500) ? 0x04 : 0x14;
    } else if (kind < 98) {
      flags = d.below(256);
    }
    octets options;
    if ((flags & 2) != 0 || d.chance(50)) {
      while (options.size() < 12 && d.chance(600)) {
        switch (d.below(6)) {
          case 0:
            add8(options, 1);
            break;
          case 1:
            add8(options, 8), add8(options, 10);
            add32(options, d.word()), add32(options, d.word());
            break;
          case 2:
            add8(options, d.below(256)), add8(options, d.below(8));
            break;
          default:
            add8(options, 2), add8(options, 4);
            add16(options, d.between(400, 1500));
        }
      }
      while (options.size() % 4 != 0) add8(options, d.chance(500) ? 1 : 0);
    }
    add32(b, d.word());
    add32(b, d.word());
    add8(b, static_cast<unsigned>(5 + options.size() / 4) << 4);
    add8(b, flags);
    add16(b, 0xfaf0);
    add16(b, d.below(65536));
    add16(b, 0);
    append(b, options);
  } else {
    // What is behind the datagram in the packet is its own affair (RFC 9868).
    const std::size_t surplus = d.chance(20) ? std::min<std::size_t>(payload, 4) : 0;
    add16(b, static_cast<unsigned>(8 + payload - surplus));
    add16(b, d.chance(100) ? 0 : d.below(65536));
  }
  f.fresh = false;
  const std::size_t end = b.size() + payload;
  const std::uint8_t filler = d.byte();
  b.resize(end, filler);
  return b;
}

octets traffic::with_extensions(unsigned protocol, const octets& payload, unsigned& next) {
  dice& d = dice_;
  octets b;
  std::vector<unsigned> kinds;
  if (d.chance(300)) kinds.push_back(0);
  const unsigned more = d.chance(100) ? d.below(11) : d.below(3);
  constexpr std::array<unsigned, 6> others{60, 43, 51, 44, 60, 0};
  for (unsigned i = 0; i < more; ++i) kinds.push_back(others[d.below(d.chance(50) ? 6 : 5)]);
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const unsigned behind = i + 1 < kinds.size() ? kinds[i + 1] : protocol;
    add8(b, behind);
    if (kinds[i] == 44) {
      add8(b, 0);
      add16(b, d.chance(50) ? d.below(65536) & 0xfff9 : d.below(4) * 2);
      add32(b, d.word());
      continue;
    }
    const unsigned units = d.below(3);
    add8(b, kinds[i] == 51 ? units * 2 : units);
    add8(b, 0);
    add8(b, d.chance(30) ? 1 : 0);
    const std::size_t rest = kinds[i] == 51 ? (units * 2 + 2) * 4 - 4 : (units + 1) * 8 - 4;
    b.resize(b.size() + rest, 0);
  }
  next = kinds.empty() ? protocol : kinds[0];
  append(b, payload);
  return b;
}

octets traffic::packet(const flow& f, unsigned protocol, const octets& payload) {
  dice& d = dice_;
  octets b;
  const unsigned hops = d.chance(980) ? d.between(3, 255) : d.below(3);
  const unsigned tos = d.chance(300) ? d.below(256) : 0;
  if (!f.v6) {
    const std::size_t options = d.chance(20) ? d.between(1, 10) * 4 : 0;
    add8(b, static_cast<unsigned>(0x45 + options / 4));
    add8(b, tos);
    add16(b, static_cast<unsigned>(20 + options + payload.size()));
    add16(b, d.below(65536));
    add16(b, d.chance(700) ? 0x4000 : 0);
    add8(b, hops);
    add8(b, protocol);
    add16(b, 0);
    append(b, f.client);
    append(b, f.vip);
    b.resize(b.size() + options, 1);
    append(b, payload);
    return b;
  }
  unsigned next = protocol;
  const octets rest = d.chance(20) ? with_extensions(protocol, payload, next) : payload;
  add32(b, 6u << 28 | tos << 20 | d.below(1u << 20));
  add16(b, static_cast<unsigned>(rest.size()));
  add8(b, next);
  add8(b, hops);
  append(b, f.client);
  append(b, f.vip);
  append(b, rest);
  return b;
}

// break_up() makes fragments of an IP packet (RFC 791 section 3.2, RFC 8200 section 4.5). They are
// sent in any order, some never, some twice.
void traffic::break_up(const octets& packet) {
  dice& d = dice_;
  const bool v4 = packet[0] >> 4 == 4;
  const std::size_t header = v4 ? (packet[0] & 15u) * 4u : 40;
  const std::size_t payload = packet.size() - header;
  const std::uint32_t id = d.below(65536);
  for (std::size_t from = 0; from < payload;) {
    const std::size_t left = payload - from;
    const std::size_t size =
        std::min<std::size_t>(left, 8 * d.between(d.chance(100) ? 1 : 3, d.chance(500) ? 5 : 60));
    const bool last = size == left;
    octets b(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(header));
    if (v4) {
      set16(b, 2, static_cast<unsigned>(header + size));
      set16(b, 4, id);
      set16(b, 6, static_cast<unsigned>(from / 8) | (last ? 0 : 0x2000u));
      set16(b, 10, 0);
      set16(b, 10, ~ones_sum(b, 0, header) & 0xffff);
    } else {
      set16(b, 4, static_cast<unsigned>(8 + size));
      add8(b, b[6]);
      b[6] = 44;
      add8(b, 0);
      add16(b, static_cast<unsigned>(from) | (last ? 0 : 1u));
      add32(b, id);
    }
    const auto start = packet.begin() + static_cast<std::ptrdiff_t>(header + from);
    b.insert(b.end(), start, start + static_cast<std::ptrdiff_t>(size));
    if (!d.chance(100)) pieces_.push_back(b);
    if (d.chance(50)) pieces_.push_back(b);
    from += size;
  }
}

octets traffic::ping(const flow& f) {
  dice& d = dice_;
  octets b{static_cast<std::uint8_t>(f.v6 ? 128 : 8), 0};
  if (d.chance(200)) b[0] = d.byte();
  if (d.chance(30)) b[1] = d.byte();
  add16(b, 0);
  b.resize(8 + d.below(64), d.chance(50) ? std::uint8_t{0} : d.byte());
  unsigned pseudo = 0;
  if (f.v6) {
    octets covered;
    append(covered, f.client);
    append(covered, f.vip);
    add16(covered, static_cast<unsigned>(b.size()));
    add16(covered, 58);
    pseudo = ones_sum(covered, 0, covered.size());
  }
  set16(b, 2, ~ones_sum(b, 0, b.size(), pseudo) & 0xffff);
  if (d.chance(50)) b[2] = d.byte();
  return b;
}

// spoil() makes something odd of a frame.
void traffic::spoil(const flow& f, frame& out) {
  dice& d = dice_;
  octets& b = out.bytes;
  const std::size_t l3 = 14 + f.before_type.size();
  const std::size_t source = l3 + (f.v6 ? 8 : 12);
  const std::size_t size = f.v6 ? 16 : 4;
  const std::size_t l4 = l3 + (f.v6 ? 40 : 20);
  bool repair = d.chance(800);
  const auto poke = [&](std::size_t at, unsigned v) {
    if (at < b.size()) b[at] = static_cast<std::uint8_t>(v);
  };
  switch (d.below(20)) {
    case 0:  // cut off
      b.resize(d.below(b.size() + 1));
      repair = repair && d.chance(500);
      break;
    case 1:  // IP's length lies
      if (const std::size_t at = l3 + (f.v6 ? 4 : 2); at + 2 <= b.size()) {
        constexpr std::array<int, 8> by{-40, -20, -8, -1, 1, 2, 20, 1000};
        set16(b, at,
              d.chance(200)
                  ? d.below(65536)
                  : static_cast<unsigned>(static_cast<int>(get16(b, at)) + d.one_of(by)) & 0xffff);
      }
      break;
    case 2:
      poke(l3, d.byte());  // version, header length
      break;
    case 3:
      poke(l3 + 10, d.byte());  // IPv4: its checksum
      repair = false;
      break;
    case 4:
      poke(l3 + (f.v6 ? 7 : 8), d.below(3));
      break;
    case 5: {  // sources that nobody has
      constexpr std::array<std::uint8_t, 8> first{0, 127, 224, 239, 240, 255, 10, 1};
      poke(source, d.one_of(first));
      if (d.chance(300) && b.size() >= source + size)
        std::fill_n(b.begin() + static_cast<std::ptrdiff_t>(source), size,
                    d.chance(500) ? std::uint8_t{0xff} : std::uint8_t{0});
      if (f.v6 && d.chance(300)) poke(source + 15, 1);
      break;
    }
    case 6:  // source and destination are one
      if (b.size() >= source + 2 * size)
        std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(source + size), size,
                    b.begin() + static_cast<std::ptrdiff_t>(source));
      break;
    case 7:  // an address that has no service, or nearly one that has
      poke(source + size + d.below(size), d.byte());
      break;
    case 8:  // mapped addresses
      if (f.v6 && b.size() >= source + 32) {
        const std::size_t at = source + (d.chance(500) ? 16 : 0);
        for (std::size_t i = 0; i < 10; ++i) b[at + i] = 0;
        b[at + 10] = b[at + 11] = 0xff;
      }
      break;
    case 9:
      poke(l4 + 12, d.byte());  // TCP: data offset
      break;
    case 10:
      poke(l4 + 13, d.byte());
      break;
    case 11:
      if (l4 + 6 <= b.size()) set16(b, l4 + 4, d.chance(500) ? d.below(65536) : d.below(32));
      break;
    case 12: {  // another protocol
      constexpr std::array<std::uint8_t, 10> protocols{0, 1, 4, 43, 44, 47, 50, 51, 58, 132};
      poke(l3 + (f.v6 ? 6 : 9), d.one_of(protocols));
      break;
    }
    case 13:
      if (l4 + 4 <= b.size()) set16(b, l4 + 2, d.below(65536));
      break;
    case 14:  // another Ethernet type: ARP, tags, the other IP, anything
      if (constexpr std::array<unsigned, 6> types{0x0806, 0x8100, 0x88a8, 0x0800, 0x86dd, 0x88cc};
          b.size() >= 14)
        set16(b, 12, d.one_of(types));
      break;
    case 15:
      poke(0, b.empty() ? 0u : b[0] | 1u);
      break;
    case 16:  // fragments
      if (!f.v6 && l3 + 8 <= b.size())
        set16(b, l3 + 6, d.chance(500) ? d.below(4) << 13 | d.below(8) : d.below(65536));
      break;
    case 17:
      for (unsigned n = d.between(1, 4); n > 0; --n) poke(d.below(80), d.byte());
      break;
    case 18:
      if (const std::size_t at = d.below(80); at < b.size())
        b[at] = static_cast<std::uint8_t>(b[at] ^ (1u << d.below(8)));
      break;
    default:
      b.resize(b.size() + d.below(200), 0xee);
  }
  if (repair) right_checksum(b, l3);
}

frame traffic::next() {
  dice& d = dice_;
  flow answer;
  if (!replies_.empty() && d.chance(60)) answer = reply();
  flow& f = answer.vip.size != 0 ? answer : d.one_of(flows_);
  if (f.vip.size == 0 || (&f != &answer && d.chance(40))) begin(f);
  const bool pings = d.chance(5);
  frame out;
  octets& b = out.bytes;
  b = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0xc, static_cast<std::uint8_t>(f.client_port)};
  append(b, f.before_type);
  add16(b, f.v6 ? 0x86dd : 0x0800);
  const std::size_t l3 = b.size();
  octets ip = pings ? packet(f, f.v6 ? 58 : 1, ping(f)) : packet(f, f.tcp ? 6 : 17, segment(f));
  if (ip.size() > 100 ? d.chance(200) : d.chance(2)) break_up(ip);
  if (!pieces_.empty() && d.chance(200)) {
    const std::size_t which = d.below(pieces_.size());
    ip = pieces_[which];
    pieces_.erase(pieces_.begin() + static_cast<std::ptrdiff_t>(which));
    set16(b, l3 - 2, ip[0] >> 4 == 4 ? 0x0800 : 0x86dd);
  }
  append(b, ip);
  right_checksum(b, l3);
  if (d.chance(400) && b.size() < 60) b.resize(60, 0xee);
  if (d.chance(100)) spoil(f, out);
  if (d.chance(5)) spoil(f, out);
  out.contiguous = b.size();
  if (d.chance(20)) out.contiguous = d.below(b.size() + 1);
  if (d.chance(5)) out.contiguous = std::min<std::size_t>(b.size(), d.between(14, 100));
  out.headroom = d.chance(30) ? d.below(64) : 128;
  out.in_port = d.chance(950) ? d.below(2) : d.chance(500) ? 2 : 31;
  return out;
}

}  // namespace sluice::reference
