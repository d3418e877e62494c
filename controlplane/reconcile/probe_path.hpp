// SPDX-License-Identifier: Apache-2.0
// probe_path: health checks by the way that a service's packets take (docs/bpf.md, probe).
// Keeps a veth pair, the programs of bpf/probe.bpf.c, and what these know of each target:
// the VIP, the tunnel, the next hop as the tables have it.
//
// - Made when a service first wants it (open()), removed at the end. The names follow from the
//   runtime directory, so that what a killed process has left is replaced.
// - What is known of a target is looked at again when its route changes and every few seconds,
//   before a probe.
// - Where no port of ours that is an interface of the kernel leads to the backend, its target
//   is probed directly, unless it may not be.
//
// Threading: open() and path_for() any thread, the rest the loop's.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <unordered_map>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/bpf_loader/probe_program.hpp"
#include "controlplane/health/health_checker.hpp"
#include "controlplane/model/model.hpp"
#include "controlplane/neighbour/veth_pair.hpp"
#include "controlplane/reconcile/next_hops.hpp"
#include "controlplane/reconcile/probe_source.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::reconcile {

class probe_path {
 public:
  // Told of a target that is probed another way than before.
  using change_callback = std::function<void(const health::target&)>;

  probe_path(const node_config& node, change_callback on_change);
  ~probe_path();
  probe_path(const probe_path&) = delete;
  probe_path& operator=(const probe_path&) = delete;

  // wanted() tells whether a service of the state is to be probed through the data path.
  [[nodiscard]] static bool wanted(const model::desired_state& state) noexcept;
  // open() makes everything ready, once; empty, or why it cannot be had.
  std::string open();
  // path_for() is how the backend is to be probed; nothing: directly.
  [[nodiscard]] std::optional<health::data_path> path_for(const model::service& s,
                                                          const model::backend& b) const;

  // set_hops() before the first make_socket().
  void set_hops(const next_hops& hops) noexcept { hops_ = &hops; }
  // set_targets() forgets all others. vips: addresses that are no source of ours.
  void set_targets(const std::vector<health::wanted_target>& targets, std::set<ip_address> vips);
  // refresh() has the target looked at before its next probe.
  void refresh(const health::target& t);
  // make_socket() is the checker's socket_factory.
  [[nodiscard]] tl::expected<health::probe_socket, std::error_code> make_socket(
      const health::target& t);
  // through() tells which way the target was probed last; before that, which way it will be.
  [[nodiscard]] bool through(const health::target& t) const;
  // check() sees to it, now and then, that pair and filters are still there.
  void check();
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  using clock = std::chrono::steady_clock;
  struct slot {
    std::uint32_t mark{};
    std::optional<bool> direct;  // of the last probe
    bool known{false};           // `told` is in the map
    sluice_probe_target told{};
    clock::time_point looked{};  // epoch: look before the next probe
  };

  [[nodiscard]] std::string make();
  void mend(const std::string& fault);
  void forget();
  [[nodiscard]] bool look(const health::target& t, slot& s);
  [[nodiscard]] std::optional<sluice_probe_target> compose(const health::target& t);
  [[nodiscard]] bool listen_on(int ifindex);
  void look_at_host();
  [[nodiscard]] std::uint32_t next_mark();

  const node_config& node_;
  change_callback on_change_;
  const std::uint32_t id_;  // of the runtime directory
  neighbour::veth_settings settings_;
  const next_hops* hops_{nullptr};

  std::atomic<bool> open_{false};
  mutable std::mutex mutex_;                            // guards what open() writes: the next four
  std::unique_ptr<bpf_loader::probe_program> program_;  // open and none: to be mended
  neighbour::veth_pair pair_;
  std::string problem_;
  bool ports_told_{false};

  std::unordered_map<health::target, slot, health::target_hash> slots_;
  std::set<std::uint32_t> marks_;  // in use
  std::uint32_t last_mark_{0};
  std::set<ip_address> vips_;
  std::vector<host_address> host_;  // as of host_read_
  clock::time_point host_read_{};
  std::set<int> listening_;  // interfaces with our filter
  std::string filter_problem_;
  unsigned checks_{0};
};

}  // namespace sluice::reconcile
