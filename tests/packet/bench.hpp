// SPDX-License-Identifier: Apache-2.0
// A packet path on the bench: a table of connections, counters, two ports, and frames put
// in from vectors. Every frame lies in a heap block that ends where the frame ends, so
// that a sanitizer sees every byte read too far.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "dataplane/abi/worker_state.hpp"
#include "dataplane/connection/table_file.hpp"
#include "dataplane/path/packet_path.hpp"
#include "tests/packet/frame_builder.hpp"

namespace sluice::test {

inline constexpr std::uint8_t kernel_port = 0;  // leaves the rest to the kernel
inline constexpr std::uint8_t wire_port = 1;    // has no kernel
inline constexpr std::array<path_port, 2> bench_ports{
    {{{2, 0, 0, 0, 0, 0x01}, true}, {{2, 0, 0, 0, 0, 0x02}, false}}};

struct result {
  verdict outcome;
  kernel_reason why;
  abi::counter_id reason;
  std::uint8_t out_port;
  abi::service_id service;
  abi::backend_ref backend;
  bytes frame;  // as it is now
};

struct input {
  bytes frame;
  std::uint8_t in_port{wire_port};
  std::uint16_t headroom{128};
  std::size_t first_segment{SIZE_MAX};  // bytes that are contiguous; the rest is elsewhere
};

class bench {
 public:
  explicit bench(const abi::config_view& view, std::uint64_t connections = 4096,
                 std::span<const path_port> ports = bench_ports,
                 std::uint64_t secret = 0x0123456789abcdef,
                 std::span<const abi::backend_counters* const> other_workers = {},
                 std::uint64_t instance = 0, const nat_table::options& nat = {},
                 std::uint32_t backend_rows = 4096)
      : file_{make_table(connections, secret)},
        table_{file_.data()},
        services_(abi::max_services),
        backends_(backend_rows),
        resets_(backend_rows),
        nat_{nat},
        path_{table_,
              {worker_.data(), services_.data(), abi::max_services, backends_.data(), backend_rows,
               other_workers, instance, resets_.data()},
              ports} {
    path_.use_nat(&nat_);
    path_.set_view(view);
  }

  // run() puts a burst through. Non-contiguous rests are carried along unseen.
  // handed: as what another worker has handed over.
  std::vector<result> run(const std::vector<input>& in, bool handed = false) {
    std::vector<std::unique_ptr<std::byte[]>> buffers;
    std::vector<packet> burst;
    for (const input& f : in) {
      const std::size_t contiguous = std::min(f.first_segment, f.frame.size());
      const std::size_t front = f.headroom + f.headroom % 2u;  // frames start at even addresses
      buffers.push_back(std::make_unique<std::byte[]>(front + contiguous));
      std::byte* data = buffers.back().get() + front;
      if (contiguous != 0) std::memcpy(data, f.frame.data(), contiguous);
      packet p{};
      p.data = data;
      p.length = static_cast<std::uint32_t>(contiguous);
      p.total_length = static_cast<std::uint32_t>(f.frame.size());
      p.headroom = f.headroom;
      p.in_port = f.in_port;
      burst.push_back(p);
    }
    if (handed)
      path_.process_handed(burst, now_ns);
    else
      path_.process(burst, now_ns);
    std::vector<result> out;
    for (std::size_t i = 0; i < burst.size(); ++i) {
      const std::size_t contiguous = std::min(in[i].first_segment, in[i].frame.size());
      const bytes rest(in[i].frame.begin() + static_cast<std::ptrdiff_t>(contiguous),
                       in[i].frame.end());
      out.push_back(result_of(burst[i], rest));
      if (burst[i].outcome == verdict::held) held_[burst[i].place] = {std::move(buffers[i]), rest};
    }
    take_released();
    return out;
  }
  // maintain() lets time pass for what waits; released() is what run() or maintain() has
  // released, in order.
  void maintain() {
    path_.maintain(now_ns);
    take_released();
  }
  [[nodiscard]] const std::vector<result>& released() const { return released_; }
  [[nodiscard]] std::size_t waiting() const { return held_.size(); }
  result run(const bytes& frame, std::uint8_t in_port = wire_port) {
    return run(std::vector<input>{{frame, in_port}})[0];
  }

  result run_handed(const bytes& frame) {
    return run(std::vector<input>{{frame, wire_port}}, true)[0];
  }

  [[nodiscard]] std::uint64_t count(abi::counter_id id) const {
    return worker_[static_cast<std::size_t>(id)].read();
  }
  // decided() is how many packets have come to an end: each counts in one of these.
  [[nodiscard]] std::uint64_t decided() const {
    using enum abi::counter_id;
    std::uint64_t n = 0;
    for (const abi::counter_id id : {forwarded, to_kernel, icmp_echo_answered,
                                     icmp_errors_translated, nat_replies, nat_errors_to_client})
      n += count(id);
    for (std::size_t i = 0; i < abi::counter_count; ++i)
      if (abi::counter_infos[i].drop) n += worker_[i].read();
    return n;
  }
  [[nodiscard]] const abi::service_counters& service(abi::service_id id) const {
    return services_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] const abi::backend_counters& backend(std::uint32_t index) const {
    return backends_[index];
  }
  [[nodiscard]] std::uint64_t resets(std::uint32_t index) const { return resets_[index].read(); }
  packet_path& path() { return path_; }
  connection::connection_table& table() { return table_; }
  nat_table& nat() { return nat_; }

  std::uint64_t now_ns{1'000'000'000'000};

 private:
  struct kept {
    std::unique_ptr<std::byte[]> buffer;
    bytes rest;
  };
  // result_of(): the rest of the frame follows, as far as the path has left it.
  static result result_of(const packet& p, const bytes& rest) {
    const auto* at = reinterpret_cast<const std::uint8_t*>(p.data);
    result r{
        p.outcome, p.why, p.reason, p.out_port, p.service, p.backend, bytes(at, at + p.length)};
    for (std::size_t k = 0; k < p.total_length - p.length; ++k) r.frame.push_back(rest[k]);
    return r;
  }
  void take_released() {
    released_.clear();
    for (const packet& p : path_.released()) {
      const auto at = held_.find(p.place);
      if (at == held_.end()) throw std::logic_error{"released what was not held"};
      released_.push_back(result_of(p, at->second.rest));
      held_.erase(at);
    }
  }
  static connection::table_file make_table(std::uint64_t connections, std::uint64_t secret) {
    connection::table_file_options options;
    options.connections4 = connections;
    options.connections6 = connections;
    auto file = connection::table_file::anonymous(options, {secret, 0xfedcba9876543210});
    if (!file) throw std::runtime_error{file.error()};
    // The bench's clock starts at 0, whatever the machine's says.
    reinterpret_cast<abi::connection_header*>(file->data())->clock_base_ns = 0;
    return std::move(*file);
  }

  connection::table_file file_;
  connection::connection_table table_;
  std::array<abi::counter, abi::counter_capacity> worker_{};
  std::vector<abi::service_counters> services_;
  std::vector<abi::backend_counters> backends_;
  std::vector<abi::counter> resets_;
  nat_table nat_;
  packet_path path_;
  std::map<std::uint16_t, kept> held_;
  std::vector<result> released_;
};

}  // namespace sluice::test
