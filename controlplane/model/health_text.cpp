// SPDX-License-Identifier: Apache-2.0
#include "controlplane/model/health_text.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::model {
namespace {

constexpr std::string_view hex_prefix = "hex:";
constexpr std::string_view hex_digits = "0123456789abcdef";

constexpr std::array<std::pair<std::string_view, std::uint16_t>, 9> records{{{"A", 1},
                                                                             {"NS", 2},
                                                                             {"CNAME", 5},
                                                                             {"SOA", 6},
                                                                             {"PTR", 12},
                                                                             {"MX", 15},
                                                                             {"TXT", 16},
                                                                             {"AAAA", 28},
                                                                             {"SRV", 33}}};

std::string expect_text(const health_check& h) {
  const std::string first = std::to_string(h.expect_first);
  return h.expect_first == h.expect_last ? first : first + "-" + std::to_string(h.expect_last);
}

void add_tls(nlohmann::ordered_json& out, const health_check& h) {
  if (h.kind != health_kind::https) out["tls"] = h.tls;
  if (!h.tls) return;
  if (!h.verify) out["verify"] = false;
  if (!h.ca_file.empty()) out["ca-file"] = h.ca_file;
  if (!h.sni.empty()) out["sni"] = h.sni;
}

void add_datagrams(nlohmann::ordered_json& out, const health_check& h) {
  if (!h.send.empty()) out["send"] = bytes_text(h.send);
  if (h.answer == health_answer::none) out["receive"] = "none";
  if (h.answer == health_answer::text) {
    const std::string text = bytes_text(h.receive);
    // The words have a meaning of their own.
    out["receive"] = text == "none" || text == "any"
                         ? std::string{hex_prefix} + (text == "none" ? "6e6f6e65" : "616e79")
                         : text;
  }
}

}  // namespace

nlohmann::ordered_json health_json(const health_check& h) {
  nlohmann::ordered_json out;
  out["type"] = to_string(h.kind);
  if (h.kind == health_kind::none) return out;
  if (requests(h.kind)) out["path"] = h.path;
  if (!h.host.empty()) out["host"] = h.host;
  if (requests(h.kind)) out["expect"] = expect_text(h);
  if (!h.grpc_service.empty()) out["service"] = h.grpc_service;
  if (h.tls || h.kind == health_kind::http2 || h.kind == health_kind::grpc) add_tls(out, h);
  if (h.kind == health_kind::udp) add_datagrams(out, h);
  if (h.kind == health_kind::dns) {
    out["name"] = h.name.empty() ? "." : h.name;
    out["record"] = record_name(h.record);
  }
  if (h.kind == health_kind::exec) {
    out["command"] = h.command;
    if (h.weights) out["weights"] = true;
  }
  if (h.port != 0) out["port"] = h.port;
  out["interval"] = to_string(h.interval);
  out["timeout"] = to_string(h.timeout);
  if (h.fast_interval.count() != 0) out["fast-interval"] = to_string(h.fast_interval);
  if (h.jitter != 0) out["jitter"] = h.jitter;
  out["rise"] = h.rise;
  out["fall"] = h.fall;
  if (h.via != health_via::automatic) out["via"] = to_string(h.via);
  if (h.source) out["source"] = format_ip(*h.source);
  return out;
}

std::string bytes_text(std::string_view bytes) {
  if (!bytes.empty() && !bytes.starts_with(hex_prefix) &&
      std::all_of(bytes.begin(), bytes.end(), [](char c) { return c >= 0x20 && c < 0x7f; }))
    return std::string{bytes};
  std::string out{hex_prefix};
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    out += hex_digits[b >> 4];
    out += hex_digits[b & 15];
  }
  return out;
}

std::optional<std::string> text_bytes(std::string_view text) {
  if (!text.starts_with(hex_prefix)) return std::string{text};
  text.remove_prefix(hex_prefix.size());
  if (text.size() % 2 != 0) return std::nullopt;
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    unsigned value = 0;
    for (const char c : {text[i], text[i + 1]}) {
      const char low = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
      const std::size_t digit = hex_digits.find(low);
      if (digit == std::string_view::npos) return std::nullopt;
      value = value * 16 + static_cast<unsigned>(digit);
    }
    out += static_cast<char>(value);
  }
  return out;
}

std::string_view record_name(std::uint16_t record) noexcept {
  const auto found = std::find_if(records.begin(), records.end(),
                                  [record](const auto& r) { return r.second == record; });
  return found == records.end() ? std::string_view{} : found->first;
}

std::optional<std::uint16_t> record_of(std::string_view name) noexcept {
  const auto found = std::find_if(records.begin(), records.end(),
                                  [name](const auto& r) { return r.first == name; });
  if (found == records.end()) return std::nullopt;
  return found->second;
}

std::string_view to_string(health_kind k) noexcept {
  switch (k) {
    case health_kind::none:
      return "none";
    case health_kind::tcp:
      return "tcp";
    case health_kind::http:
      return "http";
    case health_kind::https:
      return "https";
    case health_kind::http2:
      return "http2";
    case health_kind::grpc:
      return "grpc";
    case health_kind::udp:
      return "udp";
    case health_kind::dns:
      return "dns";
    case health_kind::icmp:
      return "icmp";
    case health_kind::exec:
      return "exec";
  }
  return "unknown";
}

std::string_view to_string(health_via v) noexcept {
  switch (v) {
    case health_via::automatic:
      return "auto";
    case health_via::direct:
      return "direct";
    case health_via::data_path:
      return "data-path";
  }
  return "unknown";
}

}  // namespace sluice::model
