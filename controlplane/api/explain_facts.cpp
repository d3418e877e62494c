// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/explain_facts.hpp"

#include <algorithm>

#include "controlplane/api/connection_tables.hpp"
#include "controlplane/publish/recover.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/stateless_choice.hpp"

namespace sluice::api {
namespace {

constexpr std::size_t shown_members = 8;

void look_at_lists(const abi::config_view& view, const flow& f, facts& out) {
  const abi::service_options& o = *out.options;
  out.denied = o.deny_list != abi::no_list && view.in_list(o.deny_list, f.source.address);
  out.allowed = o.allow_list == abi::no_list || view.in_list(o.allow_list, f.source.address);
}

void look_at_members(const abi::config_view& view, facts& out) {
  for (std::uint32_t i = 0; i < out.service->member_count && i < shown_members; ++i)
    if (const auto* row = view.backend(view.member(*out.service, i)))
      out.members.push_back(row->address);
  if (!out.options || out.options->quic_id_length == 0) return;
  constexpr std::string_view digits = "0123456789abcdef";
  for (std::uint32_t i = 0; i < view.header().backend_count && out.quic_ids.size() < shown_members;
       ++i) {
    const abi::backend_row& row = *view.backend_at(i);
    if ((row.flags & abi::backend_in_use) == 0 || row.service != out.service->self ||
        row.quic_id_length == 0)
      continue;
    std::string text;
    for (std::size_t b = 0; b < std::min<std::size_t>(row.quic_id_length, row.quic_id.size()); ++b)
      text += {digits[row.quic_id[b] >> 4], digits[row.quic_id[b] & 0xf]};
    out.quic_ids.push_back(text + ": " + format_ip(row.address));
  }
}

}  // namespace

std::uint64_t flow::hash(std::uint64_t seed) const noexcept {
  const std::uint32_t from = be16{source.port}.raw();
  const std::uint32_t to = be16{destination.port}.raw();
  if (source.address.is_v4())
    return sluice_flow_hash4(seed, source.address.v4_raw().raw(),
                             destination.address.v4_raw().raw(), from, to, protocol);
  return sluice_flow_hash6(seed, source.address.high(), source.address.low(),
                           destination.address.high(), destination.address.low(), from, to,
                           protocol);
}

bool facts::by_hash() const noexcept {
  return service->kind <= abi::scheduler::source_hash ||
         (options && options->persistence_timeout != 0);
}

facts look_up(const abi::config_view& view, const flow& f,
              const std::optional<found_entry>& connection) {
  facts out;
  out.published = !view.empty();
  if (view.empty()) return out;
  out.header = view.header();
  for (const ip_address& a : view.pool())
    out.pool += a.is_v4() == f.destination.address.is_v4() ? 1 : 0;
  const abi::vip_row* vip = view.find_vip(f.destination.address, f.protocol);
  if (vip == nullptr) return out;
  out.vip = *vip;
  if (const abi::service_row* service = view.find_service(*vip, f.destination.port)) {
    out.service = *service;
    out.service_name = publish::service_name(*view.cold(service->self));
    const abi::service_options* options = abi::options_of(view, *service);
    if (options != nullptr) {
      out.options = *options;
      look_at_lists(view, f, out);
    }
    look_at_members(view, out);
    out.hash = abi::choice_hash(view, *service, options, f.source.address,
                                [&] { return f.hash(out.header.hash_seed); });
    if (service->member_count != 0) {
      if (!abi::does_without_table(*service)) out.slot = sluice_slot(out.hash, service->table_size);
      out.chosen = abi::stateless_choice(view, *service, out.hash);
    }
  }
  if (connection) {
    const abi::backend_row* kept = view.backend(connection->entry.backend);
    out.moved = kept == nullptr || (kept->flags & abi::backend_keeps_connections) == 0;
    if (!out.moved) out.chosen = connection->entry.backend;
  }
  if (const abi::backend_row* row = view.backend(out.chosen)) out.backend = *row;
  return out;
}

std::optional<found_entry> find_entry(const publish::observations& data_plane, const flow& f,
                                      abi::vip_id vip, const abi::generation_header& header,
                                      json& steps) {
  const auto tables = connection_tables::open(data_plane);
  for (const auto& p : tables.problems()) steps.push_back("a connection table is left out: " + p);
  std::optional<found_entry> found;
  const be16 from{f.source.port};
  const be16 to{f.destination.port};
  tables.for_each(abi::clock_ns(CLOCK_MONOTONIC),
                  [&](std::uint32_t worker, const abi::connection_view& e, std::uint16_t idle) {
                    if (e.vip != vip || !(e.source_port == from) || !(e.destination_port == to) ||
                        e.source != f.source.address)
                      return true;
                    const auto state = static_cast<std::size_t>(e.state);
                    if (state >= abi::connection_state_count || idle > header.timeouts[state])
                      return true;
                    // A flow that has moved to another queue may have left an entry behind: the one
                    // that was seen last is in use.
                    if (!found || idle < found->idle) found = found_entry{worker, e, idle};
                    return true;
                  });
  return found;
}

}  // namespace sluice::api
