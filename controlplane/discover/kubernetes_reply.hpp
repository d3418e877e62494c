// SPDX-License-Identifier: Apache-2.0
// What Kubernetes' API answers about EndpointSlices (discovery.k8s.io/v1) and Services. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/discover/source.hpp"

namespace sluice::discover {

// slice_wish: which endpoints matter.
struct slice_wish {
  std::string port_name;  // empty: the only port, or the first
  bool ipv4{true};
  bool ipv6{true};
};

// endpoint_slice: endpoints, without a port yet. Those that are ready, or say nothing of it, are
// backends; those that are being taken away and still serve are draining ones; others are left out.
struct endpoint_slice {
  struct port {
    std::string name;
    std::uint16_t number{};  // 0: all

    bool operator==(const port&) const = default;
  };
  std::string service;  // "namespace/name"; empty: nobody's
  bool ipv4{};
  std::vector<port> ports;
  std::vector<found> endpoints;

  bool operator==(const endpoint_slice&) const = default;
};

// By "namespace/name" of the slice.
using slices = std::map<std::string, endpoint_slice>;

// list_page: what a list says of itself.
struct list_page {
  std::string version;  // resourceVersion
  std::string next;     // where it goes on; empty: it is complete
};

struct slice_list : list_page {
  slices all;
};

[[nodiscard]] tl::expected<slice_list, std::string> parse_slice_list(std::string_view body);

enum class watch_event : std::uint8_t {
  changed,   // the slice is as `one` says
  deleted,   // there is no such slice any more
  bookmark,  // only the version has changed
  expired,   // 410: list again
  error,     // list again, later
};

struct watch_line {
  watch_event event{watch_event::error};
  std::string version;
  std::string text;  // of an error
};

struct watched : watch_line {
  std::string slice;  // "namespace/name"
  endpoint_slice one;
};

// parse_watched() takes one line of a watch; what it cannot read is an error.
[[nodiscard]] watched parse_watched(std::string_view line);

// found_in() is what somebody wants of slices, put together. An endpoint may be in two of them
// while it moves.
[[nodiscard]] std::vector<found> found_in(const slices& all, const slice_wish& wish);

// service_status: what a Service of type LoadBalancer says.
struct service_status {
  bool balanced{false};  // type LoadBalancer
  std::string load_balancer_class;
  std::vector<std::string> addresses;  // status.loadBalancer.ingress[].ip
};

[[nodiscard]] tl::expected<service_status, std::string> parse_service(std::string_view body);

// status_patch() is a merge patch that has the status name these addresses.
[[nodiscard]] std::string status_patch(const std::vector<std::string>& addresses);

}  // namespace sluice::discover
