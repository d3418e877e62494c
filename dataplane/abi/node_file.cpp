// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/node_file.hpp"

#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <system_error>

#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/node_device.hpp"
#include "dataplane/abi/node_kubernetes.hpp"
#include "dataplane/abi/node_path.hpp"
#include "dataplane/abi/version.hpp"
#include "dataplane/abi/whole_file.hpp"

namespace sluice {
namespace {

using yaml::assign;
using yaml::map_value;
using yaml::value;

constexpr unsigned max_cpu = 1023;
constexpr std::size_t longest_interface = 15;  // IFNAMSIZ, without the NUL

bool name_ok(std::string_view name, std::size_t longest) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !name.empty() && name.size() <= longest && plain(name[0]) &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return plain(c) || c == '.' || c == '_' || c == '-'; });
}

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> buffer{};
  if (gethostname(buffer.data(), buffer.size() - 1) != 0 || buffer[0] == '\0') return "localhost";
  return buffer.data();
}

// auto_or() reads "auto" (nothing) or a number.
std::optional<unsigned> auto_or(const value& v, unsigned min, unsigned max) {
  if (v.is_word("auto")) return std::nullopt;
  const auto n = v.integer(min, max, "auto");
  return n ? std::optional{static_cast<unsigned>(*n)} : std::nullopt;
}

void add_cpu(const value& v, std::vector<unsigned>& cpus, unsigned cpu) {
  if (std::find(cpus.begin(), cpus.end(), cpu) != cpus.end())
    v.error("cpu " + std::to_string(cpu) + " is named twice; one worker runs on each");
  else
    cpus.push_back(cpu);
}

// add_cpus() reads "2-3,6".
void add_cpus(const value& v, std::string_view text, std::vector<unsigned>& cpus) {
  const auto wrong = [&] {
    v.error(yaml::shown(text) +
            " is not a cpu list; expected auto, a number of workers, or cpus such as \"2-3,6\" "
            "or [2, 3, 6], each from 0 to " +
            std::to_string(max_cpu));
  };
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    unsigned first = 0;
    auto r = std::from_chars(at, end, first);
    if (r.ec != std::errc{}) return wrong();
    unsigned last = first;
    if (r.ptr != end && *r.ptr == '-') {
      r = std::from_chars(r.ptr + 1, end, last);
      if (r.ec != std::errc{}) return wrong();
    }
    if (first > last || last > max_cpu) return wrong();
    for (unsigned cpu = first; cpu <= last; ++cpu) add_cpu(v, cpus, cpu);
    if (r.ptr == end) return;
    if (*r.ptr != ',') return wrong();
    at = r.ptr + 1;
  }
}

void read_workers(const value& v, workers_config& out) {
  if (v.is_word("auto")) return;
  if (v.kind() == yaml::node_kind::sequence) {
    out.selection = worker_selection::list;
    const auto items = v.items();
    for (const value& item : *items)
      if (const auto cpu = item.integer(0, max_cpu))
        add_cpu(item, out.cpus, static_cast<unsigned>(*cpu));
    if (items->empty()) v.error("the list is empty; expected at least one cpu, or auto");
  } else {
    const auto text = v.text();
    if (!text) return;
    if (text->find_first_not_of("0123456789") == text->npos) {
      // "6" in quotes: six workers, or cpu 6?
      if (v.quoted()) {
        v.error(yaml::shown(*text) +
                " in quotes; expected 4 for four workers, or [4] for one worker on cpu 4");
      } else if (const auto n = v.integer(1, abi::max_workers, "auto")) {
        out.selection = worker_selection::count;
        out.count = static_cast<unsigned>(*n);
      }
      return;
    }
    out.selection = worker_selection::list;
    add_cpus(v, *text, out.cpus);
  }
  if (out.cpus.size() > abi::max_workers)
    v.error(std::to_string(out.cpus.size()) + " cpus; expected at most " +
            std::to_string(abi::max_workers));
}

void read_port(const value& v, std::vector<port_config>& ports) {
  const auto m = v.map({"name", "device", "queues", "twin"});
  if (!m) return;
  port_config port;
  if (const auto name = m->require("name", "up0")) {
    if (const auto text = name->text()) {
      port.name = *text;
      const auto same = [&](const port_config& p) { return p.name == port.name; };
      if (!name_ok(*text, 32))
        name->error(yaml::shown(*text) +
                    " is not a port name; expected 1 to 32 of a-z, 0-9, '.', '_', '-', beginning "
                    "with a letter or digit");
      else if (std::any_of(ports.begin(), ports.end(), same))
        name->error(yaml::shown(*text) + " is the name of another port; expected one of its own");
    }
  }
  if (const auto device = m->require("device", "\"af_xdp:eth1\"")) {
    if (const auto text = device->text()) {
      port.device = *text;
      if (const auto parsed = parse_device(*text)) {
        port.kind = parsed->kind;
        port.interface = parsed->interface;
        for (const port_config& p : ports)
          if (const auto other = parse_device(p.device); other && other->id == parsed->id)
            device->error("'" + parsed->id + "' is the device of port '" + p.name +
                          "' already; expected a device of its own");
      } else {
        device->error(parsed.error());
      }
    }
  }
  if (const auto queues = m->find("queues")) port.queues = auto_or(*queues, 1, abi::max_workers);
  const auto twin = m->find("twin");
  if (twin && !twin->is_word("auto")) {
    if (!twin->is_word("true") && !twin->is_word("false"))
      twin->error("is neither auto nor true nor false; expected one of them");
    else if (port.twin = twin->is_word("true"); *port.twin && port.kind == device_kind::af_xdp)
      twin->error(
          "has no effect: an af_xdp port is an interface of the kernel already; expected auto or "
          "false");
  }
  if (port.wants_twin() && port.twin_name().size() > longest_interface)
    (twin ? *twin : v)
        .error("the twin would be called '" + port.twin_name() + "', and Linux allows " +
               std::to_string(longest_interface) +
               " bytes; expected a port name of at most 12, or twin: false");
  ports.push_back(std::move(port));
}

void read_next_hops(const value& v, dataplane_config& out) {
  const auto m = v.any_map();
  if (!m) return;
  for (const auto& [name, mac] : m->members()) {
    const auto port = std::find_if(out.ports.begin(), out.ports.end(),
                                   [&n = name](const port_config& p) { return p.name == n; });
    if (port == out.ports.end()) {
      std::vector<std::string_view> names;
      for (const port_config& p : out.ports) names.push_back(p.name);
      const auto near = yaml::did_you_mean(name, names);
      mac.error("names no port of dataplane.ports" +
                (near.empty() ? std::string{} : "; did you mean " + std::string{near} + "?"));
      continue;
    }
    const auto text = mac.text();
    if (!text) continue;
    const auto parsed = parse_mac(*text);
    if (!parsed)
      mac.error(parsed.error());
    else if ((*parsed)[0] & 1 || *parsed == mac_address{})
      mac.error(yaml::shown(*text) +
                " is a group or empty address; expected the MAC of one station");
    else
      port->next_hop = *parsed;
  }
}

// unusable_source() tells addresses that no packet may come from.
bool unusable_source(const ip_address& a) {
  const auto& b = a.bytes;
  if (a.is_v4()) return b[12] == 0 || b[12] == 127 || b[12] >= 224;
  return b[0] == 0xff || a == ip_address{} ||
         a == ip_address::v6({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
}

std::optional<ip_prefix> read_source(const value& v, bool v4) {
  const auto text = v.text();
  if (!text) return std::nullopt;
  const auto prefix = parse_prefix(*text);
  const std::string right = v4 ? "an IPv4 address, or a prefix of /8 to /32"
                               : "an IPv6 address, or a prefix of /32 to /128";
  if (!prefix) {
    v.error(prefix.error() + "; expected " + right);
    return std::nullopt;
  }
  if (prefix->address.is_v4() != v4) {
    v.error(yaml::shown(*text) + " is " + (v4 ? "IPv6" : "IPv4") + "; expected " + right);
    return std::nullopt;
  }
  if (prefix->length < (v4 ? 8 : 32)) {
    v.error(yaml::shown(*text) + " is too wide; expected " + right);
    return std::nullopt;
  }
  if (unusable_source(prefix->address)) {
    v.error(yaml::shown(*text) +
            " cannot be a source address; expected one that the backends accept");
    return std::nullopt;
  }
  return *prefix;
}

void read_pool(const value& v, bool v4, std::vector<ip_address>& out) {
  const auto items = v.items();
  if (!items) return;
  for (const value& item : *items) {
    const auto text = item.text();
    if (!text) continue;
    const std::string right = v4 ? "an IPv4 address" : "an IPv6 address";
    const auto address = parse_ip(*text);
    if (!address) {
      item.error(address.error() + "; expected " + right);
    } else if (address->is_v4() != v4) {
      item.error(yaml::shown(*text) + " is " + (v4 ? "IPv6" : "IPv4") + "; expected " + right);
    } else if (unusable_source(*address)) {
      item.error(yaml::shown(*text) +
                 " cannot be a source address; expected one that the backends send replies to");
    } else if (std::find(out.begin(), out.end(), *address) != out.end()) {
      item.error(yaml::shown(*text) + " is named twice; expected each address once");
    } else if (out.size() == abi::max_pool_addresses) {
      item.error("is one too many; expected at most " + std::to_string(abi::max_pool_addresses) +
                 " addresses in dataplane.nat-pool");
      return;
    } else {
      out.push_back(*address);
    }
  }
}

void read_dataplane(const value& v, dataplane_config& out) {
  const auto m =
      v.map({"workers", "ports", "encap-source", "connections", "idle", "next-hop", "steering",
             "hugepages", "memory", "burst", "eal-args", "nat-pool", "gue-port"});
  if (!m) return;
  if (const auto workers = m->find("workers")) read_workers(*workers, out.workers);
  if (const auto ports = m->find("ports")) {
    if (const auto items = ports->items()) {
      if (items->empty()) ports->error("the list is empty; expected at least one port");
      if (items->size() > abi::max_ports)
        ports->error(std::to_string(items->size()) + " ports; expected at most " +
                     std::to_string(abi::max_ports));
      else
        for (const value& item : *items) read_port(item, out.ports);
    }
  }
  if (const auto next_hop = m->find("next-hop")) read_next_hops(*next_hop, out);
  if (const auto source = m->find("encap-source")) {
    if (const auto families = source->map({"ipv4", "ipv6"})) {
      if (const auto a = families->find("ipv4")) out.encap_source_ipv4 = read_source(*a, true);
      if (const auto a = families->find("ipv6")) out.encap_source_ipv6 = read_source(*a, false);
    }
  }
  if (const auto pool = m->find("nat-pool")) {
    if (const auto families = pool->map({"ipv4", "ipv6"})) {
      if (const auto a = families->find("ipv4")) read_pool(*a, true, out.nat_pool);
      if (const auto a = families->find("ipv6")) read_pool(*a, false, out.nat_pool);
    }
  }
  if (const auto port = m->find("gue-port")) assign(out.gue_port, port->integer(1, 65535));
  if (const auto n = m->find("connections"))
    assign(out.connections, n->integer(1024, 1'000'000'000));
  if (const auto idle = m->find("idle"))
    assign(out.idle, idle->word<idle_mode>({{"busy", idle_mode::busy},
                                            {"yield", idle_mode::yield},
                                            {"sleep", idle_mode::sleep}}));
  if (const auto steering = m->find("steering"))
    assign(out.steering, steering->word<steering_mode>(
                             {{"rss", steering_mode::rss}, {"owner", steering_mode::owner}}));
  if (const auto huge = m->find("hugepages"))
    assign(out.hugepages, huge->word<hugepage_mode>({{"auto", hugepage_mode::automatic},
                                                     {"on", hugepage_mode::on},
                                                     {"off", hugepage_mode::off}}));
  if (const auto n = m->find("memory"))
    if (const auto mib = n->integer(16, 1u << 20)) out.memory_mib = static_cast<unsigned>(*mib);
  if (const auto n = m->find("burst")) assign(out.burst, n->integer(8, 256));
  if (const auto args = m->find("eal-args"))
    if (const auto items = args->items())
      for (const value& item : *items)
        if (auto text = item.text()) out.eal_args.push_back(std::move(*text));
}

// read_listen() takes a TCP listener only with all that makes it safe.
void read_listen(const value& v, controlplane_config& out) {
  const auto m = v.map({"address", "certificate", "key", "tokens"});
  if (!m) return;
  api_listen_config listen;
  listen.line = v.line();
  bool complete = true;
  const auto path = [&](const char* key, const char* example, std::string& to) {
    const auto at = m->require(key, example);
    auto text = at ? absolute_path(*at, PATH_MAX - 64) : std::nullopt;
    complete = complete && text;
    if (text) to = std::move(*text);
  };
  path("certificate", "/etc/sluice/api.crt", listen.certificate);
  path("key", "/etc/sluice/api.key", listen.key);
  path("tokens", "/etc/sluice/tokens", listen.tokens);
  const auto address = m->require("address", "192.0.2.10:9443");
  const auto text = address ? address->text() : std::nullopt;
  if (!text) return;
  if (const auto endpoint = parse_ip_port(*text))
    listen.address = *endpoint;
  else
    return address->error(endpoint.error());
  if (complete) out.api_listen = std::move(listen);
}

void read_api(const value& v, controlplane_config& out) {
  const auto m = v.map({"socket", "mode", "listen"});
  if (!m) return;
  // sun_path holds its NUL too.
  if (const auto socket = m->find("socket"))
    if (auto path = absolute_path(*socket, sizeof(sockaddr_un::sun_path) - 1))
      out.api_socket = std::move(*path);
  if (const auto mode = m->find("mode")) {
    if (const auto text = mode->text()) {
      unsigned bits = 0;
      const char* const end = text->data() + text->size();
      const auto [at, error] = std::from_chars(text->data(), end, bits, 8);
      if (error != std::errc{} || at != end || text->size() < 3 || bits > 0777)
        mode->error(yaml::shown(*text) + " is no permission bits; expected octal such as \"0660\"");
      else
        out.api_mode = bits;
    }
  }
  if (const auto listen = m->find("listen"); listen && !listen->is_word("off"))
    read_listen(*listen, out);
}

void read_backup(const value& v, backup_config& out) {
  const auto m = v.map({"to", "interval", "kind", "full-every", "keep", "copy"});
  if (!m) return;
  const auto directory = [](const value& at, std::string& path) {
    if (auto text = absolute_path(at, PATH_MAX - 64)) path = std::move(*text);
  };
  if (const auto to = m->require("to", "/var/backups/sluice")) directory(*to, out.to);
  if (const auto every = m->find("interval"))
    assign(out.interval, every->duration(std::chrono::seconds{1}, std::chrono::hours{8760}));
  if (const auto kind = m->find("kind"))
    assign(out.kind, kind->word<backup_method>({{"full", backup_method::full},
                                                {"incremental", backup_method::incremental},
                                                {"differential", backup_method::differential}}));
  if (const auto n = m->find("full-every")) assign(out.full_every, n->integer(1, 100'000));
  if (const auto n = m->find("keep")) assign(out.keep, n->integer(1, 100'000));
  if (const auto copy = m->find("copy")) {
    if (const auto keys = copy->map({"to", "mode"})) {
      if (const auto to = keys->require("to", "/mnt/backup/sluice")) {
        directory(*to, out.copy_to);
        if (!out.copy_to.empty() && out.copy_to == out.to)
          to->error("is the directory of the backups itself; expected another one");
      }
      if (const auto mode = keys->find("mode"))
        assign(out.copy,
               mode->word<copy_mode>({{"sync", copy_mode::sync}, {"async", copy_mode::async}}));
    }
  }
}

void read_announce(const value& v, controlplane_config& out) {
  const auto m = v.map({"interface", "withdraw-after"});
  if (!m) return;
  announce_config announce;
  if (const auto after = m->find("withdraw-after"))
    assign(announce.withdraw_after,
           after->duration(std::chrono::milliseconds{500}, std::chrono::hours{1}));
  const auto interface = m->require("interface", "lo");
  const auto name = interface ? interface->text() : std::nullopt;
  if (!name) return;
  const auto odd = [](char c) { return c <= ' ' || c == '/' || c == ':' || c >= 0x7f; };
  if (name->size() > longest_interface || std::any_of(name->begin(), name->end(), odd) ||
      *name == "." || *name == "..")
    return interface->error(yaml::shown(*name) + " is not the name of a network interface");
  announce.interface = *name;
  out.announce = std::move(announce);
}

void read_controlplane(const value& v, controlplane_config& out) {
  const auto m = v.map({"state", "api", "metrics", "limits", "history", "backup", "announce",
                        "checks", "kubernetes"});
  if (!m) return;
  if (const auto checks = m->find("checks")) {
    if (checks->is_word("off"))
      out.checks.clear();
    else if (auto path = absolute_path(*checks, PATH_MAX - 32))
      out.checks = std::move(*path);
  }
  if (const auto state = m->find("state"))
    if (auto path = absolute_path(*state, PATH_MAX - 32)) out.state = std::move(*path);
  if (const auto api = m->find("api")) read_api(*api, out);
  if (const auto metrics = m->find("metrics")) {
    if (const auto keys = metrics->map({"listen"})) {
      const auto listen = keys->find("listen");
      if (listen && !listen->is_word("off")) {
        if (const auto text = listen->text()) {
          if (const auto endpoint = parse_ip_port(*text))
            out.metrics_listen = *endpoint;
          else
            listen->error(endpoint.error() + "; or off");
        }
      }
    }
  }
  if (const auto limits = m->find("limits")) {
    if (const auto keys = limits->map({"services", "backends", "table-memory"})) {
      if (const auto n = keys->find("services"))
        assign(out.limits.services, n->integer(1, abi::max_services));
      if (const auto n = keys->find("backends"))
        assign(out.limits.backends, n->integer(1, abi::max_backends));
      if (const auto n = keys->find("table-memory"))
        assign(out.limits.table_memory_mib, n->integer(1, 1u << 20));
    }
  }
  if (const auto backup = m->find("backup")) read_backup(*backup, out.backup);
  if (const auto announce = m->find("announce"); announce && !announce->is_word("off"))
    read_announce(*announce, out);
  if (const auto cluster = m->find("kubernetes"); cluster && !cluster->is_word("off"))
    out.kubernetes = read_kubernetes(*cluster);
  if (const auto history = m->find("history")) {
    if (const auto keys = history->map({"revisions"})) {
      const auto n = keys->find("revisions");
      if (n && n->is_word("all"))
        out.history.revisions = 0;
      else if (n)
        assign(out.history.revisions, n->integer(100, 100'000'000, "all"));
    }
  }
}

void read_root(const value& root, node_config& out) {
  const auto m = root.map({"node", "cluster", "dataplane", "controlplane"});
  if (!m) return;
  if (const auto node = m->find("node")) {
    if (const auto keys = node->map({"name", "runtime-dir", "log-level"})) {
      if (const auto name = keys->find("name")) {
        if (auto text = name->text()) {
          if (!name_ok(*text, 64))
            name->error(yaml::shown(*text) +
                        " is not a node name; expected 1 to 64 of a-z, 0-9, '.', '_', '-', "
                        "beginning with a letter or digit");
          out.name = std::move(*text);
        }
      }
      // Leaves room for the files in it in a socket's address.
      if (const auto directory = keys->find("runtime-dir"))
        if (auto path = absolute_path(*directory, sizeof(sockaddr_un::sun_path) - 32))
          out.runtime_dir = std::move(*path);
      if (const auto level = keys->find("log-level"))
        assign(out.log, level->word<log_level>({{"debug", log_level::debug},
                                                {"info", log_level::info},
                                                {"warning", log_level::warning},
                                                {"error", log_level::error}}));
    }
  }
  if (const auto cluster = m->find("cluster"))
    if (const auto keys = cluster->map({"hash-seed"}))
      if (const auto seed = keys->find("hash-seed"))
        assign(out.hash_seed, seed->integer(0, UINT64_MAX));
  if (const auto dataplane = m->find("dataplane")) read_dataplane(*dataplane, out.dataplane);
  if (const auto controlplane = m->find("controlplane"))
    read_controlplane(*controlplane, out.controlplane);
}

}  // namespace

const port_config* node_config::find_port(std::string_view port_name) const noexcept {
  for (const port_config& p : dataplane.ports)
    if (p.name == port_name) return &p;
  return nullptr;
}

tl::expected<node_config, std::vector<config_error>> parse_node_text(std::string_view text,
                                                                     std::string_view file_name) {
  const auto document = yaml::document::parse(text, file_name);
  if (!document) return tl::unexpected{std::vector{document.error()}};
  yaml::error_list errors{file_name};
  node_config out;
  out.file = file_name;
  read_root(document->root(errors), out);
  if (!errors.empty()) return tl::unexpected{errors.take()};
  if (out.name.empty()) out.name = host_name();
  if (out.controlplane.api_socket.empty())
    out.controlplane.api_socket = out.runtime_dir + "/api.sock";
  return out;
}

tl::expected<node_config, std::vector<config_error>> load_node_file(const std::string& path) {
  const auto text = read_text_file(path);
  if (!text) return tl::unexpected{std::vector{text.error()}};
  return parse_node_text(*text, path);
}

tl::expected<std::string, config_error> read_text_file(const std::string& path) {
  return read_whole_file(path, yaml::max_bytes, file_kinds::readable)
      .map_error([&path](std::string what) {
        return config_error{path, 0, {}, std::move(what)};
      });
}

}  // namespace sluice
