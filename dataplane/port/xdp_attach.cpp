// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/xdp_attach.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>

#include "dataplane/abi/file_descriptor.hpp"

namespace sluice {

namespace {

namespace fs = std::filesystem;

struct attached_program {
  int ifindex{};
  std::uint32_t id{};  // 0: none
  std::uint32_t mode_flags{};
  std::string name;
  file_descriptor fd;
  file_descriptor vip_set;

  [[nodiscard]] bool ours() const { return name == SLUICE_STEER_PROGRAM && vip_set; }
};

tl::unexpected<std::string> failed(const std::string& what, int error) {
  return tl::unexpected{what + ": " + std::generic_category().message(error)};
}

file_descriptor open_vip_set(std::span<const std::uint32_t> map_ids) {
  for (const std::uint32_t id : map_ids) {
    file_descriptor map{bpf_map_get_fd_by_id(id)};
    bpf_map_info info{};
    std::uint32_t size = sizeof(info);
    if (map && bpf_obj_get_info_by_fd(map.get(), &info, &size) == 0 &&
        std::string_view{info.name} == SLUICE_VIP_SET_MAP &&
        info.key_size == sizeof(sluice_vip_key) && info.value_size == sizeof(sluice_vip_value))
      return map;
  }
  return file_descriptor{};
}

tl::expected<attached_program, std::string> query(const std::string& interface) {
  attached_program program;
  program.ifindex = static_cast<int>(if_nametoindex(interface.c_str()));
  if (program.ifindex == 0) return failed("interface " + interface, errno);
  bpf_xdp_query_opts found{};
  found.sz = sizeof(found);
  if (const int error = bpf_xdp_query(program.ifindex, 0, &found); error != 0)
    return failed("XDP query of " + interface, -error);
  const std::array<std::pair<std::uint32_t, std::uint32_t>, 3> modes{{
      {found.drv_prog_id, XDP_FLAGS_DRV_MODE},
      {found.skb_prog_id, XDP_FLAGS_SKB_MODE},
      {found.hw_prog_id, XDP_FLAGS_HW_MODE},
  }};
  const auto attached = std::ranges::find_if(modes, [](const auto& m) { return m.first != 0; });
  if (attached == modes.end()) return program;

  std::tie(program.id, program.mode_flags) = *attached;
  program.fd = file_descriptor{bpf_prog_get_fd_by_id(program.id)};
  if (!program.fd) return failed(interface + ": opening the XDP program attached", errno);
  std::array<std::uint32_t, 32> map_ids{};
  bpf_prog_info info{};
  info.nr_map_ids = static_cast<std::uint32_t>(map_ids.size());
  info.map_ids = reinterpret_cast<std::uintptr_t>(map_ids.data());
  std::uint32_t size = sizeof(info);
  if (bpf_obj_get_info_by_fd(program.fd.get(), &info, &size) != 0)
    return failed(interface + ": asking about the XDP program attached", errno);
  program.name = info.name;
  program.vip_set = open_vip_set(
      std::span{map_ids}.first(std::min<std::size_t>(info.nr_map_ids, map_ids.size())));
  return program;
}

// holds() says whether a process has the program open.
bool holds(const fs::path& process, std::uint32_t program_id) {
  const std::string wanted = "prog_id:\t" + std::to_string(program_id);
  std::error_code error;
  for (fs::directory_iterator it{process / "fdinfo", error}, end; !error && it != end;
       it.increment(error)) {
    std::ifstream file{it->path()};
    for (std::string line; std::getline(file, line);)
      if (line == wanted) return true;
  }
  return false;
}

// find_holder() returns the process that keeps the program open: a PMD does as long as
// it lives. A control plane or bpftool has it open for a moment only, hence the repeat.
std::optional<std::string> find_holder(std::uint32_t program_id) {
  std::error_code error;
  const std::string self = std::to_string(::getpid());
  for (fs::directory_iterator it{"/proc", error}, end; !error && it != end; it.increment(error)) {
    const std::string pid = it->path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos || pid == self) continue;
    bool held = holds(it->path(), program_id);
    for (int again = 0; held && again < 3; ++again) {
      std::this_thread::sleep_for(std::chrono::milliseconds{20});
      held = holds(it->path(), program_id);
    }
    if (!held) continue;
    std::string name;
    std::ifstream comm{it->path() / "comm"};
    std::getline(comm, name);
    return name.append(" (pid ").append(pid).append(")");
  }
  return std::nullopt;
}

std::vector<std::pair<sluice_vip_key, sluice_vip_value>> read_vips(int map) {
  std::vector<std::pair<sluice_vip_key, sluice_vip_value>> vips;
  sluice_vip_key key{};
  const sluice_vip_key* previous = nullptr;
  for (sluice_vip_key next{};
       vips.size() < SLUICE_MAX_VIP_ENTRIES && bpf_map_get_next_key(map, previous, &next) == 0;) {
    sluice_vip_value value{};
    if (bpf_map_lookup_elem(map, &next, &value) == 0) vips.emplace_back(next, value);
    key = next;
    previous = &key;
  }
  return vips;
}

tl::expected<void, std::string> detach(const std::string& interface,
                                       const attached_program& program) {
  bpf_xdp_attach_opts options{};
  options.sz = sizeof(options);
  options.old_prog_fd = program.fd.get();  // only if it is still the one that was looked at
  if (const int error = bpf_xdp_detach(program.ifindex, program.mode_flags, &options); error != 0)
    return failed(interface + ": detaching the XDP program", -error);
  return {};
}

}  // namespace

tl::expected<xdp_attached, std::string> attached_xdp(const std::string& interface) {
  const auto program = query(interface);
  if (!program) return tl::unexpected{program.error()};
  if (program->id == 0) return xdp_attached{};
  if (!program->ours())
    return tl::unexpected{interface + ": another XDP program (" + program->name + ", id " +
                          std::to_string(program->id) +
                          ") is attached; remove it first: ip link set dev " + interface +
                          " xdp off"};
  if (const auto holder = find_holder(program->id))
    return tl::unexpected{interface + ": is in use by " + *holder + ": stop it first"};
  return xdp_attached{program->id, program->mode_flags};
}

tl::expected<xdp_leftover, std::string> take_over_xdp(const std::string& interface) {
  const auto there = attached_xdp(interface);
  if (!there) return tl::unexpected{there.error()};
  if (there->id == 0) return xdp_leftover{};
  const auto program = query(interface);
  if (!program) return tl::unexpected{program.error()};

  xdp_leftover leftover{.found = true, .vips = read_vips(program->vip_set.get())};
  if (const auto detached = detach(interface, *program); !detached)
    return tl::unexpected{detached.error()};
  return leftover;
}

tl::expected<std::size_t, std::string> restore_vips(const std::string& interface,
                                                    const xdp_leftover& leftover) {
  if (leftover.vips.empty()) return std::size_t{0};
  const auto program = query(interface);
  if (!program) return tl::unexpected{program.error()};
  if (!program->ours()) return tl::unexpected{interface + ": the steering program is not attached"};
  sluice_vip_key first{};
  if (bpf_map_get_next_key(program->vip_set.get(), nullptr, &first) == 0) return std::size_t{0};
  std::size_t written = 0;
  for (const auto& [key, value] : leftover.vips) {
    if (bpf_map_update_elem(program->vip_set.get(), &key, &value, BPF_NOEXIST) == 0)
      ++written;
    else if (errno != EEXIST)
      return failed(interface + ": restoring the VIP set", errno);
  }
  return written;
}

tl::expected<void, std::string> detach_xdp(const std::string& interface) {
  const auto program = query(interface);
  if (!program) return tl::unexpected{program.error()};
  if (program->id == 0 || !program->ours()) return {};
  return detach(interface, *program);
}

}  // namespace sluice
