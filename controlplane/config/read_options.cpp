// SPDX-License-Identifier: Apache-2.0
#include "controlplane/config/read_options.hpp"

#include <chrono>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>

#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::config {
namespace {

using model::client_address;
using model::forward_mode;
using model::service;
using yaml::assign;
using yaml::map_value;
using yaml::value;

// A packet of 576 bytes must fit (RFC 9293 section 3.7.1); the largest is the option's own.
constexpr std::uint64_t smallest_mss = 536;
constexpr std::uint64_t largest_mss = 65495;
constexpr std::uint64_t highest_rate = 4'000'000'000;
constexpr std::chrono::seconds longest_persistence{65535};
constexpr std::chrono::milliseconds longest_wait{3'600'000};
constexpr std::chrono::milliseconds longest_drain{24 * 3'600'000};
constexpr std::size_t longest_path = 1024;

// no_effect() reports those of the keys that are in the text.
void no_effect(const map_value& m, std::initializer_list<std::string_view> keys,
               const std::string& here, std::string_view where) {
  for (const std::string_view key : keys)
    if (const auto found = m.find(key))
      found->error("has no effect with " + here + "; expected it only with " + std::string{where});
}

std::string forward_text(const service& s) {
  return "forward: " + std::string{model::to_string(s.forward)};
}
std::string protocol_text(const service& s) {
  return "protocol: " + std::string{model::to_string(s.protocol)};
}

void read_client(const map_value& m, service& out) {
  const bool tcp = out.protocol == model::protocol::tcp;
  if (out.forward != forward_mode::full_nat) {
    no_effect(m, {"client-address"}, forward_text(out), "forward: full-nat");
    out.client = client_address::none;
    return;
  }
  const auto client = m.find("client-address");
  if (client)
    assign(out.client, client->word<client_address>({{"none", client_address::none},
                                                     {"proxy-v2", client_address::proxy_v2},
                                                     {"toa", client_address::toa}}));
  if (tcp || out.client == client_address::none) return;
  if (client)
    client->error(std::string{model::to_string(out.client)} +
                  " is for tcp; expected none with protocol: udp");
  out.client = client_address::none;
}

void read_mss(const map_value& m, service& out) {
  if (out.protocol != model::protocol::tcp) {
    no_effect(m, {"mss-clamp"}, protocol_text(out), "protocol: tcp");
    out.mss_clamp = {};
    return;
  }
  const auto v = m.find("mss-clamp");
  if (!v) return;
  if (v->is_word("off")) {
    out.mss_clamp = {};
  } else if (v->is_word("auto")) {
    out.mss_clamp = {true, 0};
  } else if (const auto n = v->integer(smallest_mss, largest_mss, "off or auto")) {
    out.mss_clamp = {false, static_cast<std::uint16_t>(*n)};
  }
}

void read_persistence(const value& v, model::persistence& out) {
  if (v.is_word("off")) {
    out = {};
    return;
  }
  const auto m = v.map({"timeout", "ipv4-prefix", "ipv6-prefix"});
  if (!m) return;
  const auto timeout = out.off() ? m->require("timeout", "5m") : m->find("timeout");
  if (timeout) {
    if (const auto d = timeout->duration(std::chrono::seconds{1}, longest_persistence)) {
      if (d->count() % 1000 != 0)
        timeout->error("is not a whole number of seconds; expected one such as 300s or 5m");
      out.timeout = std::chrono::duration_cast<std::chrono::seconds>(*d);
    }
  }
  if (const auto n = m->find("ipv4-prefix")) assign(out.ipv4_prefix, n->integer(1, 32));
  if (const auto n = m->find("ipv6-prefix")) assign(out.ipv6_prefix, n->integer(1, 128));
}

void read_quic(const map_value& m, service& out) {
  if (out.protocol != model::protocol::udp) {
    no_effect(m, {"quic"}, protocol_text(out), "protocol: udp");
    out.quic_id_length = 0;
    return;
  }
  const auto v = m.find("quic");
  if (!v) return;
  if (v->is_word("off")) {
    out.quic_id_length = 0;
  } else if (const auto keys = v->map({"server-id-length"})) {
    if (const auto n = keys->require("server-id-length", "4"))
      assign(out.quic_id_length, n->integer(1, 8));
  }
}

void read_source_limit(const value& v, model::source_limit& out) {
  if (v.is_word("off")) {
    out = {};
    return;
  }
  const auto m = v.map({"new-connections", "ipv4-prefix", "ipv6-prefix"});
  if (!m) return;
  const auto rate =
      out.new_connections == 0 ? m->require("new-connections", "100") : m->find("new-connections");
  if (rate) assign(out.new_connections, rate->integer(0, highest_rate));
  if (const auto n = m->find("ipv4-prefix")) assign(out.ipv4_prefix, n->integer(1, 32));
  if (const auto n = m->find("ipv6-prefix")) assign(out.ipv6_prefix, n->integer(1, 128));
}

void read_limits(const map_value& service_map, service& out) {
  const bool tcp = out.protocol == model::protocol::tcp;
  if (!tcp) out.limits.syn_flood = 0;
  const auto v = service_map.find("limits");
  if (!v) return;
  if (v->is_word("off")) {
    out.limits = {};
    return;
  }
  const auto m = v->map({"new-connections", "packets", "syn-flood", "per-source"});
  if (!m) return;
  if (const auto n = m->find("new-connections"))
    assign(out.limits.new_connections, n->integer(0, highest_rate));
  if (const auto n = m->find("packets")) assign(out.limits.packets, n->integer(0, highest_rate));
  if (!tcp)
    no_effect(*m, {"syn-flood"}, protocol_text(out), "protocol: tcp");
  else if (const auto n = m->find("syn-flood"))
    assign(out.limits.syn_flood, n->integer(0, highest_rate));
  if (const auto s = m->find("per-source")) read_source_limit(*s, out.limits.per_source);
}

void read_failover(const value& v, model::failover& out) {
  if (v.is_word("off")) {
    out = {};
    return;
  }
  const auto m = v.map({"tier-threshold", "panic-threshold", "failback"});
  if (!m) return;
  if (const auto n = m->find("tier-threshold")) assign(out.tier_threshold, n->integer(0, 100));
  if (const auto n = m->find("panic-threshold")) assign(out.panic_threshold, n->integer(0, 100));
  if (const auto d = m->find("failback"))
    assign(out.failback, d->duration(std::chrono::milliseconds{0}, longest_wait));
}

void read_slow_start(const map_value& service_map, service& out) {
  if (!model::weighs(out.scheduler)) {
    no_effect(service_map, {"slow-start"},
              "scheduler: " + std::string{model::to_string(out.scheduler)},
              "schedulers that take weights");
    out.slow_start = {};
    return;
  }
  const auto v = service_map.find("slow-start");
  if (!v) return;
  if (v->is_word("off")) {
    out.slow_start = {};
    return;
  }
  const auto m = v->map({"time", "steps"});
  if (!m) return;
  const auto time = out.slow_start.off() ? m->require("time", "30s") : m->find("time");
  if (time)
    assign(out.slow_start.time, time->duration(std::chrono::milliseconds{100}, longest_wait));
  if (const auto n = m->find("steps")) assign(out.slow_start.steps, n->integer(1, 20));
}

void read_flap_damping(const value& v, model::flap_damping& out) {
  if (v.is_word("off")) {
    out = {};
    return;
  }
  const auto m = v.map({"falls", "within", "hold"});
  if (!m) return;
  const auto falls = out.off() ? m->require("falls", "3") : m->find("falls");
  if (falls) assign(out.falls, falls->integer(2, 50));
  if (const auto d = m->find("within"))
    assign(out.within, d->duration(std::chrono::milliseconds{100}, longest_wait));
  if (const auto d = m->find("hold"))
    assign(out.hold, d->duration(std::chrono::milliseconds{100}, longest_wait));
}

void read_judgement(const map_value& m, service& out) {
  if (const auto v = m.find("failover")) read_failover(*v, out.failover);
  read_slow_start(m, out);
  if (const auto v = m.find("flap-damping")) read_flap_damping(*v, out.flap_damping);
  if (const auto v = m.find("drain-deadline")) {
    if (v->is_word("none"))
      out.drain_deadline = {};
    else
      assign(out.drain_deadline, v->duration(std::chrono::milliseconds{100}, longest_drain));
  }
}

void read_set(const map_value& m, const std::string& key, model::prefix_set& out) {
  if (const auto list = m.find(key)) {
    if (const auto items = list->items()) {
      out.prefixes.clear();
      out.prefixes.reserve(items->size());
      for (const value& item : *items) {
        const auto text = item.text();
        if (!text) continue;
        if (const auto prefix = parse_prefix(*text))
          out.prefixes.push_back(*prefix);
        else
          item.error(prefix.error() + "; expected one such as 192.0.2.0/24 or \"2001:db8::/32\"");
      }
    }
  }
  if (const auto file = m.find(key + "-file")) {
    if (file->is_word("none")) {
      out.file.clear();
    } else if (auto path = file->text()) {
      if (path->front() != '/' || path->size() > longest_path || path->find('\0') != path->npos)
        file->error(yaml::shown(*path) +
                    " is not an absolute path; expected one that begins with '/', of at most " +
                    std::to_string(longest_path) + " bytes, or none");
      else
        out.file = std::move(*path);
    }
  }
}

// hex_digit() returns 0 to 15; nothing: not one.
std::optional<std::uint8_t> hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<std::uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<std::uint8_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<std::uint8_t>(c - 'A' + 10);
  return std::nullopt;
}

void read_quic_id(const value& v, model::quic_id& out) {
  if (v.is_word("none")) {
    out = {};
    return;
  }
  const auto text = v.text();
  if (!text) return;
  model::quic_id id;
  bool fine = text->size() % 2 == 0 && text->size() <= 2 * id.bytes.size();
  for (std::size_t i = 0; fine && i < text->size(); ++i) {
    const auto digit = hex_digit((*text)[i]);
    fine = digit.has_value();
    if (fine) id.bytes[i / 2] = static_cast<std::uint8_t>(id.bytes[i / 2] << 4 | *digit);
  }
  if (!fine) {
    v.error(yaml::shown(*text) +
            " is not a server id; expected 1 to 8 bytes in hexadecimal, such as \"0a01\"");
    return;
  }
  id.length = static_cast<std::uint8_t>(text->size() / 2);
  out = id;
}

}  // namespace

void read_options(const map_value& m, service& out) {
  read_client(m, out);
  read_mss(m, out);
  if (const auto echo = m.find("echo")) assign(out.echo, echo->boolean());
  if (const auto persistence = m.find("persistence"))
    read_persistence(*persistence, out.persistence);
  read_quic(m, out);
  read_limits(m, out);
  read_judgement(m, out);
  read_set(m, "allow", out.allow);
  read_set(m, "deny", out.deny);
}

void read_backend_options(const map_value& m, model::backend& out) {
  if (const auto port = m.find("port")) {
    if (port->is_word("none"))
      out.port = 0;
    else
      assign(out.port, port->integer(1, 65535, "none"));
  }
  if (const auto dscp = m.find("dscp")) {
    if (dscp->is_word("none"))
      out.dscp = 0;
    else
      assign(out.dscp, dscp->integer(1, 63, "none"));
  }
  if (const auto id = m.find("quic-id")) read_quic_id(*id, out.quic_id);
}

}  // namespace sluice::config
