// SPDX-License-Identifier: Apache-2.0
#include "controlplane/config/read_health.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <initializer_list>
#include <string>

#include "controlplane/model/health_text.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::config {

using yaml::value;

std::optional<ip_address> read_address(const value& v) {
  const auto text = v.text();
  if (!text) return std::nullopt;
  const auto address = parse_ip(*text);
  if (!address) {
    v.error(address.error() + "; expected one such as 192.0.2.1 or \"2001:db8::1\"");
    return std::nullopt;
  }
  return *address;
}

std::optional<std::pair<std::uint16_t, std::uint16_t>> read_span(const value& v, unsigned min,
                                                                 unsigned max,
                                                                 std::string_view expected) {
  const auto text = v.text();
  if (!text) return std::nullopt;
  const auto wrong = [&](std::string_view why) {
    v.error(yaml::shown(*text) + " " + std::string{why} + "; expected " + std::string{expected});
    return std::nullopt;
  };
  const char* const end = text->data() + text->size();
  unsigned long first = 0;
  auto r = std::from_chars(text->data(), end, first);
  if (r.ec == std::errc::invalid_argument) return wrong("is not a number or range");
  unsigned long last = first;
  bool huge = r.ec != std::errc{};
  if (r.ptr != end) {
    if (*r.ptr != '-') return wrong("is not a number or range");
    r = std::from_chars(r.ptr + 1, end, last);
    if (r.ec == std::errc::invalid_argument || r.ptr != end)
      return wrong("is not a number or range");
    huge = huge || r.ec != std::errc{};
  }
  if (huge || first < min || last < min || first > max || last > max)
    return wrong("is out of range");
  if (first > last) return wrong("runs backwards");
  return std::pair{static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)};
}

namespace {

using model::health_answer;
using model::health_check;
using model::health_kind;
using model::health_via;
using std::chrono::milliseconds;
using yaml::assign;
using yaml::map_value;

constexpr milliseconds longest_interval{3'600'000};
constexpr std::size_t longest_ca_file = 1024;
constexpr std::size_t longest_datagram = 1024;
constexpr std::size_t longest_command = 4096;
constexpr std::size_t most_words = 64;

const std::initializer_list<std::string_view> all_keys{
    "type",     "path",    "host",          "expect", "tls",    "verify",  "ca-file", "sni",
    "service",  "send",    "receive",       "name",   "record", "command", "weights", "port",
    "interval", "timeout", "fast-interval", "jitter", "rise",   "fall",    "via",     "source"};

void assign_text(std::string& out, std::optional<std::string> read) {
  if (read) out = std::move(*read);
}

// name_in_dns() tells whether this is a name in the DNS, without a dot at the end.
bool name_in_dns(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t dot = std::min(name.find('.', at), name.size());
    const std::string_view label = name.substr(at, dot - at);
    const bool good = std::all_of(label.begin(), label.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == '_';
    });
    if (label.empty() || label.size() > 63 || !good) return false;
    at = dot + 1;
  }
  return true;
}

bool printable(std::string_view text, char lowest) {
  return std::all_of(text.begin(), text.end(), [&](char c) { return c >= lowest && c <= 0x7e; });
}

// host_name() tells whether this can be a Host: a name or address, perhaps with a port.
bool host_name(std::string_view text) {
  return text.size() <= 255 && printable(text, 0x21);
}

void read_host(const map_value& m, health_check& out) {
  if (const auto host = m.find("host")) {
    if (auto text = host->text()) {
      if (!host_name(*text))
        host->error("is not a host name; expected one such as www.example.net");
      else
        out.host = std::move(*text);
    }
  }
}

void read_http(const map_value& m, health_check& out) {
  if (const auto path = m.find("path")) {
    if (auto text = path->text()) {
      if (text->front() != '/' || text->size() > 1024 || !printable(*text, 0x21))
        path->error(
            "is not a request path; expected one that begins with '/', without spaces, of at most "
            "1024 bytes, such as /healthz");
      else
        out.path = std::move(*text);
    }
  }
  if (const auto expect = m.find("expect"))
    if (const auto span = read_span(*expect, 100, 599,
                                    "a status code from 100 to 599, or a range such as "
                                    "\"200-399\"")) {
      out.expect_first = span->first;
      out.expect_last = span->second;
    }
}

// read_tls() reads what says how TLS is spoken. Of what has no effect without it, or without a
// check of the certificate, nothing may be given.
void read_tls(const map_value& m, health_check& out) {
  if (const auto tls = m.find("tls")) assign(out.tls, tls->boolean());
  if (out.kind == health_kind::https) out.tls = true;
  if (const auto verify = m.find("verify")) assign(out.verify, verify->boolean());
  if (const auto file = m.find("ca-file")) {
    if (file->is_word("none")) {
      out.ca_file.clear();
    } else if (auto text = file->text()) {
      if (text->front() != '/' || text->size() > longest_ca_file)
        file->error("is not an absolute path; expected one such as /etc/sluice/backends-ca.pem");
      else
        out.ca_file = std::move(*text);
    }
    if (!out.verify)
      file->error("has no effect with verify: false; expected it only with verify: true");
  }
  if (const auto sni = m.find("sni")) {
    if (sni->is_word("none")) {
      out.sni.clear();
    } else if (auto text = sni->text()) {
      if (!name_in_dns(*text))
        sni->error(yaml::shown(*text) + " is not a name; expected one such as www.example.net");
      else
        out.sni = std::move(*text);
    }
  }
  if (!out.tls)
    for (const std::string_view key : {"verify", "ca-file", "sni"})
      if (const auto found = m.find(key))
        found->error("has no effect without TLS; expected it only with tls: true");
}

void read_udp(const map_value& m, health_check& out) {
  const auto bytes = [](const value& v) -> std::optional<std::string> {
    const auto text = v.text();
    if (!text) return std::nullopt;
    auto read = model::text_bytes(*text);
    if (!read || read->size() > longest_datagram) {
      v.error("is not text, or bytes such as \"hex:0a0b\", of at most " +
              std::to_string(longest_datagram) + " bytes");
      return std::nullopt;
    }
    return read;
  };
  if (const auto send = m.find("send")) assign_text(out.send, bytes(*send));
  if (const auto receive = m.find("receive")) {
    out.receive.clear();
    if (receive->is_word("any")) {
      out.answer = health_answer::any;
    } else if (receive->is_word("none")) {
      out.answer = health_answer::none;
    } else if (auto read = bytes(*receive)) {
      out.answer = health_answer::text;
      out.receive = std::move(*read);
      if (out.receive.empty())
        receive->error("is empty; expected what the answer has to contain, or any, or none");
    }
  }
}

void read_dns(const map_value& m, bool must, health_check& out) {
  const auto name = must ? m.require("name", "www.example.net") : m.find("name");
  if (name) {
    if (auto text = name->text()) {
      if (text->back() == '.') text->pop_back();
      if (!text->empty() && !name_in_dns(*text))
        name->error(yaml::shown(*text) +
                    " is not a DNS name; expected one such as www.example.net, or \".\"");
      else
        out.name = std::move(*text);
    }
  }
  if (const auto record = m.find("record"))
    if (const auto text = record->text()) {
      const auto read = model::record_of(*text);
      if (!read)
        record->error(
            yaml::shown(*text) +
            " is no type of record; expected A, AAAA, CNAME, MX, NS, PTR, SOA, SRV or TXT");
      assign(out.record, read);
    }
}

void read_grpc(const map_value& m, health_check& out) {
  if (const auto service = m.find("service")) {
    if (auto text = service->text()) {
      if (text->size() > 255 || !printable(*text, 0x21))
        service->error("is not the name of a gRPC service; expected one such as shop.v1.Cart");
      else
        out.grpc_service = std::move(*text);
    }
  }
}

void read_exec(const map_value& m, bool must, health_check& out) {
  const auto command =
      must ? m.require("command", "[/etc/sluice/checks/app, --fast]") : m.find("command");
  if (command) {
    out.command.clear();
    std::size_t bytes = 0;
    if (command->kind() == yaml::node_kind::scalar) {
      if (auto text = command->text()) out.command.push_back(std::move(*text));
    } else if (const auto items = command->items()) {
      for (const value& item : *items)
        if (auto text = item.text()) out.command.push_back(std::move(*text));
    }
    for (const std::string& word : out.command) bytes += word.size() + 1;
    if (out.command.empty() || out.command[0].front() != '/')
      command->error(
          "is not a command; expected the absolute path of a program, or a list of that and its "
          "arguments");
    else if (bytes > longest_command || out.command.size() > most_words)
      command->error("is too long; expected at most " + std::to_string(most_words) + " words and " +
                     std::to_string(longest_command) + " bytes");
    else if (std::any_of(out.command.begin(), out.command.end(), [](const std::string& word) {
               return word.find('\0') != std::string::npos;
             }))
      command->error("contains a NUL byte");
  }
  if (const auto weights = m.find("weights")) assign(out.weights, weights->boolean());
}

// kinds() is a set of kinds: a bit for each.
template <class... Kinds>
constexpr unsigned kinds(Kinds... k) {
  return ((1u << static_cast<unsigned>(k)) | ...);
}
constexpr unsigned asking = kinds(health_kind::http, health_kind::https, health_kind::http2);
constexpr unsigned secure = kinds(health_kind::https, health_kind::http2, health_kind::grpc);
constexpr unsigned streaming = asking | kinds(health_kind::tcp, health_kind::grpc);
constexpr unsigned datagrams = kinds(health_kind::udp, health_kind::dns);

// key_use: which kinds a key has an effect with.
struct key_use {
  std::string_view key;
  unsigned with;
};
constexpr key_use uses[] = {{"path", asking},
                            {"host", asking | kinds(health_kind::grpc)},
                            {"expect", asking},
                            {"tls", kinds(health_kind::http2, health_kind::grpc)},
                            {"verify", secure},
                            {"ca-file", secure},
                            {"sni", secure},
                            {"service", kinds(health_kind::grpc)},
                            {"send", kinds(health_kind::udp)},
                            {"receive", kinds(health_kind::udp)},
                            {"name", kinds(health_kind::dns)},
                            {"record", kinds(health_kind::dns)},
                            {"command", kinds(health_kind::exec)},
                            {"weights", kinds(health_kind::exec)},
                            {"port", streaming | datagrams | kinds(health_kind::exec)},
                            {"via", streaming | datagrams | kinds(health_kind::icmp)},
                            {"source", streaming | datagrams | kinds(health_kind::icmp)}};

// refuse_unused() reports keys that have no effect: a mistake.
void refuse_unused(const map_value& m, health_kind kind) {
  if (kind == health_kind::none) {
    for (const std::string_view key : all_keys)
      if (const auto found = key == "type" ? std::nullopt : m.find(key))
        found->error("has no effect with type: none; expected it only with another type");
    return;
  }
  for (const key_use& use : uses) {
    if ((use.with & kinds(kind)) != 0) continue;
    const auto found = m.find(use.key);
    if (!found) continue;
    std::string names;
    for (unsigned k = 0, left = use.with; left != 0; ++k) {
      if ((left & 1u << k) == 0) continue;
      left &= ~(1u << k);
      if (!names.empty()) names += left == 0 ? " or " : ", ";
      names += model::to_string(static_cast<health_kind>(k));
    }
    const bool program = kind == health_kind::exec && use.key == "via";
    found->error(std::string{"has no effect with "} +
                 (program ? "type: exec, whose program goes its own way" : "this type") +
                 "; expected it only with type " + names);
  }
}

// read_rhythm() reads what says when a backend is checked. changed: only what is given changes.
void read_rhythm(const value& v, const map_value& m, bool changed, health_check& out) {
  const auto interval = m.find("interval");
  const auto timeout = m.find("timeout");
  const bool interval_ok =
      !interval || assign(out.interval, interval->duration(milliseconds{10}, longest_interval));
  const bool timeout_ok =
      !timeout || assign(out.timeout, timeout->duration(milliseconds{1}, longest_interval));
  // Only a timeout that was asked for can be wrong; the default follows the interval.
  if (!timeout && !changed) out.timeout = std::min(out.timeout, out.interval);
  if (interval_ok && timeout_ok && out.timeout > out.interval)
    (timeout    ? *timeout
     : interval ? *interval
                : v)
        .error("the timeout (" + std::to_string(out.timeout.count()) +
               "ms) is longer than the interval (" + std::to_string(out.interval.count()) +
               "ms); expected a timeout of at most the interval");
  if (const auto fast = m.find("fast-interval")) {
    if (fast->is_word("auto")) {
      out.fast_interval = milliseconds{0};
    } else if (assign(out.fast_interval, fast->duration(milliseconds{10}, longest_interval)) &&
               interval_ok && out.fast_interval > out.interval) {
      fast->error("is longer than the interval (" + std::to_string(out.interval.count()) +
                  "ms); expected at most that, or auto");
    }
  } else if (interval && interval_ok && out.fast_interval > out.interval) {
    interval->error("is shorter than the fast-interval (" +
                    std::to_string(out.fast_interval.count()) + "ms); expected at least that");
  }
  if (const auto jitter = m.find("jitter")) assign(out.jitter, jitter->integer(0, 50));
}

}  // namespace

void read_health(const value& v, const health_check* base, health_check& out) {
  const auto m = v.map(all_keys);
  if (!m) return;
  out = base ? *base : health_check{};
  const auto type = base ? m->find("type") : m->require("type", "http");
  if (type) {
    const auto kind = type->word<health_kind>({{"none", health_kind::none},
                                               {"tcp", health_kind::tcp},
                                               {"http", health_kind::http},
                                               {"https", health_kind::https},
                                               {"http2", health_kind::http2},
                                               {"grpc", health_kind::grpc},
                                               {"udp", health_kind::udp},
                                               {"dns", health_kind::dns},
                                               {"icmp", health_kind::icmp},
                                               {"exec", health_kind::exec}});
    if (!kind) return;
    out.kind = *kind;
  } else if (!base) {
    return;
  }
  refuse_unused(*m, out.kind);
  const bool other = !base || base->kind != out.kind;
  // What a base had for another type goes.
  if (out.kind == health_kind::http2 && other) out.tls = true;
  if (out.kind == health_kind::grpc && other) out.tls = false;
  out = model::without_unused(std::move(out));
  if (out.kind == health_kind::none) return;

  if (model::requests(out.kind)) read_http(*m, out);
  if (model::requests(out.kind) || out.kind == health_kind::grpc) read_host(*m, out);
  if (out.kind == health_kind::https || out.kind == health_kind::http2 ||
      out.kind == health_kind::grpc)
    read_tls(*m, out);
  if (out.kind == health_kind::udp) read_udp(*m, out);
  if (out.kind == health_kind::dns) read_dns(*m, other, out);
  if (out.kind == health_kind::grpc) read_grpc(*m, out);
  if (out.kind == health_kind::exec) read_exec(*m, other, out);
  if (const auto port = m->find("port")) assign(out.port, port->integer(1, 65535));
  if (const auto rise = m->find("rise")) assign(out.rise, rise->integer(1, 1000));
  if (const auto fall = m->find("fall")) assign(out.fall, fall->integer(1, 1000));
  if (const auto via = m->find("via"))
    assign(out.via, via->word<health_via>({{"auto", health_via::automatic},
                                           {"direct", health_via::direct},
                                           {"data-path", health_via::data_path}}));
  if (const auto source = m->find("source")) {
    if (source->is_word("auto"))
      out.source.reset();
    else if (const auto read = read_address(*source))
      out.source = read;
  }
  read_rhythm(v, *m, base != nullptr, out);
  // verify, tls and receive may have been turned off.
  out = model::without_unused(std::move(out));
}

tl::expected<model::health_check, std::vector<config_error>> parse_health(
    std::string_view text, std::string_view file_name, const model::health_check* base) {
  const auto document = yaml::document::parse(text, file_name);
  if (!document) return tl::unexpected{std::vector{document.error()}};
  yaml::error_list errors{file_name};
  model::health_check out;
  read_health(document->root(errors), base, out);
  if (!errors.empty()) return tl::unexpected{errors.take()};
  return out;
}

}  // namespace sluice::config
