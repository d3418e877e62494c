// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/vip_entries.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace sluice::bpf_loader {

namespace {

struct range {
  std::uint32_t first;
  std::uint32_t last;
};

sluice_vip_key make_key(const ip_address& address, std::uint16_t port, ip_proto protocol) {
  sluice_vip_key key{};
  std::memcpy(key.address, address.bytes.data(), sizeof(key.address));
  key.port = be16{port}.raw();
  key.protocol = static_cast<std::uint8_t>(protocol);
  return key;
}

// merge() returns disjoint ranges that are not adjacent, the largest first.
std::vector<range> merge(std::vector<range> ranges) {
  std::ranges::sort(ranges, {}, &range::first);
  std::vector<range> merged;
  for (const range& r : ranges) {
    if (!merged.empty() && r.first <= merged.back().last + 1)
      merged.back().last = std::max(merged.back().last, r.last);
    else
      merged.push_back(r);
  }
  std::ranges::stable_sort(merged, std::ranges::greater{},
                           [](const range& r) { return r.last - r.first; });
  return merged;
}

}  // namespace

bool vip_key_less::operator()(const sluice_vip_key& a, const sluice_vip_key& b) const noexcept {
  return std::memcmp(&a, &b, sizeof(a)) < 0;
}

tl::expected<vip_entries, std::string> make_vip_entries(std::span<const vip> vips) {
  vip_entries entries;
  std::map<std::pair<ip_address, ip_proto>, std::vector<range>> ranges;
  const auto add_port = [&entries](const ip_address& address, std::uint32_t port, ip_proto p) {
    entries.try_emplace(make_key(address, static_cast<std::uint16_t>(port), p));
    return entries.size() <= SLUICE_MAX_VIP_ENTRIES;
  };
  const auto too_many = [] {
    return tl::unexpected{"the services need more than " + std::to_string(SLUICE_MAX_VIP_ENTRIES) +
                          " entries in the steering program's map"};
  };

  for (const vip& v : vips) {
    if (v.first_port > v.last_port)
      return tl::unexpected{"port range " + std::to_string(v.first_port) + "-" +
                            std::to_string(v.last_port) + " is upside down"};
    entries.try_emplace(make_key(v.address, 0, ip_proto{0}));
    if (v.first_port == v.last_port && v.first_port != 0) {
      if (!add_port(v.address, v.first_port, v.protocol)) return too_many();
    } else {
      ranges[{v.address, v.protocol}].push_back({v.first_port, v.last_port});
    }
  }
  for (const auto& [service, asked] : ranges) {
    const auto& [address, protocol] = service;
    sluice_vip_value value{};
    for (const range& r : merge(asked)) {
      if (value.ranges < SLUICE_VIP_RANGES) {
        value.range[value.ranges++] = {static_cast<std::uint16_t>(r.first),
                                       static_cast<std::uint16_t>(r.last)};
        continue;
      }
      for (std::uint32_t port = r.first; port <= r.last; ++port)
        if (!add_port(address, port, protocol)) return too_many();
    }
    entries.insert_or_assign(make_key(address, 0, protocol), value);
  }
  if (entries.size() > SLUICE_MAX_VIP_ENTRIES) return too_many();
  return entries;
}

}  // namespace sluice::bpf_loader
