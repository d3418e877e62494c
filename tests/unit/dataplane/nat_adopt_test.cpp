// SPDX-License-Identifier: Apache-2.0
// NAT sessions that outlive their process: what is taken over, what is refused and why, and
// what is made right after a process died in the middle of a change.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>

#include "dataplane/path/nat_file.hpp"
#include "dataplane/path/nat_table.hpp"
#include "tests/unit/dataplane/connection_fixture.hpp"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using abi::connection_state;

constexpr std::uint8_t tcp = static_cast<std::uint8_t>(ip_proto::tcp);
const ip_address pool = ip_address::v4({192, 0, 2, 11});
const be16 server_port{8080};

// The n-th client's packet; every second session is full-nat.
wire::flow_ends ends_of(std::uint32_t n) {
  return {ip_address::v4(be32{0x0a000000 + (n >> 8)}), ip_address::v4({198, 51, 100, 1}),
          be16{static_cast<std::uint16_t>(2000 + (n & 0xff))}, be16{80}};
}
bool is_full(std::uint32_t n) {
  return n % 2 == 1;
}
ip_address server_of(std::uint32_t n) {
  return ip_address::v4(be32{0x0a640000 + n % 3});
}
bool keep_all(const nat_session&) {
  return true;
}

// begin() does what the path does with a new session.
nat_session* begin(nat_table& table, std::uint32_t n) {
  abi::counter_id why{};
  nat_session* s = table.open(ends_of(n), tcp, server_of(n), server_port, is_full(n), 5, why,
                              [](const nat_session&) {});
  if (s == nullptr) return nullptr;
  s->backend = abi::backend_ref::make(n % 3, 1);
  s->client_sequence = n * 0x9e3779b9u;
  s->flags |= nat_client_known;
  s->seen = 5;
  s->client_mac = {2, 0, 0, 0, 0, 1};
  nat_table::set_state(*s, connection_state::established);
  return s;
}
// Every field is what begin() has written.
bool is_right(const nat_session& s, std::uint32_t n) {
  return s.client_sequence == n * 0x9e3779b9u && s.server == server_of(n) &&
         s.server_port == server_port && s.backend == abi::backend_ref::make(n % 3, 1) &&
         s.flags == (is_full(n) ? nat_client_known | nat_full : nat_client_known) && s.seen == 5 &&
         s.state == connection_state::established && s.client_mac == mac_address{2, 0, 0, 0, 0, 1};
}

// A worker: a file and the table in it.
struct plane {
  nat_file file;
  std::unique_ptr<nat_table> table;
  nat_table::adoption adopted;
};

class nat_adopt_test : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = fs::is_directory("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    name += "/sluice-nat-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    options_.name = "nat-1";
    options_.runtime_dir = name;
    options_.worker = 1;
    options_.sessions = 8192;
    options_.table = 0x1234567890abcdef;
  }
  void TearDown() override { fs::remove_all(options_.runtime_dir); }

  [[nodiscard]] plane in(nat_file file) const {
    plane p{std::move(file), nullptr, {}};
    p.table = std::make_unique<nat_table>(
        nat_table::options{options_.sessions, options_.worker, 2, {1, 2}, p.file.sessions(), -1});
    EXPECT_TRUE(p.table->ready());
    p.table->set_pool({&pool, 1});
    return p;
  }
  [[nodiscard]] plane fresh() const {
    auto file = nat_file::create(options_);
    EXPECT_TRUE(file) << file.error();
    plane p = in(std::move(*file));
    grow(p);
    return p;
  }
  [[nodiscard]] plane again(const std::function<bool(const nat_session&)>& keeps = keep_all) const {
    auto file = nat_file::adopt(options_);
    EXPECT_TRUE(file) << file.error().text;
    plane p = in(std::move(*file));
    p.adopted = p.table->adopt(p.file.present(), p.file.next_port(), keeps);
    grow(p);
    return p;
  }
  static void grow(plane& p) {
    EXPECT_EQ(p.file.grow(p.table->used()), 0);
    p.table->set_room(p.file.present());
    p.file.note_port(p.table->next_port());
  }
  // change() writes into the header, right = also into the checksum.
  void change(const std::function<void(nat_file_header&)>& how, bool right = true) const {
    const file_descriptor fd{::open(path().c_str(), O_RDWR)};
    nat_file_header h;
    ASSERT_EQ(::pread(fd.get(), &h, sizeof h, 0), static_cast<ssize_t>(sizeof h));
    how(h);
    if (right) h.checksum = nat_file_checksum(h);
    ASSERT_EQ(::pwrite(fd.get(), &h, sizeof h, 0), static_cast<ssize_t>(sizeof h));
  }
  void expect_refused(const char* why) const {
    const auto file = nat_file::adopt(options_);
    ASSERT_FALSE(file) << why;
    EXPECT_NE(file.error().text.find(why), std::string::npos) << file.error().text;
    EXPECT_NE(file.error().text.find(path()), std::string::npos) << file.error().text;
  }
  [[nodiscard]] std::string path() const { return options_.runtime_dir + "/" + options_.name; }

  nat_file_options options_;
};

TEST_F(nat_adopt_test, nothing_there_is_no_refusal_worth_a_word) {
  const auto file = nat_file::adopt(options_);
  ASSERT_FALSE(file);
  EXPECT_TRUE(file.error().text.empty()) << file.error().text;
}

TEST_F(nat_adopt_test, sessions_are_found_again_by_both_names) {
  {
    plane p = fresh();
    for (std::uint32_t n = 0; n < 1000; ++n) ASSERT_NE(begin(*p.table, n), nullptr) << n;
    // Some end, so that there are holes.
    for (std::uint32_t n = 0; n < 1000; n += 10)
      p.table->close(*p.table->find_forward(ends_of(n), tcp));
  }
  plane p = again();
  EXPECT_EQ(p.table->size(), 900u);
  EXPECT_EQ(p.adopted.torn + p.adopted.dropped, 0u);
  EXPECT_TRUE(p.table->consistent());
  for (std::uint32_t n = 0; n < 1000; ++n) {
    const nat_session* s = p.table->find_forward(ends_of(n), tcp);
    ASSERT_EQ(s != nullptr, n % 10 != 0) << n;
    if (s == nullptr) continue;
    EXPECT_TRUE(is_right(*s, n)) << n;
    EXPECT_EQ(p.table->find_reply({s->server, s->local, s->server_port, s->local_port}, tcp), s);
  }
  // Newcomers take the holes first.
  const std::uint32_t used = p.table->used();
  for (std::uint32_t n = 5000; n < 5100; ++n) ASSERT_NE(begin(*p.table, n), nullptr);
  EXPECT_EQ(p.table->used(), used);
  EXPECT_TRUE(p.table->consistent());
}

// The ports go round completely: those that sessions have are left out, before and after.
TEST_F(nat_adopt_test, no_port_is_given_twice) {
  options_.sessions = 40'000;
  {
    plane p = fresh();
    for (std::uint32_t n = 1; n < 4000; n += 2) {
      ASSERT_NE(begin(*p.table, n), nullptr) << n;
      if (n % 1000 == 1) grow(p);
    }
  }
  plane p = again();
  ASSERT_EQ(p.table->size(), 2000u);
  std::set<std::pair<ip_address, unsigned>> taken;
  const auto take = [&](const nat_session& s) {
    EXPECT_EQ(nat_table::owner_of_port(s.local_port, 2), options_.worker);
    return taken.insert({s.server, s.local_port.host()}).second;
  };
  for (std::uint32_t n = 1; n < 4000; n += 2)
    ASSERT_TRUE(take(*p.table->find_forward(ends_of(n), tcp)));
  for (std::uint32_t n = 4001; n < 80'000; n += 2) {
    const nat_session* s = begin(*p.table, n);
    ASSERT_NE(s, nullptr) << n;
    ASSERT_TRUE(take(*s)) << n << ": port " << s->local_port.host();
    if (n % 1000 == 1) grow(p);
  }
  EXPECT_TRUE(p.table->consistent());
}

TEST_F(nat_adopt_test, ports_that_have_just_been_used_rest) {
  std::set<unsigned> used;
  {
    plane p = fresh();
    for (std::uint32_t n = 1; n < 1000; n += 2) {
      nat_session* s = begin(*p.table, n);
      used.insert(s->local_port.host());
      p.table->close(*s);
    }
    grow(p);
  }
  plane p = again();
  for (std::uint32_t n = 1; n < 1000; n += 2)
    EXPECT_EQ(used.count(begin(*p.table, n)->local_port.host()), 0u);
}

TEST_F(nat_adopt_test, sessions_of_backends_that_are_gone_are_dropped) {
  {
    plane p = fresh();
    for (std::uint32_t n = 0; n < 300; ++n) begin(*p.table, n);
  }
  const auto keeps = [](const nat_session& s) { return s.backend.index() != 2; };
  plane p = again(keeps);
  EXPECT_EQ(p.table->size(), 200u);
  EXPECT_EQ(p.adopted.dropped, 100u);
  EXPECT_EQ(p.table->find_forward(ends_of(2), tcp), nullptr);
  EXPECT_TRUE(p.table->consistent());
  EXPECT_EQ(again().table->size(), 200u);  // for good
}

TEST_F(nat_adopt_test, what_is_torn_goes_the_rest_stays) {
  std::uint32_t torn = 0;
  {
    plane p = fresh();
    for (std::uint32_t n = 0; n < 400; ++n) begin(*p.table, n);
    const auto spoil = [&](std::uint32_t n, const auto& how) {
      how(*p.table->find_forward(ends_of(n), tcp));
      ++torn;
    };
    spoil(1, [](auto& s) { s.protocol = 0; });
    spoil(3, [](auto& s) { s.state = static_cast<connection_state>(9); });
    spoil(5, [](auto& s) { s.client = {}; });
    spoil(7, [](auto& s) { s.local_port = be16{2000}; });  // another worker's
    spoil(8, [](auto& s) { s.local_port = be16{2000}; });  // nat: not the client's
    spoil(9, [](auto& s) { s.flags ^= nat_full; });
    spoil(11, [](auto& s) { s.in_port = 200; });
    spoil(13, [](auto& s) { s.server = ip_address::v6({0x20, 1}); });
    nat_session* const twin = p.table->find_forward(ends_of(23), tcp);
    spoil(29, [twin](auto& s) {  // the same backend, and the same port of ours
      s.local_port = twin->local_port;
    });
    nat_session* const first = p.table->find_forward(ends_of(31), tcp);
    spoil(33, [first](auto& s) { s = *first; });
  }
  plane p = again();
  EXPECT_EQ(p.adopted.torn, torn);
  EXPECT_EQ(p.table->size(), 400 - torn);
  EXPECT_TRUE(p.table->consistent());
  EXPECT_NE(p.table->find_forward(ends_of(23), tcp), nullptr);
}

TEST_F(nat_adopt_test, random_memory_becomes_a_table) {
  {
    plane p = fresh();
    connection::test::random_source random{11};
    begin(*p.table, 7);
    const auto words = std::span{reinterpret_cast<std::uint64_t*>(p.file.sessions().data() + 1),
                                 (p.file.present() - 1) * sizeof(nat_session) / 8};
    for (std::uint64_t& w : words) w = random();
  }
  plane p = again();
  EXPECT_TRUE(p.table->consistent());
  EXPECT_NE(p.table->find_forward(ends_of(7), tcp), nullptr);
  for (std::uint32_t n = 100; n < 400; ++n) EXPECT_NE(begin(*p.table, n), nullptr);
  EXPECT_TRUE(p.table->consistent());
}

TEST_F(nat_adopt_test, refuses_what_is_not_its_own) {
  { (void)fresh(); }
  const auto restore = options_;
  options_.table ^= 1;
  expect_refused("a connection table that was not taken over");
  options_ = restore;
  options_.worker = 0;
  expect_refused("of another worker: 1, now 0");
  options_ = restore;
  options_.sessions = 9000;
  expect_refused("of another size");
  options_ = restore;
  change([](auto& h) { h.magic = 0; });
  expect_refused("never finished");
  change([](auto& h) {
    h.magic = nat_file_magic;
    h.version = nat_file_version + 1;
  });
  expect_refused("another release's: layout version");
  change([](auto& h) {
    h.version = nat_file_version;
    h.session_size += 64;
  });
  expect_refused("another release's: bytes per session");
  change([](auto& h) { h.session_size -= 64; });
  { (void)again(); }
  change([](auto& h) { h.table ^= 1; }, false);
  expect_refused("checksum");
  change([](auto& h) { h.table ^= 1; }, false);
  change([](auto& h) { h.present = h.sessions + 1; });
  expect_refused("more in use than there are");
  change([](auto& h) { h.present = 32; });
  ASSERT_EQ(::chmod(path().c_str(), 0640), 0);
  expect_refused("not private");
}

TEST_F(nat_adopt_test, refuses_a_file_that_was_cut_short) {
  { (void)fresh(); }
  ASSERT_EQ(::truncate(path().c_str(), 8192), 0);
  expect_refused("cut short or changed: bytes 8192");
  ASSERT_EQ(::truncate(path().c_str(), 10), 0);
  expect_refused("cut short: 10 bytes");
  fs::remove(path());
  fs::create_symlink("/etc/hostname", path());
  expect_refused(path().c_str());
}

// A kind of service that nobody uses costs next to nothing.
TEST_F(nat_adopt_test, memory_is_taken_as_sessions_come) {
  const auto resident = [] {
    std::ifstream statm{"/proc/self/statm"};
    std::size_t pages = 0;
    statm >> pages >> pages;
    return pages * 4096;
  };
  const auto in_file = [this] {
    struct stat st {};
    ::stat(path().c_str(), &st);
    return static_cast<std::size_t>(st.st_blocks) * 512;
  };
  constexpr std::size_t mib = std::size_t{1} << 20;
  options_.sessions = 1u << 22;
  const std::size_t before = resident();
  plane p = fresh();
  for (int i = 0; i < 10; ++i) grow(p);
  EXPECT_EQ(p.table->find_forward(ends_of(1), tcp), nullptr);
  EXPECT_LT(resident() - before, mib);
  EXPECT_LT(in_file(), mib);
  ASSERT_NE(begin(*p.table, 1), nullptr);
  for (int i = 0; i < 10; ++i) grow(p);
  EXPECT_LT(in_file(), 9 * mib);
  EXPECT_GE(p.file.present(), 65536u);
}

// A full tmpfs limits the sessions; nobody dies of it.
TEST_F(nat_adopt_test, a_full_file_system_is_an_error_not_a_signal) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::string small = options_.runtime_dir + "/small";
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      ::_exit(77);
    fs::create_directory(small);
    if (::mount("none", small.c_str(), "tmpfs", 0, "size=1m") != 0) ::_exit(77);
    options_.runtime_dir = small;
    options_.sessions = 100'000;
    auto file = nat_file::create(options_);
    if (!file) ::_exit(1);
    plane p = in(std::move(*file));
    std::uint32_t begun = 0;
    int error = 0;
    for (std::uint32_t n = 0; n < 20'000; ++n) {
      const int now = p.file.grow(p.table->used());
      if (now != 0) error = now;
      p.table->set_room(p.file.present());
      if (begin(*p.table, 2 * n) != nullptr) ++begun;
    }
    // 1 MiB less the header's page, and what the directory takes.
    const bool right = error == ENOSPC && begun > 7000 && begun < 8192 && p.table->consistent();
    if (!right) std::fprintf(stderr, "%u begun, error %d\n", begun, error);
    ::_exit(right ? 0 : 2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "may not mount";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// A process that is killed while it begins and ends sessions, again and again, as fast as it
// can. What it had finished is there, with both names; of the rest, all or nothing.
TEST_F(nat_adopt_test, killed_at_any_moment) {
  constexpr std::uint32_t names = 3000;
  constexpr unsigned rounds = 60;
  void* memory =
      ::mmap(nullptr, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* whole = static_cast<std::uint8_t*>(memory);  // by name: it is there, for sure
  auto* begun = reinterpret_cast<unsigned*>(static_cast<std::byte*>(memory) + 4096);
  const auto mark = [whole](std::uint32_t n, std::uint8_t is) {
    __atomic_store_n(whole + n, is, __ATOMIC_SEQ_CST);
  };
  { (void)fresh(); }
  std::uint64_t found = 0;
  for (unsigned round = 0; round < rounds; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      plane p = again();
      connection::test::random_source random{round};
      for (;;) {
        const auto n = static_cast<std::uint32_t>(random.below(names));
        nat_session* s = p.table->find_forward(ends_of(n), tcp);
        if (s != nullptr) {
          mark(n, 0);
          p.table->close(*s);
        } else if (begin(*p.table, n) != nullptr) {
          mark(n, 1);
        }
        if (random.below(64) == 0) grow(p);
        __atomic_store_n(begun, round + 1, __ATOMIC_RELEASE);
      }
    }
    for (int i = 0; i < 10'000 && __atomic_load_n(begun, __ATOMIC_ACQUIRE) != round + 1; ++i)
      ::usleep(1000);
    ::usleep(1000 + 137 * round);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ASSERT_EQ(__atomic_load_n(begun, __ATOMIC_ACQUIRE), round + 1) << "did not begin";
    plane p = again();
    ASSERT_TRUE(p.table->consistent()) << "round " << round;
    ASSERT_EQ(p.adopted.torn, 0u) << "round " << round;
    std::uint32_t there = 0;
    for (std::uint32_t n = 0; n < names; ++n) {
      const nat_session* s = p.table->find_forward(ends_of(n), tcp);
      ASSERT_TRUE(s != nullptr || whole[n] == 0) << "round " << round << ": " << n << " is lost";
      if (s == nullptr) continue;
      ++there;
      ASSERT_TRUE(is_right(*s, n)) << "round " << round << ": " << n;
      whole[n] = 1;
    }
    ASSERT_EQ(there, p.table->size()) << "round " << round;
    found += there;
  }
  EXPECT_GT(found, rounds * 100u);
  ::munmap(memory, 2 * 4096);
}

}  // namespace
}  // namespace sluice
