// SPDX-License-Identifier: Apache-2.0
// persistence_table: where the connections of a source prefix to a service went, for as long
// as the service's persistence lasts. 131072 entries per worker, in sets of four; the one that
// was used longest ago gives way.
//
// Keys are hashes under the connection table's secret. Workers do not share it: a service with
// persistence makes its first choice by the hash of the source prefix, so that all workers
// choose alike, and a source that was displaced is only led elsewhere if the table of the
// service has changed since.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice {

class persistence_table {
 public:
  static constexpr std::size_t ways = 4;
  static constexpr std::size_t sets = 32768;

  // find() returns where a key's connections went in the last `timeout` seconds; none: not
  // known. now: seconds of a clock that does not go back.
  [[nodiscard]] abi::backend_ref find(std::uint64_t key, std::uint32_t now,
                                      std::uint32_t timeout) const noexcept {
    const std::uint32_t tag = tag_of(key);
    for (const entry& e : sets_[key >> 49].entries)
      if (e.tag == tag && now - e.used <= timeout) return e.backend;
    return {};
  }

  // enter() notes where a connection of the key goes now.
  void enter(std::uint64_t key, abi::backend_ref backend, std::uint32_t now) noexcept {
    const std::uint32_t tag = tag_of(key);
    set& s = sets_[key >> 49];
    static_assert(sets == std::size_t{1} << (64 - 49));
    entry* place = &s.entries[0];
    for (entry& e : s.entries) {
      if (e.tag == tag || e.tag == 0) {
        place = &e;
        break;
      }
      if (now - e.used > now - place->used) place = &e;
    }
    *place = {tag, backend, now, 0};
  }

 private:
  struct entry {
    std::uint32_t tag;  // 0: free
    abi::backend_ref backend;
    std::uint32_t used;
    std::uint32_t reserved0;
  };
  struct alignas(cache_line) set {
    std::array<entry, ways> entries;
  };
  static_assert(sizeof(set) == cache_line);

  static std::uint32_t tag_of(std::uint64_t key) noexcept {
    return static_cast<std::uint32_t>(key) | 1;
  }

  std::array<set, sets> sets_{};
};

}  // namespace sluice
