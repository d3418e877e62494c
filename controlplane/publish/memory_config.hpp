// SPDX-License-Identifier: Apache-2.0
// make_config(): a config segment in plain memory with one published generation in which
// every backend is healthy: for `sluice replay`, tests and fuzzing. Any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <tl/expected.hpp>

#include "controlplane/model/model.hpp"
#include "controlplane/publish/config_segment.hpp"
#include "controlplane/publish/published_state.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::publish {

// The way to a backend; nothing: not known (packets to it are dropped as no_next_hop).
using hop_finder = std::function<std::optional<hop>(const ip_address& backend)>;

// The content of an allow or deny list; null: the set is not given.
using list_finder = std::function<lists::shared_ranges(const model::prefix_set& set)>;

struct memory_config_options {
  writer_settings settings;
  hop_finder find_hop;  // empty: every backend is behind port 0, MAC 02:00:00:00:00:fe
  std::uint64_t revision{1};
  std::uint16_t workers{1};  // that share the rates
  list_finder find_list;     // empty: files are read
};

// workers_of() is the number of workers that node.yaml asks for; 0: as the machine allows.
[[nodiscard]] std::uint16_t workers_of(const node_config& node);

// options_of() takes hash seed, outer sources and next hops from node.yaml. The next hop
// is that of the first port that has one configured; without any, the default above.
[[nodiscard]] memory_config_options options_of(const node_config& node);

// make_config() sizes the segment for the state. data() and limits() of the result are
// what a data plane attaches to.
[[nodiscard]] tl::expected<config_segment, std::string> make_config(
    const model::desired_state& state, const memory_config_options& options = {});

// all_healthy() is the state that make_config() publishes; without find_list, without lists.
[[nodiscard]] published_state all_healthy(const model::desired_state& state,
                                          const memory_config_options& options);

}  // namespace sluice::publish
