// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/heartbeats.hpp"

#include <charconv>

#include "dataplane/abi/address_text.hpp"

namespace sluice::api {

reply take_heartbeat(reconcile::controller& c, const request& r) {
  const auto backend = parse_ip(r.parameter("backend").value_or(""));
  if (!backend) return refuse(400, "is the address of a backend, such as 10.0.1.11", "backend");
  std::optional<double> load;
  if (const auto text = r.parameter("load")) {
    double value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc{} || end != text->data() + text->size() || !(value >= 0 && value <= 1))
      return refuse(400, "is a number from 0 (idle) to 1 (full)", "load");
    load = value;
  }
  const std::string service = r.parameter("service").value_or("");
  const std::size_t services = c.beat(service, *backend, load);
  if (services == 0)
    return refuse(404, (service.empty() ? "no service" : "service '" + service + "'") +
                           std::string{service.empty() ? " expects" : " does not expect"} +
                           " heartbeats from " + format_ip(*backend));
  return ok({{"services", services}});
}

}  // namespace sluice::api
