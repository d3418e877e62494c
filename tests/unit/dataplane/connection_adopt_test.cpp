// SPDX-License-Identifier: Apache-2.0
// A table that outlives its process: what is adopted, what is refused and why, and what is
// made right after a process died in the middle of a change.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "dataplane/connection/table.hpp"
#include "dataplane/connection/table_file.hpp"
#include "tests/unit/dataplane/connection_fixture.hpp"

namespace sluice::connection {
namespace {

namespace fs = std::filesystem;
using enum connection_state;

constexpr std::uint64_t segment = 0x1234567890abcdef;

class adopt_test : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = fs::is_directory("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    name += "/sluice-adopt-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    options_.name = "connections-0";
    options_.runtime_dir = directory_;
    options_.worker = 1;
    options_.workers = 2;
    options_.connections4 = 10'000;
    options_.connections6 = 1'000;
  }
  void TearDown() override { fs::remove_all(directory_); }

  // leave() is a data plane that had n connections of each family, and ended.
  void leave(std::uint64_t n = 100) {
    auto file = table_file::create(options_);
    ASSERT_TRUE(file) << file.error();
    file->keep_adoptable(segment, file->header().clock_base_ns);
    connection_table table{file->data()};
    for (std::uint64_t i = 0; i < n; ++i) {
      const auto k4 = test::key_maker<ipv4>::make(i);
      table.v4.insert(table.v4.hash(k4), k4, test::word(established, 0));
      const auto k6 = test::key_maker<ipv6>::make(i);
      table.v6.insert(table.v6.hash(k6), k6, test::word(established, 0));
    }
  }
  // change() writes into the header, right = also into the checksum.
  void change(const std::function<void(abi::connection_header&)>& how, bool right = true) {
    const int fd = ::open(path().c_str(), O_RDWR);
    abi::connection_header h;
    ASSERT_EQ(::pread(fd, &h, sizeof h, 0), static_cast<ssize_t>(sizeof h));
    how(h);
    if (right) h.checksum = abi::connection_checksum(h);
    ASSERT_EQ(::pwrite(fd, &h, sizeof h, 0), static_cast<ssize_t>(sizeof h));
    ::close(fd);
  }
  void expect_refused(const char* why, std::uint64_t instance = segment) {
    const auto file = table_file::adopt(options_, instance);
    ASSERT_FALSE(file) << why;
    EXPECT_NE(file.error().text.find(why), std::string::npos) << file.error().text;
    EXPECT_NE(file.error().text.find(path()), std::string::npos) << file.error().text;
  }
  [[nodiscard]] std::string path() const { return directory_ + "/" + options_.name; }

  table_file_options options_;
  std::string directory_;
};

TEST_F(adopt_test, nothing_there_is_no_refusal_worth_a_word) {
  const auto file = table_file::adopt(options_, segment);
  ASSERT_FALSE(file);
  EXPECT_TRUE(file.error().text.empty()) << file.error().text;
}

TEST_F(adopt_test, connections_are_found_again) {
  leave();
  const auto file = table_file::adopt(options_, segment);
  ASSERT_TRUE(file) << file.error().text;
  EXPECT_EQ(file->path(), path());
  connection_table table{file->data()};
  EXPECT_EQ(table.repair(), 0u);
  EXPECT_EQ(table.v4.size(), 100u);
  EXPECT_EQ(table.v6.size(), 100u);
  for (std::uint64_t i = 0; i < 100; ++i) {
    const auto key = test::key_maker<ipv4>::make(i);
    const handle found = table.v4.find(table.v4.hash(key), key);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->backend(), abi::backend_ref::make(7, 0));
    EXPECT_EQ(found->state(), established);
  }
  EXPECT_TRUE(table.v4.consistent() && table.v6.consistent());
}

TEST_F(adopt_test, refuses_what_is_not_its_own) {
  leave();
  expect_refused("another config segment", segment + 1);
  expect_refused("no config segment", 0);
  const auto restore = options_;
  options_.worker = 0;
  expect_refused("of another worker: 1, now 0");
  options_ = restore;
  options_.workers = 3;
  expect_refused("another number of workers: 2, now 3");
  options_ = restore;
  options_.connections6 = 2'000;
  expect_refused("of another size");
  options_ = restore;
  ASSERT_TRUE(table_file::adopt(options_, segment));
}

TEST_F(adopt_test, refuses_other_versions_and_damage) {
  leave();
  change([](auto& h) { h.magic = 0; });
  expect_refused("never finished");
  change([](auto& h) {
    h.magic = abi::connection_magic;
    h.version = abi::abi_version + 1;
  });
  expect_refused("another release's: layout version");
  change([](auto& h) { h.version = abi::abi_version; });
  ASSERT_TRUE(table_file::adopt(options_, segment));
  change([](auto& h) { h.secret[1] ^= 1; }, false);
  expect_refused("checksum");
  change([](auto& h) { h.secret[1] ^= 1; }, false);
  change([](auto& h) { h.boot_id[0] ^= 1; });
  expect_refused("last boot");
  change([](auto& h) { h.boot_id[0] ^= 1; });
  change([](auto& h) { h.clock_base_ns += 3'600'000'000'000; });
  expect_refused("ahead");
  change([](auto& h) { h.clock_base_ns -= 3'600'000'000'000; });
  change([](auto& h) { h.alive_s += 3600; });
  expect_refused("ahead");
  ASSERT_EQ(::chmod(path().c_str(), 0640), 0);
  expect_refused("not private");
}

TEST_F(adopt_test, refuses_a_file_that_was_cut_short) {
  leave();
  ASSERT_EQ(::truncate(path().c_str(), 8192), 0);
  expect_refused("cut short");
  ASSERT_EQ(::truncate(path().c_str(), 100), 0);
  expect_refused("cut short: 100 bytes");
  ASSERT_EQ(::truncate(path().c_str(), 0), 0);
  expect_refused("cut short: 0 bytes");
  fs::remove(path());
  fs::create_directory(path());
  expect_refused(path().c_str());
  fs::remove(path());
  fs::create_symlink("/etc/hostname", path());
  expect_refused(path().c_str());
}

// repair() on memory that was left in the middle of each kind of change.
template <class Family>
class repair_test : public ::testing::Test {};
using families = ::testing::Types<ipv4, ipv6>;
TYPED_TEST_SUITE(repair_test, families);

template <class Family>
std::uint64_t fill(flow_map<Family>& map, std::uint64_t n) {
  std::uint64_t there = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const auto key = test::key_maker<Family>::make(i);
    const auto done = map.insert(map.hash(key), key, test::word(established, 1));
    if (done.outcome == outcome::inserted) ++there;
  }
  return there;
}

TYPED_TEST(repair_test, a_sound_table_stays_as_it_is) {
  const test::map_memory<TypeParam> memory{512};
  auto map = memory.map();
  const std::uint64_t there = fill(map, 1700);  // 83%: many are in their secondary bucket
  auto again = memory.map();
  EXPECT_EQ(again.repair(), 0u);
  EXPECT_EQ(again.size(), there);
  EXPECT_TRUE(again.consistent());
  for (std::uint64_t i = 0; i < 1700; ++i) {
    const auto key = test::key_maker<TypeParam>::make(i);
    EXPECT_EQ(map.find(map.hash(key), key), again.find(again.hash(key), key));
  }
}

TYPED_TEST(repair_test, a_key_without_its_word) {
  const test::map_memory<TypeParam> memory{64};
  auto map = memory.map();
  fill(map, 100);
  auto* buckets = static_cast<typename TypeParam::bucket*>(memory.data());
  std::uint64_t torn = 0;
  for (std::uint64_t b = 0; b < 64; ++b)
    for (auto& e : buckets[b].entries)
      if (e.word.state() == free && torn++ < 10)
        TypeParam::set_key(e, test::key_maker<TypeParam>::make(1000 + torn));
  auto again = memory.map();
  EXPECT_EQ(again.repair(), 0u);
  EXPECT_EQ(again.size(), 100u);
  EXPECT_TRUE(again.consistent());
}

TYPED_TEST(repair_test, an_entry_in_both_of_its_buckets) {
  const test::map_memory<TypeParam> memory{64};
  auto map = memory.map();
  fill(map, 100);
  auto* buckets = static_cast<typename TypeParam::bucket*>(memory.data());
  std::uint64_t copied = 0;
  for (std::uint64_t i = 0; i < 100 && copied < 20; ++i) {
    const auto key = test::key_maker<TypeParam>::make(i);
    const bucket_hash h = map.hash(key);
    auto& other = buckets[map.in_primary(h, key) ? secondary_bucket(h, 64) : primary_bucket(h, 64)];
    const unsigned at = free_place(other);
    if (at == 4) continue;
    const connection_word word = *map.find(h, key);
    TypeParam::set_key(other.entries[at], key);
    other.entries[at].word.value = (word.value & ~connection_word::spare_mask) |
                                   (other.entries[at].word.value & connection_word::spare_mask);
    ++copied;
  }
  ASSERT_EQ(copied, 20u);
  auto again = memory.map();
  EXPECT_EQ(again.repair(), 20u);
  EXPECT_EQ(again.size(), 100u);
  EXPECT_TRUE(again.consistent());
  for (std::uint64_t i = 0; i < 100; ++i) {
    const auto key = test::key_maker<TypeParam>::make(i);
    EXPECT_NE(again.find(again.hash(key), key), nullptr);
  }
}

TYPED_TEST(repair_test, wrong_overflow_counts) {
  const test::map_memory<TypeParam> memory{512};
  auto map = memory.map();
  const std::uint64_t there = fill(map, 1700);
  auto* buckets = static_cast<typename TypeParam::bucket*>(memory.data());
  test::random_source random{7};
  for (std::uint64_t b = 0; b < 512; ++b)
    for (auto& e : buckets[b].entries)
      e.word.value = (e.word.value & ~connection_word::spare_mask) |
                     random.below(16) << connection_word::spare_shift;
  auto again = memory.map();
  EXPECT_EQ(again.repair(), 0u);
  EXPECT_EQ(again.size(), there);
  EXPECT_TRUE(again.consistent());
}

TYPED_TEST(repair_test, random_memory_becomes_a_table) {
  const test::map_memory<TypeParam> memory{128};
  test::random_source random{11};
  auto* words = static_cast<std::uint64_t*>(memory.data());
  for (std::size_t i = 0; i < memory.bytes() / 8; ++i) words[i] = random();
  auto map = memory.map();
  map.repair();
  EXPECT_TRUE(map.consistent());
  fill(map, 100);
  EXPECT_TRUE(map.consistent());
}

// A process that is killed while it inserts and erases, again and again, as fast as it can.
TYPED_TEST(repair_test, killed_at_any_moment) {
  constexpr std::uint64_t buckets = 256;
  const std::size_t bytes = buckets * sizeof(typename TypeParam::bucket);
  void* memory =
      ::mmap(nullptr, bytes + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  // Behind the table: how many rounds have begun to write. A slow machine takes its time.
  auto* begun = reinterpret_cast<unsigned*>(static_cast<std::byte*>(memory) + bytes);
  std::uint64_t torn = 0;
  for (unsigned round = 0; round < 60; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      flow_map<TypeParam> map{memory, buckets, test::secret};
      map.recount();
      test::random_source random{round};
      for (;;) {
        const auto key = test::key_maker<TypeParam>::make(random.below(1200));
        const bucket_hash h = map.hash(key);
        if (const handle found = map.find(h, key); found != nullptr && random.below(2) != 0)
          map.erase(found);
        else
          map.insert(h, key, test::word(established, 1));
        __atomic_store_n(begun, round + 1, __ATOMIC_RELEASE);
      }
    }
    for (int i = 0; i < 10'000 && __atomic_load_n(begun, __ATOMIC_ACQUIRE) != round + 1; ++i)
      ::usleep(1000);
    ::usleep(2000 + 137 * round);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    flow_map<TypeParam> map{memory, buckets, test::secret};
    map.recount();
    if (!map.consistent()) ++torn;
    map.repair();
    ASSERT_TRUE(map.consistent()) << "round " << round;
    ASSERT_GT(map.size(), 0u);
  }
  std::printf("%llu of 60 kills left a table that needed repair\n",
              static_cast<unsigned long long>(torn));
  ::munmap(memory, bytes + 4096);
}

}  // namespace
}  // namespace sluice::connection
