// SPDX-License-Identifier: Apache-2.0
// Bytes as what Consul and Kubernetes answer. Beyond not crashing: what is found was in the text,
// and a patch made of what a Service says is read back as it was.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "controlplane/discover/cluster_service.hpp"
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
  if (const auto list = parse_slice_list(text)) {
    demand(!list->version.empty(), "a list without a version");
    demand(found_in(list->all, wish).size() * 4 <= size, "kubernetes: too many");
  }
  const watched w = parse_watched(text);
  demand(w.event == watch_event::error || w.event == watch_event::expired || !w.version.empty(),
         "an event without a version");
  demand(w.one.endpoints.empty() || w.event == watch_event::changed, "endpoints of no slice");
  if (const auto service = parse_service(text))
    demand(!status_patch(service->addresses).empty(), "no patch");
  if (const auto list = parse_service_list(text)) {
    demand(!list->version.empty(), "a list of Services without a version");
    for (const auto& [key, one] : list->all) {
      demand(key == one.key && key.find('/') == key.rfind('/'), "a key that is none");
      demand(one.ports.size() * 2 <= size && one.families.size() <= 2, "more than there was");
      demand(!warning_event(one, std::string{text}, {}).empty(), "no Event");
      (void)ingress_patch(one.version, one.addresses);
    }
  }
  const watched_service s = parse_watched_service(text);
  demand(!s.service || s.event == watch_event::changed || s.event == watch_event::deleted,
         "a Service of no event");
  consul_index index;
  (void)index.answered(text);
  demand(index.wait_for() != 0, "the first answer is waited for");
  (void)index.answered("1");
  return 0;
}
