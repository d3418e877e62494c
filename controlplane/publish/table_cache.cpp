// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/table_cache.hpp"

#include <algorithm>
#include <utility>

#include <tbb/parallel_for.h>

#include "controlplane/publish/unused.hpp"
#include "controlplane/schedule/schedule.hpp"
#include "dataplane/abi/fnv.hpp"

namespace sluice::publish {
namespace {

// count_slots() returns how many slots each member has; empty when a slot names none.
std::vector<std::uint32_t> count_slots(std::span<const std::uint16_t> slots, std::size_t members) {
  std::vector<std::uint32_t> counts(members);
  for (const std::uint16_t position : slots) {
    if (position >= members) return {};
    ++counts[position];
  }
  return counts;
}

}  // namespace

std::uint64_t table_key::hash() const noexcept {
  fnv1a h;
  h.add(std::uint64_t{size} << 8 | static_cast<std::uint64_t>(kind));
  for (const auto& m : members) {
    h.add(m.id.address.high());
    h.add(m.id.address.low());
    h.add(std::uint64_t{m.id.port} << 32 | m.weight);
  }
  return h.value();
}

table_cache::table_cache(config_segment& segment, std::uint64_t seed)
    : segment_{&segment},
      seed_{seed},
      arena_{segment.layout().arena, segment.layout().arena_bytes} {}

tl::expected<lookup_table*, table_cache::error> table_cache::want(table_key key) {
  const std::uint64_t hash = key.hash();
  const auto [first, last] = tables_.equal_range(hash);
  for (auto i = first; i != last; ++i)
    if (i->second->key == key) return i->second.get();
  const std::uint64_t size = bytes(key);
  const auto offset = arena_.allocate(size);
  if (!offset)
    return tl::unexpected{error{failure::full, "the memory for lookup tables is used up (" +
                                                   std::to_string(arena_.capacity() >> 20) +
                                                   " MiB for all generations)"}};
  if (auto memory = segment_->reserve(*offset, size); !memory) {
    arena_.release(*offset, size);
    return tl::unexpected{error{failure::no_memory, memory.error()}};
  }
  auto table = std::make_unique<lookup_table>();
  table->key = std::move(key);
  table->offset = *offset;
  lookup_table* const result = table.get();
  tables_.emplace(hash, std::move(table));
  unbuilt_.push_back(result);
  return result;
}

tl::expected<std::size_t, table_cache::error> table_cache::build() {
  std::vector<std::string> errors(unbuilt_.size());
  const auto one = [&](std::size_t i) {
    lookup_table& t = *unbuilt_[i];
    const auto positions = std::make_unique_for_overwrite<std::uint16_t[]>(t.key.size);
    const std::span<std::uint16_t> out{positions.get(), t.key.size};
    if (auto done = schedule::build(t.key.kind, t.key.members, seed_, out); !done) {
      errors[i] = done.error();
      return;
    }
    t.digest = maglev::digest(t.key.members, out);
    t.counts = count_slots(out, t.key.members.size());
    abi::write_slots(out, t.key.members.size(), place(t));
    t.built = true;
  };
  if (unbuilt_.size() == 1) {
    one(0);  // the usual case: a verdict came; no need to wake anybody
  } else {
    tbb::parallel_for(std::size_t{0}, unbuilt_.size(), one);
  }
  const std::size_t count = unbuilt_.size();
  unbuilt_.clear();
  for (const auto& e : errors)
    if (!e.empty()) return tl::unexpected{error{failure::impossible, e}};
  return count;
}

void table_cache::collect(std::uint64_t current, reader_watch& watch) {
  unused is_unused{current, watch};
  // Tables that were never used include those not yet built, after a failed publish.
  unbuilt_.clear();
  std::erase_if(tables_, [&](const auto& entry) {
    if (!is_unused(entry.second->last_generation)) return false;
    release(*entry.second);
    return true;
  });
  std::erase_if(foreign_, [&](const auto& table) {
    if (!is_unused(table->last_generation)) return false;
    release(*table);
    return true;
  });
}

bool table_cache::has_garbage(std::uint64_t current) const noexcept {
  return std::any_of(tables_.begin(), tables_.end(),
                     [current](const auto& e) {
                       return e.second->last_generation != 0 && e.second->last_generation < current;
                     }) ||
         std::any_of(foreign_.begin(), foreign_.end(),
                     [current](const auto& t) { return t->last_generation < current; });
}

bool table_cache::adopt(table_key key, std::uint64_t offset, std::uint64_t digest,
                        std::uint64_t generation, bool seed_matches) {
  const std::uint64_t hash = key.hash();
  const auto [first, last] = tables_.equal_range(hash);
  for (auto i = first; i != last; ++i)
    if (i->second->key == key && i->second->offset == offset)
      return i->second->digest == digest;  // shared by two services
  for (const auto& t : foreign_)
    if (t->key == key && t->offset == offset) return t->digest == digest;
  if (!arena_.claim(offset, bytes(key))) return false;

  auto table = std::make_unique<lookup_table>();
  table->key = std::move(key);
  table->offset = offset;
  table->digest = digest;
  table->last_generation = generation;
  table->built = true;
  const abi::slot_table slots{place(*table), table->key.size, table->key.members.size()};
  std::vector<std::uint16_t> content(slots.size());
  for (std::uint32_t i = 0; i < slots.size(); ++i) content[i] = slots[i];
  table->counts = count_slots(content, table->key.members.size());
  if (table->counts.empty() || maglev::digest(table->key.members, content) != digest) {
    release(*table);
    return false;
  }
  if (seed_matches) {
    tables_.emplace(hash, std::move(table));
  } else {
    foreign_.push_back(std::move(table));
  }
  return true;
}

}  // namespace sluice::publish
