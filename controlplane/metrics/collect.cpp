// SPDX-License-Identifier: Apache-2.0
#include <prometheus/client_metric.h>
#include <prometheus/metric_type.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <utility>

#include "controlplane/api/objects.hpp"
#include "controlplane/metrics/exporter.hpp"

namespace sluice::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using labels = std::vector<ClientMetric::Label>;

// page collects families in the order in which they are begun.
class page {
 public:
  void counter(const char* name, const char* help) { begin(name, help, MetricType::Counter); }
  void gauge(const char* name, const char* help) { begin(name, help, MetricType::Gauge); }
  void add(double value, labels l = {}) {
    ClientMetric m;
    m.label = std::move(l);
    (families_.back().type == MetricType::Counter ? m.counter.value : m.gauge.value) = value;
    families_.back().metric.push_back(std::move(m));
  }
  void add(std::uint64_t value, labels l = {}) { add(static_cast<double>(value), std::move(l)); }
  void histogram(const char* name, const char* help, const reconcile::latency_histogram& h) {
    begin(name, help, MetricType::Histogram);
    ClientMetric m;
    std::uint64_t count = 0;
    for (std::size_t i = 0; i <= h.bounds.size(); ++i) {
      count += h.count(i);
      m.histogram.bucket.push_back(
          {count, i < h.bounds.size() ? h.bounds[i] : std::numeric_limits<double>::infinity()});
    }
    m.histogram.sample_count = count;
    m.histogram.sample_sum = h.sum_seconds();
    families_.back().metric.push_back(std::move(m));
  }
  [[nodiscard]] std::vector<MetricFamily> take() && { return std::move(families_); }

 private:
  void begin(const char* name, const char* help, MetricType type) {
    families_.push_back({name, help, type, {}});
  }
  std::vector<MetricFamily> families_;
};

void add_node(page& p, reconcile::controller& c, const api::view_of_now& v) {
  p.gauge("sluice_build_info", "Version of the control plane; always 1.");
  p.add(1.0, {{"version", SLUICE_VERSION}, {"node", c.node().name}});
  p.gauge("sluice_revision", "Revision of the desired state.");
  p.add(v.snap.revision);
  p.gauge("sluice_generation", "Generation of the published tables.");
  p.add(v.snap.generation);
  p.gauge("sluice_published", "1: the workers' tables are as the desired state and health are.");
  p.add(v.snap.published ? 1.0 : 0.0);
  p.gauge("sluice_node_drained", "1: an operator has taken this node out: it announces nothing.");
  p.add(v.snap.drain.drained ? 1.0 : 0.0);
  p.gauge("sluice_tables_info",
          "Digest of all lookup tables, equal on nodes that choose alike; always 1.");
  p.add(1.0, {{"digest", api::hex(v.snap.tables.header.digest)}});

  const auto& counters = c.counters();
  const auto load = [](const std::atomic<std::uint64_t>& n) {
    return n.load(std::memory_order_relaxed);
  };
  p.counter("sluice_publish_total", "Generations published.");
  p.add(load(counters.published));
  p.counter("sluice_publish_deferred_total", "Tries to publish that found a worker stuck.");
  p.add(load(counters.deferred));
  p.counter("sluice_publish_refused_total", "Tries to publish that the limits refused.");
  p.add(load(counters.refused));
  p.counter("sluice_tables_built_total", "Lookup tables built.");
  p.add(load(counters.tables_built));
  p.histogram("sluice_publish_seconds", "Time to build and publish a generation.", counters.build);
  p.histogram("sluice_publish_verdict_seconds",
              "Time from a health verdict until every worker uses what follows from it.",
              counters.verdict);
  const auto health = c.health_counters();
  p.counter("sluice_health_probes_total", "Health probes that ended, by outcome.");
  p.add(health.succeeded, {{"outcome", "success"}});
  p.add(health.failed, {{"outcome", "failure"}});
  p.counter("sluice_health_probes_deferred_total",
            "Health probes that had to wait for a descriptor or memory.");
  p.add(health.deferred);
  p.gauge("sluice_health_probes_in_flight", "Health probes that wait for an answer.");
  p.add(std::uint64_t{health.in_flight});
}

void add_sources(page& p, reconcile::controller& c) {
  const auto all = c.sources();
  const auto each = [&](auto&& value) {
    for (const auto& s : all) p.add(value(s), {{"type", s.type}, {"name", s.name}});
  };
  p.gauge("sluice_discover_up", "1: the source of backends has answered when last asked.");
  each([](const auto& s) { return s.problem.empty() && s.last_success ? 1.0 : 0.0; });
  p.gauge("sluice_discover_backends", "Backends in the source's last answer.");
  each([](const auto& s) { return std::uint64_t{s.backends}; });
  p.counter("sluice_discover_answers_total", "Answers of the source.");
  each([](const auto& s) { return s.answers; });
  p.counter("sluice_discover_errors_total", "Questions that the source did not answer.");
  each([](const auto& s) { return s.errors; });
  p.gauge("sluice_discover_last_success_seconds", "When the source last answered, since 1970.");
  each([](const auto& s) {
    return s.last_success
               ? std::chrono::duration<double>(s.last_success->time_since_epoch()).count()
               : 0.0;
  });
}

void add_data_plane(page& p, const api::view_of_now& v) {
  p.gauge("sluice_dataplane_up", "1: a data plane runs and its workers turn.");
  p.add(api::dataplane_state(v) == "running" ? 1.0 : 0.0);
  p.gauge("sluice_dataplane_generation", "Oldest generation that a worker uses.");
  p.add(api::dataplane_generation(v));
  if (!v.data_plane) return;
  const auto& o = *v.data_plane;
  p.gauge("sluice_dataplane_start_time_seconds", "Start of the data plane, since the epoch.");
  p.add(static_cast<double>(o.map().info().started_ns) / 1e9);

  const auto each_worker = [&](auto&& value) {
    for (std::uint32_t i = 0; i < o.workers(); ++i)
      p.add(value(o.map().worker(i)), {{"worker", std::to_string(i)}});
  };
  using abi::worker_block;
  p.gauge("sluice_worker_busy_ratio", "Share of the last second spent on packets.");
  each_worker(
      [](const worker_block& w) { return static_cast<double>(w.busy_permille.read()) / 1000; });
  p.gauge("sluice_worker_heartbeat_age_seconds", "Time since the worker's last sign of life.");
  each_worker([&](const worker_block& w) {
    const std::uint64_t then = w.heartbeat_ns.read();
    return v.now_ns > then ? static_cast<double>(v.now_ns - then) / 1e9 : 0.0;
  });
  p.gauge("sluice_worker_connections", "Connections in the worker's table.");
  each_worker([](const worker_block& w) { return w.tracked4.read() + w.tracked6.read(); });
  p.gauge("sluice_worker_connections_capacity", "Room in the worker's table.");
  each_worker([](const worker_block& w) { return w.capacity4 + w.capacity6; });

  p.gauge("sluice_worker_generation", "Generation that the worker uses.");
  each_worker(
      [](const worker_block& w) { return w.generation.epoch.load(std::memory_order_acquire); });
  p.gauge("sluice_worker_up", "1: the worker runs and gives signs of life.");
  for (std::uint32_t i = 0; i < o.workers(); ++i)
    p.add(api::worker_state(v, i) == "running" ? 1.0 : 0.0, {{"worker", std::to_string(i)}});

  // One family for each counter of counters.def; those that are drops share one.
  std::vector<std::string> names;
  for (std::size_t i = 0; i < abi::counter_count; ++i) {
    const auto& info = abi::counter_infos[i];
    if (info.drop) continue;
    const std::string name = "sluice_worker_" + std::string{info.name} + "_total";
    const std::string help = std::string{info.text};
    p.counter(name.c_str(), help.c_str());
    each_worker([i](const worker_block& w) { return w.counters[i].read(); });
  }
  p.counter("sluice_worker_dropped_packets_total",
            "Packets that ended anywhere but at a backend, by reason.");
  for (std::size_t i = 0; i < abi::counter_count; ++i) {
    if (!abi::counter_infos[i].drop) continue;
    for (std::uint32_t w = 0; w < o.workers(); ++w)
      p.add(o.map().worker(w).counters[i].read(),
            {{"worker", std::to_string(w)}, {"reason", std::string{abi::counter_infos[i].name}}});
  }
}

void add_ports(page& p, const api::view_of_now& v) {
  if (!v.data_plane) return;
  const auto each_port = [&](auto&& value) {
    for (unsigned i = 0; i < abi::max_ports; ++i) {
      const abi::port_info& port = v.data_plane->map().port(i);
      if (port.in_use == 0) continue;
      const std::string name{port.name.begin(),
                             std::find(port.name.begin(), port.name.end(), '\0')};
      p.add(value(port), {{"port", name}});
    }
  };
  using abi::port_info;
  p.gauge("sluice_port_up", "1: the port has a link.");
  each_port([&](const port_info& x) {
    return v.alive && x.link_up.load(std::memory_order_relaxed) != 0 ? 1.0 : 0.0;
  });
  struct field {
    const char* name;
    const char* help;
    abi::counter port_info::*counter;
  };
  static constexpr field fields[] = {
      {"sluice_port_rx_packets_total", "Packets received, as the device counts.",
       &port_info::rx_packets},
      {"sluice_port_rx_bytes_total", "Bytes received, as the device counts.", &port_info::rx_bytes},
      {"sluice_port_tx_packets_total", "Packets sent, as the device counts.",
       &port_info::tx_packets},
      {"sluice_port_tx_bytes_total", "Bytes sent, as the device counts.", &port_info::tx_bytes},
      {"sluice_port_rx_missed_total", "Packets the device had no room for.", &port_info::rx_missed},
      {"sluice_port_rx_errors_total", "Damaged packets received.", &port_info::rx_errors},
      {"sluice_port_tx_errors_total", "Packets that could not be sent.", &port_info::tx_errors},
      {"sluice_port_rx_no_buffer_total", "Packets without a buffer to receive them into.",
       &port_info::rx_no_buffer}};
  for (const auto& f : fields) {
    p.counter(f.name, f.help);
    each_port([&f](const port_info& x) { return (x.*f.counter).read(); });
  }
}

// add_xdp(): also while there is no data plane, which is when the stand-in counts.
void add_xdp(page& p, const node_config& node) {
  const auto ports = reconcile::read_xdp_counters(node);
  // f(port, what its program has counted)
  const auto each = [&](auto&& f) {
    for (const auto& x : ports)
      if (x.counted) f(x.port, *x.counted);
  };
  p.counter("sluice_xdp_packets_total",
            "Packets that the XDP program handed to the data plane or left to the kernel.");
  each([&](const std::string& port, const auto& c) {
    p.add(c.redirected, {{"port", port}, {"verdict", "redirected"}});
    p.add(c.no_socket, {{"port", port}, {"verdict", "no_socket"}});
    p.add(c.passed, {{"port", port}, {"verdict", "passed"}});
    p.add(c.malformed, {{"port", port}, {"verdict", "malformed"}});
  });
  p.counter("sluice_standin_forwarded_packets_total",
            "Packets that the XDP stand-in forwarded, as the hash or the connection table says.");
  each([&](const std::string& port, const auto& c) {
    p.add(c.forwarded, {{"port", port}, {"by", "hash"}});
    p.add(c.pinned, {{"port", port}, {"by", "table"}});
  });
  p.counter("sluice_standin_dropped_packets_total",
            "Packets that the XDP stand-in could not forward, by reason.");
  each([&](const std::string& port, const auto& c) {
    for (std::size_t i = 0; i < abi::standin_drop_count; ++i)
      p.add(c.drops[i], {{"port", port}, {"reason", std::string{abi::standin_drop_infos[i].name}}});
  });
}

void add_services(page& p, const api::view_of_now& v) {
  using service = reconcile::service_runtime;
  const auto each = [&](auto&& value) {
    for (const auto& s : v.snap.services) p.add(value(*s), {{"service", s->config.name}});
  };
  p.gauge("sluice_service_up", "1: at least one backend can serve.");
  each([](const service& s) { return api::service_state(s) == "down" ? 0.0 : 1.0; });
  p.gauge("sluice_service_backends", "Backends as configured.");
  each([](const service& s) { return std::uint64_t{s.backends.size()}; });
  p.gauge("sluice_service_panic", "1: too few backends can serve, so health is ignored.");
  each([](const service& s) { return s.decided.panic ? 1.0 : 0.0; });
  p.gauge("sluice_service_tier", "Tier that new connections go to; not there: none, or panic.");
  for (const auto& s : v.snap.services)
    if (s->decided.tier)
      p.add(static_cast<double>(*s->decided.tier), {{"service", s->config.name}});
  p.gauge("sluice_vip_announced", "1: the address is where a routing daemon announces it from.");
  for (const auto& [address, is] : v.snap.announced)
    p.add(is == decision::announcement::announced ? 1.0 : 0.0, {{"address", format_ip(address)}});
  p.gauge("sluice_service_connections", "Connections that are tracked.");
  each([&](const service& s) {
    const auto row = v.service_row(s.config.name);
    std::uint64_t sum = 0;
    for (const auto& b : s.config.backends)
      if (const auto at = v.backend_row(row, b.address)) {
        const auto c = v.backend_counters(*at);
        sum += c[2] > c[3] ? c[2] - c[3] : 0;
      }
    return sum;
  });
  p.gauge("sluice_service_table_info", "Digest of the service's lookup table; always 1.");
  for (const auto& s : v.snap.services) {
    const auto row = v.service_row(s->config.name);
    if (row)
      p.add(1.0, {{"service", s->config.name},
                  {"digest", api::hex(v.snap.tables.services[*row].table_digest)}});
  }
  static constexpr std::array<std::pair<const char*, const char*>, 4> names{
      {{"sluice_service_packets_total", "Packets to the service."},
       {"sluice_service_bytes_total", "Bytes to the service, from the IP header on."},
       {"sluice_service_connections_opened_total", "Connections to the service."},
       {"sluice_service_dropped_packets_total", "Packets to the service that were dropped."}}};
  for (std::size_t i = 0; i < names.size(); ++i) {
    p.counter(names[i].first, names[i].second);
    for (const auto& s : v.snap.services)
      if (const auto row = v.service_row(s->config.name))
        p.add(v.service_counters(*row)[i], {{"service", s->config.name}});
  }
}

void add_backends(page& p, const api::view_of_now& v) {
  // f(service name, address, row, what is published of it)
  const auto each = [&](auto&& f) {
    for (const auto& s : v.snap.services) {
      const auto service = v.service_row(s->config.name);
      for (const auto& b : s->published.backends)
        if (const auto row = v.backend_row(service, b.address))
          f(labels{{"service", s->config.name}, {"backend", format_ip(b.address)}}, *row);
    }
  };
  const auto& colds = v.snap.tables.backend_colds;
  std::map<std::string, std::uint32_t> sizes;  // of services' tables
  for (const auto& s : v.snap.services)
    if (const auto row = v.service_row(s->config.name))
      sizes[s->config.name] = v.snap.tables.services[*row].table_size;
  p.gauge("sluice_backend_up", "1: the backend is up, or is not checked.");
  each([&](labels l, std::uint32_t row) {
    const auto h = colds[row].health;
    p.add(h == abi::shown_health::up || h == abi::shown_health::unchecked ? 1.0 : 0.0,
          std::move(l));
  });
  p.gauge("sluice_backend_draining", "1: the backend takes no new connections.");
  each([&](labels l, std::uint32_t row) {
    p.add(colds[row].admin == abi::shown_admin::draining ? 1.0 : 0.0, std::move(l));
  });
  p.gauge("sluice_backend_weight", "Weight that the table in use was built with.");
  each([&](labels l, std::uint32_t row) {
    p.add(std::uint64_t{colds[row].effective_weight}, std::move(l));
  });
  p.gauge("sluice_backend_share_ratio", "Part of the table's slots that are the backend's.");
  each([&](labels l, std::uint32_t row) {
    const std::uint32_t size = sizes.at(l.front().value);
    p.add(size == 0 ? 0.0 : static_cast<double>(colds[row].slots) / size, std::move(l));
  });
  p.gauge("sluice_backend_connections", "Connections that are tracked.");
  each([&](labels l, std::uint32_t row) {
    const auto c = v.backend_counters(row);
    p.add(c[2] > c[3] ? c[2] - c[3] : std::uint64_t{0}, std::move(l));
  });
  static constexpr std::array<std::pair<const char*, const char*>, 3> names{
      {{"sluice_backend_packets_total", "Packets forwarded to the backend."},
       {"sluice_backend_bytes_total", "Bytes forwarded to the backend, from the IP header on."},
       {"sluice_backend_connections_opened_total", "Connections given to the backend."}}};
  for (std::size_t i = 0; i < names.size(); ++i) {
    p.counter(names[i].first, names[i].second);
    each([&](labels l, std::uint32_t row) { p.add(v.backend_counters(row)[i], std::move(l)); });
  }
  p.counter("sluice_backend_resets_total",
            "Connections that the backend reset; nat and full-nat only.");
  each([&](labels l, std::uint32_t row) { p.add(v.backend_counters(row)[4], std::move(l)); });
}

// add_reports(): what backends say of themselves, and where their traffic spoke for them.
void add_reports(page& p, const api::view_of_now& v) {
  using reconcile::backend_report;
  using reconcile::backend_runtime;
  p.counter("sluice_service_health_hints_total",
            "Probes made at once, as connections to a backend were not answered, or reset.");
  for (const auto& s : v.snap.services)
    p.add(s->hints->load(std::memory_order_relaxed), {{"service", s->config.name}});

  // f(labels, what is reported of the backend, the service, the backend's position)
  const auto each = [&](auto&& f) {
    for (const auto& s : v.snap.services)
      for (std::size_t i = 0; i < s->backends.size(); ++i)
        if (const auto& r = s->backends[i].report)
          f(labels{{"service", s->config.name},
                   {"backend", format_ip(s->config.backends[i].address)}},
            *r, *s, i);
  };
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const auto age = [now](const std::atomic<std::int64_t>& ms) {
    return std::max(now - static_cast<double>(ms.load(std::memory_order_relaxed)) / 1e3, 0.0);
  };
  // asked(value): of those that have an agent.
  const auto asked = [&](auto&& value) {
    each([&](labels l, const backend_report& r, const auto& s, std::size_t) {
      if (!s.config.agent.off()) p.add(value(r), std::move(l));
    });
  };
  p.gauge("sluice_backend_agent_up", "1: the agent has answered when last asked.");
  asked([](const auto& r) { return r.agent && r.agent_problem.empty() ? 1.0 : 0.0; });
  p.counter("sluice_backend_agent_answers_total", "Answers of the agent.");
  asked([](const auto& r) { return r.figures->answers.load(std::memory_order_relaxed); });
  p.counter("sluice_backend_agent_failures_total", "Questions that the agent did not answer.");
  asked([](const auto& r) { return r.figures->failures.load(std::memory_order_relaxed); });
  p.gauge("sluice_backend_agent_age_seconds", "Time since the agent's last answer.");
  each([&](labels l, const backend_report& r, const auto&, std::size_t) {
    if (r.figures->answered_ms != 0) p.add(age(r.figures->answered_ms), std::move(l));
  });
  p.gauge("sluice_backend_agent_state", "What the agent last said: 1 with that state, else 0.");
  each([&](const labels& l, const backend_report& r, const auto&, std::size_t) {
    if (!r.agent) return;
    const std::string_view is = r.agent->down ? "down" : agent::to_string(r.agent->mode);
    for (const std::string_view state : {"ready", "drain", "maint", "down"}) {
      labels with = l;
      with.push_back({"state", std::string{state}});
      p.add(is == state ? 1.0 : 0.0, std::move(with));
    }
  });

  // beating(value): of those that shall send heartbeats.
  const auto beating = [&](auto&& value) {
    each([&](labels l, const backend_report& r, const auto&, std::size_t) {
      if (r.heartbeat) p.add(value(r), std::move(l));
    });
  };
  p.counter("sluice_backend_heartbeats_total", "Heartbeats of the backend.");
  beating([](const auto& r) { return r.figures->beats.load(std::memory_order_relaxed); });
  p.gauge("sluice_backend_heartbeat_missing", "1: the backend was heard, and no longer is.");
  beating([](const auto& r) { return r.heartbeat->missing ? 1.0 : 0.0; });
  p.gauge("sluice_backend_heartbeat_age_seconds", "Time since the backend's last heartbeat.");
  each([&](labels l, const backend_report& r, const auto&, std::size_t) {
    if (r.figures->beat_ms != 0) p.add(age(r.figures->beat_ms), std::move(l));
  });
  p.gauge("sluice_backend_load_ratio", "Load that the backend's heartbeats report.");
  each([&](labels l, const backend_report& r, const auto&, std::size_t) {
    if (r.heartbeat && r.heartbeat->load) p.add(*r.heartbeat->load, std::move(l));
  });
  p.gauge("sluice_backend_asked_weight_ratio",
          "Part of its weight that the backend's agent or its load asks for.");
  each([&](labels l, const backend_report&, const auto& s, std::size_t i) {
    if (const auto& part = s.backends[i].condition.asked) p.add(*part, std::move(l));
  });
  p.gauge("sluice_backend_used_weight_ratio",
          "Part of its weight that the backend has, on the way to what is asked for.");
  each([&](labels l, const backend_report&, const auto& s, std::size_t i) {
    const auto& all = s.decided.next.backends;
    if (i < all.size() && all[i].weight) p.add(all[i].weight->used, std::move(l));
  });
}

}  // namespace

std::vector<MetricFamily> collect(reconcile::controller& controller) {
  const auto v = api::view_of_now::take(controller);
  page p;
  add_node(p, controller, v);
  add_sources(p, controller);
  add_data_plane(p, v);
  add_ports(p, v);
  add_xdp(p, controller.node());
  add_services(p, v);
  add_backends(p, v);
  add_reports(p, v);
  return std::move(p).take();
}

}  // namespace sluice::metrics
