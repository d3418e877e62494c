// SPDX-License-Identifier: Apache-2.0
// table_follower and config_link: taking up generations, refusing bad ones, changing
// from one segment to another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <span>
#include <string>

#include "dataplane/abi/segment.hpp"
#include "dataplane/process/config_link.hpp"
#include "dataplane/worker/table_follower.hpp"

namespace sluice {
namespace {

using testing::HasSubstr;

constexpr abi::config_limits limits{4, 8, 4096};

class tables : public testing::Test {
 protected:
  tables() {
    directory_ =
        std::filesystem::temp_directory_path() / ("sluice-tables-" + std::to_string(::getpid()));
    std::filesystem::create_directories(directory_);
    path_ = directory_ / "config.shm";
  }
  ~tables() override { std::filesystem::remove_all(directory_); }

  // create() makes a segment; its generations are empty but well-formed.
  abi::mapped_file create(abi::config_limits l = limits, std::size_t extra = 0) {
    std::string error;
    const auto layout = abi::config_layout::of(l);
    auto file = abi::create_segment(
        path_, abi::config_magic, layout.total + extra, 0644, false,
        [&l](std::byte* base) { control(base).limits = l; }, error);
    EXPECT_TRUE(file) << error;
    return file;
  }
  static abi::config_control& control(std::byte* base) {
    return *reinterpret_cast<abi::config_control*>(base + sizeof(abi::segment_header));
  }
  static abi::generation_header& header(const abi::mapped_file& file, unsigned slot) {
    const auto layout = abi::config_layout::of(limits);
    return *reinterpret_cast<abi::generation_header*>(file.data() + layout.slots +
                                                      slot * layout.slot_bytes);
  }
  static void publish(const abi::mapped_file& file, std::uint64_t number, bool good = true) {
    const auto slot = static_cast<unsigned>(number % abi::config_slots);
    header(file, slot) = {};
    header(file, slot).number = number;
    if (!good) header(file, slot).backend_count = limits.backends + 1;
    abi::generation_writer<>::publish(control(file.data()).current,
                                      abi::generation_word::make(number, slot));
  }
  std::unique_ptr<attached_config> attach() {
    auto attached = attached_config::attach(path_, 4, 8);
    EXPECT_TRUE(attached) << attached.error();
    return attached ? std::move(*attached) : nullptr;
  }
  std::string refusal(std::uint32_t services = 4, std::uint32_t backends = 8) {
    auto attached = attached_config::attach(path_, services, backends);
    return attached ? "" : attached.error();
  }
  // poll() returns the number of the view that the follower ends up with.
  std::uint64_t poll() {
    follower_.poll([this](const abi::config_view& view) {
      number_ = view.empty() ? 0 : view.header().number;
      ++changes_;
    });
    return number_;
  }

  std::filesystem::path directory_;
  std::string path_;
  abi::epoch_cell<> cell_;
  std::atomic<const attached_config*> wanted_{nullptr};
  table_follower follower_{cell_, wanted_};
  std::uint64_t number_{0};
  int changes_{0};
};

TEST_F(tables, nothing_to_follow) {
  EXPECT_EQ(poll(), 0u);
  EXPECT_EQ(changes_, 0);
  EXPECT_EQ(cell_.online.load(), 0u);
}

TEST_F(tables, takes_up_each_generation_once_and_reports_it) {
  const auto file = create();
  const auto attached = attach();
  wanted_ = attached.get();
  EXPECT_EQ(poll(), 0u);  // nothing published
  EXPECT_EQ(cell_.online.load(), 1u);
  EXPECT_EQ(follower_.in_use(), attached.get());
  for (const std::uint64_t number : {1u, 2u, 7u}) {
    publish(file, number);
    EXPECT_EQ(poll(), number);
    EXPECT_EQ(cell_.epoch.load(), number);
  }
  const int changes = changes_;
  poll();
  EXPECT_EQ(changes_, changes);
  follower_.stop();
  EXPECT_EQ(cell_.online.load(), 0u);
  EXPECT_EQ(follower_.in_use(), nullptr);
}

TEST_F(tables, a_bad_generation_is_refused_once_and_its_predecessor_stays_reserved) {
  const auto file = create();
  const auto attached = attach();
  publish(file, 1);
  wanted_ = attached.get();
  EXPECT_EQ(poll(), 1u);
  publish(file, 2, false);
  EXPECT_EQ(poll(), 1u);
  poll();
  EXPECT_EQ(follower_.refused(), 1u);
  // The writer must not think that generation 1 is free.
  EXPECT_FALSE(abi::generation_writer<>::quiescent(std::span{&cell_, 1}, 2));
  publish(file, 3);
  EXPECT_EQ(poll(), 3u);
  EXPECT_TRUE(abi::generation_writer<>::quiescent(std::span{&cell_, 1}, 3));
}

TEST_F(tables, a_bad_first_generation_leaves_the_view_empty) {
  const auto file = create();
  const auto attached = attach();
  publish(file, 1, false);
  wanted_ = attached.get();
  EXPECT_EQ(poll(), 0u);
  EXPECT_EQ(follower_.refused(), 1u);
  publish(file, 2);
  EXPECT_EQ(poll(), 2u);
}

TEST_F(tables, what_was_taken_up_stays_when_the_word_is_0_or_not_its_slots) {
  const auto file = create();
  const auto attached = attach();
  publish(file, 7);
  wanted_ = attached.get();
  EXPECT_EQ(poll(), 7u);
  control(file.data()).current = 0;  // as if nothing had ever been published
  EXPECT_EQ(poll(), 7u);
  control(file.data()).current = abi::generation_word::make(8, 2).value;  // never written
  EXPECT_EQ(poll(), 7u);
  EXPECT_EQ(follower_.refused(), 1u);
  control(file.data()).current = 0;
  EXPECT_EQ(poll(), 7u);
  EXPECT_EQ(cell_.epoch.load(), 7u);  // and generation 7 stays reserved
  publish(file, 9);
  EXPECT_EQ(poll(), 9u);
}

TEST_F(tables, changes_to_another_segment_with_smaller_numbers) {
  const auto first = create();
  const auto one = attach();
  publish(first, 500);
  wanted_ = one.get();
  EXPECT_EQ(poll(), 500u);
  const auto second = create();
  const auto two = attach();
  publish(second, 1);
  wanted_ = two.get();
  EXPECT_EQ(poll(), 1u);
  EXPECT_EQ(cell_.epoch.load(), 1u);
  EXPECT_EQ(follower_.in_use(), two.get());
}

TEST_F(tables, what_does_not_fit_is_refused_in_words) {
  EXPECT_THAT(refusal(), HasSubstr("cannot open"));
  create();
  EXPECT_EQ(refusal(), "");
  EXPECT_THAT(refusal(3), HasSubstr("made for 4 services, this data plane was started with room "
                                    "for 3"));
  EXPECT_THAT(refusal(4, 7), HasSubstr("made for 8 backends"));
  create(limits, 4096);
  EXPECT_THAT(refusal(), HasSubstr("its limits ask for"));
  auto file = create();
  control(file.data()).limits.services = 0;
  EXPECT_THAT(refusal(), HasSubstr("its limits are impossible"));
}

TEST_F(tables, the_link_offers_a_new_segment_when_it_has_something_good) {
  config_link link{path_, 4, 8};
  const attached_config* used = nullptr;
  const config_link::usage usage{[&used](const attached_config* c) { return c == used; },
                                 [&used](const attached_config* c) { return c == used; }};
  link.poll(usage);
  EXPECT_EQ(link.wanted().load(), nullptr);
  EXPECT_EQ(link.instance(), 0u);

  const auto first = create();
  link.poll(usage);
  const attached_config* one = link.wanted().load();
  ASSERT_NE(one, nullptr);  // anything is better than nothing
  EXPECT_EQ(link.instance(), 0u);
  used = one;
  link.poll(usage);
  EXPECT_NE(link.instance(), 0u);

  const auto second = create();
  link.poll(usage);
  EXPECT_EQ(link.wanted().load(), one);  // nothing in it yet
  publish(second, 1, false);
  link.poll(usage);
  EXPECT_EQ(link.wanted().load(), one);  // nothing good in it yet
  publish(second, 2);
  link.poll(usage);
  const attached_config* two = link.wanted().load();
  EXPECT_NE(two, one);
  EXPECT_EQ(link.instance(), 0u);  // the worker still reads the old one, which stays mapped
  EXPECT_NE(one->instance(), 0u);
  used = two;
  link.poll(usage);
  EXPECT_EQ(link.instance(), two->instance());

  std::filesystem::remove(path_);
  link.poll(usage);
  EXPECT_EQ(link.wanted().load(), two);  // the control plane's files are gone; we go on
}

// A control plane gone mad may cut the file short under the workers.
TEST_F(tables, a_truncated_segment_crashes_nobody_and_the_next_one_is_taken_up) {
  ASSERT_TRUE(mapping_guard::install());
  config_link link{path_, 4, 8};
  table_follower follower{cell_, link.wanted()};
  const auto usage = [&follower](const attached_config* c) { return follower.in_use() == c; };
  abi::config_view view;
  const auto poll_both = [&] {
    link.poll({usage, usage});
    follower.poll([&view](const abi::config_view& v) { view = v; });
  };
  const auto first = create();
  publish(first, 7);
  poll_both();
  ASSERT_EQ(view.header().number, 7u);
  const attached_config* one = link.wanted().load();
  EXPECT_FALSE(one->damaged());

  ASSERT_EQ(::ftruncate(first.fd(), 0), 0);
  poll_both();  // reads the word of the current generation
  EXPECT_TRUE(one->damaged());
  EXPECT_EQ(view.header().number, 7u);
  ip_address vip = ip_address::v4({198, 51, 100, 10});
  EXPECT_EQ(view.find_vip(vip, 6), nullptr);
  EXPECT_EQ(view.service(abi::service_id{0}), nullptr);
  poll_both();
  EXPECT_EQ(link.wanted().load(), one);  // a file without a header is not taken

  const auto second = create();
  publish(second, 1);
  poll_both();
  poll_both();
  EXPECT_EQ(view.header().number, 1u);
  EXPECT_FALSE(link.wanted().load()->damaged());
  follower.stop();
}

// Any other SIGBUS still ends the process.
TEST_F(tables, the_guard_is_for_guarded_mappings_only) {
  const auto fault = [this] {
    mapping_guard::install();
    const auto file = create();
    if (::ftruncate(file.fd(), 0) != 0) return;
    const volatile std::byte* gone = file.data();
    (void)*gone;
  };
  EXPECT_DEATH(fault(), "");
}

}  // namespace
}  // namespace sluice
