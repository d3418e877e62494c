// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/steering.hpp"

#include <utility>

#include <spdlog/spdlog.h>

namespace sluice::reconcile {
namespace {

using namespace std::chrono_literals;

// A data plane goes through its connections in less.
constexpr auto longest_wait = 10s;
// So long is a data plane that is gone expected back. After that connections that it would know
// about are given up for new ones that go where they should.
constexpr auto longest_absence = 60s;

}  // namespace

std::vector<xdp_counters> read_xdp_counters(const node_config& node) {
  std::vector<xdp_counters> out;
  for (const auto& p : node.dataplane.ports) {
    if (p.kind != device_kind::af_xdp) continue;
    const auto counted = bpf_loader::steer_maps{p.interface}.counters();
    out.push_back({p.name, counted ? std::optional{*counted} : std::nullopt});
  }
  return out;
}

steering::steering(const node_config& node) : pool_{node.dataplane.nat_pool} {
  for (const auto& p : node.dataplane.ports) {
    interfaces_.push_back(p.kind == device_kind::af_xdp ? p.interface : std::string{});
    if (p.kind == device_kind::af_xdp)
      ports_.push_back({p.name, bpf_loader::steer_maps{p.interface}, 0, {}, 0, 0, false, {}});
  }
}

void steering::set(const abi::config_view& view) {
  if (ports_.empty()) return;
  given_ = true;
  auto contents = bpf_loader::contents_of(view);
  if (!contents.nat_sources.empty()) contents.host_addresses = bpf_loader::host_addresses();
  if (contents == contents_) return;
  contents_ = std::move(contents);
  for (auto& p : ports_) p.program = 0;
  check(view);
}

// read_interfaces() asks the kernel now and then; true: something is not as it was.
bool steering::read_interfaces() {
  if (!interface_rows_.empty() && ++checks_ % 10 != 0) return false;
  std::vector<bpf_loader::standin_port> now;
  now.reserve(interfaces_.size());
  for (const auto& name : interfaces_)
    now.push_back(name.empty() ? bpf_loader::standin_port{} : bpf_loader::read_port(name));
  if (now == interface_rows_) return false;
  interface_rows_ = std::move(now);
  return true;
}

void steering::check(const abi::config_view& view) {
  if (ports_.empty() || view.empty()) return;
  if (!given_) set(view);
  if (!contents_.nat_sources.empty())
    if (auto now = bpf_loader::host_addresses(); now != contents_.host_addresses) {
      contents_.host_addresses = std::move(now);
      for (auto& p : ports_) p.program = 0;
    }
  if (read_interfaces()) {
    standin_generation_ = 0;
    for (auto& p : ports_) p.standin_program = 0;
  }
  for (auto& p : ports_) {
    const auto program = p.maps.program_id();
    if (program) {
      if (*program != p.program) tell(p, *program);
      const std::uint64_t number = view.header().number;
      if (standin_generation_ != number) {
        standin_ = bpf_loader::standin_of(view, interface_rows_);
        standin_generation_ = number;
        standin_since_ = std::chrono::steady_clock::now();
      }
      const standin_step step = next_step(p, number);
      const bool told = p.standin_program == *program && p.standin_generation == number;
      if (told && !p.standin_keeps) continue;
      if (step == standin_step::write || (step == standin_step::keep && !told))
        tell_standin(p, *program, view, step == standin_step::keep);
      continue;
    }
    p.program = p.standin_program = 0;
    writer_.forget(p.maps.interface());
    const bool absent = program.error().what == bpf_loader::steer_error::kind::not_attached;
    std::string problem = absent ? std::string{} : program.error().text;
    if (problem != p.problem && !problem.empty()) spdlog::warn("port {}: {}", p.name, problem);
    p.problem = std::move(problem);
  }
}

void steering::tell(port& p, std::uint32_t program) {
  const auto done = p.maps.set(contents_);
  if (done) {
    spdlog::info("port {}: XDP program {} steers {} services ({} entries added, {} removed)",
                 p.name, program, contents_.vips.size(), done->added, done->removed);
    p.program = program;
    p.problem.clear();
    return;
  }
  if (done.error().text != p.problem) spdlog::warn("port {}: {}", p.name, done.error().text);
  p.problem = done.error().text;
}

// A data plane first notes in `pinned` the connections that the new tables would move. While there
// is none nobody does, so that they have to stay as they are.
steering::standin_step steering::next_step(const port& p, std::uint64_t number) {
  const auto state = p.maps.mirror();
  if (!state) return standin_step::write;
  const auto now = std::chrono::steady_clock::now();
  if (state->beats) {
    seen_ = now;
    return state->generation == number || now - standin_since_ >= longest_wait ? standin_step::write
                                                                               : standin_step::wait;
  }
  return now - seen_ < longest_absence ? standin_step::keep : standin_step::write;
}

void steering::tell_standin(port& p, std::uint32_t program, const abi::config_view& view,
                            bool keep) {
  const auto done = writer_.write(p.maps.interface(), standin_, view, keep);
  if (done) {
    if (p.standin_program != program)
      spdlog::info("port {}: the stand-in has {} services and {} backends", p.name,
                   standin_.tables.size(), standin_.rows.size());
    p.standin_program = program;
    p.standin_generation = view.header().number;
    p.standin_keeps = keep;
    p.standin_problem.clear();
    return;
  }
  std::string problem = "stand-in: " + done.error().text;
  if (problem != p.standin_problem) spdlog::warn("port {}: {}", p.name, problem);
  p.standin_problem = std::move(problem);
}

std::string steering::refusal(const model::desired_state& state) const {
  if (ports_.empty()) return {};
  std::vector<bpf_loader::vip> vips;
  std::vector<bpf_loader::vip> nat_sources;
  for (const auto& s : state.services) {
    const auto protocol = s.protocol == model::protocol::tcp ? ip_proto::tcp : ip_proto::udp;
    vips.push_back({s.address, protocol, s.port.first, s.port.last});
    if (s.forward != model::forward_mode::nat) continue;
    for (const auto& b : s.backends)
      nat_sources.push_back({b.address, protocol, b.port != 0 ? b.port : s.port.first,
                             b.port != 0 ? b.port : s.port.last});
  }
  for (const ip_address& address : pool_)
    for (const ip_proto protocol : {ip_proto::tcp, ip_proto::udp})
      vips.push_back({address, protocol, 0, 65535});
  for (const auto& set : {vips, nat_sources})
    if (const auto entries = bpf_loader::make_vip_entries(set); !entries)
      return entries.error() + "; expected fewer, or at most " + std::to_string(SLUICE_VIP_RANGES) +
             " ranges of ports of one address and protocol (of more, the smallest take an entry "
             "for each port)";
  return {};
}

std::vector<std::string> steering::problems() const {
  std::vector<std::string> out;
  for (const auto& p : ports_)
    for (const std::string* problem : {&p.problem, &p.standin_problem})
      if (!problem->empty()) out.push_back("port " + p.name + ": " + *problem);
  return out;
}

}  // namespace sluice::reconcile
