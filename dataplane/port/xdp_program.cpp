// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/xdp_program.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dlfcn.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

#include "dataplane/abi/standin_abi.h"
#include "dataplane/port/xdp_attach.hpp"

namespace sluice {
namespace {

tl::unexpected<std::string> failed(const std::string& what, int error) {
  return tl::unexpected{what + ": " + std::generic_category().message(error)};
}

constexpr std::size_t heartbeat_bytes = SLUICE_HEARTBEATS * sizeof(std::uint64_t);

// find_map() returns the one of `maps` with this name and layout, or -1.
int find_map(const std::vector<int>& maps, const bpf_map* wanted) {
  for (const int fd : maps) {
    bpf_map_info info{};
    std::uint32_t size = sizeof info;
    if (bpf_obj_get_info_by_fd(fd, &info, &size) == 0 &&
        std::string_view{info.name} == bpf_map__name(wanted) &&
        info.type == static_cast<std::uint32_t>(bpf_map__type(wanted)) &&
        info.key_size == bpf_map__key_size(wanted) &&
        info.value_size == bpf_map__value_size(wanted) &&
        info.max_entries == bpf_map__max_entries(wanted) &&
        info.map_flags == bpf_map__map_flags(wanted))
      return fd;
  }
  return -1;
}

thread_local unsigned keeping_off = 0;

}  // namespace

driver_keeps_off::driver_keeps_off() noexcept {
  ++keeping_off;
}
driver_keeps_off::~driver_keeps_off() {
  --keeping_off;
}

xdp_left::~xdp_left() {
  if (program_ >= 0) ::close(program_);
  for (const int fd : maps_) ::close(fd);
}

void xdp_left::swap(xdp_left& other) noexcept {
  std::swap(program_, other.program_);
  std::swap(mode_flags_, other.mode_flags_);
  std::swap(maps_, other.maps_);
}

tl::expected<xdp_left, std::string> look_at_xdp(const std::string& interface) {
  const auto attached = attached_xdp(interface);
  if (!attached) return tl::unexpected{attached.error()};
  xdp_left left;
  if (attached->id == 0) return left;
  left.program_ = bpf_prog_get_fd_by_id(attached->id);
  if (left.program_ < 0) return failed(interface + ": opening the XDP program attached", errno);
  left.mode_flags_ = attached->mode_flags;
  std::array<std::uint32_t, 32> ids{};
  bpf_prog_info info{};
  info.nr_map_ids = static_cast<std::uint32_t>(ids.size());
  info.map_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  std::uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(left.program_, &info, &size) != 0)
    return failed(interface + ": asking about the XDP program attached", errno);
  for (std::size_t i = 0; i < info.nr_map_ids && i < ids.size(); ++i)
    if (const int fd = bpf_map_get_fd_by_id(ids[i]); fd >= 0) left.maps_.push_back(fd);
  return left;
}

void xdp_program::object_closer::operator()(bpf_object* o) const noexcept {
  bpf_object__close(o);
}

xdp_program::xdp_program(xdp_program&& other) noexcept
    : object_{std::move(other.object_)},
      beats_{std::exchange(other.beats_, nullptr)},
      kept_{other.kept_} {}

xdp_program& xdp_program::operator=(xdp_program&& other) noexcept {
  std::swap(object_, other.object_);
  std::swap(beats_, other.beats_);
  std::swap(kept_, other.kept_);
  return *this;
}

xdp_program::~xdp_program() {
  if (beats_ != nullptr) ::munmap(beats_, heartbeat_bytes);
}

tl::expected<xdp_program, std::string> xdp_program::load(const std::string& object,
                                                         const xdp_left& left,
                                                         const xdp_program* other) {
  xdp_program out;
  out.object_.reset(bpf_object__open_file(object.c_str(), nullptr));
  if (!out.object_) return failed(object + ": cannot be read", errno);
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, out.object_.get()) {
    const std::string_view name = bpf_map__name(map);
    int from = -1;
    if (other != nullptr && name != SLUICE_XSKS_MAP && name != SLUICE_STEER_STATS_MAP)
      from = other->map(bpf_map__name(map));
    else if ((from = find_map(left.maps_, map)) >= 0)
      ++out.kept_;
    if (from >= 0)
      if (const int error = bpf_map__reuse_fd(map, from); error != 0)
        return failed(object + ": taking over the map " + std::string{name}, -error);
  }
  if (const int error = bpf_object__load(out.object_.get()); error != 0)
    return failed(object + ": the kernel refuses it", -error);
  void* const at = ::mmap(nullptr, heartbeat_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                          out.map(SLUICE_HEARTBEAT_MAP), 0);
  if (at == MAP_FAILED) return failed(object + ": mapping " SLUICE_HEARTBEAT_MAP, errno);
  out.beats_ = static_cast<std::uint64_t*>(at);
  return out;
}

tl::expected<void, std::string> xdp_program::attach(const std::string& interface,
                                                    const xdp_left& left) {
  const auto index = static_cast<int>(::if_nametoindex(interface.c_str()));
  if (index == 0) return failed("interface " + interface, errno);
  const int program =
      bpf_program__fd(bpf_object__find_program_by_name(object_.get(), SLUICE_STEER_PROGRAM));
  bpf_xdp_attach_opts options{};
  options.sz = sizeof options;
  int error = 0;
  if (left.found()) {
    options.old_prog_fd = left.program_;
    error = bpf_xdp_attach(index, program, left.mode_flags_ | XDP_FLAGS_REPLACE, &options);
  } else {
    // The kernel takes the driver's mode where there is one, and its own where not.
    error = bpf_xdp_attach(index, program, XDP_FLAGS_UPDATE_IF_NOEXIST, &options);
  }
  if (error != 0) return failed(interface + ": attaching the XDP program", -error);
  return {};
}

tl::expected<void, std::string> xdp_program::enter(std::uint32_t queue, int socket) {
  if (bpf_map_update_elem(map(SLUICE_XSKS_MAP), &queue, &socket, BPF_ANY) != 0)
    return failed(
        "entering the socket of queue " + std::to_string(queue) + " into " SLUICE_XSKS_MAP, errno);
  return {};
}

void xdp_program::beat(std::uint32_t queue, std::uint64_t ns) noexcept {
  if (queue < SLUICE_MAX_XSKS) __atomic_store_n(beats_ + queue, ns, __ATOMIC_RELAXED);
}

int xdp_program::map(const char* name) const noexcept {
  return bpf_object__find_map_fd_by_name(object_.get(), name);
}

}  // namespace sluice

// In front of libbpf's: the AF_XDP driver, a shared object, finds these first.
extern "C" {

int bpf_xdp_attach(int ifindex, int prog_fd, __u32 flags, const bpf_xdp_attach_opts* opts) {
  if (sluice::keeping_off != 0) return 0;
  static const auto real =
      reinterpret_cast<decltype(&bpf_xdp_attach)>(::dlsym(RTLD_NEXT, "bpf_xdp_attach"));
  return real != nullptr ? real(ifindex, prog_fd, flags, opts) : -ENOSYS;
}

int bpf_xdp_detach(int ifindex, __u32 flags, const bpf_xdp_attach_opts* opts) {
  if (sluice::keeping_off != 0) return 0;
  static const auto real =
      reinterpret_cast<decltype(&bpf_xdp_detach)>(::dlsym(RTLD_NEXT, "bpf_xdp_detach"));
  return real != nullptr ? real(ifindex, flags, opts) : -ENOSYS;
}

}  // extern "C"
