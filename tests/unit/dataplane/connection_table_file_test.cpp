// SPDX-License-Identifier: Apache-2.0
#include "dataplane/connection/table_file.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "dataplane/connection/table.hpp"
#include "tests/unit/dataplane/connection_fixture.hpp"

namespace sluice::connection {
namespace {

namespace fs = std::filesystem;
using enum connection_state;

class table_file_test : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = fs::is_directory("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    name += "/sluice-table-file-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { fs::remove_all(directory_); }
  [[nodiscard]] table_file_options options() const {
    table_file_options o;
    o.name = "connections-0";
    o.runtime_dir = directory_;
    o.worker = 3;
    o.connections4 = 10'000;
    o.connections6 = 1'000;
    return o;
  }
  std::string directory_;
};

TEST_F(table_file_test, CreatesAnEmptyPrivateFile) {
  const auto file = table_file::create(options());
  ASSERT_TRUE(file) << file.error();
  struct stat s {};
  ASSERT_EQ(::stat(file->path().c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 07777, 0600u);
  EXPECT_EQ(static_cast<std::uint64_t>(s.st_size), file->size());
  const auto& h = file->header();
  EXPECT_EQ(h.magic, abi::connection_magic);
  EXPECT_EQ(h.version, abi::abi_version);
  EXPECT_EQ(h.worker, 3u);
  EXPECT_EQ(h.size, file->size());
  EXPECT_NE(h.secret[0] | h.secret[1], 0u);
  EXPECT_GE(h.buckets4 * 4 * 8 / 10, 10'000u);
  EXPECT_GE(h.buckets6 * 4 * 8 / 10, 1'000u);
  for (std::uint64_t i = sizeof h; i < file->size(); ++i)
    ASSERT_EQ(file->data()[i], std::byte{0}) << i;
  connection_table table{file->data()};
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.v4.bucket_count(), h.buckets4);
  EXPECT_EQ(table.v6.bucket_count(), h.buckets6);
  EXPECT_TRUE(table.v4.consistent() && table.v6.consistent());
}

TEST_F(table_file_test, EveryFileHasItsOwnSecretAndReplacesTheOld) {
  const auto first = table_file::create(options());
  ASSERT_TRUE(first) << first.error();
  const auto second = table_file::create(options());
  ASSERT_TRUE(second) << second.error();
  EXPECT_EQ(first->path(), second->path());
  EXPECT_NE(first->header().secret[0], second->header().secret[0]);
  EXPECT_NE(first->header().secret[1], second->header().secret[1]);
  EXPECT_NE(first->header().instance, second->header().instance);
  // Whoever still maps the old one is not disturbed.
  EXPECT_EQ(first->header().magic, abi::connection_magic);
}

TEST_F(table_file_test, ConnectionsAreInTheFile) {
  auto file = table_file::create(options());
  ASSERT_TRUE(file) << file.error();
  const auto key = test::key_maker<ipv4>::make(1);
  {
    connection_table table{file->data()};
    table.v4.insert(table.v4.hash(key), key, test::word(syn, 1));
    const table_file moved = std::move(*file);  // unmapped here
  }
  std::ifstream in{directory_ + "/connections-0", std::ios::binary};
  std::string bytes{std::istreambuf_iterator<char>{in}, {}};
  // Another address: nothing in the file depends on where it is mapped.
  void* at = std::aligned_alloc(4096, bytes.size());
  std::memcpy(at, bytes.data(), bytes.size());
  connection_table table{static_cast<std::byte*>(at)};
  table.v4.recount();
  EXPECT_EQ(table.v4.size(), 1u);
  EXPECT_NE(table.v4.find(table.v4.hash(key), key), nullptr);
  std::free(at);
}

TEST_F(table_file_test, FallsBackFromHugePagesAndSaysWhy) {
  auto o = options();
  o.hugepage_dir = directory_;  // no hugetlbfs
  const auto file = table_file::create(o);
  ASSERT_TRUE(file) << file.error();
  EXPECT_NE(file->place(), table_place::hugetlbfs);
  EXPECT_NE(file->note().find("is not a hugetlbfs"), std::string::npos) << file->note();
}

TEST_F(table_file_test, HugePagesIfThereAre) {
  auto o = options();
  o.hugepage_dir = "/dev/hugepages";
  o.name = "sluice-table-file-test-" + std::to_string(::getpid());
  auto file = table_file::create(o);
  ASSERT_TRUE(file) << file.error();
  if (file->place() != table_place::hugetlbfs) {
    // Then it must say why, and the file is the other one.
    EXPECT_NE(file->note().find("/dev/hugepages"), std::string::npos) << file->note();
    EXPECT_FALSE(fs::exists("/dev/hugepages/" + o.name));
    GTEST_SKIP() << file->note();
  }
  EXPECT_EQ(file->path(), "/dev/hugepages/" + o.name);
  EXPECT_EQ(file->size() % (2u << 20), 0u);
  EXPECT_TRUE(file->note().empty()) << file->note();
  connection_table table{file->data()};
  const auto key = test::key_maker<ipv4>::make(1);
  EXPECT_EQ(table.v4.insert(table.v4.hash(key), key, test::word(syn, 1)).outcome,
            outcome::inserted);
  abi::connection_reader reader;
  EXPECT_EQ(abi::connection_reader::open(file->data(), file->size(), reader),
            abi::connection_reader::status::ok);
  file->remove();
  EXPECT_FALSE(fs::exists(file->path()));
}

// More than there are: hugetlbfs says no at once, and the tmpfs is used.
TEST_F(table_file_test, TooFewHugePages) {
  if (!fs::is_directory("/dev/hugepages")) GTEST_SKIP() << "no hugetlbfs";
  auto o = options();
  o.hugepage_dir = "/dev/hugepages";
  o.name = "sluice-table-file-test-" + std::to_string(::getpid());
  o.connections4 = 12'000'000'000;  // too much for the tmpfs as well: both are named
  const auto file = table_file::create(o);
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().find("/dev/hugepages"), std::string::npos) << file.error();
  EXPECT_NE(file.error().find(directory_), std::string::npos) << file.error();
  EXPECT_FALSE(fs::exists("/dev/hugepages/" + o.name));
}

TEST_F(table_file_test, Errors) {
  auto o = options();
  o.runtime_dir = directory_ + "/missing";
  auto file = table_file::create(o);
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().find("/missing: No such file or directory"), std::string::npos)
      << file.error();

  o = options();
  o.connections4 = std::uint64_t{1} << 40;
  file = table_file::create(o);
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().find("more than a table can have"), std::string::npos) << file.error();

  // A directory in the file's place cannot be replaced.
  o = options();
  fs::create_directory(directory_ + "/connections-0");
  file = table_file::create(o);
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().find("cannot replace"), std::string::npos) << file.error();
}

TEST_F(table_file_test, ATmpfsThatIsTooSmallIsAnErrorNotACrash) {
  auto o = options();
  o.connections4 = 12'000'000'000;  // 240 GB
  const auto file = table_file::create(o);
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().find("connections-0"), std::string::npos) << file.error();
  EXPECT_FALSE(fs::exists(directory_ + "/connections-0")) << "left behind";
}

TEST_F(table_file_test, AnUnknownNumaNodeIsNotFatal) {
  auto o = options();
  o.numa_node = 1000;
  const auto file = table_file::create(o);
  ASSERT_TRUE(file) << file.error();
  EXPECT_NE(file->note().find("NUMA node 1000"), std::string::npos) << file->note();
  o.numa_node = 0;
  const auto local = table_file::create(o);
  ASSERT_TRUE(local) << local.error();
}

TEST_F(table_file_test, Anonymous) {
  const auto a = table_file::anonymous(options(), {1, 2});
  ASSERT_TRUE(a) << a.error();
  EXPECT_EQ(a->header().secret[0], 1u);
  EXPECT_EQ(a->place(), table_place::anonymous);
  EXPECT_TRUE(a->path().empty());
  connection_table table{a->data()};
  const auto key = test::key_maker<ipv6>::make(1);
  EXPECT_EQ(table.v6.insert(table.v6.hash(key), key, test::word(syn, 1)).outcome,
            outcome::inserted);
  const auto b = table_file::anonymous(options());
  ASSERT_TRUE(b);
  EXPECT_NE(b->header().secret[0], 0u);
}

TEST_F(table_file_test, ClockStartsAtZeroAndCountsSeconds) {
  const auto file = table_file::anonymous(options());
  ASSERT_TRUE(file);
  const connection_table table{file->data()};
  const std::uint64_t base = file->header().clock_base_ns;
  EXPECT_EQ(table.clock(base), 0);
  EXPECT_EQ(table.clock(base + 999'999'999), 0);
  EXPECT_EQ(table.clock(base + 1'000'000'000), 1);
  EXPECT_EQ(table.clock(base + 65'536'000'000'000), 0);
}

// The sweeper visits every bucket within its period, however often it is called.
TEST_F(table_file_test, SweeperKeepsItsPeriod) {
  for (const std::uint64_t step_ns : {50'000u, 1'000'000u, 3'700'000u}) {
    const auto file = table_file::anonymous(options());
    ASSERT_TRUE(file);
    connection_table table{file->data()};
    for (std::uint64_t i = 0; i < 5000; ++i) {
      const auto key = test::key_maker<ipv4>::make(i);
      table.v4.insert(table.v4.hash(key), key, test::word(syn, 0));
    }
    for (std::uint64_t i = 0; i < 500; ++i) {
      const auto key = test::key_maker<ipv6>::make(i);
      table.v6.insert(table.v6.hash(key), key, test::word(syn, 0));
    }
    sweeper sweep;
    const auto nobody = [](connection_word) { return false; };
    std::uint64_t gone = 0;
    std::uint64_t t = file->header().clock_base_ns + 31'000'000'000;
    const std::uint64_t half = t + sweeper::default_period_s * 1'000'000'000 / 2;
    const std::uint64_t end = t + sweeper::default_period_s * 1'010'000'000;
    for (; t < half; t += step_ns) sweep.step(table, t, nobody, [&](connection_word) { ++gone; });
    EXPECT_NEAR(static_cast<double>(gone), 2750, 200) << "step " << step_ns;
    for (; t < end; t += step_ns) sweep.step(table, t, nobody, [&](connection_word) { ++gone; });
    EXPECT_EQ(gone, 5500u) << "step " << step_ns;
    EXPECT_EQ(table.size(), 0u);
  }
}

// A round goes over everything at once, and removes what it is told to.
TEST_F(table_file_test, SweeperMakesARound) {
  const auto file = table_file::anonymous(options());
  ASSERT_TRUE(file);
  connection_table table{file->data()};
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const auto key = test::key_maker<ipv4>::make(i);
    table.v4.insert(table.v4.hash(key), key,
                    test::word(syn, 0).with_backend(abi::backend_ref::make(i % 2, 0)));
  }
  sweeper sweep;
  const std::uint64_t now = file->header().clock_base_ns + 1'000'000'000;
  sweep.begin_round(table);
  std::uint64_t gone = 0;
  for (std::uint64_t i = 0; i < 2 * table.v4.bucket_count() / sweeper::max_step + 1; ++i)
    sweep.step(
        table, now, [](connection_word w) { return w.backend().index() == 0; },
        [&](connection_word) { ++gone; });
  EXPECT_EQ(gone, 2500u);
  EXPECT_EQ(table.size(), 2500u);
}

}  // namespace
}  // namespace sluice::connection
