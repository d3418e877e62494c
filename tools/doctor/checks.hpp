// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tools/doctor/doctor.hpp"
#include "tools/doctor/host_files.hpp"

namespace sluice::doctor {

// examination: what the checks look at, and where they write.
struct examination {
  const host_files& files;
  const node_config* node;
  const model::desired_state* state;
  std::vector<finding>& findings;

  void add(level l, std::string check, std::string subject, std::string seen,
           std::string right) const {
    findings.push_back(
        {l, std::move(check), std::move(subject), std::move(seen), std::move(right)});
  }
};

// check_ports() looks at the devices of node.yaml; without one, at nothing.
void check_ports(const examination& e);

}  // namespace sluice::doctor
