// SPDX-License-Identifier: Apache-2.0
// Listing a table from outside, through the shared layout only.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/connection/table.hpp"
#include "dataplane/connection/table_file.hpp"
#include "tests/unit/dataplane/connection_fixture.hpp"

namespace sluice::connection {
namespace {

using enum connection_state;
using abi::connection_reader;
using status = connection_reader::status;

table_file make_file(std::uint64_t connections) {
  table_file_options o;
  o.connections4 = connections;
  o.connections6 = connections;
  o.worker = 2;
  auto file = table_file::anonymous(o);
  EXPECT_TRUE(file);
  return std::move(*file);
}

TEST(reader, ListsWhatIsThere) {
  const table_file file = make_file(1000);
  connection_table table{file.data()};
  for (std::uint64_t i = 0; i < 900; ++i) {
    const auto k4 = test::key_maker<ipv4>::make(i);
    table.v4.insert(table.v4.hash(k4), k4, test::word(syn, 5, static_cast<std::uint32_t>(i)));
    const auto k6 = test::key_maker<ipv6>::make(i);
    table.v6.insert(table.v6.hash(k6), k6, test::word(established, 6, 9));
  }
  connection_reader reader;
  ASSERT_EQ(connection_reader::open(file.data(), file.size(), reader), status::ok);
  EXPECT_EQ(reader.worker(), 2u);
  EXPECT_EQ(reader.capacity4(), table.v4.capacity());
  std::set<std::uint32_t> seen4;
  std::uint64_t seen6 = 0;
  reader.for_each([&](const abi::connection_view& c) {
    EXPECT_EQ(c.vip, abi::vip_id{1});
    EXPECT_EQ(c.destination_port.host(), 443);
    if (c.source.is_v4()) {
      const std::uint32_t n = c.backend.index();
      EXPECT_TRUE(seen4.insert(n).second);
      EXPECT_EQ(c.source.v4_raw().host(), 0x0a000000u);
      EXPECT_EQ(c.source_port.host(), 1024 + n);
      EXPECT_EQ(c.state, syn);
      EXPECT_EQ(reader.idle(c, file.header().clock_base_ns + 25'000'000'000), 20);
    } else {
      ++seen6;
      EXPECT_EQ(c.source.bytes[0], 0x20);
      EXPECT_EQ(c.state, established);
    }
    return true;
  });
  EXPECT_EQ(seen4.size(), 900u);
  EXPECT_EQ(seen6, 900u);
  unsigned few = 0;
  reader.for_each([&](const abi::connection_view&) { return ++few < 10; });
  EXPECT_EQ(few, 10u);
}

// A header is data from another process: nothing wrong in it may lead outside.
TEST(reader, RefusesFalseHeaders) {
  const table_file file = make_file(100);
  std::vector<std::byte> bytes(file.data(), file.data() + file.size());
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, bytes.size()));
  const auto check = [&](auto&& change, std::uint64_t size) {
    std::memcpy(memory, bytes.data(), bytes.size());
    change(*reinterpret_cast<abi::connection_header*>(memory));
    connection_reader reader;
    return connection_reader::open(memory, size, reader);
  };
  using header = abi::connection_header;
  const auto same = [](header&) {};
  EXPECT_EQ(check(same, bytes.size()), status::ok);
  EXPECT_EQ(check(same, 0), status::too_small);
  EXPECT_EQ(check(same, 127), status::too_small);
  EXPECT_EQ(check(same, bytes.size() - 1), status::too_small);
  EXPECT_EQ(check([](header& h) { h.magic = 0; }, bytes.size()), status::not_a_table);
  EXPECT_EQ(check([](header& h) { ++h.version; }, bytes.size()), status::other_version);
  EXPECT_EQ(check([](header& h) { h.buckets4 = std::uint64_t{1} << 62; }, bytes.size()),
            status::bad_layout);
  EXPECT_EQ(check([](header& h) { h.buckets4 = std::uint64_t{1} << 32; }, bytes.size()),
            status::bad_layout);
  EXPECT_EQ(check([](header& h) { h.buckets6 = 0; }, bytes.size()), status::bad_layout);
  EXPECT_EQ(check([](header& h) { h.offset4 = 64; }, bytes.size()), status::bad_layout);
  EXPECT_EQ(check([](header& h) { h.offset6 += 64; }, bytes.size()), status::bad_layout);
  EXPECT_EQ(check([](header& h) { h.size = 4096; }, bytes.size()), status::bad_layout);
  EXPECT_EQ(check([](header& h) { h.size = ~std::uint64_t{0}; }, bytes.size()), status::too_small);
  std::free(memory);
}

// Random bytes where the entries are: any listing, no crash (run under ASan too).
TEST(reader, SurvivesGarbage) {
  const table_file file = make_file(500);
  test::random_source random{1};
  for (std::uint64_t i = sizeof(abi::connection_header); i < file.header().size; ++i)
    file.data()[i] = static_cast<std::byte>(random());
  connection_reader reader;
  ASSERT_EQ(connection_reader::open(file.data(), file.size(), reader), status::ok);
  std::uint64_t n = 0;
  reader.for_each([&](const abi::connection_view&) {
    ++n;
    return true;
  });
  EXPECT_LE(n, reader.capacity4() + reader.capacity6());
  // And the worker's own operations on it: wrong answers, no stray access.
  connection_table table{file.data()};
  table.recount();
  EXPECT_FALSE(table.v4.consistent());
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const auto key = test::key_maker<ipv4>::make(i);
    const insertion in = table.v4.insert(table.v4.hash(key), key, test::word(syn, 5));
    if (in.handle != nullptr && i % 2 == 0) table.v4.erase(in.handle);
  }
  table.v4.sweep(0, table.v4.bucket_count(), 77, [](connection_word) {});
}

// While the worker inserts and erases, a listing never shows a connection that never was:
// every key comes with its own backend.
TEST(reader, NoTornEntriesWhileTheWorkerWrites) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "reads entries that are being written, on purpose, and then checks";
#endif
  const table_file file = make_file(200);
  connection_table table{file.data()};
  std::atomic<bool> stop{false};
  std::thread worker{[&] {
    test::random_source random{9};
    while (!stop.load(std::memory_order_relaxed)) {
      const std::uint64_t n = random.below(400);
      const auto key = test::key_maker<ipv4>::make(n);
      const auto h = table.v4.hash(key);
      if (const handle at = table.v4.find(h, key); at != nullptr) {
        table.v4.erase(at);
      } else {
        table.v4.insert(h, key, test::word(syn, 5, static_cast<std::uint32_t>(n)));
      }
    }
  }};
  connection_reader reader;
  ASSERT_EQ(connection_reader::open(file.data(), file.size(), reader), status::ok);
  std::uint64_t listed = 0;
  std::uint64_t torn = 0;
  // The worker's thread may start late: as long as it takes to see enough, within reason.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
  while (listed < 100000 && std::chrono::steady_clock::now() < deadline)
    reader.for_each([&](const abi::connection_view& c) {
      ++listed;
      torn += c.source_port.host() != 1024 + c.backend.index();
      return true;
    });
  stop = true;
  worker.join();
  EXPECT_GE(listed, 100000u);
  EXPECT_EQ(torn, 0u) << "of " << listed;
}

}  // namespace
}  // namespace sluice::connection
