// SPDX-License-Identifier: Apache-2.0
// Small files of /sys and /proc, below a root that tests choose.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/abi/net_types.hpp"

namespace sluice::doctor {

class host_files {
 public:
  explicit host_files(std::string root);

  // text() is a file's content without the white space at its end; nothing: it cannot be read.
  [[nodiscard]] std::optional<std::string> text(const std::string& path) const;
  [[nodiscard]] std::optional<long> number(const std::string& path) const;
  // names() are what a directory holds, sorted.
  [[nodiscard]] std::vector<std::string> names(const std::string& path) const;
  [[nodiscard]] bool exists(const std::string& path) const;
  // link() is the last part of what a symbolic link names.
  [[nodiscard]] std::optional<std::string> link(const std::string& path) const;
  // cpus() reads the kernel's form of a list, "0-3,8".
  [[nodiscard]] std::set<unsigned> cpus(const std::string& path) const;
  // local_addresses() are those of the host's interfaces (/proc/net/fib_trie, if_inet6).
  [[nodiscard]] std::set<ip_address> local_addresses() const;

 private:
  std::string root_;
};

[[nodiscard]] std::set<unsigned> parse_cpus(std::string_view text);
[[nodiscard]] std::string format_cpus(const std::set<unsigned>& cpus);

}  // namespace sluice::doctor
