// SPDX-License-Identifier: Apache-2.0
// A packet path with tables as a user has them: many services of many backends, in one
// forwarding mode, all counters there. Tables are filled by hand; packets that find their
// connection do not look at what is in a scheduler's table.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/abi/worker_state.hpp"
#include "dataplane/connection/table.hpp"
#include "dataplane/path/nat_table.hpp"
#include "dataplane/path/packet_path.hpp"
#include "perf/common/flow_frames.hpp"
#include "perf/micro/memory.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::perf {

// Of the standard mix: 100 services of 100 backends, ipip.
struct mix {
  abi::forward_mode mode{abi::forward_mode::ipip};
  bool v6{false};
  bool v6_backends{false};
  bool udp{false};
  bool vlan{false};
  std::uint32_t services{100};
  std::uint32_t backends{100};  // of each service
  std::uint32_t table_size{65537};
  std::uint64_t flows{1000};
  std::uint64_t room{0};  // connections that the table is made for; 0: flows
};

// fill_tables() makes the mix's services; the builder has room for them (limits_of()).
inline abi::config_limits limits_of(const mix& m) noexcept {
  return {m.services * 2, m.services * m.backends,
          std::uint64_t{m.services} * m.table_size * 2 + 4096};
}
inline ip_address backend_address(bool v6, std::uint32_t n) noexcept {
  const auto at = [n](unsigned shift) { return static_cast<std::uint8_t>(n >> shift); };
  return v6 ? ip_address::v6(
                  {0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, at(24), at(16), at(8), at(0)})
            : ip_address::v4({172, static_cast<std::uint8_t>(16 + at(16)), at(8), at(0)});
}
inline void fill_tables(const mix& m, test::table_builder& tables) {
  tables.header().source4 = {ip_address::v4({192, 0, 2, 1}), 32, 1, {}};
  tables.header().source6 = {ip_address::v6({0x20, 1, 0xd, 0xb8, 9}), 128, 1, {}};
  tables.header().timeouts = abi::default_timeouts;
  for (std::uint32_t s = 0; s < m.services; ++s) {
    std::vector<test::table_builder::backend_spec> backends;
    for (std::uint32_t b = 0; b < m.backends; ++b) {
      const std::uint32_t n = s * m.backends + b;
      backends.push_back(
          {backend_address(m.v6_backends, n),
           {2, 1, 0, 0, static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)},
           0,
           1500,
           abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop,
           static_cast<std::uint8_t>(m.mode == abi::forward_mode::dsr_dscp ? 10 : 0),
           static_cast<std::uint16_t>(m.mode == abi::forward_mode::nat ? 8080 : 0)});
    }
    const auto protocol = m.udp ? ip_proto::udp : ip_proto::tcp;
    tables.add_service(vip(m.v6, s), protocol, service_port, service_port, m.mode, backends,
                       m.table_size);
  }
  if (m.mode == abi::forward_mode::full_nat)
    for (std::uint8_t i = 1; i <= 32; ++i)
      tables.add_to_pool(m.v6 ? ip_address::v6({0x20, 1, 0xd, 0xb8, 3, i})
                              : ip_address::v4({192, 0, 2, i}));
}

// connection_memory is a connection table in memory of its own, huge pages where there are.
class connection_memory {
 public:
  connection_memory(std::uint64_t connections4, std::uint64_t connections6)
      : layout_{abi::connection_layout::for_connections(connections4, connections6)},
        memory_{layout_.total} {
    auto* h = reinterpret_cast<abi::connection_header*>(memory_.data());
    h->buckets4 = layout_.buckets4;
    h->buckets6 = layout_.buckets6;
    h->offset4 = layout_.offset4;
    h->offset6 = layout_.offset6;
    h->secret[0] = 0x0123456789abcdef;
    h->secret[1] = 0xfedcba9876543210;
  }
  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(memory_.data()); }
  [[nodiscard]] const char* kind() const { return memory_.kind(); }

 private:
  abi::connection_layout layout_;
  huge_memory memory_;
};

class path_world {
 public:
  static constexpr std::size_t buffer_size = 256;
  static constexpr std::size_t buffer_headroom = 128;

  explicit path_world(const mix& m)
      : settings{m},
        frames{{m.v6, m.udp, m.vlan, m.services}},
        tables{limits_of(m)},
        memory{m.v6 ? others(m) : room_of(m), m.v6 ? room_of(m) : others(m)},
        table{memory.data()},
        services(m.services),
        backends(abi::observation_layout::backend_rows_for(m.services * m.backends)) {
    fill_tables(m, tables);
    if (m.mode == abi::forward_mode::nat || m.mode == abi::forward_mode::full_nat)
      nat = std::make_unique<nat_table>(
          nat_table::options{static_cast<std::uint32_t>(room_of(m) * 2), 0, 1, {1, 2}});
    path = std::make_unique<packet_path>(
        table,
        path_counters{counters.data(), services.data(), m.services, backends.data(),
                      static_cast<std::uint32_t>(backends.size())},
        std::span{ports}.first(1));
    if (nat != nullptr) path->use_nat(nat.get());
    path->set_view(tables.view());
  }

  // bursts is a row of frames in buffers of their own, to be put through the path once.
  class bursts {
   public:
    bursts(std::size_t count, std::size_t size)
        : size_{size}, buffers_(count * size * buffer_size / cache_line), packets_(count * size) {}
    [[nodiscard]] std::size_t packets() const noexcept { return packets_.size(); }
    // set() describes packet i, whose frame the caller writes at the returned place.
    std::byte* set(std::size_t i, std::uint32_t length) noexcept {
      packet& p = packets_[i];
      p = {};
      p.data = reinterpret_cast<std::byte*>(buffers_.data()) + i * buffer_size + buffer_headroom;
      p.length = p.total_length = length;
      p.headroom = buffer_headroom;
      return p.data;
    }
    [[nodiscard]] const packet& at(std::size_t i) const noexcept { return packets_[i]; }
    void run(packet_path& path, std::uint64_t now_ns) noexcept {
      for (std::size_t i = 0; i < packets_.size(); i += size_)
        path.process({packets_.data() + i, std::min(size_, packets_.size() - i)}, now_ns);
    }

   private:
    struct alignas(cache_line) line {
      std::byte bytes[cache_line];
    };
    std::size_t size_;
    std::vector<line> buffers_;
    std::vector<packet> packets_;
  };

  // establish() takes every flow through its handshake (two datagrams of UDP).
  void establish() {
    bursts b{8, 32};
    for (std::uint64_t f = 0; f < settings.flows; f += b.packets())
      for (const std::uint8_t flags : {flag_syn, flag_ack}) {
        for (std::size_t i = 0; i < b.packets(); ++i) {
          const auto flow = static_cast<std::uint32_t>((f + i) % settings.flows);
          frames.write(b.set(i, frames.length()), flow, flags);
        }
        b.run(*path, now_ns);
      }
  }
  [[nodiscard]] std::uint64_t counted(abi::counter_id id) const noexcept {
    return counters[static_cast<std::size_t>(id)].read();
  }

  mix settings;
  flow_frames frames;
  std::uint64_t now_ns{1'000'000'000};
  test::table_builder tables;
  connection_memory memory;
  connection::connection_table table;
  std::array<abi::counter, abi::counter_capacity> counters{};
  std::vector<abi::service_counters> services;
  std::vector<abi::backend_counters> backends;
  std::array<path_port, 1> ports{{{{2, 0, 0, 0, 0, 0x01}, false}}};
  std::unique_ptr<nat_table> nat;
  std::unique_ptr<packet_path> path;

 private:
  // others() are the connections of the family that is not used: so many that the table is a roomy
  // one or not as a worker's is, whose families have the same number.
  static std::uint64_t others(const mix& m) noexcept {
    return std::min<std::uint64_t>(room_of(m), 20'000);
  }
  static std::uint64_t room_of(const mix& m) noexcept {
    return std::max<std::uint64_t>(m.room != 0 ? m.room : m.flows, 64);
  }
};

}  // namespace sluice::perf
