// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/objects.hpp"

#include <algorithm>

#include "controlplane/model/text.hpp"

namespace sluice::api {
namespace {

template <std::size_t N>
std::string text_of(const std::array<char, N>& a) {
  return {a.begin(), std::find(a.begin(), a.end(), '\0')};
}

std::uint64_t age_ms(std::uint64_t now_ns, std::uint64_t then_ns) {
  return now_ns > then_ns ? (now_ns - then_ns) / 1'000'000 : 0;
}

std::uint64_t read(const abi::worker_block& w, abi::counter_id id) {
  return w.counters[static_cast<std::size_t>(id)].read();
}

std::uint64_t standin_drops(const xdp_counters& xdp, std::size_t reason) {
  std::uint64_t sum = 0;
  for (const auto& x : xdp)
    if (x.counted) sum += x.counted->drops[reason];
  return sum;
}

std::string health_word(abi::shown_health h) {
  switch (h) {
    case abi::shown_health::up:
      return "up";
    case abi::shown_health::down:
      return "down";
    case abi::shown_health::unchecked:
      return "unchecked";
    case abi::shown_health::unknown:
      break;
  }
  return "unknown";
}

json next_hop_json(const reconcile::route& way) {
  const ip_address none{};
  return {{"state", way.state},
          {"mac", way.hop ? json(format_mac(way.hop->mac)) : json()},
          {"port", way.port.empty() ? json() : json(way.port)},
          {"via", way.via == none ? json() : json(format_ip(way.via))},
          {"reason", way.reason.empty() ? json() : json(way.reason)}};
}

// until_json() is a moment that is still to come, as others show it.
json until_json(const std::optional<decision::time_point>& until) {
  if (!until) return nullptr;
  const auto left = *until - std::chrono::steady_clock::now();
  return rfc3339(std::chrono::system_clock::now() +
                 std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
}

// admin_json() is who drained or forced it; null: nobody, or so long ago that it is not known.
json admin_json(const view_of_now& v, const std::string& service, const ip_address& backend) {
  const auto found = v.snap.admin.find({service, backend});
  if (found == v.snap.admin.end()) return nullptr;
  const auto& by = found->second;
  return {{"revision", by.revision},
          {"time", rfc3339(by.time)},
          {"author", by.author},
          {"reason", by.reason}};
}

// announcement_json() is null where this node announces nothing.
json announcement_json(const view_of_now& v, const ip_address& address) {
  const auto found = v.snap.announced.find(address);
  return found == v.snap.announced.end() ? json()
                                         : json(std::string{decision::to_string(found->second)});
}

// age_json() is how long ago a moment in ms since 1970 was, in ms; null: it never was.
json age_json(std::int64_t ms) {
  using namespace std::chrono;
  if (ms == 0) return nullptr;
  const auto now = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  return std::max<std::int64_t>(now - ms, 0);
}

// agent_json() is what a backend's agent has said; null: it has not been heard, and nothing is
// wrong.
json agent_json(const std::optional<reconcile::backend_report>& r) {
  if (!r || (!r->agent && r->agent_problem.empty())) return nullptr;
  const agent::standing_report said = r->agent.value_or(agent::standing_report{});
  json weight;
  if (said.weight) weight = std::to_string(said.weight->amount) + (said.weight->percent ? "%" : "");
  return {{"mode", std::string{agent::to_string(said.mode)}},
          {"down", said.down},
          {"weight", std::move(weight)},
          {"max_connections", said.most_connections ? json(*said.most_connections) : json()},
          {"text", said.text},
          {"line", r->agent_line},
          {"problem", r->agent_problem},
          {"age_ms", age_json(r->figures->answered_ms.load(std::memory_order_relaxed))},
          {"answers", r->figures->answers.load(std::memory_order_relaxed)},
          {"failures", r->figures->failures.load(std::memory_order_relaxed)}};
}

json heartbeat_json(const std::optional<reconcile::backend_report>& r) {
  if (!r || !r->heartbeat) return nullptr;
  const auto& beats = *r->heartbeat;
  return {{"state", !beats.heard    ? "awaited"
                    : beats.missing ? "missing"
                                    : "alive"},
          {"load", beats.load ? json(*beats.load) : json()},
          {"age_ms", age_json(r->figures->beat_ms.load(std::memory_order_relaxed))},
          {"beats", r->figures->beats.load(std::memory_order_relaxed)}};
}

json backend_json(const view_of_now& v, const reconcile::service_runtime& s, std::size_t i,
                  std::optional<std::uint32_t> service_row) {
  const reconcile::backend_runtime& b = s.backends[i];
  const publish::published_backend& wanted = s.published.backends[i];
  const auto row = v.backend_row(service_row, wanted.address);
  // As the workers have it; before the first generation with it, nothing is in use.
  abi::backend_cold cold{};
  publish::counter_sums counters{};
  cold.weight = wanted.weight;
  cold.tier = wanted.tier;
  cold.health = wanted.health;
  cold.admin = wanted.admin;
  double share = 0;
  if (row) {
    cold = v.snap.tables.backend_colds[*row];
    counters = v.backend_counters(*row);
    const std::uint32_t size = v.snap.tables.services[*service_row].table_size;
    share = size == 0 ? 0 : static_cast<double>(cold.slots) / size;
  }
  const model::backend& config = s.config.backends[i];
  const std::uint32_t most = reconcile::most_connections(config, b);
  return {{"service", s.config.name},
          {"address", format_ip(wanted.address)},
          {"port", config.port == 0 ? json() : json(config.port)},
          {"dscp", config.dscp == 0 ? json() : json(config.dscp)},
          {"quic_id", config.quic_id.length == 0 ? json() : json(model::to_string(config.quic_id))},
          {"weight", cold.weight},
          {"effective_weight", cold.effective_weight},
          {"tier", cold.tier},
          {"health", health_word(cold.health)},
          {"health_text", b.report && !b.report->text().empty() ? b.report->text() : b.health_text},
          {"probe", !reconcile::is_checked(s.config, config)
                        ? json()
                        : json(b.probed_through ? "data-path" : "direct")},
          {"source", std::string{model::to_string(config.source)}},
          {"sorry", config.sorry},
          {"max_connections", most == 0 ? json() : json(most)},
          {"agent", agent_json(b.report)},
          {"heartbeat", heartbeat_json(b.report)},
          {"admin", std::string{model::to_string(config.admin)}},
          {"admin_set", admin_json(v, s.config.name, wanted.address)},
          {"share", share},
          {"standing", std::string{decision::to_string(s.decided.backends[i].why)}},
          {"standing_until", until_json(s.decided.backends[i].until)},
          {"next_hop", next_hop_json(b.way)},
          {"connections", counters[2] > counters[3] ? counters[2] - counters[3] : 0},
          {"packets", counters[0]},
          {"bytes", counters[1]},
          {"resets", counters[4]}};
}

}  // namespace

json backends_json(const view_of_now& v, const reconcile::service_runtime& s) {
  const auto row = v.service_row(s.config.name);
  json list = json::array();
  for (std::size_t i = 0; i < s.backends.size(); ++i) list.push_back(backend_json(v, s, i, row));
  return list;
}

json service_json(const view_of_now& v, const reconcile::service_runtime& s, bool with_backends) {
  std::size_t up = 0;
  std::size_t in_use = 0;
  for (const auto& b : s.published.backends) {
    up += b.health == abi::shown_health::up || b.health == abi::shown_health::unchecked ? 1 : 0;
    in_use += b.effective_weight != 0 ? 1 : 0;
  }
  const auto row = v.service_row(s.config.name);
  const json as_configured = model::to_json(s.config);
  json health = {{"type", "none"}};
  if (as_configured.contains("health")) health = as_configured.at("health");
  // Lists may be long: how many prefixes, not which.
  json options = model::options_json(s.config);
  for (const char* list : {"allow", "deny"})
    if (options.contains(list)) options[list] = options[list].size();
  json out = {{"name", s.config.name},
              {"owner", std::string{model::to_string(s.config.owner)}},
              {"address", format_ip(s.config.address)},
              {"protocol", std::string{model::to_string(s.config.protocol)}},
              {"port", model::to_string(s.config.port)},
              {"scheduler", std::string{model::to_string(s.config.scheduler)}},
              {"table_size", row ? v.snap.tables.services[*row].table_size : s.config.table_size},
              {"forward", std::string{model::to_string(s.config.forward)}},
              {"options", std::move(options)},
              {"mss_clamp", s.published.mss_clamp},
              {"health", std::move(health)},
              {"state", service_state(s)},
              {"backends_total", s.backends.size()},
              {"backends_up", up},
              {"backends_in_use", in_use},
              {"tier", s.decided.tier ? json(*s.decided.tier) : json()},
              {"panic", s.decided.panic},
              {"announcement", announcement_json(v, s.config.address)},
              {"sorry", s.decided.sorry},
              {"quorum", s.decided.announce},
              {"digest", hex(row ? v.snap.tables.services[*row].table_digest : 0)}};
  if (with_backends) out["backends"] = backends_json(v, s);
  return out;
}

json status_json(reconcile::controller& c, const view_of_now& v) {
  json services = {{"total", v.snap.services.size()}, {"up", 0}, {"degraded", 0}, {"down", 0}};
  std::size_t total = 0;
  std::size_t up = 0;
  std::size_t down = 0;
  std::size_t draining = 0;
  std::size_t unknown = 0;
  for (const auto& s : v.snap.services) {
    json& count = services[service_state(*s)];
    count = count.get<std::size_t>() + 1;
    for (const auto& b : s->config.backends)
      draining += b.admin == model::admin_state::drain ? 1 : 0;
    for (const auto& b : s->published.backends) {
      ++total;
      up += b.health == abi::shown_health::up || b.health == abi::shown_health::unchecked ? 1 : 0;
      down += b.health == abi::shown_health::down ? 1 : 0;
      unknown += b.health == abi::shown_health::unknown ? 1 : 0;
    }
  }
  json data_plane = {{"state", dataplane_state(v)},
                     {"pid", nullptr},
                     {"version", nullptr},
                     {"started", nullptr},
                     {"workers", 0},
                     {"heartbeat_age_ms", nullptr},
                     {"generation", 0},
                     {"hugepages", false}};
  std::uint64_t tracked = 0;
  std::uint64_t capacity = 0;
  json warnings = v.snap.warnings;
  if (v.alive) {
    const abi::dataplane_info& info = v.data_plane->map().info();
    using namespace std::chrono;
    data_plane["pid"] = info.pid;
    data_plane["version"] = text_of(info.version);
    data_plane["started"] = rfc3339(system_clock::time_point{
        duration_cast<system_clock::duration>(nanoseconds{info.started_ns})});
    data_plane["workers"] = v.data_plane->workers();
    data_plane["heartbeat_age_ms"] = age_ms(v.now_ns, info.heartbeat_ns.read());
    data_plane["generation"] = dataplane_generation(v);
    data_plane["hugepages"] = (info.flags & abi::dataplane_huge_pages) != 0;
    for (std::uint32_t i = 0; i < v.data_plane->workers(); ++i) {
      const abi::worker_block& w = v.data_plane->map().worker(i);
      tracked += w.tracked4.read() + w.tracked6.read();
      capacity += w.capacity4 + w.capacity6;
    }
    if (const auto used = info.config_instance.read(); used != 0 && used != v.snap.segment_instance)
      warnings.push_back("the data plane still uses tables that were replaced");
    if (info.bad_generations.read() != 0)
      warnings.push_back("the data plane has refused " +
                         std::to_string(info.bad_generations.read()) + " generations as damaged");
  } else {
    warnings.push_back("no data plane runs: nothing is forwarded");
  }
  return {{"node", c.node().name},
          {"version", SLUICE_VERSION},
          {"revision", v.snap.revision},
          {"generation", v.snap.generation},
          {"digest", hex(v.snap.tables.header.digest)},
          {"published", v.snap.published},
          {"dataplane", std::move(data_plane)},
          {"services", std::move(services)},
          {"backends",
           {{"total", total},
            {"up", up},
            {"down", down},
            {"draining", draining},
            {"unknown", unknown}}},
          {"connections", {{"tracked", tracked}, {"capacity", capacity}}},
          {"drained", v.snap.drain.drained ? json{{"time", rfc3339(v.snap.drain.time)},
                                                  {"author", v.snap.drain.author},
                                                  {"reason", v.snap.drain.reason}}
                                           : json()},
          {"warnings", std::move(warnings)}};
}

json workers_json(const view_of_now& v) {
  json list = json::array();
  if (!v.data_plane) return list;
  const auto& map = v.data_plane->map();
  for (std::uint32_t i = 0; i < v.data_plane->workers(); ++i) {
    const abi::worker_block& w = map.worker(i);
    json ports = json::array();
    for (unsigned p = 0; p < abi::max_ports; ++p)
      if ((w.port_mask >> p & 1u) != 0) ports.push_back(text_of(map.port(p).name));
    list.push_back({{"id", i},
                    {"state", worker_state(v, i)},
                    {"cpu", w.cpu},
                    {"numa_node", w.numa_node},
                    {"placement", text_of(w.placement)},
                    {"ports", std::move(ports)},
                    {"queue", w.queue},
                    {"generation", w.generation.epoch.load(std::memory_order_acquire)},
                    {"heartbeat_age_ms", age_ms(v.now_ns, w.heartbeat_ns.read())},
                    {"busy", static_cast<double>(w.busy_permille.read()) / 1000},
                    {"connections", w.tracked4.read() + w.tracked6.read()},
                    {"adopted", read(w, abi::counter_id::connections_adopted)},
                    {"capacity", w.capacity4 + w.capacity6},
                    {"rx_packets", read(w, abi::counter_id::rx_packets)},
                    {"tx_packets", read(w, abi::counter_id::tx_packets)}});
  }
  return list;
}

json ports_json(const view_of_now& v, const node_config& node, const xdp_counters& xdp) {
  json list = json::array();
  // null: no XDP program of ours is there.
  const auto add_standin = [&](const std::string& port) {
    json forwarded;
    json dropped;
    for (const auto& x : xdp)
      if (x.port == port && x.counted) {
        forwarded = x.counted->forwarded + x.counted->pinned;
        dropped = x.counted->dropped;
      }
    list.back()["standin_forwarded"] = std::move(forwarded);
    list.back()["standin_dropped"] = std::move(dropped);
  };
  if (!v.data_plane) {
    // As configured: what will be there once a data plane runs.
    for (const auto& p : node.dataplane.ports) {
      list.push_back({{"name", p.name},
                      {"device", p.device},
                      {"driver", nullptr},
                      {"kernel_name", p.interface.empty() ? json() : json(p.interface)},
                      {"mac", nullptr},
                      {"mtu", 0},
                      {"rx_queues", 0},
                      {"tx_queues", 0},
                      {"numa_node", -1},
                      {"link", "down"},
                      {"rest_to_kernel", false},
                      {"note", "no data plane runs"},
                      {"rx_packets", 0},
                      {"rx_bytes", 0},
                      {"tx_packets", 0},
                      {"tx_bytes", 0},
                      {"rx_missed", 0},
                      {"rx_errors", 0},
                      {"tx_errors", 0}});
      add_standin(p.name);
    }
    return list;
  }
  for (unsigned i = 0; i < abi::max_ports; ++i) {
    const abi::port_info& p = v.data_plane->map().port(i);
    if (p.in_use == 0) continue;
    const bool up = v.alive && p.link_up.load(std::memory_order_relaxed) != 0;
    list.push_back({{"name", text_of(p.name)},
                    {"device", text_of(p.device)},
                    {"driver", text_of(p.driver)},
                    {"kernel_name", text_of(p.kernel_name)},
                    {"mac", format_mac(p.mac)},
                    {"mtu", p.mtu},
                    {"rx_queues", p.rx_queues},
                    {"tx_queues", p.tx_queues},
                    {"numa_node", p.numa_node},
                    {"link", up ? "up" : "down"},
                    {"rest_to_kernel", p.leaves_rest_to_kernel != 0},
                    {"note", text_of(p.note)},
                    {"rx_packets", p.rx_packets.read()},
                    {"rx_bytes", p.rx_bytes.read()},
                    {"tx_packets", p.tx_packets.read()},
                    {"tx_bytes", p.tx_bytes.read()},
                    {"rx_missed", p.rx_missed.read()},
                    {"rx_errors", p.rx_errors.read()},
                    {"tx_errors", p.tx_errors.read()}});
    add_standin(text_of(p.name));
  }
  return list;
}

json nodes_json(reconcile::controller& c, const view_of_now& v) {
  return json::array({{{"name", c.node().name},
                       {"state", v.snap.drain.drained ? "drained" : "up"},
                       {"revision", v.snap.revision},
                       {"generation", v.snap.generation},
                       {"digest", hex(v.snap.tables.header.digest)},
                       {"self", true}}});
}

json stats_json(const view_of_now& v, const std::optional<std::string>& only,
                const xdp_counters& xdp) {
  json services = json::array();
  for (const auto& s : v.snap.services) {
    if (only && s->config.name != *only) continue;
    const auto row = v.service_row(s->config.name);
    const publish::counter_sums own = row ? v.service_counters(*row) : publish::counter_sums{};
    json backends = json::array();
    std::uint64_t connections = 0;
    for (const auto& b : s->config.backends) {
      const auto at = v.backend_row(row, b.address);
      const publish::counter_sums c = at ? v.backend_counters(*at) : publish::counter_sums{};
      const std::uint64_t open = c[2] > c[3] ? c[2] - c[3] : 0;
      connections += open;
      backends.push_back({{"address", format_ip(b.address)},
                          {"packets", c[0]},
                          {"bytes", c[1]},
                          {"connections_opened", c[2]},
                          {"connections", open},
                          {"resets", c[4]}});
    }
    services.push_back({{"name", s->config.name},
                        {"packets", own[0]},
                        {"bytes", own[1]},
                        {"connections_opened", own[2]},
                        {"connections", connections},
                        {"dropped", own[3]},
                        {"backends", std::move(backends)}});
  }
  const auto sum = [&v](abi::counter_id id) { return v.data_plane ? v.data_plane->sum(id) : 0; };
  std::uint64_t dropped = 0;
  for (std::size_t i = 0; i < abi::counter_count; ++i)
    if (abi::counter_infos[i].drop) dropped += sum(static_cast<abi::counter_id>(i));
  std::uint64_t standin_forwarded = 0;
  std::uint64_t standin_dropped = 0;
  for (const auto& x : xdp) {
    if (!x.counted) continue;
    standin_forwarded += x.counted->forwarded + x.counted->pinned;
    standin_dropped += x.counted->dropped;
  }
  return {{"time", rfc3339(std::chrono::system_clock::now())},
          {"total",
           {{"rx_packets", sum(abi::counter_id::rx_packets)},
            {"rx_bytes", sum(abi::counter_id::rx_bytes)},
            {"tx_packets", sum(abi::counter_id::tx_packets)},
            {"tx_bytes", sum(abi::counter_id::tx_bytes)},
            {"forwarded", sum(abi::counter_id::forwarded)},
            {"to_kernel", sum(abi::counter_id::to_kernel)},
            {"dropped", dropped},
            {"standin_forwarded", standin_forwarded},
            {"standin_dropped", standin_dropped}}},
          {"services", std::move(services)}};
}

json drops_json(const view_of_now& v, const xdp_counters& xdp) {
  json list = json::array();
  for (std::size_t i = 0; i < abi::counter_count; ++i) {
    const auto& info = abi::counter_infos[i];
    if (!info.drop) continue;
    list.push_back(
        {{"reason", std::string{info.name}},
         {"text", std::string{info.text}},
         {"packets", v.data_plane ? v.data_plane->sum(static_cast<abi::counter_id>(i)) : 0}});
  }
  for (std::size_t i = 0; i < abi::standin_drop_count; ++i)
    list.push_back({{"reason", std::string{abi::standin_drop_infos[i].name}},
                    {"text", std::string{abi::standin_drop_infos[i].text}},
                    {"packets", standin_drops(xdp, i)}});
  return list;
}

json counters_json(const view_of_now& v, const xdp_counters& xdp) {
  json list = json::array();
  for (std::size_t i = 0; i < abi::counter_count; ++i) {
    const auto& info = abi::counter_infos[i];
    list.push_back(
        {{"name", std::string{info.drop ? "drop_" : ""} + std::string{info.name}},
         {"text", std::string{info.text}},
         {"value", v.data_plane ? v.data_plane->sum(static_cast<abi::counter_id>(i)) : 0}});
  }
  for (std::size_t i = 0; i < abi::standin_drop_count; ++i)
    list.push_back({{"name", "drop_" + std::string{abi::standin_drop_infos[i].name}},
                    {"text", std::string{abi::standin_drop_infos[i].text}},
                    {"value", standin_drops(xdp, i)}});
  return list;
}

}  // namespace sluice::api
