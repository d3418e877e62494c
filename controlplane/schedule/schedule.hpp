// SPDX-License-Identifier: Apache-2.0
// The schedulers' tables: positions into a service's members, as the workers read them
// (abi::scheduler says how; abi/slot_table.hpp, in how many bytes). Each is a pure function of
// (kind, members sorted by identity, weights, seed, size): every node of a cluster builds the same
// table, whatever the order in which backends arrived.
//
// - maglev, source_hash: controlplane/maglev. So is the table of the least_connections kinds:
//   it names a backend where there is no telling who has fewest.
// - ring_hash: virtual nodes on a ring of 64 bits, points_per_weight for each 100 of weight,
//   at least one. The table is the ring, cut into equal arcs; an arc belongs to the first
//   point at or after its beginning. When a member goes, only its arcs move.
// - partitioned_hash: a slot is a partition. Partitions are placed on the same ring, one after
//   the other; each takes the first member from there that has less than load_factor times
//   its share (Mirrokni, Thorup, Zadimoghaddam, 2016).
// - round_robin, random: each member once.
// - weighted_round_robin: the smooth sequence of one cycle (nginx's algorithm: every turn, all
//   gain their weight, and who has most pays the sum), weights divided by their greatest
//   common divisor. A cycle that is too long is approximated: each member once, and the rest
//   of the slots in proportion.
// - weighted_random: slots in proportion, likewise.
//
// Any thread; no shared state.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <tl/expected.hpp>

#include "controlplane/maglev/maglev.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::schedule {

using maglev::member;

inline constexpr std::uint32_t points_per_weight = 160;  // for each 100 of weight
inline constexpr std::uint64_t most_points = 1u << 20;   // beyond, halved until they fit
inline constexpr double load_factor = 1.25;              // of partitions
inline constexpr std::uint32_t longest_cycle = 131071;   // slots of weighted_round_robin

// table_kind() is the kind whose builder makes the table: kinds with equal tables share them.
[[nodiscard]] abi::scheduler table_kind(abi::scheduler kind) noexcept;

// table_size() is how many slots the table of these members has; `configured` is the
// service's table-size. 0: no members.
[[nodiscard]] std::uint32_t table_size(abi::scheduler kind, std::span<const member> members,
                                       std::uint32_t configured);
// largest_table() is the most that table_size() can say of so many members.
[[nodiscard]] std::uint32_t largest_table(abi::scheduler kind, std::size_t members,
                                          std::uint32_t configured) noexcept;

// build() fills the table, whose size is table_size()'s. `members` is as maglev::build()
// wants it; anything else is an error in words.
[[nodiscard]] tl::expected<void, std::string> build(abi::scheduler kind,
                                                    std::span<const member> members,
                                                    std::uint64_t seed,
                                                    std::span<std::uint16_t> table);

// One builder in each file; members and table have been checked.
void build_ring(std::span<const member> members, std::uint64_t seed,
                std::span<std::uint16_t> table);
void build_partitions(std::span<const member> members, std::uint64_t seed,
                      std::span<std::uint16_t> table);
void build_turns(std::span<const member> members, std::span<std::uint16_t> table);
void build_smooth(std::span<const member> members, std::span<std::uint16_t> table);
void build_proportional(std::span<const member> members, std::span<std::uint16_t> table);

}  // namespace sluice::schedule
