// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/estate.hpp"

#include <algorithm>

namespace sluice::reference {
namespace {

using abi::forward_mode;
using abi::scheduler;

constexpr std::size_t backend_rows = 240;

address numbered6(std::uint8_t group, unsigned n) {
  return address6({0x20, 1, 0xd, 0xb8, 0, group, 0, 0, 0, 0, 0, 0, 0, 0,
                   static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)});
}
address backend_address(bool v6, unsigned n) {
  return v6 ? numbered6(1, n)
            : address4(10, 0, static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n));
}

// refill() makes a service's table anew: any member may be in any slot.
void refill(service& s, dice& d) {
  constexpr std::array<std::size_t, 5> sizes{1, 7, 64, 251, 1021};
  s.table.resize(d.one_of(sizes));
  for (std::uint16_t& slot : s.table)
    slot = static_cast<std::uint16_t>(s.members.empty() ? 0 : d.below(s.members.size()));
  const bool least =
      s.kind == scheduler::least_connections || s.kind == scheduler::weighted_least_connections;
  if (least && d.chance(500)) s.table.clear();  // these can do without
}

void give_way(backend& b, dice& d) {
  b.next_hop = {2, 0, 0, d.byte(), d.byte(), d.byte()};
  b.out_port = d.chance(10) ? 7 : d.below(2);
  b.has_next_hop = !d.chance(15);
  constexpr std::array<unsigned, 8> mtus{1500, 1500, 1500, 1500, 9000, 600, 100, 0};
  b.mtu = d.one_of(mtus);
}

void be_backend_of(backend& b, unsigned number, unsigned service, const description& e, dice& d) {
  const reference::service& s = e.services[service];
  const bool vip6 = e.vips[s.vip].at.size == 16;
  // A service's backends may be of both families, but where the packet itself goes to them.
  const bool readdresses = s.mode == forward_mode::dsr_dscp || s.mode == forward_mode::nat ||
                           s.mode == forward_mode::full_nat;
  const bool v6 = readdresses ? vip6 != d.chance(50) : d.chance(400);
  b.in_use = b.keeps_connections = true;
  b.service = service;
  b.at = backend_address(v6, number);
  b.dscp = d.below(64);
  b.port = d.chance(500) ? 0 : 8080;
  b.weight = 1u << d.below(3);
  give_way(b, d);
}

void choose_kind(service& s, const description& e, dice& d) {
  constexpr std::array<scheduler, 14> kinds{scheduler::maglev,
                                            scheduler::maglev,
                                            scheduler::maglev,
                                            scheduler::maglev,
                                            scheduler::maglev,
                                            scheduler::ring_hash,
                                            scheduler::partitioned_hash,
                                            scheduler::source_hash,
                                            scheduler::round_robin,
                                            scheduler::weighted_round_robin,
                                            scheduler::random,
                                            scheduler::weighted_random,
                                            scheduler::least_connections,
                                            scheduler::weighted_least_connections};
  s.kind = kinds[d.below(e.counts_connections ? 14 : 12)];
}

void members_are(service& s, unsigned number, const description& e, dice& d) {
  s.members.clear();
  for (unsigned i = 0; i < e.backends.size(); ++i)
    if (const backend& b = e.backends[i];
        b.in_use && b.service == number && b.keeps_connections && !d.chance(80))
      s.members.push_back(i);  // the others are drained
  // Tables that are wrong: a backend that is not the service's.
  if (d.chance(40)) s.members.push_back(d.below(e.backends.size()));
  refill(s, d);
}

void choose_sources(description& e, dice& d) {
  constexpr std::array<unsigned, 5> prefixes4{32, 32, 32, 24, 31};
  constexpr std::array<unsigned, 8> prefixes6{128, 128, 128, 128, 64, 120, 127, 100};
  e.source4 = {!d.chance(60), address4(192, 0, 2, 16), d.one_of(prefixes4)};
  e.source6 = {!d.chance(60), numbered6(0, 16), d.one_of(prefixes6)};
  e.gue_port = d.chance(500) ? 0 : d.between(1, 65535);
}

}  // namespace

description first_estate(dice& d, bool counts_connections) {
  description e;
  e.counts_connections = counts_connections;
  e.hash_seed = d.word();
  e.timeouts = {0, 10, 30, 60, 30, 120, 300, 900};
  choose_sources(e, d);
  e.pool = {address4(192, 0, 2, 200), address4(192, 0, 2, 201), numbered6(0x99, 1)};
  unsigned id = 0;
  const auto add_vip = [&](const address& at, unsigned protocol) {
    e.vips.push_back({true, id++, at, protocol});
    return e.vips.size() - 1;
  };
  const auto add = [&](std::size_t vip, unsigned first, unsigned last, forward_mode mode) {
    service s;
    s.in_use = true;
    s.vip = vip;
    s.first = first;
    s.last = last;
    s.mode = mode;
    e.services.push_back(s);
  };
  using enum forward_mode;
  for (const bool v6 : {false, true}) {
    const auto at = [v6](std::uint8_t n) {
      return v6 ? numbered6(0xf, n) : address4(198, 51, 100, n);
    };
    const std::size_t web = add_vip(at(10), 6);
    add(web, 443, 443, ipip);
    add(web, 80, 80, gue);
    add(web, 8000, 8100, gre);
    add(web, 9000, 9001, dsr_dscp);
    add(web, 0, 65535, dsr_l2);
    const std::size_t dns = add_vip(at(10), 17);
    add(dns, 53, 53, ipip);
    add(dns, 443, 443, gue);
    const std::size_t direct = add_vip(at(11), 6);
    add(direct, 80, 80, dsr_l2);
    add(direct, 443, 443, dsr_dscp);
    add(direct, 8080, 8080, ipip);
    const std::size_t datagrams = add_vip(at(12), 17);
    add(datagrams, 0, 65535, dsr_dscp);
    add(datagrams, 5000, 5999, gre);
    add(datagrams, 7000, 7000, dsr_l2);
    add(add_vip(at(13), 6), 443, 443, ipip);
    const std::size_t inside = add_vip(at(14), 6);
    add(inside, 80, 80, nat);
    add(inside, 81, 81, full_nat);
    add(inside, 8000, 8003, nat);
    const std::size_t inside_datagrams = add_vip(at(14), 17);
    add(inside_datagrams, 53, 53, nat);
    add(inside_datagrams, 54, 60, full_nat);
  }
  e.backends.resize(backend_rows);
  for (unsigned i = 0; i < e.backends.size(); ++i) {
    e.backends[i].incarnation = d.below(16);
    if (i < backend_rows - 10) be_backend_of(e.backends[i], i, d.below(e.services.size()), e, d);
  }
  for (unsigned i = 0; i < e.services.size(); ++i) {
    service& s = e.services[i];
    choose_kind(s, e, d);
    if (d.chance(400)) s.mss_clamp = d.between(500, 1460);
    s.answers_echo = d.chance(500);
    members_are(s, i, e, d);
  }
  return e;
}

void keep_steady(description& e, dice& d) {
  for (service& s : e.services) {
    if (s.mode == forward_mode::nat || s.mode == forward_mode::full_nat) s.in_use = false;
    if (s.kind > scheduler::source_hash) s.kind = scheduler::maglev;
    if (s.table.empty()) refill(s, d);
  }
  for (backend& b : e.backends) b.in_use = b.in_use && e.services[b.service].in_use;
  for (vip& v : e.vips)
    v.in_use = std::any_of(e.services.begin(), e.services.end(),
                           [&](const service& s) { return s.in_use && &e.vips[s.vip] == &v; });
}

void change(description& e, dice& d) {
  if (e.empty || d.chance(40)) {
    e.empty = !e.empty;
    return;
  }
  if (d.chance(300)) choose_sources(e, d);
  if (d.chance(50)) e.hash_seed = d.word();
  if (d.chance(100)) {
    for (std::size_t s = 1; s < e.timeouts.size(); ++s)
      e.timeouts[s] = static_cast<std::uint16_t>(d.between(1, 1000));
  }
  for (unsigned i = 0; i < e.backends.size(); ++i) {
    backend& b = e.backends[i];
    if (!d.chance(20)) continue;
    const unsigned what = d.below(6);
    if (!b.in_use) {
      // Another backend, maybe of another service, gets the row: the next incarnation.
      b.incarnation = (b.incarnation + 1) % 16;
      be_backend_of(b, i, d.below(e.services.size()), e, d);
      if (!e.services[b.service].in_use) b.in_use = false;
    } else if (what == 0) {
      b.in_use = b.keeps_connections = false;
    } else if (what == 1) {
      b.keeps_connections = false;  // down
    } else if (what <= 3) {
      b.keeps_connections = true;
    } else {
      give_way(b, d);
    }
  }
  for (service& s : e.services) {
    if (d.chance(s.in_use ? 10 : 300)) s.in_use = !s.in_use;
    if (d.chance(50)) s.mss_clamp = d.chance(500) ? 0 : d.between(500, 1460);
    if (d.chance(20)) choose_kind(s, e, d);
    if (d.chance(50)) s.answers_echo = !s.answers_echo;
  }
  // A service that is gone has no backends; a VIP without services is none.
  for (backend& b : e.backends)
    if (b.in_use && !e.services[b.service].in_use) b.in_use = b.keeps_connections = false;
  unsigned last_id = 0;
  for (const vip& v : e.vips) last_id = std::max(last_id, v.id);
  for (std::size_t v = 0; v < e.vips.size(); ++v) {
    const bool used = std::any_of(e.services.begin(), e.services.end(),
                                  [v](const service& s) { return s.in_use && s.vip == v; });
    if (used && !e.vips[v].in_use) e.vips[v].id = ++last_id;  // its connections are not to be found
    e.vips[v].in_use = used;
  }
  for (unsigned i = 0; i < e.services.size(); ++i) members_are(e.services[i], i, e, d);
}

}  // namespace sluice::reference
