// SPDX-License-Identifier: Apache-2.0
// Where the compiled BPF programs are. std only: both planes use it.
#pragma once

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace sluice {

// find_bpf_object("steer") returns the absolute path of steer.bpf.o, or an empty path
// when it is nowhere. Looked for in this order:
//   $SLUICE_BPF_DIR            when set, only there: a wrong setting shall not be papered over
//   <executable>/../bpf        the build tree: build/dataplane/sluice-dataplane -> build/bpf
//   <executable>/../lib/sluice/bpf, then /usr/lib/sluice/bpf   installed
// Any thread; reads the environment and the file system.
[[nodiscard]] inline std::filesystem::path find_bpf_object(std::string_view name) {
  namespace fs = std::filesystem;
  const std::string file = std::string{name} + ".bpf.o";
  const auto in = [&file](const fs::path& directory) -> fs::path {
    std::error_code error;
    const fs::path path = fs::weakly_canonical(directory / file, error);
    return !error && fs::is_regular_file(path, error) ? path : fs::path{};
  };
  if (const char* directory = std::getenv("SLUICE_BPF_DIR"); directory && *directory)
    return in(directory);
  std::error_code error;
  const fs::path executable = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    const fs::path parent = executable.parent_path().parent_path();
    for (const char* directory : std::array{"bpf", "lib/sluice/bpf"})
      if (fs::path found = in(parent / directory); !found.empty()) return found;
  }
  return in("/usr/lib/sluice/bpf");
}

}  // namespace sluice
