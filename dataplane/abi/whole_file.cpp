// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/whole_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <vector>

#include "dataplane/abi/file_descriptor.hpp"

namespace sluice {

tl::expected<std::string, std::string> read_whole_file(const std::string& path,
                                                       std::size_t most_bytes,
                                                       file_kinds accepted) {
  const auto failed = [](const char* what) {
    return tl::unexpected{std::string{what} + std::generic_category().message(errno)};
  };
  const auto too_large = [most_bytes] {
    return tl::unexpected{"is larger than " + std::to_string(most_bytes >> 20) + " MiB"};
  };
  const bool regular = accepted == file_kinds::regular;
  // O_NONBLOCK: opening a FIFO that nobody writes to would wait.
  const file_descriptor file{
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (regular ? O_NONBLOCK : 0))};
  if (!file) return failed("cannot be opened: ");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return failed("cannot be read: ");
  if (regular && !S_ISREG(status.st_mode)) return tl::unexpected<std::string>{"is no regular file"};
  if (S_ISDIR(status.st_mode))
    return tl::unexpected<std::string>{"is a directory; expected a file"};
  const auto size = static_cast<std::size_t>(std::max<off_t>(status.st_size, 0));
  if (size > most_bytes) return too_large();
  std::string text;
  text.reserve(size + 1);
  std::vector<char> buffer(std::clamp<std::size_t>(size + 1, 64u << 10, 1u << 20));
  while (true) {
    const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("cannot be read: ");
    if (n == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(n));
    if (text.size() > most_bytes) return too_large();
  }
}

}  // namespace sluice
