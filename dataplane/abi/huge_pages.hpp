// SPDX-License-Identifier: Apache-2.0
// Pages of 2 MB for shared files in memory (tmpfs) and for a process's own memory. Tables of many
// MB that are read at random otherwise cost a walk of the page tables for every other packet.
// Best effort: without, everything works as it does in pages of 4 KB.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; Debian 12's glibc does not have it
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14; Debian 12's glibc has it, older headers do not
#endif

namespace sluice::abi {

inline constexpr std::size_t huge_page = std::size_t{2} << 20;

// map_aligned() is mmap() (MAP_FAILED and errno, too) from a file's start, or of no file's memory,
// to a place where what is in huge pages can be mapped so.
inline void* map_aligned(std::size_t size, int protection, int flags, int fd) noexcept {
  const std::size_t room = size + huge_page;
  void* const reserved =
      size < huge_page
          ? MAP_FAILED
          : ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return ::mmap(nullptr, size, protection, flags, fd, 0);
  auto* const begin = static_cast<std::byte*>(reserved);
  const std::size_t before =
      (huge_page - reinterpret_cast<std::uintptr_t>(begin) % huge_page) % huge_page;
  void* const at = ::mmap(begin + before, size, protection, flags | MAP_FIXED, fd, 0);
  if (at == MAP_FAILED) {
    ::munmap(reserved, room);
    return MAP_FAILED;
  }
  constexpr std::size_t page = 4096;
  const std::size_t used = before + (size + page - 1) / page * page;
  if (before != 0) ::munmap(begin, before);
  if (used < room) ::munmap(begin + used, room - used);
  return at;
}

// make_huge() puts the whole huge pages of a range of a mapping, which map_aligned() has made, into
// such. It takes memory for what of them was never used. Who reads one meanwhile waits for it to be
// copied: some 0.1 ms.
inline void make_huge(std::byte* mapping, std::uint64_t from, std::uint64_t to) noexcept {
  from = (from + huge_page - 1) / huge_page * huge_page;
  // One by one: a page that cannot does not keep the others from it.
  for (; from + huge_page <= to; from += huge_page)
    if (::madvise(mapping + from, huge_page, MADV_COLLAPSE) != 0) continue;
}

// provide() has memory for a page-aligned range at once, instead of with each page's first use.
// What is there stays, also what is written meanwhile.
inline void provide(void* at, std::size_t size) noexcept {
  if (::madvise(at, size, MADV_POPULATE_WRITE) != 0) return;
}

// huge_array is zeroed memory of the process's own for `count` objects, in huge pages if it is
// large.
template <class T>
requires std::is_trivially_destructible_v<T>
class huge_array {
 public:
  explicit huge_array(std::size_t count)
      : alignment_{count * sizeof(T) < huge_page ? alignof(T) : huge_page},
        data_{::operator new (count * sizeof(T), std::align_val_t{alignment_})} {
    if (alignment_ == huge_page)
      ::madvise(data_, count * sizeof(T) / huge_page * huge_page, MADV_HUGEPAGE);
    std::uninitialized_value_construct_n(get(), count);
  }
  huge_array(const huge_array&) = delete;
  huge_array& operator=(const huge_array&) = delete;
  ~huge_array() { ::operator delete (data_, std::align_val_t{alignment_}); }

  [[nodiscard]] T* get() const noexcept { return static_cast<T*>(data_); }
  [[nodiscard]] T& operator[](std::size_t i) const noexcept { return get()[i]; }

 private:
  std::size_t alignment_;
  void* data_;
};

}  // namespace sluice::abi
