// SPDX-License-Identifier: Apache-2.0
// nat and full-nat services on a bench, and packets of clients and backends for them.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/packet/bench.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {

inline constexpr mac server_mac{2, 0, 0, 0, 0xb, 1};
inline constexpr mac router_mac{2, 0, 0, 0, 0xc, 7};  // from whom the clients' packets come

// An end of a flow, IPv4 or IPv6 as the address says.
struct end {
  ip_address address;
  unsigned port;
  bool operator==(const end&) const = default;
};
inline end at4(quad a, unsigned port) {
  return {ip_address::v4(a), port};
}
inline end at6(std::uint8_t net, std::uint8_t last, unsigned port) {
  hexadec a{0x20, 0x01, 0x0d, 0xb8, 0, net};
  a[15] = last;
  return {ip_address::v6(a), port};
}

struct segment {
  end from;
  end to;
  unsigned protocol{6};
  unsigned flags{0x10};
  std::uint32_t sequence{1000};
  std::uint32_t acknowledgement{2000};
  bytes options{};
  bytes payload{};
  unsigned ttl{61};
  bool no_sum{false};
};

inline bytes ip_of(const segment& s) {
  bytes l4;
  if (s.protocol == 6) {
    l4 = tcp({.source = s.from.port,
              .destination = s.to.port,
              .flags = s.flags,
              .data_offset = static_cast<unsigned>(5 + s.options.size() / 4),
              .options = s.options,
              .sequence = s.sequence,
              .acknowledgement = s.acknowledgement},
             s.payload);
  } else {
    l4 = udp({.source = s.from.port, .destination = s.to.port}, s.payload);
    if (s.no_sum) l4[6] = l4[7] = 0;
  }
  const auto quad_of = [](const ip_address& a) {
    return quad{a.bytes[12], a.bytes[13], a.bytes[14], a.bytes[15]};
  };
  bytes ip = s.from.address.is_v4() ? ip4({.source = quad_of(s.from.address),
                                           .destination = quad_of(s.to.address),
                                           .protocol = s.protocol,
                                           .ttl = s.ttl},
                                          l4)
                                    : ip6({.source = s.from.address.bytes,
                                           .destination = s.to.address.bytes,
                                           .next = s.protocol,
                                           .hop_limit = s.ttl},
                                          l4);
  return s.no_sum ? ip : summed(std::move(ip));
}
inline bytes frame_of(const segment& s, const mac& to = our_mac, const mac& from = router_mac) {
  return ethernet(s.from.address.is_v4() ? 0x0800 : 0x86dd, ip_of(s), {}, to, from);
}

// read() takes a frame apart again (no tags, no extension headers), all checksums verified.
inline segment read(const bytes& f) {
  const auto word = [&f](std::size_t at) { return unsigned{f[at]} << 8 | f[at + 1]; };
  const auto word32 = [&](std::size_t at) { return word(at) << 16 | word(at + 2); };
  segment s;
  const bool v4 = word(12) == 0x0800;
  const bytes ip(f.begin() + 14, f.end());
  EXPECT_EQ(hex(summed(ip)), hex(ip)) << "transport checksum";
  if (v4) {
    EXPECT_EQ(checksum_of(ip, 0, 20), 0u) << "IPv4 checksum";
    EXPECT_EQ(word(16), ip.size());
    s.from.address = ip_address::v4({f[26], f[27], f[28], f[29]});
    s.to.address = ip_address::v4({f[30], f[31], f[32], f[33]});
  } else {
    EXPECT_EQ(word(18) + 40, ip.size());
    std::copy_n(f.begin() + 22, 16, s.from.address.bytes.begin());
    std::copy_n(f.begin() + 38, 16, s.to.address.bytes.begin());
  }
  const std::size_t l4 = v4 ? 34 : 54;
  s.ttl = f[v4 ? 22 : 21];
  s.protocol = f[v4 ? 23 : 20];
  s.from.port = word(l4);
  s.to.port = word(l4 + 2);
  std::size_t header = 8;
  if (s.protocol == 6) {
    header = (f[l4 + 12] >> 4) * 4u;
    s.sequence = word32(l4 + 4);
    s.acknowledgement = word32(l4 + 8);
    s.flags = f[l4 + 13];
    s.options.assign(f.begin() + static_cast<std::ptrdiff_t>(l4 + 20),
                     f.begin() + static_cast<std::ptrdiff_t>(l4 + header));
  }
  s.payload.assign(f.begin() + static_cast<std::ptrdiff_t>(l4 + header), f.end());
  return s;
}

enum nat_service : unsigned {
  nat4,
  nat_udp4,
  nat6,
  full4,
  full_udp4,
  full6,
  toa4,
  toa6,
  proxy4,
  proxy6,
  nat_same_port,
  nat_two,
  nat_service_count
};

// Services on 198.51.100.20 (IPv4) and 2001:db8:f::20, port 1000 + the service's number; two
// backends in nat_two only.
class nat_world : public ::testing::Test {
 protected:
  nat_world() { fill(); }

  static end vip(unsigned service, bool v4) {
    return v4 ? at4({198, 51, 100, 20}, 1000 + service) : at6(0xf, 0x20, 1000 + service);
  }
  static bool is_v4(unsigned service) {
    return service != nat6 && service != full6 && service != toa6 && service != proxy6;
  }
  static end vip(unsigned service) { return vip(service, is_v4(service)); }
  static end server(unsigned service, unsigned which = 0) {
    const auto last = static_cast<std::uint8_t>(20 + which);
    const unsigned port = service == nat_same_port ? 1000 + service : 8080;
    return is_v4(service) ? at4({10, 0, 1, last}, port) : at6(1, last, port);
  }
  static end client(unsigned service, unsigned port = 40000) {
    return is_v4(service) ? at4({203, 0, 113, 7}, port) : at6(0xc, 7, port);
  }
  static bool is_udp(unsigned service) { return service == nat_udp4 || service == full_udp4; }

  void fill() {
    using abi::forward_mode;
    const std::uint8_t all =
        abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;
    for (unsigned s = 0; s < nat_service_count; ++s) {
      const bool full = s >= full4 && s <= proxy6;
      std::vector<table_builder::backend_spec> backends;
      for (unsigned b = 0; b < (s == nat_two ? 2u : 1u); ++b)
        backends.push_back({server(s, b).address, server_mac, 0, 1500, all, 0,
                            static_cast<std::uint16_t>(s == nat_same_port ? 0 : 8080)});
      const auto port = static_cast<std::uint16_t>(vip(s).port);
      const auto id =
          tables.add_service(vip(s).address, is_udp(s) ? ip_proto::udp : ip_proto::tcp, port, port,
                             full ? forward_mode::full_nat : forward_mode::nat, backends);
      if (s == toa4 || s == toa6) tables.options(id).client = abi::client_address::toa;
      if (s == proxy4 || s == proxy6) tables.options(id).client = abi::client_address::proxy_v2;
    }
    tables.add_to_pool(pool4.address);
    tables.add_to_pool(pool6.address);
  }

  // with() is a bench whose table of sessions is as `nat` says.
  bench with(const nat_table::options& nat) {
    return bench{tables.view(), 4096, bench_ports, 0x0123456789abcdef, {}, 0, nat};
  }

  // sent() puts a frame in by the wire port and wants it forwarded; returns it, read.
  static segment sent(bench& b, const bytes& frame, const mac& to, unsigned out_port) {
    const result r = b.run(frame);
    EXPECT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::forward))
        << "dropped for " << static_cast<int>(r.reason);
    if (r.outcome != verdict::forward) return {};
    EXPECT_EQ(unsigned{r.out_port}, out_port);
    EXPECT_EQ(hex(bytes(r.frame.begin(), r.frame.begin() + 6)), hex(bytes(to.begin(), to.end())));
    const mac& from = bench_ports[out_port].mac;
    EXPECT_EQ(hex(bytes(r.frame.begin() + 6, r.frame.begin() + 12)),
              hex(bytes(from.begin(), from.end())));
    return read(r.frame);
  }
  static segment to_server(bench& b, const segment& s) {
    return sent(b, frame_of(s), server_mac, 0);
  }
  static segment to_client(bench& b, const segment& s) {
    return sent(b, frame_of(s, our_mac, server_mac), router_mac, wire_port);
  }
  static void refused(bench& b, const bytes& frame, abi::counter_id why) {
    const std::uint64_t before = b.count(why);
    const result r = b.run(frame);
    EXPECT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::drop));
    EXPECT_EQ(static_cast<int>(r.reason), static_cast<int>(why));
    EXPECT_EQ(b.count(why), before + 1);
    EXPECT_EQ(hex(r.frame), hex(frame)) << "a dropped packet was changed";
  }

  const end pool4 = at4({192, 0, 2, 200}, 0);
  const end pool6 = at6(0x99, 1, 0);
  table_builder tables;
};

}  // namespace sluice::test
