// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/arena.hpp"

#include <cassert>
#include <iterator>

namespace sluice::publish {

arena::arena(std::uint64_t first, std::uint64_t bytes) : bytes_{bytes / alignment * alignment} {
  assert(first % alignment == 0);
  if (bytes_ != 0) free_.emplace(first, bytes_);
}

std::optional<std::uint64_t> arena::allocate(std::uint64_t bytes) {
  if (bytes > bytes_) return std::nullopt;
  const std::uint64_t want = rounded(bytes);
  for (auto gap = free_.begin(); gap != free_.end(); ++gap) {
    if (gap->second < want) continue;
    const std::uint64_t offset = gap->first;
    const std::uint64_t rest = gap->second - want;
    free_.erase(gap);
    if (rest != 0) free_.emplace(offset + want, rest);
    used_ += want;
    return offset;
  }
  return std::nullopt;
}

bool arena::claim(std::uint64_t offset, std::uint64_t bytes) {
  if (offset % alignment != 0 || bytes > bytes_) return false;
  const std::uint64_t want = rounded(bytes);
  auto gap = free_.upper_bound(offset);
  if (gap == free_.begin()) return false;
  --gap;
  const auto [start, length] = *gap;
  const std::uint64_t before = offset - start;
  if (before > length || length - before < want) return false;
  free_.erase(gap);
  if (before != 0) free_.emplace(start, before);
  if (length - before != want) free_.emplace(offset + want, length - before - want);
  used_ += want;
  return true;
}

void arena::release(std::uint64_t offset, std::uint64_t bytes) {
  std::uint64_t length = rounded(bytes);
  used_ -= length;
  const auto after = free_.lower_bound(offset);
  assert(after == free_.end() || offset + length <= after->first);
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    assert(before->first + before->second <= offset);
    if (before->first + before->second == offset) {
      offset = before->first;
      length += before->second;
      free_.erase(before);
    }
  }
  if (after != free_.end() && offset + length == after->first) {
    length += after->second;
    free_.erase(after);
  }
  free_.emplace(offset, length);
}

}  // namespace sluice::publish
