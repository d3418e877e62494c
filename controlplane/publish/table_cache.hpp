// SPDX-License-Identifier: Apache-2.0
// table_cache: the schedulers' tables in a segment's arena. A table is found by what it is
// made from, so a service that did not change keeps its table, and services with the
// same backends share one. A table is given back when no generation that a reader can
// still use refers to it. One thread (which builds with several).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/maglev/maglev.hpp"
#include "controlplane/publish/arena.hpp"
#include "controlplane/publish/config_segment.hpp"
#include "controlplane/publish/reader_watch.hpp"

namespace sluice::publish {

struct table_key {
  abi::scheduler kind{abi::scheduler::maglev};  // schedule::table_kind()
  std::uint32_t size{};
  std::vector<maglev::member> members;  // sorted, not empty

  [[nodiscard]] std::uint64_t hash() const noexcept;
  bool operator==(const table_key&) const = default;
};

struct lookup_table {
  table_key key;
  std::uint64_t offset{};             // in the segment
  std::uint64_t digest{};             // maglev::digest()
  std::vector<std::uint32_t> counts;  // slots of each member
  std::uint64_t last_generation{};    // the newest that refers to it; 0: none yet
  bool built{false};
};

class table_cache {
 public:
  table_cache(config_segment& segment, std::uint64_t seed);

  enum class failure { full, no_memory, impossible };
  struct error {
    failure what{};
    std::string text;
  };
  // want() finds the table of a key or sets a place aside for it (build() fills it). The
  // pointer stays valid until collect() gives the table back.
  [[nodiscard]] tl::expected<lookup_table*, error> want(table_key key);
  // build() fills the tables that were set aside, in parallel; returns how many.
  [[nodiscard]] tl::expected<std::size_t, error> build();
  // collect() gives back tables that no reader can use: older than `current`, or never used.
  void collect(std::uint64_t current, reader_watch& watch);
  // has_garbage() tells whether collect() may find more later.
  [[nodiscard]] bool has_garbage(std::uint64_t current) const noexcept;

  // adopt() takes over a table that a live segment has; `seed_matches` false: it is kept
  // for its readers only, and not found by want(). False: damaged, or taken already.
  [[nodiscard]] bool adopt(table_key key, std::uint64_t offset, std::uint64_t digest,
                           std::uint64_t generation, bool seed_matches);

  // space() is where they lie, and the lists (list_cache.hpp) beside them.
  [[nodiscard]] arena& space() noexcept { return arena_; }
  [[nodiscard]] std::uint64_t bytes_used() const noexcept { return arena_.used(); }

 private:
  [[nodiscard]] std::byte* place(const lookup_table& t) const noexcept {
    return segment_->data() + t.offset;
  }
  void release(const lookup_table& t) { arena_.release(t.offset, bytes(t.key)); }
  static std::uint64_t bytes(const table_key& key) noexcept {
    return abi::table_bytes(key.size, key.members.size());
  }

  config_segment* segment_;
  std::uint64_t seed_;
  arena arena_;
  std::unordered_multimap<std::uint64_t, std::unique_ptr<lookup_table>> tables_;
  std::vector<std::unique_ptr<lookup_table>> foreign_;  // adopted, of another seed
  std::vector<lookup_table*> unbuilt_;
};

}  // namespace sluice::publish
