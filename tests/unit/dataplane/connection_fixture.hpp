// SPDX-License-Identifier: Apache-2.0
// What the tests of the connection table share: memory, keys, words.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "dataplane/connection/flow_map.hpp"

namespace sluice::connection::test {

inline constexpr std::array<std::uint64_t, 2> secret{0x0123456789abcdefull, 0xfedcba9876543210ull};

// buckets: zeroed, aligned memory for a flow_map.
template <class Family>
class map_memory {
 public:
  explicit map_memory(std::uint64_t count)
      : count_{count}, memory_{std::aligned_alloc(cache_line, bytes()), &std::free} {
    std::memset(memory_.get(), 0, bytes());
  }
  [[nodiscard]] std::size_t bytes() const { return count_ * sizeof(typename Family::bucket); }
  [[nodiscard]] void* data() const { return memory_.get(); }
  [[nodiscard]] flow_map<Family> map(const std::array<std::uint64_t, 2>& s = secret) const {
    return flow_map<Family>{memory_.get(), count_, s};
  }

 private:
  std::uint64_t count_;
  std::unique_ptr<void, decltype(&std::free)> memory_;
};

// key_maker: the n-th key of a family; different n, different keys.
template <class Family>
struct key_maker;

template <>
struct key_maker<ipv4> {
  static key4 make(std::uint64_t n, abi::vip_id vip = abi::vip_id{1}) {
    return key4::make(be32{static_cast<std::uint32_t>(0x0a000000 + (n >> 14))},
                      be16{static_cast<std::uint16_t>(1024 + (n & 0x3fff))}, be16{443}, vip);
  }
};
template <>
struct key_maker<ipv6> {
  static key6 make(std::uint64_t n, abi::vip_id vip = abi::vip_id{1}) {
    ip_address a;
    a.bytes = {0x20, 0x01, 0x0d, 0xb8};
    const be32 host{static_cast<std::uint32_t>(n >> 14)};
    std::memcpy(a.bytes.data() + 12, &host, 4);
    return key6::make(a, be16{static_cast<std::uint16_t>(1024 + (n & 0x3fff))}, be16{443}, vip);
  }
};

inline connection_word word(connection_state s, std::uint16_t seen, std::uint32_t backend = 7,
                            abi::vip_id vip = abi::vip_id{1}) {
  return connection_word::make(vip, abi::backend_ref::make(backend, 0), seen, s);
}
inline connection_word plain(connection_word w) {
  return {w.value & ~connection_word::spare_mask};
}

// splitmix64: small, seeded, the same everywhere.
class random_source {
 public:
  explicit random_source(std::uint64_t seed) : x_{seed} {}
  std::uint64_t operator()() {
    std::uint64_t z = (x_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t n) { return (*this)() % n; }

 private:
  std::uint64_t x_;
};

}  // namespace sluice::connection::test
