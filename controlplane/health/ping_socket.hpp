// SPDX-License-Identifier: Apache-2.0
// ping_socket: one ICMP socket for all targets of a family. A raw one where that is allowed
// (CAP_NET_RAW), which also hears that a host is unreachable; else the kernel's ping socket
// (net.ipv4.ping_group_range). Opened when it is first needed. Threading: the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/health/attempt.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::health {

// ping_way: how a request leaves, where the kernel does not choose.
struct ping_way {
  std::optional<ip_address> source{};
  std::uint32_t interface {};
  std::uint32_t mark{};
};

class ping_socket {
 public:
  using answer_callback = std::function<void(probe_result)>;

  ping_socket(event_loop& loop, bool v4) noexcept : loop_{loop}, v4_{v4} {}
  ~ping_socket();
  ping_socket(const ping_socket&) = delete;
  ping_socket& operator=(const ping_socket&) = delete;

  // send() sends a request; on_answer is called once, unless forget() comes first.
  [[nodiscard]] tl::expected<std::uint16_t, probe_result> send(const ip_address& to,
                                                               const ping_way& way,
                                                               answer_callback on_answer);
  void forget(std::uint16_t sequence) noexcept { waiting_.erase(sequence); }
  // late_answer() is what has arrived for a request though nobody was told; nobody is told now.
  [[nodiscard]] std::optional<probe_result> late_answer(std::uint16_t sequence);

 private:
  struct waiting {
    ip_address to;
    answer_callback on_answer;
    std::optional<probe_result> result{};
  };
  void receive();
  void collect();
  void deliver();
  [[nodiscard]] std::optional<probe_result> open();
  [[nodiscard]] std::uint64_t data_of(std::uint16_t sequence) const noexcept;

  event_loop& loop_;
  const bool v4_;
  int fd_{-1};
  bool raw_{false};
  std::uint16_t identifier_{0};
  std::uint16_t next_{0};
  std::uint64_t secret_{0};
  std::unordered_map<std::uint16_t, waiting> waiting_;
  std::vector<std::uint16_t> ready_;  // who has a result and was not told
  event_loop::timer_id deliver_timer_{0};
};

}  // namespace sluice::health
