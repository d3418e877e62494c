// SPDX-License-Identifier: Apache-2.0
// Fills one slot of a config segment by hand, row by row. The real one is
// controlplane/publish; this one also makes tables that the control plane never would.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "dataplane/abi/service_table.hpp"

namespace sluice::test {

class table_builder {
 public:
  static constexpr abi::config_limits limits{64, 256, 1 << 20};

  explicit table_builder(const abi::config_limits& size = limits)
      : limits_{size},
        layout_{abi::config_layout::of(size)},
        memory_(layout_.total / cache_line),
        slot_{bytes() + layout_.slots} {
    header().number = 1;
    header().hash_seed = 42;
    header().timeouts = abi::default_timeouts;
    header().vip_mask = layout_.vip_capacity / 2 - 1;
    header().port_mask = layout_.port_capacity - 1;
  }

  [[nodiscard]] std::byte* bytes() noexcept { return reinterpret_cast<std::byte*>(memory_.data()); }
  [[nodiscard]] std::size_t size() const noexcept { return layout_.total; }
  [[nodiscard]] const abi::config_layout& layout() const noexcept { return layout_; }

  abi::generation_header& header() { return *reinterpret_cast<abi::generation_header*>(slot_); }
  abi::vip_row* vips() { return rows<abi::vip_row>(layout_.vips); }
  abi::port_row* ports() { return rows<abi::port_row>(layout_.ports); }
  abi::range_row* ranges() { return rows<abi::range_row>(layout_.range_rows); }
  abi::service_row& service(std::uint32_t i) {
    return rows<abi::service_row>(layout_.service_rows)[i];
  }
  abi::service_options& options(abi::service_id i) {
    return rows<abi::service_options>(layout_.option_rows)[static_cast<std::uint32_t>(i)];
  }
  void add_to_pool(const ip_address& a) {
    rows<ip_address>(layout_.pool_rows)[header().pool_count++] = a;
  }
  abi::backend_row& backend(std::uint32_t i) {
    return rows<abi::backend_row>(layout_.backend_rows)[i];
  }
  abi::service_options& options(std::uint32_t i) {
    return rows<abi::service_options>(layout_.option_rows)[i];
  }
  abi::prefix_list& list(std::uint32_t i) { return rows<abi::prefix_list>(layout_.list_rows)[i]; }
  abi::backend_ref& member(std::uint32_t i) {
    return rows<abi::backend_ref>(layout_.member_rows)[i];
  }
  // slot() and set_slot() are of a service's table, in the form that its number of members asks
  // for; there is room for either.
  [[nodiscard]] std::uint16_t slot(const abi::service_row& s, std::uint32_t i) {
    return abi::slot_table{bytes() + s.table_offset, s.table_size, s.member_count}[i];
  }
  void set_slot(const abi::service_row& s, std::uint32_t i, std::uint16_t position) {
    const std::uint64_t width = abi::slots_are_wide(s.member_count) ? 2 : 1;
    std::memcpy(bytes() + s.table_offset + i * width, &position, width);
  }

  // vip() returns the row of an address, new or not.
  abi::vip_row& vip(const ip_address& address, ip_proto protocol) {
    const auto p = static_cast<std::uint8_t>(protocol);
    for (std::uint32_t at = abi::vip_hash(address, p);; ++at) {
      abi::vip_row& row = vips()[at & header().vip_mask];
      if (row.protocol == p && row.address == address) return row;
      if (row.protocol != 0) continue;
      row = {address,         p, 0, static_cast<abi::vip_id>(header().vip_count++),
             abi::no_service, 0, 0, 0};
      return row;
    }
  }

  struct backend_spec {
    ip_address address;
    mac_address next_hop;
    std::uint8_t out_port;
    std::uint16_t mtu;
    std::uint8_t flags;
    std::uint8_t dscp{0};
    std::uint16_t port{0};
  };

  // add_service() adds a service on ports first..last with these backends, its table in
  // turns (slot i: member i % n). Ranges of a VIP are added in ascending order, one VIP
  // after the other. Returns the service's number.
  abi::service_id add_service(const ip_address& address, ip_proto protocol, std::uint16_t first,
                              std::uint16_t last, abi::forward_mode mode,
                              const std::vector<backend_spec>& backends,
                              std::uint32_t table_size = 251) {
    abi::generation_header& h = header();
    const auto id = static_cast<abi::service_id>(h.service_count);
    abi::vip_row& v = vip(address, protocol);
    abi::service_row& s = service(h.service_count++);
    s = {};
    s.vip = v.id;
    s.self = id;
    s.port_first = first;
    s.port_last = last;
    s.protocol = v.protocol;
    s.mode = mode;
    if (mode == abi::forward_mode::nat || mode == abi::forward_mode::full_nat)
      h.flags |= abi::generation_has_nat;
    s.kind = abi::scheduler::maglev;
    s.member_first = h.member_count;
    s.member_count = static_cast<std::uint32_t>(backends.size());
    s.table_size = table_size;
    s.table_offset = layout_.arena + arena_used_;
    arena_used_ += std::uint64_t{table_size} * 2;
    if (arena_used_ > layout_.arena_bytes) throw std::length_error{"arena"};
    for (std::uint32_t i = 0; i < table_size && !backends.empty(); ++i)
      set_slot(s, i, static_cast<std::uint16_t>(i % backends.size()));
    for (const backend_spec& b : backends) {
      abi::backend_row& row = backend(h.backend_count);
      row = {};
      row.address = b.address;
      row.next_hop = b.next_hop;
      row.out_port = b.out_port;
      row.flags = b.flags;
      row.service = id;
      row.incarnation = 3;
      row.mode = mode;
      row.mtu = b.mtu;
      row.dscp = b.dscp;
      row.port = b.port;
      row.weight = 1;
      member(h.member_count++) = abi::backend_ref::make(h.backend_count++, 3);
    }
    if (first == last) {
      std::uint32_t at = abi::port_hash(v.id, first);
      while (ports()[at & h.port_mask].used != 0) ++at;
      ports()[at & h.port_mask] = {v.id, first, id, 1};
    } else if (first == 0) {
      v.any_service = id;
    } else {
      if (v.range_count == 0) v.range_first = h.range_count;
      ranges()[h.range_count++] = {first, last, id, 0};
      ++v.range_count;
    }
    return id;
  }

  [[nodiscard]] abi::config_view view() {
    abi::config_view v;
    if (!abi::config_view::open(bytes(), limits_, 0, v)) throw std::logic_error{"bad generation"};
    return v;
  }

 private:
  struct alignas(cache_line) line {
    std::byte bytes[cache_line];
  };
  template <class T>
  T* rows(std::uint64_t offset) {
    return reinterpret_cast<T*>(slot_ + offset);
  }

  abi::config_limits limits_;
  abi::config_layout layout_;
  std::vector<line> memory_;
  std::byte* slot_;
  std::uint64_t arena_used_{0};
};

}  // namespace sluice::test
