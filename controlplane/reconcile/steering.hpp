// SPDX-License-Identifier: Apache-2.0
// steering: keeps what the XDP program of every af_xdp port knows as the published
// tables are. The program comes with a data plane and its set starts empty, so it is looked at
// often (check()). The loop's thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "controlplane/bpf_loader/steer_maps.hpp"
#include "dataplane/abi/node_file.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::reconcile {

class steering {
 public:
  explicit steering(const node_config& node);

  // set() takes what the ports shall steer from now on, and tells them.
  void set(const abi::config_view& view);
  // check() tells those whose program is new, or could not be told before.
  void check();
  // problems() says which ports could not be told, and why. A port without a data plane
  // is no problem.
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  struct port {
    std::string name;
    bpf_loader::steer_maps maps;
    std::uint32_t program{0};  // that has the set; 0: none
    std::string problem;
  };
  void tell(port& p, std::uint32_t program);

  std::vector<port> ports_;
  bpf_loader::steer_contents contents_;
};

}  // namespace sluice::reconcile
