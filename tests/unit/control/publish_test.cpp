// SPDX-License-Identifier: Apache-2.0
// Publishing: numbers, tables, slots, refusals, look-ups of what was written.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "controlplane/publish/arena.hpp"
#include "controlplane/publish/config_writer.hpp"
#include "controlplane/publish/memory_config.hpp"
#include "controlplane/publish/recover.hpp"
#include "controlplane/publish/slot_writer.hpp"
#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::publish {
namespace {

using test::plain_service;
using test::plain_state;
using test::up_backend;
using test::v4;

constexpr abi::config_limits small{64, 4096, 4u << 20};

std::unique_ptr<config_writer> make_writer(const std::shared_ptr<reader_watch>& watch,
                                           abi::config_limits limits = small) {
  auto segment = config_segment::in_memory(limits);
  EXPECT_TRUE(segment);
  return config_writer::fresh(std::move(*segment), {.hash_seed = 42}, watch);
}
std::shared_ptr<reader_watch> nobody() {
  return std::make_shared<reader_watch>();
}

void must_publish(config_writer& w, const published_state& s) {
  const auto r = w.publish(s);
  ASSERT_EQ(r.status, publish_status::published) << r.error;
}

const abi::service_row* find(const abi::config_view& view, const published_service& s,
                             std::uint16_t port) {
  const abi::vip_row* vip = view.find_vip(s.address, s.protocol);
  return vip == nullptr ? nullptr : view.find_service(*vip, port);
}

TEST(arena, first_fit_and_joined_gaps) {
  arena a{4096, 64 * 10};
  const auto one = a.allocate(64);
  const auto two = a.allocate(100);
  const auto three = a.allocate(1);
  ASSERT_TRUE(one && two && three);
  EXPECT_EQ(*one, 4096u);
  EXPECT_EQ(*two, 4096u + 64);
  EXPECT_EQ(*three, 4096u + 192);
  EXPECT_EQ(a.used(), 256u);
  EXPECT_FALSE(a.allocate(64 * 7));
  a.release(*one, 64);
  a.release(*two, 100);  // joins with the one before
  EXPECT_EQ(a.allocate(192), 4096u);
  EXPECT_FALSE(a.claim(4096, 64));
  EXPECT_FALSE(a.claim(4096 + 256 + 32, 64));
  EXPECT_TRUE(a.claim(4096 + 256 + 64, 64));
  EXPECT_FALSE(a.allocate(64 * 6));
  a.release(4096 + 256 + 64, 64);
  EXPECT_TRUE(a.allocate(64 * 6));
}

TEST(arena, random_use_never_overlaps) {
  std::mt19937 random{3};
  arena a{0, 1u << 20};
  std::map<std::uint64_t, std::uint64_t> taken;
  for (int i = 0; i < 20000; ++i) {
    if (!taken.empty() && random() % 2 == 0) {
      auto at = taken.begin();
      std::advance(at, static_cast<std::ptrdiff_t>(random() % taken.size()));
      a.release(at->first, at->second);
      taken.erase(at);
      continue;
    }
    const std::uint64_t bytes = random() % 9000 + 1;
    const auto got = a.allocate(bytes);
    if (!got) continue;
    const auto after = taken.lower_bound(*got);
    if (after != taken.end()) {
      ASSERT_LE(*got + bytes, after->first);
    }
    if (after != taken.begin()) {
      ASSERT_LE(std::prev(after)->first + std::prev(after)->second, *got);
    }
    taken.emplace(*got, bytes);
  }
  for (const auto& [offset, bytes] : taken) a.release(offset, bytes);
  EXPECT_EQ(a.used(), 0u);
  EXPECT_EQ(a.allocate(1u << 20), 0u);  // one gap again
}

TEST(publish, what_is_written_is_found) {
  published_state s = plain_state(3, 4);
  s.services[1].port_first = 8000;
  s.services[1].port_last = 8100;
  s.services[1].address = s.services[0].address;
  s.services[2].port_first = 0;
  s.services[2].port_last = 0xffff;
  s.services[2].address = s.services[0].address;
  const auto w = make_writer(nobody());
  must_publish(*w, s);
  const auto view = w->view();
  ASSERT_FALSE(view.empty());
  EXPECT_EQ(view.header().number, 1u);
  EXPECT_EQ(view.header().hash_seed, 42u);
  const auto name_at = [&](std::uint16_t port) {
    return service_name(*view.cold(find(view, s.services[0], port)->self));
  };
  EXPECT_EQ(name_at(80), "s0000");
  EXPECT_EQ(name_at(8000), "s0001");
  EXPECT_EQ(name_at(8100), "s0001");
  EXPECT_EQ(name_at(8101), "s0002");
  EXPECT_EQ(name_at(7999), "s0002");
  EXPECT_EQ(view.find_vip(v4(1, 2, 3, 4), 6), nullptr);
  EXPECT_EQ(view.find_vip(s.services[0].address, 17), nullptr);

  const abi::service_row& row = *find(view, s.services[0], 80);
  std::map<std::uint32_t, std::uint32_t> counts;
  for (std::uint32_t i = 0; i < row.table_size; ++i) {
    const auto ref = view.in_slot(row, i);
    ASSERT_NE(view.backend(ref), nullptr);
    ++counts[ref.index()];
  }
  EXPECT_EQ(counts.size(), 4u);
  for (const auto& [index, count] : counts) {
    const auto* cold = view.cold(abi::backend_ref::make(index, 0));
    EXPECT_EQ(cold->slots, count);
    EXPECT_EQ(cold->effective_weight, 100u);
  }
}

TEST(publish, numbers_stay_and_are_reused_late) {
  const auto w = make_writer(nobody(), {64, 2, 4u << 20});
  published_state s = plain_state(1, 2);
  must_publish(*w, s);
  const auto ref_of = [&](const ip_address& a) {
    const auto view = w->view();
    for (std::uint32_t i = 0; i < view.header().backend_count; ++i)
      if ((view.backend_at(i)->flags & abi::backend_in_use) != 0 &&
          view.backend_at(i)->address == a)
        return abi::backend_ref::make(i, view.backend_at(i)->incarnation);
    return abi::backend_ref{};
  };
  const auto first = ref_of(s.services[0].backends[0].address);
  const auto second = ref_of(s.services[0].backends[1].address);
  // Another backend takes the place of the second: there are only two rows.
  s.services[0].backends[1] = up_backend(v4(10, 9, 9, 9));
  must_publish(*w, s);
  EXPECT_EQ(ref_of(s.services[0].backends[0].address), first);
  const auto third = ref_of(v4(10, 9, 9, 9));
  EXPECT_EQ(third.index(), second.index());
  EXPECT_NE(third, second);
  EXPECT_EQ(third.incarnation(), (second.incarnation() + 1) % 16);
  EXPECT_EQ(w->view().backend(second), nullptr);  // a connection that names it finds nothing
}

TEST(publish, freed_rows_rest_before_they_are_used_again) {
  id_pool pool{5000};
  std::vector<std::uint32_t> taken;
  for (int i = 0; i < 10; ++i) taken.push_back(pool.take().value());
  for (const auto id : taken) pool.give_back(id);
  for (std::size_t i = 0; i < id_pool::resting - 9; ++i) {
    const auto id = pool.take().value();
    EXPECT_GE(id, 10u);
    pool.give_back(id);
  }
  EXPECT_EQ(pool.take(), 0u);  // the one that was freed first
}

TEST(publish, unchanged_services_keep_their_tables) {
  const auto w = make_writer(nobody());
  published_state s = plain_state(10, 5);
  must_publish(*w, s);
  std::vector<std::uint64_t> before;
  for (const auto& x : s.services) before.push_back(find(w->view(), x, 80)->table_offset);
  s.services[3].backends[2].effective_weight = 0;
  s.services[3].backends[2].health = abi::shown_health::down;
  s.services[5].backends[0].next_hop->mac[5] = 9;  // no change of its table
  const auto r = w->publish(s);
  ASSERT_EQ(r.status, publish_status::published);
  EXPECT_EQ(r.tables_built, 1u);
  for (std::size_t i = 0; i < s.services.size(); ++i)
    EXPECT_EQ(find(w->view(), s.services[i], 80)->table_offset == before[i], i != 3) << i;
  // Services with the same backends share one table.
  s.services[7].backends = s.services[6].backends;
  must_publish(*w, s);
  EXPECT_EQ(find(w->view(), s.services[7], 80)->table_offset,
            find(w->view(), s.services[6], 80)->table_offset);
}

TEST(publish, a_flush_gives_the_backends_of_a_service_other_names) {
  const auto w = make_writer(nobody());
  published_state s = plain_state(2, 3);
  must_publish(*w, s);
  const auto refs = [&](std::size_t service) {
    std::vector<abi::backend_ref> out;
    const auto members = w->view().members_of(*find(w->view(), s.services[service], 80));
    out.assign(members.begin(), members.end());
    return out;
  };
  const auto before = refs(0);
  const auto other = refs(1);
  EXPECT_EQ(w->view().header().flushes, 0u);
  EXPECT_FALSE(w->flush("nobody"));
  EXPECT_TRUE(w->flush(s.services[0].name));
  must_publish(*w, s);
  EXPECT_EQ(w->view().header().flushes, 1u);
  EXPECT_EQ(refs(1), other);
  const auto after = refs(0);
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i].index(), before[i].index());
    EXPECT_NE(after[i], before[i]);
    EXPECT_EQ(w->view().backend(before[i]), nullptr);
    EXPECT_NE(w->view().backend(after[i]), nullptr);
  }
}

TEST(publish, tables_are_given_back) {
  const auto w = make_writer(nobody());
  published_state s = plain_state(4, 5);
  must_publish(*w, s);
  const auto bytes = w->table_bytes();
  for (int i = 0; i < 50; ++i) {
    s.services[0].backends[0].effective_weight = 100 + static_cast<std::uint32_t>(i) + 1;
    must_publish(*w, s);
  }
  EXPECT_TRUE(w->collect());
  EXPECT_EQ(w->table_bytes(), bytes);
}

TEST(publish, a_stuck_reader_makes_it_wait_and_the_newest_wins) {
  const auto watch = std::make_shared<test::cell_watch<2>>();
  const auto w = make_writer(watch);
  published_state s = plain_state(2, 3);
  must_publish(*w, s);
  auto held = abi::generation_reader<>::start(watch->cells[0], w->segment().control().current);
  EXPECT_EQ(held.number(), 1u);
  for (int i = 0; i < 2; ++i) {  // two more slots
    ++s.revision;
    must_publish(*w, s);
  }
  ++s.revision;
  s.services[0].backends[0].effective_weight = 7;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(w->publish(s).status, publish_status::pending);
  EXPECT_EQ(w->view().header().revision, 3u);
  // The reader's own slot is as it was.
  abi::config_view old;
  ASSERT_TRUE(abi::config_view::open(w->segment().data(), w->segment().limits(), held.slot(), old));
  EXPECT_EQ(old.header().number, 1u);
  EXPECT_EQ(old.header().revision, 1u);

  held = abi::generation_reader<>::poll(watch->cells[0], w->segment().control().current, held);
  s.revision = 99;
  must_publish(*w, s);
  EXPECT_EQ(w->view().header().revision, 99u);
  EXPECT_EQ(w->generation(), 4u);
}

TEST(publish, a_table_in_use_by_an_old_reader_is_not_overwritten) {
  const auto watch = std::make_shared<test::cell_watch<1>>();
  // Room for three tables.
  const auto w = make_writer(watch, {4, 16, 3 * 2048});
  published_state s = plain_state(1, 3, 2039);
  must_publish(*w, s);
  auto held = abi::generation_reader<>::start(watch->cells[0], w->segment().control().current);
  abi::config_view old;
  ASSERT_TRUE(abi::config_view::open(w->segment().data(), w->segment().limits(), held.slot(), old));
  const abi::service_row row = *find(old, s.services[0], 80);
  const auto content = [&] {
    const abi::slot_table t = old.table_of(row);
    std::vector<std::uint16_t> out;
    for (std::uint32_t i = 0; i < t.size(); ++i) out.push_back(t[i]);
    return out;
  };
  const auto before = content();
  std::uint32_t weight = 1;
  int pending = 0;
  for (int i = 0; i < 6; ++i) {
    s.services[0].backends[0].effective_weight = weight++;
    pending += w->publish(s).status == publish_status::pending ? 1 : 0;
    EXPECT_EQ(content(), before);
  }
  EXPECT_EQ(pending, 4);
  (void)abi::generation_reader<>::poll(watch->cells[0], w->segment().control().current, held);
  must_publish(*w, s);
}

TEST(publish, refusals_leave_what_was) {
  const auto w = make_writer(nobody(), {2, 8, 3 * 4096});
  const published_state good = plain_state(2, 3);
  must_publish(*w, good);
  const auto refused = [&](const published_state& s, std::string_view word) {
    const auto r = w->publish(s);
    EXPECT_EQ(r.status, publish_status::refused);
    EXPECT_NE(r.error.find(word), std::string::npos) << r.error;
    EXPECT_EQ(w->generation(), 1u);
    EXPECT_EQ(w->view().header().number, 1u);
  };
  refused(plain_state(3, 1), "limit");
  refused(plain_state(2, 5), "limit");
  published_state s = good;
  s.services[1].address = s.services[0].address;
  refused(s, "same port");
  s = good;
  s.services[0].table_size = 1000;
  refused(s, "prime");
  s = good;
  std::swap(s.services[0], s.services[1]);
  refused(s, "sorted");
  s = good;
  s.services[0].name = std::string(56, 'x');
  refused(s, "name");
  s = good;
  s.services[0].table_size = 65537;
  refused(s, "memory for lookup tables");
  EXPECT_FALSE(w->check(s).empty());
  EXPECT_TRUE(w->check(good).empty());
  s = good;
  s.services[0].port_first = 10;
  s.services[0].port_last = 20;
  s.services[1].address = s.services[0].address;
  s.services[1].port_first = 20;
  s.services[1].port_last = 30;
  refused(s, "same port");
  must_publish(*w, good);
}

// What check() lets pass can be published whatever becomes of the backends' health.
TEST(publish, check_does_not_count_on_shared_tables) {
  constexpr unsigned services = 8;
  const std::uint64_t table = 1024;  // 1021 narrow slots
  published_state s = plain_state(services, 9);
  for (auto& service : s.services) service.backends = s.services[0].backends;
  const auto tight = make_writer(nobody(), {64, 4096, 3 * 2 * table});
  EXPECT_NE(tight->check(s).find("table-memory"), std::string::npos);
  const auto enough = make_writer(nobody(), {64, 4096, 3 * services * table});
  ASSERT_TRUE(enough->check(s).empty());
  must_publish(*enough, s);
  for (unsigned i = 0; i < services; ++i) s.services[i].backends[i].effective_weight = 0;
  must_publish(*enough, s);
}

TEST(publish, no_members_and_no_services) {
  const auto w = make_writer(nobody());
  must_publish(*w, {});
  EXPECT_EQ(w->view().find_vip(v4(198, 51, 100, 1), 6), nullptr);
  published_state s = plain_state(1, 2);
  for (auto& b : s.services[0].backends) b.effective_weight = 0;
  must_publish(*w, s);
  const auto view = w->view();
  const auto* row = find(view, s.services[0], 80);
  ASSERT_NE(row, nullptr);
  EXPECT_EQ(row->member_count, 0u);
  EXPECT_TRUE(view.choose(*row, 12345).none());
}

TEST(publish, digests_do_not_depend_on_history) {
  const auto one = make_writer(nobody());
  const auto two = make_writer(nobody());
  published_state s = plain_state(5, 10);
  published_state other = plain_state(7, 3);
  must_publish(*one, s);
  must_publish(*two, other);
  for (auto& x : other.services) std::reverse(x.backends.begin(), x.backends.end());
  must_publish(*two, s);
  EXPECT_EQ(one->view().header().digest, two->view().header().digest);
  s.services[0].backends.pop_back();
  must_publish(*two, s);
  EXPECT_NE(one->view().header().digest, two->view().header().digest);
}

TEST(publish, counter_bases) {
  const auto watch = std::make_shared<test::cell_watch<1>>();
  watch->counters = 77;
  watch->sums = 1000;
  const auto w = make_writer(watch);
  published_state s = plain_state(1, 1);
  must_publish(*w, s);
  EXPECT_EQ(w->view().header().base_instance, 77u);
  EXPECT_EQ(w->view().cold(abi::backend_ref::make(0, 0))->base_packets, 1000u);
  watch->sums = 2000;
  s.services[0].backends.push_back(up_backend(v4(10, 200, 0, 1)));
  must_publish(*w, s);
  EXPECT_EQ(w->view().cold(abi::backend_ref::make(0, 0))->base_packets, 1000u);
  EXPECT_EQ(w->view().cold(abi::backend_ref::make(1, 0))->base_packets, 2001u);
  watch->counters = 78;  // another data plane counts from 0
  must_publish(*w, s);
  EXPECT_EQ(w->view().header().base_instance, 78u);
  EXPECT_EQ(w->view().cold(abi::backend_ref::make(1, 0))->base_packets, 0u);
}

lists::shared_ranges list_of(std::initializer_list<const char*> texts) {
  std::vector<ip_prefix> prefixes;
  for (const char* text : texts) prefixes.push_back(*parse_prefix(text));
  return std::make_shared<const lists::range_set>(prefixes);
}

TEST(publish, lists_are_found_shared_and_given_back) {
  const auto watch = std::make_shared<test::cell_watch<1>>();
  const auto w = make_writer(watch);
  published_state s = plain_state(4, 3);
  must_publish(*w, s);
  const auto bytes = w->table_bytes();
  s.services[0].allow = list_of({"10.0.0.0/8", "2001:db8::/32"});
  s.services[1].deny = list_of({"2001:db8::/32", "10.128.0.0/9", "10.0.0.0/9"});  // the same
  s.services[2].deny = list_of({});
  must_publish(*w, s);
  const auto options = [&](unsigned n) {
    return *w->view().options(find(w->view(), s.services[n], 80)->self);
  };
  EXPECT_EQ(w->view().header().list_count, 2);
  EXPECT_EQ(options(0).allow_list, options(1).deny_list);
  EXPECT_EQ(options(0).deny_list, abi::no_list);
  EXPECT_NE(options(2).deny_list, options(1).deny_list);
  EXPECT_NE(options(2).deny_list, abi::no_list);
  EXPECT_EQ(options(3).allow_list, abi::no_list);
  EXPECT_EQ(find(w->view(), s.services[2], 80)->flags & abi::service_has_options,
            abi::service_has_options);
  EXPECT_TRUE(w->view().in_list(options(0).allow_list, v4(10, 200, 0, 1)));
  EXPECT_TRUE(w->view().in_list(options(0).allow_list, *parse_ip("2001:db8::1")));
  EXPECT_FALSE(w->view().in_list(options(0).allow_list, v4(11, 0, 0, 1)));
  EXPECT_FALSE(w->view().in_list(options(2).deny_list, v4(10, 0, 0, 1)));
  const auto with_lists = w->table_bytes();

  // A reader holds a list that is gone from the state: it stays until the reader has moved.
  auto held = abi::generation_reader<>::start(watch->cells[0], w->segment().control().current);
  abi::config_view old;
  ASSERT_TRUE(abi::config_view::open(w->segment().data(), w->segment().limits(), held.slot(), old));
  const auto number = options(0).allow_list;
  s.services[0].allow = s.services[1].deny = list_of({"192.0.2.0/24"});
  must_publish(*w, s);
  EXPECT_FALSE(w->collect());
  EXPECT_GT(w->table_bytes(), with_lists);
  EXPECT_TRUE(old.in_list(number, v4(10, 200, 0, 1)));
  held = abi::generation_reader<>::poll(watch->cells[0], w->segment().control().current, held);
  EXPECT_TRUE(w->collect());
  for (auto& service : s.services) service.allow = service.deny = nullptr;
  must_publish(*w, s);
  (void)abi::generation_reader<>::poll(watch->cells[0], w->segment().control().current, held);
  EXPECT_TRUE(w->collect());
  EXPECT_EQ(w->table_bytes(), bytes);
  EXPECT_EQ(w->view().header().list_count, 0);
}

TEST(publish, too_many_or_too_large_lists_are_refused) {
  const auto w = make_writer(nobody());
  published_state s = plain_state(64, 1);
  std::vector<ip_prefix> prefixes;
  for (unsigned i = 0; i < 300'000; ++i) prefixes.push_back({ip_address::v4(be32{i * 2}), 32});
  s.services[0].deny = std::make_shared<const lists::range_set>(prefixes);
  EXPECT_NE(w->check(s).find("the lookup tables and lists need 3 MiB, this node's limit is 1 MiB"),
            std::string::npos)
      << w->check(s);
  s.services[0].deny = nullptr;
  EXPECT_EQ(w->check(s), "");
  const auto many = make_writer(nobody(), {256, 256, 64u << 20});
  s = plain_state(200, 1);
  for (unsigned i = 0; i < 200; ++i) {
    const ip_address a = v4(10, i, 0, 0);
    s.services[i].deny = std::make_shared<const lists::range_set>(std::vector{ip_prefix{a, 16}});
    s.services[i].allow = std::make_shared<const lists::range_set>(std::vector{ip_prefix{a, 24}});
  }
  EXPECT_EQ(many->check(s), "400 different allow and deny lists, at most 256 fit a generation");
}

TEST(publish, schedulers_have_tables_of_their_own) {
  const auto w = make_writer(nobody());
  published_state s = plain_state(10, 3);
  for (unsigned i = 0; i < 10; ++i) {
    s.services[i].kind = static_cast<abi::scheduler>(1 + i);
    s.services[i].backends = s.services[0].backends;
    s.services[i].backends[1].effective_weight = 200;
  }
  must_publish(*w, s);
  const auto row = [&](abi::scheduler kind) {
    return *find(w->view(), s.services[static_cast<std::size_t>(kind) - 1], 80);
  };
  using abi::scheduler;
  EXPECT_EQ(row(scheduler::round_robin).table_size, 3u);
  EXPECT_EQ(row(scheduler::weighted_round_robin).table_size, 4u);
  EXPECT_EQ(row(scheduler::weighted_random).table_size, 4u);
  EXPECT_EQ(row(scheduler::ring_hash).table_size, 1021u);
  EXPECT_EQ(row(scheduler::least_connections).table_offset, row(scheduler::maglev).table_offset);
  EXPECT_EQ(row(scheduler::source_hash).table_offset, row(scheduler::maglev).table_offset);
  EXPECT_EQ(row(scheduler::random).table_offset, row(scheduler::round_robin).table_offset);
  EXPECT_NE(row(scheduler::ring_hash).table_digest, row(scheduler::maglev).table_digest);
  const auto smooth = row(scheduler::weighted_round_robin);
  std::vector<std::uint32_t> turns;
  for (std::uint32_t i = 0; i < 4; ++i) turns.push_back(w->view().table_of(smooth)[i]);
  EXPECT_EQ(turns, (std::vector<std::uint32_t>{1, 0, 2, 1}));
}

TEST(publish, options_and_pool_reach_the_rows) {
  published_state state = plain_state(3, 2);
  published_service& s = state.services[1];
  s.mode = abi::forward_mode::full_nat;
  s.kind = abi::scheduler::source_hash;
  s.answers_echo = false;
  s.mss_clamp = 1400;
  s.client = model::client_address::toa;
  s.persistence = {std::chrono::seconds{300}, 24, 64};
  s.limits = {100, 1, 10, {4, 20, 56}};
  s.backends[1].port = 8080;
  s.backends[1].effective_weight = 7;
  s.backends[0].dscp = 63;
  s.backends[0].quic_id = {{1, 2, 3}, 3};
  state.services[2].quic_id_length = 4;
  state.workers = 3;
  writer_settings settings;
  settings.gue_port = 5000;
  settings.pool = {v4(192, 0, 2, 1), v4(192, 0, 2, 2)};
  auto segment = config_segment::in_memory({8, 16, 1 << 20});
  const auto writer =
      config_writer::fresh(std::move(*segment), settings, std::make_shared<reader_watch>());
  ASSERT_EQ(writer->publish(state).status, publish_status::published);
  const abi::config_view view = writer->view();
  EXPECT_EQ(view.header().gue_port, 5000);
  EXPECT_EQ(view.header().worker_count, 3);
  EXPECT_EQ(view.header().flags, std::uint64_t{abi::generation_has_nat});
  ASSERT_EQ(view.pool().size(), 2u);
  EXPECT_EQ(view.pool()[1], v4(192, 0, 2, 2));

  const auto row_of = [&](unsigned n) -> const abi::service_row& {
    const auto* vip = view.find_vip(state.services[n].address, 6);
    return *view.find_service(*vip, 80);
  };
  EXPECT_EQ(row_of(0).flags, abi::service_answers_echo);
  EXPECT_EQ(row_of(0).kind, abi::scheduler::maglev);
  EXPECT_EQ(view.options(row_of(0).self)->allow_list, abi::no_list);
  EXPECT_EQ(view.options(row_of(0).self)->deny_list, abi::no_list);
  EXPECT_EQ(row_of(2).flags, abi::service_answers_echo | abi::service_has_options);
  EXPECT_EQ(view.options(row_of(2).self)->quic_id_length, 4);
  EXPECT_EQ(view.options(row_of(2).self)->quic_id_offset, 1);

  const abi::service_row& row = row_of(1);
  EXPECT_EQ(row.flags, abi::service_has_options | abi::service_counts_packets);
  EXPECT_EQ(row.kind, abi::scheduler::source_hash);
  EXPECT_EQ(row.mode, abi::forward_mode::full_nat);
  EXPECT_EQ(row.mss_clamp, 1400);
  const abi::service_options& o = *view.options(row.self);
  // Shared by three workers, rounded up.
  EXPECT_EQ(o.connection_rate, 34u);
  EXPECT_EQ(o.packet_rate, 1u);
  EXPECT_EQ(o.syn_flood_rate, 4u);
  EXPECT_EQ(o.source_connection_rate, 2u);
  EXPECT_EQ(o.source_prefix4, 20);
  EXPECT_EQ(o.source_prefix6, 56);
  EXPECT_EQ(o.persistence_timeout, 300);
  EXPECT_EQ(o.persistence_prefix4, 24);
  EXPECT_EQ(o.persistence_prefix6, 64);
  EXPECT_EQ(o.client, abi::client_address::toa);
  const abi::backend_row& first = *view.backend(view.member(row, 0));
  const abi::backend_row& second = *view.backend(view.member(row, 1));
  EXPECT_EQ(first.dscp, 63);
  EXPECT_EQ(first.quic_id_length, 3);
  EXPECT_EQ(first.quic_id[2], 3);
  EXPECT_EQ(first.port, 0);
  EXPECT_EQ(second.port, 8080);
  EXPECT_EQ(second.weight, 7u);
}

TEST(publish, memory_config_for_replay) {
  model::desired_state d;
  model::service s;
  s.name = "web";
  s.address = v4(198, 51, 100, 10);
  s.port = {443, 443};
  s.table_size = 251;
  s.backends = {{v4(10, 0, 0, 1)}, {v4(10, 0, 0, 2), 100, 1}};
  d.services.push_back(s);
  const auto made = make_config(d);
  ASSERT_TRUE(made) << made.error();
  const auto view = made->view();
  const auto* vip = view.find_vip(s.address, 6);
  ASSERT_NE(vip, nullptr);
  const auto* row = view.find_service(*vip, 443);
  ASSERT_NE(row, nullptr);
  EXPECT_EQ(row->member_count, 1u);  // tier 1 waits
  EXPECT_EQ(view.backend(view.choose(*row, 1))->address, v4(10, 0, 0, 1));
  ASSERT_TRUE(make_config({}));
}

}  // namespace
}  // namespace sluice::publish
