// SPDX-License-Identifier: Apache-2.0
// A request by HTTP/2 (nghttp2 does the framing): a GET of which only the status matters, or
// gRPC's health check (grpc.health.v1.Health/Check).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "controlplane/health/conversation.hpp"

struct nghttp2_session;

namespace sluice::health {

class http2_conversation final : public conversation {
 public:
  // `t` outlives this.
  explicit http2_conversation(const target& t);
  ~http2_conversation() override;

  [[nodiscard]] std::optional<probe_result> begin() override;
  [[nodiscard]] std::string take_output() override;
  [[nodiscard]] std::optional<probe_result> feed(std::string_view bytes) override;
  [[nodiscard]] probe_result closed() override;
  [[nodiscard]] std::string waiting() const override;

 private:
  struct callbacks;
  void conclude(probe_result result);
  [[nodiscard]] probe_result judge_grpc() const;

  const target& target_;
  const bool grpc_;
  nghttp2_session* session_{nullptr};
  std::string body_;  // of the request
  std::size_t body_sent_{0};
  std::size_t total_{0};
  unsigned status_{0};       // 0: none yet
  std::string grpc_status_;  // from headers or trailers
  std::string message_;      // the response's first bytes
  bool message_too_long_{false};
  std::optional<probe_result> result_;
};

// grpc_request() is the body of a check of a service; grpc_serving() reads a response's body: the
// number that says how the service is, nothing if it is not one. Pure.
[[nodiscard]] std::string grpc_request(std::string_view service);
[[nodiscard]] std::optional<std::uint64_t> grpc_serving(std::string_view body);

}  // namespace sluice::health
