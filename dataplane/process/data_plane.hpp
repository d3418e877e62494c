// SPDX-License-Identifier: Apache-2.0
// The data plane as a whole: plan, start, run, stop. Main thread.
#pragma once

#include <csignal>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/node_file.hpp"
#include "dataplane/abi/worker_state.hpp"
#include "dataplane/connection/table_file.hpp"
#include "dataplane/path/flow_owner.hpp"
#include "dataplane/path/nat_file.hpp"
#include "dataplane/placement/plan.hpp"
#include "dataplane/port/device_args.hpp"
#include "dataplane/port/port.hpp"
#include "dataplane/port/xdp_program.hpp"
#include "dataplane/process/capture_writer.hpp"
#include "dataplane/process/config_link.hpp"
#include "dataplane/process/memory.hpp"
#include "dataplane/process/pinned_mirror.hpp"
#include "dataplane/worker/worker.hpp"

namespace sluice {

// start_plan: everything that can be decided before DPDK runs.
struct start_plan {
  std::vector<device_plan> devices;
  placement::topology machine;
  placement::worker_plan places;
  memory_plan memory;
};

// make_plan() refuses what cannot work. change: may raise the number of hugepages.
[[nodiscard]] tl::expected<start_plan, std::string> make_plan(const node_config& node, bool change);
// describe() is the plan in words, one fact per line.
[[nodiscard]] std::vector<std::string> describe(const node_config& node, const start_plan& plan);

// remove_leftovers() removes what an earlier data plane left for its successor. The caller
// holds the node's lock.
[[nodiscard]] tl::expected<void, std::string> remove_leftovers(const node_config& node);

class data_plane {
 public:
  // start() opens the ports and launches the workers. node and plan outlive the object.
  static tl::expected<std::unique_ptr<data_plane>, std::string> start(const node_config& node,
                                                                      start_plan& plan);
  data_plane(const data_plane&) = delete;
  data_plane& operator=(const data_plane&) = delete;
  // Stops the workers, closes the ports, removes files (but for leave_to_successor()),
  // gives DPDK's resources back.
  ~data_plane();

  // run() is the housekeeping thread's loop; it returns the signal of `until` that came.
  // They are blocked in all threads.
  int run(const sigset_t& until);

  // leave_to_successor() has the end leave what the next data plane takes over: connection
  // tables, NAT sessions, and the XDP programs, which go on forwarding meanwhile.
  void leave_to_successor(bool yes) noexcept { leave_ = yes; }

  // summary() is one line: ports, workers, memory.
  [[nodiscard]] std::string summary() const;

 private:
  data_plane(const node_config& node, start_plan& plan);

  tl::expected<void, std::string> open();
  tl::expected<void, std::string> open_ports();
  tl::expected<unsigned, std::string> settle_workers();
  tl::expected<void, std::string> start_ports();
  tl::expected<void, std::string> make_peers();
  tl::expected<void, std::string> make_tables();
  tl::expected<void, std::string> make_nat_tables();
  void grow_nat_tables();
  void count_adopted(unsigned worker, const abi::observation_map<std::byte>& map) const;
  tl::expected<void, std::string> make_observations();
  tl::expected<void, std::string> look_for_tables();
  tl::expected<void, std::string> launch_workers();
  tl::expected<void, std::string> attach_programs();
  void beat();
  void hand_to_standin() noexcept;
  void tick(std::uint64_t now_ns);
  void watch_workers(std::uint64_t now_ns);
  void close() noexcept;

  const node_config& node_;
  start_plan& plan_;
  config_link config_;
  bool eal_{false};
  bool launched_{false};
  bool leave_{false};
  std::vector<xdp_left> leftovers_;                   // by port number
  std::vector<std::optional<xdp_program>> programs_;  // by port number
  std::vector<port> ports_;
  std::unique_ptr<twin_pump> pump_;            // null: no port has a twin
  std::vector<std::vector<rte_ring*>> peers_;  // [from][to]; null: the same worker
  std::unique_ptr<flow_owner> owner_;
  std::vector<connection::table_file> tables_;
  std::vector<nat_file> nat_files_;                     // by worker
  std::vector<std::unique_ptr<nat_table>> nat_tables_;  // by worker, in nat_files_
  bool nat_short_{false};                               // reported: no memory for more
  std::unique_ptr<persistence_table> persistence_;      // all workers'
  abi::mapped_file segment_;
  abi::observation_map<std::byte> observations_;
  std::mutex config_mutex_;  // config_ is polled, or read by pinned_
  std::optional<pinned_mirror> pinned_;
  std::vector<std::unique_ptr<worker>> workers_;
  capture_writer captures_;
  std::vector<bool> late_;  // by worker: reported as stuck
  std::uint64_t refused_generations_{0};
  std::uint64_t next_statistics_ns_{0};
  std::uint64_t watchdog_every_ns_{0};
  std::uint64_t next_watchdog_ns_{0};
};

}  // namespace sluice
