/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The one flow hash: data plane, BPF programs, control plane and `sluice explain`
 * all include this file. C, no loops, 64-bit multiplications only, so that the
 * BPF verifier and every compiler give the same number.
 *
 * Words are the packet's bytes loaded as little-endian (network order untouched).
 * The mixer is splitmix64's finaliser (Steele, Lea, Flood, OOPSLA 2014; constants
 * of Stafford's variant 13). The seed is the cluster's hash-seed: every node
 * gives the same answer. Not a secret: tables that an attacker may aim at are
 * hashed with the per-boot secret instead (dataplane/connection).
 */
#ifndef SLUICE_FLOW_HASH_H
#define SLUICE_FLOW_HASH_H

#ifdef __cplusplus
#include <cstdint>
#define SLUICE_U64 std::uint64_t
#define SLUICE_U32 std::uint32_t
#define SLUICE_FN inline
#define SLUICE_NOEXCEPT noexcept
#define SLUICE_TO64(v) (static_cast<std::uint64_t>(v))
#define SLUICE_TO32(v) (static_cast<std::uint32_t>(v))
#else
#define SLUICE_U64 unsigned long long
#define SLUICE_U32 unsigned int
#define SLUICE_FN static inline __attribute__((always_inline))
#define SLUICE_NOEXCEPT
#define SLUICE_TO64(v) ((unsigned long long)(v))
#define SLUICE_TO32(v) ((unsigned int)(v))
#endif

SLUICE_FN SLUICE_U64 sluice_mix64(SLUICE_U64 x) SLUICE_NOEXCEPT {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  x ^= x >> 31;
  return x;
}

/* sluice_flow_hash4: addresses and ports as they are in the packet (raw). */
SLUICE_FN SLUICE_U64 sluice_flow_hash4(SLUICE_U64 seed, SLUICE_U32 source, SLUICE_U32 destination,
                                       SLUICE_U32 source_port, SLUICE_U32 destination_port,
                                       SLUICE_U32 protocol) SLUICE_NOEXCEPT {
  const SLUICE_U64 a = source | (SLUICE_TO64(destination) << 32);
  const SLUICE_U64 b = SLUICE_TO64(source_port) | (SLUICE_TO64(destination_port) << 16) |
                       (SLUICE_TO64(protocol) << 32);
  return sluice_mix64(sluice_mix64(seed ^ a) ^ b);
}

/* sluice_flow_hash6: each address as two words as they are in memory. */
SLUICE_FN SLUICE_U64 sluice_flow_hash6(SLUICE_U64 seed, SLUICE_U64 source_high,
                                       SLUICE_U64 source_low, SLUICE_U64 destination_high,
                                       SLUICE_U64 destination_low, SLUICE_U32 source_port,
                                       SLUICE_U32 destination_port,
                                       SLUICE_U32 protocol) SLUICE_NOEXCEPT {
  const SLUICE_U64 b = SLUICE_TO64(source_port) | (SLUICE_TO64(destination_port) << 16) |
                       (SLUICE_TO64(protocol) << 32);
  SLUICE_U64 h = sluice_mix64(seed ^ source_high);
  h = sluice_mix64(h ^ source_low);
  h = sluice_mix64(h ^ destination_high);
  h = sluice_mix64(h ^ destination_low);
  return sluice_mix64(h ^ b);
}

/* sluice_source_hash4, 6: of the source address alone, for source_hash services. */
SLUICE_FN SLUICE_U64 sluice_source_hash4(SLUICE_U64 seed, SLUICE_U32 source) SLUICE_NOEXCEPT {
  return sluice_mix64(sluice_mix64(seed ^ source));
}
SLUICE_FN SLUICE_U64 sluice_source_hash6(SLUICE_U64 seed, SLUICE_U64 source_high,
                                         SLUICE_U64 source_low) SLUICE_NOEXCEPT {
  return sluice_mix64(sluice_mix64(seed ^ source_high) ^ source_low);
}

/* sluice_slot: a table slot in [0, size) from a flow hash, without a division. */
SLUICE_FN SLUICE_U32 sluice_slot(SLUICE_U64 hash, SLUICE_U32 size) SLUICE_NOEXCEPT {
  return SLUICE_TO32(((hash >> 32) * size) >> 32);
}

#endif
