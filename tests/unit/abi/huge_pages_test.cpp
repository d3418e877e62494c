// SPDX-License-Identifier: Apache-2.0
// Whatever the kernel has: the memory is there, where it should be, and keeps what is in it.
#include "dataplane/abi/huge_pages.hpp"

#include <cerrno>
#include <cstdint>
#include <cstring>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace sluice::abi {
namespace {

TEST(huge_pages, files_are_mapped_at_aligned_places_and_keep_their_content) {
  for (const std::size_t size :
       {std::size_t{4096}, huge_page - 4096, huge_page, 3 * huge_page + 12345}) {
    SCOPED_TRACE(size);
    const int fd = ::memfd_create("huge_pages_test", MFD_CLOEXEC);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(size)), 0);
    void* const at = map_aligned(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    ASSERT_NE(at, MAP_FAILED);
    if (size >= huge_page) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at) % huge_page, 0u);
    }
    auto* const bytes = static_cast<std::byte*>(at);
    for (std::size_t i = 0; i < size; i += 4096) bytes[i] = static_cast<std::byte>(i >> 12);
    void* const other = map_aligned(size, PROT_READ, MAP_SHARED, fd);
    ASSERT_NE(other, MAP_FAILED);
    make_huge(bytes, 4096, size);
    make_huge(bytes, 0, size);
    provide(bytes, size);
    for (std::size_t i = 0; i < size; i += 4096)
      ASSERT_EQ(bytes[i], static_cast<std::byte>(i >> 12)) << i;
    EXPECT_EQ(std::memcmp(at, other, size), 0);
    ::munmap(at, size);
    ::munmap(other, size);
    ::close(fd);
  }
}

TEST(huge_pages, a_mapping_that_is_impossible_is_refused_with_its_errno) {
  errno = 0;
  EXPECT_EQ(map_aligned(huge_page, PROT_READ, MAP_SHARED, -1), MAP_FAILED);
  EXPECT_EQ(errno, EBADF);
}

TEST(huge_pages, arrays_are_zeroed_and_aligned) {
  struct alignas(64) line {
    std::uint64_t words[8];
  };
  for (const std::size_t count : {std::size_t{1}, huge_page / 64 - 1, huge_page / 64 + 1}) {
    const huge_array<line> a{count};
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.get()) % (count * 64 < huge_page ? 64 : huge_page),
              0u);
    for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(a[i].words[7], 0u);
    a[count - 1].words[0] = 1;
  }
}

}  // namespace
}  // namespace sluice::abi
