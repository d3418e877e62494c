// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/slot_writer.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <new>
#include <set>
#include <tuple>

#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/fnv.hpp"

namespace sluice::publish {
namespace {

bool is_any(const published_service& s) {
  return s.port_first == 0 && s.port_last == 0xffff;
}
bool is_single(const published_service& s) {
  return s.port_first == s.port_last;
}

std::uint32_t hash_mask(std::size_t rows) {
  return static_cast<std::uint32_t>(std::bit_ceil(std::max<std::size_t>(rows, 1) * 2) - 1);
}

// rows of one kind in a slot, cleared before they are filled.
template <class Row>
class row_array {
 public:
  row_array(config_segment& segment, std::uint64_t offset, std::size_t count)
      : rows_{reinterpret_cast<Row*>(segment.data() + offset)}, count_{count} {
    const std::uint64_t bytes = count * sizeof(Row);
    if (auto memory = segment.reserve(offset, bytes); !memory) {
      error_ = memory.error();
      return;
    }
    std::memset(static_cast<void*>(rows_), 0, bytes);
  }
  [[nodiscard]] const std::string& error() const noexcept { return error_; }
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  Row& operator[](std::size_t i) const noexcept { return rows_[i]; }

 private:
  Row* rows_;
  std::size_t count_;
  std::string error_;
};

std::size_t pool_size(const writer_settings& settings) {
  return std::min<std::size_t>(settings.pool.size(), abi::max_pool_addresses);
}

struct slot_rows {
  slot_rows(config_segment& segment, unsigned slot, const slot_content& c, std::size_t members,
            std::size_t single_ports, std::size_t range_count, std::size_t list_count)
      : base{segment.layout().slots + slot * segment.layout().slot_bytes},
        header{segment, base, 1},
        vips{segment, base + segment.layout().vips, hash_mask(c.ids.vips().size()) + 1u},
        ports{segment, base + segment.layout().ports, hash_mask(single_ports) + 1u},
        ranges{segment, base + segment.layout().range_rows, range_count},
        services{segment, base + segment.layout().service_rows, c.ids.service_rows()},
        backends{segment, base + segment.layout().backend_rows, c.ids.backend_rows()},
        member_refs{segment, base + segment.layout().member_rows, members},
        service_colds{segment, base + segment.layout().service_colds, c.ids.service_rows()},
        backend_colds{segment, base + segment.layout().backend_colds, c.ids.backend_rows()},
        options{segment, base + segment.layout().option_rows, c.ids.service_rows()},
        pool{segment, base + segment.layout().pool_rows, pool_size(c.settings)},
        lists{segment, base + segment.layout().list_rows, list_count} {}

  [[nodiscard]] std::string error() const {
    for (const std::string* e :
         {&header.error(), &vips.error(), &ports.error(), &ranges.error(), &services.error(),
          &backends.error(), &member_refs.error(), &service_colds.error(), &backend_colds.error(),
          &options.error(), &pool.error(), &lists.error()})
      if (!e->empty()) return *e;
    return {};
  }

  std::uint64_t base;
  row_array<abi::generation_header> header;
  row_array<abi::vip_row> vips;
  row_array<abi::port_row> ports;
  row_array<abi::range_row> ranges;
  row_array<abi::service_row> services;
  row_array<abi::backend_row> backends;
  row_array<abi::backend_ref> member_refs;
  row_array<abi::service_cold> service_colds;
  row_array<abi::backend_cold> backend_colds;
  row_array<abi::service_options> options;
  row_array<ip_address> pool;
  row_array<abi::prefix_list> lists;
};

// write_vips() enters the VIPs and what listens on their ports.
void write_vips(const slot_content& c, const slot_rows& rows) {
  const auto vip_mask = static_cast<std::uint32_t>(rows.vips.size() - 1);
  const auto port_mask = static_cast<std::uint32_t>(rows.ports.size() - 1);
  std::map<vip_key, std::vector<const published_service*>> ranges;
  std::map<vip_key, abi::service_id> any;
  for (const auto& s : c.state.services) {
    const vip_key key{s.address, s.protocol};
    const abi::service_id id = c.ids.service(s.name).id;
    if (is_any(s)) {
      any.emplace(key, id);
    } else if (!is_single(s)) {
      ranges[key].push_back(&s);
    } else {
      const abi::vip_id vip = c.ids.vip(key);
      std::uint32_t at = abi::port_hash(vip, s.port_first) & port_mask;
      while (rows.ports[at].used != 0) at = (at + 1) & port_mask;
      rows.ports[at] = {vip, s.port_first, id, 1};
    }
  }
  std::uint32_t next_range = 0;
  for (const auto& [key, id] : c.ids.vips()) {
    std::uint32_t at = abi::vip_hash(key.first, key.second) & vip_mask;
    while (rows.vips[at].protocol != 0) at = (at + 1) & vip_mask;
    abi::vip_row& row = rows.vips[at];
    row.address = key.first;
    row.protocol = key.second;
    row.id = id;
    const auto whole = any.find(key);
    row.any_service = whole == any.end() ? abi::no_service : whole->second;
    row.range_first = next_range;
    if (auto of_vip = ranges.find(key); of_vip != ranges.end()) {
      std::sort(of_vip->second.begin(), of_vip->second.end(),
                [](const auto* a, const auto* b) { return a->port_first < b->port_first; });
      row.range_count = static_cast<std::uint16_t>(of_vip->second.size());
      for (const auto* s : of_vip->second)
        rows.ranges[next_range++] = {s->port_first, s->port_last, c.ids.service(s->name).id, 0};
    }
  }
}

void write_backend(const published_service& s, const published_backend& b, abi::service_id id,
                   const backend_slot& book, abi::backend_row& row, abi::backend_cold& cold) {
  row.address = b.address;
  row.service = id;
  row.incarnation = book.incarnation;
  row.mode = s.mode;
  row.flags = abi::backend_in_use;
  if (b.keeps_connections) row.flags |= abi::backend_keeps_connections;
  if (b.next_hop) {
    row.flags |= abi::backend_has_next_hop;
    row.next_hop = b.next_hop->mac;
    row.out_port = b.next_hop->port;
    row.mtu = b.next_hop->mtu;
  }
  row.port = b.port;
  row.weight = b.effective_weight;
  row.dscp = b.dscp;
  row.quic_id = b.quic_id.bytes;
  row.quic_id_length = b.quic_id.length;
  cold.weight = b.weight;
  cold.effective_weight = b.effective_weight;
  cold.tier = b.tier;
  cold.health = b.health;
  cold.admin = b.admin;
  cold.base_packets = book.base[0];
  cold.base_bytes = book.base[1];
  cold.base_opened = book.base[2];
  cold.base_closed = book.base[3];
  cold.base_resets = book.base[4];
}

// per_worker() is a worker's part of a node's rate: rounded up, so that none has no rate at
// all; 0: no limit.
std::uint32_t per_worker(std::uint32_t rate, std::uint16_t workers) {
  const std::uint32_t n = std::max<std::uint32_t>(workers, 1);
  return rate / n + (rate % n != 0 ? 1 : 0);
}

// list_numbers gives each list of a generation its row.
using list_numbers = std::map<const placed_list*, std::uint16_t>;

list_numbers number_lists(const std::vector<service_lists>& lists) {
  list_numbers out;
  for (const service_lists& s : lists)
    for (const placed_list* list : {s.allow, s.deny})
      if (list != nullptr) out.emplace(list, static_cast<std::uint16_t>(out.size()));
  return out;
}

std::uint16_t number_of(const list_numbers& numbers, const placed_list* list) {
  return list == nullptr ? abi::no_list : numbers.at(list);
}

abi::service_options option_row(const published_service& s, std::uint16_t workers) {
  abi::service_options o{};
  o.connection_rate = per_worker(s.limits.new_connections, workers);
  o.source_connection_rate = per_worker(s.limits.per_source.new_connections, workers);
  o.packet_rate = per_worker(s.limits.packets, workers);
  o.syn_flood_rate = per_worker(s.limits.syn_flood, workers);
  o.source_prefix4 = s.limits.per_source.ipv4_prefix;
  o.source_prefix6 = s.limits.per_source.ipv6_prefix;
  o.persistence_prefix4 = s.persistence.ipv4_prefix;
  o.persistence_prefix6 = s.persistence.ipv6_prefix;
  o.persistence_timeout = static_cast<std::uint16_t>(s.persistence.timeout.count());
  o.client = static_cast<abi::client_address>(s.client);
  o.quic_id_length = s.quic_id_length;
  // QUIC-LB (draft-ietf-quic-load-balancers section 3): the first octet is not the id's.
  o.quic_id_offset = s.quic_id_length != 0 ? 1 : 0;
  return o;
}

std::uint8_t flags_of(const published_service& s, const abi::service_options& o) {
  unsigned flags = s.answers_echo ? abi::service_answers_echo : 0;
  if (o.connection_rate != 0 || o.source_connection_rate != 0 || o.packet_rate != 0 ||
      o.syn_flood_rate != 0 || o.persistence_timeout != 0 || o.allow_list != abi::no_list ||
      o.deny_list != abi::no_list || o.client != abi::client_address::none || o.quic_id_length != 0)
    flags |= abi::service_has_options;
  if (o.packet_rate != 0) flags |= abi::service_counts_packets;
  return static_cast<std::uint8_t>(flags);
}

void write_services(const config_segment& segment, const slot_content& c, const slot_rows& rows,
                    const list_numbers& numbers) {
  // Rows that are not in use keep their incarnation: it must outlive a restart.
  for (std::uint32_t i = 0; i < rows.backends.size(); ++i)
    rows.backends[i].incarnation = c.ids.row(i).incarnation;
  for (std::size_t i = 0; i < rows.services.size(); ++i) rows.services[i].self = abi::no_service;

  std::uint32_t next_member = 0;
  for (std::size_t n = 0; n < c.state.services.size(); ++n) {
    const published_service& s = c.state.services[n];
    const service_ids& ids = c.ids.service(s.name);
    const lookup_table* const table = c.tables[n];
    const auto place = static_cast<std::size_t>(ids.id);
    abi::service_row& row = rows.services[place];
    row.vip = c.ids.vip({s.address, s.protocol});
    row.self = ids.id;
    row.port_first = s.port_first;
    row.port_last = s.port_last;
    row.protocol = s.protocol;
    row.mode = s.mode;
    row.kind = s.kind;
    row.mss_clamp = s.mss_clamp;
    abi::service_options& options = rows.options[place];
    options = option_row(s, c.state.workers);
    options.allow_list = number_of(numbers, c.lists[n].allow);
    options.deny_list = number_of(numbers, c.lists[n].deny);
    row.flags = flags_of(s, options);
    row.member_first = next_member;
    row.table_size = table != nullptr ? table->key.size : s.table_size;
    row.table_offset = table != nullptr ? table->offset : segment.layout().arena;
    row.table_digest = table != nullptr ? table->digest : 0;
    abi::service_cold& cold = rows.service_colds[place];
    std::memcpy(cold.name.data(), s.name.data(), s.name.size());
    const counter_sums& base = c.ids.service_base(ids.id);
    cold.base_packets = base[0];
    cold.base_bytes = base[1];
    cold.base_opened = base[2];
    cold.base_dropped = base[3];

    for (std::size_t i = 0; i < s.backends.size(); ++i) {
      const published_backend& b = s.backends[i];
      const std::uint32_t index = ids.backends[i].second;
      const backend_slot& book = c.ids.row(index);
      write_backend(s, b, ids.id, book, rows.backends[index], rows.backend_colds[index]);
      if (b.effective_weight == 0) continue;
      rows.backend_colds[index].slots = table->counts[next_member - row.member_first];
      rows.member_refs[next_member++] = abi::backend_ref::make(index, book.incarnation);
    }
    row.member_count = next_member - row.member_first;
  }
}

}  // namespace

abi::encap_source to_encap_source(const std::optional<ip_prefix>& prefix) {
  abi::encap_source source{};
  if (prefix) {
    source.base = prefix->address;
    source.prefix = prefix->length;
    source.configured = 1;
  }
  return source;
}

std::vector<maglev::member> members_of(const published_service& service) {
  std::vector<maglev::member> members;
  members.reserve(service.backends.size());
  for (const auto& b : service.backends)
    if (b.effective_weight != 0) members.push_back({{b.address, 0}, b.effective_weight});
  return members;
}

std::uint64_t state_digest(const published_state& state,
                           const std::vector<const lookup_table*>& tables) {
  fnv1a h;
  for (std::size_t i = 0; i < state.services.size(); ++i) {
    h.add(state.services[i].name);
    h.add(tables[i] != nullptr ? tables[i]->digest : std::uint64_t{0});
  }
  return h.value();
}

std::string check_state(const published_state& state, const abi::config_limits& limits) {
  std::size_t backends = 0;
  std::set<std::uint64_t> lists;
  using place = std::tuple<ip_address, std::uint8_t, std::uint16_t, std::uint16_t>;
  std::vector<std::pair<place, const std::string*>> singles;
  std::vector<std::pair<place, const std::string*>> ranges;
  for (std::size_t i = 0; i < state.services.size(); ++i) {
    const published_service& s = state.services[i];
    const std::string who = "service " + s.name + ": ";
    if (s.name.empty() || s.name.size() >= abi::service_cold{}.name.size())
      return who + "a name has 1 to 48 characters";
    if (i > 0 && state.services[i - 1].name >= s.name)
      return who + "services are not sorted by name, each once";
    if (s.protocol == 0 || s.port_first > s.port_last) return who + "impossible protocol or ports";
    for (const auto* list : {&s.allow, &s.deny})
      if (*list) lists.insert((*list)->digest());
    if (!maglev::is_prime(s.table_size)) return who + "table size is not a prime";
    if (s.backends.size() > maglev::max_members)
      return who + std::to_string(s.backends.size()) + " backends, at most " +
             std::to_string(maglev::max_members) + " fit one table";
    for (std::size_t b = 1; b < s.backends.size(); ++b)
      if (std::memcmp(&s.backends[b - 1].address, &s.backends[b].address, sizeof(ip_address)) >= 0)
        return who + "backends are not sorted by address, each once";
    backends += s.backends.size();
    (is_single(s) || is_any(s) ? singles : ranges)
        .push_back({{s.address, s.protocol, s.port_first, s.port_last}, &s.name});
  }
  if (lists.size() > abi::max_prefix_lists)
    return std::to_string(lists.size()) + " different allow and deny lists, at most " +
           std::to_string(abi::max_prefix_lists) + " fit a generation";
  if (state.services.size() > limits.services)
    return std::to_string(state.services.size()) + " services, this node's limit is " +
           std::to_string(limits.services) + " (controlplane.limits.services)";
  if (backends > limits.backends)
    return std::to_string(backends) + " backends, this node's limit is " +
           std::to_string(limits.backends) + " (controlplane.limits.backends)";
  std::sort(singles.begin(), singles.end());
  std::sort(ranges.begin(), ranges.end());
  const auto both = [](const auto& a, const auto& b) {
    return "services " + *a.second + " and " + *b.second + " listen on the same port";
  };
  for (std::size_t i = 1; i < singles.size(); ++i)
    if (singles[i - 1].first == singles[i].first) return both(singles[i - 1], singles[i]);
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    const auto& [address, protocol, first, last] = ranges[i].first;
    const auto& before = ranges[i - 1].first;
    if (std::get<0>(before) == address && std::get<1>(before) == protocol &&
        std::get<3>(before) >= first)
      return both(ranges[i - 1], ranges[i]);
  }
  return {};
}

tl::expected<void, std::string> write_slot(config_segment& segment, unsigned slot,
                                           const slot_content& content) {
  std::size_t members = 0;
  std::size_t single_ports = 0;
  std::size_t range_count = 0;
  for (const auto& s : content.state.services) {
    for (const auto& b : s.backends) members += b.effective_weight != 0 ? 1 : 0;
    single_ports += is_single(s) ? 1 : 0;
    range_count += is_single(s) || is_any(s) ? 0 : 1;
  }
  const list_numbers numbers = number_lists(content.lists);
  const slot_rows rows{segment, slot, content, members, single_ports, range_count, numbers.size()};
  if (std::string error = rows.error(); !error.empty()) return tl::unexpected{error};
  write_vips(content, rows);
  write_services(segment, content, rows, numbers);
  for (const auto& [list, number] : numbers) rows.lists[number] = list->row;
  for (std::size_t i = 0; i < rows.pool.size(); ++i) rows.pool[i] = content.settings.pool[i];

  auto* header = new (&rows.header[0]) abi::generation_header{};
  header->number = content.number;
  header->hash_seed = content.settings.hash_seed;
  header->revision = content.state.revision;
  header->digest = state_digest(content.state, content.tables);
  header->built_at_ns = abi::clock_ns(CLOCK_REALTIME);
  header->service_count = static_cast<std::uint32_t>(rows.services.size());
  header->backend_count = static_cast<std::uint32_t>(rows.backends.size());
  header->member_count = static_cast<std::uint32_t>(members);
  header->range_count = static_cast<std::uint32_t>(range_count);
  header->vip_mask = static_cast<std::uint32_t>(rows.vips.size() - 1);
  header->port_mask = static_cast<std::uint32_t>(rows.ports.size() - 1);
  header->vip_count = static_cast<std::uint32_t>(content.ids.vips().size());
  header->source4 = content.settings.source4;
  header->source6 = content.settings.source6;
  header->timeouts = content.settings.timeouts;
  header->base_instance = content.base_instance;
  header->list_count = static_cast<std::uint16_t>(numbers.size());
  header->pool_count = static_cast<std::uint16_t>(rows.pool.size());
  header->gue_port = content.settings.gue_port;
  header->flushes = content.flushes;
  header->worker_count = content.state.workers;
  const auto translates = [](const published_service& s) {
    return s.mode == abi::forward_mode::nat || s.mode == abi::forward_mode::full_nat;
  };
  if (std::ranges::any_of(content.state.services, translates))
    header->flags |= abi::generation_has_nat;
  return {};
}

}  // namespace sluice::publish
