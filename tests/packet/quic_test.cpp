// SPDX-License-Identifier: Apache-2.0
// QUIC packets by the server id in their connection id: migration, what it is not asked for,
// and malformed ones.
#include <gtest/gtest.h>

#include <random>

#include "tests/packet/options_world.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;

constexpr unsigned short_header = 0x40;
constexpr unsigned initial = 0xc0;
constexpr unsigned zero_rtt = 0xd0;
constexpr unsigned handshake = 0xe0;

// server_cid() is a connection id as a server of the QUIC-LB draft makes it: rotation bits and
// length, server id, anything.
bytes server_cid(const bytes& id, unsigned first = 0x07) {
  bytes b;
  put8(b, first);
  return padded(b + id, 8);
}
bytes short_packet(const bytes& cid) {
  bytes b;
  put8(b, short_header);
  return padded(b + cid, 40);
}
bytes long_packet(unsigned first, const bytes& cid, std::uint32_t version = 1) {
  bytes b;
  put8(b, first);
  put32(b, version);
  put8(b, static_cast<unsigned>(cid.size()));
  return padded(b + cid, 60);
}
const bytes random_cid{0x3c, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77};

class quic_service : public options {
 protected:
  quic_service() {
    tables.options(2).quic_id_length = 2;
    tables.options(2).quic_id_offset = 1;
    tables.service(2).flags = abi::service_has_options;
    for (std::uint32_t i = 0; i < 4; ++i) {
      abi::backend_row& row = tables.backend(8 + i);
      row.quic_id_length = 2;
      row.quic_id = {0xaa, static_cast<std::uint8_t>(i)};
    }
  }
  static bytes id_of(unsigned member) { return {0xaa, static_cast<std::uint8_t>(member)}; }
  static bytes from(unsigned port, const bytes& payload, quad source = {203, 0, 113, 7}) {
    return ethernet(0x0800, ip4({.source = source, .protocol = 17}, udp({port, 443}, payload)));
  }
};

TEST_F(quic_service, a_connection_that_migrates_stays) {
  bench b{view()};
  for (unsigned n = 0; n < 100; ++n) {
    const auto at = b.run(from(5000 + n, long_packet(initial, random_cid))).backend;
    ASSERT_EQ(b.run(from(5000 + n, long_packet(initial, random_cid))).backend, at);
    const bytes cid = server_cid(id_of(at.index() - 8));
    EXPECT_EQ(b.run(from(5000 + n, long_packet(handshake, cid))).backend, at);
    EXPECT_EQ(b.run(from(5000 + n, short_packet(cid))).backend, at);
    // Another port (NAT rebinding), another address, another table by then.
    EXPECT_EQ(b.run(from(9000 + n, short_packet(cid))).backend, at);
    EXPECT_EQ(b.run(from(77 + n, short_packet(cid), {192, 0, 2, 1})).backend, at);
    // Where somebody else has been before: an id goes before the table.
    EXPECT_EQ(b.run(from(5000 + (n + 50) % 100, short_packet(cid))).backend, at);
    EXPECT_EQ(b.run(from(5000 + n, long_packet(initial, random_cid))).backend, at)
        << "the entry is as it was";
  }
  EXPECT_EQ(b.table().v4.size(), 100u) << "an id needs no entry";
  EXPECT_GT(b.count(quic_by_id), 250u);
}

TEST_F(quic_service, ids_go_on_when_the_backend_takes_no_new_ones) {
  set_table(2, {0, 1, 2});
  tables.service(2).member_count = 3;
  tables.backend(11).weight = 0;
  bench b{view()};
  EXPECT_EQ(b.run(from(1, short_packet(server_cid(id_of(3))))).backend.index(), 11u) << "drained";
  tables.service(2).member_count = 0;
  b.path().set_view(view());
  EXPECT_EQ(b.run(from(2, short_packet(server_cid(id_of(3))))).backend.index(), 11u);
  EXPECT_EQ(b.run(from(3, long_packet(initial, random_cid))).reason, drop_no_backend);
  tables.service(2).member_count = 3;
  tables.backend(11).flags = abi::backend_in_use | abi::backend_has_next_hop;  // down
  b.path().set_view(view());
  EXPECT_LT(b.run(from(4, short_packet(server_cid(id_of(3))))).backend.index(), 11u);
}

TEST_F(quic_service, what_does_not_go_by_id) {
  set_table(2, {0});
  bench b{view()};
  unsigned port = 100;
  const auto goes = [&](const bytes& payload) {
    const result r = b.run(from(++port, payload));
    EXPECT_EQ(r.outcome, verdict::forward);
    return r.backend.index() - 8;
  };
  const bytes cid = server_cid(id_of(2));
  EXPECT_EQ(goes(short_packet(cid)), 2u);
  EXPECT_EQ(goes(long_packet(handshake, cid)), 2u);
  EXPECT_EQ(goes(long_packet(0xf0, cid, 0x6b3343cf)), 2u) << "version 2, Handshake";
  // Ids of the client's choosing, whatever they look like.
  EXPECT_EQ(goes(long_packet(initial, cid)), 0u);
  EXPECT_EQ(goes(long_packet(zero_rtt, cid)), 0u);
  EXPECT_EQ(goes(long_packet(handshake, cid, 0x6b3343cf)), 0u) << "version 2, 0-RTT";
  EXPECT_EQ(goes(long_packet(handshake, cid, 0x12345678)), 0u) << "a version nobody knows";
  EXPECT_EQ(goes(long_packet(handshake, cid, 0)), 0u) << "version negotiation";
  // An id that is nobody's, or cannot be routed by.
  EXPECT_EQ(goes(short_packet(server_cid({0xaa, 9}))), 0u);
  EXPECT_EQ(goes(short_packet(server_cid(id_of(2), 0xe7))), 0u);
  // Too short, of any length; long headers that say more than there is.
  for (std::size_t n = 0; n < 4; ++n) {
    const bytes whole = short_packet(cid);
    EXPECT_EQ(goes(bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n))), 0u);
  }
  for (std::size_t n = 0; n < 14; ++n) {
    const bytes whole = long_packet(handshake, cid);
    EXPECT_EQ(goes(bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n))), 0u);
  }
  for (const unsigned length : {0u, 1u, 2u, 21u, 200u, 255u}) {
    bytes packet = long_packet(handshake, cid);
    packet[5] = static_cast<std::uint8_t>(length);
    EXPECT_EQ(goes(packet), 0u) << length;
  }
  // A short one with exactly enough.
  const bytes whole = short_packet(cid);
  EXPECT_EQ(goes(bytes(whole.begin(), whole.begin() + 4)), 2u);
  // The id lies behind what UDP says is there, or behind the first segment.
  EXPECT_EQ(
      b.run(ethernet(0x0800, ip4({.protocol = 17}, udp({++port, 443, 8 + 3}, short_packet(cid)))))
          .backend.index(),
      8u);
  EXPECT_EQ(b.run({{from(++port, short_packet(cid)), wire_port, 128, 14 + 20 + 8 + 3}})[0]
                .backend.index(),
            8u);
}

TEST_F(quic_service, ipv6_and_any_length_of_id) {
  for (unsigned length = 1; length <= 8; ++length) {
    tables.options(2).quic_id_length = static_cast<std::uint8_t>(length);
    for (std::uint32_t i = 0; i < 4; ++i) {
      abi::backend_row& row = tables.backend(8 + i);
      row.quic_id_length = static_cast<std::uint8_t>(length);
      row.quic_id.fill(0xff);  // what is behind the id is not looked at
      for (unsigned k = 0; k < length; ++k)
        row.quic_id[k] = static_cast<std::uint8_t>(k + 1 == length ? i : 5);
    }
    bench b{view()};
    for (std::uint8_t i = 0; i < 4; ++i) {
      bytes id(length, 5);
      id.back() = i;
      EXPECT_EQ(b.run(from(1000, short_packet(server_cid(id)))).backend.index(), 8u + i);
    }
  }
}

// Ids come and go with generations; more rows than are looked at at once.
TEST_F(quic_service, follows_the_rows) {
  bench b{view()};
  const auto goes = [&](unsigned id) {
    return b.run(from(1000, short_packet(server_cid(id_of(id))))).backend.index();
  };
  EXPECT_EQ(goes(2), 10u);
  // Members 1 and 2 change their ids.
  tables.backend(9).quic_id = {0xaa, 2};
  tables.backend(10).quic_id = {0xaa, 1};
  b.path().set_view(view());
  EXPECT_EQ(goes(2), 9u);
  EXPECT_EQ(goes(1), 10u);
  // The row of member 2 is another's, of another service.
  tables.backend(9).service = abi::service_id{0};
  b.path().set_view(view());
  EXPECT_NE(goes(2), 9u);
}

TEST(quic_backends, thousands_of_ids_over_many_generations) {
  // 30000 rows of which a tenth changes its id every generation.
  constexpr abi::config_limits limits{1, 30'000, 4096};
  const abi::config_layout layout = abi::config_layout::of(limits);
  struct alignas(64) line {
    std::byte bytes[64];
  };
  std::vector<line> memory(layout.total / 64);
  auto* base = reinterpret_cast<std::byte*>(memory.data()) + layout.slots;
  auto& header = *reinterpret_cast<abi::generation_header*>(base);
  header.service_count = 1;
  header.backend_count = 30'000;
  auto& service = *reinterpret_cast<abi::service_row*>(base + layout.service_rows);
  service.self = abi::service_id{0};
  auto* rows = reinterpret_cast<abi::backend_row*>(base + layout.backend_rows);
  std::mt19937_64 random{1};
  const auto renew = [&](std::uint32_t i) {
    rows[i].flags = abi::backend_in_use | abi::backend_keeps_connections;
    rows[i].quic_id_length = 8;
    const std::uint64_t id = random();
    std::memcpy(rows[i].quic_id.data(), &id, 8);
  };
  for (std::uint32_t i = 0; i < 30'000; ++i) renew(i);
  auto map = std::make_unique<quic_backends>();
  for (int generation = 0; generation < 20; ++generation) {
    abi::config_view v;
    ASSERT_TRUE(abi::config_view::open(reinterpret_cast<std::byte*>(memory.data()), limits, 0, v));
    map->take_up(v);
    for (int i = 0; i < 200; ++i) map->go_on(v);
    unsigned missing = 0;
    for (std::uint32_t i = 0; i < 30'000; ++i) {
      quic::server_id id{0, 8};
      std::memcpy(&id.bytes, rows[i].quic_id.data(), 8);
      const abi::backend_ref ref = map->find(v, abi::service_id{0}, id);
      if (ref.none()) {
        ++missing;
      } else {
        ASSERT_EQ(ref.index(), i);
      }
    }
    EXPECT_LE(missing, 300u) << generation;  // 1 in 100 finds no place among eight
    if (generation == 0) std::printf("30000 ids: %u without a place\n", missing);
    for (std::uint32_t i = 0; i < 30'000; i += 10) renew(i);
  }
}

// Any bytes: something is decided, nothing is read beyond the end (the frames end where their
// heap block ends).
TEST_F(quic_service, random_bytes) {
  bench b{view(), 32};
  std::mt19937 random{3};
  for (int i = 0; i < 20'000; ++i) {
    bytes payload(random() % 40);
    for (std::uint8_t& v : payload) v = static_cast<std::uint8_t>(random());
    if (payload.size() > 5 && i % 2 == 0) {
      payload[0] = static_cast<std::uint8_t>(0xe0 | (random() & 0x1f));
      payload[1] = payload[2] = payload[3] = 0;
      payload[4] = 1;
      payload[5] = static_cast<std::uint8_t>(random() % 24);
    }
    EXPECT_EQ(b.run(from(1 + static_cast<unsigned>(i) % 60'000, payload)).outcome,
              verdict::forward);
  }
}

}  // namespace
}  // namespace sluice::test
