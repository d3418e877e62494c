// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/list_cache.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "controlplane/publish/unused.hpp"

namespace sluice::publish {

tl::expected<placed_list*, list_cache::error> list_cache::want(
    const lists::shared_ranges& content) {
  const auto [first, last] = lists_.equal_range(content->digest());
  for (auto i = first; i != last; ++i)
    if (i->second->content == content || *i->second->content == *content) return i->second.get();
  const std::uint64_t bytes = content->bytes();
  const auto offset = arena_->allocate(bytes);
  if (!offset)
    return tl::unexpected{error{
        failure::full, "the memory for lookup tables and lists is used up (" +
                           std::to_string(arena_->capacity() >> 20) + " MiB for all generations)"}};
  if (auto memory = segment_->reserve(*offset, bytes); !memory) {
    arena_->release(*offset, bytes);
    return tl::unexpected{error{failure::no_memory, memory.error()}};
  }
  auto list = std::make_unique<placed_list>();
  list->content = content;
  list->offset = *offset;
  list->row = content->write(segment_->data() + *offset, *offset);
  placed_list* const result = list.get();
  lists_.emplace(content->digest(), std::move(list));
  return result;
}

void list_cache::collect(std::uint64_t current, reader_watch& watch) {
  unused is_unused{current, watch};
  std::erase_if(lists_, [&](const auto& entry) {
    if (!is_unused(entry.second->last_generation)) return false;
    arena_->release(entry.second->offset, entry.second->content->bytes());
    return true;
  });
}

bool list_cache::has_garbage(std::uint64_t current) const noexcept {
  return std::any_of(lists_.begin(), lists_.end(), [current](const auto& e) {
    return e.second->last_generation != 0 && e.second->last_generation < current;
  });
}

lists::shared_ranges read_list(const config_segment& segment, const abi::prefix_list& row) {
  const abi::config_layout& layout = segment.layout();
  const auto inside = [&](std::uint64_t offset, std::uint64_t bytes) {
    return offset >= layout.arena && offset <= layout.total && bytes <= layout.total - offset;
  };
  std::vector<lists::range4> four;
  std::vector<lists::range6> six;
  const std::uint64_t bytes4 = std::uint64_t{row.count4} * sizeof(lists::range4);
  const std::uint64_t bytes6 = std::uint64_t{row.count6} * sizeof(lists::range6);
  if (!inside(row.ranges4, bytes4) || !inside(row.ranges6, bytes6)) return nullptr;
  four.resize(row.count4);
  six.resize(row.count6);
  if (bytes4 != 0) std::memcpy(four.data(), segment.data() + row.ranges4, bytes4);
  if (bytes6 != 0) std::memcpy(six.data(), segment.data() + row.ranges6, bytes6);
  auto content = std::make_shared<const lists::range_set>(std::move(four), std::move(six));
  if (!content->valid() || !inside(lists::offset_of(row), content->bytes())) return nullptr;
  return content;
}

bool list_cache::adopt(const abi::prefix_list& row, std::uint64_t generation) {
  auto content = read_list(*segment_, row);
  if (!content) return false;
  const std::uint64_t offset = lists::offset_of(row);
  if (!arena_->claim(offset, content->bytes())) return false;
  auto list = std::make_unique<placed_list>();
  // Readers may be in it, with its index, which is made anew from the ranges: it was the same
  // unless it was damaged.
  list->row = content->write(segment_->data() + offset, offset);
  list->offset = offset;
  list->last_generation = generation;
  list->content = std::move(content);
  const bool same = std::memcmp(&list->row, &row, sizeof row) == 0;
  lists_.emplace(list->content->digest(), std::move(list));
  return same;
}

}  // namespace sluice::publish
