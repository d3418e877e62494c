// SPDX-License-Identifier: Apache-2.0
// steering: keeps what the XDP program of every af_xdp port knows as the published
// tables are. The program comes with a data plane and its set starts empty, so it is looked at
// often (check()). The loop's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/bpf_loader/standin_writer.hpp"
#include "controlplane/bpf_loader/steer_maps.hpp"
#include "controlplane/model/model.hpp"
#include "dataplane/abi/node_file.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::reconcile {

// xdp_counters: what the XDP program of a port has counted; nothing: there is none, or it
// cannot be read. They go on when a data plane is restarted.
struct xdp_counters {
  std::string port;
  std::optional<bpf_loader::steer_counters> counted;
};
// read_xdp_counters() asks the kernel for those of every af_xdp port. Any thread.
[[nodiscard]] std::vector<xdp_counters> read_xdp_counters(const node_config& node);

class steering {
 public:
  explicit steering(const node_config& node);

  // set() takes what the ports shall steer from now on, and tells them.
  void set(const abi::config_view& view);
  // check() tells those whose program is new, or could not be told before, and brings the
  // stand-ins up to date with the generation that set() was last given. `view` is the
  // current one; before the first set() it is what an earlier control plane has published,
  // which goes on. Nothing is told, or taken away, while nothing is published.
  void check(const abi::config_view& view);
  // refusal() says why the programs could not be told of a state. Empty: they could.
  [[nodiscard]] std::string refusal(const model::desired_state& state) const;
  // problems() says which ports could not be told, and why. A port without a data plane
  // is no problem.
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  struct port {
    std::string name;
    bpf_loader::steer_maps maps;
    std::uint32_t program{0};  // that has the set; 0: none
    std::string problem;
    std::uint32_t standin_program{0};     // that has the tables; 0: none
    std::uint64_t standin_generation{0};  // the tables that it has
    bool standin_keeps{false};            // and some slots from before that
    std::string standin_problem;
  };
  void tell(port& p, std::uint32_t program);
  void tell_standin(port& p, std::uint32_t program, const abi::config_view& view, bool keep);
  // standin_step: what is to be done about tables that a stand-in has not.
  enum class standin_step : std::uint8_t { wait, keep, write };
  [[nodiscard]] standin_step next_step(const port& p, std::uint64_t number);
  [[nodiscard]] bool read_interfaces();

  std::vector<port> ports_;
  std::vector<ip_address> pool_;  // full-nat's sources
  bool given_{false};             // contents_, by set()
  bpf_loader::steer_contents contents_;
  bpf_loader::standin_writer writer_;
  std::vector<std::string> interfaces_;  // by port number; "": none
  std::vector<bpf_loader::standin_port> interface_rows_;
  bpf_loader::standin_contents standin_;
  std::uint64_t standin_generation_{0};                  // of standin_
  std::chrono::steady_clock::time_point standin_since_;  // that there is this one
  // A data plane, last; a control plane that starts takes it that there was one just now.
  std::chrono::steady_clock::time_point seen_{std::chrono::steady_clock::now()};
  unsigned checks_{0};
};

}  // namespace sluice::reconcile
