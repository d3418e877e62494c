// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/attempt.hpp"

#include <cctype>
#include <cerrno>
#include <system_error>
#include <utility>

#include "controlplane/health/command_attempt.hpp"
#include "controlplane/health/datagram_attempt.hpp"
#include "controlplane/health/ping_attempt.hpp"
#include "controlplane/health/stream_attempt.hpp"

namespace sluice::health {

std::unique_ptr<attempt> make_attempt(const target& t, probe_tools& tools) {
  switch (t.check.kind) {
    case model::health_kind::none:
    case model::health_kind::tcp:
    case model::health_kind::http:
    case model::health_kind::https:
    case model::health_kind::http2:
    case model::health_kind::grpc:
      break;
    case model::health_kind::udp:
    case model::health_kind::dns:
      return std::make_unique<datagram_attempt>(t, tools);
    case model::health_kind::icmp:
      return std::make_unique<ping_attempt>(t, tools);
    case model::health_kind::exec:
      return std::make_unique<command_attempt>(t, tools);
  }
  return std::make_unique<stream_attempt>(t, tools);
}

probe_result failed(std::string text) {
  return {probe_outcome::failed, std::move(text)};
}

probe_result succeeded(std::string text) {
  return {probe_outcome::ok, std::move(text)};
}

std::string error_text(int error) {
  std::string text = std::system_category().message(error);
  if (!text.empty()) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  return text;
}

// A lack of ours says nothing about the target. EADDRNOTAVAIL is not in the list: it also
// means that no local address can reach the target, which is as bad as no route.
probe_result from_errno(int error) {
  const bool shortage = error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
  return {shortage ? probe_outcome::shortage : probe_outcome::failed, error_text(error)};
}

probe_result source_not_ours() {
  return failed("the check's source address is not one of this host's");
}

probe_result no_socket(const target& t, int error) {
  // Configured, and not there: nothing that waiting would mend soon.
  if (error == EADDRNOTAVAIL && t.check.source) return source_not_ours();
  return from_errno(error);
}

std::string timeout_text(const target& t) {
  return "timeout after " + std::to_string(t.check.timeout.count()) + " ms";
}

}  // namespace sluice::health
