// SPDX-License-Identifier: Apache-2.0
// Weighted Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): which backend
// owns each slot of a service's lookup table.
//
// A pure function of (members sorted by identity, weights, seed, size): every node of
// a cluster builds the same table, whatever the order in which backends arrived.
//
// Weights are exact: each member owns its share of the slots, rounded down or up
// (largest remainder). Turns are interleaved by virtual time: turn k of a member of
// weight w is due at (k + 1/2) / w. When a member comes, goes or changes its weight, the
// order among the others' turns is therefore unchanged, and with it nearly all slots.
//
// Any thread; no shared state.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/net_types.hpp"

namespace sluice::maglev {

// identity: what makes a backend the same backend on every node and after a restart.
struct identity {
  ip_address address;
  std::uint16_t port{};  // host order; 0: the service's port

  auto operator<=>(const identity&) const noexcept = default;
};

struct member {
  identity id;
  std::uint32_t weight{};  // 1 to max_weight

  bool operator==(const member&) const noexcept = default;
};

inline constexpr std::size_t max_members = 65536;  // positions are 16 bits
inline constexpr std::uint32_t max_weight = 1u << 20;
inline constexpr std::uint32_t max_size = 1u << 24;

// build() writes into every slot of `table` the position in `members` of its owner.
// The table's size is a prime below max_size. `members` is not empty, sorted by
// identity, without duplicates and without weight 0; anything else is an error in words
// and leaves the table as it was.
[[nodiscard]] tl::expected<void, std::string> build(std::span<const member> members,
                                                    std::uint64_t seed,
                                                    std::span<std::uint16_t> table);

// quotas() returns how many of `size` slots each member gets: its share of the weight,
// rounded down or up, the larger remainders up (ties: the earlier member).
[[nodiscard]] std::vector<std::uint32_t> quotas(std::span<const member> members,
                                                std::uint32_t size);

// identity_hash() is the number that stands for an identity in digests.
[[nodiscard]] std::uint64_t identity_hash(const identity& id) noexcept;

// digest() is FNV-1a over 64-bit words, one step for each slot with identity_hash() of
// its owner: equal tables of different nodes have equal digests.
[[nodiscard]] std::uint64_t digest(std::span<const member> members,
                                   std::span<const std::uint16_t> table);

// is_prime() is by trial division: for sizes up to max_size.
[[nodiscard]] bool is_prime(std::uint32_t n) noexcept;

}  // namespace sluice::maglev
