// SPDX-License-Identifier: Apache-2.0
// The look-ups in a config slot, with tables that are right and tables that are not.
#include "dataplane/abi/service_table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <vector>

namespace {

using namespace sluice;
using namespace sluice::abi;

// A small config segment in plain memory, with typed access to slot 0.
struct memory_config {
  config_limits limits{16, 64, 8192};
  config_layout layout = config_layout::of(limits);
  std::vector<std::byte> bytes = std::vector<std::byte>(layout.total + cache_line);
  std::byte* base = reinterpret_cast<std::byte*>(
      (reinterpret_cast<std::uintptr_t>(bytes.data()) + cache_line - 1) & ~(cache_line - 1));

  template <class T>
  T* rows(std::uint64_t offset) {
    return reinterpret_cast<T*>(base + layout.slots + offset);
  }
  generation_header& header() { return *rows<generation_header>(0); }

  memory_config() {
    generation_header& h = header();
    h.number = 1;
    h.service_count = 4;
    h.backend_count = 8;
    h.member_count = 8;
    h.range_count = 2;
    h.vip_mask = 15;
    h.port_mask = 15;
  }
  void add_vip(const ip_address& a, std::uint8_t protocol, vip_row row) {
    row.address = a;
    row.protocol = protocol;
    std::uint32_t at = vip_hash(a, protocol) & header().vip_mask;
    auto* vips = rows<vip_row>(layout.vips);
    while (vips[at].protocol != 0) at = (at + 1) & header().vip_mask;
    vips[at] = row;
  }
  void add_port(vip_id v, std::uint16_t port, service_id s) {
    std::uint32_t at = port_hash(v, port) & header().port_mask;
    auto* ports = rows<port_row>(layout.ports);
    while (ports[at].used != 0) at = (at + 1) & header().port_mask;
    ports[at] = {v, port, s, 1};
  }
  service_row& add_service(std::uint16_t i) {
    service_row& s = rows<service_row>(layout.service_rows)[i];
    s.self = service_id{i};
    return s;
  }
  config_view view() {
    config_view v;
    EXPECT_TRUE(config_view::open(base, limits, 0, v));
    return v;
  }
};

const ip_address web = ip_address::v4({198, 51, 100, 10});

// The VIPs of a site are neighbours. Each is found within a few rows nevertheless.
TEST(service_table, neighbouring_vips_are_spread) {
  const auto check = [](const auto& address_of, unsigned count, const char* what) {
    std::vector<unsigned> taken(count * 2, 0);
    ASSERT_TRUE(std::has_single_bit(taken.size()));
    unsigned long steps = 0;
    unsigned longest = 0;
    for (unsigned i = 0; i < count; ++i) {
      std::size_t at = vip_hash(address_of(i), 6) & (taken.size() - 1);
      unsigned length = 1;
      for (; taken[at] != 0; at = (at + 1) & (taken.size() - 1)) ++length;
      taken[at] = 1;
      steps += length;
      longest = std::max(longest, length);
    }
    // Linear probing at load 0.5 takes 1.5 steps on average with a perfect hash (Knuth).
    EXPECT_LE(steps, count * 5 / 2) << what;
    EXPECT_LE(longest, 32u) << what;
  };
  for (const unsigned count : {32u, 128u, 256u, 2048u}) {
    const auto high = [](unsigned i) { return static_cast<std::uint8_t>(i >> 8); };
    const auto low = [](unsigned i) { return static_cast<std::uint8_t>(i); };
    check([&](unsigned i) { return ip_address::v4({198, 51, high(i), low(i)}); }, count, "v4");
    check([&](unsigned i) { return ip_address::v4({10, high(i), low(i), 1}); }, count, "v4 third");
    check(
        [&](unsigned i) {
          return ip_address::v6(
              {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high(i), low(i)});
        },
        count, "v6 hosts");
    check(
        [&](unsigned i) {
          return ip_address::v6(
              {0x20, 1, 0xd, 0xb8, 0, 0, high(i), low(i), 0, 0, 0, 0, 0, 0, 0, 1});
        },
        count, "v6 networks");
  }
}

TEST(service_table, exact_port_then_range_then_any) {
  memory_config c;
  c.add_vip(web, 6, {.id = vip_id{3}, .any_service = service_id{2}, .range_count = 2});
  c.add_port(vip_id{3}, 443, service_id{0});
  c.rows<range_row>(c.layout.range_rows)[0] = {100, 200, service_id{1}, 0};
  c.rows<range_row>(c.layout.range_rows)[1] = {400, 500, service_id{3}, 0};
  for (std::uint16_t i = 0; i < 4; ++i) c.add_service(i);
  const config_view v = c.view();
  const vip_row* vip = v.find_vip(web, 6);
  ASSERT_NE(vip, nullptr);
  const auto at = [&](std::uint16_t port) { return v.find_service(*vip, port)->self; };
  EXPECT_EQ(at(443), service_id{0});  // the exact port wins over the range 400-500
  EXPECT_EQ(at(100), service_id{1});
  EXPECT_EQ(at(200), service_id{1});
  EXPECT_EQ(at(400), service_id{3});
  EXPECT_EQ(at(500), service_id{3});
  for (const std::uint16_t port : std::initializer_list<std::uint16_t>{0, 99, 201, 399, 501, 65535})
    EXPECT_EQ(at(port), service_id{2}) << port;
  EXPECT_EQ(v.find_vip(web, 17), nullptr);
  EXPECT_EQ(v.find_vip(ip_address::v4({198, 51, 100, 11}), 6), nullptr);
}

TEST(service_table, a_full_vip_table_ends_the_search) {
  memory_config c;
  for (std::uint8_t i = 0; i < 16; ++i)
    c.add_vip(ip_address::v4({10, 0, 0, i}), 6, {.id = vip_id{i}, .any_service = no_service});
  const config_view v = c.view();
  for (std::uint8_t i = 0; i < 16; ++i)
    EXPECT_NE(v.find_vip(ip_address::v4({10, 0, 0, i}), 6), nullptr);
  EXPECT_EQ(v.find_vip(web, 6), nullptr);
}

TEST(service_table, choose_follows_table_and_members) {
  memory_config c;
  service_row& s = c.add_service(0);
  s.member_first = 2;
  s.member_count = 2;
  s.table_size = 4;
  s.table_offset = c.layout.arena;
  write_slots(std::array<std::uint16_t, 4>{0, 1, 1, 7}, 2,
              c.base + c.layout.arena);  // 7: impossible
  auto* members = c.rows<backend_ref>(c.layout.member_rows);
  members[2] = backend_ref::make(5, 3);
  members[3] = backend_ref::make(6, 0);
  const config_view v = c.view();
  const auto slot = [](std::uint64_t i) { return i << 62; };
  EXPECT_EQ(v.choose(s, slot(0)), backend_ref::make(5, 3));
  EXPECT_EQ(v.choose(s, slot(1)), backend_ref::make(6, 0));
  EXPECT_EQ(v.choose(s, slot(2)), backend_ref::make(6, 0));
  EXPECT_TRUE(v.choose(s, slot(3)).none());
}

// Both widths name the same positions, whatever the size, and the same ones by hash.
TEST(service_table, narrow_and_wide_slots_name_the_same) {
  EXPECT_FALSE(slots_are_wide(0));
  EXPECT_FALSE(slots_are_wide(256));
  EXPECT_TRUE(slots_are_wide(257));
  std::mt19937_64 random{2};
  for (const std::uint32_t size : {1u, 2u, 3u, 63u, 64u, 65u, 251u, 1021u, 65537u}) {
    std::vector<std::uint16_t> positions(size);
    for (auto& p : positions) p = static_cast<std::uint16_t>(random() % 256);
    positions.back() = 255;
    const auto memory = std::make_unique<std::byte[]>(table_bytes(size, 256));
    const auto wide_memory = std::make_unique<std::byte[]>(table_bytes(size, 257));
    write_slots(positions, 256, memory.get());
    write_slots(positions, 257, wide_memory.get());
    const slot_table narrow{memory.get(), size, 256};
    const slot_table wide{wide_memory.get(), size, 257};
    ASSERT_EQ(narrow.size(), size);
    ASSERT_EQ(wide.size(), size);
    for (std::uint32_t i = 0; i < size; ++i) {
      ASSERT_EQ(narrow[i], positions[i]);
      ASSERT_EQ(wide[i], positions[i]);
    }
    const auto check = [&](std::uint64_t hash) {
      const std::uint16_t right = positions[sluice_slot(hash, size)];
      ASSERT_EQ(position_at(narrow.of(hash), narrow.wide()), right) << size << ' ' << hash;
      ASSERT_EQ(position_at(wide.of(hash), wide.wide()), right) << size << ' ' << hash;
    };
    check(0);
    check(~std::uint64_t{0});
    for (int i = 0; i < 20'000; ++i) check(random());
    for (std::uint64_t i = 1; i < size; ++i)  // where one slot ends and the next begins
      for (std::uint64_t near = 0; near < 3; ++near) check(((i << 32) / size - 1 + near) << 32);
  }
}

TEST(service_table, positions_that_need_two_bytes) {
  const std::array<std::uint16_t, 4> positions{256, 255, 65535, 0x0100};
  std::array<std::byte, 8> memory{};
  write_slots(positions, 65536, memory.data());
  const slot_table table{memory.data(), 4, 65536};
  for (std::uint32_t i = 0; i < 4; ++i) EXPECT_EQ(table[i], positions[i]);
}

TEST(service_table, a_table_lies_inside_the_arena_with_all_its_bytes) {
  memory_config c;
  service_row& s = c.add_service(0);
  s.table_size = 251;
  const config_view v = c.view();
  for (const std::uint32_t members : {1u, 256u, 257u, 0xffffffffu}) {
    s.member_count = members;
    const std::uint64_t bytes = members <= 256 ? 252 : 502;
    ASSERT_EQ(table_bytes(251, members), bytes);
    s.table_offset = c.layout.total - bytes;
    EXPECT_EQ(v.table_of(s).size(), 251u) << members;
    s.table_offset += 2;
    EXPECT_TRUE(v.table_of(s).empty()) << members;
    s.table_offset = c.layout.arena - 2;
    EXPECT_TRUE(v.table_of(s).empty()) << members;
    s.table_offset = c.layout.arena + 1;
    EXPECT_TRUE(v.table_of(s).empty()) << members;
  }
  s.table_offset = c.layout.arena;
  for (const std::uint32_t size : {0u, 0x40000000u, 0x80000000u, 0xffffffffu}) {
    s.table_size = size;
    EXPECT_TRUE(v.table_of(s).empty()) << size;
    EXPECT_TRUE(v.choose(s, ~std::uint64_t{0}).none()) << size;
  }
}

TEST(service_table, a_backend_row_of_another_incarnation_is_not_found) {
  memory_config c;
  backend_row& b = c.rows<backend_row>(c.layout.backend_rows)[5];
  b.flags = backend_in_use;
  b.incarnation = 3;
  const config_view v = c.view();
  EXPECT_NE(v.backend(backend_ref::make(5, 3)), nullptr);
  EXPECT_EQ(v.backend(backend_ref::make(5, 4)), nullptr);
  EXPECT_EQ(v.backend(backend_ref::make(4, 0)), nullptr);   // not in use
  EXPECT_EQ(v.backend(backend_ref::make(63, 3)), nullptr);  // beyond the count
  EXPECT_EQ(v.backend(backend_ref{}), nullptr);
}

TEST(service_table, open_refuses_impossible_headers) {
  const auto refused = [](auto&& spoil) {
    memory_config c;
    spoil(c.header(), c.layout);
    config_view v;
    return !config_view::open(c.base, c.limits, 0, v) && v.empty();
  };
  using h = generation_header;
  using l = config_layout;
  EXPECT_FALSE(refused([](h&, const l&) {}));
  EXPECT_TRUE(refused([](h& x, const l& y) { x.service_count = y.services + 1; }));
  EXPECT_TRUE(refused([](h& x, const l& y) { x.backend_count = y.backends + 1; }));
  EXPECT_TRUE(refused([](h& x, const l& y) { x.member_count = y.members + 1; }));
  EXPECT_TRUE(refused([](h& x, const l& y) { x.range_count = y.ranges + 1; }));
  EXPECT_TRUE(refused([](h& x, const l& y) { x.vip_mask = y.vip_capacity * 2 - 1; }));
  EXPECT_TRUE(refused([](h& x, const l&) { x.vip_mask = 12; }));
  EXPECT_TRUE(refused([](h& x, const l&) { x.port_mask = 0xffffffff; }));
  EXPECT_TRUE(refused([](h& x, const l&) { x.source4.prefix = 33; }));
  EXPECT_TRUE(refused([](h& x, const l&) { x.source6.prefix = 129; }));
  memory_config c;
  config_view v;
  EXPECT_FALSE(config_view::open(c.base, c.limits, config_slots, v));
}

// Rows full of noise: every look-up answers, none reads outside the segment (ASan).
TEST(service_table, noise_never_leads_outside) {
  std::mt19937_64 random{1};
  for (int round = 0; round < 300; ++round) {
    memory_config c;
    const generation_header good = c.header();
    auto exact = std::make_unique<std::byte[]>(c.layout.total + cache_line);
    c.base = reinterpret_cast<std::byte*>(
        (reinterpret_cast<std::uintptr_t>(exact.get()) + cache_line - 1) & ~(cache_line - 1));
    for (std::uint64_t i = 0; i + 8 <= c.layout.total; i += 8) {
      const std::uint64_t word = random();
      std::memcpy(c.base + i, &word, 8);
    }
    c.header() = good;
    // Some rows are let in, so that the noise behind them is reached.
    for (std::uint16_t i = 0; i < 4; ++i) c.add_service(i);
    config_view v;
    ASSERT_TRUE(config_view::open(c.base, c.limits, 0, v));
    for (std::uint32_t i = 0; i < 16; ++i) {
      const vip_row& row = v.vip_at(i);
      (void)v.find_vip(row.address, row.protocol);
      for (int k = 0; k < 8; ++k) {
        const service_row* s = v.find_service(row, static_cast<std::uint16_t>(random()));
        if (s == nullptr) continue;
        const backend_ref ref = v.choose(*s, random());
        (void)v.backend(ref);
        (void)v.cold(ref);
        (void)v.cold(s->self);
        v.prefetch_backend(ref);
      }
    }
  }
}

TEST(service_table, layout_does_not_overlap) {
  for (const config_limits l :
       {config_limits{1, 1, 4096}, config_limits{4096, 65536, 512u << 20},
        config_limits{max_services, max_backends, std::uint64_t{1} << 34}}) {
    ASSERT_TRUE(config_layout::valid(l));
    const config_layout c = config_layout::of(l);
    EXPECT_GE(c.ports, c.vips + c.vip_capacity * sizeof(vip_row));
    EXPECT_GE(c.range_rows, c.ports + c.port_capacity * sizeof(port_row));
    EXPECT_GE(c.service_rows, c.range_rows + c.ranges * sizeof(range_row));
    EXPECT_GE(c.backend_rows, c.service_rows + c.services * sizeof(service_row));
    EXPECT_GE(c.member_rows, c.backend_rows + std::uint64_t{c.backends} * sizeof(backend_row));
    EXPECT_GE(c.slot_bytes, c.backend_colds + std::uint64_t{c.backends} * sizeof(backend_cold));
    EXPECT_EQ(c.slot_bytes % 4096, 0u);
    EXPECT_EQ(c.backend_rows % cache_line, 0u);
    EXPECT_EQ(c.total, c.arena + c.arena_bytes);
  }
  EXPECT_FALSE(config_layout::valid({0, 1, 4096}));
  EXPECT_FALSE(config_layout::valid({1, max_backends + 1, 4096}));
}

}  // namespace
