// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/dns_check.hpp"

#include <algorithm>
#include <array>

namespace sluice::health {
namespace {

constexpr std::size_t header_bytes = 12;
constexpr unsigned flag_response = 0x8000;
constexpr unsigned opcode_mask = 0x7800;
constexpr unsigned flag_recursion = 0x0100;
constexpr unsigned class_internet = 1;

void put16(std::string& out, unsigned value) {
  out += static_cast<char>(value >> 8 & 0xff);
  out += static_cast<char>(value & 0xff);
}

unsigned get16(std::string_view bytes, std::size_t at) {
  return unsigned{static_cast<unsigned char>(bytes[at])} << 8 |
         static_cast<unsigned char>(bytes[at + 1]);
}

char lower_case(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// question_of() is the question section; empty: no name.
std::string question_of(std::string_view name, std::uint16_t record) {
  std::string out;
  while (!name.empty()) {
    const std::size_t length = std::min(name.find('.'), name.size());
    if (length == 0 || length > 63 || length + 1 == name.size()) return {};
    out += static_cast<char>(length);
    out += name.substr(0, length);
    name.remove_prefix(std::min(length + 1, name.size()));
  }
  out += '\0';
  if (out.size() > 255) return {};
  put16(out, record);
  put16(out, class_internet);
  return out;
}

std::string code_name(unsigned code) {
  // RFC 1035 section 4.1.1, RFC 2136 section 2.2.
  static constexpr std::array<std::string_view, 11> names{
      "NOERROR",  "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
      "YXDOMAIN", "YXRRSET", "NXRRSET",  "NOTAUTH",  "NOTZONE"};
  return code < names.size() ? std::string{names[code]} : "code " + std::to_string(code);
}

}  // namespace

std::string dns_query(std::uint16_t id, std::string_view name, std::uint16_t record) {
  const std::string question = question_of(name, record);
  if (question.empty()) return {};
  std::string out;
  put16(out, id);
  put16(out, flag_recursion);
  put16(out, 1);
  for (int i = 0; i < 3; ++i) put16(out, 0);
  return out + question;
}

dns_verdict judge_dns_reply(std::string_view message, std::uint16_t id, std::string_view name,
                            std::uint16_t record) {
  dns_verdict out;
  if (message.size() < header_bytes || get16(message, 0) != id) return out;
  const unsigned flags = get16(message, 2);
  if ((flags & flag_response) == 0 || (flags & opcode_mask) != 0) return out;
  const unsigned code = flags & 0xf;
  const std::string question = question_of(name, record);
  const std::string_view rest = message.substr(header_bytes);
  const unsigned questions = get16(message, 4);
  // A server that understood nothing, or wants nothing of it, may leave the question out.
  if (questions == 0
          ? code == 0
          : questions != 1 || rest.size() < question.size() ||
                !std::equal(question.begin(), question.end(), rest.begin(),
                            [](char a, char b) { return lower_case(a) == lower_case(b); }))
    return out;
  out.ours = true;
  out.ok = code == 0;
  out.text = "DNS " + code_name(code);
  return out;
}

}  // namespace sluice::health
