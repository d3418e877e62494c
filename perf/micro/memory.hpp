// SPDX-License-Identifier: Apache-2.0
// Memory and keys for the micro benchmarks.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "dataplane/connection/flow_map.hpp"

namespace sluice::perf {

// huge_memory: zeroed; 2 MB pages if there are (hugetlb, else transparent).
class huge_memory {
 public:
  explicit huge_memory(std::size_t bytes) {
    constexpr std::size_t page = std::size_t{2} << 20;
    size_ = (bytes + page - 1) / page * page;
    void* at = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    if (at != MAP_FAILED) {
      kind_ = "hugetlb";
      base_ = at;
      data_ = at;
      mapped_ = size_;
      return;
    }
    mapped_ = size_ + page;
    base_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) {
      std::perror("mmap");
      std::abort();
    }
    data_ =
        reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(base_) + page - 1) / page * page);
    ::madvise(data_, size_, MADV_HUGEPAGE);
    kind_ = "thp";
    for (std::size_t i = 0; i < size_; i += 4096) static_cast<volatile char*>(data_)[i] = 0;
  }
  huge_memory(const huge_memory&) = delete;
  huge_memory& operator=(const huge_memory&) = delete;
  ~huge_memory() { ::munmap(base_, mapped_); }

  [[nodiscard]] void* data() const { return data_; }
  [[nodiscard]] const char* kind() const { return kind_; }

 private:
  void* base_{nullptr};
  void* data_{nullptr};
  std::size_t size_{0};
  std::size_t mapped_{0};
  const char* kind_{""};
};

// splitmix64's finaliser: a permutation, so that different n give different tuples.
inline std::uint64_t scatter(std::uint64_t n) {
  n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9ull;
  n = (n ^ (n >> 27)) * 0x94d049bb133111ebull;
  return n ^ (n >> 31);
}

// make_key(): the n-th of 2^64 different, random-looking keys.
inline void make_key(std::uint64_t n, connection::key4& k) {
  k.tuple = scatter(n);
  k.vip_bits = connection::connection_word::vip_bits(abi::vip_id{1});
}
inline void make_key(std::uint64_t n, connection::key6& k) {
  k.source_high = 0x000000b80d010120ull;
  k.source_low = scatter(n);
  k.ports = scatter(n + 77) & 0xffffffffu;
  k.vip_bits = connection::connection_word::vip_bits(abi::vip_id{1});
}

inline connection::connection_word make_word(std::uint64_t n) {
  return connection::connection_word::make(
      abi::vip_id{1}, abi::backend_ref::make(static_cast<std::uint32_t>(n & 0xffff), 0), 1,
      connection::connection_state::established);
}

}  // namespace sluice::perf
