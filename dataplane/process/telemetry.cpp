// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/telemetry.hpp"

#include <rte_telemetry.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "dataplane/abi/generation.hpp"

namespace sluice {
namespace {

// An answer of DPDK's has 16 KB at most: this many services, at 120 bytes each.
constexpr unsigned most_services = 100;

std::mutex source_mutex;
std::optional<telemetry_source> source;

template <std::size_t N>
std::string text_of(const std::array<char, N>& a) {
  return {a.begin(), std::find(a.begin(), a.end(), '\0')};
}

void add(rte_tel_data* d, const char* name, std::uint64_t value) {
  rte_tel_data_add_dict_u64(d, name, value);
}
void add(rte_tel_data* d, const char* name, const std::string& value) {
  // DPDK refuses longer ones altogether.
  rte_tel_data_add_dict_string(d, name, value.substr(0, RTE_TEL_MAX_STRING_LEN - 1).c_str());
}

int fail(rte_tel_data* d, const std::string& why) {
  rte_tel_data_start_dict(d);
  add(d, "error", why);
  return 0;
}

rte_tel_data* new_dict() {
  rte_tel_data* const d = rte_tel_data_alloc();
  if (d != nullptr) rte_tel_data_start_dict(d);
  return d;
}

std::uint64_t sum(const telemetry_source& s, std::size_t counter) {
  std::uint64_t all = 0;
  for (std::uint32_t w = 0; w < s.observations.layout().worker_count; ++w)
    all += s.observations.worker(w).counters[counter].read();
  return all;
}

// answered() calls body(source) under the lock; an error while there is none.
template <class Body>
int answered(rte_tel_data* d, Body&& body) {
  const std::lock_guard lock{source_mutex};
  if (!source) return fail(d, "the data plane is starting or stopping");
  return body(*source);
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  if (r.ec != std::errc{} || r.ptr != text.data() + text.size()) return std::nullopt;
  return n;
}

const char* phase_of(const abi::worker_block& w) {
  switch (w.phase.load(std::memory_order_relaxed)) {
    case abi::worker_phase::starting:
      return "starting";
    case abi::worker_phase::running:
      return "running";
    case abi::worker_phase::stopped:
      return "stopped";
    default:
      return "absent";
  }
}

void add_worker(rte_tel_data* d, const abi::worker_block& w) {
  add(d, "phase", phase_of(w));
  add(d, "cpu", static_cast<std::uint64_t>(w.cpu));
  add(d, "busy_permille", w.busy_permille.read());
  add(d, "connections", w.tracked4.read() + w.tracked6.read());
}

int show_workers(const char*, const char* params, rte_tel_data* d) {
  return answered(d, [&](const telemetry_source& s) {
    const std::uint32_t count = s.observations.layout().worker_count;
    rte_tel_data_start_dict(d);
    if (params != nullptr && *params != '\0') {
      const auto n = number(params);
      if (!n || *n >= count)
        return fail(
            d, "there is no such worker; they are numbered from 0 to " + std::to_string(count - 1));
      const abi::worker_block& w = s.observations.worker(static_cast<unsigned>(*n));
      add_worker(d, w);
      for (std::size_t i = 0; i < abi::counter_count; ++i) {
        const std::string name =
            (abi::counter_infos[i].drop ? "drop_" : "") + std::string{abi::counter_infos[i].name};
        add(d, name.c_str(), w.counters[i].read());
      }
      return 0;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      rte_tel_data* const one = new_dict();
      if (one == nullptr) return -1;
      const abi::worker_block& w = s.observations.worker(i);
      add_worker(one, w);
      for (const abi::counter_id id :
           {abi::counter_id::rx_packets, abi::counter_id::tx_packets, abi::counter_id::forwarded})
        add(one, std::string{abi::counter_infos[static_cast<std::size_t>(id)].name}.c_str(),
            w.counters[static_cast<std::size_t>(id)].read());
      rte_tel_data_add_dict_container(d, std::to_string(i).c_str(), one, 0);
    }
    return 0;
  });
}

int show_drops(const char*, const char*, rte_tel_data* d) {
  return answered(d, [&](const telemetry_source& s) {
    rte_tel_data_start_dict(d);
    for (std::size_t i = 0; i < abi::counter_count; ++i)
      if (abi::counter_infos[i].drop)
        add(d, std::string{abi::counter_infos[i].name}.c_str(), sum(s, i));
    return 0;
  });
}

int show_ports(const char*, const char*, rte_tel_data* d) {
  return answered(d, [&](const telemetry_source& s) {
    rte_tel_data_start_dict(d);
    for (unsigned i = 0; i < abi::max_ports; ++i) {
      const abi::port_info& p = s.observations.port(i);
      if (p.in_use == 0) continue;
      rte_tel_data* const one = new_dict();
      if (one == nullptr) return -1;
      add(one, "name", text_of(p.name));
      add(one, "device", text_of(p.device));
      add(one, "kernel_name", text_of(p.kernel_name));
      add(one, "link_up", p.link_up.load(std::memory_order_relaxed));
      add(one, "mtu", p.mtu);
      add(one, "rx_queues", p.rx_queues);
      add(one, "rx_packets", p.rx_packets.read());
      add(one, "tx_packets", p.tx_packets.read());
      add(one, "rx_missed", p.rx_missed.read());
      add(one, "rx_errors", p.rx_errors.read());
      add(one, "rx_no_buffer", p.rx_no_buffer.read());
      add(one, "tx_errors", p.tx_errors.read());
      rte_tel_data_add_dict_container(d, std::to_string(i).c_str(), one, 0);
    }
    return 0;
  });
}

// for_services() calls each(id, name) until it returns false. The generation may be replaced
// meanwhile: then a name may be wrong, and nothing worse, as a view checks what it reads.
template <class Each>
void for_services(const telemetry_source& s, Each&& each) {
  const std::lock_guard lock{telemetry_tables()};
  const attached_config* const tables = s.config->wanted().load(std::memory_order_acquire);
  if (tables == nullptr) return;
  const abi::generation_word now{tables->current().load(std::memory_order_acquire)};
  abi::config_view view;
  if (now.none() || !tables->open(now.slot(), view)) return;
  for (std::uint32_t i = 0; i < s.observations.layout().service_rows; ++i) {
    const auto id = static_cast<abi::service_id>(i);
    const abi::service_row* const row = view.service(id);
    const abi::service_cold* const cold = view.cold(id);
    if (row == nullptr || cold == nullptr || cold->name[0] == '\0') continue;
    if (!each(id, text_of(cold->name))) return;
  }
}

void add_service(const telemetry_source& s, rte_tel_data* d, abi::service_id id,
                 const std::string& name) {
  std::array<std::uint64_t, 4> all{};
  for (std::uint32_t w = 0; w < s.observations.layout().worker_count; ++w) {
    const abi::service_counters& c = s.observations.services(w)[static_cast<std::size_t>(id)];
    all[0] += c.packets.read();
    all[1] += c.bytes.read();
    all[2] += c.opened.read();
    all[3] += c.dropped.read();
  }
  add(d, "name", name);
  add(d, "packets", all[0]);
  add(d, "bytes", all[1]);
  add(d, "connections_opened", all[2]);
  add(d, "dropped", all[3]);
}

int show_services(const char*, const char* params, rte_tel_data* d) {
  const std::string wanted = params != nullptr ? params : "";
  return answered(d, [&](const telemetry_source& s) {
    if (!wanted.empty()) {
      bool found = false;
      for_services(s, [&](abi::service_id id, const std::string& name) {
        if (name != wanted) return true;
        rte_tel_data_start_dict(d);
        add_service(s, d, id, name);
        found = true;
        return false;
      });
      return found ? 0 : fail(d, "there is no service " + wanted);
    }
    rte_tel_data_start_dict(d);
    unsigned shown = 0;
    for_services(s, [&](abi::service_id id, const std::string& name) {
      rte_tel_data* const one = new_dict();
      if (one == nullptr) return false;
      add_service(s, one, id, name);
      // Names have characters that keys may not have.
      rte_tel_data_add_dict_container(d, std::to_string(static_cast<std::uint32_t>(id)).c_str(),
                                      one, 0);
      return ++shown < most_services;
    });
    return 0;
  });
}

// read_request() reads "FILE,key=value,...".
tl::expected<capture_request, std::string> read_request(const telemetry_source& s,
                                                        std::string_view text) {
  capture_request out;
  const auto take = [&text] {
    const std::size_t comma = text.find(',');
    const std::string_view one = text.substr(0, comma);
    text = comma == text.npos ? std::string_view{} : text.substr(comma + 1);
    return one;
  };
  out.path = std::string{take()};
  while (!text.empty()) {
    const std::string_view one = take();
    const std::size_t equals = one.find('=');
    const std::string_view key = one.substr(0, equals);
    const std::string value{equals == one.npos ? std::string_view{} : one.substr(equals + 1)};
    const auto n = number(value);
    const auto wrong = [&] {
      return tl::unexpected{std::string{key} + ": '" + value + "' is not what it can be"};
    };
    if (key == "source" || key == "destination") {
      const auto prefix = parse_prefix(value);
      if (!prefix) return wrong();
      (key == "source" ? out.filter.source : out.filter.destination) = *prefix;
    } else if (key == "source-port" || key == "destination-port") {
      if (!n || *n > 0xffff) return wrong();
      (key == "source-port" ? out.filter.source_port : out.filter.destination_port) =
          static_cast<std::uint16_t>(*n);
    } else if (key == "protocol") {
      if (!n || *n > 0xff) return wrong();
      out.filter.protocol = static_cast<std::uint8_t>(*n);
    } else if (key == "service") {
      for_services(s, [&](abi::service_id id, const std::string& name) {
        if (name == value) out.filter.service = id;
        return name != value;
      });
      if (!out.filter.service) return tl::unexpected{"there is no service " + value};
    } else if (key == "count" || key == "seconds" || key == "snap") {
      if (!n || *n == 0 || (key != "count" && *n > 1'000'000)) return wrong();
      if (key == "count") out.count = *n;
      if (key == "seconds") out.seconds = *n;
      if (key == "snap") out.snap = static_cast<std::uint32_t>(*n);
    } else {
      return tl::unexpected{"unknown key " + std::string{key}};
    }
  }
  return out;
}

int do_capture(const char*, const char* params, rte_tel_data* d) {
  const std::string_view text = params != nullptr ? params : "";
  return answered(d, [&](const telemetry_source& s) {
    capture_status status;
    if (constexpr std::string_view start = "start,"; text.starts_with(start)) {
      const auto request = read_request(s, text.substr(start.size()));
      if (!request) return fail(d, request.error());
      if (const auto started = s.captures->start(*request); !started)
        return fail(d, started.error());
      status = s.captures->status();
    } else if (text == "stop") {
      status = s.captures->stop();
    } else if (text.empty()) {
      status = s.captures->status();
    } else {
      return fail(d, "expected start,FILE[,key=value...], stop or nothing");
    }
    rte_tel_data_start_dict(d);
    add(d, "running", status.running ? 1u : 0u);
    add(d, "file", status.path);
    add(d, "written", status.written);
    add(d, "missed", status.missed);
    if (!status.error.empty()) add(d, "error", status.error);
    return 0;
  });
}

int show_help(const char*, const char*, rte_tel_data* d);

struct command {
  const char* name;
  telemetry_cb run;
  const char* help;
};
constexpr std::array<command, 6> commands{{
    {"/sluice/workers", show_workers,
     "The workers: state, load, packets. Parameter: a worker's number, for all its counters"},
    {"/sluice/services", show_services,
     "What services have had: packets, bytes, connections, drops. Parameter: a service's name"},
    {"/sluice/drops", show_drops, "Packets that were dropped, by reason, over all workers"},
    {"/sluice/ports", show_ports, "The ports: link, queues, and what the devices have counted"},
    {"/sluice/capture", do_capture,
     "start,FILE[,key=value...]: captures to FILE; stop; without parameter: how far it is"},
    {"/sluice/help", show_help, "These commands"},
}};

int show_help(const char*, const char*, rte_tel_data* d) {
  rte_tel_data_start_dict(d);
  for (const command& c : commands) add(d, c.name, c.help);
  return 0;
}

}  // namespace

std::mutex& telemetry_tables() {
  static std::mutex tables;
  return tables;
}

void attach_telemetry(const telemetry_source& what) {
  {
    const std::lock_guard lock{source_mutex};
    source = what;
  }
  for (const command& c : commands)
    if (rte_telemetry_register_cmd(c.name, c.run, c.help) != 0)
      spdlog::warn("telemetry: {} cannot be registered", c.name);
}

void detach_telemetry() {
  const std::lock_guard lock{source_mutex};
  source.reset();
}

}  // namespace sluice
