// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/steering.hpp"

#include <utility>

#include <spdlog/spdlog.h>

namespace sluice::reconcile {

steering::steering(const node_config& node) {
  for (const auto& p : node.dataplane.ports)
    if (p.kind == device_kind::af_xdp)
      ports_.push_back({p.name, bpf_loader::steer_maps{p.interface}, 0, {}});
}

void steering::set(const abi::config_view& view) {
  if (ports_.empty()) return;
  auto contents = bpf_loader::contents_of(view);
  if (!contents.nat_sources.empty()) contents.host_addresses = bpf_loader::host_addresses();
  if (contents == contents_) return;
  contents_ = std::move(contents);
  for (auto& p : ports_) p.program = 0;
  check();
}

void steering::check() {
  if (!contents_.nat_sources.empty())
    if (auto now = bpf_loader::host_addresses(); now != contents_.host_addresses) {
      contents_.host_addresses = std::move(now);
      for (auto& p : ports_) p.program = 0;
    }
  for (auto& p : ports_) {
    const auto program = p.maps.program_id();
    if (program) {
      if (*program != p.program) tell(p, *program);
      continue;
    }
    p.program = 0;
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

std::vector<std::string> steering::problems() const {
  std::vector<std::string> out;
  for (const auto& p : ports_)
    if (!p.problem.empty()) out.push_back("port " + p.name + ": " + p.problem);
  return out;
}

}  // namespace sluice::reconcile
