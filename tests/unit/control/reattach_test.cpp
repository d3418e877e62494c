// SPDX-License-Identifier: Apache-2.0
// A control plane that comes back takes a live segment over; a damaged one is refused.
#include <gtest/gtest.h>

#include <cstring>

#include "controlplane/publish/config_writer.hpp"
#include "controlplane/publish/observations.hpp"
#include "controlplane/publish/recover.hpp"
#include "controlplane/publish/slot_writer.hpp"
#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::publish {
namespace {

using test::plain_state;

constexpr abi::config_limits limits{64, 4096, 4u << 20};
const writer_settings settings{.hash_seed = 42};

std::shared_ptr<reader_watch> nobody() {
  return std::make_shared<reader_watch>();
}

class reattach : public ::testing::Test {
 protected:
  std::string path() const { return directory_.file("config.shm"); }

  // live() leaves a segment with generation 3 behind, with some history.
  void live() {
    auto segment = config_segment::create_file(path(), limits);
    ASSERT_TRUE(segment) << segment.error();
    const auto watch = std::make_shared<test::cell_watch<1>>();
    watch->counters = 5;
    watch->sums = 100;
    const auto w = config_writer::fresh(std::move(*segment), settings, watch);
    state_ = plain_state(6, 5);
    // Every kind of table, and lists that are shared, empty and of both families.
    for (std::size_t i = 0; i < state_.services.size(); ++i)
      state_.services[i].kind = static_cast<abi::scheduler>(2 + i);
    const auto list = [](std::initializer_list<const char*> texts) {
      std::vector<ip_prefix> prefixes;
      for (const char* text : texts) prefixes.push_back(*parse_prefix(text));
      return std::make_shared<const lists::range_set>(prefixes);
    };
    state_.services[0].allow = state_.services[2].deny = list({"10.0.0.0/8", "2001:db8::/32"});
    state_.services[2].allow = list({"::/0"});
    state_.services[3].deny = list({});
    ASSERT_EQ(w->publish(state_).status, publish_status::published);
    state_.services.erase(state_.services.begin() + 1);
    state_.services[0].backends.erase(state_.services[0].backends.begin());
    state_.services[2].backends[1].health = abi::shown_health::down;
    state_.services[2].backends[1].effective_weight = 0;
    ASSERT_EQ(w->publish(state_).status, publish_status::published);
    state_.services[3].backends.push_back(test::up_backend(test::v4(10, 250, 0, 1)));
    ASSERT_EQ(w->publish(state_).status, publish_status::published);
  }
  tl::expected<std::unique_ptr<config_writer>, std::string> attach(
      std::shared_ptr<reader_watch> watch = nobody()) {
    auto segment = config_segment::attach_file(path());
    if (!segment) return tl::unexpected{segment.error()};
    return config_writer::attach(std::move(*segment), settings, std::move(watch));
  }

  test::scratch_directory directory_;
  published_state state_;
};

std::vector<std::byte> rows_of(const abi::config_view& view) {
  std::vector<std::byte> out;
  const auto add = [&out](const void* p, std::size_t n) {
    const auto* b = static_cast<const std::byte*>(p);
    out.insert(out.end(), b, b + n);
  };
  for (std::uint32_t i = 0; i < view.header().service_count; ++i)
    if (const auto* s = view.service(abi::service_id{static_cast<std::uint16_t>(i)})) {
      add(s, sizeof *s);
      add(view.cold(s->self), sizeof(abi::service_cold));
      add(view.options(s->self), sizeof(abi::service_options));
    }
  for (std::uint32_t i = 0; i < view.header().backend_count; ++i) {
    add(view.backend_at(i), sizeof(abi::backend_row));
    if ((view.backend_at(i)->flags & abi::backend_in_use) != 0)
      add(view.cold(abi::backend_ref::make(i, 0)), sizeof(abi::backend_cold));
  }
  return out;
}

TEST_F(reattach, everything_is_as_it_was) {
  live();
  const auto w = attach();
  ASSERT_TRUE(w) << w.error();
  EXPECT_EQ((*w)->generation(), 3u);
  EXPECT_EQ((*w)->base_instance(), 5u);
  const auto before = rows_of((*w)->view());
  const auto bytes = (*w)->table_bytes();
  const auto r = (*w)->publish(state_);
  ASSERT_EQ(r.status, publish_status::published) << r.error;
  EXPECT_EQ(r.tables_built, 0u);
  EXPECT_EQ(r.generation, 4u);
  EXPECT_EQ(rows_of((*w)->view()), before);  // byte for byte: numbers, tables, bases
  EXPECT_EQ((*w)->table_bytes(), bytes);
}

// The 257th member makes a service's slots wide; when it goes they are narrow again.
TEST_F(reattach, slots_are_as_wide_as_the_members_ask_for) {
  auto segment = config_segment::create_file(path(), limits);
  ASSERT_TRUE(segment) << segment.error();
  auto w = config_writer::fresh(std::move(*segment), settings, nobody());
  published_state s = plain_state(1, 256, 65537);
  const auto publish = [&] { ASSERT_EQ(w->publish(s).status, publish_status::published); };
  publish();
  const std::uint64_t narrow = w->table_bytes();
  EXPECT_LE(narrow, 65537u + 64);
  const auto check = [&] {
    const auto view = w->view();
    const abi::service_row& row = *view.service(abi::service_id{0});
    const auto members = publish::members_of(s.services[0]);
    std::vector<std::uint16_t> right(65537);
    ASSERT_TRUE(maglev::build(members, 42, right));
    EXPECT_EQ(row.table_digest, maglev::digest(members, right));
    const abi::slot_table table = view.table_of(row);
    ASSERT_EQ(table.size(), right.size());
    EXPECT_EQ(table.wide(), members.size() > 256);
    for (std::uint32_t i = 0; i < table.size(); ++i) ASSERT_EQ(table[i], right[i]) << i;
    for (std::uint64_t hash = 1; hash != 0; hash = hash > 1ull << 63 ? 0 : hash * 3)
      EXPECT_EQ(view.choose(row, hash), view.member(row, right[sluice_slot(hash, 65537)]));
  };
  check();
  s.services[0].backends.push_back(test::up_backend(test::v4(10, 200, 0, 1)));
  publish();
  check();
  // One that is down is no member.
  s.services[0].backends.back().effective_weight = 0;
  publish();
  check();
  s.services[0].backends.pop_back();
  publish();
  publish();
  check();
  EXPECT_TRUE(w->collect());
  EXPECT_EQ(w->table_bytes(), narrow);
}

TEST_F(reattach, tables_of_either_width_are_taken_over) {
  auto segment = config_segment::create_file(path(), limits);
  ASSERT_TRUE(segment) << segment.error();
  state_ = plain_state(3, 256);
  state_.services[1].backends.push_back(test::up_backend(test::v4(10, 250, 0, 1)));
  state_.services[2] = test::plain_service(2, 1);
  {
    const auto w = config_writer::fresh(std::move(*segment), settings, nobody());
    ASSERT_EQ(w->publish(state_).status, publish_status::published);
  }
  const auto w = attach();
  ASSERT_TRUE(w) << w.error();
  const auto r = (*w)->publish(state_);
  ASSERT_EQ(r.status, publish_status::published) << r.error;
  EXPECT_EQ(r.tables_built, 0u);
  // A damaged slot is seen, wherever it lies: in the last byte, and in the high one of a wide slot.
  auto live = config_segment::attach_file(path());
  ASSERT_TRUE(live);
  const abi::config_view view = live->view();
  for (std::uint16_t i = 0; i < 3; ++i) {
    const abi::service_row& row = *view.service(abi::service_id{i});
    const std::uint64_t bytes = row.member_count > 256 ? 2 * 1021 : 1021;
    for (const std::uint64_t at : {std::uint64_t{1}, bytes - 1}) {
      live->data()[row.table_offset + at] ^= std::byte{3};
      EXPECT_FALSE(attach()) << i << ' ' << at;
      live->data()[row.table_offset + at] ^= std::byte{3};
    }
  }
  EXPECT_TRUE(attach());
}

TEST_F(reattach, a_damaged_list_is_refused) {
  live();
  auto segment = config_segment::attach_file(path());
  ASSERT_TRUE(segment);
  const abi::generation_word word{segment->control().current.load()};
  auto* row = reinterpret_cast<abi::prefix_list*>(segment->data() + segment->layout().slots +
                                                  word.slot() * segment->layout().slot_bytes +
                                                  segment->layout().list_rows);
  const abi::prefix_list fine = *row;
  for (const auto damage : {0, 1, 2, 3}) {
    *row = fine;
    if (damage == 0) row->count4 = row->count6 = 0xffffffff;
    if (damage == 1) row->ranges6 = ~std::uint64_t{0} - 7;
    if (damage == 2) row->ranges4 = row->ranges6 = row->index4 = 64;
    if (damage == 3) row->index4 += 64;
    EXPECT_FALSE(attach()) << damage;
  }
  *row = fine;
  EXPECT_TRUE(attach());
}

TEST_F(reattach, health_comes_back) {
  live();
  const auto w = attach();
  ASSERT_TRUE(w);
  std::size_t down = 0;
  const auto shown = health_shown((*w)->view());
  for (const auto& h : shown) down += h.up ? 0 : 1;
  EXPECT_EQ(shown.size(), 25u);
  EXPECT_EQ(down, 1u);
}

TEST_F(reattach, waits_for_readers_of_any_older_generation) {
  live();
  const auto watch = std::make_shared<test::cell_watch<1>>();
  watch->cells[0].online = 1;
  watch->cells[0].epoch = 2;  // one generation behind: which slot, nobody knows any more
  const auto w = attach(watch);
  ASSERT_TRUE(w);
  EXPECT_EQ((*w)->publish(state_).status, publish_status::pending);
  watch->cells[0].epoch = 3;
  EXPECT_EQ((*w)->publish(state_).status, publish_status::published);
}

TEST_F(reattach, another_seed_builds_every_table_anew) {
  live();
  auto segment = config_segment::attach_file(path());
  ASSERT_TRUE(segment);
  auto w = config_writer::attach(std::move(*segment), {.hash_seed = 43}, nobody());
  ASSERT_TRUE(w) << w.error();
  const auto r = (*w)->publish(state_);
  ASSERT_EQ(r.status, publish_status::published);
  EXPECT_EQ(r.tables_built, 5u);
}

TEST_F(reattach, other_limits_keep_the_numbers) {
  live();
  auto old = config_segment::attach_file(path());
  ASSERT_TRUE(old);
  auto larger = config_segment::in_memory({128, 8192, 8u << 20});
  auto w = config_writer::replace(*old, std::move(*larger), settings, nobody());
  ASSERT_TRUE(w) << w.error();
  ASSERT_EQ((*w)->publish(state_).status, publish_status::published);
  const auto before = old->view();
  const auto after = (*w)->view();
  ASSERT_EQ(before.header().backend_count, after.header().backend_count);
  for (std::uint32_t i = 0; i < before.header().backend_count; ++i) {
    EXPECT_EQ(before.backend_at(i)->address, after.backend_at(i)->address);
    EXPECT_EQ(before.backend_at(i)->incarnation, after.backend_at(i)->incarnation);
  }
  EXPECT_EQ(before.header().digest, after.header().digest);
  auto smaller = config_segment::in_memory({64, 8, 4u << 20});
  EXPECT_FALSE(config_writer::replace(*old, std::move(*smaller), settings, nobody()));
}

TEST_F(reattach, damage_is_refused) {
  live();
  struct damage {
    const char* what;
    std::function<void(std::byte* segment, const abi::config_layout&, unsigned slot)> make;
  };
  const auto rows = [](std::byte* segment, const abi::config_layout& l, unsigned slot,
                       std::uint64_t offset) {
    return segment + l.slots + slot * l.slot_bytes + offset;
  };
  const std::vector<damage> all{
      {"table entry",
       [&](std::byte* s, const auto& l, unsigned slot) {
         const auto* row = reinterpret_cast<abi::service_row*>(rows(s, l, slot, l.service_rows));
         s[row->table_offset + 1] = std::byte{0xff};
       }},
      {"table offset",
       [&](std::byte* s, const auto& l, unsigned slot) {
         reinterpret_cast<abi::service_row*>(rows(s, l, slot, l.service_rows))->table_offset =
             ~0ull;
       }},
      {"overlapping tables",
       [&](std::byte* s, const auto& l, unsigned slot) {
         auto* row = reinterpret_cast<abi::service_row*>(rows(s, l, slot, l.service_rows));
         row[0].table_offset = row[2].table_offset;
       }},
      {"member",
       [&](std::byte* s, const auto& l, unsigned slot) {
         reinterpret_cast<abi::backend_ref*>(rows(s, l, slot, l.member_rows))->value ^= 0x100000;
       }},
      {"name twice",
       [&](std::byte* s, const auto& l, unsigned slot) {
         auto* cold = reinterpret_cast<abi::service_cold*>(rows(s, l, slot, l.service_colds));
         cold[2].name = cold[0].name;
       }},
      {"backend's service",
       [&](std::byte* s, const auto& l, unsigned slot) {
         auto* row = reinterpret_cast<abi::backend_row*>(rows(s, l, slot, l.backend_rows));
         row[1].service = abi::service_id{99};
       }},
      {"counts",
       [&](std::byte* s, const auto& l, unsigned slot) {
         reinterpret_cast<abi::generation_header*>(rows(s, l, slot, 0))->backend_count = ~0u;
       }},
      {"number",
       [&](std::byte* s, const auto& l, unsigned slot) {
         reinterpret_cast<abi::generation_header*>(rows(s, l, slot, 0))->number = 77;
       }},
  };
  for (const auto& d : all) {
    auto segment = config_segment::attach_file(path());
    ASSERT_TRUE(segment);
    const std::vector<std::byte> whole{segment->data(), segment->data() + segment->size()};
    const unsigned slot = abi::generation_word{segment->control().current.load()}.slot();
    d.make(segment->data(), segment->layout(), slot);
    auto w = attach();
    EXPECT_FALSE(w) << d.what;
    std::memcpy(segment->data(), whole.data(), whole.size());
    EXPECT_TRUE(attach()) << d.what;
  }
}

TEST_F(reattach, any_bytes_do_not_crash_it) {
  live();
  auto segment = config_segment::attach_file(path());
  ASSERT_TRUE(segment);
  const auto& l = segment->layout();
  const unsigned slot = abi::generation_word{segment->control().current.load()}.slot();
  std::byte* base = segment->data() + l.slots + slot * l.slot_bytes;
  const std::vector<std::byte> whole{base, base + l.slot_bytes};
  std::uint64_t random = 1;
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 4; ++i) {
      random = random * 6364136223846793005ull + 1442695040888963407ull;
      // Most rows are at the beginning of their array.
      const std::uint64_t arrays[] = {0,
                                      l.vips,
                                      l.ports,
                                      l.service_rows,
                                      l.backend_rows,
                                      l.member_rows,
                                      l.service_colds,
                                      l.backend_colds};
      base[arrays[(random >> 40) % 8] + (random >> 20) % 1024] =
          static_cast<std::byte>(random >> 56);
    }
    if (auto w = attach()) (void)(*w)->publish(state_);
    // publish() may have moved on to another slot: begin again from the same one.
    segment->control().current.store(abi::generation_word::make(3, slot).value);
    std::memcpy(base, whole.data(), whole.size());
  }
}

TEST_F(reattach, files_of_other_kinds) {
  EXPECT_FALSE(config_segment::attach_file(path()));
  FILE* f = std::fopen(path().c_str(), "w");
  ASSERT_NE(f, nullptr);
  std::fputs("hello", f);
  std::fclose(f);
  EXPECT_FALSE(config_segment::attach_file(path()));
  EXPECT_FALSE(config_segment::create_file(directory_.file("x"), {0, 1, 4096}));
}

// A data plane's observations, made here.
abi::mapped_file make_observations(const std::string& path, std::uint32_t workers) {
  std::string error;
  const auto layout = abi::observation_layout::of(workers, 8, 8);
  auto file = abi::create_segment(
      path, abi::observation_magic, layout.total, 0644, true,
      [&](std::byte* data) {
        abi::observation_map<std::byte> map{data, layout};
        map.info().worker_count = workers;
        map.info().services = map.info().backends = 8;
      },
      error);
  EXPECT_TRUE(file) << error;
  return file;
}

TEST(observations, follows_data_planes) {
  test::scratch_directory directory;
  const std::string path = directory.file("observations.shm");
  observation_follower follower{path};
  EXPECT_FALSE(follower.refresh());
  EXPECT_TRUE(follower.quiescent(5));
  EXPECT_EQ(follower.instance(), 0u);

  auto first = make_observations(path, 2);
  const auto map_of = [](const abi::mapped_file& f, std::uint32_t workers) {
    return abi::observation_map<std::byte>{f.data(), abi::observation_layout::of(workers, 8, 8)};
  };
  auto map = map_of(first, 2);
  map.worker(1).generation.online = 1;
  map.worker(1).generation.epoch = 4;
  map.backends(0)[3].packets.set(10);
  map.backends(1)[3].packets.set(5);
  EXPECT_FALSE(follower.quiescent(5));  // attaches by itself
  EXPECT_TRUE(follower.quiescent(4));
  EXPECT_EQ(follower.backend_sums(3)[0], 15u);
  EXPECT_EQ(follower.backend_sums(1000)[0], 0u);
  const auto instance = follower.instance();

  // Another data plane takes over while the first still lives: both count.
  auto second = make_observations(path, 1);
  map_of(second, 1).worker(0).generation.online = 1;
  map_of(second, 1).worker(0).generation.epoch = 9;
  EXPECT_FALSE(follower.quiescent(5));
  EXPECT_NE(follower.instance(), instance);
  first = {};  // the first dies; its epoch stays behind
  EXPECT_TRUE(follower.quiescent(5));
  EXPECT_FALSE(follower.quiescent(10));
  second = {};
  EXPECT_TRUE(follower.quiescent(10));
  EXPECT_NE(follower.current(), nullptr);  // its counters can still be shown
}

TEST(observations, refuses_what_is_none) {
  test::scratch_directory directory;
  const std::string path = directory.file("observations.shm");
  auto file = make_observations(path, 1);
  abi::observation_map<std::byte>{file.data(), abi::observation_layout::of(1, 8, 8)}
      .info()
      .worker_count = 64;
  observation_follower follower{path};
  EXPECT_FALSE(follower.refresh());
  EXPECT_NE(follower.last_error().find("smaller"), std::string::npos) << follower.last_error();
  EXPECT_TRUE(follower.quiescent(1));
}

}  // namespace
}  // namespace sluice::publish
