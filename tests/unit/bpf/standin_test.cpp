// SPDX-License-Identifier: Apache-2.0
// The stand-in beside the data plane: the same generation of tables, the same frames, and
// what comes out has to be the same to the last bit. Runs in the kernel (BPF_PROG_TEST_RUN).
#include <gtest/gtest.h>
#include <linux/if_xdp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/bpf_loader/standin_contents.hpp"
#include "controlplane/bpf_loader/steer_contents.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/process/pinned_flows.hpp"
#include "tests/packet/table_builder.hpp"
#include "tests/unit/bpf/data_plane.hpp"
#include "tests/unit/bpf/program.hpp"

namespace sluice::test {
namespace {

using spec = table_builder::backend_spec;
constexpr std::uint8_t usable =
    abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;
constexpr std::uint32_t loopback = 1;  // where a test run's frames come from

ip_address ip(const std::string& text) {
  return *parse_ip(text);
}

std::vector<spec> backends(const char* prefix, std::uint8_t out_port = data_plane_port,
                           std::uint16_t mtu = 1600) {
  std::vector<spec> out;
  for (int i = 1; i <= 3; ++i)
    out.push_back({ip(prefix + std::to_string(i)),
                   {2, 0, 0, 1, 0, static_cast<std::uint8_t>(i)},
                   out_port,
                   mtu,
                   usable});
  return out;
}

class standin : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "loading BPF programs needs root";
    using enum abi::forward_mode;
    tables_.header().source4 = {ip("192.0.2.10"), 32, 1, {}};
    tables_.header().source6 = {ip("2001:db8:e::10"), 128, 1, {}};
    const auto add = [this](const char* vip, abi::forward_mode mode, const char* to,
                            std::uint16_t first = 80, std::uint16_t last = 80) {
      return tables_.add_service(ip(vip), ip_proto::tcp, first, last, mode, backends(to));
    };
    add("198.51.100.1", dsr_l2, "10.0.1.");
    add("198.51.100.2", ipip, "10.0.1.");
    add("198.51.100.3", ipip, "fd00:1::");
    add("198.51.100.4", gue, "10.0.1.");
    add("198.51.100.5", gue, "fd00:1::");
    add("198.51.100.6", gre, "10.0.1.");
    add("198.51.100.7", gre, "fd00:1::");
    add("198.51.100.8", ipip, "10.0.1.", 1000, 1999);
    add("198.51.100.9", nat, "10.0.1.");
    add("2001:db8::1", dsr_l2, "fd00:1::");
    add("2001:db8::2", ipip, "fd00:1::");
    add("2001:db8::3", ipip, "10.0.1.");
    add("2001:db8::4", gue, "fd00:1::");
    add("2001:db8::5", gue, "10.0.1.");
    add("2001:db8::6", gre, "fd00:1::");
    add("2001:db8::7", gre, "10.0.1.");
    add("2001:db8::8", ipip, "10.0.1.", 0, 65535);
    publish();
  }

  // publish() does what the control plane does, with maps that the test has.
  void publish() {
    const abi::config_view view = tables_.view();
    std::vector<bpf_loader::standin_port> ports(2);
    ports[data_plane_port] = {loopback, data_plane_mac};
    const auto contents = bpf_loader::standin_of(view, ports);
    program_ = std::make_unique<program>("steer", SLUICE_STEER_PROGRAM);
    const auto vips = bpf_loader::make_vip_entries(bpf_loader::contents_of(view).vips);
    ASSERT_TRUE(vips);
    for (const auto& [key, value] : *vips) program_->put(SLUICE_VIP_SET_MAP, key, value);
    for (const auto& [key, value] : contents.ports)
      program_->put(SLUICE_STANDIN_PORTS_MAP, key, value);
    for (const auto& [key, value] : contents.rows)
      program_->put(SLUICE_STANDIN_ROWS_MAP, key, value);
    for (const auto& [service, identity] : contents.tables) {
      const auto slots = bpf_loader::slots_of(view, service);
      bpf_map_create_opts options{};
      options.sz = sizeof options;
      options.map_flags = BPF_F_INNER_MAP | BPF_F_MMAPABLE;
      const int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "table", 4, 8,
                                     static_cast<std::uint32_t>(slots.size()), &options);
      ASSERT_GE(map, 0);
      for (std::uint32_t i = 0; i < slots.size(); ++i)
        ASSERT_EQ(bpf_map_update_elem(map, &i, &slots[i], 0), 0);
      program_->put(SLUICE_STANDIN_TABLES_MAP, service, map);
      ::close(map);
    }
    program_->put(SLUICE_STANDIN_CONFIG_MAP, std::uint32_t{0}, contents.config);
  }

  run_result run(const bytes& frame, int counter) {
    const auto before = program_->counters(SLUICE_STEER_STATS_MAP, SLUICE_STEER_COUNTERS);
    run_result result = program_->run(frame);
    const auto after = program_->counters(SLUICE_STEER_STATS_MAP, SLUICE_STEER_COUNTERS);
    EXPECT_EQ(counted(before, after), counter);
    return result;
  }

  // expect_the_same() puts a frame through both.
  void expect_the_same(const std::string& what, const bytes& frame) {
    SCOPED_TRACE(what);
    const auto wanted = by_data_plane(tables_.view(), frame);
    ASSERT_TRUE(wanted);
    const run_result got = run(frame, SLUICE_STANDIN_FORWARDED);
    EXPECT_EQ(got.verdict, XDP_TX);
    EXPECT_EQ(got.frame, *wanted);
  }

  void expect_the_same_by_source() {
    for (unsigned host = 1; host < 30; ++host) {
      const std::string number = std::to_string(host);
      expect_the_same(
          "4", ethernet(0x0800) + ipv4({"192.0.2." + number, "198.51.100.2", 6}, tcp(host, 80)));
      expect_the_same("6",
                      ethernet(0x86dd) +
                          ipv6({"2001:db8:1:" + number + "::7", "2001:db8::2", 6}, tcp(host, 80)));
      expect_the_same(
          "6", ethernet(0x86dd) + ipv6({"2001:db8:1::" + number, "2001:db8::2", 6}, tcp(host, 80)));
    }
  }

  table_builder tables_;
  std::unique_ptr<program> program_;
};

bytes frame4(const std::string& vip, unsigned port, unsigned source_port, unsigned tos = 0) {
  return ethernet(0x0800) + ipv4({"192.0.2.7", vip, 6, {}, 0x4000, tos}, tcp(source_port, port));
}
bytes frame6(const std::string& vip, unsigned port, unsigned source_port, unsigned tc = 0) {
  return ethernet(0x86dd) + ipv6({"2001:db8:1::7", vip, 6, tc}, tcp(source_port, port));
}
// half() is 4 bytes of a frame as they are in memory.
std::uint32_t half(const bytes& frame, std::size_t at) {
  std::uint32_t v;
  std::memcpy(&v, frame.data() + at, sizeof v);
  return v;
}

// tagged() puts VLAN tags into a frame.
bytes tagged(const bytes& frame, unsigned tags) {
  bytes out(frame.begin(), frame.begin() + 12);
  for (unsigned i = 0; i < tags; ++i) out = out + u16(i + 1 < tags ? 0x88a8 : 0x8100) + u16(7 + i);
  return out + bytes(frame.begin() + 12, frame.end());
}

TEST_F(standin, forwards_as_the_data_plane_does) {
  const std::pair<const char*, const char*> kinds[] = {
      {"dsr-l2", "1"}, {"ipip 4", "2"}, {"ipip 6", "3"}, {"gue 4", "4"},
      {"gue 6", "5"},  {"gre 4", "6"},  {"gre 6", "7"}};
  for (const auto& [name, last] : kinds)
    for (unsigned source_port = 1000; source_port < 1040; ++source_port) {
      const unsigned tos = source_port % 3 * 17;
      expect_the_same(std::string{name} + " of IPv4 from " + std::to_string(source_port),
                      frame4(std::string{"198.51.100."} + last, 80, source_port, tos));
    }
  const std::pair<const char*, const char*> kinds6[] = {
      {"dsr-l2", "1"}, {"ipip 6", "2"}, {"ipip 4", "3"}, {"gue 6", "4"},
      {"gue 4", "5"},  {"gre 6", "6"},  {"gre 4", "7"}};
  for (const auto& [name, last] : kinds6)
    for (unsigned source_port = 1000; source_port < 1040; ++source_port)
      expect_the_same(
          std::string{name} + " of IPv6 from " + std::to_string(source_port),
          frame6(std::string{"2001:db8::"} + last, 80, source_port, source_port % 3 * 17));
}

TEST_F(standin, ranges_and_any_port) {
  for (const unsigned port : {1000u, 1500u, 1999u})
    expect_the_same("range", frame4("198.51.100.8", port, 5));
  for (const unsigned port : {1u, 80u, 65535u})
    expect_the_same("any", frame6("2001:db8::8", port, 5));
}

TEST_F(standin, vlan_tags_stay) {
  for (unsigned tags = 1; tags <= 2; ++tags)
    for (const char* vip : {"198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"})
      expect_the_same(std::to_string(tags) + " tags to " + vip,
                      tagged(frame4(vip, 80, 1234), tags));
}

TEST_F(standin, options_and_extension_headers) {
  expect_the_same(
      "options", ethernet(0x0800) + ipv4({"192.0.2.7", "198.51.100.2", 6, fill(8, 1)}, tcp(1, 80)));
  expect_the_same("extension", ethernet(0x86dd) + ipv6({"2001:db8:1::7", "2001:db8::2", 60},
                                                       extension(6) + tcp(1, 80)));
}

TEST_F(standin, spread_outer_sources) {
  tables_.header().source4 = {ip("192.0.2.0"), 28, 1, {}};
  tables_.header().source6 = {ip("2001:db8:e::"), 112, 1, {}};
  publish();
  for (unsigned source_port = 1000; source_port < 1040; ++source_port) {
    expect_the_same("4", frame4("198.51.100.2", 80, source_port));
    expect_the_same("6", frame4("198.51.100.3", 80, source_port));
  }
}

TEST_F(standin, source_hash) {
  for (std::uint32_t i = 0; i < tables_.header().service_count; ++i)
    tables_.service(i).kind = abi::scheduler::source_hash;
  publish();
  expect_the_same_by_source();
}

TEST_F(standin, persistence_goes_by_the_prefix) {
  for (const auto& [bits4, bits6] : {std::pair{32, 128}, {24, 56}, {29, 64}, {30, 120}, {0, 0}}) {
    for (std::uint32_t i = 0; i < tables_.header().service_count; ++i) {
      tables_.service(i).flags |= abi::service_has_options;
      abi::service_options& o = tables_.options(i);
      o = {};
      o.allow_list = o.deny_list = abi::no_list;
      o.persistence_timeout = 300;
      o.persistence_prefix4 = static_cast<std::uint8_t>(bits4);
      o.persistence_prefix6 = static_cast<std::uint8_t>(bits6);
    }
    publish();
    SCOPED_TRACE(bits4);
    expect_the_same_by_source();
  }
}

// Schedulers that count: what belongs to no connection goes by the hash.
TEST_F(standin, other_schedulers_by_the_hash) {
  for (const auto kind : {abi::scheduler::round_robin, abi::scheduler::weighted_random,
                          abi::scheduler::least_connections}) {
    for (std::uint32_t i = 0; i < tables_.header().service_count; ++i) {
      tables_.service(i).kind = kind;
      if (kind == abi::scheduler::least_connections) tables_.service(i).table_size = 0;
    }
    publish();
    for (unsigned source_port = 1000; source_port < 1020; ++source_port) {
      bytes frame = frame4("198.51.100.2", 80, source_port);
      frame[14 + 20 + 13] = 0x10;  // ACK: no new connection
      expect_the_same("4", frame);
    }
  }
}

TEST_F(standin, pinned_connections_stay) {
  const bytes frame = frame4("198.51.100.2", 80, 1000);
  const bytes by_hash = run(frame, SLUICE_STANDIN_FORWARDED).frame;
  abi::connection_view c{ip("192.0.2.7"), be16{1000}, be16{80}, {}, {}, {}, 0};
  c.vip = tables_.vip(ip("198.51.100.2"), ip_proto::tcp).id;
  c.state = abi::connection_state::established;
  const flow_sorter sorter{tables_.view()};
  unsigned pinned = 0;
  for (std::uint32_t row = 3; row < 6; ++row) {  // the service's three
    c.backend = abi::backend_ref::make(row, 3);
    sluice_flow flow;
    if (!sorter.pinned(c, flow)) {
      EXPECT_EQ(half(by_hash, 30), tables_.backend(row).address.v4_raw().raw());
      continue;
    }
    ++pinned;
    program_->put(SLUICE_PINNED_MAP, flow, c.backend.value);
    const bytes now = run(frame, SLUICE_STANDIN_PINNED).frame;
    EXPECT_EQ(half(now, 30), tables_.backend(row).address.v4_raw().raw());
    // Another connection is not concerned, nor this one once the backend is down.
    run(frame4("198.51.100.2", 80, 1001), SLUICE_STANDIN_FORWARDED);
    tables_.backend(row).flags = abi::backend_in_use | abi::backend_has_next_hop;
    const flow_sorter later{tables_.view()};
    EXPECT_FALSE(later.pinned(c, flow));
    publish();
    program_->put(SLUICE_PINNED_MAP, flow, c.backend.value);
    EXPECT_EQ(run(frame, SLUICE_STANDIN_FORWARDED).frame, by_hash);
    tables_.backend(row).flags = usable;
    publish();
  }
  EXPECT_EQ(pinned, 2u);
  c.backend = abi::backend_ref::make(200, 3);
  sluice_flow flow;
  EXPECT_FALSE(sorter.pinned(c, flow)) << "no such backend";
}

TEST_F(standin, what_it_does_not_forward) {
  const auto dropped = [this](const char* what, const bytes& frame, int counter) {
    SCOPED_TRACE(what);
    EXPECT_EQ(run(frame, counter).verdict, XDP_DROP);
  };
  dropped("nat", frame4("198.51.100.9", 80, 1), SLUICE_STANDIN_MODE);
  bytes frame = frame4("198.51.100.2", 80, 1);
  frame[22] = 1;
  dropped("TTL 1", frame, SLUICE_STANDIN_TTL);
  frame = frame6("2001:db8::2", 80, 1);
  frame[21] = 1;
  dropped("hop limit 1", frame, SLUICE_STANDIN_TTL);
  frame = frame4("198.51.100.2", 80, 1);
  frame[16] = 0x40;
  dropped("says more than is there", frame, SLUICE_STANDIN_FAILED);
  dropped("fragment", ethernet(0x0800) + ipv4({"192.0.2.7", "198.51.100.2", 6, {}, 0x10}, fill(9)),
          SLUICE_STANDIN_FRAGMENT);
  const auto sized = [](std::size_t bytes_of_ip) {
    return ethernet(0x0800) +
           ipv4({"192.0.2.7", "198.51.100.2", 6, {}, 0x4000}, tcp(1, 80) + fill(bytes_of_ip - 42));
  };
  expect_the_same("just fits", sized(1580));
  dropped("too big once encapsulated", sized(1581), SLUICE_STANDIN_TOO_BIG);
  for (std::uint32_t i = 0; i < tables_.header().backend_count; ++i)
    tables_.backend(i).flags = abi::backend_in_use;
  publish();
  dropped("no next hop", frame4("198.51.100.2", 80, 1), SLUICE_STANDIN_NO_BACKEND);
  for (std::uint32_t i = 0; i < tables_.header().service_count; ++i)
    tables_.service(i).member_count = 0;
  publish();
  dropped("no backend", frame4("198.51.100.2", 80, 1), SLUICE_STANDIN_NO_BACKEND);
}

TEST_F(standin, the_kernel_keeps_what_is_its_own) {
  EXPECT_EQ(run(frame4("198.51.100.2", 22, 1), SLUICE_STEER_PASSED).verdict, XDP_PASS);
  EXPECT_EQ(run(ethernet(0x0800) + ipv4({"192.0.2.7", "198.51.100.2", 1}, icmp(8)),
                SLUICE_STEER_NO_SOCKET)
                .verdict,
            XDP_PASS);
}

// Whether it stands in: socket and heartbeat.
TEST_F(standin, stands_in_only_while_nobody_is_there) {
  const bytes frame = frame4("198.51.100.2", 80, 1);
  const bytes nat = frame4("198.51.100.9", 80, 1);
  const int socket = ::socket(AF_XDP, SOCK_RAW, 0);
  const int size = 64;
  ASSERT_EQ(::setsockopt(socket, SOL_XDP, XDP_RX_RING, &size, sizeof(size)), 0);
  program_->put(SLUICE_XSKS_MAP, std::uint32_t{0}, socket);
  const auto beat = [this](std::uint64_t ns) {
    program_->put(SLUICE_HEARTBEAT_MAP, std::uint32_t{0}, ns);
  };
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const std::uint64_t ns = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
                           static_cast<std::uint64_t>(now.tv_nsec);
  EXPECT_EQ(run(frame, SLUICE_STEER_REDIRECTED).verdict, XDP_REDIRECT);  // never a heartbeat
  beat(ns + 1'000'000'000);
  EXPECT_EQ(run(frame, SLUICE_STEER_REDIRECTED).verdict, XDP_REDIRECT);
  beat(ns - 2 * SLUICE_HEARTBEAT_STALE_NS);
  EXPECT_EQ(run(frame, SLUICE_STANDIN_FORWARDED).verdict, XDP_TX);
  // What nobody else can forward may as well wait for a data plane that is late.
  EXPECT_EQ(run(nat, SLUICE_STEER_REDIRECTED).verdict, XDP_REDIRECT);
  beat(1);
  EXPECT_EQ(run(frame, SLUICE_STANDIN_FORWARDED).verdict, XDP_TX);
  ::close(socket);
  ::usleep(50000);
  beat(ns + 1'000'000'000);
  EXPECT_EQ(run(frame, SLUICE_STANDIN_FORWARDED).verdict, XDP_TX);
  EXPECT_EQ(run(nat, SLUICE_STANDIN_MODE).verdict, XDP_DROP);
}

}  // namespace
}  // namespace sluice::test
