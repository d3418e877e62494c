// SPDX-License-Identifier: Apache-2.0
// What the stand-in (bpf/standin.h) has to know of a published generation. Pure; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "controlplane/bpf_loader/vip_entries.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/standin_abi.h"

namespace sluice::bpf_loader {

// standin_port: an interface that frames may leave by; index 0: not a kernel's interface.
struct standin_port {
  std::uint32_t index{};
  mac_address mac{};

  bool operator==(const standin_port&) const = default;
};

// read_port() asks the kernel; all zero when there is no such interface.
[[nodiscard]] standin_port read_port(const std::string& interface);

// table_identity: tables with the same identity have the same slots.
struct table_identity {
  std::uint64_t offset{};
  std::uint64_t digest{};
  std::uint32_t size{};
  std::uint64_t word{};                // how a slot is found; see standin_abi.h
  std::vector<std::uint32_t> members;  // backend_ref

  bool operator==(const table_identity&) const = default;
};

struct standin_contents {
  sluice_standin_config config{};
  std::map<sluice_vip_key, sluice_standin_ports, vip_key_less> ports;
  std::map<std::uint32_t, sluice_standin_row> rows;  // by backend_ref
  std::map<std::uint32_t, table_identity> tables;    // by service
};

// standin_of() reads a generation; `ports` are the data plane's, by number.
[[nodiscard]] standin_contents standin_of(const abi::config_view& view,
                                          std::span<const standin_port> ports);

// table_word() is how a packet of a service finds its slot.
[[nodiscard]] std::uint64_t table_word(const abi::config_view& view, const abi::service_row& s);

// slots_of() returns the elements of a service's table as the BPF map has them. Empty: the
// table cannot be read.
[[nodiscard]] std::vector<std::uint64_t> slots_of(const abi::config_view& view,
                                                  std::uint32_t service);

// keep_slots() takes back into a table what `before` has, where that backend is still there and
// keeps its connections: for while no data plane knows where they are.
void keep_slots(std::vector<std::uint64_t>& slots, std::span<const std::uint64_t> before,
                const std::map<std::uint32_t, sluice_standin_row>& rows);

}  // namespace sluice::bpf_loader
