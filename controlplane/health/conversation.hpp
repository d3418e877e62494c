// SPDX-License-Identifier: Apache-2.0
// conversation: what is said over a connection, as bytes in and out. No sockets, no time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "controlplane/health/attempt.hpp"

namespace sluice::health {

class conversation {
 public:
  conversation() = default;
  virtual ~conversation() = default;
  conversation(const conversation&) = delete;
  conversation& operator=(const conversation&) = delete;

  // begin() says that the connection is there.
  [[nodiscard]] virtual std::optional<probe_result> begin() { return std::nullopt; }
  // take_output() is what is to be sent next; empty: nothing for now.
  [[nodiscard]] virtual std::string take_output() = 0;
  // feed() takes what has arrived.
  [[nodiscard]] virtual std::optional<probe_result> feed(std::string_view bytes) = 0;
  // closed() says that nothing more will arrive.
  [[nodiscard]] virtual probe_result closed() = 0;
  // waiting() continues "timeout after 500 ms".
  [[nodiscard]] virtual std::string waiting() const = 0;
};

// start_conversation() makes the one of the target's kind, or says why that cannot be. Null for
// tcp: nothing is said.
struct started_conversation {
  std::unique_ptr<conversation> talk;
  std::optional<probe_result> error;
};
[[nodiscard]] started_conversation start_conversation(const target& t, tls_contexts& tls);

// host_of() is the Host of requests to a target: the check's, or its address.
[[nodiscard]] std::string host_of(const target& t, std::uint16_t usual_port);
// good_request() tells whether path and host hold only what HTTP allows there.
[[nodiscard]] bool good_request(const target& t) noexcept;

}  // namespace sluice::health
