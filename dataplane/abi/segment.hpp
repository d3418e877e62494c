// SPDX-License-Identifier: Apache-2.0
// A shared-memory segment is a file in the node's runtime directory (tmpfs).
//
// create(): a temporary file is sized, initialised by the caller and then renamed to
// its name, so that nobody can open half a segment. attach(): opens, checks size,
// magic and version; every refusal says which and what was found.
// Threading: not shared between threads until returned.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <string>
#include <utility>

#include "dataplane/abi/huge_pages.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/version.hpp"

namespace sluice::abi {

// mapped_file: owns a mapping and, if wanted, the descriptor behind it.
class mapped_file {
 public:
  mapped_file() noexcept = default;
  mapped_file(std::byte* data, std::size_t size, int fd, std::uint64_t inode) noexcept
      : data_{data}, size_{size}, fd_{fd}, inode_{inode} {}
  mapped_file(mapped_file&& o) noexcept { swap(o); }
  mapped_file& operator=(mapped_file&& o) noexcept {
    swap(o);
    return *this;
  }
  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;
  ~mapped_file() {
    if (data_ != nullptr) ::munmap(data_, size_);
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] std::uint64_t inode() const noexcept { return inode_; }
  explicit operator bool() const noexcept { return data_ != nullptr; }

 private:
  void swap(mapped_file& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(fd_, o.fd_);
    std::swap(inode_, o.inode_);
  }
  std::byte* data_{nullptr};
  std::size_t size_{0};
  int fd_{-1};
  std::uint64_t inode_{0};
};

inline std::uint64_t random_u64() noexcept {
  std::uint64_t v = 0;
  while (::getrandom(&v, sizeof v, 0) != static_cast<ssize_t>(sizeof v)) {
  }
  return v;
}

inline std::uint64_t clock_ns(clockid_t clock) noexcept {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000ull +
         static_cast<std::uint64_t>(t.tv_nsec);
}

// create_segment() makes `path` a new segment of `size` bytes with a filled
// segment_header; init(std::byte*) fills the rest before anybody can see it. The
// descriptor stays open, with an exclusive flock if `lock`. An existing file of that
// name is replaced (those who have it mapped keep the old one). On failure the
// result is empty and `error` says why.
template <class Init>
mapped_file create_segment(const std::string& path, std::uint64_t magic, std::size_t size,
                           mode_t mode, bool lock, Init&& init, std::string& error) {
  const std::string temporary = path + ".new." + std::to_string(::getpid());
  const auto fail = [&](const char* what, int fd) {
    error = path + ": " + what + ": " + std::strerror(errno);
    if (fd >= 0) {
      ::close(fd);
      ::unlink(temporary.c_str());
    }
    return mapped_file{};
  };
  ::unlink(temporary.c_str());
  const int fd = ::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return fail("cannot create the segment", -1);
  if (lock && ::flock(fd, LOCK_EX | LOCK_NB) != 0) return fail("cannot lock the segment", fd);
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0) return fail("cannot size the segment", fd);
  struct stat st {};
  if (::fstat(fd, &st) != 0) return fail("cannot stat the segment", fd);
  void* p = map_aligned(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  if (p == MAP_FAILED) return fail("cannot map the segment", fd);
  mapped_file file{static_cast<std::byte*>(p), size, fd, st.st_ino};
  auto* header = new (p) segment_header{};
  header->version = abi_version;
  header->size = size;
  header->instance = random_u64() | 1;
  header->created_ns = clock_ns(CLOCK_REALTIME);
  init(file.data());
  std::atomic_ref<std::uint64_t>{header->magic}.store(magic, std::memory_order_release);
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    error = path + ": cannot put the segment in place: " + std::strerror(errno);
    ::unlink(temporary.c_str());
    return {};
  }
  return file;
}

// attach_segment() maps an existing segment. Refuses a file that is too small, has
// another magic, another version, or a size that is not the file's.
inline mapped_file attach_segment(const std::string& path, std::uint64_t magic, bool writable,
                                  std::string& error) {
  const int fd = ::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  if (fd < 0) {
    error = path + ": cannot open: " + std::strerror(errno);
    return {};
  }
  const auto refuse = [&](const std::string& why) {
    error = path + ": " + why;
    ::close(fd);
    return mapped_file{};
  };
  struct stat st {};
  if (::fstat(fd, &st) != 0) return refuse(std::string{"cannot stat: "} + std::strerror(errno));
  const auto size = static_cast<std::size_t>(st.st_size);
  if (size < sizeof(segment_header))
    return refuse("not a segment: " + std::to_string(size) + " bytes only");
  void* p = map_aligned(size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd);
  if (p == MAP_FAILED) return refuse(std::string{"cannot map: "} + std::strerror(errno));
  mapped_file file{static_cast<std::byte*>(p), size, fd, st.st_ino};
  segment_header h;
  std::memcpy(&h, p, sizeof h);
  if (h.magic != magic) {
    error = path + ": not a segment of this kind (magic does not match)";
    return {};
  }
  if (h.version != abi_version) {
    error = path + ": has layout version " + std::to_string(h.version) + ", this program has " +
            std::to_string(abi_version) + ": start data plane and control plane of one release";
    return {};
  }
  if (h.size != size) {
    error = path + ": says " + std::to_string(h.size) + " bytes, has " + std::to_string(size);
    return {};
  }
  return file;
}

// inode_of() returns the file's inode number, 0 if there is none: a segment that was
// replaced has another one.
inline std::uint64_t inode_of(const std::string& path) noexcept {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? static_cast<std::uint64_t>(st.st_ino) : 0;
}

// is_locked() tells whether another process holds the exclusive lock on an open segment.
inline bool is_locked(int fd) noexcept {
  if (::flock(fd, LOCK_SH | LOCK_NB) == 0) {
    ::flock(fd, LOCK_UN);
    return false;
  }
  return errno == EWOULDBLOCK;
}

}  // namespace sluice::abi
