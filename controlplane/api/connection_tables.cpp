// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/connection_tables.hpp"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

namespace sluice::api {
namespace {

std::string word(abi::connection_reader::status s) {
  using status = abi::connection_reader::status;
  switch (s) {
    case status::ok:
      return "ok";
    case status::too_small:
      return "is too small";
    case status::not_a_table:
      return "is no connection table";
    case status::other_version:
      return "has another layout version";
    case status::bad_layout:
      break;
  }
  return "has an impossible layout";
}

abi::mapped_file map_file(const std::string& path, std::string& error) {
  const auto fail = [&](const char* what) {
    error = path + ": " + what + ": " + std::generic_category().message(errno);
    return abi::mapped_file{};
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail("cannot open");
  struct stat st {};
  void* p = MAP_FAILED;
  if (::fstat(fd, &st) == 0 && st.st_size > 0)
    p = ::mmap(nullptr, static_cast<std::size_t>(st.st_size), PROT_READ, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) {
    ::close(fd);
    return fail("cannot map");
  }
  return {static_cast<std::byte*>(p), static_cast<std::size_t>(st.st_size), fd, st.st_ino};
}

}  // namespace

connection_tables connection_tables::open(const publish::observations& data_plane) {
  connection_tables out;
  for (std::uint32_t i = 0; i < data_plane.workers(); ++i) {
    const auto& chars = data_plane.map().worker(i).connection_path;
    const std::string path{chars.begin(), std::find(chars.begin(), chars.end(), '\0')};
    if (path.empty()) continue;
    table t;
    t.worker = i;
    std::string error;
    t.file = map_file(path, error);
    if (t.file) {
      const auto status = abi::connection_reader::open(t.file.data(), t.file.size(), t.reader);
      if (status != abi::connection_reader::status::ok) error = path + ": " + word(status);
    }
    if (error.empty()) {
      out.tables_.push_back(std::move(t));
    } else {
      out.problems_.push_back(std::move(error));
    }
  }
  return out;
}

}  // namespace sluice::api
