// SPDX-License-Identifier: Apache-2.0
// How a service's backends are checked, as a value. Copied freely; compared with ==.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/abi/net_types.hpp"

namespace sluice::model {

enum class health_kind : std::uint8_t {
  none,
  tcp,
  http,
  https,
  http2,
  grpc,
  udp,
  dns,
  icmp,
  exec,
};

// requests() tells whether the kind asks for a path and judges a status; streams(), whether it
// is a TCP connection; has_port(), whether it needs a port; travels(), whether it is packets, that
// can go where a service's do.
[[nodiscard]] constexpr bool requests(health_kind k) noexcept {
  return k == health_kind::http || k == health_kind::https || k == health_kind::http2;
}
[[nodiscard]] constexpr bool streams(health_kind k) noexcept {
  return k == health_kind::tcp || k == health_kind::grpc || requests(k);
}
[[nodiscard]] constexpr bool has_port(health_kind k) noexcept {
  return streams(k) || k == health_kind::udp || k == health_kind::dns;
}
[[nodiscard]] constexpr bool travels(health_kind k) noexcept {
  return has_port(k) || k == health_kind::icmp;
}

// Which way a probe takes: through the data path as the service's packets do, or to the
// backend's own address. automatic: the former where mode, kind and port allow it.
enum class health_via : std::uint8_t { automatic, direct, data_path };

// What a datagram has to be answered with: anything; nothing, as long as nobody refuses it; or
// something that contains a text.
enum class health_answer : std::uint8_t { any, none, text };

// A field that the kind has no use for has its default.
struct health_check {
  health_kind kind{health_kind::none};
  std::string path{"/"};            // http, https, http2: the request target
  std::string host;                 // the same, and grpc: Host; empty: the backend's address
  std::uint16_t port{};             // 0: the service's port
  std::uint16_t expect_first{200};  // http, https, http2: accepted status codes, inclusive
  std::uint16_t expect_last{399};
  std::chrono::milliseconds interval{2000};
  std::chrono::milliseconds timeout{1000};
  std::chrono::milliseconds fast_interval{0};  // 0: a second, or the interval if that is shorter
  std::uint8_t jitter{0};                      // per cent of the interval
  std::uint32_t rise{2};
  std::uint32_t fall{3};
  health_via via{health_via::automatic};
  std::optional<ip_address> source{};  // nothing: as the kernel chooses

  bool tls{false};      // https: always; http2, grpc
  bool verify{true};    // with tls: the certificate
  std::string ca_file;  // with verify: whom to believe; empty: the system's authorities
  std::string sni;      // with tls: the name asked for; empty: host, where that is a name

  std::string send;                          // udp: bytes
  health_answer answer{health_answer::any};  // udp
  std::string receive;                       // udp, answer text: bytes

  std::string name;          // dns: asked for, without a dot at the end; empty: the root
  std::uint16_t record{1};   // dns: type of record
  std::string grpc_service;  // grpc: empty: the server as a whole

  std::vector<std::string> command;  // exec: an absolute path, then arguments
  bool weights{false};               // exec: exit codes from 2 say the weight

  bool operator==(const health_check&) const = default;
};

// without_unused() gives the fields that the kind has no use for their defaults.
[[nodiscard]] inline health_check without_unused(health_check c) {
  const health_check fresh;
  if (c.kind == health_kind::none) return fresh;
  if (!requests(c.kind)) {
    c.path = fresh.path;
    c.expect_first = fresh.expect_first;
    c.expect_last = fresh.expect_last;
    if (c.kind != health_kind::grpc) c.host.clear();
  }
  if (c.kind == health_kind::https)
    c.tls = true;
  else if (c.kind != health_kind::http2 && c.kind != health_kind::grpc)
    c.tls = false;
  if (!c.tls) {
    c.verify = fresh.verify;
    c.sni.clear();
  }
  if (!c.tls || !c.verify) c.ca_file.clear();
  if (c.kind != health_kind::udp) {
    c.send.clear();
    c.answer = fresh.answer;
  }
  if (c.answer != health_answer::text) c.receive.clear();
  if (c.kind != health_kind::dns) {
    c.name.clear();
    c.record = fresh.record;
  }
  if (c.kind != health_kind::grpc) c.grpc_service.clear();
  if (c.kind != health_kind::exec) {
    c.command.clear();
    c.weights = false;
  }
  if (c.kind == health_kind::icmp) c.port = 0;
  if (!travels(c.kind)) c.via = fresh.via;
  if (c.kind == health_kind::exec) c.source.reset();
  return c;
}

// may_run() tells whether a check's program is in the directory that a node has for them; no
// directory: none may.
[[nodiscard]] inline bool may_run(std::string_view program, std::string_view directory) noexcept {
  if (directory.empty() || !program.starts_with(directory)) return false;
  program.remove_prefix(directory.size());
  return program.size() > 1 && program[0] == '/' && program.find("/../") == program.npos &&
         !program.ends_with("/..");
}

}  // namespace sluice::model
