// SPDX-License-Identifier: Apache-2.0
// persistence_table: where the connections of a source prefix to a service went, for as long
// as the service's persistence lasts. 131072 entries per worker, in sets of four; the one that
// was used longest ago gives way.
//
// One table for all workers: a source's connections come to any of them. No locks: an entry
// is one word, and the time beside it. Two workers that enter the same source or take the same
// place at once lose one of the two, no more. A service with persistence makes its first choice
// by the hash of the source prefix, so that a source that was displaced is only led elsewhere if
// the table of the service has changed since.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>

#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/connection/bucket_hash.hpp"

namespace sluice {

class persistence_table {
 public:
  static constexpr std::size_t ways = 4;
  static constexpr std::size_t sets_per_worker = 32768;

  // secret: of the hash(); not known outside.
  // lint: cold begin
  explicit persistence_table(const std::array<std::uint64_t, 2>& secret, unsigned workers = 1)
      : hasher_{secret},
        mask_{std::bit_ceil(sets_per_worker * std::max(workers, 1u)) - 1},
        sets_{new set[mask_ + 1]} {}
  // lint: cold end

  // hash() makes find()'s and enter()'s keys. Threads: all, as find() and enter().
  [[nodiscard]] std::uint64_t hash(const connection::key6& source) const noexcept {
    return hasher_(source).value;
  }

  // find() returns where a key's connections went in the last `timeout` seconds; none: not
  // known. now: seconds of a clock that does not go back, in each thread.
  [[nodiscard]] abi::backend_ref find(std::uint64_t key, std::uint32_t now,
                                      std::uint32_t timeout) const noexcept {
    const std::uint32_t tag = tag_of(key);
    for (const entry& e : set_of(key).entries) {
      const std::uint64_t word = e.word.load(std::memory_order_relaxed);
      if (word >> 32 == tag && age(e, now) <= timeout) return {static_cast<std::uint32_t>(word)};
    }
    return {};
  }

  // enter() notes where a connection of the key goes now.
  void enter(std::uint64_t key, abi::backend_ref backend, std::uint32_t now) noexcept {
    const std::uint32_t tag = tag_of(key);
    set& s = set_of(key);
    entry* place = &s.entries[0];
    for (entry& e : s.entries) {
      const std::uint64_t word = e.word.load(std::memory_order_relaxed);
      if (word >> 32 == tag || word == 0) {
        place = &e;
        break;
      }
      if (age(e, now) > age(*place, now)) place = &e;
    }
    place->used.store(now, std::memory_order_relaxed);
    place->word.store(std::uint64_t{tag} << 32 | backend.value, std::memory_order_relaxed);
  }

 private:
  struct entry {
    std::atomic<std::uint64_t> word{0};  // tag 32 | backend_ref 32; 0: free
    std::atomic<std::uint32_t> used{0};
    std::uint32_t reserved0{0};
  };
  struct alignas(cache_line) set {
    std::array<entry, ways> entries;
  };
  static_assert(sizeof(set) == cache_line && std::atomic<std::uint64_t>::is_always_lock_free);

  // age() is in seconds. Another worker's clock may be a little ahead of ours.
  static std::uint32_t age(const entry& e, std::uint32_t now) noexcept {
    const std::uint32_t seconds = now - e.used.load(std::memory_order_relaxed);
    return seconds >> 31 != 0 ? 0 : seconds;
  }
  static std::uint32_t tag_of(std::uint64_t key) noexcept {
    return static_cast<std::uint32_t>(key) | 1;
  }
  [[nodiscard]] set& set_of(std::uint64_t key) const noexcept { return sets_[key >> 32 & mask_]; }

  connection::bucket_hasher hasher_;
  std::size_t mask_;
  std::unique_ptr<set[]> sets_;
};

}  // namespace sluice
