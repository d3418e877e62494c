// SPDX-License-Identifier: Apache-2.0
// A GET by HTTP/1.1, of which only the status matters.
#pragma once

#include "controlplane/health/conversation.hpp"
#include "controlplane/health/http_status_parser.hpp"

namespace sluice::health {

class http1_conversation final : public conversation {
 public:
  // good_request() holds. `t` outlives this.
  explicit http1_conversation(const target& t);

  [[nodiscard]] std::string take_output() override;
  [[nodiscard]] std::optional<probe_result> feed(std::string_view bytes) override;
  [[nodiscard]] probe_result closed() override;
  [[nodiscard]] std::string waiting() const override;

 private:
  const target& target_;
  std::string request_;
  http_status_parser parser_;
};

}  // namespace sluice::health
