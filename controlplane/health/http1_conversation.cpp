// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/http1_conversation.hpp"

#include <utility>

namespace sluice::health {

http1_conversation::http1_conversation(const target& t) : target_{t} {
  request_ =
      std::string{"GET "}
          .append(t.check.path)
          .append(" HTTP/1.1\r\nHost: ")
          .append(host_of(t, t.check.tls ? 443 : 80))
          .append("\r\nUser-Agent: sluice-health\r\nAccept: */*\r\nConnection: close\r\n\r\n");
}

std::string http1_conversation::take_output() {
  return std::exchange(request_, {});
}

std::optional<probe_result> http1_conversation::feed(std::string_view bytes) {
  switch (parser_.feed(bytes)) {
    case http_status_parser::progress::need_more:
      return std::nullopt;
    case http_status_parser::progress::bad:
      return failed("bad response: " + std::string{parser_.error()});
    case http_status_parser::progress::done:
      break;
  }
  const unsigned status = parser_.status();
  const bool ok = status >= target_.check.expect_first && status <= target_.check.expect_last;
  return probe_result{ok ? probe_outcome::ok : probe_outcome::failed,
                      "HTTP " + std::to_string(status)};
}

probe_result http1_conversation::closed() {
  return failed(parser_.started() ? "connection closed within the status line"
                                  : "connection closed without a response");
}

std::string http1_conversation::waiting() const {
  return parser_.started() ? " within the response" : " waiting for a response";
}

}  // namespace sluice::health
