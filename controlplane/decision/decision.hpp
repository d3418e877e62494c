// SPDX-License-Identifier: Apache-2.0
// decide(): from what is wanted of a service, what is known of its backends, what was decided
// before and the time to who gets its new connections. Pure: the memory that it needs is an
// argument and a result, so is the time, and it says when to be asked again.
//
// 0. Weights that backends ask for become those that they have as weights.hpp says.
// 1. A backend is wanted when it has weight and is not draining; what is forced counts as up or
//    down whatever was found. It can serve when it is wanted, up
//    (or not checked), its next hop is known and it is not held out for flapping. One that was
//    never probed is not up. A weight that was reported (by the backend, a check) takes the place
//    of a configured one that is not 0.
// 2. Tiers. A tier is good enough when a backend of it can serve, and those that can have at
//    least failover.tier-threshold and failover.panic-threshold per cent of the weight of the
//    wanted ones. New connections go to the lowest-numbered tier that is; when none is, to the
//    one with the largest part of its weight able to serve (the lowest-numbered of equals), if
//    that part reaches the panic threshold.
// 3. Failback. From a tier that is good enough back to one of a lower number that was left for it
//    only when that one would have been chosen for failover.failback without a break. Away from
//    a tier that is not, and to one that was not in use before: at once.
//    A backend that has as many connections as it may cannot serve meanwhile.
// 4. Sorry and panic: when no tier is left, those held out for flapping are let in. If nobody can
//    serve then, the sorry servers get all new connections; they are in no tier. Without one that
//    can, and where some can serve but less than the panic threshold, health is
//    ignored: new connections go to all wanted backends of the first tier that has one
//    with a next hop; never to one that has as many as it may. When there is none, next hops are
//    ignored, too, and the drops are counted under their name.
// 5. Slow start. A backend that was down and is given new connections again begins with
//    1/(steps + 1) of its weight and gets the same again after each time/steps. Not in panic.
// 6. Drain. A draining backend gets no new connections and keeps those it has, until
//    drain-deadline has passed since it was first seen draining.
// 7. Flapping. A backend that fell flap-damping.falls times within flap-damping.within is held
//    out until flap-damping.hold after the last fall. It keeps its connections while it is up.
// 8. A backend that is down loses its connections, unless it gets new ones (panic).
// 9. What a backend says of itself counts unless an operator has said otherwise: that it is
//    down (or no longer says that it is alive) as if checks had found it, drain as rule 6, maint
//    as if it were forced down.
// 10. The service's address is to be announced while some tier has quorum.percent of its weight
//    healthy (full and flapping backends are), one backend at least; with 0, a sorry server in use
//    will do. What was withdrawn is announced again when it has quorum.hysteresis more, for
//    quorum.hold without a break.
//
// Any thread; no shared state.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "controlplane/decision/weights.hpp"
#include "controlplane/model/model.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::decision {

// wish: what a backend asks for itself.
enum class wish : std::uint8_t { none, drain, maint };

// finding: what is known of one backend. `unchecked` counts as up.
struct finding {
  abi::shown_health health{abi::shown_health::unknown};
  bool reachable{false};  // its next hop is known
  std::optional<std::uint32_t>
      weight{};  // reported by a check: instead of the configured one, unless that is 0
  std::optional<double> asked{};  // by the backend: a part of its weight
  decision::wish wish{decision::wish::none};
  bool unfit{false};  // it says so, or does not say any more that it is alive
  bool full{false};   // has as many connections as it may
};

// standing: why a backend gets what it gets.
enum class standing : std::uint8_t {
  in_use,
  slow_start,   // in use, with a part of its weight
  panic,        // in use, although it cannot serve or another could not
  standby,      // could serve; another tier does
  flapping,     // up, but held out
  down,         // or never probed
  unreachable,  // no next hop
  draining,
  drained,      // the deadline has passed
  forced_down,  // by an operator
  off,          // weight 0
  full,         // has as many connections as it may
  sorry,        // in use, as nobody else can serve
  maintenance,  // as it asked for
};
[[nodiscard]] std::string_view to_string(standing s) noexcept;

struct backend_memory {
  ip_address address;
  bool down{false};  // when last looked at
  bool cold{false};  // was down since it was last in use
  std::optional<time_point> ramp_from;
  std::optional<time_point> drained_at;
  std::vector<time_point> falls;  // the last ones, at most flap_damping::falls; newest last
  std::optional<steered> weight;  // as it asks for

  bool operator==(const backend_memory&) const = default;
};

// memory: what the next decision about a service has to know. One made by default: nothing
// was decided yet.
struct memory {
  std::optional<std::uint8_t> tier;    // in use; nothing: none, or panic
  std::optional<std::uint8_t> left;    // the lowest-numbered that fell short while in use
  std::optional<std::uint8_t> better;  // what would be chosen if it were not for failback
  time_point better_since{};
  steering_memory steering;
  bool announced{false};
  bool withdrawn{false};                   // was announced once
  std::optional<time_point> enough_since;  // while withdrawn
  std::vector<backend_memory> backends;    // sorted by address

  bool operator==(const memory&) const = default;
};

struct backend_decision {
  std::uint32_t weight{};  // for new connections; 0: none
  bool keeps{true};        // its connections
  standing why{standing::in_use};
  std::optional<time_point> until;  // slow_start, flapping, draining: when that ends

  bool operator==(const backend_decision&) const = default;
};

struct verdict {
  std::vector<backend_decision> backends;  // in the order of the service's
  std::optional<std::uint8_t> tier;        // nothing: none, or panic, or sorry
  bool panic{false};
  bool sorry{false};     // only sorry servers get new connections
  bool announce{false};  // the service's address
  memory next;
  std::optional<time_point> again;  // ask again then, even if nothing happens
};

// decide() takes one finding for each backend, in their order (sorted by address).
[[nodiscard]] verdict decide(const model::service& service, std::span<const finding> findings,
                             const memory& before, time_point now);

}  // namespace sluice::decision
