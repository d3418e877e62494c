// SPDX-License-Identifier: Apache-2.0
// list_cache: the allow and deny lists in a segment's arena. Services with equal lists share
// one; a list that did not change stays where it is from generation to generation, and is
// given back when no generation that a reader can still use refers to it. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include <tl/expected.hpp>

#include "controlplane/lists/range_set.hpp"
#include "controlplane/publish/arena.hpp"
#include "controlplane/publish/config_segment.hpp"
#include "controlplane/publish/reader_watch.hpp"

namespace sluice::publish {

struct placed_list {
  lists::shared_ranges content;
  std::uint64_t offset{};  // in the segment
  abi::prefix_list row{};
  std::uint64_t last_generation{};  // the newest that refers to it; 0: none yet
};

// read_list() reads a list back from its row. Null: damaged.
[[nodiscard]] lists::shared_ranges read_list(const config_segment& segment,
                                             const abi::prefix_list& row);

class list_cache {
 public:
  // The arena is the tables' too.
  list_cache(config_segment& segment, arena& space) : segment_{&segment}, arena_{&space} {}

  enum class failure { full, no_memory };
  struct error {
    failure what{};
    std::string text;
  };
  // want() finds a list or writes it to a place of its own. The pointer stays valid until
  // collect() gives the list back.
  [[nodiscard]] tl::expected<placed_list*, error> want(const lists::shared_ranges& content);
  // collect() gives back lists that no reader can use: older than `current`, or never used.
  void collect(std::uint64_t current, reader_watch& watch);
  [[nodiscard]] bool has_garbage(std::uint64_t current) const noexcept;
  // adopt() takes over a list that a live segment has. False: damaged.
  [[nodiscard]] bool adopt(const abi::prefix_list& row, std::uint64_t generation);

 private:
  config_segment* segment_;
  arena* arena_;
  std::unordered_multimap<std::uint64_t, std::unique_ptr<placed_list>> lists_;  // by digest
};

}  // namespace sluice::publish
