// SPDX-License-Identifier: Apache-2.0
// lint: cold file: start-up only
#include "dataplane/connection/table_file.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace sluice::connection {
namespace {

std::string failure(const std::string& what, const std::string& where, int error) {
  return what + " " + where + ": " + std::generic_category().message(error);
}

// random_words() fills from getrandom(2); at start-up only, so waiting for entropy is fine.
bool random_words(std::uint64_t* words, std::size_t n) noexcept {
  std::size_t done = 0;
  while (done < n * sizeof *words) {
    const ssize_t got =
        ::getrandom(reinterpret_cast<std::byte*>(words) + done, n * sizeof *words - done, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<std::size_t>(got);
  }
  return true;
}

std::string mib(std::uint64_t bytes) {
  return std::to_string((bytes + (1u << 20) - 1) >> 20) + " MiB";
}

std::uint64_t monotonic_ns() noexcept {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(t.tv_nsec);
}

std::uint32_t seconds_of(std::uint64_t ns) noexcept {
  return static_cast<std::uint32_t>(ns / 1'000'000'000u);
}

// boot_id() is the kernel's name for this boot, zeros where it has none.
std::array<std::uint64_t, 2> boot_id() noexcept {
  std::array<std::uint64_t, 2> id{};
  const file_descriptor fd{::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)};
  std::array<char, 64> text{};
  if (fd.get() < 0 || ::read(fd.get(), text.data(), text.size() - 1) < 36) return id;
  unsigned digits = 0;
  for (const char c : text) {
    if (digits == 32) break;
    const bool decimal = c >= '0' && c <= '9';
    if (!decimal && (c < 'a' || c > 'f')) continue;
    std::uint64_t& word = id[digits++ / 16];
    word = word << 4 | static_cast<std::uint64_t>(decimal ? c - '0' : c - 'a' + 10);
  }
  return id;
}

// mismatch() says why the table in a file is not the one that we would go on with.
std::string mismatch(const abi::connection_header& h, std::uint64_t size,
                     const table_file_options& options, const abi::connection_layout& layout,
                     std::uint64_t config_instance) {
  const auto differ = [](const char* what, std::uint64_t there, std::uint64_t here) {
    return std::string{what} + " " + std::to_string(there) + ", now " + std::to_string(here);
  };
  if (h.magic != abi::connection_magic) return "no connection table, or one never finished";
  if (h.version != abi::abi_version)
    return differ("another release's: layout version", h.version, abi::abi_version);
  if (h.checksum != abi::connection_checksum(h)) return "its header is damaged (checksum)";
  if (h.size != size) return differ("cut short or changed: bytes", size, h.size);
  if (h.workers != options.workers)
    return differ("flows are spread over another number of workers:", h.workers, options.workers);
  if (h.worker != options.worker) return differ("of another worker:", h.worker, options.worker);
  if (h.buckets4 != layout.buckets4 || h.buckets6 != layout.buckets6 ||
      h.offset4 != layout.offset4 || h.offset6 != layout.offset6 || h.size < layout.total)
    return differ("of another size (dataplane.connections): buckets", h.buckets4, layout.buckets4);
  const auto boot = boot_id();
  if (h.boot_id[0] != boot[0] || h.boot_id[1] != boot[1]) return "from before the last boot";
  const std::uint64_t now = monotonic_ns();
  if (h.clock_base_ns > now || h.alive_s > seconds_of(now)) return "its clock is ahead";
  // Half of what the 16-bit clock can tell apart: more than any timeout.
  if (const std::uint32_t gone = seconds_of(now) - h.alive_s; gone > 16384)
    return "left " + std::to_string(gone) + " s ago: no connection is that patient";
  if (config_instance == 0) return "there is no config segment that could explain its entries";
  if (h.config_instance != config_instance)
    return "its entries name the backends of another config segment";
  return {};
}

tl::expected<abi::connection_layout, std::string> layout_of(const table_file_options& o) {
  const auto layout = abi::connection_layout::for_connections(o.connections4, o.connections6);
  if (layout.total == 0)
    return tl::make_unexpected("connection table: " + std::to_string(o.connections4) +
                               " IPv4 and " + std::to_string(o.connections6) +
                               " IPv6 connections are more than a table can have");
  return layout;
}

}  // namespace

table_file::table_file(table_file&& other) noexcept {
  *this = std::move(other);
}

table_file& table_file::operator=(table_file&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  std::swap(note_, other.note_);
  std::swap(place_, other.place_);
  return *this;
}

table_file::~table_file() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void table_file::remove() noexcept {
  if (!path_.empty()) ::unlink(path_.c_str());
}

void table_file::initialise(const abi::connection_layout& layout, const table_file_options& options,
                            const std::array<std::uint64_t, 2>& secret,
                            std::uint64_t instance) noexcept {
  auto* h = new (data_) abi::connection_header{};
  h->version = abi::abi_version;
  h->worker = options.worker;
  h->workers = options.workers;
  h->size = size_;
  h->instance = instance;
  h->buckets4 = layout.buckets4;
  h->buckets6 = layout.buckets6;
  h->offset4 = layout.offset4;
  h->offset6 = layout.offset6;
  h->secret[0] = secret[0];
  h->secret[1] = secret[1];
  h->clock_base_ns = monotonic_ns();
  const auto boot = boot_id();
  h->boot_id[0] = boot[0];
  h->boot_id[1] = boot[1];
  h->alive_s = seconds_of(h->clock_base_ns);
  h->checksum = abi::connection_checksum(*h);
  // The magic last: who sees it sees the rest.
  __atomic_store_n(&h->magic, abi::connection_magic, __ATOMIC_RELEASE);
}

tl::expected<table_file, std::string> table_file::create_in(const std::string& directory, bool huge,
                                                            const table_file_options& options,
                                                            const abi::connection_layout& layout) {
  const std::string path = directory + "/" + options.name;
  struct statfs fs {};
  if (::statfs(directory.c_str(), &fs) != 0)
    return tl::make_unexpected(failure("connection table: directory", directory, errno));
  if (huge && fs.f_type != HUGETLBFS_MAGIC)
    return tl::make_unexpected("connection table: " + directory + " is not a hugetlbfs");
  const auto page = static_cast<std::uint64_t>(huge ? fs.f_bsize : ::sysconf(_SC_PAGESIZE));

  table_file file;
  file.size_ = (layout.total + page - 1) / page * page;
  file.place_ = huge                       ? table_place::hugetlbfs
                : fs.f_type == TMPFS_MAGIC ? table_place::tmpfs
                                           : table_place::disk;
  // A new file, never the old one truncated: whoever still maps that keeps what it has.
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return tl::make_unexpected(failure("connection table: cannot replace", path, errno));
  const file_descriptor fd{::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
  if (fd.get() < 0)
    return tl::make_unexpected(failure("connection table: cannot create", path, errno));
  file.path_ = path;
  const auto fail = [&](const std::string& what, int error) {
    file.remove();
    return tl::make_unexpected(
        failure("connection table: " + what + " of " + mib(file.size_) + " for", path, error));
  };
  if (::ftruncate(fd.get(), static_cast<off_t>(file.size_)) != 0) return fail("no room", errno);
  // hugetlbfs reserves the pages here, or says ENOMEM.
  void* const at = ::mmap(nullptr, file.size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return fail(huge ? "not enough free huge pages" : "no mapping", errno);
  file.data_ = static_cast<std::byte*>(at);
  if (options.numa_node >= 0) {
    const int error = prefer_node(at, file.size_, options.numa_node);
    if (error != 0)
      file.note_ = failure("not placed on NUMA node", std::to_string(options.numa_node), error);
  }
  // tmpfs: take the pages now, or a full tmpfs would be a SIGBUS later.
  if (!huge && ::fallocate(fd.get(), 0, 0, static_cast<off_t>(file.size_)) != 0 &&
      errno != EOPNOTSUPP)
    return fail("no room", errno);
  if (const int error = populate(file.data_, file.size_, page); error != 0)
    return fail("no memory", error);
  return file;
}

tl::expected<table_file, std::string> table_file::create(const table_file_options& options) {
  auto layout = layout_of(options);
  if (!layout) return tl::make_unexpected(layout.error());
  std::array<std::uint64_t, 3> random{};
  if (!random_words(random.data(), random.size()))
    return tl::make_unexpected(failure("connection table: no secret from", "getrandom(2)", errno));

  std::string why;
  tl::expected<table_file, std::string> file = tl::make_unexpected(std::string{});
  if (!options.hugepage_dir.empty()) {
    file = create_in(options.hugepage_dir, true, options, *layout);
    if (!file) why = file.error();
  }
  if (!file) {
    file = create_in(options.runtime_dir, false, options, *layout);
    if (!file) return tl::make_unexpected((why.empty() ? why : why + "; ") + file.error());
    if (!why.empty()) file->note_ += (file->note_.empty() ? "" : "; ") + why;
    if (file->place_ == table_place::disk)
      file->note_ += (file->note_.empty() ? "" : "; ") + file->path_ +
                     " is not on tmpfs: the kernel will write it back to the disk";
  }
  file->initialise(*layout, options, {random[0], random[1]}, random[2]);
  return file;
}

tl::expected<table_file, refusal> table_file::adopt_from(const std::string& directory, bool huge,
                                                         const table_file_options& options,
                                                         std::uint64_t config_instance) {
  const std::string path = directory + "/" + options.name;
  const auto refuse = [&path](const std::string& why) {
    return tl::make_unexpected(refusal{path + ": " + why});
  };
  const auto system_refuses = [&refuse](const char* what) {
    return refuse(std::string{what} + ": " + std::generic_category().message(errno));
  };
  const auto found = open_private(path);
  if (!found) return tl::make_unexpected(found.error());
  const file_descriptor& fd = found->file;
  const auto layout = layout_of(options);
  if (!layout) return refuse(layout.error());
  if (found->size < sizeof(abi::connection_header))
    return refuse("cut short: " + std::to_string(found->size) + " bytes");
  abi::connection_header h;
  table_file file;
  file.size_ = found->size;
  void* const at = ::mmap(nullptr, file.size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return system_refuses("cannot map");
  file.data_ = static_cast<std::byte*>(at);
  std::memcpy(&h, at, sizeof h);
  if (const std::string why = mismatch(h, file.size_, options, *layout, config_instance);
      !why.empty())
    return refuse(why);
  struct statfs fs {};
  ::fstatfs(fd.get(), &fs);
  file.path_ = path;
  file.place_ = huge                       ? table_place::hugetlbfs
                : fs.f_type == TMPFS_MAGIC ? table_place::tmpfs
                                           : table_place::disk;
  const auto page = static_cast<std::uint64_t>(huge ? fs.f_bsize : ::sysconf(_SC_PAGESIZE));
  if (const int error = populate(file.data_, file.size_, page); error != 0) {
    errno = error;
    return system_refuses("no memory");
  }
  return file;
}

tl::expected<table_file, refusal> table_file::adopt(const table_file_options& options,
                                                    std::uint64_t config_instance) {
  refusal why;
  for (const bool huge : {true, false}) {
    const std::string& directory = huge ? options.hugepage_dir : options.runtime_dir;
    if (directory.empty()) continue;
    auto file = adopt_from(directory, huge, options, config_instance);
    if (file) return file;
    if (!file.error().text.empty()) why.text += (why.text.empty() ? "" : "; ") + file.error().text;
  }
  return tl::make_unexpected(why);
}

void table_file::keep_adoptable(std::uint64_t config_instance, std::uint64_t now_ns) noexcept {
  auto* h = reinterpret_cast<abi::connection_header*>(data_);
  if (config_instance != 0)
    __atomic_store_n(&h->config_instance, config_instance, __ATOMIC_RELEASE);
  __atomic_store_n(&h->alive_s, seconds_of(now_ns), __ATOMIC_RELAXED);
}

tl::expected<table_file, std::string> table_file::anonymous(
    const table_file_options& options, const std::array<std::uint64_t, 2>& secret) {
  const auto layout = layout_of(options);
  if (!layout) return tl::make_unexpected(layout.error());
  std::array<std::uint64_t, 3> random{};
  if (!random_words(random.data(), random.size()))
    return tl::make_unexpected(failure("connection table: no secret from", "getrandom(2)", errno));
  table_file file;
  constexpr std::uint64_t page = 2u << 20;  // so that the kernel can give huge pages
  file.size_ = (layout->total + page - 1) / page * page;
  // Aligned by hand: one page more, the ends given back.
  void* const at = ::mmap(nullptr, file.size_ + page, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    return tl::make_unexpected(failure("connection table: no memory:", mib(file.size_), errno));
  const auto first = reinterpret_cast<std::uintptr_t>(at);
  const std::uintptr_t aligned = (first + page - 1) / page * page;
  if (aligned != first) ::munmap(at, aligned - first);
  if (const std::uintptr_t tail = first + page - aligned; tail != 0)
    ::munmap(reinterpret_cast<void*>(aligned + file.size_), tail);
  file.data_ = reinterpret_cast<std::byte*>(aligned);
  ::madvise(file.data_, file.size_, MADV_HUGEPAGE);  // a wish
  if (options.numa_node >= 0) prefer_node(file.data_, file.size_, options.numa_node);
  const bool fixed = secret[0] != 0 || secret[1] != 0;
  file.initialise(*layout, options,
                  fixed ? secret : std::array<std::uint64_t, 2>{random[0], random[1]}, random[2]);
  return file;
}

}  // namespace sluice::connection
