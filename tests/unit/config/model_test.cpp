// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::model {
namespace {

void random_options(std::mt19937& rng, service& s) {
  const auto pick = [&](unsigned n) { return static_cast<unsigned>(rng() % n); };
  const auto prefix = [&](unsigned most) { return static_cast<std::uint8_t>(1 + pick(most)); };
  const bool tcp = s.protocol == protocol::tcp;
  s.echo = pick(2) == 0;
  if (s.forward == forward_mode::full_nat && tcp) s.client = static_cast<client_address>(pick(3));
  if (tcp && pick(2) == 0) s.mss_clamp.automatic = true;
  if (tcp && !s.mss_clamp.automatic && pick(2) == 0)
    s.mss_clamp.bytes = static_cast<std::uint16_t>(536 + pick(1000));
  if (pick(2) == 0)
    s.persistence = {std::chrono::seconds{1 + pick(65535)}, prefix(32), prefix(128)};
  if (!tcp && pick(2) == 0) s.quic_id_length = prefix(8);
  if (pick(2) == 0) s.limits.new_connections = pick(1000);
  if (pick(2) == 0) s.limits.packets = pick(1000);
  if (pick(2) == 0 && tcp) s.limits.syn_flood = pick(1000);
  if (pick(2) == 0) s.limits.per_source = {1 + pick(1000), prefix(32), prefix(128)};
  const auto percent = [&] { return static_cast<std::uint8_t>(pick(101)); };
  if (pick(2) == 0) s.failover = {percent(), percent(), milliseconds{pick(3'600'000)}};
  if (pick(2) == 0 && weighs(s.scheduler))
    s.slow_start = {milliseconds{100 + pick(100'000)}, static_cast<std::uint8_t>(1 + pick(20))};
  if (pick(2) == 0)
    s.flap_damping = {static_cast<std::uint8_t>(2 + pick(40)), milliseconds{100 + pick(100'000)},
                      milliseconds{100 + pick(100'000)}};
  if (pick(2) == 0)
    s.agent = {static_cast<std::uint16_t>(1 + pick(65535)), pick(2) == 0 ? "" : "a \"line\"\n",
               milliseconds{5000 + pick(5000)}, milliseconds{1 + pick(5000)}};
  if (pick(2) == 0) s.heartbeat = {milliseconds{100 + pick(9000)}, prefix(100)};
  if (pick(2) == 0 && weighs(s.scheduler))
    s.weights = {milliseconds{pick(9000)}, static_cast<std::uint8_t>(pick(20)),
                 static_cast<std::uint8_t>(20 + pick(80)), milliseconds{250 + pick(9000)}};
  if (pick(2) == 0) s.quorum = {percent(), percent(), milliseconds{pick(9000)}};
  if (pick(2) == 0) s.drain_deadline = milliseconds{100 + pick(86'000'000)};
  for (prefix_set* set : {&s.allow, &s.deny}) {
    for (unsigned i = pick(7); i > 3; --i)
      set->prefixes.push_back(*parse_prefix(pick(2) == 0 ? "10.0.0.0/8" : "2001:db8::/32"));
    if (pick(3) == 0) set->file = "/etc/sluice/a list: 1.txt";
  }
}

// random_state() makes a valid state that uses every field and word of the model.
desired_state random_state(std::mt19937& rng) {
  const auto pick = [&](unsigned n) { return static_cast<unsigned>(rng() % n); };
  constexpr std::uint32_t primes[] = {251, 65537, 655373, 16777213};
  // Names that a careless writer would turn into something else.
  const std::string names[] = {"null", "true",    "1e5", "0x10",   "off",
                               "web",  "a-b.c_d", "443", "1.2.3.4"};
  desired_state out;
  const unsigned n = pick(6);
  for (unsigned i = 0; i < n; ++i) {
    service s;
    s.name = names[pick(std::size(names))] + "." + std::to_string(i);
    if (i == 0) s.name = names[pick(std::size(names))];
    const bool v6 = pick(2) == 0;
    const auto byte = static_cast<std::uint8_t>(i + 1);
    s.address = v6 ? ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte})
                   : ip_address::v4({192, 0, 2, byte});
    s.protocol = pick(2) == 0 ? protocol::tcp : protocol::udp;
    const auto first = static_cast<std::uint16_t>(1 + pick(60000));
    s.port = pick(3) == 0   ? port_range{0, 65535}
             : pick(2) == 0 ? port_range{first, first}
                            : port_range{first, static_cast<std::uint16_t>(first + pick(5000))};
    s.scheduler = static_cast<scheduler_kind>(1 + pick(10));
    if (sized(s.scheduler)) s.table_size = primes[pick(4)];
    s.forward = static_cast<forward_mode>(1 + pick(7));
    random_options(rng, s);
    s.health.kind = static_cast<health_kind>(pick(10));
    if (s.health.kind != health_kind::none) {
      s.health.port = static_cast<std::uint16_t>(1 + pick(65535));
      s.health.interval = milliseconds{10 + pick(100'000)};
      s.health.timeout = milliseconds{1 + pick(static_cast<unsigned>(s.health.interval.count()))};
      s.health.rise = 1 + pick(10);
      s.health.fall = 1 + pick(10);
      if (s.health.interval.count() > 20 && pick(3) == 0)
        s.health.fast_interval =
            milliseconds{10 + pick(static_cast<unsigned>(s.health.interval.count()) - 10)};
      s.health.jitter = static_cast<std::uint8_t>(pick(2) * pick(51));
      if (pick(3) == 0) s.health.source = s.address;
    }
    s.health.path = pick(2) == 0 ? "/" : "/a?b=\"c\"&d='e'#{f}:[g],\\h%20*&!|>";
    s.health.host = pick(2) == 0 ? "" : "www.example.net:80";
    s.health.expect_first = static_cast<std::uint16_t>(100 + pick(400));
    s.health.expect_last = static_cast<std::uint16_t>(s.health.expect_first + pick(100));
    s.health.tls = pick(2) == 0;
    s.health.verify = pick(2) == 0;
    s.health.ca_file = pick(2) == 0 ? "" : "/etc/a b/ca: 1.pem";
    s.health.sni = pick(2) == 0 ? "" : "www.example.net";
    const std::string bytes[] = {"", "PING", "none", "any", "hex:", std::string{"\0\xff\n", 3}};
    s.health.send = bytes[pick(6)];
    s.health.answer = static_cast<health_answer>(pick(3));
    s.health.receive = bytes[1 + pick(5)];
    s.health.name = pick(3) == 0 ? "" : "_dns.example.net";
    s.health.record = pick(2) == 0 ? std::uint16_t{28} : std::uint16_t{1};
    s.health.grpc_service = pick(2) == 0 ? "" : "shop.v1.Cart";
    s.health.command = {"/usr/bin/check", "a b", "443", "null"};
    s.health.weights = pick(2) == 0;
    s.health = without_unused(s.health);
    const unsigned backends = pick(5);
    for (unsigned k = 0; k < backends; ++k) {
      const auto b = static_cast<std::uint8_t>(k + 1);
      const bool backend_v6 = tunnels(s.forward) ? pick(2) == 0 : v6;
      s.backends.push_back({.address = backend_v6 ? ip_address::v6({0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                                                    0, 0, 0, 0, 1, b})
                                                  : ip_address::v4({10, 0, 1, b}),
                            .weight = pick(65536),
                            .tier = static_cast<std::uint8_t>(pick(3)),
                            .admin = static_cast<admin_state>(pick(3) == 0 ? pick(4) : 0)});
      backend& last = s.backends.back();
      if (translates(s.forward)) last.port = static_cast<std::uint16_t>(pick(65536));
      if (s.forward == forward_mode::dsr_dscp) last.dscp = static_cast<std::uint8_t>(1 + pick(63));
      last.quic_id.length = pick(2) == 0 ? s.quic_id_length : std::uint8_t{0};
      if (last.quic_id.length != 0) last.quic_id.bytes[0] = b;
    }
    out.services.push_back(s);
  }
  normalise(out);
  return out;
}

TEST(model_text, yaml_and_json_give_the_same_state_back) {
  std::mt19937 rng{7};
  for (int i = 0; i < 150; ++i) {
    const desired_state state = random_state(rng);
    const std::string yaml = to_yaml(state);
    const auto again = config::parse_services(yaml, "f", {});
    ASSERT_TRUE(again) << sluice::to_string(again.error()) << "\n" << yaml;
    ASSERT_EQ(*again, state) << yaml;
    EXPECT_EQ(to_yaml(*again), yaml);
    const std::string json = to_json(state).dump(i % 2 == 0 ? -1 : 2);
    const auto from_json = config::parse_services(json, "f", {});
    ASSERT_TRUE(from_json) << sluice::to_string(from_json.error()) << "\n" << json;
    ASSERT_EQ(*from_json, state) << json;
    EXPECT_TRUE(diff(state, *again).empty());
    for (const service& s : state.services) {
      const auto one = config::parse_service(to_json(s).dump(), "f", {});
      ASSERT_TRUE(one);
      EXPECT_EQ(*one, s);
    }
  }
}

TEST(model_text, yaml_is_for_people) {
  desired_state state;
  service s;
  s.name = "web";
  s.address = *parse_ip("2001:db8::1");
  s.port = {443, 443};
  s.health.kind = health_kind::http;
  s.backends = {
      {.address = *parse_ip("10.0.1.11")},
      {.address = *parse_ip("10.0.1.12"), .weight = 0, .tier = 1, .admin = admin_state::drain}};
  state.services = {s};
  EXPECT_EQ(to_yaml(state), R"(services:
  - name: web
    address: "2001:db8::1"
    protocol: tcp
    port: 443
    scheduler: maglev
    table-size: 65537
    forward: ipip
    health: {type: http, path: /, expect: "200-399", interval: "2s", timeout: "1s", rise: 2, fall: 3}
    backends:
      - {address: 10.0.1.11, weight: 100}
      - {address: 10.0.1.12, weight: 0, tier: 1, admin: draining}
)");
  EXPECT_EQ(to_yaml({}), "services: []\n");
  EXPECT_EQ(identity(s), "[2001:db8::1]:443/tcp");
}

TEST(model_text, programs_of_health_checks_are_where_the_node_says) {
  const std::string text =
      "services:\n- name: web\n  address: 192.0.2.1\n  port: 80\n"
      "  health: {type: exec, command: [/etc/sluice/checks/app, -x]}\n";
  const auto errors = [&](std::optional<std::string> checks) {
    config::context node;
    node.checks = std::move(checks);
    const auto read = config::parse_services(text, "f", node);
    return read ? std::string{} : sluice::to_string(read.error());
  };
  EXPECT_EQ(errors(std::nullopt), "");
  EXPECT_EQ(errors("/etc/sluice/checks"), "");
  EXPECT_EQ(errors("/srv"),
            "f:5: services[0].health.command: is not in /srv; expected a program there (checks in "
            "node.yaml)");
  EXPECT_EQ(errors(""),
            "f:5: services[0].health.command: is not run: checks is off in node.yaml; expected "
            "another type");
}

TEST(model_text, the_way_of_health_checks) {
  const auto text = [](const char* forward, const char* via, const char* type = "tcp") {
    return std::string{"services:\n- name: web\n  address: 192.0.2.1\n  port: 80\n  forward: "} +
           forward + "\n  health: {type: " + type + ", via: " + via + "}\n";
  };
  const auto errors_of = [](const std::string& t, const config::context& node) {
    const auto read = config::parse_services(t, "services.yaml", node);
    return read ? std::string{} : sluice::to_string(read.error());
  };
  for (const char* forward : {"ipip", "gue", "gre", "dsr-l2"})
    for (const char* via : {"auto", "direct", "data-path"})
      for (const char* type : {"tcp", "udp", "dns, name: a.test", "icmp"}) {
        const auto read = config::parse_services(text(forward, via, type), "services.yaml", {});
        ASSERT_TRUE(read) << forward << via << type;
        EXPECT_EQ(to_string(read->services[0].health.via), via);
        const auto again = config::parse_services(to_yaml(*read), "again", {});
        ASSERT_TRUE(again);
        EXPECT_EQ(*again, *read);
      }
  using model::carries;
  using model::health_kind;
  EXPECT_TRUE(carries(model::forward_mode::dsr_dscp, health_kind::udp));
  EXPECT_FALSE(carries(model::forward_mode::dsr_dscp, health_kind::icmp));
  EXPECT_FALSE(carries(model::forward_mode::nat, health_kind::icmp));
  EXPECT_FALSE(carries(model::forward_mode::ipip, health_kind::exec));
  EXPECT_EQ(errors_of("services:\n- name: web\n  address: 192.0.2.1\n  port: 80\n"
                      "  forward: dsr-dscp\n  health: {type: icmp, via: data-path}\n"
                      "  backends: [{address: 10.0.0.1, dscp: 10}]\n",
                      {}),
            "services.yaml:6: services[0].health.via: data-path is impossible with forward: "
            "dsr-dscp for type: icmp: the DSCP names the VIP of TCP and UDP alone; expected auto "
            "or direct");
  for (const char* forward : {"nat", "full-nat"}) {
    EXPECT_EQ(errors_of(text(forward, "auto"), {}), "");
    EXPECT_EQ(errors_of(text(forward, "data-path"), {}),
              "services.yaml:6: services[0].health.via: data-path is impossible with forward: " +
                  std::string{forward} +
                  ", whose backends do not have the service's address; expected auto or direct");
  }
  EXPECT_EQ(errors_of(text("ipip", "auto"), {.probes_through = false}), "");
  EXPECT_EQ(
      errors_of(text("ipip", "data-path"), {.probes_through = false}),
      "services.yaml:6: services[0].health.via: data-path is impossible: no port in node.yaml "
      "is an interface of the kernel or has a twin; expected auto or direct");
}

TEST(model_diff, names_every_field) {
  const auto parse = [](std::string_view text) {
    auto s = config::parse_services(text, "f", {});
    EXPECT_TRUE(s);
    return s ? *s : desired_state{};
  };
  const auto before = parse(
      "services:\n"
      "- {name: gone, address: 192.0.2.9, port: any, backends: [{address: 10.0.0.1}]}\n"
      "- {name: same, address: 192.0.2.8, port: 80}\n"
      "- {name: web, address: 192.0.2.1, port: 80, health: {type: tcp}, backends: [{address: "
      "10.0.1.11}, {address: 10.0.1.12}, {address: 10.0.1.13}]}\n");
  const auto after = parse(
      "services:\n"
      "- {name: new, address: 192.0.2.7, protocol: udp, port: 53}\n"
      "- {name: same, address: 192.0.2.8, port: 80}\n"
      "- {name: web, address: 192.0.2.1, port: 8000-8100, health: {type: http, port: 80, path: /h, "
      "interval: 5s}, backends: [{address: 10.0.1.12, weight: 50, admin: draining}, {address: "
      "10.0.1.13}, {address: 10.0.1.14, weight: 10}]}\n");
  const ip_address b11 = *parse_ip("10.0.1.11");
  const ip_address b12 = *parse_ip("10.0.1.12");
  const ip_address b14 = *parse_ip("10.0.1.14");
  using enum change_kind;
  const std::vector<change> expected{
      {removed, "gone", {}, "gone: removed, 192.0.2.9:any/tcp, 1 backend"},
      {added, "new", {}, "new: added, 192.0.2.7:53/udp, 0 backends"},
      {changed, "web", {}, "web: port 80 -> 8000-8100"},
      {changed, "web", {}, "web: health.type tcp -> http"},
      {changed, "web", {}, "web: health.interval 2s -> 5s"},
      {changed, "web", {}, "web: health.path none -> /h"},
      {changed, "web", {}, "web: health.expect none -> 200-399"},
      {changed, "web", {}, "web: health.port none -> 80"},
      {removed, "web", b11, "web: backend 10.0.1.11: removed"},
      {changed, "web", b12, "web: backend 10.0.1.12: weight 100 -> 50"},
      {changed, "web", b12, "web: backend 10.0.1.12: admin enabled -> draining"},
      {added, "web", b14, "web: backend 10.0.1.14: added, weight 10"},
  };
  const auto changes = diff(before, after);
  ASSERT_EQ(changes.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(changes[i].text, expected[i].text);
  EXPECT_EQ(changes, expected);
  EXPECT_TRUE(diff(before, before).empty());
}

}  // namespace
}  // namespace sluice::model
