// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/effective.hpp"

#include <algorithm>
#include <cassert>

namespace sluice::publish {
namespace {

template <class Model, class Abi>
constexpr bool same(Model m, Abi a) {
  return static_cast<int>(m) == static_cast<int>(a);
}
using m_mode = model::forward_mode;
using a_mode = abi::forward_mode;
static_assert(same(m_mode::dsr_l2, a_mode::dsr_l2) && same(m_mode::ipip, a_mode::ipip) &&
              same(m_mode::gue, a_mode::gue) && same(m_mode::gre, a_mode::gre) &&
              same(m_mode::dsr_dscp, a_mode::dsr_dscp) && same(m_mode::nat, a_mode::nat) &&
              same(m_mode::full_nat, a_mode::full_nat) && same(8, a_mode::count_));
using m_kind = model::scheduler_kind;
using a_kind = abi::scheduler;
static_assert(same(m_kind::maglev, a_kind::maglev) && same(m_kind::ring_hash, a_kind::ring_hash) &&
              same(m_kind::partitioned_hash, a_kind::partitioned_hash) &&
              same(m_kind::source_hash, a_kind::source_hash) &&
              same(m_kind::round_robin, a_kind::round_robin) &&
              same(m_kind::weighted_round_robin, a_kind::weighted_round_robin) &&
              same(m_kind::random, a_kind::random) &&
              same(m_kind::weighted_random, a_kind::weighted_random) &&
              same(m_kind::least_connections, a_kind::least_connections) &&
              same(m_kind::weighted_least_connections, a_kind::weighted_least_connections) &&
              same(11, a_kind::count_));
static_assert(same(model::client_address::none, abi::client_address::none) &&
              same(model::client_address::proxy_v2, abi::client_address::proxy_v2) &&
              same(model::client_address::toa, abi::client_address::toa));

// clamp_of() returns the segment size that fits every path; 0: not clamped.
std::uint16_t clamp_of(const model::service& s, std::span<const condition> conditions) {
  if (!s.mss_clamp.automatic) return s.mss_clamp.bytes;
  // Headers of the inner packet: TCP 20, and IPv4 20 or IPv6 40.
  const int headers = s.address.is_v4() ? 40 : 60;
  std::optional<int> least;
  for (std::size_t i = 0; i < s.backends.size(); ++i) {
    if (!conditions[i].next_hop) continue;
    const int room =
        conditions[i].next_hop->mtu - model::overhead(s.forward, s.backends[i].address.is_v4());
    least = least ? std::min(*least, room) : room;
  }
  if (!least) return 0;
  return static_cast<std::uint16_t>(std::max(*least - headers, 1));
}

bool is_up(abi::shown_health h) noexcept {
  return h == abi::shown_health::up || h == abi::shown_health::unchecked;
}

}  // namespace

abi::shown_health health_of(const model::service& service, const model::backend& b,
                            const condition& c) noexcept {
  if (b.sorry) return abi::shown_health::unchecked;
  if (c.unfit) return abi::shown_health::down;
  const bool checked = service.health.kind != model::health_kind::none;
  const auto found = checked ? c.health : abi::shown_health::unchecked;
  return c.unheard && found != abi::shown_health::down ? abi::shown_health::unknown : found;
}

decision::verdict decide(const model::service& service, std::span<const condition> conditions,
                         const decision::memory& before, decision::time_point now) {
  std::vector<decision::finding> findings;
  findings.reserve(conditions.size());
  for (std::size_t i = 0; i < conditions.size(); ++i) {
    const condition& c = conditions[i];
    findings.push_back({.health = health_of(service, service.backends[i], c),
                        .reachable = c.next_hop.has_value(),
                        .weight = c.weight,
                        .asked = c.asked,
                        .wish = c.wish,
                        .unfit = c.unfit,
                        .full = c.full});
  }
  return decision::decide(service, findings, before, now);
}

published_service effective(const model::service& service, std::span<const condition> conditions) {
  return effective(service, conditions, decide(service, conditions, {}, {}));
}

published_service effective(const model::service& service, std::span<const condition> conditions,
                            const decision::verdict& decided) {
  assert(conditions.size() == service.backends.size());
  assert(decided.backends.size() == service.backends.size());
  published_service out;
  out.name = service.name;
  out.address = service.address;
  out.protocol = static_cast<std::uint8_t>(service.protocol);
  out.port_first = service.port.first;
  out.port_last = service.port.last;
  out.mode = static_cast<abi::forward_mode>(service.forward);
  out.kind = static_cast<abi::scheduler>(service.scheduler);
  out.table_size = service.table_size;
  out.mss_clamp = clamp_of(service, conditions);
  out.client = service.client;
  out.persistence = service.persistence;
  out.quic_id_length = service.quic_id_length;
  out.limits = service.limits;
  out.backends.reserve(service.backends.size());
  for (std::size_t i = 0; i < service.backends.size(); ++i) {
    const model::backend& from = service.backends[i];
    published_backend b;
    b.address = from.address;
    b.weight = from.weight;
    b.effective_weight = decided.backends[i].weight;
    b.keeps_connections = decided.backends[i].keeps;
    b.tier = from.tier;
    b.health = health_of(service, from, conditions[i]);
    b.admin = from.admin == model::admin_state::enabled || from.admin == model::admin_state::up
                  ? abi::shown_admin::enabled
                  : abi::shown_admin::draining;
    b.next_hop = conditions[i].next_hop;
    b.port = from.port;
    b.dscp = from.dscp;
    b.quic_id = from.quic_id;
    out.backends.push_back(b);
  }
  // A ping asks whether the service can be had: not when its backends are only tried because
  // too few of them are healthy.
  out.answers_echo = service.echo && (decided.tier.has_value() || decided.sorry);
  return out;
}

bool panics(const published_service& service) noexcept {
  return std::any_of(service.backends.begin(), service.backends.end(), [](const auto& b) {
    return b.effective_weight != 0 && !(is_up(b.health) && b.next_hop);
  });
}

}  // namespace sluice::publish
