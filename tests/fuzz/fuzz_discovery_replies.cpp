// SPDX-License-Identifier: Apache-2.0
// Bytes as what Consul and Kubernetes answer. Beyond not crashing: what is found was in the text,
// and a patch made of what a Service says is read back as it was.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "controlplane/discover/consul_reply.hpp"
#include "controlplane/discover/kubernetes_reply.hpp"

namespace {

void demand(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice::discover;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  // An entry takes an address and its quotes.
  if (const auto answer = parse_consul(text))
    demand(answer->size() * 4 <= size, "consul: too many");
  const slice_wish wish{size % 3 == 0 ? "http" : "", size % 2 == 0, size % 5 != 0};
  if (const auto list = parse_slice_list(text, wish)) {
    demand(!list->version.empty(), "a list without a version");
    demand(found_in(list->all).size() * 4 <= size, "kubernetes: too many");
  }
  const watched w = parse_watched(text, wish);
  demand(w.event == watch_event::error || w.event == watch_event::expired || !w.version.empty(),
         "an event without a version");
  demand(w.one.empty() || w.event == watch_event::changed, "endpoints of no slice");
  if (const auto service = parse_service(text))
    demand(!status_patch(service->addresses).empty(), "no patch");
  consul_index index;
  (void)index.answered(text);
  demand(index.wait_for() != 0, "the first answer is waited for");
  (void)index.answered("1");
  return 0;
}
