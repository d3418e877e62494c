// SPDX-License-Identifier: Apache-2.0
// `sluice replay`: the real packet path over a capture, without a NIC, a daemon, huge
// pages or root. Every backend counts as healthy.
//
// The packets come in on the node's first port, one worker takes them all, and every port
// leaves to the kernel what is not for a service. Next hops are those of node.yaml
// (dataplane.next-hop of the first port that has one), else 02:00:00:00:00:fe on the first
// port; frames are sent from 02:00:00:00:01:NN, NN the port's number. Time is the
// capture's; the tables' secret is fixed: the same input gives the same output.
//
// A packet that the capture holds only in part (snaplen) is taken as the truncated frame
// that it is in the file.
#pragma once

#include <iosfwd>
#include <string>

namespace sluice {

struct replay_options {
  std::string node_file;
  std::string services_file;
  std::string in_file;   // pcap or pcapng, Ethernet
  std::string out_file;  // pcap: what would be sent, in order, with the input's timestamps
};

// run_replay() writes one line per packet to `out`, in order, and errors to `err`. Returns
// the exit code: 0, or 1 when a file is refused, unreadable or cannot be written.
//
//   1: forwarded to 10.0.1.11 (service web, via ipip on up0, next hop 02:00:00:00:00:fe)
//   2: left to the kernel (not for a service's address)
//   3: dropped: ttl_expired (TTL or hop limit would reach zero)
int run_replay(const replay_options& options, std::ostream& out, std::ostream& err);

}  // namespace sluice
