// SPDX-License-Identifier: Apache-2.0
// Files that a keepalived.conf includes, as keepalived finds them (keepalived.conf(5), "INCLUDE").
#include <glob.h>

#include <filesystem>
#include <system_error>

#include "dataplane/abi/whole_file.hpp"
#include "dataplane/abi/yaml_reader.hpp"
#include "tools/import/import.hpp"

namespace sluice::importing {

tl::expected<std::vector<source_file>, std::string> local_files(const std::string& pattern,
                                                                const std::string& from) {
  namespace fs = std::filesystem;
  const fs::path all = fs::path{from}.parent_path() / pattern;  // `pattern`, if that is absolute
  glob_t found{};
  const int code = ::glob(all.c_str(), GLOB_BRACE, nullptr, &found);
  std::vector<std::string> names;
  if (code == 0) names.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (code == GLOB_NOMATCH || names.empty())
    return tl::unexpected{std::string{"there is no such file"}};
  std::vector<source_file> out;
  for (const std::string& name : names) {
    std::error_code none;
    if (fs::is_directory(name, none)) continue;  // keepalived leaves them out, too
    auto text = read_whole_file(name, yaml::max_bytes, file_kinds::regular);
    if (!text) return tl::unexpected{name + ": " + text.error()};
    const fs::path real = fs::canonical(name, none);
    out.push_back({name, none ? name : real.string(), std::move(*text)});
  }
  if (out.empty()) return tl::unexpected{std::string{"there is no such file"}};
  return out;
}

}  // namespace sluice::importing
