// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "tests/unit/config/services_rows.hpp"

namespace sluice::config {
namespace {

using model::milliseconds;

// The example of the contract.
constexpr std::string_view contract = R"(services:
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

TEST(services, reads_the_contract) {
  const auto state = parse_services(contract, "services.yaml", {});
  ASSERT_TRUE(state) << to_string(state.error());
  ASSERT_EQ(state->services.size(), 1u);
  const model::service& s = state->services[0];
  EXPECT_EQ(s.name, "web");
  EXPECT_EQ(format_ip(s.address), "198.51.100.10");
  EXPECT_EQ(s.protocol, model::protocol::tcp);
  EXPECT_EQ(s.port, (model::port_range{443, 443}));
  EXPECT_EQ(s.table_size, 65537u);
  EXPECT_EQ(s.forward, model::forward_mode::ipip);
  EXPECT_EQ(s.health.kind, model::health_kind::http);
  EXPECT_EQ(s.health.path, "/healthz");
  EXPECT_EQ(s.health.port, 80);
  EXPECT_EQ(s.health.interval, milliseconds{2000});
  EXPECT_EQ(s.health.timeout, milliseconds{1000});
  EXPECT_EQ(s.health.rise, 2u);
  EXPECT_EQ(s.health.fall, 3u);
  EXPECT_EQ(s.health.expect_first, 200);
  EXPECT_EQ(s.health.expect_last, 399);
  ASSERT_EQ(s.backends.size(), 2u);
  EXPECT_EQ(s.backends[1].tier, 1);
}

TEST(services, reads_who_gets_new_connections) {
  const auto state = parse_services(R"(services:
  - name: web
    address: 198.51.100.10
    port: 443
    failover: {tier-threshold: 70, panic-threshold: 50, failback: 30s}
    slow-start: {time: 1m}
    flap-damping: {falls: 3, within: 2m}
    drain-deadline: 10m
)",
                                    "services.yaml", {});
  ASSERT_TRUE(state) << to_string(state.error());
  const model::service& s = state->services[0];
  EXPECT_EQ(s.failover, (model::failover{70, 50, milliseconds{30000}}));
  EXPECT_EQ(s.slow_start, (model::slow_start{milliseconds{60000}, 5}));
  EXPECT_EQ(s.flap_damping, (model::flap_damping{3, milliseconds{120000}, milliseconds{60000}}));
  EXPECT_EQ(s.drain_deadline, milliseconds{600000});
  EXPECT_TRUE(model::service{}.slow_start.off());
  // What a base has is kept, a key at a time; "off" takes it away.
  const auto changed = parse_service(
      "{slow-start: {steps: 9}, failover: {failback: 1s}, flap-damping: off, "
      "drain-deadline: none}",
      "x", {}, &s);
  ASSERT_TRUE(changed) << to_string(changed.error());
  EXPECT_EQ(changed->slow_start, (model::slow_start{milliseconds{60000}, 9}));
  EXPECT_EQ(changed->failover, (model::failover{70, 50, milliseconds{1000}}));
  EXPECT_TRUE(changed->flap_damping.off());
  EXPECT_EQ(changed->drain_deadline, milliseconds{0});
}

TEST(services, defaults) {
  const auto state = parse_services(
      "services: [{name: a, address: 192.0.2.1, port: any}, {name: b, address: \"2001:db8::1\", "
      "protocol: udp, port: 8000-8100, health: {type: tcp, port: 1, interval: 500ms}}]",
      "f", {});
  ASSERT_TRUE(state) << to_string(state.error());
  const model::service& a = state->services[0];
  EXPECT_EQ(a.protocol, model::protocol::tcp);
  EXPECT_TRUE(a.port.any());
  EXPECT_EQ(a.port.last, 65535);
  EXPECT_EQ(a.table_size, 65537u);
  EXPECT_EQ(a.forward, model::forward_mode::ipip);
  EXPECT_EQ(a.health, model::health_check{});
  EXPECT_TRUE(a.backends.empty());
  const model::service& b = state->services[1];
  EXPECT_EQ(b.port, (model::port_range{8000, 8100}));
  EXPECT_EQ(b.health.timeout, milliseconds{500}) << "the default follows a short interval";
  EXPECT_EQ(parse_services("services: []", "f", {})->services.size(), 0u);
}

TEST(services, are_sorted_whatever_the_order) {
  const auto state = parse_services(
      "services:\n"
      "- {name: b, address: 192.0.2.2, port: 80, backends: [{address: 10.0.0.3}, {address: "
      "10.0.0.1}]}\n"
      "- {name: a, address: 192.0.2.1, port: 80}\n",
      "f", {});
  ASSERT_TRUE(state);
  EXPECT_EQ(state->services[0].name, "a");
  EXPECT_EQ(format_ip(state->services[1].backends[0].address), "10.0.0.1");
  EXPECT_TRUE(model::find_service(*state, "b"));
  EXPECT_TRUE(model::find_backend(state->services[1], *parse_ip("10.0.0.3")));
  EXPECT_FALSE(model::find_backend(state->services[1], *parse_ip("10.0.0.2")));
}

TEST(services, one_address_may_serve_many_ports_and_any_takes_the_rest) {
  EXPECT_EQ(errors_of("services:\n"
                      "- {name: a, address: 192.0.2.1, port: 80}\n"
                      "- {name: b, address: 192.0.2.1, port: 81-90}\n"
                      "- {name: c, address: 192.0.2.1, port: 80, protocol: udp}\n"
                      "- {name: d, address: 192.0.2.1, port: any}\n"
                      "- {name: e, address: 192.0.2.2, port: 80}\n"),
            "");
}

TEST(services, a_patch_drops_what_has_no_effect) {
  const auto base = parse_service(
      "{name: a, address: 192.0.2.1, port: 80, forward: full-nat, client-address: toa, mss-clamp: "
      "auto, limits: {packets: 7, syn-flood: 9}, scheduler: ring-hash, table-size: 251}",
      "f", {});
  ASSERT_TRUE(base) << to_string(base.error());
  const auto next = parse_service(
      "{protocol: udp, forward: ipip, quic: {server-id-length: 2}, scheduler: random}", "f", {},
      &*base);
  ASSERT_TRUE(next) << to_string(next.error());
  EXPECT_EQ(next->client, model::client_address::none);
  EXPECT_TRUE(next->mss_clamp.off());
  EXPECT_EQ(next->limits.syn_flood, 0u);
  EXPECT_EQ(next->limits.packets, 7u);
  EXPECT_EQ(next->table_size, 65537u);
  const auto back = parse_service("{protocol: tcp, limits: off}", "f", {}, &*next);
  ASSERT_TRUE(back) << to_string(back.error());
  EXPECT_EQ(back->quic_id_length, 0);
  EXPECT_EQ(back->limits, model::service_limits{});
}

TEST(services, files_that_are_none) {
  const std::string right = "services: [{name: web, ...}], or services: [] for none";
  EXPECT_EQ(errors_of(""), "services.yaml:1: is empty; expected a map (key: value)");
  EXPECT_EQ(errors_of("[]"), "services.yaml:1: a list is given; expected a map (key: value)");
  EXPECT_EQ(errors_of("services:\n"), "services.yaml:1: services: is empty; expected a list");
  EXPECT_EQ(errors_of("{}"), "services.yaml:1: services: is missing; for example " + right);
  EXPECT_EQ(errors_of("service: []\n"),
            "services.yaml:1: service: unknown key; did you mean services?\n"
            "services.yaml:1: services: is missing; for example " +
                right);
  EXPECT_EQ(errors_of("services:\n  - name: web\n   address: 192.0.2.1\n"),
            "services.yaml:3: YAML syntax: end of sequence not found");
  EXPECT_EQ(errors_of("services:\n  - ~\n"),
            "services.yaml:2: services[0]: is empty; expected a map (key: value)");
}

TEST(services, services_that_clash) {
  const row rows[] = {
      {"same VIP",
       "services:\n- {name: a, address: 192.0.2.1, port: 80}\n- {name: b, address: 192.0.2.1, "
       "port: "
       "80}\n",
       "services.yaml:3: services[1].address: 192.0.2.1:80/tcp overlaps 192.0.2.1:80/tcp of "
       "service "
       "'a' (line 2); expected another address, protocol or port"},
      {"a range over a port; the order in the file is not that of the ports",
       "services:\n- {name: a, address: \"2001:db8::1\", protocol: udp, port: 4000-5000}\n"
       "- {name: b, address: 192.0.2.1, port: 80}\n"
       "- {name: c, address: \"2001:DB8::0:1\", protocol: udp, port: 1000-4000}\n",
       "services.yaml:4: services[2].address: [2001:db8::1]:1000-4000/udp overlaps "
       "[2001:db8::1]:4000-5000/udp of service 'a' (line 2); expected another address, protocol or "
       "port"},
      {"a wide range over two that do not touch",
       "services:\n- {name: a, address: 192.0.2.1, port: 1-100}\n- {name: b, address: 192.0.2.1, "
       "port: 10}\n- {name: c, address: 192.0.2.1, port: 20}\n",
       "services.yaml:3: services[1].address: 192.0.2.1:10/tcp overlaps 192.0.2.1:1-100/tcp of "
       "service 'a' (line 2); expected another address, protocol or port\n"
       "services.yaml:4: services[2].address: 192.0.2.1:20/tcp overlaps 192.0.2.1:1-100/tcp of "
       "service 'a' (line 2); expected another address, protocol or port"},
      {"any twice",
       "services:\n- {name: a, address: 192.0.2.1, port: any}\n- {name: b, address: 192.0.2.1, "
       "port: any}\n",
       "services.yaml:3: services[1].address: 192.0.2.1:any/tcp overlaps 192.0.2.1:any/tcp of "
       "service 'a' (line 2); expected another address, protocol or port"},
      {"same name",
       "services:\n- {name: a, address: 192.0.2.1, port: 80}\n- {name: a, address: 192.0.2.2, "
       "port: "
       "80}\n",
       "services.yaml:3: services[1].name: 'a' is the name of another service (line 2); expected a "
       "name of its own"},
      {"a backend is the VIP of another service",
       "services:\n- {name: a, address: 192.0.2.1, port: 80, backends: [{address: 192.0.2.2}]}\n"
       "- {name: b, address: 192.0.2.2, port: 80}\n",
       "services.yaml:2: services[0].backends[0].address: 192.0.2.2 is the address of service 'b' "
       "(line 3); a backend needs an address of its own, or packets would go round in circles"},
      {"a DSCP that stands for two addresses; one port more of an address is none",
       "services:\n"
       "- {name: a, address: 192.0.2.1, port: 80, forward: dsr-dscp, backends: [{address: "
       "192.0.2.9, dscp: 7}]}\n"
       "- {name: b, address: 192.0.2.1, port: 81, forward: dsr-dscp, backends: [{address: "
       "192.0.2.9, dscp: 7}]}\n"
       "- {name: c, address: 192.0.2.2, port: 80, forward: dsr-dscp, backends: [{address: "
       "192.0.2.8, dscp: 7}, {address: 192.0.2.9, dscp: 7}]}\n",
       "services.yaml:4: services[2].backends[1].dscp: 7 stands for 192.0.2.1 at 192.0.2.9 "
       "already, by service 'a' (line 2); expected another number for another address"},
      {"dsr-l2 to the other family",
       "services:\n- name: a\n  address: 192.0.2.1\n  port: 80\n  forward: dsr-l2\n  backends:\n  "
       "- "
       "{address: 192.0.2.9}\n  - {address: \"2001:db8::9\"}\n",
       "services.yaml:8: services[0].backends[1].address: 2001:db8::9 is IPv6 but the service's "
       "address is IPv4; dsr-l2 does not change the family, so expected the same"},
      {"a check needs a port",
       "services:\n- name: a\n  address: 192.0.2.1\n  port: any\n  health: {type: tcp}\n",
       "services.yaml:5: services[0].health.port: is missing; the service has no single port "
       "(any), "
       "so expected the port to check, such as 80"},
  };
  for (const row& r : rows) EXPECT_EQ(errors_of(r.text), r.errors) << r.about;
}

TEST(services, all_errors_are_told_in_the_order_of_the_file) {
  EXPECT_EQ(
      errors_of("services:\n"
                "- name: A\n"
                "  address: 1.2.3\n"
                "  port: 0\n"
                "  backends: [{address: x}, {adress: 10.0.0.1}]\n"
                "- {name: b}\n"),
      "services.yaml:2: services[0].name: 'A' is not a service name; expected 1 to 48 of a-z, "
      "0-9, '.', '_', '-', beginning with a letter or digit\n"
      "services.yaml:3: services[0].address: '1.2.3' is not an IP address; expected one such "
      "as 192.0.2.1 or \"2001:db8::1\"\n"
      "services.yaml:4: services[0].port: '0' is out of range; expected a port from 1 to "
      "65535, a range such as \"8000-8100\", or any\n"
      "services.yaml:5: services[0].backends[0].address: 'x' is not an IP address; expected "
      "one such as 192.0.2.1 or \"2001:db8::1\"\n"
      "services.yaml:5: services[0].backends[1].adress: unknown key; did you mean address?\n"
      "services.yaml:5: services[0].backends[1].address: is missing; for example 10.0.1.11\n"
      "services.yaml:6: services[1].address: is missing; for example 198.51.100.10\n"
      "services.yaml:6: services[1].port: is missing; for example 443");
}

TEST(services, a_tunnel_needs_a_source_of_the_backends_family) {
  const context only4{.encap_ipv4 = true, .encap_ipv6 = false};
  const context only6{.encap_ipv4 = false, .encap_ipv6 = true};
  const std::string text =
      "services:\n"
      "- name: a\n"
      "  address: 192.0.2.1\n"
      "  port: 80\n"
      "  forward: ipip\n"
      "  backends: [{address: \"2001:db8::9\"}, {address: \"2001:db8::8\"}]\n";
  EXPECT_EQ(errors_of(text, only6), "") << "what counts is the backend's family, not the VIP's";
  EXPECT_EQ(errors_of(text, only4),
            "services.yaml:5: services[0].forward: ipip to 2001:db8::9 needs an outer source "
            "address; expected dataplane.encap-source.ipv6 in node.yaml");
  EXPECT_EQ(
      errors_of(service_with(""), only6),
      "services.yaml:2: services[0].forward: ipip to 10.0.1.11 needs an outer source address; "
      "expected dataplane.encap-source.ipv4 in node.yaml");
  EXPECT_EQ(errors_of(service_with("    forward: dsr-l2"), only6), "") << "no tunnel, no source";
}

TEST(services, limits_of_the_node) {
  const auto many = [](int services, int backends) {
    std::string text = "services:\n";
    for (int i = 0; i < services; ++i) {
      text += "- {name: s" + std::to_string(i) + ", address: 192.0.2." + std::to_string(i + 1) +
              ", port: 80, table-size: 16777213, backends: [";
      for (int k = 0; k < backends; ++k) text += "{address: 10.0.0." + std::to_string(k + 1) + "},";
      text += "]}\n";
    }
    return text;
  };
  EXPECT_EQ(errors_of(many(2, 2), {.max_services = 2, .max_backends = 4}), "");
  EXPECT_EQ(errors_of(many(3, 2), {.max_services = 2, .max_backends = 4}),
            "services.yaml:1: services: 3 services; expected at most 2 "
            "(controlplane.limits.services in node.yaml)\n"
            "services.yaml:1: services: 6 backends; expected at most 4 "
            "(controlplane.limits.backends in node.yaml)");
  EXPECT_EQ(errors_of(many(3, 0), {.table_memory_mib = 48}), "");
  EXPECT_EQ(errors_of(many(3, 0), {.table_memory_mib = 32}),
            "services.yaml:1: services: 48 MiB of lookup tables; expected at most 32 "
            "(controlplane.limits.table-memory in node.yaml)");
}

TEST(services, more_backends_than_the_table_has_slots) {
  std::string text =
      "services:\n- name: a\n  address: 192.0.2.1\n  port: 80\n  table-size: 251\n  backends:\n";
  for (int i = 0; i < 252; ++i) text += "  - {address: 10.0.0." + std::to_string(i + 1) + "}\n";
  EXPECT_EQ(errors_of(text),
            "services.yaml:5: services[0].table-size: 251 is smaller than the number of backends "
            "(252); expected a prime, best 100 times that number or more, such as 25219");
}

}  // namespace
}  // namespace sluice::config
