// SPDX-License-Identifier: Apache-2.0
// source: one place that backends are learnt from, asked once however many services share it.
//
// Threading: everything on the loop's thread, reports too.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/loop/event_loop.hpp"
#include "controlplane/model/model.hpp"

namespace sluice::discover {

// found: one backend as its source names it; its tier counts from 0.
struct found {
  model::backend backend;
  bool weighted{false};  // the source gave the weight

  bool operator==(const found&) const = default;
};

// A whole answer, or why there is none: then what is known stays.
using report = tl::expected<std::vector<found>, std::string>;
using on_report = std::function<void(report)>;

// question: what tells one source from another.
struct question {
  model::discovery what;  // without what only the service does with the answer
  bool ipv4{};            // dns, kubernetes: the addresses that are asked for
  bool ipv6{};
  ip_address vip{};  // kubernetes: what is written into a Service's status

  [[nodiscard]] std::string key() const;
};
[[nodiscard]] question question_of(const model::service& s);

class source {
 public:
  source() = default;
  virtual ~source() = default;
  source(const source&) = delete;
  source& operator=(const source&) = delete;

  // start() has reports follow, the first soon, never from within start().
  virtual void start() = 0;
  // stop() ends them.
  virtual void stop() = 0;
};

using source_factory =
    std::function<std::unique_ptr<source>(event_loop&, const question&, on_report)>;
[[nodiscard]] std::unique_ptr<source> make_source(event_loop& loop, const question& q,
                                                  on_report report_to);

// backends_of() is an answer as backends of a service, sorted by address; or why the answer is
// refused: too many backends, an address twice with different values, a weight or tier out of
// range. Whether they go with the rest of the desired state is not looked at.
[[nodiscard]] tl::expected<std::vector<model::backend>, std::string> backends_of(
    const model::service& s, const std::vector<found>& answer);

}  // namespace sluice::discover
