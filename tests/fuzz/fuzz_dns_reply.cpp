// SPDX-License-Identifier: Apache-2.0
// Bytes as a DNS reply. Beyond not crashing: what is found was in the message.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "controlplane/discover/dns_reply.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice::discover;
  for (const auto type : {record_type::a, record_type::aaaa, record_type::srv}) {
    const auto answer = parse_reply({data, size}, type);
    if (!answer) continue;
    // A record takes 11 bytes, and its content.
    if ((answer->addresses.size() + answer->services.size()) * 15 > size) {
      std::fprintf(stderr, "more records than there is room for\n");
      std::abort();
    }
  }
  return 0;
}
