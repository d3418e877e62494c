// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/id_book.hpp"

#include <algorithm>
#include <set>

#include "dataplane/abi/flow_hash.h"

namespace sluice::publish {
namespace {

constexpr std::uint8_t incarnation_mask = (1u << abi::backend_ref::incarnation_bits) - 1;
constexpr std::uint32_t max_vips = 0xfff0;

bool same_addresses(const service_ids& ids, const published_service& service) noexcept {
  return std::equal(ids.backends.begin(), ids.backends.end(), service.backends.begin(),
                    service.backends.end(),
                    [](const auto& a, const auto& b) { return a.first == b.address; });
}

}  // namespace

std::optional<std::uint32_t> id_pool::take() {
  if (!free_.empty() && (free_.size() > resting || top_ == limit_)) {
    const std::uint32_t id = free_.front();
    free_.pop_front();
    return id;
  }
  if (top_ == limit_) return std::nullopt;
  return top_++;
}

void id_pool::restore(std::uint32_t top, const std::vector<bool>& used) {
  top_ = top;
  free_.clear();
  for (std::uint32_t i = 0; i < top; ++i)
    if (!used[i]) free_.push_back(i);
}

id_book::id_book(std::uint32_t services, std::uint32_t backends, std::uint64_t salt)
    : service_pool_{services},
      backend_pool_{backends},
      vip_pool_{max_vips},
      rows_(backends),
      given_(backends),
      service_bases_(services) {
  for (std::uint32_t i = 0; i < backends; ++i)
    rows_[i].incarnation = static_cast<std::uint8_t>(sluice_mix64(salt + i)) & incarnation_mask;
}

void id_book::update(const published_state& state, const reader_watch& watch) {
  std::set<vip_key> wanted;
  for (const auto& s : state.services) wanted.emplace(s.address, s.protocol);
  std::erase_if(vips_, [&](const auto& vip) {
    if (wanted.contains(vip.first)) return false;
    vip_pool_.give_back(static_cast<std::uint32_t>(vip.second));
    return true;
  });
  // Both are sorted by name.
  auto next = state.services.begin();
  std::erase_if(services_, [&](const auto& entry) {
    while (next != state.services.end() && next->name < entry.first) ++next;
    if (next != state.services.end() && next->name == entry.first) return false;
    for (const auto& [address, row] : entry.second.backends) backend_pool_.give_back(row);
    service_pool_.give_back(static_cast<std::uint32_t>(entry.second.id));
    return true;
  });
  // All that is to be freed is freed before anything is given out.
  for (const auto& s : state.services)
    if (const auto known = services_.find(s.name); known != services_.end())
      free_removed(known->second, s);

  for (const auto& key : wanted)
    if (!vips_.contains(key))
      vips_.emplace(key, abi::vip_id{static_cast<std::uint16_t>(vip_pool_.take().value())});
  for (const auto& s : state.services) {
    service_ids& ids = services_[s.name];
    if (ids.id == abi::no_service) {
      const std::uint32_t id = service_pool_.take().value();
      ids.id = abi::service_id{static_cast<std::uint16_t>(id)};
      service_bases_[id] = watch.service_sums(id);
    }
    update_backends(ids, s, watch);
  }
}

void id_book::free_removed(service_ids& ids, const published_service& service) {
  if (same_addresses(ids, service)) return;  // nearly always: a verdict came
  auto next = service.backends.begin();      // both are sorted by address
  std::erase_if(ids.backends, [&](const auto& b) {
    while (next != service.backends.end() && next->address < b.first) ++next;
    if (next != service.backends.end() && next->address == b.first) return false;
    backend_pool_.give_back(b.second);
    return true;
  });
}

void id_book::update_backends(service_ids& ids, const published_service& service,
                              const reader_watch& watch) {
  if (ids.backends.size() == service.backends.size()) return;  // the removed are gone already
  std::vector<std::pair<ip_address, std::uint32_t>> merged;
  merged.reserve(service.backends.size());
  auto old = ids.backends.begin();
  for (const auto& b : service.backends) {
    if (old != ids.backends.end() && old->first == b.address) {
      merged.push_back(*old++);
      continue;
    }
    const std::uint32_t row = backend_pool_.take().value();
    if (given_[row])
      rows_[row].incarnation =
          static_cast<std::uint8_t>((rows_[row].incarnation + 1) & incarnation_mask);
    given_[row] = true;
    rows_[row].base = watch.backend_sums(row);
    merged.emplace_back(b.address, row);
  }
  ids.backends = std::move(merged);
}

bool id_book::renew(const std::string& service) {
  const auto known = services_.find(service);
  if (known == services_.end()) return false;
  for (const auto& [address, row] : known->second.backends)
    rows_[row].incarnation =
        static_cast<std::uint8_t>((rows_[row].incarnation + 1) & incarnation_mask);
  return true;
}

void id_book::forget_bases() {
  for (auto& row : rows_) row.base = {};
  for (auto& base : service_bases_) base = {};
}

bool id_book::restore(image from) {
  const auto service_top = static_cast<std::uint32_t>(from.service_bases.size());
  const auto backend_top = static_cast<std::uint32_t>(from.rows.size());
  if (service_top > service_pool_.limit() || backend_top > backend_pool_.limit()) return false;
  std::vector<bool> services(service_top);
  std::vector<bool> backends(backend_top);
  const auto claim = [](std::vector<bool>& used, std::uint32_t i) {
    if (i >= used.size() || used[i]) return false;
    used[i] = true;
    return true;
  };
  for (const auto& [name, ids] : from.services) {
    if (!claim(services, static_cast<std::uint32_t>(ids.id))) return false;
    for (const auto& [address, row] : ids.backends)
      if (!claim(backends, row)) return false;
  }
  std::uint32_t vip_top = 0;
  for (const auto& [key, id] : from.vips)
    vip_top = std::max(vip_top, static_cast<std::uint32_t>(id) + 1);
  if (vip_top > max_vips) return false;
  std::vector<bool> vips(vip_top);
  for (const auto& [key, id] : from.vips)
    if (!claim(vips, static_cast<std::uint32_t>(id))) return false;

  service_pool_.restore(service_top, services);
  backend_pool_.restore(backend_top, backends);
  vip_pool_.restore(vip_top, vips);
  services_ = std::move(from.services);
  vips_ = std::move(from.vips);
  std::copy(from.rows.begin(), from.rows.end(), rows_.begin());
  std::fill(given_.begin(), given_.begin() + backend_top, true);
  std::copy(from.service_bases.begin(), from.service_bases.end(), service_bases_.begin());
  return true;
}

std::optional<std::uint32_t> id_book::find_backend(const std::string& service,
                                                   const ip_address& address) const {
  const auto ids = services_.find(service);
  if (ids == services_.end()) return std::nullopt;
  const auto& rows = ids->second.backends;
  const auto at = std::lower_bound(rows.begin(), rows.end(), address,
                                   [](const auto& row, const auto& a) { return row.first < a; });
  return at != rows.end() && at->first == address ? std::optional{at->second} : std::nullopt;
}

}  // namespace sluice::publish
