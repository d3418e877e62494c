// SPDX-License-Identifier: Apache-2.0
// cluster_service: what matters of a Service of Kubernetes, as its API says it. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/discover/kubernetes_reply.hpp"
#include "controlplane/model/model.hpp"

namespace sluice::discover {

struct cluster_port {
  std::string name;  // empty: the only one
  model::protocol protocol{model::protocol::tcp};
  std::uint16_t port{};

  bool operator==(const cluster_port&) const = default;
};

struct cluster_service {
  std::string key;  // "namespace/name"
  std::string uid;
  std::string version;   // resourceVersion
  bool balanced{false};  // of type LoadBalancer, and not being deleted
  std::string load_balancer_class;
  std::vector<cluster_port> ports;
  std::vector<std::string> unfit_ports;          // "9000/SCTP"
  std::vector<bool> families;                    // true: IPv4; in the order wanted
  std::vector<std::string> asked;                // addresses, as they are written
  std::optional<std::chrono::seconds> affinity;  // of client addresses
  std::vector<std::string> source_ranges;
  std::map<std::string, std::string> wishes;  // annotations "sluice.io/...", without that
  std::vector<std::string> addresses;         // status.loadBalancer.ingress[].ip
  bool other_ingress{false};                  // there are host names beside them

  bool operator==(const cluster_service&) const = default;
};

// By key.
using cluster_services = std::map<std::string, cluster_service>;

struct service_list : list_page {
  cluster_services all;
};

// Objects that no API server makes (without a name, or with one that is none) are left out.
[[nodiscard]] tl::expected<service_list, std::string> parse_service_list(std::string_view body);

struct watched_service : watch_line {
  std::optional<cluster_service> service;  // changed, deleted
};
[[nodiscard]] watched_service parse_watched_service(std::string_view line);

// ingress_patch() is a merge patch that has a Service's status name these addresses and no others,
// if nobody has changed the Service since `version`.
[[nodiscard]] std::string ingress_patch(const std::string& version,
                                        const std::vector<std::string>& addresses);
// warning_event() is an Event about a Service; its time is now.
[[nodiscard]] std::string warning_event(const cluster_service& about, const std::string& message,
                                        std::chrono::system_clock::time_point now);

}  // namespace sluice::discover
