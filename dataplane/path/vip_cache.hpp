// SPDX-License-Identifier: Apache-2.0
// vip_cache: which row of the VIP table a destination has, one compare for the answer. The
// table in shared memory is the truth; this is a worker's own copy of what it has looked up in
// this generation, with what its packets need beside the match. Addresses that have no service
// are not kept. 2 MiB for each family, of which a VIP uses 32 or 64 bytes; two that fall on one
// place both have one (of 4096 VIPs every sixteenth does, and would be looked up for every packet).
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/abi/huge_pages.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice {

class vip_cache {
 public:
  struct place4 {
    std::uint64_t match;     // generation 24 | protocol 8 | destination 32
    std::uint64_t vip_bits;  // connection_word::vip_bits()
    const abi::vip_row* row;
  };
  struct alignas(cache_line) pair4 {
    place4 places[2];
  };
  struct alignas(cache_line) place6 {
    std::uint64_t match;  // generation | protocol
    std::uint64_t high, low;
    std::uint64_t vip_bits;
    const abi::vip_row* row;
  };
  static_assert(sizeof(pair4) == cache_line && sizeof(place6) == cache_line);

  vip_cache() noexcept : pairs4_{size4 / 2}, places6_{size6} {}

  // forget() makes everything in it void: a new generation.
  void forget() noexcept {
    generation_ += std::uint64_t{1} << generation_shift;
    if (generation_ != 0) return;
    // After 2^24 generations an old place would match again.
    for (std::size_t i = 0; i < size4 / 2; ++i) pairs4_[i] = {};
    for (std::size_t i = 0; i < size6; ++i) places6_[i] = {};
    generation_ = std::uint64_t{1} << generation_shift;
  }

  // find4() and find6() return what is known of an address; null: it has no service.
  [[nodiscard]] [[gnu::always_inline]] const place4* find4(const abi::config_view& view,
                                                           be32 destination,
                                                           std::uint8_t protocol) noexcept {
    const std::uint64_t match = match4(destination, protocol);
    pair4& p = pairs4_[place_of4(match)];
    if (p.places[0].match == match) [[likely]]
      return &p.places[0];
    return look4(view, match, p);
  }
  // prefetch() fetches what find4() or 6 will read of an address of the frame's IP header.
  void prefetch4(be32 destination, std::uint8_t protocol) const noexcept {
    __builtin_prefetch(&pairs4_[place_of4(match4(destination, protocol))]);
  }
  void prefetch6(std::uint64_t high, std::uint64_t low, std::uint8_t protocol) const noexcept {
    __builtin_prefetch(&places6_[place_of6(high, low, generation_ | protocol)]);
  }
  [[nodiscard]] [[gnu::always_inline]] const place6* find6(const abi::config_view& view,
                                                           std::uint64_t high, std::uint64_t low,
                                                           std::uint8_t protocol) noexcept {
    const std::uint64_t match = generation_ | protocol;
    place6* const pair = &places6_[place_of6(high, low, match)];
    if (pair->match == match && pair->high == high && pair->low == low) [[likely]]
      return pair;
    return look6(view, high, low, match, pair);
  }

 private:
  static constexpr unsigned bits4 = 16;
  static constexpr unsigned bits6 = 15;
  static constexpr std::size_t size4 = std::size_t{1} << bits4;
  static constexpr std::size_t size6 = std::size_t{1} << bits6;
  static constexpr unsigned generation_shift = 40;

  // Fibonacci hashing (Knuth, volume 3, section 6.4): the upper bits of the product.
  static constexpr std::uint64_t spread(std::uint64_t x) noexcept {
    return x * 0x9e3779b97f4a7c15u;
  }
  [[nodiscard]] std::uint64_t match4(be32 destination, std::uint8_t protocol) const noexcept {
    return generation_ | std::uint64_t{protocol} << 32 | destination.raw();
  }
  // Where a pair of places begins, by number.
  static constexpr std::uint64_t place_of4(std::uint64_t match) noexcept {
    return spread(match) >> (65 - bits4);
  }
  static constexpr std::uint64_t place_of6(std::uint64_t high, std::uint64_t low,
                                           std::uint64_t match) noexcept {
    return 2 * (spread(spread(high) ^ low ^ match << 13) >> (65 - bits6));
  }
  // free_of() is the one of two places for another VIP: the second, when both are taken.
  template <class Place>
  Place& free_of(Place* pair) const noexcept {
    return pair[0].match >> generation_shift == generation_ >> generation_shift ? pair[1] : pair[0];
  }
  [[gnu::noinline]] const place4* look4(const abi::config_view& view, std::uint64_t match,
                                        pair4& pair) const noexcept {
    if (pair.places[1].match == match) return &pair.places[1];
    const std::uint64_t low = match << 32 | 0xffff0000u;  // ip_address::low() of an IPv4 address
    const abi::vip_row* row =
        view.empty() ? nullptr : view.find_vip(0, low, static_cast<std::uint8_t>(match >> 32));
    if (row == nullptr) return nullptr;
    const std::uint64_t bits = abi::connection_word::vip_bits(row->id);
    place4& p = free_of(pair.places);
    p = {match, bits, row};
    return &p;
  }
  [[gnu::noinline]] const place6* look6(const abi::config_view& view, std::uint64_t high,
                                        std::uint64_t low, std::uint64_t match,
                                        place6* pair) const noexcept {
    if (pair[1].match == match && pair[1].high == high && pair[1].low == low) return &pair[1];
    const abi::vip_row* row =
        view.empty() ? nullptr : view.find_vip(high, low, static_cast<std::uint8_t>(match));
    if (row == nullptr) return nullptr;
    place6& p = free_of(pair);
    p = {match, high, low, abi::connection_word::vip_bits(row->id), row};
    return &p;
  }

  std::uint64_t generation_{std::uint64_t{1} << generation_shift};
  abi::huge_array<pair4> pairs4_;
  abi::huge_array<place6> places6_;
};

}  // namespace sluice
