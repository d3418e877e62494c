// SPDX-License-Identifier: Apache-2.0
#include "tools/replay/replay.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "controlplane/config/config.hpp"
#include "controlplane/publish/memory_config.hpp"
#include "dataplane/abi/node_file.hpp"
#include "dataplane/abi/worker_state.hpp"
#include "dataplane/connection/table_file.hpp"
#include "dataplane/path/packet_path.hpp"
#include "tools/replay/capture.hpp"

namespace sluice {
namespace {

constexpr std::size_t headroom = 128;  // as in an mbuf
constexpr std::array<std::uint64_t, 2> fixed_secret{0x736c756963652072, 0x65706c6179206b65};

// A capture holds no more connections than packets, and a packet takes at least its
// record header and an Ethernet, IP and UDP header: a larger table would only cost time.
std::uint64_t most_connections(const std::string& capture) {
  constexpr std::uint64_t smallest_packet = 16 + 14 + 20 + 8;
  struct stat st {};
  const std::uint64_t bytes =
      ::stat(capture.c_str(), &st) == 0 ? static_cast<std::uint64_t>(st.st_size) : 0;
  return std::max<std::uint64_t>(bytes / smallest_packet, 1024);
}

std::string_view words_for(kernel_reason why) {
  switch (why) {
    case kernel_reason::not_ip:
      return "not IP";
    case kernel_reason::not_for_a_vip:
      return "not for a service's address";
    case kernel_reason::group_frame:
      return "sent to an Ethernet broadcast or multicast address";
    case kernel_reason::icmp:
      return "ICMP to a service's address";
    case kernel_reason::other_protocol:
      return "to a service's address, but neither TCP nor UDP";
    case kernel_reason::no_service_port:
      return "to a service's address, but no service on that port";
    case kernel_reason::none:
    case kernel_reason::count_:
      break;
  }
  return "?";
}

std::string words_for(abi::counter_id id) {
  const auto& reason = abi::counter_infos[static_cast<std::size_t>(id)];
  return std::string{reason.name} + " (" + std::string{reason.text} + ")";
}

std::string_view words_for(abi::forward_mode mode) {
  using enum abi::forward_mode;
  switch (mode) {
    case dsr_l2:
      return "dsr-l2";
    case ipip:
      return "ipip";
    case gue:
      return "gue";
    case gre:
      return "gre";
    case dsr_dscp:
      return "dsr-dscp";
    case nat:
      return "nat";
    case full_nat:
      return "full-nat";
    case none:
    case count_:
      break;
  }
  return "?";
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat sa {};
  struct stat sb {};
  return ::stat(a.c_str(), &sa) == 0 && ::stat(b.c_str(), &sb) == 0 && sa.st_dev == sb.st_dev &&
         sa.st_ino == sb.st_ino;
}

// One worker's world: ports, tables, counters, path.
class replayer {
 public:
  replayer(const node_config& node, const abi::config_view& view, connection::table_file file)
      : file_{std::move(file)},
        table_{start_clock(file_)},
        services_(view.header().service_count),
        backends_(abi::observation_layout::backend_rows_for(view.header().backend_count)) {
    for (const port_config& p : node.dataplane.ports) names_.push_back(p.name);
    if (names_.empty()) names_.emplace_back("port0");
    for (std::size_t i = 0; i < names_.size(); ++i)
      ports_.push_back({{2, 0, 0, 0, 1, static_cast<std::uint8_t>(i)}, true});
    path_.emplace(table_,
                  path_counters{counters_.data(), services_.data(),
                                static_cast<std::uint32_t>(services_.size()), backends_.data(),
                                static_cast<std::uint32_t>(backends_.size())},
                  ports_);
    if (nat_.ready()) path_->use_nat(&nat_);
    path_->set_view(view);
  }

  // take() decides on a packet of the capture, prints the verdict and writes what is sent. One
  // packet at a time: the next one may be the answer to this one. A fragment that waits for
  // its first one holds the lines behind it back.
  void take(const captured& c, std::ostream& out, capture_writer& file) {
    pass_time(clock_at(c.time_ns), file);
    buffer_.resize(headroom + c.bytes.size());
    if (!c.bytes.empty()) std::memcpy(buffer_.data() + headroom, c.bytes.data(), c.bytes.size());
    packet p{};
    p.data = buffer_.data() + headroom;
    p.length = p.total_length = static_cast<std::uint32_t>(c.bytes.size());
    p.headroom = headroom;
    path_->process({&p, 1}, now_ns_);
    const std::uint64_t number = printed_ + lines_.size() + 1;
    if (p.outcome == verdict::held) {
      lines_.emplace_back();
      held_[p.place] = {number, c.time_ns, std::exchange(buffer_, {})};
    } else {
      lines_.push_back(line_of(number, p));
      send(p, c.time_ns, file);
    }
    take_released(file);
    print(out);
  }
  // finish() gives up on what still waits.
  void finish(std::ostream& out, capture_writer& file) {
    path_->maintain(now_ns_ + waiting_room::patience_ns);
    take_released(file);
    print(out);
  }

 private:
  // The path's clock starts here, whatever the capture's date.
  static constexpr std::uint64_t start_ns = 1'000'000'000;
  static std::byte* start_clock(const connection::table_file& file) {
    reinterpret_cast<abi::connection_header*>(file.data())->clock_base_ns = 0;
    return file.data();
  }
  [[nodiscard]] std::uint64_t clock_at(std::uint64_t time_ns) {
    if (!first_ns_) first_ns_ = time_ns;
    return start_ns + (time_ns > *first_ns_ ? time_ns - *first_ns_ : 0);
  }
  // pass_time() does what a worker does every millisecond or so. A capture's clock may go back;
  // the path's does not.
  void pass_time(std::uint64_t time_ns, capture_writer& file) {
    const std::uint64_t now = std::max(now_ns_, time_ns);
    const std::uint64_t passed = now - maintained_ns_;
    now_ns_ = now;
    if (passed < 1'000'000) return;
    // A worker sweeps its whole table every few seconds; here that time passes at once.
    const std::uint64_t turns = passed < 1'000'000'000
                                    ? 1
                                    : std::max(table_.v4.bucket_count(), table_.v6.bucket_count()) /
                                              connection::sweeper::max_step +
                                          1;
    for (std::uint64_t t = 0; t < turns; ++t) {
      path_->maintain(now);
      take_released(file);
    }
    maintained_ns_ = now;
  }

  static void send(const packet& p, std::uint64_t time_ns, capture_writer& file) {
    if (p.outcome == verdict::forward || p.outcome == verdict::reply)
      file.write(time_ns, {p.data, p.length});
  }
  // take_released() finishes what has waited: its line, and the packet. It is sent now, but
  // keeps the time at which it came.
  void take_released(capture_writer& file) {
    for (const packet& p : path_->released()) {
      waiting& w = held_[p.place];
      lines_[w.number - printed_ - 1] = line_of(w.number, p);
      send(p, w.time_ns, file);
      w.buffer.clear();
    }
  }
  // print() writes the lines up to the first packet that still waits.
  void print(std::ostream& out) {
    for (; !lines_.empty() && !lines_.front().empty(); lines_.pop_front()) {
      out << lines_.front() << '\n';
      ++printed_;
    }
  }
  [[nodiscard]] std::string line_of(std::uint64_t number, const packet& p) const {
    std::ostringstream out;
    out << number << ": ";
    switch (p.outcome) {
      case verdict::forward:
        print_forwarded(out, p);
        break;
      case verdict::kernel:
        out << "left to the kernel (" << words_for(p.why) << ")";
        break;
      case verdict::reply:
        out << "answered with ICMP on " << names_[p.out_port];
        if (p.reason != abi::counter_id::count_) out << "; dropped: " << words_for(p.reason);
        break;
      case verdict::drop:
      case verdict::held:
      case verdict::hand_over:  // there is one path, which owns all
        out << "dropped: " << words_for(p.reason);
        break;
    }
    return out.str();
  }
  void print_forwarded(std::ostream& out, const packet& p) const {
    const abi::config_view& view = path_->view();
    const abi::backend_row& row = *view.backend(p.backend);
    std::string_view name{"?"};
    if (const abi::service_cold* cold = view.cold(p.service); cold != nullptr) {
      const std::string_view all{cold->name.data(), cold->name.size()};
      name = all.substr(0, all.find('\0'));
    }
    // A reply of a nat or full-nat backend goes to its client.
    if (row.mode >= abi::forward_mode::nat) {
      const wire::parsed m = wire::parse_any(p.data, p.length, p.total_length);
      const ip_address to = wire::destination_of(p, m);
      if (to != row.address) {
        mac_address next_hop;
        std::memcpy(next_hop.data(), p.data, next_hop.size());
        out << "forwarded to " << format_ip(to) << " (service " << name << ", a reply of "
            << format_ip(row.address) << " on " << names_[p.out_port] << ", next hop "
            << format_mac(next_hop) << ")";
        return;
      }
    }
    out << "forwarded to " << format_ip(row.address) << " (service " << name << ", via "
        << words_for(row.mode) << " on " << names_[p.out_port] << ", next hop "
        << format_mac(row.next_hop) << ")";
  }

  std::vector<std::string> names_;
  std::vector<path_port> ports_;
  connection::table_file file_;
  connection::connection_table table_;
  std::array<abi::counter, abi::counter_capacity> counters_{};
  std::vector<abi::service_counters> services_;
  std::vector<abi::backend_counters> backends_;
  // Places cost memory only once they are used.
  nat_table nat_{{.sessions = 1u << 20, .secret = fixed_secret}};
  std::optional<packet_path> path_;

  std::vector<std::byte> buffer_;
  std::optional<std::uint64_t> first_ns_;
  std::uint64_t now_ns_{start_ns};
  std::uint64_t maintained_ns_{start_ns};
  struct waiting {
    std::uint64_t number;
    std::uint64_t time_ns;
    std::vector<std::byte> buffer;
  };
  std::array<waiting, waiting_places> held_{};  // by packet::place
  std::deque<std::string> lines_;               // to be printed; empty: not decided yet
  std::uint64_t printed_{0};
};

template <class Errors>
int refused(std::ostream& err, const Errors& errors) {
  err << to_string(errors) << '\n';
  return 1;
}

}  // namespace

int run_replay(const replay_options& options, std::ostream& out, std::ostream& err) {
  const auto node = load_node_file(options.node_file);
  if (!node) return refused(err, node.error());
  const auto text = read_text_file(options.services_file);
  if (!text) {
    err << text.error().to_string() << '\n';
    return 1;
  }
  const auto state =
      config::parse_services(*text, options.services_file, config::context::of(*node));
  if (!state) return refused(err, state.error());
  const auto segment = publish::make_config(*state, publish::options_of(*node));
  if (!segment) {
    err << options.services_file << ": " << segment.error() << '\n';
    return 1;
  }

  auto in = capture_reader::open(options.in_file);
  if (!in) {
    err << in.error() << '\n';
    return 1;
  }
  if (same_file(options.in_file, options.out_file)) {
    err << options.out_file << ": is the capture to read; name another file\n";
    return 1;
  }
  auto sent = capture_writer::create(options.out_file, in->nanoseconds());
  if (!sent) {
    err << sent.error() << '\n';
    return 1;
  }

  connection::table_file_options sizes;
  sizes.connections4 = sizes.connections6 =
      std::min<std::uint64_t>(node->dataplane.connections, most_connections(options.in_file));
  auto table = connection::table_file::anonymous(sizes, fixed_secret);
  if (!table) {
    err << table.error() << '\n';
    return 1;
  }
  const auto worker = std::make_unique<replayer>(*node, segment->view(), std::move(*table));

  int result = 0;
  for (;;) {
    const auto got = in->next();
    if (!got) {
      err << got.error() << '\n';
      result = 1;
      break;
    }
    if (!got->has_value()) break;
    worker->take(**got, out, *sent);
  }
  worker->finish(out, *sent);
  out.flush();
  if (!out) {
    err << "cannot write the verdicts\n";
    result = 1;
  }
  if (const auto closed = sent->close(); !closed) {
    err << closed.error() << '\n';
    result = 1;
  }
  return result;
}

}  // namespace sluice
