// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/effective.hpp"

#include <algorithm>
#include <cassert>

namespace sluice::publish {
namespace {

static_assert(
    static_cast<int>(model::forward_mode::dsr_l2) == static_cast<int>(abi::forward_mode::dsr_l2) &&
    static_cast<int>(model::forward_mode::ipip) == static_cast<int>(abi::forward_mode::ipip) &&
    static_cast<int>(model::scheduler_kind::maglev) == static_cast<int>(abi::scheduler::maglev));

bool is_up(abi::shown_health h) noexcept {
  return h == abi::shown_health::up || h == abi::shown_health::unchecked;
}

// give_weights() gives the backends that pass, in the first tier that has one, their
// weight. False: none passes.
template <class Test>
bool give_weights(published_service& s, Test&& passes) {
  std::optional<std::uint8_t> tier;
  for (const auto& b : s.backends)
    if (b.weight != 0 && b.admin == abi::shown_admin::enabled && passes(b))
      tier = tier ? std::min(*tier, b.tier) : b.tier;
  if (!tier) return false;
  for (auto& b : s.backends)
    if (b.weight != 0 && b.admin == abi::shown_admin::enabled && b.tier == *tier && passes(b))
      b.effective_weight = b.weight;
  return true;
}

}  // namespace

published_service effective(const model::service& service, std::span<const condition> conditions) {
  assert(conditions.size() == service.backends.size());
  published_service out;
  out.name = service.name;
  out.address = service.address;
  out.protocol = static_cast<std::uint8_t>(service.protocol);
  out.port_first = service.port.first;
  out.port_last = service.port.last;
  out.mode = static_cast<abi::forward_mode>(service.forward);
  out.kind = static_cast<abi::scheduler>(service.scheduler);
  out.table_size = service.table_size;
  out.backends.reserve(service.backends.size());
  for (std::size_t i = 0; i < service.backends.size(); ++i) {
    const model::backend& from = service.backends[i];
    published_backend b;
    b.address = from.address;
    b.weight = from.weight;
    b.tier = from.tier;
    b.health = service.health.kind == model::health_kind::none ? abi::shown_health::unchecked
                                                               : conditions[i].health;
    b.admin = from.admin == model::admin_state::drain ? abi::shown_admin::draining
                                                      : abi::shown_admin::enabled;
    b.next_hop = conditions[i].next_hop;
    out.backends.push_back(b);
  }
  if (!give_weights(out, [](const auto& b) { return is_up(b.health) && b.next_hop; }) &&
      !give_weights(out, [](const auto& b) { return b.next_hop.has_value(); }))
    give_weights(out, [](const auto&) { return true; });
  for (auto& b : out.backends)
    b.keeps_connections = b.health != abi::shown_health::down || b.effective_weight != 0;
  return out;
}

bool panics(const published_service& service) noexcept {
  return std::any_of(service.backends.begin(), service.backends.end(), [](const auto& b) {
    return b.effective_weight != 0 && !(is_up(b.health) && b.next_hop);
  });
}

}  // namespace sluice::publish
