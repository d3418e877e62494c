// SPDX-License-Identifier: Apache-2.0
// Health checks of a keepalived.conf's real servers.
#include <algorithm>
#include <charconv>
#include <iterator>
#include <sstream>

#include "controlplane/model/health_text.hpp"
#include "tools/import/keepalived_parts.hpp"

namespace sluice::importing {

namespace {

using model::health_kind;

constexpr std::string_view checks_directory = "/etc/sluice/checks";  // node.yaml's default

class check_reader {
 public:
  explicit check_reader(draft& d) : draft_{d} {}

  model::health_check read(const statement* check, const std::string& where, timing times,
                           std::string host) {
    model::health_check h;
    if (check == nullptr) return h;
    const std::string_view kind = check->word(0);
    const std::string here = where + ": " + std::string{kind};
    if (kind == "HTTP_GET") {
      h.kind = health_kind::http;
    } else if (kind == "TCP_CHECK") {
      h.kind = health_kind::tcp;
    } else if (kind == "SSL_GET") {
      h.kind = health_kind::https;
      h.verify = false;  // keepalived does not
    } else if (kind == "PING_CHECK") {
      h.kind = health_kind::icmp;
    } else if (kind == "DNS_CHECK") {
      h.kind = health_kind::dns;
      h.record = 6;  // SOA of the root, when nothing else is said
    } else if (kind == "UDP_CHECK") {
      h.kind = health_kind::udp;
      h.answer = model::health_answer::none;
    } else if (kind == "MISC_CHECK") {
      h.kind = health_kind::exec;
    } else if (kind == "SMTP_CHECK") {
      h.kind = health_kind::tcp;
      draft_.note(check->line, here, "not carried over as it is: a tcp check takes its place");
    } else {
      draft_.note(
          check->line, here,
          "not carried over, so its backends are not checked: health.type exec, with a program of "
          "yours, may do the same");
      return h;
    }
    bool url = false;
    for (const statement& k : check->block) {
      const std::string_view key = k.word(0);
      if (read_own(k, here, h, times) || read_timing(draft_, k, here, times)) continue;
      if (key == "connect_port") {
        const auto port = number(k.word(1), 65535);
        if (!port || *port == 0)
          draft_.note(k.line, here + ": " + joined(k), "is no port");
        else
          h.port = static_cast<std::uint16_t>(*port);
      } else if (key == "virtualhost") {
        host = k.word(1);
      } else if (key == "url" && model::requests(h.kind)) {
        if (url)
          draft_.note(k.line, here + ": url", "not carried over: one path is asked for");
        else
          read_url(k, here, h, host);
        url = true;
      } else if (key != "url" && key != "enable_sni") {
        left_out(draft_, k, here);
      }
    }
    if (h.kind == health_kind::exec && h.command.empty()) {
      draft_.note(check->line, here, "names no program, so its backends are not checked");
      return {};
    }
    const bool plain =
        std::all_of(host.begin(), host.end(), [](char c) { return c > ' ' && c < 0x7f; });
    if (host.size() <= 255 && plain)
      h.host = host;
    else
      draft_.note(check->line, here, "its virtualhost is no host name; left out");
    h.interval = times.interval;
    h.timeout = std::min(times.timeout, times.interval);
    h.rise = 1;
    h.fall = times.retry + 1;
    return model::without_unused(h);
  }

 private:
  // read_own() takes the keys of datagrams and programs; true: it was one of these.
  bool read_own(const statement& k, const std::string& here, model::health_check& h,
                timing& times) {
    const std::string_view key = k.word(0);
    const std::string place = here + ": " + joined(k);
    if (h.kind == health_kind::dns && key == "name") {
      const std::string_view name = k.word(1);
      h.name = name.ends_with('.') ? name.substr(0, name.size() - 1) : name;
    } else if (h.kind == health_kind::dns && key == "type") {
      if (const auto record = model::record_of(k.word(1)))
        h.record = *record;
      else
        draft_.note(k.line, place, "not carried over: expected A, AAAA, CNAME, MX, NS, SOA or TXT");
    } else if (h.kind == health_kind::udp && key == "payload") {
      if (auto sent = from_hex(k))
        h.send = std::move(*sent);
      else
        draft_.note(k.line, place, "is not hexadecimal; nothing is sent but an empty datagram");
    } else if (h.kind == health_kind::udp && key == "require_reply") {
      h.answer = model::health_answer::any;
      if (k.words.size() > 1)
        draft_.note(k.line, place, "not carried over as it is: any reply will do (health.receive)");
    } else if (h.kind == health_kind::exec && key == "misc_path") {
      read_program(k, place, h);
    } else if (h.kind == health_kind::exec && key == "misc_timeout") {
      if (const auto value = seconds(k.word(1)))
        times.timeout = *value;
      else
        draft_.note(k.line, place, "is no time from 0.01 to 3600 seconds");
    } else if (h.kind == health_kind::exec && key == "misc_dynamic") {
      h.weights = true;
    } else {
      return false;
    }
    return true;
  }

  // read_program() takes a program and its arguments. Where it stands is the node's affair.
  void read_program(const statement& k, const std::string& place, model::health_check& h) {
    std::istringstream words{std::string{k.word(1)}};
    for (std::string word; words >> word;) h.command.push_back(std::move(word));
    for (std::size_t i = 2; i < k.words.size(); ++i) h.command.push_back(k.words[i]);
    if (h.command.empty()) return;
    const std::string name = h.command[0].substr(h.command[0].rfind('/') + 1);
    if (name.empty()) return h.command.clear();
    const std::string there = std::string{checks_directory} + "/" + name;
    if (there != h.command[0])
      draft_.note(k.line, place,
                  "copy the program to " + there +
                      ": checks run only what is in the node's directory (controlplane.checks)");
    h.command[0] = there;
  }

  // from_hex() reads the words behind the key, which are bytes in hexadecimal.
  static std::optional<std::string> from_hex(const statement& k) {
    std::string digits;
    for (std::size_t i = 1; i < k.words.size(); ++i)
      std::copy_if(k.words[i].begin(), k.words[i].end(), std::back_inserter(digits),
                   [](char c) { return c != ' '; });
    if (digits.size() % 2 != 0) return std::nullopt;
    std::string bytes;
    for (std::size_t i = 0; i < digits.size(); i += 2) {
      unsigned value = 0;
      const char* const end = digits.data() + i + 2;
      const auto read = std::from_chars(digits.data() + i, end, value, 16);
      if (read.ec != std::errc{} || read.ptr != end) return std::nullopt;
      bytes.push_back(static_cast<char>(value));
    }
    return bytes;
  }

  void read_url(const statement& url, const std::string& here, model::health_check& h,
                std::string& host) {
    for (const statement& k : url.block) {
      const std::string_view key = k.word(0);
      const std::string place = here + ": url: " + joined(k);
      if (key == "path") {
        const std::string_view path = k.word(1);
        const bool plain =
            std::all_of(path.begin(), path.end(), [](char c) { return c > ' ' && c < 0x7f; });
        if (path.empty() || path[0] != '/' || !plain || path.size() > 1000)
          draft_.note(k.line, place, "is no path; / is used");
        else
          h.path = path;
      } else if (key == "status_code") {
        if (!read_status(k, h))
          draft_.note(k.line, place, "one status or one range is expected; 200-399 is used");
      } else if (key == "virtualhost") {
        host = k.word(1);
      } else if (key == "digest" || key == "regex" || key == "regex_no_match" ||
                 key == "regex_options" || key == "regex_stack" || key == "regex_min_offset" ||
                 key == "regex_max_offset") {
        draft_.note(k.line, place, "not carried over: the status is looked at, not the body");
      } else {
        draft_.note(k.line, place, "not carried over: this key is not known");
      }
    }
  }

  static bool read_status(const statement& k, model::health_check& h) {
    if (k.words.size() != 2) return false;
    const std::string_view text = k.word(1);
    const std::size_t dash = std::min(text.find('-'), text.size());
    const auto first = number(text.substr(0, dash), 599);
    const auto last = dash < text.size() ? number(text.substr(dash + 1), 599) : first;
    if (!first || !last || *first < 100 || *last < *first) return false;
    h.expect_first = static_cast<std::uint16_t>(*first);
    h.expect_last = static_cast<std::uint16_t>(*last);
    return true;
  }

  draft& draft_;
};

}  // namespace

bool is_check(std::string_view key) {
  return key == "HTTP_GET" || key == "SSL_GET" || key == "TCP_CHECK" ||
         (key.size() > 6 && key.substr(key.size() - 6) == "_CHECK");
}

model::health_check read_check(draft& d, const statement* check, const std::string& where,
                               timing times, const std::string& host) {
  return check_reader{d}.read(check, where, times, host);
}

}  // namespace sluice::importing
