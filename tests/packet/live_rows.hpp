// SPDX-License-Identifier: Apache-2.0
// The rows that also go through a running data plane, over AF_XDP ports and over pcap ports,
// and what must become of each there.
#pragma once

#include <optional>
#include <vector>

#include "tests/packet/rows.hpp"

namespace sluice::test {

enum class live_port : std::uint8_t { af_xdp, pcap };

// What an AF_XDP port of the test takes: its MTU, and the Ethernet header with two tags.
inline constexpr unsigned live_mtu = 2600;

enum class live_end : std::uint8_t { sent, counted, kernel };

// live_row: one packet and its end. sent: `out` arrives behind `out_port` and `counter` counts
// it; counted: `counter` alone does; kernel: the XDP program lets it go, as it came.
struct live_row {
  const row* of;
  live_end end;
  abi::counter_id counter{abi::counter_id::count_};
  std::uint8_t out_port{0};
  bytes out{};
};

// live_rows() chooses from `rows`, which must outlive the result. Not chosen is what depends on
// a buffer that no driver makes (headroom, first segment), and what is too short or too long
// for the kind of port.
[[nodiscard]] std::vector<live_row> live_rows(const std::vector<row>& rows, live_port kind);

// ends() tells whether a packet that counts there has come to its end.
[[nodiscard]] bool ends(abi::counter_id id);

}  // namespace sluice::test
