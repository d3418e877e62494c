// SPDX-License-Identifier: Apache-2.0
// The backend of a packet that has no connection in the table, from the tables and the packet
// alone: the same in all workers, on all nodes, in `explain` and in the XDP program. New
// connections of the hashing schedulers go there, and for every scheduler what is forwarded
// without an entry (no room, SYN flood, the middle of a connection that nobody remembers).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/byteorder.hpp"
#include "dataplane/abi/flow_hash.h"
#include "dataplane/abi/service_table.hpp"

namespace sluice::abi {

// cut() is the first bits of an address; of 32 for IPv4 and of 128 for IPv6. More are as many
// as there are.
inline ip_address cut(const ip_address& a, unsigned bits4, unsigned bits6) noexcept {
  const unsigned bits = a.is_v4() ? 96 + std::min(bits4, 32u) : std::min(bits6, 128u);
  const auto mask = [](unsigned n) {
    return n == 0 ? std::uint64_t{0} : be64{~std::uint64_t{0} << (64 - n)}.raw();
  };
  const std::uint64_t high = a.high() & mask(std::min(bits, 64u));
  const std::uint64_t low = a.low() & mask(bits > 64 ? bits - 64 : 0);
  ip_address out;
  std::memcpy(out.bytes.data(), &high, 8);
  std::memcpy(out.bytes.data() + 8, &low, 8);
  return out;
}

inline std::uint64_t source_hash(std::uint64_t seed, const ip_address& source) noexcept {
  return source.is_v4() ? sluice_source_hash4(seed, source.v4_raw().raw())
                        : sluice_source_hash6(seed, source.high(), source.low());
}

// goes_by_source() tells whether a service's packets go by their source address: the scheduler
// source_hash, and any with persistence, where workers that do not know of each other's
// connections have to choose alike.
inline bool goes_by_source(const service_row& s, const service_options* options) noexcept {
  return s.kind == scheduler::source_hash ||
         (options != nullptr && options->persistence_timeout != 0);
}

// options_of() are a service's options if it has any, else null.
inline const service_options* options_of(const config_view& view, const service_row& s) noexcept {
  return (s.flags & service_has_options) == 0 ? nullptr : view.options(s.self);
}

// choice_hash() is the hash that a service's packets go by: of the source, cut to the
// persistence prefix, or flow_hash(), which is asked only then.
template <class FlowHash>
std::uint64_t choice_hash(const config_view& view, const service_row& s,
                          const service_options* options, const ip_address& source,
                          FlowHash&& flow_hash) noexcept {
  if (!goes_by_source(s, options)) return flow_hash();
  const std::uint64_t seed = view.header().hash_seed;
  if (options == nullptr || options->persistence_timeout == 0) return source_hash(seed, source);
  return source_hash(seed, cut(source, options->persistence_prefix4, options->persistence_prefix6));
}

// does_without_table(): a member is chosen by the hash when there is no table of slots.
inline bool does_without_table(const service_row& s) noexcept {
  return s.table_size == 0 && (s.kind == scheduler::least_connections ||
                               s.kind == scheduler::weighted_least_connections);
}

// stateless_choice() is the backend that a choice_hash() leads to: the slot's, or, in a service
// without a table, a member's. None: a table is impossible.
inline backend_ref stateless_choice(const config_view& view, const service_row& s,
                                    std::uint64_t hash) noexcept {
  if (does_without_table(s)) return view.member(s, sluice_slot(hash, s.member_count));
  return view.choose(s, hash);
}

}  // namespace sluice::abi
