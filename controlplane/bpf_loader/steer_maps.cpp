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
#include <map>
#include <optional>
#include <string_view>
#include <system_error>
#include <type_traits>
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

struct bytes_less {
  template <class T>
  bool operator()(const T& a, const T& b) const noexcept {
    static_assert(std::has_unique_object_representations_v<T>);
    return std::memcmp(&a, &b, sizeof a) < 0;
  }
};

// sync() makes a hash map or trie hold exactly `wanted`: adds before it removes.
template <class Map>
tl::expected<steer_update, steer_error> sync(const attached_program& program, const char* name,
                                             const Map& wanted, std::size_t most) {
  using key_type = typename Map::key_type;
  using value_type = typename Map::mapped_type;
  const auto map = open_map(program, name, sizeof(key_type), sizeof(value_type));
  if (!map) return tl::unexpected{map.error()};
  std::map<key_type, value_type, bytes_less> present;
  key_type key{};
  const key_type* previous = nullptr;
  for (key_type next{}; bpf_map_get_next_key(map->get(), previous, &next) == 0;) {
    value_type value{};
    if (bpf_map_lookup_elem(map->get(), &next, &value) == 0) present.insert_or_assign(next, value);
    key = next;
    previous = &key;
    // A concurrent writer can make the walk start over; a map never holds more.
    if (present.size() > most) return failed(std::string{"reading "} + name, EOVERFLOW);
  }
  if (errno != ENOENT) return failed(std::string{"reading "} + name, errno);

  steer_update update;
  for (const auto& [k, value] : wanted) {
    const auto there = present.find(k);
    if (there != present.end() && std::memcmp(&there->second, &value, sizeof(value)) == 0) continue;
    if (bpf_map_update_elem(map->get(), &k, &value, BPF_ANY) != 0)
      return failed(std::string{"adding to "} + name, errno);
    ++update.added;
  }
  for (const auto& [k, value] : present) {
    if (wanted.find(k) != wanted.end()) continue;
    if (bpf_map_delete_elem(map->get(), &k) != 0 && errno != ENOENT)
      return failed(std::string{"removing from "} + name, errno);
    ++update.removed;
  }
  return update;
}

using address_set = std::map<sluice_address, std::uint32_t, bytes_less>;
using prefix_set = std::map<sluice_prefix, std::uint32_t, bytes_less>;

address_set make_addresses(const std::vector<ip_address>& addresses) {
  address_set out;
  for (const ip_address& a : addresses) {
    sluice_address key{};
    std::memcpy(key.bytes, a.bytes.data(), sizeof key.bytes);
    out.emplace(key, 1u);
  }
  return out;
}

prefix_set make_prefixes(const std::vector<ip_prefix>& prefixes) {
  prefix_set out;
  for (const ip_prefix& p : prefixes) {
    sluice_prefix key{};
    key.length = p.length + (p.address.is_v4() ? 96u : 0u);
    std::memcpy(key.bytes, p.address.bytes.data(), sizeof key.bytes);
    out.emplace(key, 1u);
  }
  return out;
}

tl::expected<void, steer_error> set_config(const attached_program& program,
                                           const sluice_steer_config& config) {
  const auto map =
      open_map(program, SLUICE_STEER_CONFIG_MAP, sizeof(std::uint32_t), sizeof(config));
  if (!map) return tl::unexpected{map.error()};
  const std::uint32_t zero = 0;
  if (bpf_map_update_elem(map->get(), &zero, &config, BPF_ANY) != 0)
    return failed("writing " SLUICE_STEER_CONFIG_MAP, errno);
  return {};
}

}  // namespace

tl::expected<std::uint32_t, steer_error> steer_maps::program_id() const {
  return find_program(interface_).map([](const attached_program& p) { return p.id; });
}

tl::expected<steer_update, steer_error> steer_maps::set_vips(std::span<const vip> vips) const {
  steer_contents contents;
  contents.vips.assign(vips.begin(), vips.end());
  return set(contents);
}

tl::expected<steer_update, steer_error> steer_maps::set(const steer_contents& contents) const {
  const auto named = [this](steer_error e) {
    e.text = interface_ + ": " + e.text;
    return tl::unexpected{std::move(e)};
  };
  const auto vips = make_vip_entries(contents.vips);
  if (!vips) return named({steer_error::kind::invalid, vips.error()});
  const auto sources = make_vip_entries(contents.nat_sources);
  if (!sources) return named({steer_error::kind::invalid, sources.error()});
  const auto program = find_program(interface_);
  if (!program) return tl::unexpected{program.error()};

  using result = tl::expected<steer_update, steer_error>;
  // What restricts nat_sources before nat_sources, which take effect with the flag.
  if (const result r = sync(*program, SLUICE_HOST_SET_MAP, make_addresses(contents.host_addresses),
                            SLUICE_MAX_HOST_ADDRESSES);
      !r)
    return named(r.error());
  if (const result r = sync(*program, SLUICE_NAT_SOURCES_MAP, *sources, SLUICE_MAX_VIP_ENTRIES); !r)
    return named(r.error());
  if (const result r = sync(*program, SLUICE_ENCAP_SOURCES_MAP,
                            make_prefixes(contents.encap_sources), SLUICE_MAX_ENCAP_SOURCES);
      !r)
    return named(r.error());
  const sluice_steer_config config{sources->empty() ? 0u : SLUICE_STEER_NAT,
                                   be16{contents.gue_port}.raw(), 0};
  if (const auto r = set_config(*program, config); !r) return named(r.error());
  const result update = sync(*program, SLUICE_VIP_SET_MAP, *vips, SLUICE_MAX_VIP_ENTRIES);
  if (!update) return named(update.error());
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
