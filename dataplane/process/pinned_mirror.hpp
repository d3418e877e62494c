// SPDX-License-Identifier: Apache-2.0
// pinned_mirror: tells the stand-in of the connections that are not where its hash would put
// them, so that they stay where they are while there is no data plane. A thread of its own
// goes through the connection tables again and again: at once when new tables are published
// (that is when connections part from the hash), otherwise ten times a second, with pauses.
//
// The tables of a generation reach the stand-in only after a round has told it of all that they
// would move (SLUICE_TOLD_GENERATION), and what the tables before would move is not forgotten until
// then: whenever this process dies, what the stand-in has goes together.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/process/pinned_flows.hpp"

namespace sluice {

class pinned_mirror {
 public:
  // maps: descriptors of BPF maps (dataplane/abi/standin_abi.h), which outlive the object.
  struct maps {
    int pinned;
    int heartbeat;
    int config;
  };
  // tables: the workers'.
  // current: the current generation; called with `tables_mutex` held, which whoever unmaps
  // a config segment holds as well.
  pinned_mirror(const maps& to, std::vector<abi::connection_reader> tables,
                std::function<abi::config_view()> current, std::mutex& tables_mutex);
  ~pinned_mirror();  // after a last round
  pinned_mirror(const pinned_mirror&) = delete;
  pinned_mirror& operator=(const pinned_mirror&) = delete;

 private:
  struct flow_hasher {
    std::size_t operator()(const sluice_flow& f) const noexcept {
      return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&f), sizeof f});
    }
  };
  struct flow_equal {
    bool operator()(const sluice_flow& a, const sluice_flow& b) const noexcept {
      return std::memcmp(&a, &b, sizeof a) == 0;
    }
  };
  struct told {
    std::uint32_t backend;
    std::uint64_t round;  // that saw it last
  };

  void run();
  void go_round(bool hurry);
  void tell(const sluice_flow& flow, abi::backend_ref backend);
  [[nodiscard]] bool standin_has(std::uint64_t generation) const;
  void forget_the_rest();
  void read_map();

  maps maps_;
  std::vector<abi::connection_reader> tables_;
  std::function<abi::config_view()> current_;
  std::mutex& tables_mutex_;
  std::unordered_map<sluice_flow, told, flow_hasher, flow_equal> told_;
  std::uint64_t round_{0};
  std::uint64_t generation_{0};  // that the last round began with
  std::chrono::steady_clock::time_point generation_since_;
  std::uint64_t told_generation_{0};  // SLUICE_TOLD_GENERATION
  bool said_full_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace sluice
