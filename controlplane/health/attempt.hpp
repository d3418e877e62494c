// SPDX-License-Identifier: Apache-2.0
// attempt: how one check of one kind is done, from its start to its result. One is made for
// each check, and destroyed to end it. Threading: the loop's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "controlplane/health/health_checker.hpp"
#include "controlplane/loop/event_loop.hpp"

namespace sluice::health {

enum class probe_outcome : std::uint8_t { ok, failed, shortage };

struct probe_result {
  probe_outcome outcome{};
  std::string text;
  std::optional<std::uint32_t> weight{};  // that the backend shall have from now on
};

class tls_contexts;
class ping_socket;

// probe_tools: what attempts share.
struct probe_tools {
  event_loop& loop;
  socket_factory make_socket;
  tls_contexts& tls;
  ping_socket& ping4;
  ping_socket& ping6;
  std::optional<std::string> programs_in;  // as of checker_options
};

class attempt {
 public:
  using done_callback = std::function<void(probe_result)>;

  attempt() = default;
  virtual ~attempt() = default;
  attempt(const attempt&) = delete;
  attempt& operator=(const attempt&) = delete;

  // start() begins. A result that is known at once is returned; otherwise done is called with
  // it later, once, by the loop, and may destroy this.
  [[nodiscard]] virtual std::optional<probe_result> start(done_callback done) = 0;
  // timed_out() words the result when the time is over. An answer that had already arrived
  // counts, though the loop did not get to read it: our lateness is not the target's.
  [[nodiscard]] virtual probe_result timed_out() = 0;
};

// make_attempt() makes one of the target's kind; `t` and `tools` must outlive it.
[[nodiscard]] std::unique_ptr<attempt> make_attempt(const target& t, probe_tools& tools);

[[nodiscard]] probe_result failed(std::string text);
[[nodiscard]] probe_result succeeded(std::string text);
// from_errno() is a failure of the target's, or a lack of ours.
[[nodiscard]] probe_result from_errno(int error);
[[nodiscard]] std::string error_text(int error);
// no_socket() words why a target's socket could not be made.
[[nodiscard]] probe_result no_socket(const target& t, int error);
[[nodiscard]] probe_result source_not_ours();
// timeout_text() is "timeout after 500 ms".
[[nodiscard]] std::string timeout_text(const target& t);

}  // namespace sluice::health
