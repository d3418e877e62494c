// SPDX-License-Identifier: Apache-2.0
// slot_writer: fills one slot of a config segment with a generation's rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/publish/config_segment.hpp"
#include "controlplane/publish/id_book.hpp"
#include "controlplane/publish/list_cache.hpp"
#include "controlplane/publish/published_state.hpp"
#include "controlplane/publish/table_cache.hpp"

namespace sluice::publish {

// service_lists: where a service's lists are; null: it has none.
struct service_lists {
  const placed_list* allow{nullptr};
  const placed_list* deny{nullptr};
};

struct slot_content {
  const published_state& state;
  const writer_settings& settings;
  const id_book& ids;
  const std::vector<const lookup_table*>& tables;  // one for each service; null: no members
  const std::vector<service_lists>& lists;         // one for each service
  std::uint64_t number;
  std::uint64_t base_instance;
  std::uint64_t flushes;
};

// check_state() refuses what the layout cannot hold or look up. Empty: fine.
[[nodiscard]] std::string check_state(const published_state& state,
                                      const abi::config_limits& limits);

// members_of() returns the backends that take new connections, as table members.
[[nodiscard]] std::vector<maglev::member> members_of(const published_service& service);

// state_digest() is equal on nodes that send every flow to the same backend.
[[nodiscard]] std::uint64_t state_digest(const published_state& state,
                                         const std::vector<const lookup_table*>& tables);

// write_slot() fills `slot`, which no reader uses. The state has passed check_state().
[[nodiscard]] tl::expected<void, std::string> write_slot(config_segment& segment, unsigned slot,
                                                         const slot_content& content);

}  // namespace sluice::publish
