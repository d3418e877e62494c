// SPDX-License-Identifier: Apache-2.0
// What the control plane tells the steering programs, and when: programs in the kernel, on a
// veth in a network namespace of its own.
#include "controlplane/reconcile/steering.hpp"

#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "controlplane/bpf_loader/standin_writer.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/segment.hpp"
#include "dataplane/port/xdp_attach.hpp"
#include "tests/packet/table_builder.hpp"
#include "tests/unit/bpf/program.hpp"

namespace sluice::test {
namespace {

const char* const interface = "v0";

// attach_and_leave() is what a data plane leaves that was killed.
void attach_and_leave() {
  const program steer{"steer", SLUICE_STEER_PROGRAM};
  const int error = bpf_xdp_attach(static_cast<int>(if_nametoindex(interface)), steer.fd(),
                                   XDP_FLAGS_UPDATE_IF_NOEXIST, nullptr);
  ASSERT_EQ(error, 0) << std::strerror(-error);
}

std::size_t open_files() {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& f : std::filesystem::directory_iterator{"/proc/self/fd"}) ++n;
  return n;
}

class told : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    ASSERT_EQ(std::system("ip link add v0 type veth peer name v1"), 0);
    port_config port;
    port.name = "up0";
    port.device = "af_xdp:v0";
    port.kind = device_kind::af_xdp;
    port.interface = interface;
    node_.dataplane.ports.push_back(port);
    add("198.51.100.1");
    attach_and_leave();
  }
  void add(const std::string& vip) {
    tables_.add_service(*parse_ip(vip), ip_proto::tcp, 80, 80, abi::forward_mode::ipip,
                        {{*parse_ip("10.0.1.1"), {2, 0, 0, 1, 0, 1}, 0, 1600, 7}});
  }
  // entries() is how many entries the attached program's map has.
  template <class Map>
  std::size_t entries(const char* name) {
    const auto program = bpf_loader::find_program(interface);
    if (!program) return 0;
    const auto map = bpf_loader::open_map(*program, name, sizeof(typename Map::key_type),
                                          sizeof(typename Map::mapped_type));
    return map ? bpf_loader::read_map<Map>(map->get(), name, 1u << 20).value().size() : 0;
  }
  std::size_t vips() { return entries<bpf_loader::vip_entries>(SLUICE_VIP_SET_MAP); }
  std::size_t rows() {
    return entries<decltype(bpf_loader::standin_contents::rows)>(SLUICE_STANDIN_ROWS_MAP);
  }

  // map() opens one of the attached program's.
  template <class Value>
  file_descriptor map(const char* name) {
    const auto program = bpf_loader::find_program(interface);
    return std::move(
        bpf_loader::open_map(*program, name, sizeof(std::uint32_t), sizeof(Value)).value());
  }
  // standin_generation() is whose tables the stand-in has.
  std::uint64_t standin_generation() {
    const std::uint32_t zero = 0;
    sluice_standin_config config{};
    bpf_map_lookup_elem(map<sluice_standin_config>(SLUICE_STANDIN_CONFIG_MAP).get(), &zero,
                        &config);
    return config.generation;
  }
  // beat() is what a data plane does that lives.
  void beat(std::uint64_t generation) {
    put(0, abi::clock_ns(CLOCK_MONOTONIC) + 60'000'000'000);
    put(SLUICE_TOLD_GENERATION, generation);
  }
  void put(std::uint32_t place, std::uint64_t value) {
    ASSERT_EQ(bpf_map_update_elem(map<std::uint64_t>(SLUICE_HEARTBEAT_MAP).get(), &place, &value,
                                  BPF_ANY),
              0);
  }

  node_config node_;
  table_builder tables_;
};

// New tables wait until the data plane has noted the connections that they would move.
TEST_F(told, tables_wait_for_the_data_plane) {
  auto& number = tables_.header().number;
  number = 7;
  beat(7);
  reconcile::steering steering{node_};
  steering.set(tables_.view());
  EXPECT_EQ(standin_generation(), 7u);
  number = 8;
  steering.check(tables_.view());
  EXPECT_EQ(standin_generation(), 7u);
  beat(8);
  steering.check(tables_.view());
  EXPECT_EQ(standin_generation(), 8u);
}

// While there is none, nobody notes them: they stay where they are, until there is one again.
TEST_F(told, tables_of_several_generations_without_a_data_plane) {
  auto& number = tables_.header().number;
  number = 7;
  beat(7);
  reconcile::steering steering{node_};
  steering.set(tables_.view());
  put(0, 1);  // killed
  number = 8;
  tables_.service(0).table_digest += 1;
  steering.check(tables_.view());
  EXPECT_EQ(standin_generation(), 0u);
  steering.check(tables_.view());
  EXPECT_EQ(standin_generation(), 0u);
  beat(8);
  steering.check(tables_.view());
  EXPECT_EQ(standin_generation(), 8u);
}

TEST(standin_tables, slots_stay_with_whom_keeps_connections) {
  std::map<std::uint32_t, sluice_standin_row> rows;
  rows[1].keeps = rows[2].keeps = 1;
  rows[3].keeps = 0;
  const auto pair = [](std::uint64_t even, std::uint64_t odd) { return odd << 32 | even; };
  const std::vector<std::uint64_t> before{5, pair(1, 2), pair(3, 4), pair(1, 0)};
  std::vector<std::uint64_t> slots{5, pair(2, 2), pair(2, 1), pair(3, 0)};
  bpf_loader::keep_slots(slots, before, rows);
  // 3 no longer keeps its connections, and 4 is gone.
  EXPECT_EQ(slots, (std::vector<std::uint64_t>{5, pair(1, 2), pair(2, 1), pair(1, 0)}));
  std::vector<std::uint64_t> longer{7, pair(2, 2), pair(2, 2), pair(2, 2), pair(2, 0)};
  const auto as_it_was = longer;
  bpf_loader::keep_slots(longer, before, rows);
  EXPECT_EQ(longer, as_it_was);
}

// A control plane that begins and cannot publish yet (a worker hangs, the state does not fit)
// has been given nothing. What its predecessor has published goes on.
TEST_F(told, a_new_control_plane_takes_nothing_away) {
  reconcile::steering{node_}.set(tables_.view());
  ASSERT_EQ(vips(), 2u);
  reconcile::steering successor{node_};
  successor.check(abi::config_view{});  // a new segment, empty as yet
  EXPECT_EQ(vips(), 2u);
  successor.check(tables_.view());
  EXPECT_EQ(vips(), 2u);
  EXPECT_EQ(rows(), 1u);
  add("198.51.100.2");
  successor.set(tables_.view());
  EXPECT_EQ(vips(), 4u);
}

// A data plane may start while the control plane writes the maps, which can take a second.
TEST_F(told, keeps_no_data_plane_out) {
  const auto program = bpf_loader::find_program(interface);
  ASSERT_TRUE(program);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(attached_xdp(interface) ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// Programs that are no more leave neither their tables nor their descriptors.
TEST_F(told, programs_that_went_leave_nothing) {
  reconcile::steering steering{node_};
  steering.set(tables_.view());
  const std::size_t before = open_files();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(detach_xdp(interface));
    steering.check(tables_.view());
    attach_and_leave();
    tables_.header().number += 1;
    tables_.service(0).table_digest += 1;  // other tables: they are made anew
    steering.check(tables_.view());
    ASSERT_EQ(rows(), 1u);
  }
  EXPECT_EQ(open_files(), before);
}

}  // namespace
}  // namespace sluice::test
