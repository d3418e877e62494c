// SPDX-License-Identifier: Apache-2.0
// vip_cache: which VIP a destination is, one compare for the answer. The table in shared memory
// is the truth; this is a worker's own copy of what it has looked up in this generation, small
// enough to stay in its caches. Addresses that have no service are not kept. Two that fall on one
// place both have one (of 4096 VIPs one in eleven falls where two are already, and is looked up
// for every packet).
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/abi/huge_pages.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice {

class vip_cache {
 public:
  // A place is a word: destination 32 | protocol 8 | generation 8 | connection_word::vip_bits()
  // 16, from the lowest bit. Two of them are for each hash.
  struct alignas(16) pair4 {
    std::uint64_t places[2];
  };
  struct place6 {
    std::uint64_t match;  // vip_bits 16 | protocol 8 | generation 40
    std::uint64_t high, low;
    std::uint64_t reserved0;
  };
  struct alignas(cache_line) pair6 {
    place6 places[2];
  };
  static_assert(sizeof(pair4) == 16 && sizeof(pair6) == cache_line);
  static constexpr unsigned vip_shift4 = 48;

  vip_cache() noexcept : pairs4_{pairs}, pairs6_{pairs}, rows_{row_count} {}

  // forget() makes everything in it void: a new generation.
  void forget() noexcept {
    ++generation_;
    if (const auto few = static_cast<std::uint8_t>(generation_); few == 0) {
      // After 2^8 generations an old place would match again.
      for (std::size_t i = 0; i < pairs; ++i) pairs4_[i] = {};
      ++generation_;
    }
    generation4_ = std::uint64_t{static_cast<std::uint8_t>(generation_)} << 40;
  }

  // find4() and find6() return connection_word::vip_bits() of an address; 0: it has no service.
  [[nodiscard]] [[gnu::always_inline]] std::uint64_t find4(const abi::config_view& view,
                                                           be32 destination,
                                                           std::uint8_t protocol) noexcept {
    const std::uint64_t match = match4(destination, protocol);
    pair4& p = pairs4_[place_of4(destination.raw(), protocol)];
    if ((p.places[0] ^ match) << (64 - vip_shift4) == 0) [[likely]] {
      const std::uint64_t bits = p.places[0] >> vip_shift4;
      if (bits == 0) __builtin_unreachable();  // look4() enters none
      return bits;
    }
    return look4(view, match, p);
  }
  [[nodiscard]] [[gnu::always_inline]] std::uint64_t find6(const abi::config_view& view,
                                                           std::uint64_t high, std::uint64_t low,
                                                           std::uint8_t protocol) noexcept {
    const std::uint64_t match = match6(protocol);
    pair6& p = pairs6_[place_of6(high, low, protocol)];
    const place6& first = p.places[0];
    if (first.match >> 16 == match && first.high == high && first.low == low) [[likely]]
      return first.match & abi::connection_word::vip_mask;
    return look6(view, high, low, match, p);
  }

  // row() is the VIP that find4() or 6 has named in this generation.
  [[nodiscard]] const abi::vip_row& row(std::uint64_t vip_bits) const noexcept {
    return *rows_[vip_bits & abi::connection_word::vip_mask];
  }

  // What a look-up of several at once needs besides (classify_wide.cpp).
  [[nodiscard]] const std::uint64_t* words4() const noexcept { return pairs4_[0].places; }
  [[nodiscard]] const place6* words6() const noexcept { return pairs6_[0].places; }
  // As in match6(), without the protocol.
  [[nodiscard]] std::uint64_t generation6() const noexcept { return generation_ << 8; }
  [[nodiscard]] std::uint64_t generation4() const noexcept { return generation4_; }
  static constexpr unsigned pair_bits = 13;
  // Fibonacci hashing (Knuth, volume 3, section 6.4): the upper bits of the product, of 32.
  static constexpr std::uint32_t spread4 = 0x9e3779b1u;
  static constexpr std::uint64_t golden = 0x9e3779b97f4a7c15u;
  static constexpr std::uint32_t place_of4(std::uint32_t destination,
                                           std::uint8_t protocol) noexcept {
    return destination * spread4 >> (32 - pair_bits) ^ protocol;
  }
  static constexpr std::uint64_t place_of6(std::uint64_t high, std::uint64_t low,
                                           std::uint8_t protocol) noexcept {
    return (high * golden ^ low ^ std::uint64_t{protocol} << 13) * golden >> (64 - pair_bits);
  }

 private:
  static constexpr std::size_t pairs = std::size_t{1} << pair_bits;
  static constexpr std::size_t row_count = std::size_t{1} << 16;

  [[nodiscard]] std::uint64_t match4(be32 destination, std::uint8_t protocol) const noexcept {
    return generation4() | std::uint64_t{protocol} << 32 | destination.raw();
  }
  [[nodiscard]] std::uint64_t match6(std::uint8_t protocol) const noexcept {
    return generation_ << 8 | protocol;
  }
  [[gnu::noinline]] std::uint64_t look4(const abi::config_view& view, std::uint64_t match,
                                        pair4& pair) const noexcept {
    constexpr unsigned above = 64 - vip_shift4;
    if ((pair.places[1] ^ match) << above == 0) return pair.places[1] >> vip_shift4;
    const std::uint64_t low = match << 32 | 0xffff0000u;  // ip_address::low() of an IPv4 address
    const abi::vip_row* row =
        view.empty() ? nullptr : view.find_vip(0, low, static_cast<std::uint8_t>(match >> 32));
    const std::uint64_t bits = known(row);
    // For another VIP the second place, when both are taken.
    const bool taken = (pair.places[0] ^ match) << above >> (above + 40) == 0;
    if (bits != 0) pair.places[taken ? 1 : 0] = match | bits << vip_shift4;
    return bits;
  }
  [[gnu::noinline]] std::uint64_t look6(const abi::config_view& view, std::uint64_t high,
                                        std::uint64_t low, std::uint64_t match,
                                        pair6& pair) const noexcept {
    const place6& second = pair.places[1];
    if (second.match >> 16 == match && second.high == high && second.low == low)
      return second.match & abi::connection_word::vip_mask;
    const std::uint64_t bits =
        known(view.empty() ? nullptr : view.find_vip(high, low, static_cast<std::uint8_t>(match)));
    const bool taken = pair.places[0].match >> 24 == match >> 8;
    if (bits != 0) pair.places[taken ? 1 : 0] = {match << 16 | bits, high, low, 0};
    return bits;
  }
  // known() notes the row of a VIP; 0: none, or a number that no VIP has.
  std::uint64_t known(const abi::vip_row* row) const noexcept {
    if (row == nullptr) return 0;
    const std::uint64_t bits = abi::connection_word::vip_bits(row->id);
    rows_[bits] = row;
    return bits;
  }

  std::uint64_t generation_{1};  // its low 8 bits are never 0
  std::uint64_t generation4_{std::uint64_t{1} << 40};
  abi::huge_array<pair4> pairs4_;
  abi::huge_array<pair6> pairs6_;
  abi::huge_array<const abi::vip_row*> rows_;
};

}  // namespace sluice
