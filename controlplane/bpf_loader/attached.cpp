// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/attached.hpp"

#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <optional>
#include <system_error>

#include "dataplane/abi/bpf_abi.h"

namespace sluice::bpf_loader {

tl::unexpected<steer_error> failed(std::string what, int error) {
  return tl::unexpected{steer_error{
      steer_error::kind::failed, std::move(what) + ": " + std::generic_category().message(error)}};
}

namespace {

// look_if_ours() returns the program when its name is ours.
std::optional<attached_program> look_if_ours(std::uint32_t id) {
  attached_program program;
  program.id = id;
  const file_descriptor fd{bpf_prog_get_fd_by_id(id)};
  if (!fd) return std::nullopt;  // gone in the meantime
  program.map_ids.resize(32);
  bpf_prog_info info{};
  info.nr_map_ids = static_cast<std::uint32_t>(program.map_ids.size());
  info.map_ids = reinterpret_cast<std::uintptr_t>(program.map_ids.data());
  std::uint32_t size = sizeof(info);
  if (bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) return std::nullopt;
  if (std::string_view{info.name} != SLUICE_STEER_PROGRAM) return std::nullopt;
  program.map_ids.resize(std::min<std::size_t>(info.nr_map_ids, program.map_ids.size()));
  return program;
}

}  // namespace

tl::expected<attached_program, steer_error> find_program(const std::string& interface) {
  const auto ifindex = static_cast<int>(if_nametoindex(interface.c_str()));
  if (ifindex == 0) return failed("interface " + interface, errno);
  bpf_xdp_query_opts query{};
  query.sz = sizeof(query);
  if (const int error = bpf_xdp_query(ifindex, 0, &query); error != 0)
    return failed("XDP query of " + interface, -error);
  const std::array<std::pair<std::uint32_t, std::uint32_t>, 3> candidates{{
      {query.drv_prog_id, XDP_FLAGS_DRV_MODE},
      {query.skb_prog_id, XDP_FLAGS_SKB_MODE},
      {query.hw_prog_id, XDP_FLAGS_HW_MODE},
  }};
  for (const auto& [id, mode] : candidates) {
    if (id == 0) continue;
    if (auto program = look_if_ours(id)) {
      program->ifindex = ifindex;
      program->mode_flags = mode;
      return std::move(*program);
    }
  }
  return tl::unexpected{steer_error{
      steer_error::kind::not_attached,
      interface + ": the steering program is not attached (is the data plane running?)"}};
}

tl::expected<file_descriptor, steer_error> open_map(const attached_program& program,
                                                    std::string_view name, std::uint32_t key_size,
                                                    std::uint32_t value_size) {
  for (const std::uint32_t id : program.map_ids) {
    file_descriptor map{bpf_map_get_fd_by_id(id)};
    if (!map) continue;
    bpf_map_info info{};
    std::uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(map.get(), &info, &size) != 0 || std::string_view{info.name} != name)
      continue;
    if (info.key_size != key_size || info.value_size != value_size)
      return tl::unexpected{
          steer_error{steer_error::kind::failed,
                      "map " + std::string{name} +
                          " has another layout: data plane and control plane differ in version"}};
    return map;
  }
  return tl::unexpected{steer_error{steer_error::kind::failed,
                                    "the attached program has no map " + std::string{name}}};
}

}  // namespace sluice::bpf_loader
