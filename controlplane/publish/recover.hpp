// SPDX-License-Identifier: Apache-2.0
// recover(): reads the numbers and tables of a live segment's current generation back,
// after a restart of the control plane. Trusts nothing: every contradiction is an error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/lists/range_set.hpp"
#include "controlplane/publish/config_segment.hpp"
#include "controlplane/publish/id_book.hpp"
#include "controlplane/publish/table_cache.hpp"

namespace sluice::publish {

struct recovered_table {
  std::string service;
  table_key key;
  std::uint64_t offset{};
  std::uint64_t digest{};
};

struct recovered {
  std::uint64_t hash_seed{};
  std::uint64_t base_instance{};
  std::uint64_t flushes{};
  id_book::image ids;
  std::vector<recovered_table> tables;
  std::vector<abi::prefix_list> lists;
};

[[nodiscard]] tl::expected<recovered, std::string> recover(const config_segment& segment);

// recovered_health: what a generation shows of a backend's health.
struct recovered_health {
  std::string service;
  ip_address backend;
  bool up{};
};
// health_shown() returns the verdicts (up and down) of a generation.
[[nodiscard]] std::vector<recovered_health> health_shown(const abi::config_view& view);

// lists_shown() returns the allow and deny list that the current generation has for a service.
// Null: none, or damaged.
struct shown_lists {
  lists::shared_ranges allow, deny;
};
[[nodiscard]] shown_lists lists_shown(const config_segment& segment, std::string_view service);

// service_name() returns a service's name, whatever its bytes are.
[[nodiscard]] std::string service_name(const abi::service_cold& cold);

}  // namespace sluice::publish
