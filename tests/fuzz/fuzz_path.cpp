// SPDX-License-Identifier: Apache-2.0
// The whole packet path under any bytes: whatever arrives, nothing is read or written out
// of bounds, everything is counted once, and what is forwarded is right.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/choice_config.hpp"
#include "tests/fuzz/path_input.hpp"
#include "tests/packet/rows.hpp"

namespace {

using namespace sluice;
using namespace sluice::test;

[[noreturn]] void wrong(const char* what, const input& in, const result& out) {
  std::fprintf(stderr, "%s\n in:\n%s\n out:\n%s\n", what, hex(in.frame).c_str(),
               hex(out.frame).c_str());
  std::abort();
}

unsigned word(const bytes& b, std::size_t at) {
  return static_cast<unsigned>(b[at]) << 8 | b[at + 1];
}

// l4_error() is what the sum over a TCP or UDP packet comes to, beside what it should be.
unsigned l4_error(const bytes& f, std::size_t l3, bool v4, std::size_t l4, unsigned protocol,
                  std::size_t end) {
  bytes covered(f.begin() + static_cast<std::ptrdiff_t>(l3 + (v4 ? 12 : 8)),
                f.begin() + static_cast<std::ptrdiff_t>(l3 + (v4 ? 20 : 40)));
  put16(covered, protocol);
  put16(covered, static_cast<unsigned>(end - l4));
  covered.insert(covered.end(), f.begin() + static_cast<std::ptrdiff_t>(l4),
                 f.begin() + static_cast<std::ptrdiff_t>(end));
  const unsigned sum = checksum_of(covered, 0, covered.size());
  return sum == 0xffff ? 0 : sum;
}

// transport_of() is where the header of TCP, UDP or ICMP is in a packet that was forwarded.
// Protocol 0: it has none, being a later fragment.
std::pair<std::size_t, unsigned> transport_of(const bytes& was, std::size_t l3, bool v4) {
  std::size_t l4 = l3 + (v4 ? (was[l3] & 15u) * 4 : 40u);
  unsigned protocol = v4 ? was[l3 + 9] : was[l3 + 6];
  if (v4 && (word(was, l3 + 6) & 0x1fff) != 0) return {l4, 0};
  while (!v4 && protocol != 6 && protocol != 17 && protocol != 58) {
    const std::size_t size = protocol == 44   ? 8
                             : protocol == 51 ? (was[l4 + 1] + 2u) * 4
                                              : (was[l4 + 1] + 1u) * 8;
    if (protocol == 44 && (word(was, l4 + 2) & 0xfff8) != 0) return {l4 + size, 0};
    protocol = was[l4];
    l4 += size;
  }
  return {l4, protocol};
}

// check_marked(): dsr-dscp changes the destination, the DSCP, the TTL and the checksums.
template <class Need>
void check_marked(const abi::backend_row& row, const bytes& was, const bytes& f, std::size_t l3,
                  Need&& need) {
  const bool v4 = word(was, l3 - 2) == 0x0800;
  const std::size_t n = v4 ? 4 : 16;
  const std::size_t destination = l3 + (v4 ? 16 : 24);
  const std::size_t length = v4 ? word(was, l3 + 2) : 40u + word(was, l3 + 4);
  need(f.size() == was.size(), "dsr-dscp changed the length");
  need(std::equal(row.address.bytes.end() - static_cast<std::ptrdiff_t>(n), row.address.bytes.end(),
                  f.begin() + static_cast<std::ptrdiff_t>(destination)),
       "dsr-dscp: destination");
  const auto [l4, protocol] = transport_of(was, l3, v4);
  const std::size_t sum = l4 + (protocol == 6 ? 16u : protocol == 17 ? 6u : 2u);
  if (protocol == 0) {
    // The sum over the whole datagram is in its first fragment.
  } else if (protocol == 1) {
    need(word(f, sum) == word(was, sum), "dsr-dscp: ICMP checksum");
  } else if (protocol == 17 && word(was, sum) == 0) {
    need(word(f, sum) == 0, "dsr-dscp: no checksum any more");
  } else {
    need(l4_error(was, l3, v4, l4, protocol, l3 + length) ==
             l4_error(f, l3, v4, l4, protocol, l3 + length),
         "dsr-dscp: transport checksum");
  }
  bytes expected = was;
  std::copy(f.begin(), f.begin() + 12, expected.begin());
  std::copy_n(row.address.bytes.end() - static_cast<std::ptrdiff_t>(n), n,
              expected.begin() + static_cast<std::ptrdiff_t>(destination));
  if (protocol != 0) {
    expected[sum] = f[sum];
    expected[sum + 1] = f[sum + 1];
  }
  if (v4) {
    expected[l3 + 1] = static_cast<std::uint8_t>((was[l3 + 1] & 3) | row.dscp << 2);
    --expected[l3 + 8];
    expected[l3 + 10] = expected[l3 + 11] = 0;
    const unsigned header = checksum_of(expected, l3, (was[l3] & 15u) * 4);
    expected[l3 + 10] = static_cast<std::uint8_t>(header >> 8);
    expected[l3 + 11] = static_cast<std::uint8_t>(header);
  } else {
    const unsigned first = (word(was, l3) & 0xf03f) | static_cast<unsigned>(row.dscp) << 6;
    expected[l3] = static_cast<std::uint8_t>(first >> 8);
    expected[l3 + 1] = static_cast<std::uint8_t>(first);
    --expected[l3 + 7];
  }
  need(f == expected, "dsr-dscp changed something else");
}

// address_at() is the address at an offset, an IPv4 one as mapped.
ip_address address_at(const bytes& b, std::size_t at, bool v4) {
  hexadec a{};
  if (v4) a[10] = a[11] = 0xff;
  const std::size_t n = v4 ? 4 : 16;
  std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(at), n,
              a.end() - static_cast<std::ptrdiff_t>(n));
  return ip_address{a};
}

bool is_vip(table_builder& tables, const ip_address& a) {
  for (std::uint32_t i = 0; i <= tables.header().vip_mask; ++i)
    if (tables.vips()[i].protocol != 0 && tables.vips()[i].address == a) return true;
  return false;
}

// check_error(): an ICMP error about a translated flow has its addresses, those of its quote,
// ports and a sequence number changed; it is as long as it was, and its checksum is right.
template <class Need>
void check_error(table_builder& tables, const abi::backend_row& row, const bytes& was,
                 const bytes& f, std::size_t l3, std::size_t l4, Need&& need) {
  const bool v4 = word(was, l3 - 2) == 0x0800;
  const std::size_t source = l3 + (v4 ? 12 : 8), destination = l3 + (v4 ? 16 : 24);
  const std::size_t length = v4 ? word(was, l3 + 2) : 40u + word(was, l3 + 4);
  need(f.size() == was.size(), "nat error: length");
  need(f[l3 + (v4 ? 8 : 7)] + 1 == was[l3 + (v4 ? 8 : 7)], "nat error: TTL");
  if (v4) need(checksum_of(f, l3, (f[l3] & 15u) * 4) == 0, "nat error: header checksum");
  bytes covered(f.begin() + static_cast<std::ptrdiff_t>(l4),
                f.begin() + static_cast<std::ptrdiff_t>(l3 + length));
  if (!v4) {
    bytes pseudo(f.begin() + static_cast<std::ptrdiff_t>(source),
                 f.begin() + static_cast<std::ptrdiff_t>(source) + 32);
    put32(pseudo, static_cast<std::uint32_t>(covered.size()));
    put32(pseudo, 58);
    covered = pseudo + covered;
  }
  need(checksum_of(covered, 0, covered.size()) == 0, "nat error: checksum");
  need(f[l4] == was[l4] && f[l4 + 1] == was[l4 + 1], "nat error: type and code");
  const std::size_t quote = l4 + 8;
  const std::size_t inner_source = quote + (v4 ? 12 : 8);
  const std::size_t inner_destination = quote + (v4 ? 16 : 24);
  if (is_vip(tables, address_at(was, destination, v4))) {
    need(address_at(f, destination, v4) == row.address, "nat error: not to the backend");
    need(address_at(f, inner_source, v4) == row.address, "nat error: quote of the backend");
  } else {
    need(is_vip(tables, address_at(f, source, v4)), "nat error: not from the VIP");
    need(address_at(was, inner_destination, v4) == row.address, "nat error: of another backend");
    need(is_vip(tables, address_at(f, inner_destination, v4)), "nat error: quote to the VIP");
    need(address_at(f, inner_source, v4) == address_at(f, destination, v4),
         "nat error: quote of somebody else");
  }
  const auto [inner_l4, protocol] = transport_of(was, quote, v4);
  const std::size_t behind = std::min(inner_l4 + 20, l3 + length);
  need(std::equal(f.begin() + static_cast<std::ptrdiff_t>(behind), f.end(),
                  was.begin() + static_cast<std::ptrdiff_t>(behind)),
       "nat error: rest of the quote");
}

// check_translated(): nat and full-nat change addresses, ports, sequence numbers, and what is
// inserted; the checksum is as right, or as wrong, as it was.
template <class Need>
void check_translated(table_builder& tables, const abi::backend_row& row, const bytes& was,
                      const bytes& f, std::size_t l3, Need&& need) {
  const bool v4 = word(was, l3 - 2) == 0x0800;
  const auto [l4, protocol] = transport_of(was, l3, v4);
  const bool later = protocol == 0;
  need(f.size() >= l3 + (v4 ? 20u : 40u) + (later ? 0u : 8u), "nat: too short");
  if (protocol == (v4 ? 1 : 58)) return check_error(tables, row, was, f, l3, l4, need);
  const auto address = [v4](const bytes& b, std::size_t at) { return address_at(b, at, v4); };
  const std::size_t source = l3 + (v4 ? 12 : 8), destination = l3 + (v4 ? 16 : 24);
  if (is_vip(tables, address(was, destination))) {
    need(address(f, destination) == row.address, "nat: destination");
  } else {
    need(address(was, source) == row.address && is_vip(tables, address(f, source)),
         "nat: reply's source");
  }
  const std::size_t length = v4 ? word(was, l3 + 2) : 40u + word(was, l3 + 4);
  const std::size_t now = v4 ? word(f, l3 + 2) : 40u + word(f, l3 + 4);
  need(now >= length && f.size() >= l3 + now, "nat: length");
  if (v4) need(checksum_of(f, l3, (f[l3] & 15u) * 4) == 0, "nat: header checksum");
  need(f[l3 + (v4 ? 8 : 7)] + 1 == was[l3 + (v4 ? 8 : 7)], "nat: TTL");
  if (later) {
    need(f.size() == was.size() && std::equal(f.begin() + static_cast<std::ptrdiff_t>(l4), f.end(),
                                              was.begin() + static_cast<std::ptrdiff_t>(l4)),
         "nat: later fragment changed");
    return;
  }
  const std::size_t sum = l4 + (protocol == 6 ? 16 : 6);
  if (protocol == 17 && word(was, sum) == 0) {
    need(word(f, sum) == 0, "nat: no checksum any more");
  } else {
    need(l4_error(was, l3, v4, l4, protocol, l3 + length) ==
             l4_error(f, l3, v4, l4, protocol, l3 + now),
         "nat: transport checksum");
  }
}

// take_mss() makes `expected` what it is with the MSS that a SYN was sent with, which may only
// have been lowered to the service's limit, under a checksum that is as right as before.
template <class Need>
void take_mss(bytes& expected, const bytes& sent, bool v4, std::uint16_t clamp, Need&& need) {
  const auto [l4, protocol] = transport_of(expected, 0, v4);
  if (protocol != 6 || l4 + 20 > expected.size() || (expected[l4 + 13] & 2) == 0) return;
  const std::size_t end = std::min(l4 + (expected[l4 + 12] >> 4) * 4, expected.size());
  for (std::size_t at = l4 + 20; at < end && expected[at] != 0;) {
    if (expected[at] == 1) {
      ++at;
      continue;
    }
    if (at + 2 > end || expected[at + 1] < 2 || at + expected[at + 1] > end) return;
    if (expected[at] == 2 && expected[at + 1] == 4 && word(expected, at + 2) > clamp) {
      need(l4_error(expected, 0, v4, l4, protocol, expected.size()) ==
               l4_error(sent, 0, v4, l4, protocol, expected.size()),
           "checksum of a SYN whose MSS was lowered");
      expected[at + 2] = static_cast<std::uint8_t>(clamp >> 8);
      expected[at + 3] = static_cast<std::uint8_t>(clamp);
      expected[l4 + 16] = sent[l4 + 16];
      expected[l4 + 17] = sent[l4 + 17];
      return;
    }
    at += expected[at + 1];
  }
}

// check_forwarded() takes the frame apart again, with nothing of the code under test.
void check_forwarded(table_builder& tables, const input& in, const result& out) {
  const bytes& f = out.frame;
  const bytes& was = in.frame;
  const auto need = [&](bool holds, const char* what) {
    if (!holds) wrong(what, in, out);
  };
  std::size_t l3 = 14;
  while (l3 <= 18 && (word(was, l3 - 2) == 0x8100 || word(was, l3 - 2) == 0x88a8)) l3 += 4;
  const abi::backend_row& row = tables.backend(out.backend.index());
  need(out.service == row.service, "service is not the backend's");
  if (row.mode >= abi::forward_mode::nat) return check_translated(tables, row, was, f, l3, need);
  need(out.out_port == row.out_port && out.out_port < 2, "out_port is not the backend's");
  need(std::equal(row.next_hop.begin(), row.next_hop.end(), f.begin()), "next hop");
  const mac from = port_mac_of(out.out_port);
  need(std::equal(from.begin(), from.end(), f.begin() + 6), "source MAC");
  const bool v4 = word(was, l3 - 2) == 0x0800;
  if (row.mode == abi::forward_mode::dsr_l2) {
    need(f.size() == was.size() && std::equal(f.begin() + 12, f.end(), was.begin() + 12),
         "dsr-l2 changed more than MAC addresses");
    return;
  }
  if (row.mode == abi::forward_mode::dsr_dscp) return check_marked(row, was, f, l3, need);
  need(
      std::equal(f.begin() + 12, f.begin() + static_cast<std::ptrdiff_t>(l3) - 2, was.begin() + 12),
      "VLAN tags");
  const std::size_t length = v4 ? word(was, l3 + 2) : 40u + word(was, l3 + 4);
  need(was.size() >= l3 + length, "forwarded more than there was");
  const bool outer4 = row.address.is_v4();
  const bool gue = row.mode == abi::forward_mode::gue;
  const bool gre = row.mode == abi::forward_mode::gre;
  const std::size_t shim = gue ? 8u : gre ? 4u : 0u;
  const std::size_t inner = l3 + (outer4 ? 20u : 40u) + shim;
  const unsigned next = gue ? 17u : gre ? 47u : v4 ? 4u : 41u;
  need(f.size() == inner + length, "length of the frame");
  const unsigned tos = v4 ? was[l3 + 1] : (word(was, l3) >> 4) & 0xff;
  if (outer4) {
    need(word(f, l3 - 2) == 0x0800 && f[l3] == 0x45, "outer IPv4 header");
    need(f[l3 + 1] == tos, "DSCP and ECN");
    need(word(f, l3 + 2) == f.size() - l3, "outer total length");
    need(word(f, l3 + 4) == 0 && word(f, l3 + 6) == 0x4000 && f[l3 + 8] == 64, "id, DF, TTL");
    need(f[l3 + 9] == next, "outer protocol");
    need(checksum_of(f, l3, 20) == 0, "outer checksum");
    need(std::equal(outer_source4.begin(), outer_source4.end(),
                    f.begin() + static_cast<std::ptrdiff_t>(l3) + 12),
         "outer source");
    need(std::equal(backend4.begin(), backend4.end(),
                    f.begin() + static_cast<std::ptrdiff_t>(l3) + 16),
         "outer destination");
  } else {
    need(word(f, l3 - 2) == 0x86dd && f[l3] >> 4 == 6, "outer IPv6 header");
    need(((word(f, l3) >> 4) & 0xff) == tos, "traffic class");
    need(word(f, l3 + 4) == length + shim && f[l3 + 6] == next && f[l3 + 7] == 64,
         "outer payload length, next header, hop limit");
    need(std::equal(outer_source6.begin(), outer_source6.end(),
                    f.begin() + static_cast<std::ptrdiff_t>(l3) + 8),
         "outer source");
    need(std::equal(backend6.begin(), backend6.end(),
                    f.begin() + static_cast<std::ptrdiff_t>(l3) + 24),
         "outer destination");
  }
  if (gue)
    need(f[inner - 8] >= 0xc0 && word(f, inner - 6) == 6080 && word(f, inner - 4) == length + 8 &&
             word(f, inner - 2) == 0,
         "UDP header of gue");
  if (gre)
    need(word(f, inner - 4) == 0 && word(f, inner - 2) == (v4 ? 0x0800u : 0x86ddu), "GRE header");
  // The inner packet: as it was, one hop on.
  bytes expected(was.begin() + static_cast<std::ptrdiff_t>(l3),
                 was.begin() + static_cast<std::ptrdiff_t>(l3 + length));
  std::uint8_t& ttl = expected[v4 ? 8 : 7];
  need(ttl > 1, "TTL");
  --ttl;
  if (v4) {
    const std::size_t header = (expected[0] & 0xfu) * 4;
    need(checksum_of(was, l3, header) == 0, "forwarded a wrong checksum");
    expected[10] = expected[11] = 0;
    const unsigned sum = checksum_of(expected, 0, header);
    expected[10] = static_cast<std::uint8_t>(sum >> 8);
    expected[11] = static_cast<std::uint8_t>(sum);
  }
  const std::uint16_t clamp = tables.service(static_cast<std::uint32_t>(out.service)).mss_clamp;
  const bytes sent(f.begin() + static_cast<std::ptrdiff_t>(inner), f.end());
  if (clamp != 0 && sent.size() == expected.size() && sent != expected)
    take_mss(expected, sent, v4, clamp, need);
  need(std::equal(expected.begin(), expected.end(), f.begin() + static_cast<std::ptrdiff_t>(inner)),
       "inner packet");
}

// check_reply() looks at an answer: from the port and to the MAC that the packet came from
// and by, with right lengths and, where it is all there, right checksums.
void check_reply(const input& in, const result& out) {
  const bytes& f = out.frame;
  const bytes& was = in.frame;
  const auto need = [&](bool holds, const char* what) {
    if (!holds) wrong(what, in, out);
  };
  need(out.out_port == in.in_port && out.out_port < 2, "answer leaves by another port");
  need(std::equal(f.begin(), f.begin() + 6, was.begin() + 6), "answer to another MAC");
  const mac from = port_mac_of(out.out_port);
  need(std::equal(from.begin(), from.end(), f.begin() + 6), "source MAC of the answer");
  std::size_t l3 = 14;
  while (l3 <= 18 && (word(was, l3 - 2) == 0x8100 || word(was, l3 - 2) == 0x88a8)) l3 += 4;
  const bool v4 = word(f, l3 - 2) == 0x0800;
  need(v4 || word(f, l3 - 2) == 0x86dd, "type of the answer");
  const std::size_t length = v4 ? word(f, l3 + 2) : 40u + word(f, l3 + 4);
  need(f.size() >= l3 + length, "answer is not all there");
  if (v4) need(f[l3] == 0x45 && checksum_of(f, l3, 20) == 0, "IPv4 header of the answer");
  need(f[l3 + (v4 ? 9u : 6u)] == (v4 ? 1 : 58), "answer is not ICMP");
  need(f[l3 + (v4 ? 8u : 7u)] == 64, "TTL of the answer");
  const std::size_t message = l3 + (v4 ? 20u : 40u);
  const bool error = f[message] == (v4 ? 3 : 2);
  need(error || f[message] == (v4 ? 0 : 129), "answer of another type");
  if (error) need(length <= (v4 ? 576u : 1280u) && f.size() == l3 + length, "too long an error");
  if (!error && in.first_segment < f.size()) return;
  bytes sum(f.begin() + static_cast<std::ptrdiff_t>(message),
            f.begin() + static_cast<std::ptrdiff_t>(l3 + length));
  const std::size_t n = sum.size();
  if (!v4) {
    bytes pseudo(f.begin() + static_cast<std::ptrdiff_t>(l3) + 8,
                 f.begin() + static_cast<std::ptrdiff_t>(l3) + 40);
    put32(pseudo, static_cast<std::uint32_t>(n));
    put32(pseudo, 58);
    sum = pseudo + sum;
  }
  need(checksum_of(sum, 0, sum.size()) == 0, "checksum of the answer");
}

// pool_end() is where a packet without tags and options has the port that belongs to an address
// of the NAT pool, as its source or its destination; 0: it has none.
std::size_t pool_end(const bytes& f, bool source) {
  const auto is = [&f](std::size_t at, const auto& address) {
    return std::equal(address.begin(), address.end(), f.begin() + static_cast<std::ptrdiff_t>(at));
  };
  if (f.size() >= 38 && word(f, 12) == 0x0800 && f[14] == 0x45 && is(source ? 26 : 30, pool4))
    return source ? 34 : 36;
  if (f.size() >= 58 && word(f, 12) == 0x86dd && is(source ? 22 : 38, pool6))
    return source ? 54 : 56;
  return 0;
}

struct fuzz_world {
  table_builder tables;
  bench b;
  fuzz_world() : b{(fill_config(tables), add_choices(tables), tables.view()), 128} {}

  // What full-nat took last as a source port; which one it takes the fuzzer cannot know, so
  // that all that comes for the pool comes there.
  unsigned pool_port{0};

  void run(std::vector<input> burst) {
    if (burst.empty()) return;
    for (input& in : burst)
      if (const std::size_t at = pool_end(in.frame, false); at != 0 && pool_port != 0) {
        in.frame[at] = static_cast<std::uint8_t>(pool_port >> 8);
        in.frame[at + 1] = static_cast<std::uint8_t>(pool_port);
      }
    const std::uint64_t before = b.decided() + b.waiting();
    const std::vector<result> out = b.run(burst);
    if (b.decided() + b.waiting() - before != burst.size())
      wrong("not counted once", burst[0], out[0]);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (out[i].outcome == verdict::forward) {
        check_forwarded(tables, burst[i], out[i]);
        if (const std::size_t at = pool_end(out[i].frame, true); at != 0)
          pool_port = word(out[i].frame, at);
      } else if (out[i].outcome == verdict::held) {
        if (out[i].frame != burst[i].frame) wrong("changed, but held", burst[i], out[i]);
      } else if (out[i].outcome == verdict::reply) {
        check_reply(burst[i], out[i]);
      } else if (out[i].frame != burst[i].frame) {
        wrong("changed, but not forwarded", burst[i], out[i]);
      } else if (out[i].outcome == verdict::kernel && burst[i].in_port != kernel_port) {
        wrong("left to a kernel that is not there", burst[i], out[i]);
      }
    }
  }
  // The same input gives the same run: no connections are left from the one before.
  void reset() {
    const auto all = [](auto) { return true; };
    const auto nothing = [](auto) {};
    auto& t = b.table();
    if (!t.v4.consistent() || !t.v6.consistent()) {
      std::fputs("the connection table is inconsistent\n", stderr);
      std::abort();
    }
    b.now_ns += 20'000'000'000;  // limits are full again
    if (!b.nat().consistent()) {
      std::fputs("the NAT table is inconsistent\n", stderr);
      std::abort();
    }
    b.nat().clear();
    pool_port = 0;
    t.v4.erase_if(0, t.v4.bucket_count(), all, nothing);
    t.v6.erase_if(0, t.v6.bucket_count(), all, nothing);
    // Nor any fragment: neither those that wait nor where first ones went.
    b.now_ns += 20'000'000'000u;
    b.maintain();
    if (b.waiting() != 0) {
      std::fputs("a fragment waits for ever\n", stderr);
      std::abort();
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz_world world;
  std::vector<input> burst;
  for (fuzz_record& r : records_of(data, size)) {
    if ((r.flags & (fuzz_new_burst | fuzz_time_passes)) != 0) {
      world.run(burst);
      burst.clear();
    }
    if ((r.flags & fuzz_time_passes) != 0) {
      world.b.now_ns += 20'000'000'000u;
      world.b.maintain();
    }
    burst.push_back(std::move(r.in));
  }
  world.run(burst);
  world.reset();
  return 0;
}
