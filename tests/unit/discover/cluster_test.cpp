// SPDX-License-Identifier: Apache-2.0
// Services of Kubernetes: what the API says of them, and what is made of them.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "controlplane/config/config.hpp"
#include "controlplane/discover/cluster_plan.hpp"
#include "controlplane/discover/cluster_service.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::discover {
namespace {

std::string sample_of(const std::string& name) {
  std::ifstream file{SLUICE_SOURCE_ROOT "/tests/fuzz/corpus/discovery/" + name + ".json"};
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_FALSE(text.str().empty()) << name;
  return text.str();
}

ip_address ip(const std::string& text) {
  return *parse_ip(text);
}

kubernetes_config config_of(const std::string& pool) {
  const auto node = parse_node_text(
      "controlplane: {kubernetes: {server: \"https://10.0.0.1:6443\", on-request: [192.0.2.64/28], "
      "pool: " +
          pool + "}}",
      "node.yaml");
  EXPECT_TRUE(node) << (node ? "" : to_string(node.error()));
  return *node->controlplane.kubernetes;
}

cluster_service balanced(const std::string& key,
                         std::vector<cluster_port> ports = {{"", model::protocol::tcp, 80}}) {
  cluster_service s;
  s.key = key;
  s.version = "1";
  s.balanced = true;
  s.load_balancer_class = "sluice.io/sluice";
  s.ports = std::move(ports);
  s.families = {true};
  return s;
}

// What is planned, again and again.
struct cluster {
  kubernetes_config config = config_of("[198.51.100.10-198.51.100.12, \"2001:db8::/64\"]");
  model::service common = *common_service(config);
  cluster_services services;
  std::set<std::string> listed{""};
  model::desired_state state;
  std::map<std::string, std::string> problems;

  void add(cluster_service s) { services[s.key] = std::move(s); }
  cluster_plan plan() const {
    return make_plan(state,
                     {config, common, services, listed, [](const model::desired_state& next) {
                        const auto errors = config::check(next, {});
                        return errors.empty() ? std::string{} : errors.front().to_string();
                      }});
  }
  std::set<std::string> go() {
    cluster_plan p = plan();
    state = std::move(p.next);
    problems = std::move(p.problems);
    return p.changed;
  }
  const model::service& at(const std::string& name) const {
    const model::service* s = model::find_service(state, name);
    EXPECT_NE(s, nullptr) << name;
    static const model::service none;
    return s != nullptr ? *s : none;
  }
  std::string vip(const std::string& name) const { return format_ip(at(name).address); }
  std::string names() const {
    std::string out;
    for (const auto& s : state.services) out += s.name + " ";
    return out;
  }
};

TEST(cluster_replies, a_list) {
  const auto list = parse_service_list(sample_of("services"));
  ASSERT_TRUE(list) << list.error();
  EXPECT_EQ(list->version, "2000");
  EXPECT_EQ(list->next, "ABC");
  ASSERT_EQ(list->all.size(), 3u);  // one has a name that is none
  const cluster_service& web = list->all.at("shop/web");
  EXPECT_TRUE(web.balanced);
  EXPECT_EQ(web.version, "1990");
  const std::vector<cluster_port> ports{{"http", model::protocol::tcp, 80},
                                        {"dns", model::protocol::udp, 53}};
  EXPECT_EQ(web.ports, ports);
  EXPECT_EQ(web.unfit_ports, std::vector<std::string>{"9000/SCTP"});
  EXPECT_EQ(web.families, (std::vector<bool>{true, false}));
  EXPECT_EQ(web.affinity, std::chrono::seconds{600});
  EXPECT_EQ(web.source_ranges, std::vector<std::string>{"192.0.2.0/24"});
  EXPECT_EQ(web.wishes, (std::map<std::string, std::string>{{"forward", "nat"}}));
  EXPECT_EQ(web.addresses, std::vector<std::string>{"198.51.100.9"});
  EXPECT_TRUE(web.other_ingress);
  EXPECT_FALSE(list->all.at("default/kubernetes").balanced);
  EXPECT_FALSE(list->all.at("shop/going").balanced) << "it is being deleted";
  for (const char* text : {"", "{}", "null", R"({"kind":"ServiceList"})", R"({"kind":"Status"})"})
    EXPECT_FALSE(parse_service_list(text)) << text;
}

TEST(cluster_replies, a_watch) {
  const auto w = parse_watched_service(sample_of("service_watch"));
  EXPECT_EQ(w.event, watch_event::changed);
  EXPECT_EQ(w.version, "2001");
  ASSERT_TRUE(w.service);
  EXPECT_EQ(w.service->asked, std::vector<std::string>{"198.51.100.7"});
  EXPECT_EQ(parse_watched_service(sample_of("expired")).event, watch_event::expired);
  EXPECT_FALSE(parse_watched_service(
                   R"({"type":"ADDED","object":{"metadata":{"name":"A B","resourceVersion":"1"}}})")
                   .service);
}

TEST(cluster_replies, what_is_written) {
  EXPECT_EQ(ingress_patch("7", {"198.51.100.9", "2001:db8::1"}),
            R"({"metadata":{"resourceVersion":"7"},"status":{"loadBalancer":{"ingress":)"
            R"([{"ip":"198.51.100.9"},{"ip":"2001:db8::1"}]}}})");
  EXPECT_EQ(ingress_patch("7", {}),
            R"({"metadata":{"resourceVersion":"7"},"status":{"loadBalancer":{"ingress":null}}})");
  const auto event = nlohmann::json::parse(
      warning_event(balanced("shop/web"), "no \xff", std::chrono::system_clock::time_point{}));
  EXPECT_EQ(event["involvedObject"]["name"], "web");
  EXPECT_EQ(event["metadata"]["namespace"], "shop");
  EXPECT_EQ(event["firstTimestamp"], "1970-01-01T00:00:00Z");
}

TEST(cluster_plan, one_service_for_each_port_and_family) {
  cluster c;
  auto web =
      balanced("shop/web", {{"http", model::protocol::tcp, 80}, {"dns", model::protocol::udp, 53}});
  web.families = {true, false};
  web.affinity = std::chrono::seconds{100'000};
  web.source_ranges = {"192.0.2.0/24"};
  web.wishes["scheduler"] = "source-hash";
  web.wishes["forward"] = "nat";
  c.add(web);
  EXPECT_EQ(c.go(), std::set<std::string>{"shop/web"});
  EXPECT_EQ(c.names(), "shop.web.53-udp shop.web.53-udp-v6 shop.web.80-tcp shop.web.80-tcp-v6 ");
  const model::service& s = c.at("shop.web.80-tcp");
  EXPECT_EQ(s.owner, model::service_owner::kubernetes);
  EXPECT_EQ(s.discover.name, "shop/web");
  EXPECT_EQ(s.discover.port_name, "http");
  EXPECT_EQ(s.discover.server, "https://10.0.0.1:6443");
  EXPECT_EQ(s.persistence.timeout, std::chrono::seconds{65535});
  EXPECT_EQ(s.allow.prefixes.size(), 1u);
  EXPECT_EQ(s.scheduler, model::scheduler_kind::source_hash);
  EXPECT_EQ(s.forward, model::forward_mode::nat);
  EXPECT_EQ(s.health.kind, model::health_kind::tcp);
  EXPECT_EQ(c.at("shop.web.53-udp").health.kind, model::health_kind::none);
  EXPECT_EQ(c.at("shop.web.53-udp").address, s.address);
  EXPECT_FALSE(c.at("shop.web.80-tcp-v6").address.is_v4());
  EXPECT_EQ(vips_of(c.state, web),
            (std::vector<std::string>{format_ip(s.address), c.vip("shop.web.80-tcp-v6")}));
  // What was stored is read back as it was.
  const auto again = config::parse_services(model::to_yaml(c.state), "x", {});
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_EQ(*again, c.state);
  EXPECT_TRUE(c.go().empty()) << "nothing has changed";
}

TEST(cluster_plan, vips_stay_and_are_given_back) {
  cluster c;
  for (const char* key : {"a/a", "a/b", "a/c"}) c.add(balanced(key));
  c.go();
  EXPECT_TRUE(c.problems.empty());
  std::map<std::string, std::string> before;
  for (const auto& s : c.state.services) before[s.name] = format_ip(s.address);
  std::set<std::string> different;
  for (const auto& [name, vip] : before) different.insert(vip);
  EXPECT_EQ(different.size(), 3u);
  // One too many; it does not hurt the others, and gets what is given back.
  c.add(balanced("a/0"));
  EXPECT_TRUE(c.go().empty());
  EXPECT_NE(c.problems["a/0"].find("no VIP of its family is free"), std::string::npos);
  for (const auto& [name, vip] : before) EXPECT_EQ(c.vip(name), vip);
  c.services.erase("a/b");
  EXPECT_EQ(c.go(), (std::set<std::string>{"a/0", "a/b"}));
  EXPECT_TRUE(c.problems.empty());
  EXPECT_EQ(c.vip("a.0.80-tcp"), before["a.b.80-tcp"]);
  EXPECT_EQ(c.vip("a.a.80-tcp"), before["a.a.80-tcp"]);
  // A node that knows nothing gives the same where names do not meet.
  cluster other;
  other.add(balanced("a/a"));
  other.go();
  cluster third;
  third.add(balanced("a/a"));
  third.go();
  EXPECT_EQ(other.vip("a.a.80-tcp"), third.vip("a.a.80-tcp"));
}

TEST(cluster_plan, the_status_wins_if_it_is_in_the_pool) {
  cluster c;
  c.add(balanced("a/a"));
  c.go();
  const std::string had = c.vip("a.a.80-tcp");
  const std::string wanted = had == "198.51.100.12" ? "198.51.100.11" : "198.51.100.12";
  c.services["a/a"].addresses = {wanted};
  c.go();
  EXPECT_EQ(c.vip("a.a.80-tcp"), wanted);
  c.services["a/a"].addresses = {"203.0.113.1"};  // not ours to give
  EXPECT_TRUE(c.go().empty());
  c.services["a/a"].addresses = {"192.0.2.65"};  // only on request
  EXPECT_TRUE(c.go().empty());
  auto second = balanced("a/b");
  second.addresses = {wanted};  // somebody else's
  c.add(second);
  c.go();
  EXPECT_EQ(c.vip("a.a.80-tcp"), wanted);
  EXPECT_NE(c.vip("a.b.80-tcp"), wanted);
}

TEST(cluster_plan, addresses_on_request) {
  cluster c;
  model::service own;
  own.name = "own";
  own.address = ip("192.0.2.66");
  own.port = {443, 443};
  c.state.services.push_back(own);
  const auto ask = [&](const std::string& key, const std::string& address, std::uint16_t port) {
    auto s = balanced(key, {{"", model::protocol::tcp, port}});
    s.asked = {address};
    c.add(s);
    c.go();
    return c.problems[key];
  };
  EXPECT_EQ(ask("a/a", "192.0.2.65", 80), "");
  EXPECT_EQ(c.vip("a.a.80-tcp"), "192.0.2.65");
  EXPECT_EQ(ask("a/b", "192.0.2.65", 81), "") << "shared within a namespace";
  EXPECT_NE(ask("a/c", "192.0.2.65", 80), "") << "the same port";
  EXPECT_NE(ask("b/a", "192.0.2.65", 82).find("address of Service a/a"), std::string::npos);
  EXPECT_NE(ask("b/b", "192.0.2.66", 80).find("not Kubernetes'"), std::string::npos);
  EXPECT_NE(ask("b/c", "203.0.113.1", 80).find("on-request"), std::string::npos);
  EXPECT_NE(ask("b/d", "nonsense", 80).find("not an IP address"), std::string::npos);
  EXPECT_NE(ask("b/e", "2001:db8::1", 80).find("ipFamilies"), std::string::npos);
  // What cannot be changed stays as it was.
  EXPECT_NE(ask("a/a", "203.0.113.1", 80), "");
  EXPECT_EQ(c.vip("a.a.80-tcp"), "192.0.2.65");
  EXPECT_EQ(c.at("own").owner, model::service_owner::operators);
}

TEST(cluster_plan, one_that_cannot_be_does_not_hurt_others) {
  cluster c;
  const auto with = [&](const std::string& key, const std::string& wish, const std::string& text) {
    auto s = balanced("a/" + key);
    s.wishes[wish] = text;
    c = cluster{};
    c.add(s);
    c.add(balanced("b/fine"));
    c.go();
    EXPECT_NE(c.names().find("b.fine"), std::string::npos) << key;
    return c.problems["a/" + key];
  };
  EXPECT_EQ(with("a", "health", "{type: http, path: /healthz}"), "");
  EXPECT_EQ(c.at("a.a.80-tcp").health.path, "/healthz");
  EXPECT_NE(with("b", "health", "{type: exec, command: [/bin/true]}").find("not for Services"),
            std::string::npos);
  EXPECT_NE(with("c", "health", "{type: nonsense}"), "");
  EXPECT_NE(with("d", "health", "{type: tcp}, deny: []"), "");
  EXPECT_NE(with("e", "forward", "nonsense"), "");
  EXPECT_NE(with("f", "forward", "nat\", \"deny\": [], \"x\": \""), "");
  EXPECT_NE(with("g", "weight", "1").find("is not known"), std::string::npos);
  EXPECT_NE(with("h", "forward", "dsr-dscp"), "");
  c = cluster{};
  auto ranges = balanced("a/a");
  ranges.source_ranges = {"192.0.2.0/24", "nonsense"};
  c.add(ranges);
  c.go();
  EXPECT_NE(c.problems["a/a"].find("loadBalancerSourceRanges"), std::string::npos);
  EXPECT_EQ(c.names(), "") << "never open to more than was asked for";
}

TEST(cluster_plan, what_is_not_listed_yet_stays) {
  cluster c;
  c.config.namespaces = {"a", "b"};
  c.listed = {"a", "b"};
  c.add(balanced("a/a"));
  c.add(balanced("b/b"));
  c.go();
  const std::string all = c.names();
  c.services.clear();
  c.listed = {};
  EXPECT_TRUE(c.go().empty());
  EXPECT_EQ(c.names(), all);
  c.listed = {"b"};
  EXPECT_EQ(c.go(), std::set<std::string>{"b/b"});
  EXPECT_EQ(c.names(), "a.a.80-tcp ");
  c.config.namespaces = {"b"};  // a is no longer looked at
  c.go();
  EXPECT_EQ(c.names(), "");
}

TEST(cluster_plan, long_names_are_cut_and_differ) {
  cluster c;
  const std::string space(60, 'n');
  c.add(balanced(space + "/" + std::string(60, 'a')));
  c.add(balanced(space + "/" + std::string(60, 'b')));
  c.go();
  EXPECT_TRUE(c.problems.empty());
  ASSERT_EQ(c.state.services.size(), 2u);
  EXPECT_EQ(c.state.services[0].name.size(), 48u);
}

TEST(cluster_plan, only_takes_one_of_a_plan) {
  cluster c;
  c.add(balanced("a/a"));
  c.go();
  c.add(balanced("a/b"));
  c.services.erase("a/a");
  const auto plan = c.plan();
  EXPECT_EQ(only(c.state, plan, "a/b").services.size(), 2u);
  EXPECT_EQ(only(c.state, plan, "a/a").services.size(), 0u);
}

TEST(cluster_plan, owned_services_are_kept) {
  cluster c;
  c.add(balanced("a/a"));
  c.go();
  model::desired_state mine;
  mine.services.resize(1);
  mine.services[0].name = "own";
  model::keep_owned(mine, c.state);
  EXPECT_EQ(mine.services.size(), 2u);
  EXPECT_EQ(model::touched_owned(mine, c.state), "");
  model::desired_state changed = c.state;
  model::set_discovered_admin(changed.services[0], ip("10.0.0.1"), model::admin_state::drain);
  EXPECT_EQ(model::touched_owned(changed, c.state), "") << "backends may be drained";
  changed.services[0].port = {1, 1};
  EXPECT_EQ(model::touched_owned(changed, c.state), "a.a.80-tcp");
  EXPECT_EQ(model::touched_owned({}, c.state), "a.a.80-tcp");
  EXPECT_EQ(model::touched_owned(c.state, {}), "a.a.80-tcp");
}

TEST(cluster_config, refusals) {
  const auto error = [](const std::string& text) {
    const auto node = parse_node_text("controlplane: {kubernetes: " + text + "}", "node.yaml");
    return node ? std::string{} : to_string(node.error());
  };
  const std::string fine = "server: \"https://10.0.0.1:6443\", pool: [198.51.100.0/24]";
  EXPECT_EQ(error("{" + fine + "}"), "");
  EXPECT_EQ(error("{" + fine + ", namespaces: all, class: example.net/x}"), "");
  const std::pair<const char*, const char*> wrong[] = {
      {"{pool: [198.51.100.0/24]}", "server"},
      {"{server: \"https://10.0.0.1:6443\"}", "pool"},
      {"{server: \"http://10.0.0.1\", token-file: /t, pool: []}", "in the clear"},
      {"{server: \"https://10.0.0.1\", pool: [198.51.100.9-198.51.100.1]}", "no range"},
      {"{server: \"https://10.0.0.1\", pool: [198.51.100.0/24, 198.51.100.7]}", "overlaps"},
      {"{server: \"https://10.0.0.1\", pool: [], namespaces: [A]}", "namespace"},
      {"{server: \"https://10.0.0.1\", pool: [], namespaces: []}", "empty"},
      {"{server: \"https://10.0.0.1\", pool: [], class: \"a b\"}", "loadBalancerClass"},
      {"{server: \"https://10.0.0.1\", pool: [], service-file: x}", "absolute"},
      {"{server: \"https://10.0.0.1\", pool: [], pols: []}", "pols"},
  };
  for (const auto& [text, what] : wrong)
    EXPECT_NE(error(text).find(what), std::string::npos) << text << ": " << error(text);
}

}  // namespace
}  // namespace sluice::discover
