// SPDX-License-Identifier: Apache-2.0
// lint: cold file: start-up and housekeeping only
#include "dataplane/path/nat_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dataplane/abi/fnv.hpp"
#include "dataplane/abi/huge_pages.hpp"

namespace sluice {

namespace {

constexpr std::uint64_t sessions_at = 4096;  // bytes from the file's start
constexpr std::uint64_t unit = 4096;         // that memory comes in, at the least
constexpr std::uint64_t per_unit = unit / sizeof(nat_session);
// Ahead of what is used: before the first session, and once there is one. The latter lasts for
// 1.3 million new sessions per second.
constexpr std::uint32_t idle_ahead = 2048;
constexpr std::uint32_t busy_ahead = 65536;

std::string failure(const std::string& what, const std::string& where, int error) {
  return "NAT sessions: " + what + " " + where + ": " + std::generic_category().message(error);
}

std::uint64_t size_of(std::uint32_t sessions) noexcept {
  const std::uint64_t units = (sessions + per_unit - 1) / per_unit;
  return sessions_at + units * unit;
}

std::uint64_t offset_of(std::uint64_t session) noexcept {
  return sessions_at + session * sizeof(nat_session);
}

std::string mismatch(const nat_file_header& h, const nat_file_options& options) {
  const auto differ = [](const char* what, std::uint64_t there, std::uint64_t here) {
    return std::string{what} + " " + std::to_string(there) + ", now " + std::to_string(here);
  };
  if (h.magic != nat_file_magic) return "no NAT sessions, or a file never finished";
  if (h.version != nat_file_version)
    return differ("another release's: layout version", h.version, nat_file_version);
  if (h.checksum != nat_file_checksum(h)) return "its header is damaged (checksum)";
  if (h.session_size != sizeof(nat_session))
    return differ("another release's: bytes per session", h.session_size, sizeof(nat_session));
  if (h.table != options.table) return "belongs to a connection table that was not taken over";
  if (h.worker != options.worker) return differ("of another worker:", h.worker, options.worker);
  if (h.sessions != options.sessions)
    return differ("of another size (dataplane.connections): sessions", h.sessions,
                  options.sessions);
  if (h.present > h.sessions) return differ("more in use than there are:", h.present, h.sessions);
  return {};
}

}  // namespace

std::uint64_t nat_file_checksum(const nat_file_header& header) noexcept {
  nat_file_header h = header;
  h.magic = nat_file_magic;  // written last
  h.checksum = 0;
  h.present = h.next_port = 0;
  fnv1a hash;
  hash.add_object(h);
  return hash.value();
}

nat_file::nat_file(nat_file&& other) noexcept {
  *this = std::move(other);
}

nat_file& nat_file::operator=(nat_file&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(file_, other.file_);
  std::swap(path_, other.path_);
  return *this;
}

nat_file::~nat_file() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

std::span<nat_session> nat_file::sessions() const noexcept {
  return {reinterpret_cast<nat_session*>(data_ + sessions_at), header().sessions};
}

tl::expected<void, std::string> nat_file::map(const std::string& path, file_descriptor file,
                                              const nat_file_options& options) {
  size_ = size_of(options.sessions);
  void* const at =
      abi::map_aligned(size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file.get());
  if (at == MAP_FAILED) return tl::make_unexpected(failure("cannot map", path, errno));
  data_ = static_cast<std::byte*>(at);
  file_ = std::move(file);
  path_ = path;
  if (options.numa_node >= 0) connection::prefer_node(data_, size_, options.numa_node);
  return {};
}

tl::expected<nat_file, std::string> nat_file::create(const nat_file_options& options) {
  const std::string path = options.runtime_dir + "/" + options.name;
  // A new file, never the old one truncated: whoever still maps that keeps what it has.
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return tl::make_unexpected(failure("cannot replace", path, errno));
  file_descriptor fd{::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
  if (!fd) return tl::make_unexpected(failure("cannot create", path, errno));
  nat_file file;
  const auto fail = [&path](const std::string& why) {
    ::unlink(path.c_str());
    return tl::make_unexpected(why);
  };
  if (::ftruncate(fd.get(), static_cast<off_t>(size_of(options.sessions))) != 0)
    return fail(failure("cannot size", path, errno));
  if (const auto done = file.map(path, std::move(fd), options); !done) return fail(done.error());
  if (const int error = file.make_present(0); error != 0)
    return fail(failure("no room for", path, error));
  auto* h = new (file.data_) nat_file_header{};
  h->version = nat_file_version;
  h->worker = options.worker;
  h->table = options.table;
  h->sessions = options.sessions;
  h->session_size = sizeof(nat_session);
  h->checksum = nat_file_checksum(*h);
  // The magic last: who sees it sees the rest.
  __atomic_store_n(&h->magic, nat_file_magic, __ATOMIC_RELEASE);
  if (const int error = file.grow(0); error != 0) return fail(failure("no room for", path, error));
  return file;
}

tl::expected<nat_file, connection::refusal> nat_file::adopt(const nat_file_options& options) {
  const std::string path = options.runtime_dir + "/" + options.name;
  const auto refuse = [&path](const std::string& why) {
    return tl::make_unexpected(connection::refusal{path + ": " + why});
  };
  auto found = connection::open_private(path);
  if (!found) return tl::make_unexpected(found.error());
  // Read, not mapped: a file that is too short must not be touched.
  nat_file_header h{};
  if (::pread(found->file.get(), &h, sizeof h, 0) != static_cast<ssize_t>(sizeof h))
    return refuse("cut short: " + std::to_string(found->size) + " bytes");
  if (const std::string why = mismatch(h, options); !why.empty()) return refuse(why);
  if (found->size != size_of(options.sessions))
    return refuse("cut short or changed: bytes " + std::to_string(found->size) + ", should be " +
                  std::to_string(size_of(options.sessions)));
  nat_file file;
  if (const auto done = file.map(path, std::move(found->file), options); !done)
    return refuse(done.error());
  // Pages that are there stay as they are.
  if (const int error = file.make_present(h.present); error != 0)
    return refuse("no memory: " + std::generic_category().message(error));
  return file;
}

// make_present() has memory for these many sessions, and the header. Returns 0 or errno.
int nat_file::make_present(std::uint64_t sessions) noexcept {
  const std::uint64_t bytes =
      std::min(sessions_at + (sessions + per_unit - 1) / per_unit * unit, size_);
  if (::fallocate(file_.get(), 0, 0, static_cast<off_t>(bytes)) != 0 && errno != EOPNOTSUPP)
    return errno;
  return connection::populate(data_, bytes, unit);
}

int nat_file::grow(std::uint32_t used) noexcept {
  const std::uint32_t ahead = used == 0 ? idle_ahead : busy_ahead;
  const std::uint32_t now = present();
  const std::uint64_t wanted =
      std::min<std::uint64_t>(std::uint64_t{used} + ahead, header().sessions);
  // Half of it is left: not yet.
  if (now >= wanted || (used != 0 && now > used && now - used > ahead / 2)) return 0;
  // A place that is nearly full gives what it has.
  int error = 0;
  for (std::uint64_t more = wanted - now; more != 0; more /= 2) {
    error = make_present(now + more);
    if (error != 0) continue;
    // What the worker does not use yet: it shall not wait.
    const std::uint64_t page = offset_of(now) / abi::huge_page * abi::huge_page;
    abi::make_huge(data_, std::max(page, used == 0 ? 0 : offset_of(used)), offset_of(now + more));
    __atomic_store_n(&header().present, static_cast<std::uint32_t>(now + more), __ATOMIC_RELEASE);
    return 0;
  }
  return error;
}

void nat_file::note_port(std::uint32_t next_port) noexcept {
  __atomic_store_n(&header().next_port, next_port, __ATOMIC_RELAXED);
}

void nat_file::remove() noexcept {
  if (!path_.empty()) ::unlink(path_.c_str());
}

}  // namespace sluice
