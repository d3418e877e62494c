// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/steer_maps.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <map>
#include <utility>
#include <vector>

#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/standin_abi.h"

namespace sluice::bpf_loader {

namespace {

// sync() makes a hash map or trie hold exactly `wanted`: adds before it removes.
template <class Map>
tl::expected<steer_update, steer_error> sync(const attached_program& program, const char* name,
                                             const Map& wanted, std::size_t most) {
  const auto map =
      open_map(program, name, sizeof(typename Map::key_type), sizeof(typename Map::mapped_type));
  if (!map) return tl::unexpected{map.error()};
  const auto present = read_map<Map>(map->get(), name, most);
  if (!present) return tl::unexpected{present.error()};
  const auto added = add_missing(map->get(), wanted, *present);
  if (!added) return tl::unexpected{added.error()};
  const auto removed = remove_extra(map->get(), wanted, *present);
  if (!removed) return tl::unexpected{removed.error()};
  return steer_update{*added, *removed};
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

tl::expected<mirror_state, steer_error> steer_maps::mirror() const {
  const auto program = find_program(interface_);
  if (!program) return tl::unexpected{program.error()};
  const auto map =
      open_map(*program, SLUICE_HEARTBEAT_MAP, sizeof(std::uint32_t), sizeof(std::uint64_t));
  if (!map) return tl::unexpected{map.error()};
  const std::uint64_t now = abi::clock_ns(CLOCK_MONOTONIC);
  mirror_state state;
  for (std::uint32_t queue = 0; queue < SLUICE_MAX_XSKS; ++queue) {
    std::uint64_t beat = 0;
    if (bpf_map_lookup_elem(map->get(), &queue, &beat) != 0)
      return failed("reading " SLUICE_HEARTBEAT_MAP, errno);
    if (beat == 0) break;  // no more queues
    state.beats |= now < beat + SLUICE_HEARTBEAT_STALE_NS;
  }
  const std::uint32_t place = SLUICE_TOLD_GENERATION;
  if (bpf_map_lookup_elem(map->get(), &place, &state.generation) != 0)
    return failed("reading " SLUICE_HEARTBEAT_MAP, errno);
  return state;
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
  steer_counters out{.redirected = sum[SLUICE_STEER_REDIRECTED],
                     .no_socket = sum[SLUICE_STEER_NO_SOCKET],
                     .passed = sum[SLUICE_STEER_PASSED],
                     .malformed = sum[SLUICE_STEER_MALFORMED],
                     .forwarded = sum[SLUICE_STANDIN_FORWARDED],
                     .pinned = sum[SLUICE_STANDIN_PINNED]};
  for (std::size_t i = 0; i < out.drops.size(); ++i) {
    out.drops[i] = sum[SLUICE_STANDIN_FIRST_DROP + i];
    out.dropped += out.drops[i];
  }
  return out;
}

tl::expected<void, steer_error> steer_maps::detach() const {
  const auto program = find_program(interface_);
  if (!program) return tl::unexpected{program.error()};
  bpf_xdp_attach_opts options{};
  options.sz = sizeof(options);
  const file_descriptor fd{bpf_prog_get_fd_by_id(program->id)};
  if (!fd) return failed(interface_ + ": opening the steering program", errno);
  options.old_prog_fd = fd.get();
  if (const int error = bpf_xdp_detach(program->ifindex, program->mode_flags, &options); error != 0)
    return failed(interface_ + ": detaching the steering program", -error);
  return {};
}

}  // namespace sluice::bpf_loader
