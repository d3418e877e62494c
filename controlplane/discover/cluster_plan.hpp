// SPDX-License-Identifier: Apache-2.0
// cluster_plan: which services a cluster's Services of type LoadBalancer stand for, and on which
// VIPs. Pure: the same Services and the same state before make the same plan.
//
// - One service per port and family, named "namespace.name.port-protocol".
// - A VIP that a Service asks for is given if it is in the pool or on request; otherwise the one in
// its
//   status or the one it has, if that is still in the pool; otherwise a free one, at a place that
//   its name gives, so that nodes and restarts agree without a word.
// - VIPs of the operators' services are nobody else's. One that was asked for may be shared within
// a
//   namespace.
// - A Service that cannot be as it wants to stays as it was, with a problem; others do not notice.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/discover/cluster_service.hpp"
#include "controlplane/model/model.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::discover {

// common_service() is what all services of a cluster have in common: service-file, or the defaults.
[[nodiscard]] tl::expected<model::service, std::vector<config_error>> common_service(
    const kubernetes_config& config);

struct plan_input {
  const kubernetes_config& config;
  const model::service& common;
  const cluster_services& services;
  // Of which all Services are known; "" stands for all. What belongs to others stays as it is.
  const std::set<std::string>& listed;
  // check() says why a state cannot be; empty: it can.
  std::function<std::string(const model::desired_state&)> check;
};

struct cluster_plan {
  model::desired_state next;
  std::map<std::string, std::string> problems;  // by key of Services
  std::set<std::string> changed;                // keys whose services are not as before
};

[[nodiscard]] cluster_plan make_plan(const model::desired_state& now, const plan_input& in);

// is_ours() tells whether a Service is one for us.
[[nodiscard]] bool is_ours(const cluster_service& s, const kubernetes_config& config);
// key_of() is the Service that a service of Kubernetes' stands for.
[[nodiscard]] const std::string& key_of(const model::service& s);
// vips_of() are the VIPs of a Service in a state, each once, as its status has to name them.
[[nodiscard]] std::vector<std::string> vips_of(const model::desired_state& state,
                                               const cluster_service& s);
// only() is `now` with what a plan says of one Service.
[[nodiscard]] model::desired_state only(const model::desired_state& now, const cluster_plan& plan,
                                        const std::string& key);

}  // namespace sluice::discover
