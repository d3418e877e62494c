// SPDX-License-Identifier: Apache-2.0
#include "controlplane/lists/range_set.hpp"

#include <algorithm>
#include <cstring>

#include "dataplane/abi/flow_hash.h"

namespace sluice::lists {
namespace {

constexpr std::size_t index_size = 65537;
constexpr std::uint64_t alignment = 64;

constexpr std::uint64_t rounded(std::uint64_t bytes) noexcept {
  return (bytes + alignment - 1) / alignment * alignment;
}

// follows() tells whether b is the address after a.
bool follows(std::uint32_t a, std::uint32_t b) noexcept {
  return a != 0xffffffffu && a + 1 == b;
}
bool follows(std::array<std::uint8_t, 16> a, const std::array<std::uint8_t, 16>& b) noexcept {
  for (std::size_t i = a.size(); i-- > 0;)
    if (++a[i] != 0) return a == b;
  return false;
}

// merge() sorts ranges and joins those that overlap or touch.
template <class Range>
void merge(std::vector<Range>& ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::size_t kept = 0;
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    Range& last = ranges[kept];
    if (ranges[i].first <= last.last || follows(last.last, ranges[i].first))
      last.last = std::max(last.last, ranges[i].last);
    else
      ranges[++kept] = ranges[i];
  }
  if (!ranges.empty()) ranges.resize(kept + 1);
  ranges.shrink_to_fit();
}

template <class Range>
bool ascending(const std::vector<Range>& ranges) noexcept {
  for (std::size_t i = 0; i < ranges.size(); ++i)
    if (ranges[i].first > ranges[i].last || (i > 0 && ranges[i - 1].last >= ranges[i].first))
      return false;
  return true;
}

range4 range_of4(const ip_prefix& p) noexcept {
  const std::uint32_t first = p.address.v4_raw().host();
  const std::uint32_t hosts = p.length >= 32 ? 0 : 0xffffffffu >> p.length;
  return {first & ~hosts, first | hosts};
}

range6 range_of6(const ip_prefix& p) noexcept {
  range6 r{p.address.bytes, p.address.bytes};
  for (unsigned byte = p.length / 8; byte < 16; ++byte) {
    const unsigned inside = byte == p.length / 8u ? p.length % 8u : 0u;
    const auto hosts = static_cast<std::uint8_t>(0xffu >> inside);
    r.first[byte] = static_cast<std::uint8_t>(r.first[byte] & ~hosts);
    r.last[byte] = static_cast<std::uint8_t>(r.last[byte] | hosts);
  }
  return r;
}

}  // namespace

range_set::range_set(std::span<const ip_prefix> prefixes) {
  for (const ip_prefix& p : prefixes) {
    if (p.address.is_v4())
      four_.push_back(range_of4(p));
    else
      six_.push_back(range_of6(p));
  }
  merge(four_);
  merge(six_);
  digest_now();
}

range_set::range_set(std::vector<range4> four, std::vector<range6> six)
    : four_{std::move(four)}, six_{std::move(six)} {
  digest_now();
}

bool range_set::valid() const noexcept {
  return ascending(four_) && ascending(six_);
}

void range_set::digest_now() noexcept {
  std::uint64_t h = sluice_mix64(four_.size());
  for (const range4& r : four_) h = sluice_mix64(h ^ (std::uint64_t{r.first} << 32 | r.last));
  for (const range6& r : six_) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), &r, sizeof words);
    for (const std::uint64_t w : words) h = sluice_mix64(h ^ w);
  }
  digest_ = h;
}

std::uint64_t range_set::bytes() const noexcept {
  const std::uint64_t of4 =
      four_.empty() ? 0 : rounded(index_size * 4) + rounded(four_.size() * sizeof(range4));
  return std::max<std::uint64_t>(of4 + rounded(six_.size() * sizeof(range6)), 1);
}

abi::prefix_list range_set::write(std::byte* to, std::uint64_t offset) const noexcept {
  abi::prefix_list row{};
  row.count4 = static_cast<std::uint32_t>(four_.size());
  row.count6 = static_cast<std::uint32_t>(six_.size());
  row.index4 = row.ranges4 = row.ranges6 = offset;
  if (!four_.empty()) {
    row.ranges4 = offset + rounded(index_size * 4);
    row.ranges6 = row.ranges4 + rounded(four_.size() * sizeof(range4));
    auto* const index = reinterpret_cast<std::uint32_t*>(to);
    std::uint32_t at = 0;
    for (std::uint32_t i = 0; i < index_size - 1; ++i) {
      while (at < four_.size() && four_[at].last < i << 16) ++at;
      index[i] = at;
    }
    index[index_size - 1] = row.count4;
    std::memcpy(to + (row.ranges4 - offset), four_.data(), four_.size() * sizeof(range4));
  }
  if (!six_.empty())
    std::memcpy(to + (row.ranges6 - offset), six_.data(), six_.size() * sizeof(range6));
  return row;
}

std::uint64_t offset_of(const abi::prefix_list& row) noexcept {
  return row.count4 != 0 ? row.index4 : row.ranges6;
}

}  // namespace sluice::lists
