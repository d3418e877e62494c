// SPDX-License-Identifier: Apache-2.0
// lint: cold file: start-up and housekeeping only
#include "dataplane/connection/private_file.hpp"

#include <array>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14; Debian 12's glibc has it, older headers do not
#endif

namespace sluice::connection {

tl::expected<found_file, refusal> open_private(const std::string& path) {
  const auto refuse = [&path](const std::string& why) {
    return tl::make_unexpected(refusal{path + ": " + why});
  };
  const auto system_refuses = [&refuse](const char* what) {
    return refuse(std::string{what} + ": " + std::generic_category().message(errno));
  };
  file_descriptor fd{::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW)};
  if (!fd && errno == ENOENT) return tl::make_unexpected(refusal{});
  if (!fd) return system_refuses("cannot open");
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return system_refuses("cannot stat");
  if (!S_ISREG(st.st_mode)) return refuse("not a file");
  // Whoever else can write it could lead packets astray; who can read it knows the secret.
  if (st.st_uid != ::geteuid() || (st.st_mode & 077) != 0)
    return refuse("not private to this user");
  return found_file{std::move(fd), static_cast<std::uint64_t>(st.st_size)};
}

int prefer_node(void* at, std::uint64_t size, int node) noexcept {
  constexpr int max_node = 1023;
  if (node > max_node) return EINVAL;
  constexpr unsigned word_bits = 8 * sizeof(unsigned long);
  std::array<unsigned long, (max_node + 1) / word_bits> mask{};
  const auto n = static_cast<unsigned>(node);
  mask[n / word_bits] = 1ul << (n % word_bits);
  // The kernel reads maxnode - 1 bits.
  return ::syscall(SYS_mbind, at, size, MPOL_PREFERRED, mask.data(),
                   static_cast<unsigned long>(max_node) + 2, 0u) == 0
             ? 0
             : errno;
}

int populate(std::byte* at, std::uint64_t size, std::uint64_t page) noexcept {
  if (::madvise(at, size, MADV_POPULATE_WRITE) == 0) return 0;
  if (errno != EINVAL) return errno;
  // Before Linux 5.14: touch them. fallocate() has made sure that there are pages.
  for (std::uint64_t i = 0; i < size; i += page) {
    volatile std::byte* touched = at + i;
    *touched = std::byte{0};
  }
  return 0;
}

}  // namespace sluice::connection
