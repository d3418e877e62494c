// SPDX-License-Identifier: Apache-2.0
#include "tests/packet/live_rows.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>

namespace sluice::test {

using enum abi::counter_id;

namespace {

// Nothing shorter than an Ethernet header can be sent; a frame of an Ethernet header and a
// cut tag the kernel ends before anybody sees it.
constexpr std::size_t shortest_wire_frame = 18;
constexpr std::size_t ethernet_header = 14;
constexpr std::size_t longest_wire_frame = live_mtu + ethernet_header;
// net_pcap gathers a frame of several buffers in one of this size (RTE_ETH_PCAP_SNAPLEN)
// before it writes it.
constexpr std::size_t longest_pcap_frame = 16128;
// What net_pcap finds room for in one of our buffers; a longer frame it puts into a chain.
constexpr std::size_t buffer = 2048;

// What the XDP program sees otherwise than the path, which is asked about everything: it looks
// for an address and ports that are a service's, and what it cannot read is the kernel's.
constexpr std::string_view left_by_xdp[] = {
    "IPv4 version 6 under type 0x0800",
    "IPv4 version 0",
    "IPv4 IHL 4",
    "IPv4 IHL 0",
    "IPv4 IHL beyond the frame",
    "IPv4 IHL beyond the total length",
    "IPv4 UDP header of 7 bytes",
    "IPv6 version 4 under type 0x86dd",
    "IPv6 destination is a VIP's mapped IPv4 address",
    "IPv6 fragment header cut",
    "IPv6 nine extension headers",
    "IPv6 extension header beyond the packet",
    "IPv6 extension header cut",
    "IPv6 extension header up to the end, then nothing",
    "IPv6 UDP length 0",
    "Ethernet and half an IPv4 header",
    "ICMP error: 7 bytes of ICMP",
    "fragment: first, and no payload at all",
    "fragment: first, TCP header cut",
    "fragment: IPv6, first, TCP header cut",
    "fragment: IPv6, first, extension header cut",
};
// It does not know what is answered, nor all about the tunnel that an error quotes. What came
// up to the data plane in vain is dropped there.
constexpr std::string_view taken_by_xdp[] = {
    "to the VIP in a broadcast frame",
    "ping to a VIP",
    "ping to a VIP with TTL 1",
    "tunnel error: host unreachable is the kernel's",
    "tunnel error: wrong checksum",
    "tunnel error: only the outer header and 8 bytes quoted",
    "tunnel error: not to the backend of that flow",
    "tunnel error: inner packet is for no service",
    "tunnel error: inner packet without DF: the client would not care",
    "tunnel error: gre with a key",
    "tunnel error: inner version is not what the outer header says",
    "echo: code 1",
    "echo: with IP options it is the kernel's",
    "echo: a VIP that does not answer",
    "echo: a fragmented ping",
    "echo: ICMPv6 behind hop-by-hop",
    "fragment: UDP to an address with TCP services only",
    "fragment: ICMP, a later one",
    "fragment: ICMPv6, a later one",
};

bool among(std::span<const std::string_view> names, const std::string& what) {
  return std::ranges::find(names, what) != names.end();
}

bool fits(const row& r, live_port kind) {
  if (r.headroom != 128) return false;
  const std::size_t longest = std::max(r.in.size(), r.out.size());
  if (kind == live_port::af_xdp)
    return r.in.size() >= shortest_wire_frame && longest <= longest_wire_frame &&
           r.first_segment >= r.in.size();
  if (r.first_segment < r.in.size() && r.first_segment != buffer) return false;
  return r.out.size() <= longest_pcap_frame;
}

abi::counter_id counter_of(const row& r) {
  switch (r.outcome) {
    case verdict::forward:
      return forwarded;
    case verdict::reply:
      if (r.reason != count_) return r.reason;
      return r.what.starts_with("echo: ") ? icmp_echo_answered : icmp_errors_translated;
    case verdict::drop:
    case verdict::kernel:
    case verdict::held:
    case verdict::hand_over:
      break;
  }
  return r.reason;
}

}  // namespace

std::vector<live_row> live_rows(const std::vector<row>& rows, live_port kind) {
  std::vector<live_row> chosen;
  for (const row& r : rows) {
    if (!fits(r, kind)) continue;
    live_row l{&r, live_end::counted, counter_of(r)};
    if (r.outcome == verdict::forward || r.outcome == verdict::reply) {
      l.end = live_end::sent;
      l.out_port = r.outcome == verdict::forward ? out_port_of(r.service) : r.in_port;
      l.out = r.out;
    } else if (kind == live_port::af_xdp &&
               (r.outcome == verdict::kernel ? !among(taken_by_xdp, r.what)
                                             : among(left_by_xdp, r.what))) {
      l = {&r, live_end::kernel, count_, 0, r.in};
    }
    chosen.push_back(std::move(l));
  }
  const auto known = [&rows](std::string_view what) {
    return std::ranges::any_of(rows, [what](const row& r) { return r.what == what; });
  };
  for (const auto& names : {std::span<const std::string_view>{left_by_xdp},
                            std::span<const std::string_view>{taken_by_xdp}})
    for (const std::string_view name : names)
      if (!known(name)) throw std::logic_error{"there is no row " + std::string{name}};
  return chosen;
}

bool ends(abi::counter_id id) {
  return abi::counter_infos[static_cast<std::size_t>(id)].drop || id == forwarded ||
         id == to_kernel || id == icmp_echo_answered || id == icmp_errors_translated ||
         id == nat_replies;
}

}  // namespace sluice::test
