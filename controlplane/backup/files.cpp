// SPDX-License-Identifier: Apache-2.0
#include "controlplane/backup/files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace sluice::backup {
namespace {

tl::unexpected<std::string> failed(const std::string& path, const char* doing) {
  const int why = errno;
  return tl::unexpected{path + ": cannot be " + doing + ": " +
                        std::generic_category().message(why)};
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

result<void> make_directory(const std::string& path) {
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (!code && !std::filesystem::is_directory(path, code) && !code)
    code = std::make_error_code(std::errc::not_a_directory);
  if (code) return tl::unexpected{path + ": cannot be made: " + code.message()};
  return {};
}

result<file_descriptor> lock_directory(const std::string& path) {
  file_descriptor fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!fd) return failed(path, "opened");
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return failed(path, "locked");
    return tl::unexpected{path + ": another backup is being written there; try again"};
  }
  return fd;
}

result<void> write_durably(const std::string& path, std::string_view bytes) {
  const std::string draft = path + std::string{unfinished_suffix};
  const auto give_up = [&](const char* doing) {
    auto error = failed(path, doing);
    ::unlink(draft.c_str());
    return error;
  };
  const file_descriptor fd{
      ::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640)};
  if (!fd) return failed(path, "written");
  if (!write_all(fd.get(), bytes)) return give_up("written");
  if (::fsync(fd.get()) != 0) return give_up("written");
  // link() instead of rename(): what is there is never replaced.
  if (::link(draft.c_str(), path.c_str()) != 0) return give_up("written");
  ::unlink(draft.c_str());
  return {};
}

result<void> sync_directory(const std::string& path) {
  const file_descriptor fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!fd || ::fsync(fd.get()) != 0) return failed(path, "synced");
  return {};
}

result<void> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return failed(path, "removed");
  return {};
}

result<std::string> read_file(const std::string& path, std::uint64_t most_bytes) {
  const file_descriptor fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat st {};
  if (!fd || ::fstat(fd.get(), &st) != 0) return failed(path, "read");
  if (!S_ISREG(st.st_mode)) return tl::unexpected{path + ": is no file"};
  if (static_cast<std::uint64_t>(st.st_size) > most_bytes)
    return tl::unexpected{path + ": has " + std::to_string(st.st_size) +
                          " bytes; expected at most " + std::to_string(most_bytes)};
  std::string out(static_cast<std::size_t>(st.st_size), '\0');
  std::size_t have = 0;
  while (have < out.size()) {
    const auto n = ::read(fd.get(), out.data() + have, out.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(path, "read");
    if (n == 0) break;
    have += static_cast<std::size_t>(n);
  }
  out.resize(have);
  return out;
}

}  // namespace sluice::backup
