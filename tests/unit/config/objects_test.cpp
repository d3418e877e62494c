// SPDX-License-Identifier: Apache-2.0
// Single objects (bodies of the API), and states put together from parts.
#include <gtest/gtest.h>

#include "controlplane/config/config.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::config {
namespace {

using model::milliseconds;

// The example of the contract.
constexpr std::string_view contract_services = R"(services:
  - name: web
    address: 198.51.100.10
    protocol: tcp                        # tcp | udp
    port: 443                            # a number, a range "8000-8100", or any
    scheduler: maglev
    table-size: 65537
    forward: ipip
    health: {type: http, path: /healthz, port: 80, interval: 2s, timeout: 1s, rise: 2, fall: 3}
    backends:
      - {address: 10.0.1.11, weight: 100}
      - {address: 10.0.1.12, weight: 100, tier: 1}   # tier 0 is the primary tier
)";

TEST(one_service, is_read_from_json) {
  const auto s = parse_service(
      R"({"name":"web","address":"198.51.100.10","protocol":"tcp","port":443,"health":{"type":"tcp","interval":"1s","timeout":"200ms"},
	"backends":[{"address":"10.0.1.12","weight":50},{"address":"10.0.1.11"}]})",
      "body", {});
  ASSERT_TRUE(s) << to_string(s.error());
  EXPECT_EQ(s->backends.size(), 2u);
  EXPECT_EQ(s->backends[1].weight, 50u);
  const auto bad = parse_service("{\"name\":\"web\",\"port\":0}", "body", {});
  ASSERT_FALSE(bad);
  EXPECT_EQ(to_string(bad.error()),
            "body:1: address: is missing; for example 198.51.100.10\n"
            "body:1: port: '0' is out of range; expected a port from 1 to 65535, a range such as "
            "\"8000-8100\", or any");
}

TEST(one_service, patch_keeps_what_is_not_named) {
  const auto base = parse_services(contract_services, "f", {}).value().services[0];
  const auto patch = [&](std::string_view text) { return parse_service(text, "body", {}, &base); };

  model::service expected = base;
  EXPECT_EQ(patch("{}").value(), base);
  EXPECT_EQ(patch("{name: web}").value(), base);

  expected.port = {8443, 8443};
  EXPECT_EQ(patch("{port: 8443}").value(), expected);

  expected = base;
  expected.health.interval = milliseconds{5000};
  expected.health.expect_last = 204;
  EXPECT_EQ(patch("{health: {interval: 5s, expect: 200-204}}").value(), expected);

  expected = base;
  expected.health.kind = model::health_kind::tcp;
  expected.health.path = "/";
  EXPECT_EQ(patch("{health: {type: tcp}}").value(), expected);
  expected.health = {};
  EXPECT_EQ(patch("{health: {type: none}}").value(), expected);

  expected = base;
  expected.backends = {{.address = *parse_ip("10.0.1.99")}};
  EXPECT_EQ(patch("{backends: [{address: 10.0.1.99}]}").value(), expected);

  EXPECT_EQ(to_string(patch("{name: other}").error()),
            "body:1: name: cannot be changed (it is 'web'); add another service instead");
  EXPECT_EQ(to_string(patch("{health: {interval: 500ms}}").error()),
            "body:1: health.interval: the timeout (1000ms) is longer than the interval (500ms); "
            "expected a timeout of at most the interval");
  EXPECT_EQ(
      to_string(patch("{address: \"2001:db8::1\", forward: dsr-l2}").error()),
      "body: backends[10.0.1.11]: 10.0.1.11 is IPv4 but the service's address is IPv6; dsr-l2 "
      "does not change the family, so expected the same\n"
      "body: backends[10.0.1.12]: 10.0.1.12 is IPv4 but the service's address is IPv6; dsr-l2 "
      "does not change the family, so expected the same");
}

TEST(one_backend, new_and_patched) {
  const auto b = parse_backend("{\"address\": \"10.0.1.11\", \"weight\": 7}", "body");
  ASSERT_TRUE(b);
  EXPECT_EQ(b->weight, 7u);
  const auto patched = parse_backend("{tier: 1, admin: draining}", "body", &*b);
  ASSERT_TRUE(patched);
  EXPECT_EQ(patched->weight, 7u);
  EXPECT_EQ(patched->admin, model::admin_state::drain);
  EXPECT_EQ(to_string(parse_backend("{weight: 7}", "body").error()),
            "body:1: address: is missing; for example 10.0.1.11");
  EXPECT_EQ(to_string(parse_backend("{address: 10.0.1.12}", "body", &*b).error()),
            "body:1: address: cannot be changed (it is 10.0.1.11); add another backend instead");
}

TEST(whole_state, is_checked_without_lines) {
  auto state = parse_services(contract_services, "f", {}).value();
  EXPECT_TRUE(check(state, {}).empty());
  state.services[0].backends[0].address = state.services[0].address;
  auto second = state.services[0];
  second.name = "web2";
  second.backends.clear();
  state.services.push_back(second);
  EXPECT_EQ(to_string(check(state, {.encap_ipv4 = false}, "body")),
            "body: services[web].forward: ipip to 198.51.100.10 needs an outer source address; "
            "expected dataplane.encap-source.ipv4 in node.yaml\n"
            "body: services[web2].address: 198.51.100.10:443/tcp overlaps 198.51.100.10:443/tcp of "
            "service 'web'; expected another address, protocol or port\n"
            "body: services[web].backends[198.51.100.10]: 198.51.100.10 is the address of service "
            "'web'; a backend needs an address of its own, or packets would go round in circles");
}

TEST(context, follows_the_node) {
  const auto node = parse_node_text(
      "dataplane: {encap-source: {ipv6: \"2001:db8::1\"}}\n"
      "controlplane: {limits: {services: 5, backends: 6, table-memory: 7}}\n",
      "n");
  ASSERT_TRUE(node);
  const context c = context::of(*node);
  EXPECT_FALSE(c.encap_ipv4);
  EXPECT_TRUE(c.encap_ipv6);
  EXPECT_EQ(c.max_services, 5u);
  EXPECT_EQ(c.max_backends, 6u);
  EXPECT_EQ(c.table_memory_mib, 7u);
}

}  // namespace
}  // namespace sluice::config
