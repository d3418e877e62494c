// SPDX-License-Identifier: Apache-2.0
// What Consul and Kubernetes answer, as they do; and what they might.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "controlplane/discover/consul_reply.hpp"
#include "controlplane/discover/http_client.hpp"
#include "controlplane/discover/kubernetes_reply.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::discover {
namespace {

std::string sample(const std::string& name) {
  std::ifstream file{SLUICE_SOURCE_ROOT "/tests/fuzz/corpus/discovery/" + name + ".json"};
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_FALSE(text.str().empty()) << name;
  return text.str();
}

std::string shown(const std::vector<found>& all) {
  std::string out;
  for (const found& f : all)
    out += format_ip(f.backend.address) + ":" + std::to_string(f.backend.port) + " " +
           (f.weighted ? std::to_string(f.backend.weight) : "-") +
           (f.backend.admin == model::admin_state::drain ? " draining" : "") + "\n";
  return out;
}

TEST(consul, catalogue_and_health) {
  const auto catalogue = parse_consul(sample("catalog"));
  ASSERT_TRUE(catalogue) << catalogue.error();
  EXPECT_EQ(shown(*catalogue), "10.77.0.21:8080 10\n10.77.0.22:8080 1\n");
  const auto health = parse_consul(sample("health"));
  ASSERT_TRUE(health) << health.error();
  EXPECT_EQ(shown(*health), "10.77.0.21:8080 10\n");
  EXPECT_TRUE(parse_consul("[]")->empty());
  EXPECT_EQ(shown(*parse_consul(R"([{"Address": "10.0.0.1", "ServiceWeights": {"Passing": 1}}])")),
            "10.0.0.1:0 -\n");
}

TEST(consul, refuses_what_is_no_answer) {
  for (const char* text : {"", "{}", "null", "[1]", R"([{"Address": "web.example.net"}])",
                           R"([{"Address": "10.0.0.1", "ServicePort": 65536}])"})
    EXPECT_FALSE(parse_consul(text)) << text;
}

TEST(consul, index_rules) {
  consul_index i;
  EXPECT_EQ(i.wait_for(), 0u);
  EXPECT_TRUE(i.answered("100"));
  EXPECT_EQ(i.wait_for(), 100u);
  EXPECT_FALSE(i.answered("100"));  // the wait is over, and nothing has happened
  EXPECT_EQ(i.wait_for(), 100u);
  EXPECT_TRUE(i.answered("107"));
  EXPECT_TRUE(i.answered("3"));  // backwards: begin anew
  EXPECT_EQ(i.wait_for(), 0u);
  EXPECT_TRUE(i.answered("4"));
  EXPECT_EQ(i.wait_for(), 4u);
  for (const char* none : {"0", "", "x", "-1", "99999999999999999999999"}) {
    consul_index j;
    EXPECT_TRUE(j.answered(none));
    EXPECT_EQ(j.wait_for(), 1u) << none;  // never without waiting
    EXPECT_FALSE(j.answered(none));
  }
}

TEST(kubernetes, a_list_and_a_watch) {
  const slice_wish wish{"", true, false};
  auto list = parse_slice_list(sample("slices"));
  ASSERT_TRUE(list) << list.error();
  EXPECT_EQ(list->version, "1000");
  EXPECT_EQ(shown(found_in(list->all, wish)), "10.77.0.21:8080 -\n10.77.0.22:8080 - draining\n");
  const watched w = parse_watched(sample("watch"));
  EXPECT_EQ(w.event, watch_event::changed);
  EXPECT_EQ(w.version, "1001");
  EXPECT_EQ(w.slice, "default/web-abc12");
  EXPECT_EQ(shown(found_in({{"x", w.one}}, wish)), "10.77.0.23:8080 -\n");
  EXPECT_EQ(parse_watched(sample("expired")).event, watch_event::expired);
  EXPECT_EQ(
      parse_watched(R"({"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5"}}})").event,
      watch_event::bookmark);
  EXPECT_EQ(parse_watched(R"({"type":"ERROR","object":{"code":500,"message":"no"}})").event,
            watch_event::error);
  for (const char* text : {"", "{}", R"({"type":"ADDED","object":{}})", R"({"type":"ADDED"})"})
    EXPECT_EQ(parse_watched(text).event, watch_event::error) << text;
}

TEST(kubernetes, ports_and_families) {
  const std::string text = sample("slices");
  const auto with = [&](const slice_wish& wish) {
    return shown(found_in(parse_slice_list(text)->all, wish));
  };
  EXPECT_NE(with({"http", true, false}), "");
  EXPECT_EQ(with({"grpc", true, false}), "");
  EXPECT_EQ(with({"", false, true}), "");
  EXPECT_FALSE(parse_slice_list(R"({"kind":"Status","code":403})"));
  EXPECT_FALSE(parse_slice_list(R"({"kind":"EndpointSliceList","metadata":{}})"));
  EXPECT_TRUE(parse_slice_list(
                  R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"1"},"items":null})")
                  ->all.empty());
}

TEST(kubernetes, one_endpoint_in_two_slices_serves) {
  found leaving;
  leaving.backend.address = ip_address::v4({10, 0, 0, 1});
  found ready = leaving;
  leaving.backend.admin = model::admin_state::drain;
  endpoint_slice one;
  one.ipv4 = true;
  endpoint_slice two = one;
  one.endpoints = {leaving};
  two.endpoints = {ready};
  EXPECT_EQ(shown(found_in({{"a", one}, {"b", two}}, {})), "10.0.0.1:0 -\n");
  EXPECT_EQ(shown(found_in({{"a", two}, {"b", one}}, {})), "10.0.0.1:0 -\n");
}

TEST(kubernetes, status) {
  const auto service = parse_service(sample("service"));
  ASSERT_TRUE(service);
  EXPECT_TRUE(service->balanced);
  EXPECT_EQ(service->load_balancer_class, "sluice.example/edge");
  EXPECT_EQ(service->addresses, std::vector<std::string>{"198.51.100.9"});
  EXPECT_EQ(
      status_patch({"198.51.100.9", "2001:db8::1"}),
      R"({"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.9"},{"ip":"2001:db8::1"}]}}})");
  EXPECT_FALSE(parse_service("{}"));
}

TEST(http, what_goes_into_a_url) {
  EXPECT_EQ(url_part("kubernetes.io/service-name=web"), "kubernetes.io%2Fservice-name%3Dweb");
  EXPECT_EQ(url_part("a-b_c.d~e"), "a-b_c.d~e");
}

// Nobody listens there: told from the loop, once; and not at all when given up.
TEST(http, a_server_that_is_not_there) {
  event_loop loop;
  http_client client{loop};
  int answers = 0;
  http_request r;
  r.url = "http://127.0.0.1:1/";
  client.send(r, [&](http_response response) {
    ++answers;
    EXPECT_EQ(response.status, 0);
    EXPECT_FALSE(response.error.empty());
    loop.stop();
  });
  EXPECT_EQ(answers, 0);
  loop.run_for(std::chrono::seconds{5});
  EXPECT_EQ(answers, 1);
  client.send(r, [&](http_response) { ++answers; });
  client.cancel();
  loop.run_for(std::chrono::milliseconds{50});
  EXPECT_EQ(answers, 1);
}

}  // namespace
}  // namespace sluice::discover
