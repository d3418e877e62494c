// SPDX-License-Identifier: Apache-2.0
// SYNs whose MSS is lowered, and those whose is not.
#include "tests/packet/rows.hpp"

namespace sluice::test {
namespace {

bytes with_option(unsigned mss, unsigned leading_nops, const bytes& behind = {}) {
  bytes b(leading_nops, 1);
  b.insert(b.end(), {2, 4});
  put16(b, mss);
  append(b, behind);
  while (b.size() % 4 != 0) put8(b, 0);
  return b;
}

// with_tcp_checksum() sets the right checksum of a TCP segment for its pseudo-header.
bytes with_tcp_checksum(bytes segment, const bytes& addresses) {
  segment[16] = segment[17] = 0;
  bytes all = addresses;
  put16(all, 6);
  put16(all, static_cast<unsigned>(segment.size()));
  append(all, segment);
  const unsigned sum = checksum_of(all, 0, all.size());
  segment[16] = static_cast<std::uint8_t>(sum >> 8);
  segment[17] = static_cast<std::uint8_t>(sum);
  return segment;
}

}  // namespace

std::vector<row> mss_rows() {
  std::vector<row> rows;
  const auto segment = [](const bytes& options, unsigned flags, unsigned port,
                          const bytes& addresses) {
    return with_tcp_checksum(tcp({.source = port,
                                  .destination = 80,
                                  .flags = flags,
                                  .data_offset = static_cast<unsigned>(5 + options.size() / 4),
                                  .options = options}),
                             addresses);
  };
  unsigned port = 45000;
  const auto add = [&](std::string what, const bytes& in, const bytes& out, unsigned flags = 2) {
    ip4_fields f{.destination = {198, 51, 100, 20}};
    bytes addresses(f.source.begin(), f.source.end());
    addresses.insert(addresses.end(), f.destination.begin(), f.destination.end());
    const bytes before = ip4(f, segment(in, flags, ++port, addresses));
    --f.ttl;
    const bytes after = ip4(f, segment(out, flags, port, addresses));
    rows.push_back(sent("MSS: " + std::move(what), ethernet(0x0800, before), echo4,
                        framed(echo4, 0x0800, in4(after, 4))));
  };
  add("1460 becomes 1400", with_option(1460, 0), with_option(1400, 0));
  add("1401 becomes 1400", with_option(1401, 0), with_option(1400, 0));
  add("65535 becomes 1400", with_option(65535, 0), with_option(1400, 0));
  add("1400 stays", with_option(1400, 0), with_option(1400, 0));
  add("536 is not raised", with_option(536, 0), with_option(536, 0));
  add("at an odd offset", with_option(1460, 1), with_option(1400, 1));
  add("at an odd offset, 8960", with_option(8960, 3), with_option(1400, 3));
  add("behind SACK permitted and timestamps",
      bytes{4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0} + with_option(9000, 0, {1, 3, 3, 7}),
      bytes{4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0} + with_option(1400, 0, {1, 3, 3, 7}));
  add("no options", {}, {});
  add("behind the end of the list", bytes{0, 0, 0, 0} + with_option(1460, 0),
      bytes{0, 0, 0, 0} + with_option(1460, 0));
  add("an option of length 0 ends it", bytes{8, 0, 0, 0} + with_option(1460, 0),
      bytes{8, 0, 0, 0} + with_option(1460, 0));
  add("an option beyond the header", {8, 10, 2, 4}, {8, 10, 2, 4});
  add("an MSS option of another length", {2, 3, 0xff, 1}, {2, 3, 0xff, 1});
  add("not in an ACK", with_option(1460, 0), with_option(1460, 0), 0x10);

  const auto add6 = [&](std::string what, const bytes& in, const bytes& out) {
    ip6_fields f;
    f.destination[15] = 0x20;
    // The pseudo-header of RFC 8200 adds up to the same: its length has 32 bits.
    bytes addresses(f.source.begin(), f.source.end());
    addresses.insert(addresses.end(), f.destination.begin(), f.destination.end());
    const bytes before = ip6(f, segment(in, 2, ++port, addresses));
    const std::uint32_t label = label6(f, port, 80);
    --f.hop_limit;
    const bytes after = ip6(f, segment(out, 2, port, addresses));
    rows.push_back(sent("MSS: " + std::move(what), ethernet(0x86dd, before), echo6,
                        framed(echo6, 0x86dd, in6(after, 41, label))));
  };
  add6("IPv6, 1440 becomes 1380", with_option(1440, 0), with_option(1380, 0));
  add6("IPv6, 1220 stays", with_option(1220, 0), with_option(1220, 0));
  add6("IPv6, at an odd offset", with_option(1440, 1), with_option(1380, 1));
  return rows;
}

}  // namespace sluice::test
