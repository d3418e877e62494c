// SPDX-License-Identifier: Apache-2.0
// config_writer: publishes generations of tables into a config segment.
//
// publish() builds the next generation in a slot that no reader uses and makes it
// current (dataplane/abi/generation.hpp). It never waits: while workers are stuck in old
// generations it answers `pending`, and the caller tries again with its newest state.
// What was refused or is pending has changed nothing that a reader sees.
//
// One thread.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <tl/expected.hpp>

#include "controlplane/publish/config_segment.hpp"
#include "controlplane/publish/id_book.hpp"
#include "controlplane/publish/list_cache.hpp"
#include "controlplane/publish/published_state.hpp"
#include "controlplane/publish/reader_watch.hpp"
#include "controlplane/publish/table_cache.hpp"

namespace sluice::publish {

enum class publish_status : std::uint8_t { published, pending, refused };

struct publish_result {
  publish_status status{publish_status::refused};
  std::string error;           // of pending and refused, in words
  std::uint64_t generation{};  // of published
  std::size_t tables_built{};
  std::chrono::nanoseconds took{};
};

class config_writer {
 public:
  // fresh() writes into a segment that nobody has read yet.
  [[nodiscard]] static std::unique_ptr<config_writer> fresh(config_segment segment,
                                                            const writer_settings& settings,
                                                            std::shared_ptr<reader_watch> watch);
  // attach() goes on with a live segment: all numbers, tables and counter bases are taken
  // over from its current generation. The error says what is damaged.
  [[nodiscard]] static tl::expected<std::unique_ptr<config_writer>, std::string> attach(
      config_segment segment, const writer_settings& settings, std::shared_ptr<reader_watch> watch);
  // replace() is fresh() with the numbers of `old`, which is read only: for a segment
  // whose limits changed. Connections keep their backends.
  [[nodiscard]] static tl::expected<std::unique_ptr<config_writer>, std::string> replace(
      const config_segment& old, config_segment segment, const writer_settings& settings,
      std::shared_ptr<reader_watch> watch);

  config_writer(const config_writer&) = delete;
  config_writer& operator=(const config_writer&) = delete;

  [[nodiscard]] publish_result publish(const published_state& state);
  // flush() has the next generation forget a service's connections: its backends get other names,
  // and the workers are told to look for what names nobody. Not more than 8 times in 25 s for one
  // service: there are 16 names, and the workers need some time. False: no such service.
  bool flush(const std::string& service);
  // check() tells why publish() would refuse a state that has every table anew. Empty: it
  // would not.
  [[nodiscard]] std::string check(const published_state& state) const;
  // collect() gives back tables that became unused since; false: some may be later.
  bool collect();

  // view() is the current generation, as the workers see it.
  [[nodiscard]] abi::config_view view() const noexcept { return segment_.view(); }
  [[nodiscard]] const config_segment& segment() const noexcept { return segment_; }
  [[nodiscard]] std::uint64_t generation() const noexcept { return number_; }
  [[nodiscard]] std::uint64_t table_bytes() const noexcept { return tables_.bytes_used(); }
  // ids() tells which rows services and backends have, and what was counted there before.
  [[nodiscard]] const id_book& ids() const noexcept { return ids_; }
  // release() gives the segment away; this object only remains to be destroyed.
  [[nodiscard]] config_segment release() && noexcept { return std::move(segment_); }
  // base_instance() names the counters that the published bases refer to.
  [[nodiscard]] std::uint64_t base_instance() const noexcept { return base_instance_; }

 private:
  config_writer(config_segment segment, const writer_settings& settings,
                std::shared_ptr<reader_watch> watch);
  [[nodiscard]] bool find_slot(unsigned& slot);
  void give_back();
  [[nodiscard]] bool has_garbage() const noexcept;

  config_segment segment_;
  writer_settings settings_;
  std::shared_ptr<reader_watch> watch_;
  id_book ids_;
  table_cache tables_;
  list_cache lists_;
  std::uint64_t number_{0};  // of the current generation; 0: none
  unsigned current_slot_{0};
  // The number of the generation that each slot holds; 0: none. After attach() a guess
  // that is on the safe side.
  std::array<std::uint64_t, abi::config_slots> held_{};
  std::uint64_t base_instance_{0};
  std::uint64_t flushes_{0};  // generation_header::flushes
};

}  // namespace sluice::publish
