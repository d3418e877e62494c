// SPDX-License-Identifier: Apache-2.0
// Versions and limits of the shared-memory interface. Any change of a layout in
// this folder raises abi_version; a mismatch is refused at attach.
#pragma once

#include <cstdint>

namespace sluice::abi {

inline constexpr std::uint32_t abi_version = 6;

inline constexpr std::uint64_t config_magic = 0x31474643'43554c53ull;       // "SLUCCFG1"
inline constexpr std::uint64_t observation_magic = 0x31534254'43554c53ull;  // "SLUCTBS1"
inline constexpr std::uint64_t connection_magic = 0x314e4e43'43554c53ull;   // "SLUCCNN1"

inline constexpr unsigned max_workers = 64;
inline constexpr unsigned max_ports = 32;
// Publishing into the third slot never waits for a worker that is one generation behind.
inline constexpr unsigned config_slots = 3;
// Prefix lists, and addresses that full-nat takes as sources, of all services together.
inline constexpr unsigned max_prefix_lists = 256;
inline constexpr unsigned max_pool_addresses = 64;

}  // namespace sluice::abi
