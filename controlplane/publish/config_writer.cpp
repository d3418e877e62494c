// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/config_writer.hpp"

#include <map>
#include <utility>

#include "controlplane/publish/recover.hpp"
#include "controlplane/publish/slot_writer.hpp"
#include "controlplane/schedule/schedule.hpp"
#include "dataplane/abi/generation.hpp"

namespace sluice::publish {

config_writer::config_writer(config_segment segment, const writer_settings& settings,
                             std::shared_ptr<reader_watch> watch)
    : segment_{std::move(segment)},
      settings_{settings},
      watch_{std::move(watch)},
      ids_{segment_.limits().services, segment_.limits().backends, segment_.instance()},
      tables_{segment_, settings.hash_seed},
      lists_{segment_, tables_.space()} {}

std::unique_ptr<config_writer> config_writer::fresh(config_segment segment,
                                                    const writer_settings& settings,
                                                    std::shared_ptr<reader_watch> watch) {
  return std::unique_ptr<config_writer>{
      new config_writer{std::move(segment), settings, std::move(watch)}};
}

tl::expected<std::unique_ptr<config_writer>, std::string> config_writer::attach(
    config_segment segment, const writer_settings& settings, std::shared_ptr<reader_watch> watch) {
  const abi::generation_word word{segment.control().current.load(std::memory_order_acquire)};
  if (word.none()) return fresh(std::move(segment), settings, std::move(watch));
  auto found = recover(segment);
  if (!found) return tl::unexpected{found.error()};
  auto writer = fresh(std::move(segment), settings, std::move(watch));
  writer->number_ = word.number();
  writer->current_slot_ = word.slot();
  for (unsigned i = 0; i < abi::config_slots; ++i)
    writer->held_[i] = i == word.slot() ? word.number() : word.number() - 1;
  writer->base_instance_ = found->base_instance;
  writer->flushes_ = found->flushes;
  for (auto& t : found->tables)
    if (!writer->tables_.adopt(std::move(t.key), t.offset, t.digest, word.number(),
                               found->hash_seed == settings.hash_seed))
      return tl::unexpected{"service " + t.service + ": its lookup table is damaged"};
  for (std::size_t i = 0; i < found->lists.size(); ++i)
    if (!writer->lists_.adopt(found->lists[i], word.number()))
      return tl::unexpected{"list " + std::to_string(i) + " is damaged"};
  if (!writer->ids_.restore(std::move(found->ids)))
    return tl::unexpected<std::string>{"row numbers are given out twice or out of bounds"};
  return writer;
}

tl::expected<std::unique_ptr<config_writer>, std::string> config_writer::replace(
    const config_segment& old, config_segment segment, const writer_settings& settings,
    std::shared_ptr<reader_watch> watch) {
  if (abi::generation_word{old.control().current.load(std::memory_order_acquire)}.none())
    return fresh(std::move(segment), settings, std::move(watch));
  auto found = recover(old);
  if (!found) return tl::unexpected{found.error()};
  auto writer = fresh(std::move(segment), settings, std::move(watch));
  writer->base_instance_ = found->base_instance;
  writer->flushes_ = found->flushes;
  if (!writer->ids_.restore(std::move(found->ids)))
    return tl::unexpected<std::string>{"the rows in use do not fit the new limits"};
  return writer;
}

bool config_writer::flush(const std::string& service) {
  if (!ids_.renew(service)) return false;
  ++flushes_;
  return true;
}

bool config_writer::find_slot(unsigned& slot) {
  bool found = false;
  for (unsigned i = 0; i < abi::config_slots; ++i) {
    if (number_ != 0 && i == current_slot_) continue;
    if (!found || held_[i] < held_[slot]) slot = i;
    found = true;
  }
  return held_[slot] == 0 || watch_->quiescent(held_[slot] + 1);
}

std::string config_writer::check(const published_state& state) const {
  if (std::string error = check_state(state, segment_.limits()); !error.empty()) return error;
  // A third of the arena: the generation before and the one before that may still be read.
  // Services with the same backends share a table as long as they agree on their health:
  // counted on, that would leave no room for the verdict that tells them apart.
  const auto rounded = [](std::uint64_t bytes) {
    return (bytes + arena::alignment - 1) / arena::alignment * arena::alignment;
  };
  std::uint64_t bytes = 0;
  std::map<std::uint64_t, std::uint64_t> lists;  // digest -> bytes
  for (const auto& s : state.services) {
    if (!s.backends.empty())
      bytes += rounded(abi::table_bytes(
          schedule::largest_table(s.kind, s.backends.size(), s.table_size), s.backends.size()));
    for (const auto& list : {s.allow, s.deny})
      if (list) lists.emplace(list->digest(), rounded(list->bytes()));
  }
  for (const auto& [digest, size] : lists) bytes += size;
  const std::uint64_t limit = segment_.layout().arena_bytes / 3;
  if (bytes > limit)
    return "the lookup tables and lists need " + std::to_string((bytes + (1u << 20) - 1) >> 20) +
           " MiB, this node's limit is " + std::to_string(limit >> 20) +
           " MiB (controlplane.limits.table-memory)";
  return {};
}

bool config_writer::collect() {
  give_back();
  return !has_garbage();
}

void config_writer::give_back() {
  tables_.collect(number_, *watch_);
  lists_.collect(number_, *watch_);
}

bool config_writer::has_garbage() const noexcept {
  return tables_.has_garbage(number_) || lists_.has_garbage(number_);
}

publish_result config_writer::publish(const published_state& state) {
  const auto begin = std::chrono::steady_clock::now();
  publish_result result;
  const auto answer = [&](publish_status status, std::string text) {
    result.status = status;
    result.error = std::move(text);
    result.took = std::chrono::steady_clock::now() - begin;
    return result;
  };
  if (std::string error = check_state(state, segment_.limits()); !error.empty())
    return answer(publish_status::refused, std::move(error));
  unsigned slot = 0;
  if (!find_slot(slot))
    return answer(publish_status::pending, "a worker still uses an older generation");
  give_back();

  const auto failed = [&](const auto& e) {
    using failure = decltype(e.what);
    const bool later = e.what == failure::full && has_garbage();
    return answer(later ? publish_status::pending : publish_status::refused, e.text);
  };
  std::vector<lookup_table*> tables(state.services.size());
  std::vector<service_lists> lists(state.services.size());
  std::vector<placed_list*> used;
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const published_service& s = state.services[i];
    for (const auto& [content, place] :
         {std::pair{&s.allow, &lists[i].allow}, {&s.deny, &lists[i].deny}}) {
      if (!*content) continue;
      const auto list = lists_.want(*content);
      if (!list) return failed(list.error());
      *place = *list;
      used.push_back(*list);
    }
    table_key key{schedule::table_kind(s.kind), 0, members_of(s)};
    if (key.members.empty()) continue;
    key.size = schedule::table_size(s.kind, key.members, s.table_size);
    auto table = tables_.want(std::move(key));
    if (!table) return failed(table.error());
    tables[i] = *table;
  }
  auto built = tables_.build();
  if (!built) return failed(built.error());
  result.tables_built = *built;

  if (const std::uint64_t instance = watch_->instance();
      instance != 0 && instance != base_instance_) {
    // The data plane has begun to count anew (or for the first time).
    ids_.forget_bases();
    base_instance_ = instance;
  }
  ids_.update(state, *watch_);
  const std::uint64_t number = number_ + 1;
  const std::vector<const lookup_table*> shown(tables.begin(), tables.end());
  held_[slot] = 0;  // half-written from here on, and nobody reads it
  if (auto written = write_slot(
          segment_, slot, {state, settings_, ids_, shown, lists, number, base_instance_, flushes_});
      !written)
    return answer(publish_status::refused, written.error());

  for (lookup_table* t : tables)
    if (t != nullptr) t->last_generation = number;
  for (placed_list* l : used) l->last_generation = number;
  abi::generation_writer<>::publish(segment_.control().current,
                                    abi::generation_word::make(number, slot));
  number_ = number;
  current_slot_ = slot;
  held_[slot] = number;
  result.generation = number;
  return answer(publish_status::published, {});
}

}  // namespace sluice::publish
