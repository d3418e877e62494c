// SPDX-License-Identifier: Apache-2.0
// A mapped file of another process may be cut short at any time, and a read behind its new
// end raises SIGBUS (mmap(2)): checking the size once does not help, and files on a tmpfs
// cannot be sealed (fcntl(2), F_ADD_SEALS: memfd only). So a page that is gone is replaced
// by a page of zeros, and the reader goes on. Its tables then name nothing: packets are
// dropped and counted, until there is a new file.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

// mapping_guard guards one read-only mapping while it lives. Main thread; faulted() any.
// More than 16 at once are not guarded.
class mapping_guard {
 public:
  // install() sets the handler, once per process, before anything is guarded. Any other
  // SIGBUS ends the process as before.
  static bool install() noexcept;

  mapping_guard(const std::byte* data, std::size_t size) noexcept;
  mapping_guard(const mapping_guard&) = delete;
  mapping_guard& operator=(const mapping_guard&) = delete;
  ~mapping_guard();

  // faulted() tells whether a page had to be replaced.
  [[nodiscard]] bool faulted() const noexcept;

 private:
  std::size_t slot_;
};

}  // namespace sluice
