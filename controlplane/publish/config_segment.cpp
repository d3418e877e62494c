// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/config_segment.hpp"

#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include <sys/statvfs.h>
#include <unistd.h>

#include "dataplane/abi/generation.hpp"
#include "dataplane/abi/huge_pages.hpp"

namespace sluice::publish {
namespace {

constexpr std::uint64_t chunk = 64u << 10;

void initialise(std::byte* data, const abi::config_limits& limits) {
  auto* control = new (data + sizeof(abi::segment_header)) abi::config_control{};
  control->limits = limits;
}

}  // namespace

config_segment::config_segment(abi::mapped_file file, const abi::config_limits& limits)
    : file_{std::move(file)}, limits_{limits}, layout_{abi::config_layout::of(limits)} {
  if (file_.fd() >= 0) reserved_.resize((file_.size() + chunk - 1) / chunk);
}

auto config_segment::create_file(const std::string& path, const abi::config_limits& limits)
    -> result<config_segment> {
  if (!abi::config_layout::valid(limits))
    return tl::unexpected{path + ": impossible limits for a config segment"};
  std::string error;
  abi::mapped_file file = abi::create_segment(
      path, abi::config_magic, abi::config_layout::of(limits).total, 0644, false,
      [&limits](std::byte* data) { initialise(data, limits); }, error);
  if (!file) return tl::unexpected{error};
  return config_segment{std::move(file), limits};
}

auto config_segment::attach_file(const std::string& path) -> result<config_segment> {
  std::string error;
  abi::mapped_file file = abi::attach_segment(path, abi::config_magic, true, error);
  if (!file) return tl::unexpected{error};
  if (file.size() < sizeof(abi::segment_header) + sizeof(abi::config_control))
    return tl::unexpected{path + ": too small for a config segment"};
  abi::config_limits limits;
  std::memcpy(&limits,
              file.data() + sizeof(abi::segment_header) + offsetof(abi::config_control, limits),
              sizeof limits);
  if (!abi::config_layout::valid(limits) || abi::config_layout::of(limits).total != file.size())
    return tl::unexpected{path + ": its limits do not agree with its size"};
  return config_segment{std::move(file), limits};
}

auto config_segment::in_memory(const abi::config_limits& limits) -> result<config_segment> {
  if (!abi::config_layout::valid(limits))
    return tl::unexpected<std::string>{"impossible limits for a config segment"};
  const std::size_t size = abi::config_layout::of(limits).total;
  void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    return tl::unexpected{"no memory for a config segment of " + std::to_string(size) +
                          " bytes: " + std::generic_category().message(errno)};
  abi::mapped_file memory{static_cast<std::byte*>(p), size, -1, 0};
  auto* header = new (p) abi::segment_header{};
  header->magic = abi::config_magic;
  header->version = abi::abi_version;
  header->size = size;
  header->instance = abi::random_u64() | 1;
  header->created_ns = abi::clock_ns(CLOCK_REALTIME);
  initialise(memory.data(), limits);
  return config_segment{std::move(memory), limits};
}

abi::config_control& config_segment::control() const noexcept {
  return *reinterpret_cast<abi::config_control*>(data() + sizeof(abi::segment_header));
}

std::uint64_t config_segment::instance() const noexcept {
  return reinterpret_cast<const abi::segment_header*>(data())->instance;
}

auto config_segment::reserve(std::uint64_t offset, std::uint64_t bytes) -> result<void> {
  if (reserved_.empty() || bytes == 0) return {};
  for (std::uint64_t i = offset / chunk; i <= (offset + bytes - 1) / chunk; ++i) {
    if (reserved_[i]) continue;
    const std::uint64_t start = i * chunk;
    prefer_huge(start);
    const std::uint64_t length = start + chunk > size() ? size() - start : chunk;
    int failed;
    do {
      failed = ::posix_fallocate(file_.fd(), static_cast<off_t>(start), static_cast<off_t>(length));
    } while (failed == EINTR);
    if (failed != 0)
      return tl::unexpected{std::string{"no memory for the config segment: "} +
                            std::generic_category().message(failed) +
                            " (the file system of the runtime directory is too small)"};
    reserved_[i] = true;
  }
  return {};
}

// prefer_huge() has the huge page around an offset in the arena made as a whole, before anything of
// it is in use: workers read slots of the tables there at random. Not where memory is short.
void config_segment::prefer_huge(std::uint64_t offset) noexcept {
  constexpr std::uint64_t spare = 32 * abi::huge_page;
  const std::uint64_t start = offset / abi::huge_page * abi::huge_page;
  if (start < layout_.arena || start + abi::huge_page > size()) return;
  const off_t used = ::lseek(file_.fd(), static_cast<off_t>(start), SEEK_DATA);
  if (used >= 0 ? used < static_cast<off_t>(start + abi::huge_page) : errno != ENXIO) return;
  struct statvfs place {};
  if (::fstatvfs(file_.fd(), &place) != 0 || place.f_bavail * place.f_bsize < spare) return;
  abi::make_huge(data(), start, start + abi::huge_page);
}

abi::config_view config_segment::view() const noexcept {
  abi::config_view view;
  const abi::generation_word word{control().current.load(std::memory_order_acquire)};
  if (!word.none()) abi::config_view::open(data(), limits_, word.slot(), view);
  return view;
}

}  // namespace sluice::publish
