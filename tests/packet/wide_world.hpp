// SPDX-License-Identifier: Apache-2.0
// Two paths that differ in nothing but the instructions that they may use, and get the same bursts:
// whatever one says, counts or writes, the other must. Every frame lies in a heap block that ends
// where the frame's contiguous part ends and begins where its headroom does, so that a sanitizer
// sees every byte too far.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/packet/bench.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {

// seen: what there is to see of a packet that was decided on.
struct seen {
  verdict outcome;
  abi::counter_id reason;
  kernel_reason why;
  std::uint8_t out_port;
  std::uint8_t place;  // of one that is held
  abi::service_id service;
  std::uint32_t backend;
  std::uint32_t length, total_length;
  std::uint16_t headroom;
  std::ptrdiff_t at;  // where the frame begins in `buffer`
  bytes buffer;       // headroom and contiguous part
  bool operator==(const seen&) const = default;
};

inline std::string text_of(const seen& s) {
  const auto number = [](auto e) { return std::to_string(static_cast<unsigned>(e)); };
  return "outcome " + number(s.outcome) + " reason " + number(s.reason) + " why " + number(s.why) +
         " port " + number(s.out_port) + " place " + number(s.place) + " service " +
         number(s.service) + " backend " + number(s.backend) + " length " + number(s.length) +
         " of " + number(s.total_length) + " headroom " + number(s.headroom) + " at " +
         std::to_string(s.at) + "\n" + hex(s.buffer) + "\n";
}

// side is one of the two.
class side {
 public:
  static constexpr std::uint32_t rows = 2048;  // of services and of backends
  static constexpr std::array<std::uint64_t, 2> secret{0x0123456789abcdef, 0xfedcba9876543210};

  side(connection::instruction_set instructions, std::uint64_t connections)
      : file_{make_file(connections)},
        table_{file_.data()},
        path_{table_, counters(), bench_ports} {
    namespace c = connection;
    const abi::connection_header& h = file_.header();
    table_.v4 = c::flow_map<c::ipv4>{file_.data() + h.offset4, h.buckets4, secret, instructions};
    table_.v6 = c::flow_map<c::ipv6>{file_.data() + h.offset6, h.buckets6, secret, instructions};
    path_.use_nat(&nat_);
  }

  void set_view(const abi::config_view& view) { path_.set_view(view); }

  std::vector<seen> run(const std::vector<input>& in, std::uint64_t now_ns) {
    std::vector<block> blocks;
    std::vector<packet> burst;
    for (const input& f : in) {
      block b{};
      const std::size_t contiguous = std::min(f.first_segment, f.frame.size());
      b.front = f.headroom + f.headroom % 2u;  // frames start at even addresses
      b.size = b.front + contiguous;
      b.memory = std::make_unique<std::byte[]>(b.size);
      std::memset(b.memory.get(), 0xa5, b.size);
      packet p{};
      p.data = b.memory.get() + b.front;
      if (contiguous != 0) std::memcpy(p.data, f.frame.data(), contiguous);
      p.length = static_cast<std::uint32_t>(contiguous);
      p.total_length = static_cast<std::uint32_t>(f.frame.size());
      p.headroom = f.headroom;
      p.in_port = f.in_port;
      burst.push_back(p);
      blocks.push_back(std::move(b));
    }
    path_.process(burst, now_ns);
    std::vector<seen> all;
    for (std::size_t i = 0; i < burst.size(); ++i) {
      all.push_back(look(burst[i], blocks[i]));
      if (burst[i].outcome == verdict::held) held_[burst[i].place] = std::move(blocks[i]);
    }
    take_released(all);
    return all;
  }
  std::vector<seen> maintain(std::uint64_t now_ns) {
    path_.maintain(now_ns);
    std::vector<seen> all;
    take_released(all);
    return all;
  }

  // counts() is all that is counted.
  [[nodiscard]] std::vector<std::uint64_t> counts() const {
    std::vector<std::uint64_t> all;
    for (const abi::counter& c : worker_) all.push_back(c.read());
    for (const abi::service_counters& s : services_)
      all.insert(all.end(), {s.packets.read(), s.bytes.read(), s.opened.read(), s.dropped.read()});
    for (const abi::backend_counters& b : backends_)
      all.insert(all.end(), {b.packets.read(), b.bytes.read(), b.opened.read(), b.closed.read()});
    for (const abi::counter& c : resets_) all.push_back(c.read());
    return all;
  }
  [[nodiscard]] std::uint64_t count(abi::counter_id id) const {
    return worker_[static_cast<std::size_t>(id)].read();
  }
  // connections() is the whole table, as it is in memory.
  [[nodiscard]] bytes connections() const {
    const auto* const at = reinterpret_cast<const std::uint8_t*>(file_.data());
    return {at + file_.header().offset4, at + file_.size()};
  }

 private:
  struct block {
    std::unique_ptr<std::byte[]> memory;
    std::size_t front, size;
  };
  path_counters counters() {
    return {worker_.data(), services_.data(), rows, backends_.data(), rows, {}, 0, resets_.data()};
  }
  static connection::table_file make_file(std::uint64_t connections) {
    connection::table_file_options options;
    options.connections4 = connections;
    options.connections6 = connections;
    auto file = connection::table_file::anonymous(options, secret);
    if (!file) throw std::runtime_error{file.error()};
    reinterpret_cast<abi::connection_header*>(file->data())->clock_base_ns = 0;
    return std::move(*file);
  }
  static seen look(const packet& p, const block& b) {
    const auto* const begin = reinterpret_cast<const std::uint8_t*>(b.memory.get());
    return {p.outcome,
            p.reason,
            p.why,
            p.out_port,
            p.outcome == verdict::held ? p.place : std::uint8_t{0},
            p.service,
            p.backend.value,
            p.length,
            p.total_length,
            p.headroom,
            p.data - b.memory.get(),
            bytes(begin, begin + b.size)};
  }
  void take_released(std::vector<seen>& to) {
    for (const packet& p : path_.released()) {
      const auto at = held_.find(p.place);
      if (at == held_.end()) throw std::logic_error{"released what was not held"};
      to.push_back(look(p, at->second));
      held_.erase(at);
    }
  }

  connection::table_file file_;
  connection::connection_table table_;
  std::array<abi::counter, abi::counter_capacity> worker_{};
  std::vector<abi::service_counters> services_ = std::vector<abi::service_counters>(rows);
  std::vector<abi::backend_counters> backends_ = std::vector<abi::backend_counters>(rows);
  std::vector<abi::counter> resets_ = std::vector<abi::counter>(rows);
  nat_table nat_{{.sessions = 65536, .secret = {3, 4}}};
  packet_path path_;
  std::map<std::uint16_t, block> held_;
};

// wide_estate: hundreds of VIPs of both families, each with TCP 443 and UDP 53. A VIP's number
// says how its services forward.
class wide_estate {
 public:
  enum way : unsigned { ipip, ipip_small, ipip_other_family, dsr, nat, way_count };
  static constexpr way way_of(std::size_t vip) { return static_cast<way>(vip % way_count); }
  static constexpr unsigned vips4 = 300;
  static constexpr unsigned vips6 = 160;
  static constexpr unsigned sharing = 5;  // the first of each family: one place of the vip_cache
  static constexpr std::uint16_t small_mtu = 100;

  // backwards: the same VIPs with other numbers.
  explicit wide_estate(bool backwards) {
    make_vips();
    t_.header().source4 = {ip_address::v4({192, 0, 2, 10}), 32, 1, {}};
    t_.header().source6 = {ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 0, 7}), 128, 1, {}};
    t_.header().hash_seed = backwards ? 4711 : 42;
    t_.header().icmp_rate = 1'000'000'000;
    const std::size_t n = std::max(four_.size(), six_.size());
    for (std::size_t j = 0; j < n; ++j) {
      const std::size_t i = backwards ? n - 1 - j : j;
      if (i < four_.size()) add(ip_address::v4(four_[i]), i, false);
      if (i < six_.size()) add(ip_address::v6(six_[i]), i, true);
    }
    if (!abi::config_view::open(t_.bytes(), limits, 0, view_)) throw std::logic_error{"generation"};
  }
  [[nodiscard]] const abi::config_view& view() const { return view_; }
  [[nodiscard]] const std::vector<quad>& four() const { return four_; }
  [[nodiscard]] const std::vector<hexadec>& six() const { return six_; }

 private:
  static constexpr abi::config_limits limits{1024, 2048, 1 << 20};

  static std::uint32_t word_of(const quad& a) {
    std::uint32_t w = 0;
    std::memcpy(&w, a.data(), 4);
    return w;
  }
  void make_vips() {
    constexpr std::uint8_t tcp = 6;
    const std::uint32_t place = vip_cache::place_of4(word_of({198, 51, 100, 0}), tcp);
    for (unsigned n = 0; four_.size() < sharing; ++n) {
      const quad a{198, 51, static_cast<std::uint8_t>(100 + (n >> 8)),
                   static_cast<std::uint8_t>(n)};
      if (vip_cache::place_of4(word_of(a), tcp) == place) four_.push_back(a);
    }
    for (unsigned n = 0; four_.size() < vips4; ++n)
      four_.push_back({203, 0, static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)});
    const auto six = [](std::uint8_t net, unsigned n) {
      hexadec a{0x20, 1, 0xd, 0xb8, 0, net};
      a[13] = static_cast<std::uint8_t>(n >> 16);
      a[14] = static_cast<std::uint8_t>(n >> 8);
      a[15] = static_cast<std::uint8_t>(n);
      return a;
    };
    const auto place6 = [](const hexadec& a) {
      const ip_address v = ip_address::v6(a);
      return vip_cache::place_of6(v.high(), v.low(), tcp);
    };
    for (unsigned n = 0; six_.size() < sharing; ++n)
      if (place6(six(0xf, n)) == place6(six(0xf, 0))) six_.push_back(six(0xf, n));
    for (unsigned n = 0; six_.size() < vips6; ++n) six_.push_back(six(0xe, n));
  }
  void add(const ip_address& vip, std::size_t number, bool v6) {
    using abi::forward_mode;
    const way how = way_of(number);
    const forward_mode mode = how == dsr   ? forward_mode::dsr_l2
                              : how == nat ? forward_mode::nat
                                           : forward_mode::ipip;
    const bool inside6 = how == ipip_other_family ? !v6 : v6;
    const std::uint8_t flags =
        abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;
    for (const bool tcp : {true, false}) {
      std::vector<table_builder::backend_spec> some;
      for (unsigned b = 0; b < 2; ++b) {
        const auto high = static_cast<std::uint8_t>(backends_ >> 8);
        const auto low = static_cast<std::uint8_t>(backends_);
        some.push_back({inside6 ? ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 1, high, low, 1})
                                : ip_address::v4({10, 0, high, low}),
                        {2, 0, 0, 0xb, high, low},
                        static_cast<std::uint8_t>(backends_ % 2),
                        how == ipip_small ? small_mtu : std::uint16_t{1500},
                        flags,
                        0,
                        how == nat && tcp ? std::uint16_t{8080} : std::uint16_t{0}});
        ++backends_;
      }
      const std::uint16_t port = tcp ? 443 : 53;
      t_.add_service(vip, tcp ? ip_proto::tcp : ip_proto::udp, port, port, mode, some);
    }
  }

  table_builder t_{limits};
  abi::config_view view_;
  std::vector<quad> four_;
  std::vector<hexadec> six_;
  unsigned backends_{0};
};

}  // namespace sluice::test
