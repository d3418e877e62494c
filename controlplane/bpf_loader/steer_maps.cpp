// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/steer_maps.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace sluice::bpf_loader {

namespace {

class file_descriptor {
 public:
  explicit file_descriptor(int fd = -1) noexcept : fd_{fd} {}
  file_descriptor(file_descriptor&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  file_descriptor& operator=(file_descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~file_descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

struct attached_program {
  int ifindex{};
  std::uint32_t id{};
  std::uint32_t mode_flags{};  // XDP_FLAGS_*_MODE it is attached with
  file_descriptor fd;
  std::vector<std::uint32_t> map_ids;
};

tl::unexpected<steer_error> failed(std::string what, int error) {
  return tl::unexpected{steer_error{
      steer_error::kind::failed, std::move(what) + ": " + std::generic_category().message(error)}};
}

// open_if_ours() returns the program when its name is ours.
std::optional<attached_program> open_if_ours(std::uint32_t id) {
  attached_program program;
  program.id = id;
  program.fd = file_descriptor{bpf_prog_get_fd_by_id(id)};
  if (!program.fd) return std::nullopt;  // gone in the meantime
  program.map_ids.resize(16);
  bpf_prog_info info{};
  info.nr_map_ids = static_cast<std::uint32_t>(program.map_ids.size());
  info.map_ids = reinterpret_cast<std::uintptr_t>(program.map_ids.data());
  std::uint32_t size = sizeof(info);
  if (bpf_obj_get_info_by_fd(program.fd.get(), &info, &size) != 0) return std::nullopt;
  if (std::string_view{info.name} != SLUICE_STEER_PROGRAM) return std::nullopt;
  program.map_ids.resize(std::min<std::size_t>(info.nr_map_ids, program.map_ids.size()));
  return program;
}

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
    if (auto program = open_if_ours(id)) {
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

tl::expected<vip_entries, steer_error> read_vip_set(int map) {
  vip_entries entries;
  sluice_vip_key key{};
  const sluice_vip_key* previous = nullptr;
  for (sluice_vip_key next{}; bpf_map_get_next_key(map, previous, &next) == 0;) {
    sluice_vip_value value{};
    if (bpf_map_lookup_elem(map, &next, &value) == 0) entries.insert_or_assign(next, value);
    key = next;
    previous = &key;
    // A concurrent writer can make the walk start over; a map never holds more.
    if (entries.size() > SLUICE_MAX_VIP_ENTRIES) return failed("reading vip_set", EOVERFLOW);
  }
  if (errno != ENOENT) return failed("reading vip_set", errno);
  return entries;
}

}  // namespace

tl::expected<std::uint32_t, steer_error> steer_maps::program_id() const {
  return find_program(interface_).map([](const attached_program& p) { return p.id; });
}

tl::expected<steer_update, steer_error> steer_maps::set_vips(std::span<const vip> vips) const {
  const auto wanted = make_vip_entries(vips);
  if (!wanted)
    return tl::unexpected{
        steer_error{steer_error::kind::invalid, interface_ + ": " + wanted.error()}};
  const auto program = find_program(interface_);
  if (!program) return tl::unexpected{program.error()};
  const auto map =
      open_map(*program, SLUICE_VIP_SET_MAP, sizeof(sluice_vip_key), sizeof(sluice_vip_value));
  if (!map) return tl::unexpected{map.error()};
  const auto present = read_vip_set(map->get());
  if (!present) return tl::unexpected{present.error()};

  steer_update update;
  for (const auto& [key, value] : *wanted) {
    const auto there = present->find(key);
    if (there != present->end() && std::memcmp(&there->second, &value, sizeof(value)) == 0)
      continue;
    if (bpf_map_update_elem(map->get(), &key, &value, BPF_ANY) != 0)
      return failed(interface_ + ": adding to vip_set", errno);
    ++update.added;
  }
  for (const auto& [key, value] : *present) {
    if (wanted->contains(key)) continue;
    if (bpf_map_delete_elem(map->get(), &key) != 0 && errno != ENOENT)
      return failed(interface_ + ": removing from vip_set", errno);
    ++update.removed;
  }
  return update;
}

tl::expected<steer_counters, steer_error> steer_maps::counters() const {
  const auto program = find_program(interface_);
  if (!program) return tl::unexpected{program.error()};
  const auto map =
      open_map(*program, SLUICE_STEER_STATS_MAP, sizeof(std::uint32_t), sizeof(std::uint64_t));
  if (!map) return tl::unexpected{map.error()};
  const int cpus = libbpf_num_possible_cpus();
  if (cpus < 0) return failed("number of possible CPUs", -cpus);

  std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(cpus));
  std::array<std::uint64_t, SLUICE_STEER_COUNTERS> sum{};
  for (std::uint32_t i = 0; i < SLUICE_STEER_COUNTERS; ++i) {
    if (bpf_map_lookup_elem(map->get(), &i, per_cpu.data()) != 0)
      return failed(interface_ + ": reading steer_stats", errno);
    for (const std::uint64_t value : per_cpu) sum[i] += value;
  }
  return steer_counters{sum[SLUICE_STEER_REDIRECTED], sum[SLUICE_STEER_NO_SOCKET],
                        sum[SLUICE_STEER_PASSED], sum[SLUICE_STEER_MALFORMED]};
}

tl::expected<void, steer_error> steer_maps::detach() const {
  const auto program = find_program(interface_);
  if (!program) return tl::unexpected{program.error()};
  bpf_xdp_attach_opts options{};
  options.sz = sizeof(options);
  options.old_prog_fd = program->fd.get();
  if (const int error = bpf_xdp_detach(program->ifindex, program->mode_flags, &options); error != 0)
    return failed(interface_ + ": detaching the steering program", -error);
  return {};
}

}  // namespace sluice::bpf_loader
