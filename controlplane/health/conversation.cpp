// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/conversation.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <utility>

#include "controlplane/health/http1_conversation.hpp"
#include "controlplane/health/http2_conversation.hpp"
#include "controlplane/health/tls_conversation.hpp"

namespace sluice::health {
namespace {

bool all_visible(std::string_view s) noexcept {
  return std::ranges::all_of(s, [](char c) { return c > 0x20 && c < 0x7f; });
}

std::string literal_host(const ip_address& a) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (a.is_v4()) {
    ::inet_ntop(AF_INET, a.bytes.data() + 12, text.data(), text.size());
    return text.data();
  }
  ::inet_ntop(AF_INET6, a.bytes.data(), text.data(), text.size());
  // append: gcc 12 warns falsely (-Wrestrict) about a literal + string.
  return std::string{"["}.append(text.data()).append("]");
}

}  // namespace

bool good_request(const target& t) noexcept {
  const std::string& path = t.check.path;
  return !path.empty() && path[0] == '/' && all_visible(path) && all_visible(t.check.host);
}

std::string host_of(const target& t, std::uint16_t usual_port) {
  if (!t.check.host.empty()) return t.check.host;
  std::string host = literal_host(t.address);
  if (t.port != usual_port) host.append(":").append(std::to_string(t.port));
  return host;
}

started_conversation start_conversation(const target& t, tls_contexts& tls) {
  started_conversation out;
  if (t.check.kind == model::health_kind::tcp) return out;
  if (!good_request(t)) {
    out.error = failed("the check's path or host is not valid in an HTTP request");
    return out;
  }
  const bool http2 =
      t.check.kind == model::health_kind::http2 || t.check.kind == model::health_kind::grpc;
  if (http2)
    out.talk = std::make_unique<http2_conversation>(t);
  else
    out.talk = std::make_unique<http1_conversation>(t);
  if (!t.check.tls) return out;
  auto made = tls.wrap(t, std::move(out.talk), http2);
  if (made)
    out.talk = std::move(*made);
  else
    out.error = failed(std::move(made.error()));
  return out;
}

}  // namespace sluice::health
