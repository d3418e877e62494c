// SPDX-License-Identifier: Apache-2.0
// What backends say to health checks: DNS replies, ICMP messages, HTTP/2 and gRPC. The first byte
// says which.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "controlplane/health/dns_check.hpp"
#include "controlplane/health/http2_conversation.hpp"
#include "controlplane/health/icmp_echo.hpp"

namespace {

using namespace sluice::health;

void talk(std::string_view bytes, sluice::model::health_kind kind, std::size_t piece) {
  target t;
  t.address = sluice::ip_address::v4({127, 0, 0, 1});
  t.port = 80;
  t.check.kind = kind;
  http2_conversation conversation{t};
  if (conversation.begin()) std::abort();
  (void)conversation.take_output();
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    if (const auto result = conversation.feed(bytes.substr(at, piece))) {
      if (result->text.empty()) std::abort();
      return;
    }
    (void)conversation.take_output();
  }
  if (conversation.closed().outcome == probe_outcome::ok) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes{reinterpret_cast<const char*>(data) + 1, size - 1};
  switch (data[0] % 8) {
    case 0:
    case 1: {
      const auto v = judge_dns_reply(bytes, 0x3131, "a.b", 1);
      if (v.ok && (!v.ours || bytes.size() < 12)) std::abort();
      break;
    }
    case 2:
      (void)read_echo(true, bytes, true);
      break;
    case 3:
      (void)read_echo(data[0] >= 128, bytes);
      break;
    case 4:
      (void)grpc_serving(bytes);
      break;
    case 5:
      talk(bytes, sluice::model::health_kind::http2, 7);
      break;
    default:
      talk(bytes, sluice::model::health_kind::grpc, 5000);
      break;
  }
  return 0;
}
