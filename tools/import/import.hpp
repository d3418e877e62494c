// SPDX-License-Identifier: Apache-2.0
// What other balancers were configured by, as a desired state: keepalived.conf and the lines of
// `ipvsadm -Sn`. What cannot be carried over is told, line by line; nothing is left out in
// silence. Pure: no file is read here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/model/model.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::importing {

// imported: a state that `sluice check` takes, and what is not in it. A note's message says
// what was there and why it is not carried over, or not as it was.
struct imported {
  model::desired_state state;
  std::vector<config_error> notes;  // by line
};

// An error: the text cannot be understood, or there is no service in it.
using result = tl::expected<imported, config_error>;

// file_name is for notes and errors.
[[nodiscard]] result from_keepalived(std::string_view text, std::string_view file_name);
[[nodiscard]] result from_ipvsadm(std::string_view text, std::string_view file_name);

}  // namespace sluice::importing
