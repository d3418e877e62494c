// SPDX-License-Identifier: Apache-2.0
// What other balancers were configured by, as a desired state: keepalived.conf and the lines of
// `ipvsadm -Sn`. What cannot be carried over is told, line by line; nothing is left out in
// silence. Pure but for local_files(): files that are included are read by who asks.
#pragma once

#include <functional>
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

struct source_file {
  std::string name;      // as notes and errors say it
  std::string identity;  // the same for one file, however it was named
  std::string text;
};
// include_reader finds the files that an include statement names, in their order; the error says
// why there are none. `from` is the name of the file that has the statement.
using include_reader = std::function<tl::expected<std::vector<source_file>, std::string>(
    const std::string& pattern, const std::string& from)>;
// local_files() is those of this machine: relative to the directory of the file that includes them,
// with wildcards, as keepalived takes them.
[[nodiscard]] tl::expected<std::vector<source_file>, std::string> local_files(
    const std::string& pattern, const std::string& from);

// file_name is for notes and errors. Without an include_reader other files are not read, and noted.
[[nodiscard]] result from_keepalived(std::string_view text, std::string_view file_name,
                                     const include_reader& include = {});
[[nodiscard]] result from_ipvsadm(std::string_view text, std::string_view file_name);

}  // namespace sluice::importing
