// SPDX-License-Identifier: Apache-2.0
// arena: which parts of a range of bytes are taken. First fit, neighbours that become
// free are joined. Keeps its books outside the range. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace sluice::publish {

class arena {
 public:
  static constexpr std::uint64_t alignment = 64;  // of every block: tables start on a cache line

  // The range [first, first + bytes), all of it free. `first` is aligned.
  arena(std::uint64_t first, std::uint64_t bytes);

  // allocate() returns the offset of a block; nothing when no gap is large enough.
  [[nodiscard]] std::optional<std::uint64_t> allocate(std::uint64_t bytes);
  // claim() takes a block at a place that is known: false when it is not free or aligned.
  [[nodiscard]] bool claim(std::uint64_t offset, std::uint64_t bytes);
  // release() gives back what allocate() or claim() took, with the same size.
  void release(std::uint64_t offset, std::uint64_t bytes);

  [[nodiscard]] std::uint64_t capacity() const noexcept { return bytes_; }
  [[nodiscard]] std::uint64_t used() const noexcept { return used_; }

 private:
  static std::uint64_t rounded(std::uint64_t bytes) noexcept {
    return bytes == 0 ? alignment : (bytes + alignment - 1) / alignment * alignment;
  }
  std::uint64_t bytes_;
  std::uint64_t used_{0};
  std::map<std::uint64_t, std::uint64_t> free_;  // offset -> bytes, no two touch
};

}  // namespace sluice::publish
