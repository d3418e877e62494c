// SPDX-License-Identifier: Apache-2.0
// Probes through the data path: what the program makes of a probe's packet is what the data
// plane makes of a client's, and replies find back. Runs in the kernel (BPF_PROG_TEST_RUN).
#include <gtest/gtest.h>
#include <linux/pkt_cls.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/probe_abi.h"
#include "tests/packet/table_builder.hpp"
#include "tests/unit/bpf/data_plane.hpp"
#include "tests/unit/bpf/program.hpp"

namespace sluice::test {
namespace {

constexpr std::uint32_t mark = SLUICE_PROBE_FIRST_MARK + 7;
constexpr std::uint32_t pass_on = static_cast<std::uint32_t>(TC_ACT_UNSPEC);
constexpr std::uint16_t gue_port = 6080;
constexpr mac_address backend_mac{2, 0, 0, 1, 0, 1};
constexpr std::array<std::uint8_t, 6> near_mac{2, 0, 0, 9, 9, 9};
constexpr std::uint8_t usable =
    abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;
constexpr unsigned port = 80;
constexpr unsigned source_port = 43210;
constexpr std::uint8_t dscp = 13;
constexpr std::uint32_t timeout_ms = 700;

// One way to a backend, and the addresses of the socket that asks it.
struct way {
  const char* name;
  abi::forward_mode mode;
  const char* vip;
  const char* backend;
};
constexpr way ways[] = {
    {"dsr-l2 4", abi::forward_mode::dsr_l2, "198.51.100.1", "10.0.1.1"},
    {"dsr-l2 6", abi::forward_mode::dsr_l2, "2001:db8::1", "fd00:1::1"},
    {"ipip 4in4", abi::forward_mode::ipip, "198.51.100.1", "10.0.1.1"},
    {"ipip 4in6", abi::forward_mode::ipip, "198.51.100.1", "fd00:1::1"},
    {"ipip 6in6", abi::forward_mode::ipip, "2001:db8::1", "fd00:1::1"},
    {"ipip 6in4", abi::forward_mode::ipip, "2001:db8::1", "10.0.1.1"},
    {"gue 4in4", abi::forward_mode::gue, "198.51.100.1", "10.0.1.1"},
    {"gue 4in6", abi::forward_mode::gue, "198.51.100.1", "fd00:1::1"},
    {"gue 6in6", abi::forward_mode::gue, "2001:db8::1", "fd00:1::1"},
    {"gue 6in4", abi::forward_mode::gue, "2001:db8::1", "10.0.1.1"},
    {"gre 4in4", abi::forward_mode::gre, "198.51.100.1", "10.0.1.1"},
    {"gre 4in6", abi::forward_mode::gre, "198.51.100.1", "fd00:1::1"},
    {"gre 6in6", abi::forward_mode::gre, "2001:db8::1", "fd00:1::1"},
    {"gre 6in4", abi::forward_mode::gre, "2001:db8::1", "10.0.1.1"},
    {"dsr-dscp 4", abi::forward_mode::dsr_dscp, "198.51.100.1", "10.0.1.1"},
    {"dsr-dscp 6", abi::forward_mode::dsr_dscp, "2001:db8::1", "fd00:1::1"},
};

struct ends {
  std::string local, peer;  // of the socket
  std::string host;         // the host's own, where replies go
};
bool is_v6(const char* address) {
  return std::string_view{address}.find(':') != std::string_view::npos;
}
ends ends_of(const way& w) {
  if (is_v6(w.vip)) return {"fe80::1", "fe80::2", "2001:db8:e::77"};
  return {"169.254.3.2", "169.254.3.3", "192.0.2.77"};
}

void put(std::uint8_t (&to)[16], const std::string& text) {
  const ip_address a = *parse_ip(text);
  std::memcpy(to, a.bytes.data(), sizeof to);
}

enum class talk : std::uint8_t { tcp, udp, echo };
constexpr talk talks[] = {talk::tcp, talk::udp, talk::echo};

unsigned protocol_of(talk what, bool v6) {
  return what == talk::tcp ? 6 : what == talk::udp ? 17 : v6 ? 58 : 1;
}

// with_checksum() makes a header's checksum right between these addresses; ICMP has no addresses
// in it.
bytes with_checksum(bytes b, unsigned protocol, const std::string& from, const std::string& to) {
  const std::size_t at = protocol == 6 ? 16 : protocol == 17 ? 6 : 2;
  b[at] = b[at + 1] = 0;
  const bytes pseudo = protocol == 1 ? bytes{}
                                     : address(from) + address(to) +
                                           bytes{0, static_cast<std::uint8_t>(protocol)} +
                                           u16(static_cast<unsigned>(b.size()));
  const auto sum = internet_checksum(pseudo + b);
  b[at] = static_cast<std::uint8_t>(sum >> 8);
  b[at + 1] = static_cast<std::uint8_t>(sum);
  return b;
}

// segment() is a question, or the answer: of an echo, from_port and to_port are 0 where the VIP
// is, and the identifier at the other end.
bytes segment(talk what, const std::string& from, const std::string& to, unsigned from_port,
              unsigned to_port, bool answer = false) {
  const bool v6 = is_v6(from.c_str());
  bytes b;
  if (what == talk::tcp) b = tcp(from_port, to_port);
  if (what == talk::udp) b = udp(from_port, to_port);
  if (what == talk::echo)
    b = bytes{static_cast<std::uint8_t>(v6       ? 128 + answer
                                        : answer ? 0
                                                 : 8),
              0, 0, 0} +
        u16(answer ? to_port : from_port) + u16(3) + fill(8, 0x5a);
  return with_checksum(std::move(b), protocol_of(what, v6), from, to);
}

// ip_of() is an IP packet.
bytes ip_of(const std::string& from, const std::string& to, unsigned protocol, const bytes& inner,
            unsigned tos = 0) {
  return is_v6(from.c_str()) ? ipv6({from, to, protocol, tos}, inner)
                             : ipv4({from, to, protocol, {}, 0x4000, tos}, inner);
}
bytes frame_of(const bytes& packet) {
  return ethernet(packet[0] >> 4 == 6 ? 0x86dd : 0x0800) + packet;
}

bytes packet_of(const std::string& from, const std::string& to, unsigned from_port,
                unsigned to_port, unsigned tos = 0, talk what = talk::tcp) {
  return frame_of(ip_of(from, to, protocol_of(what, is_v6(from.c_str())),
                        segment(what, from, to, from_port, to_port), tos));
}

// answer_of() is what comes back for packet_of(to, from, source_port, port).
bytes answer_of(talk what, const std::string& from, const std::string& to) {
  return frame_of(ip_of(from, to, protocol_of(what, is_v6(from.c_str())),
                        segment(what, from, to, port, source_port, true)));
}

// error_of() is an ICMP error from somebody.
bytes error_of(const std::string& from, const std::string& to, unsigned type, unsigned code,
               const bytes& quoted) {
  const unsigned protocol = is_v6(from.c_str()) ? 58 : 1;
  const bytes head{static_cast<std::uint8_t>(type), static_cast<std::uint8_t>(code), 0, 0};
  return frame_of(
      ip_of(from, to, protocol, with_checksum(head + fill(4) + quoted, protocol, from, to)));
}

// without_entropy() blanks what follows from the flow: the port of gue and the flow label.
bytes without_entropy(bytes frame, abi::forward_mode mode) {
  const bool outer6 = frame[12] == 0x86;
  if (outer6 && mode != abi::forward_mode::dsr_l2) frame[15] &= 0xf0, frame[16] = frame[17] = 0;
  const std::size_t at = outer6 ? 54 : 34;
  if (mode == abi::forward_mode::gue) {
    EXPECT_GE(frame[at], 0xc0);
    frame[at] = frame[at + 1] = 0;
  }
  return frame;
}

class probe_programs : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "loading BPF programs needs root";
    program_.emplace("probe", SLUICE_PROBE_TX_PROGRAM);
    sluice_probe_config config{};
    config.ifindex = 1;
    std::copy(near_mac.begin(), near_mac.end(), config.mac);
    std::memcpy(config.local4, address("169.254.3.2").data(), 4);
    std::memcpy(config.peer4, address("169.254.3.3").data(), 4);
    put(config.local6, "fe80::1");
    put(config.peer6, "fe80::2");
    program_->put(SLUICE_PROBE_CONFIG_MAP, std::uint32_t{0}, config);
  }

  void tell(const way& w, const char* via = nullptr) {
    sluice_probe_target t{};
    put(t.vip, w.vip);
    put(t.source, ends_of(w).host);
    put(t.backend, w.backend);
    put(t.outer_source, is_v6(w.backend) ? "2001:db8:e::10" : "192.0.2.10");
    if (via != nullptr) {
      put(t.via, via);
    } else {
      std::copy(backend_mac.begin(), backend_mac.end(), t.next_hop);
      std::copy(data_plane_mac.begin(), data_plane_mac.end(), t.out_mac);
    }
    t.out_ifindex = 1;
    t.mode = static_cast<std::uint8_t>(w.mode);
    t.dscp = w.mode == abi::forward_mode::dsr_dscp ? dscp : std::uint8_t{0};
    t.gue_port = be16{gue_port}.raw();
    t.timeout_ms = timeout_ms;
    program_->put(SLUICE_PROBE_TARGETS_MAP, mark, t);
  }

  run_result run(const char* name, const bytes& frame, std::uint32_t with_mark, int counter) {
    program_->select(name);
    const auto before = program_->counters(SLUICE_PROBE_STATS_MAP, SLUICE_PROBE_COUNTERS);
    run_result result = program_->run(frame, with_mark);
    EXPECT_EQ(counted(before, program_->counters(SLUICE_PROBE_STATS_MAP, SLUICE_PROBE_COUNTERS)),
              counter);
    return result;
  }
  run_result send(const way& w, unsigned tos = 0, talk what = talk::tcp) {
    const ends e = ends_of(w);
    return run(SLUICE_PROBE_TX_PROGRAM, packet_of(e.local, e.peer, source_port, port, tos, what),
               mark, SLUICE_PROBE_SENT);
  }
  // until() is up to when replies are taken.
  std::uint64_t until(const way& w, talk what) {
    std::uint64_t found = 1;
    const sluice_probe_flow flow = flow_of(w, what);
    EXPECT_EQ(bpf_map_lookup_elem(program_->map(SLUICE_PROBE_FLOWS_MAP), &flow, &found), 0);
    return found;
  }
  void set_until(const way& w, talk what, std::uint64_t value) {
    const sluice_probe_flow flow = flow_of(w, what);
    EXPECT_EQ(bpf_map_update_elem(program_->map(SLUICE_PROBE_FLOWS_MAP), &flow, &value, BPF_EXIST),
              0);
  }
  static sluice_probe_flow flow_of(const way& w, talk what) {
    sluice_probe_flow flow{};
    flow.source_port = htons(what == talk::echo ? 0 : port);
    flow.destination_port = htons(source_port);
    flow.protocol = static_cast<std::uint8_t>(protocol_of(what, is_v6(w.vip)));
    put(flow.source, w.vip);
    put(flow.destination, ends_of(w).host);
    return flow;
  }

  std::optional<program> program_;
};

// as_traffic() is what the data plane sends for the same packet of a client.
bytes as_traffic(const way& w, unsigned tos, talk what = talk::tcp) {
  table_builder tables;
  tables.header().source4 = {*parse_ip("192.0.2.10"), 32, 1, {}};
  tables.header().source6 = {*parse_ip("2001:db8:e::10"), 128, 1, {}};
  tables.add_service(*parse_ip(w.vip), what == talk::udp ? ip_proto::udp : ip_proto::tcp, port,
                     port, w.mode,
                     {{*parse_ip(w.backend), backend_mac, data_plane_port, 1600, usable, dscp}});
  return by_data_plane(tables.view(),
                       packet_of(ends_of(w).host, w.vip, source_port, port, tos, what))
      .value();
}

TEST_F(probe_programs, send_what_the_data_plane_sends) {
  for (const way& w : ways)
    for (const unsigned tos : {0u, 0x2bu})
      for (const talk what : {talk::tcp, talk::udp}) {
        SCOPED_TRACE(std::string{w.name} + ", tos " + std::to_string(tos) +
                     (what == talk::udp ? ", udp" : ", tcp"));
        tell(w);
        const run_result got = send(w, tos, what);
        EXPECT_EQ(got.verdict, TC_ACT_REDIRECT);
        EXPECT_EQ(without_entropy(got.frame, w.mode),
                  without_entropy(as_traffic(w, tos, what), w.mode));
      }
}

TEST_F(probe_programs, echo_requests_go_the_same_way) {
  for (const way& w : ways) {
    if (w.mode == abi::forward_mode::dsr_dscp) continue;  // not known to the backend as the VIP's
    SCOPED_TRACE(w.name);
    tell(w);
    const run_result got = send(w, 0, talk::echo);
    EXPECT_EQ(got.verdict, TC_ACT_REDIRECT);
    // What is in front of the inner packet is of the same sort as with TCP.
    const bytes like = as_traffic(w, 0);
    const bytes inner_like = packet_of(ends_of(w).host, w.vip, source_port, port);
    const std::size_t front = like.size() - (inner_like.size() - 14);
    bytes inner = ip_of(ends_of(w).host, w.vip, protocol_of(talk::echo, is_v6(w.vip)),
                        segment(talk::echo, ends_of(w).host, w.vip, source_port, port));
    if (w.mode != abi::forward_mode::dsr_l2) {
      const bool v6 = is_v6(w.vip);
      --inner[v6 ? 7 : 8];
      if (!v6) {
        inner[10] = inner[11] = 0;
        const auto sum = internet_checksum(bytes(inner.begin(), inner.begin() + 20));
        inner[10] = static_cast<std::uint8_t>(sum >> 8);
        inner[11] = static_cast<std::uint8_t>(sum);
      }
    }
    ASSERT_EQ(got.frame.size(), front + inner.size());
    EXPECT_EQ(bytes(got.frame.begin() + static_cast<std::ptrdiff_t>(front), got.frame.end()),
              inner);
  }
}

TEST_F(probe_programs, the_kernel_finds_the_next_hop) {
  for (const way& w : ways)
    for (const char* via : {"10.0.9.1", "fe80::9"}) {
      SCOPED_TRACE(std::string{w.name} + " via " + via);
      tell(w, via);
      const run_result got = send(w);
      EXPECT_EQ(got.verdict, TC_ACT_REDIRECT);
      const bytes wanted = without_entropy(as_traffic(w, 0), w.mode);
      const bytes sent = without_entropy(got.frame, w.mode);
      EXPECT_EQ(bytes(sent.begin() + 12, sent.end()), bytes(wanted.begin() + 12, wanted.end()));
    }
}

TEST_F(probe_programs, replies_find_back) {
  for (const way& w : ways)
    for (const talk what : talks) {
      SCOPED_TRACE(std::string{w.name} + ", " + std::to_string(static_cast<int>(what)));
      tell(w);
      send(w, 0, what);
      const ends e = ends_of(w);
      const run_result got =
          run(SLUICE_PROBE_RX_PROGRAM, answer_of(what, w.vip, e.host), 0, SLUICE_PROBE_REPLY);
      EXPECT_EQ(got.verdict, TC_ACT_REDIRECT);
      bytes wanted = answer_of(what, e.peer, e.local);
      std::copy(near_mac.begin(), near_mac.end(), wanted.begin());
      EXPECT_EQ(got.frame, wanted);
    }
}

TEST_F(probe_programs, a_datagram_without_a_checksum_stays_so) {
  const way& w = ways[2];
  tell(w);
  send(w, 0, talk::udp);
  const ends e = ends_of(w);
  const run_result got =
      run(SLUICE_PROBE_RX_PROGRAM, frame_of(ip_of(w.vip, e.host, 17, udp(port, source_port))), 0,
          SLUICE_PROBE_REPLY);
  bytes wanted = frame_of(ip_of(e.peer, e.local, 17, udp(port, source_port)));
  std::copy(near_mac.begin(), near_mac.end(), wanted.begin());
  EXPECT_EQ(got.frame, wanted);
}

TEST_F(probe_programs, icmp_errors_find_back) {
  for (const way& w : {ways[0], ways[2], ways[4]})
    for (const talk what : talks) {
      SCOPED_TRACE(std::string{w.name} + ", " + std::to_string(static_cast<int>(what)));
      tell(w);
      send(w, 0, what);
      const ends e = ends_of(w);
      const bool v6 = is_v6(w.vip);
      const unsigned type = v6 ? 1 : 3;
      const unsigned protocol = protocol_of(what, v6);
      const bytes sent = segment(what, e.host, w.vip, source_port, port);
      const bytes quoted = ip_of(e.host, w.vip, protocol, sent);
      for (const std::string& from : {std::string{w.vip}, std::string{v6 ? "fd00::9" : "10.0.0.9"}})
        for (const unsigned code : {v6 ? 4u : 3u, 1u}) {
          const run_result got =
              run(SLUICE_PROBE_RX_PROGRAM, error_of(from, e.host, type, code, quoted), 0,
                  SLUICE_PROBE_REPLY);
          EXPECT_EQ(got.verdict, TC_ACT_REDIRECT);
          bytes wanted =
              error_of(e.peer, e.local, type, code, ip_of(e.local, e.peer, protocol, sent));
          std::copy(near_mac.begin(), near_mac.end(), wanted.begin());
          EXPECT_EQ(got.frame, wanted);
        }
      const auto left = [&](const char* which, const bytes& frame) {
        SCOPED_TRACE(which);
        const run_result got = run(SLUICE_PROBE_RX_PROGRAM, frame, 0, -1);
        EXPECT_EQ(got.verdict, pass_on);
        EXPECT_EQ(got.frame, frame);
      };
      const bytes error = error_of(w.vip, e.host, type, 3, quoted);
      if (!v6) left("too big", error_of(w.vip, e.host, 3, 4, quoted));
      left("time exceeded", error_of(w.vip, e.host, v6 ? 3 : 11, 0, quoted));
      left("of another's packet",
           error_of(w.vip, e.host, type, 3,
                    ip_of(e.host, w.vip, protocol,
                          segment(what, e.host, w.vip, source_port + 1, port))));
      left("of the answer", error_of(w.vip, e.host, type, 3,
                                     ip_of(w.vip, e.host, protocol,
                                           segment(what, w.vip, e.host, port, source_port, true))));
      left("cut", cut(error, (v6 ? 14 + 40 + 8 + 40 : 14 + 20 + 8 + 20) + 3));
    }
}

TEST_F(probe_programs, answers_to_what_has_no_end_are_taken_for_a_time) {
  for (const way& w : {ways[2], ways[4]})
    for (const talk what : {talk::udp, talk::echo}) {
      SCOPED_TRACE(w.name);
      tell(w);
      const bytes reply = answer_of(what, w.vip, ends_of(w).host);
      const auto now = [] {
        timespec t{};
        ::clock_gettime(CLOCK_MONOTONIC, &t);
        return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
               static_cast<std::uint64_t>(t.tv_nsec);
      };
      const std::uint64_t before = now();
      send(w, 0, what);
      const std::uint64_t end = until(w, what);
      EXPECT_GE(end, before + 5'700'000'000);
      EXPECT_LE(end, now() + 5'700'000'000);
      set_until(w, what, 1);  // long ago
      EXPECT_EQ(run(SLUICE_PROBE_RX_PROGRAM, reply, 0, -1).verdict, pass_on);
      send(w, 0, what);
      run(SLUICE_PROBE_RX_PROGRAM, reply, 0, SLUICE_PROBE_REPLY);
    }
}

TEST_F(probe_programs, the_port_of_a_probe_that_has_ended_is_free_again) {
  for (const way& w : {ways[2], ways[4]}) {
    SCOPED_TRACE(w.name);
    tell(w);
    send(w);
    const ends e = ends_of(w);
    const bytes reply = packet_of(w.vip, e.host, port, source_port);
    const auto taken = [&](int counter) {
      return run(SLUICE_PROBE_RX_PROGRAM, reply, 0, counter).verdict == TC_ACT_REDIRECT;
    };
    bytes reset = packet_of(e.local, e.peer, source_port, port);
    reset[(is_v6(w.vip) ? 54 : 34) + 13] = 0x04;
    run(SLUICE_PROBE_TX_PROGRAM, reset, mark, SLUICE_PROBE_SENT);
    EXPECT_TRUE(taken(SLUICE_PROBE_REPLY));  // on its way when the reset was sent

    EXPECT_NE(until(w, talk::tcp), 0u);
    set_until(w, talk::tcp, 1);  // long ago
    EXPECT_FALSE(taken(-1));
    send(w);
    EXPECT_EQ(until(w, talk::tcp), 0u);
    EXPECT_TRUE(taken(SLUICE_PROBE_REPLY));
  }
}

TEST_F(probe_programs, ipv4_options_in_a_reply) {
  const way& w = ways[2];
  tell(w);
  send(w);
  const ends e = ends_of(w);
  const auto with_options = [](const std::string& from, const std::string& to) {
    return ethernet(0x0800) +
           ipv4({from, to, 6, fill(8, 1), 0x4000}, segment(talk::tcp, from, to, port, source_port));
  };
  const run_result got =
      run(SLUICE_PROBE_RX_PROGRAM, with_options(w.vip, e.host), 0, SLUICE_PROBE_REPLY);
  bytes wanted = with_options(e.peer, e.local);
  std::copy(near_mac.begin(), near_mac.end(), wanted.begin());
  EXPECT_EQ(got.frame, wanted);
}

TEST_F(probe_programs, nothing_else_is_taken) {
  for (const way& w : {ways[2], ways[4]}) {
    SCOPED_TRACE(w.name);
    tell(w);
    send(w);
    const ends e = ends_of(w);
    const bytes reply = packet_of(w.vip, e.host, port, source_port);
    const bool v6 = is_v6(w.vip);
    const std::string other = v6 ? "2001:db8::99" : "198.51.100.99";
    bytes fragment = reply;  // IPv4: a first fragment; IPv6: in its own header
    fragment[v6 ? 20 : 20] = v6 ? 44 : 0x20;
    bytes datagram = reply;
    datagram[v6 ? 20 : 23] = 17;
    const std::pair<const char*, bytes> frames[] = {
        {"from another port", packet_of(w.vip, e.host, port + 1, source_port)},
        {"to another port", packet_of(w.vip, e.host, port, source_port + 1)},
        {"from the backend", packet_of(v6 ? "fd00:1::1" : "10.0.1.1", e.host, port, source_port)},
        {"from elsewhere", packet_of(other, e.host, port, source_port)},
        {"to elsewhere", packet_of(w.vip, other, port, source_port)},
        {"of a client", packet_of(e.host, w.vip, source_port, port)},
        {"fragment", fragment},
        {"datagram", datagram},
        {"answer to a datagram", answer_of(talk::udp, w.vip, e.host)},
        {"echo reply", answer_of(talk::echo, w.vip, e.host)},
        {"echo request", packet_of(w.vip, e.host, source_port, 0, 0, talk::echo)},
        {"cut in the TCP header", cut(reply, (v6 ? 54 : 34) + 3)},
        {"ARP", ethernet(0x0806) + fill(28)},
    };
    for (const auto& [name, frame] : frames) {
      SCOPED_TRACE(name);
      const run_result got = run(SLUICE_PROBE_RX_PROGRAM, frame, 0, -1);
      EXPECT_EQ(got.verdict, pass_on);
      EXPECT_EQ(got.frame, frame);
    }
  }
}

TEST_F(probe_programs, what_is_no_probe_goes_nowhere) {
  const way& w = ways[2];
  const ends e = ends_of(w);
  const bytes frame = packet_of(e.local, e.peer, source_port, port);
  const auto dropped = [&](const char* what, const bytes& f, std::uint32_t with, int counter) {
    SCOPED_TRACE(what);
    EXPECT_EQ(run(SLUICE_PROBE_TX_PROGRAM, f, with, counter).verdict, TC_ACT_SHOT);
  };
  dropped("unknown", frame, mark, SLUICE_PROBE_NO_PATH);
  tell(w);
  dropped("another mark", frame, mark + 1, SLUICE_PROBE_NO_PATH);
  dropped("no mark", frame, 0, SLUICE_PROBE_NO_PATH);
  dropped("ARP", ethernet(0x0806) + fill(46), mark, SLUICE_PROBE_FAILED);
  dropped("SCTP", ethernet(0x0800) + ipv4({e.local, e.peer, 132}, udp(1, 2)), mark,
          SLUICE_PROBE_FAILED);
  dropped("echo reply", answer_of(talk::echo, e.local, e.peer), mark, SLUICE_PROBE_FAILED);
  dropped("ICMPv6 in IPv4", frame_of(ip_of(e.local, e.peer, 58, icmp(128))), mark,
          SLUICE_PROBE_FAILED);
  dropped("cut", cut(frame, 14 + 20 + 10), mark, SLUICE_PROBE_FAILED);
  dropped("of the other family", packet_of("fe80::1", "fe80::2", 1, 2), mark, SLUICE_PROBE_FAILED);
}

}  // namespace
}  // namespace sluice::test
