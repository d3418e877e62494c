// SPDX-License-Identifier: Apache-2.0
// Replies of DNS servers, answers as backends of a service, and what a keeper makes of them.
#include <gtest/gtest.h>

#include "controlplane/discover/dns_lookup.hpp"
#include "controlplane/discover/keeper.hpp"
#include "controlplane/discover/stored.hpp"

namespace sluice::discover {
namespace {

ip_address ip(unsigned last) {
  return ip_address::v4({10, 0, 0, static_cast<std::uint8_t>(last)});
}

model::service plain() {
  model::service s;
  s.name = "web";
  s.address = ip_address::v4({198, 51, 100, 10});
  s.port = {80, 80};
  s.discover.kind = model::discovery_kind::dns;
  s.discover.name = "web.test";
  return s;
}

std::vector<found> of(std::initializer_list<unsigned> last) {
  std::vector<found> out;
  for (const unsigned n : last) {
    out.emplace_back();
    out.back().backend.address = ip(n);
  }
  return out;
}

// Question web.test, alias of w.test (TTL 9), which has 10.0.0.7 (TTL 30).
const std::vector<std::uint8_t> reply{
    0,    1,  0x81, 0x80, 0, 1, 0,    2,  0, 0, 0, 0,  3, 'w', 'e', 'b', 4, 't', 'e', 's',
    't',  0,  0,    1,    0, 1, 0xc0, 12, 0, 5, 0, 1,  0, 0,   0,   9,   0, 4,   1,   'w',
    0xc0, 16, 0xc0, 38,   0, 1, 0,    1,  0, 0, 0, 30, 0, 4,   10,  0,   0, 7};

TEST(discover, a_reply_and_all_of_its_beginnings) {
  const auto answer = parse_reply(reply, record_type::a);
  ASSERT_TRUE(answer) << answer.error();
  EXPECT_EQ(answer->addresses, std::vector{ip(7)});
  EXPECT_EQ(answer->ttl, 9u);
  for (std::size_t n = 0; n < reply.size(); ++n)
    EXPECT_FALSE(parse_reply(std::span{reply}.first(n), record_type::a)) << n;
  EXPECT_TRUE(parse_reply(reply, record_type::srv)->services.empty());
}

TEST(discover, priorities_are_tiers) {
  const auto got = found_by_srv({{20, 0, 81, "b"}, {10, 5, 80, "a"}, {10, 0, 80, "c"}},
                                {{"a", {ip(1)}}, {"b", {ip(2)}}, {"c", {ip(3)}}});
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0].backend.tier, 1);
  EXPECT_FALSE(got[0].weighted);
  EXPECT_EQ(got[1].backend.weight, 5u);
  EXPECT_EQ(got[2].backend.weight, 1u);
  EXPECT_EQ(got[1].backend.tier, 0);
}

TEST(discover, an_answer_is_taken_or_refused_as_a_whole) {
  model::service s = plain();
  s.discover.max_backends = 2;
  EXPECT_EQ(backends_of(s, of({2, 1, 2}))->size(), 2u);
  EXPECT_FALSE(backends_of(s, of({1, 2, 3})));
  auto twice = of({1, 1});
  twice[1].backend.tier = 1;
  EXPECT_FALSE(backends_of(s, twice));
  auto heavy = of({1});
  heavy[0].weighted = true;
  heavy[0].backend.weight = 70000;
  EXPECT_FALSE(backends_of(s, heavy));
}

struct fake : source {
  explicit fake(on_report r) : report_to{std::move(r)} {}
  void start() override {}
  void stop() override {}
  on_report report_to;
};

TEST(discover, a_keeper_drains_what_vanishes_and_keeps_what_is_refused) {
  event_loop loop;
  fake* last = nullptr;
  int made = 0;
  int news = 0;
  std::map<std::string, std::string> saved;
  keeper k{loop, [&] { ++news; },
           [&](const std::string& name, const known* now) {
             saved[name] = now ? to_text(*now) : std::string{};
           },
           [&](event_loop&, const question&, on_report r) {
             ++made;
             auto out = std::make_unique<fake>(std::move(r));
             last = out.get();
             return out;
           }};
  model::desired_state state{{plain(), plain()}};
  state.services[1].name = "zzz";
  state.services[1].discover.weight = 3;
  k.set_services(state);
  EXPECT_EQ(made, 1);
  std::string why;
  const auto check = [&](const model::desired_state&) { return why; };
  const auto all = [&] { return k.merge(state).services[0].backends; };

  last->report_to(of({1, 2}));
  loop.run_for(std::chrono::milliseconds{60});
  EXPECT_EQ(news, 1);
  EXPECT_TRUE(k.refresh(state, check));
  EXPECT_EQ(all().size(), 2u);
  EXPECT_EQ(k.merge(state).services[1].backends[0].weight, 3u);

  last->report_to(of({2, 3}));
  EXPECT_TRUE(k.refresh(state, check));
  ASSERT_EQ(all().size(), 3u);
  EXPECT_EQ(all()[0].source, model::backend_source::vanished);
  EXPECT_EQ(all()[0].admin, model::admin_state::drain);
  last->report_to(of({1, 2, 3}));  // back again
  EXPECT_TRUE(k.refresh(state, check));
  EXPECT_EQ(all()[0].source, model::backend_source::discovered);

  why = "does not fit";
  last->report_to(of({9}));
  (void)k.refresh(state, check);
  why.clear();
  EXPECT_EQ(all().size(), 3u);
  EXPECT_EQ(k.problems().size(), 2u);
  last->report_to(tl::unexpected{std::string{"timeout"}});
  last->report_to(of({}));
  EXPECT_FALSE(k.refresh(state, check));
  EXPECT_EQ(all().size(), 3u);

  // What is asked of one holds; what is configured goes first.
  model::set_discovered_admin(state.services[0], ip(2), model::admin_state::drain);
  state.services[0].backends = {{.address = ip(1), .weight = 55}};
  EXPECT_EQ(all()[0].weight, 55u);
  EXPECT_EQ(all()[1].admin, model::admin_state::drain);

  const auto again = from_text(saved["web"]);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->backends.size(), 3u);
  for (std::size_t n = 0; n < saved["web"].size(); ++n)
    EXPECT_FALSE(from_text(std::string_view{saved["web"]}.substr(0, n)));
  k.set_services({});
  EXPECT_TRUE(saved["web"].empty());
}

}  // namespace
}  // namespace sluice::discover
