// SPDX-License-Identifier: Apache-2.0
#include "dataplane/worker/attached_config.hpp"

#include <cstring>
#include <utility>

namespace sluice {

tl::expected<std::unique_ptr<attached_config>, std::string> attached_config::attach(
    const std::string& path, std::uint32_t service_rows, std::uint32_t backend_rows) {
  std::string error;
  abi::mapped_file file = abi::attach_segment(path, abi::config_magic, false, error);
  if (!file) return tl::unexpected{error};
  constexpr std::size_t control_at = sizeof(abi::segment_header);
  if (file.size() < control_at + sizeof(abi::config_control))
    return tl::unexpected{path + ": too small for a config segment"};
  const auto* control = reinterpret_cast<const abi::config_control*>(file.data() + control_at);
  abi::config_limits limits{};
  std::memcpy(&limits, &control->limits, sizeof limits);
  if (!abi::config_layout::valid(limits))
    return tl::unexpected{path + ": its limits are impossible"};
  const abi::config_layout layout = abi::config_layout::of(limits);
  if (layout.total != file.size())
    return tl::unexpected{path + ": its limits ask for " + std::to_string(layout.total) +
                          " bytes, it has " + std::to_string(file.size())};
  const auto too_many = [&path](const char* what, std::uint32_t has, std::uint32_t may) {
    return tl::unexpected{path + ": made for " + std::to_string(has) + " " + what +
                          ", this data plane was started with room for " + std::to_string(may) +
                          "; controlplane.limits in node.yaml has changed: restart both"};
  };
  if (limits.services > service_rows) return too_many("services", limits.services, service_rows);
  if (limits.backends > backend_rows) return too_many("backends", limits.backends, backend_rows);

  abi::segment_header header;
  std::memcpy(&header, file.data(), sizeof header);
  std::unique_ptr<attached_config> out{new attached_config{std::move(file)}};
  out->limits_ = limits;
  out->current_ = &control->current;
  out->instance_ = header.instance;
  return out;
}

}  // namespace sluice
