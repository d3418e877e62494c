// SPDX-License-Identifier: Apache-2.0
// health_checker: asks backends whether they serve, in one of several ways (attempt.hpp), on one
// event loop. 10,000 targets at one probe a second is what it is built for.
//
// Rules
// - A target is its value: two users of an equal target share one probe. A target
//   that is in the next set_targets() too keeps its state and its schedule. One
//   whose check changed takes over the state of the one it replaces (same address
//   and port), so that no reload forgets health.
// - unknown becomes up at the first success and down at the first failure. up
//   becomes down after `fall` failures in a row, down becomes up after `rise`
//   successes in a row.
// - A new target is first probed within min(interval, 200 ms), at an offset derived
//   from its value; its second probe is moved by a part of the interval in the same
//   way, so that targets that were added together do not fire together ever after.
// - Probes start every `interval`, counted from start to start, or up to `jitter` per cent of it
//   earlier. While a change is in doubt (a failure seen in up, a success in down) the next one
//   starts after min(interval, fast_interval). A target that stops answering is therefore down
//   after at most max(interval, timeout) * fall + timeout.
// - A lack of our own (descriptors, memory) delays a probe and is never held against the
//   target.
//
// Threading: everything on the loop's thread; see event_loop::invoke().
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/loop/event_loop.hpp"
#include "controlplane/model/model.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::health {

// data_path: a probe that goes to the VIP, by the way that a service's packets take.
struct data_path {
  ip_address vip;
  model::forward_mode mode{};
  std::uint8_t dscp{};  // dsr-dscp

  bool operator==(const data_path&) const = default;
};

struct target {
  ip_address address;         // the backend's
  std::uint16_t port{};       // the port that is probed (host order); check.port is not looked at
  model::health_check check;  // kind none: never probed, left out of snapshots
  std::optional<data_path> path{};  // nothing: straight to the address

  // Equal when the probes are the same: check.port is ignored, fields that the kind does not
  // use, and check.via where there is no path.
  friend bool operator==(const target& a, const target& b) noexcept;
};

struct target_hash {
  std::size_t operator()(const target& t) const noexcept;
};

// make_target() resolves check.port: 0 means the service's port.
[[nodiscard]] target make_target(const ip_address& backend, std::uint16_t service_port,
                                 const model::health_check& check,
                                 std::optional<data_path> path = {});

enum class health_state : std::uint8_t { unknown, up, down };
[[nodiscard]] const char* to_string(health_state s) noexcept;

struct verdict {
  bool up{};
  std::optional<std::uint32_t> weight;         // that the probe reported; only when up
  std::string reason;                          // "HTTP 503", "connection refused", ...
  std::chrono::system_clock::time_point time;  // for people
  event_loop::time_point decided;              // for measuring
};

// One target as seen by snapshot().
struct target_status {
  health::target target;
  health_state state{health_state::unknown};
  std::optional<std::uint32_t> weight;  // that the last probe reported
  bool confirmed{};                     // false: seeded or inherited, no verdict by a probe yet
  std::string last_result;              // empty before the first probe ended
  bool last_ok{};
  std::uint32_t consecutive{};                        // results in a row equal to the last one
  std::chrono::microseconds latency{};                // of the last probe that succeeded
  std::uint64_t checks{};                             // probes that ended
  std::uint64_t failed{};                             // of these, failures
  std::chrono::system_clock::time_point last_change;  // epoch: never
};

struct wanted_target {
  health::target target;
  // Taken for a target that the checker does not know: what was stored before a restart.
  health_state initial{health_state::unknown};
};

// probe_socket: a socket, and where it connects to when that is not the target's address. Pings
// have one socket for all: of theirs fd is -1.
struct probe_socket {
  probe_socket() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): a descriptor alone is the usual case.
  probe_socket(int descriptor) noexcept : fd{descriptor} {}

  int fd{-1};
  std::optional<ip_address> to{};
  std::uint32_t scope{};  // interface of a link-local address, or to send a ping by
  std::uint32_t mark{};   // of a ping
};

// Makes the socket of a probe: non-blocking, close-on-exec, of the family of the address that
// it connects to; none for a ping. The seam for probes through the data path.
using socket_factory = std::function<tl::expected<probe_socket, std::error_code>(const target&)>;
[[nodiscard]] tl::expected<int, std::error_code> make_plain_socket(const target& t);

struct checker_options {
  // Sockets open at once; 0: three quarters of RLIMIT_NOFILE. More wait their turn.
  std::size_t max_in_flight{0};
  std::size_t max_programs{64};                   // of kind exec at once; more wait their turn
  std::optional<std::string> programs_in{};       // the only directory of programs; nothing: any
  std::chrono::milliseconds fast_interval{1000};  // where a check has none of its own
  socket_factory make_socket{make_plain_socket};
};

struct checker_counters {
  std::uint64_t started{};
  std::uint64_t succeeded{};
  std::uint64_t failed{};
  std::uint64_t deferred{};  // had to wait for a descriptor or memory
  std::size_t in_flight{};
  std::size_t waiting{};
};

// raise_file_limit() lifts the soft RLIMIT_NOFILE to the hard one; returns the soft limit.
std::size_t raise_file_limit() noexcept;

class health_checker {
 public:
  // Called at every transition, when an up target reports another weight than before, when a down
  // one is so for another reason, and at the first probe that confirms what a target was seeded
  // with. May call set_targets() and
  // probe_now().
  using verdict_callback = std::function<void(const target&, const verdict&)>;

  // Calls raise_file_limit(). The loop must outlive the checker.
  health_checker(event_loop& loop, verdict_callback on_verdict, checker_options options = {});
  ~health_checker();
  health_checker(const health_checker&) = delete;
  health_checker& operator=(const health_checker&) = delete;

  // set_targets() replaces the set. Duplicates and kind none are dropped.
  void set_targets(const std::vector<wanted_target>& wanted);
  // probe_now() starts a probe at once (or lets the running one count); false: no such target.
  bool probe_now(const target& t);

  // state_of() is unknown for a target that is not in the set.
  [[nodiscard]] health_state state_of(const target& t) const;
  // weight_of() is what the target last reported; nothing when it is not up, or says nothing.
  [[nodiscard]] std::optional<std::uint32_t> weight_of(const target& t) const;
  [[nodiscard]] std::vector<target_status> snapshot() const;  // order not specified
  [[nodiscard]] checker_counters counters() const;

 private:
  class impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace sluice::health
