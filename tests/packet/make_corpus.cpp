// SPDX-License-Identifier: Apache-2.0
// Writes the seeds of tests/fuzz/corpus/path, from the rows, and what takes several packets:
// make_corpus DIRECTORY. Run by hand when there is something new, and minimised by libFuzzer
// (docs/testing.md).
#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/fuzz/choice_config.hpp"
#include "tests/fuzz/path_input.hpp"
#include "tests/packet/fragment_builder.hpp"
#include "tests/packet/icmp_builder.hpp"
#include "tests/packet/rows.hpp"

namespace {

using namespace sluice;
using namespace sluice::test;

// turned() is a frame with its ends exchanged (no options, no tags).
bytes turned(bytes frame) {
  const bool v4 = frame[12] == 8;
  const std::size_t n = v4 ? 4 : 16;
  const auto at = frame.begin() + (v4 ? 26 : 22);
  std::swap_ranges(at, at + static_cast<std::ptrdiff_t>(n), at + static_cast<std::ptrdiff_t>(n));
  std::swap_ranges(frame.begin() + (v4 ? 34 : 54), frame.begin() + (v4 ? 36 : 56),
                   frame.begin() + (v4 ? 36 : 56));
  return frame;
}

// error_about() is what a router on the way says that has no room for a frame (no options, no
// tags).
bytes error_about(const bytes& frame) {
  const bool v4 = frame[12] == 8;
  const bytes ip(frame.begin() + 14, frame.end());
  if (v4) {
    const quad to{ip[12], ip[13], ip[14], ip[15]};
    return ethernet(0x0800, ip4({.source = {10, 0, 9, 9}, .destination = to, .protocol = 1},
                                icmp4(3, 4, 1300, ip)));
  }
  hexadec from{0x20, 1, 0xd, 0xb8, 9};
  hexadec to{};
  std::copy_n(ip.begin() + 8, 16, to.begin());
  return ethernet(0x86dd, ip6({.source = from, .destination = to, .next = 58},
                              icmp6(from, to, 2, 0, 1300, ip)));
}

// fragments() is datagrams in pieces: in order, backwards, backwards with each piece alone,
// and with so much time between them that they have been given up.
bytes fragments(unsigned type, const std::function<std::vector<bytes>(unsigned id)>& cut) {
  bytes seed;
  unsigned id = 1;
  for (const unsigned flags : {0u, unsigned{fuzz_new_burst}, unsigned{fuzz_time_passes}})
    for (const bool backwards : {false, true}) {
      std::vector<bytes> pieces = cut(id++);
      if (backwards) std::ranges::reverse(pieces);
      for (const bytes& piece : pieces)
        append_record(seed, static_cast<std::uint8_t>(flags), ethernet(type, piece));
    }
  return seed;
}

// conversation: a client's TCP connection to a service that translates. The backend's packets
// answer what the path has made of the client's.
class conversation {
 public:
  conversation(table_builder& tables, bool v4, unsigned last, unsigned port)
      : b_{tables.view(), 256}, v4_{v4}, port_{port} {
    vip4_[3] = static_cast<std::uint8_t>(last);
    vip6_[15] = static_cast<std::uint8_t>(last);
  }
  void client(unsigned flags, std::uint32_t sequence, std::uint32_t acknowledged,
              const bytes& options = {}, const bytes& data = {}) {
    add(v4_ ? ip4({.destination = vip4_},
                  segment(40000, port_, flags, sequence, acknowledged, options, data))
            : ip6({.destination = vip6_},
                  segment(40000, port_, flags, sequence, acknowledged, options, data)));
  }
  void backend(unsigned flags, std::uint32_t sequence, std::uint32_t acknowledged,
               const bytes& options = {}, const bytes& data = {}) {
    const std::size_t l4 = v4_ ? 34 : 54;
    const auto word = [this](std::size_t at) {
      return static_cast<unsigned>(to_backend_.at(at)) << 8 | to_backend_.at(at + 1);
    };
    const bytes reply =
        segment(word(l4 + 2), word(l4), flags, sequence, acknowledged, options, data);
    const auto at = to_backend_.begin() + (v4_ ? 26 : 22);
    if (v4_) {
      ip4_fields f;
      std::copy_n(at, 4, f.destination.begin());
      std::copy_n(at + 4, 4, f.source.begin());
      add(ip4(f, reply), false);
    } else {
      ip6_fields f;
      std::copy_n(at, 16, f.destination.begin());
      std::copy_n(at + 16, 16, f.source.begin());
      add(ip6(f, reply), false);
    }
  }
  [[nodiscard]] const bytes& seed() const { return seed_; }

 private:
  static bytes segment(unsigned from, unsigned to, unsigned flags, std::uint32_t sequence,
                       std::uint32_t acknowledged, const bytes& options, const bytes& data) {
    return tcp({.source = from,
                .destination = to,
                .flags = flags,
                .data_offset = static_cast<unsigned>(5 + options.size() / 4),
                .options = options,
                .sequence = sequence,
                .acknowledgement = acknowledged},
               data);
  }
  void add(const bytes& packet, bool from_client = true) {
    const bytes frame = ethernet(v4_ ? 0x0800 : 0x86dd, summed(packet));
    append_record(seed_, fuzz_new_burst, frame);
    const result r = b_.run(frame);
    if (r.outcome != verdict::forward) throw std::logic_error{"a conversation has ended early"};
    if (from_client) to_backend_ = r.frame;
  }

  bench b_;
  bool v4_;
  unsigned port_;
  quad vip4_{198, 51, 100, 0};
  hexadec vip6_{vip6};
  bytes seed_, to_backend_;
};

bytes talk(table_builder& tables, bool v4, unsigned last, unsigned port, unsigned added) {
  const bytes mss{2, 4, 0x05, 0xb4};
  const bytes sack{1, 1, 5, 10, 0, 0, 0, 120, 0, 0, 0, 130};
  conversation c{tables, v4, last, port};
  c.client(0x02, 100, 0, mss);
  c.backend(0x12, 900, 101, mss);
  c.client(0x10, 101, 901);
  c.client(0x18, 101, 901, {}, bytes(20, 7));
  c.client(0x18, 101, 901, {}, bytes(20, 7));  // once more: nothing has been acknowledged
  c.backend(0x10, 901, 101 + added, sack);
  c.backend(0x18, 901, 121 + added, {}, bytes(33, 8));
  c.client(0x18, 121, 934, sack, bytes(5, 9));
  c.client(0x11, 126, 934);
  c.backend(0x11, 934, 127 + added);
  c.client(0x10, 127, 935);
  c.client(0x02, 5000, 0, mss);
  c.client(0x04, 5001, 0);
  return c.seed();
}

std::vector<std::pair<std::string, bytes>> of_several_packets() {
  std::vector<std::pair<std::string, bytes>> seeds;
  const auto datagram4 = [](std::uint8_t last) {
    return fragments(0x0800, [last](unsigned id) {
      return cut4({.destination = {198, 51, 100, last}, .protocol = 17, .id = id},
                  udp({50000 + id}, bytes(90, 3)), 32);
    });
  };
  for (const std::uint8_t last : std::initializer_list<std::uint8_t>{10, 14, 15})
    seeds.emplace_back("fragments4", datagram4(last));
  for (const std::uint8_t last : std::initializer_list<std::uint8_t>{0x11, 0x15})
    seeds.emplace_back("fragments6", fragments(0x86dd, [last](unsigned id) {
                         ip6_fields f;
                         f.destination[15] = last;
                         std::vector<bytes> pieces =
                             cut6(f, 17, udp({50000 + id}, bytes(90, 3)), 32);
                         for (bytes& piece : pieces) piece[47] = static_cast<std::uint8_t>(id);
                         return pieces;
                       }));
  seeds.emplace_back("fragments-tcp4", fragments(0x0800, [](unsigned id) {
                       return cut4({.id = id}, tcp({50000 + id}, bytes(60, 3)), 32);
                     }));
  table_builder tables;
  fill_config(tables);
  add_choices(tables);
  seeds.emplace_back("nat4", talk(tables, true, 16, 80, 0));
  seeds.emplace_back("nat6", talk(tables, false, 0x16, 80, 0));
  seeds.emplace_back("full-nat4", talk(tables, true, 16, 81, 0));
  seeds.emplace_back("toa4", talk(tables, true, 16, 82, 0));
  seeds.emplace_back("proxy4", talk(tables, true, 16, 83, 28));
  seeds.emplace_back("proxy6", talk(tables, false, 0x16, 83, 52));
  return seeds;
}

void save(const std::string& path, const bytes& seed) {
  std::ofstream out{path, std::ios::binary};
  out.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
  if (!out.flush()) throw std::runtime_error{path + ": cannot write"};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: make_corpus DIRECTORY\n";
    return 2;
  }
  std::vector<row> rows;
  unsigned file = 0;
  for (const row& r : all_rows()) {
    if (r.in.size() <= 400) {
      rows.push_back(r);
    } else if (r.in.size() <= 1600) {
      bytes seed;
      append_record(seed, 0, r.in);
      save(std::string{argv[1]} + "/long" + std::to_string(file++), seed);
    }
  }
  // A few rows per file, as the fuzzer joins inputs by itself.
  for (std::size_t i = 0; i < rows.size(); i += 6) {
    bytes seed;
    for (std::size_t k = i; k < std::min(rows.size(), i + 6); ++k)
      append_record(seed, static_cast<std::uint8_t>(k % 3 == 2 ? fuzz_new_burst : 0), rows[k].in);
    // Again, so that the packets find their connections.
    append_record(seed, fuzz_new_burst | fuzz_fix_checksum, rows[i].in);
    // What the backend of a nat service answers.
    for (std::size_t k = i; k < std::min(rows.size(), i + 6); ++k)
      if (rows[k].outcome == verdict::forward &&
          (rows[k].service == nat_tcp4 || rows[k].service == nat_tcp6)) {
        append_record(seed, fuzz_new_burst, turned(rows[k].out));
        // And what routers on either side of us say.
        append_record(seed, 0, error_about(rows[k].out));
        append_record(seed, 0, error_about(turned(rows[k].in)));
      }
    save(std::string{argv[1]} + "/rows" + std::to_string(file++), seed);
  }
  for (const auto& [name, seed] : of_several_packets())
    save(std::string{argv[1]} + "/" + name + "-" + std::to_string(file++), seed);
  return 0;
}
