// SPDX-License-Identifier: Apache-2.0
// The lines of `ipvsadm -Sn` (ipvsadm-save -n), which are ipvsadm's own options (ipvsadm(8)).
#include <array>

#include "dataplane/abi/address_text.hpp"
#include "tools/import/draft.hpp"
#include "tools/import/unreadable.hpp"

namespace sluice::importing {

namespace {

using model::forward_mode;

struct option_name {
  std::string_view longer;
  std::string_view shorter;
};
constexpr std::array option_names{
    option_name{"--add-service", "-A"},
    option_name{"--edit-service", "-E"},
    option_name{"--add-server", "-a"},
    option_name{"--edit-server", "-e"},
    option_name{"--delete-service", "-D"},
    option_name{"--delete-server", "-d"},
    option_name{"--clear", "-C"},
    option_name{"--tcp-service", "-t"},
    option_name{"--udp-service", "-u"},
    option_name{"--fwmark-service", "-f"},
    option_name{"--scheduler", "-s"},
    option_name{"--persistent", "-p"},
    option_name{"--netmask", "-M"},
    option_name{"--real-server", "-r"},
    option_name{"--gatewaying", "-g"},
    option_name{"--ipip", "-i"},
    option_name{"--masquerading", "-m"},
    option_name{"--weight", "-w"},
    option_name{"--u-threshold", "-x"},
    option_name{"--l-threshold", "-y"},
    option_name{"--ops", "-o"},
    option_name{"--sched-flags", "-b"},
    option_name{"--ipv6", "-6"},
    option_name{"--fullnat", "--fullnat"},
};

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t from = line.find_first_not_of(" \t\r", at);
    if (from == std::string_view::npos || line[from] == '#') break;
    at = std::min(line.find_first_of(" \t\r", from), line.size());
    words.push_back(line.substr(from, at - from));
  }
  return words;
}

struct endpoint {
  ip_address address;
  std::uint16_t port{};  // 0: any
};

// read_endpoint() reads "198.51.100.10:80", "[2001:db8::1]:80", or an address alone.
std::optional<endpoint> read_endpoint(std::string_view text) {
  std::string_view host = text;
  std::string_view port;
  if (!text.empty() && text[0] == '[') {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = text.substr(1, end - 1);
    if (end + 1 < text.size()) {
      if (text[end + 1] != ':') return std::nullopt;
      port = text.substr(end + 2);
    }
  } else if (const std::size_t colon = text.find(':');
             colon != std::string_view::npos &&
             text.find(':', colon + 1) == std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  const auto ip = parse_ip(host);
  const auto n = port.empty() ? std::optional<std::uint32_t>{0} : number(port, 65535);
  if (!ip || !n) return std::nullopt;
  return endpoint{*ip, static_cast<std::uint16_t>(*n)};
}

// options: one line.
struct options {
  char command{};  // A, a, ...
  std::string service;
  bool tcp{true};
  std::string_view fwmark, sctp, scheduler{"wlc"}, real, tunnel{"ipip"}, tunnel_port, netmask;
  std::string_view weight{"1"}, most, persistent;
  forward_mode forward{forward_mode::dsr_l2};
  bool tunnels{false};
  std::vector<std::string> unknown;  // with what follows them
};

std::string_view shortened(std::string_view word) {
  for (const option_name& o : option_names)
    if (o.longer == word) return o.shorter;
  return word;
}

options read_options(const std::vector<std::string_view>& words) {
  options o;
  for (std::size_t n = 0; n < words.size(); ++n) {
    std::string_view given = words[n];
    std::string_view value;
    bool joined_value = false;
    if (const std::size_t equals = given.find('=');
        given.substr(0, 2) == "--" && equals != std::string_view::npos) {
      value = given.substr(equals + 1);
      given = given.substr(0, equals);
      joined_value = true;
    }
    const std::string_view word = shortened(given);
    const bool value_follows = n + 1 < words.size() && words[n + 1].substr(0, 1) != "-";
    const auto take = [&]() {
      if (joined_value) return value;
      return value_follows ? words[++n] : std::string_view{};
    };
    if (word == "-A" || word == "-E" || word == "-a" || word == "-e" || word == "-D" ||
        word == "-d" || word == "-C") {
      o.command = word[1];
    } else if (word == "-t" || word == "-u") {
      o.tcp = word == "-t";
      o.service = take();
    } else if (word == "-f") {
      o.fwmark = take();
    } else if (word == "--sctp-service") {
      o.sctp = take();
    } else if (word == "-s") {
      o.scheduler = take();
    } else if (word == "-p") {
      o.persistent = take();
      if (o.persistent.empty()) o.persistent = "300";
    } else if (word == "-M") {
      o.netmask = take();
    } else if (word == "-r") {
      o.real = take();
    } else if (word == "-g") {
      o.forward = forward_mode::dsr_l2;
    } else if (word == "-m") {
      o.forward = forward_mode::nat;
    } else if (word == "--fullnat") {
      o.forward = forward_mode::full_nat;
    } else if (word == "-i") {
      o.tunnels = true;
    } else if (word == "-w") {
      o.weight = take();
    } else if (word == "-x") {
      o.most = take();
    } else if (word == "--tun-type") {
      o.tunnel = take();
    } else if (word == "--tun-port") {
      o.tunnel_port = take();
    } else if (word != "-6" && word != "--tun-nocsum") {
      std::string text{given};
      if (const std::string_view v = take(); !v.empty()) text += " " + std::string{v};
      // `-y 0` says that there is no limit.
      if (text != "-y 0") o.unknown.push_back(text);
    }
  }
  if (o.tunnels)
    o.forward = o.tunnel == "gue"   ? forward_mode::gue
                : o.tunnel == "gre" ? forward_mode::gre
                                    : forward_mode::ipip;
  return o;
}

std::string_view why_not(std::string_view option) {
  const std::string_view word = shortened(option.substr(0, option.find(' ')));
  if (word == "-y")
    return "a backend at its maximum gets connections again below 90 per cent of it";
  if (word == "-o") return "a datagram's flow keeps its backend";
  if (word == "-b") return "flags of schedulers have no equal";
  if (word == "--pe") return "there is no such engine";
  if (word == "--tun-csum" || word == "--tun-remcsum") return "tunnels have no checksum option";
  return "this option is not known";
}

class ipvsadm_reader {
 public:
  explicit ipvsadm_reader(std::string_view file_name)
      : draft_{line_table{std::string{file_name}}} {}

  void read_line(std::string_view text, unsigned line) {
    const auto words = words_of(text);
    if (words.empty()) return;
    if (const auto why = unreadable(text); !why.empty())
      return draft_.note(line, "", "not carried over: " + std::string{why});
    const options o = read_options(words);
    // "-A -t 198.51.100.10:443": what a note is about.
    std::string key;
    for (std::size_t n = 0; n < std::min<std::size_t>(words.size(), 5); ++n)
      key += (n == 0 ? "" : " ") + std::string{words[n]};
    if (o.command == 'C') return;
    if (o.command == 'A' || o.command == 'a')
      for (const std::string& u : o.unknown)
        draft_.note(line, key + ": " + u, "not carried over: " + std::string{why_not(u)});
    if (!o.fwmark.empty()) {
      draft_.note(line, key, "not carried over: a service has an address, not a firewall mark");
    } else if (!o.sctp.empty()) {
      draft_.note(line, key, "not carried over: tcp and udp are balanced");
    } else if (o.command == 'A') {
      add_service(o, key, line);
    } else if (o.command == 'a') {
      add_server(o, key, line);
    } else {
      draft_.note(line, key, "not carried over: only -A and -a add something");
    }
  }

  result finish() { return draft_.finish(); }

 private:
  static model::service service_of(const options& o, const endpoint& e) {
    model::service s;
    s.address = e.address;
    s.protocol = o.tcp ? model::protocol::tcp : model::protocol::udp;
    s.port = e.port == 0 ? model::port_range{0, 65535} : model::port_range{e.port, e.port};
    return s;
  }

  void add_service(const options& o, const std::string& key, unsigned line) {
    const auto e = read_endpoint(o.service);
    if (!e) return draft_.note(line, key, "not carried over: it wants -t or -u ADDRESS:PORT");
    draft_service s;
    s.key = key;
    s.line = line;
    s.value = service_of(o, *e);
    s.value.forward = forward_mode::dsr_l2;
    draft_.set_scheduler(s, o.scheduler, line);
    if (!o.persistent.empty()) draft_.set_persistence(s, o.persistent, o.netmask, line);
    draft_.add(std::move(s));
  }

  void add_server(const options& o, const std::string& key, unsigned line) {
    const auto e = read_endpoint(o.service);
    const auto real = read_endpoint(o.real);
    if (!e || !real)
      return draft_.note(line, key, "not carried over: it wants -t or -u ADDRESS:PORT, and -r");
    draft_service* s = draft_.service_at(service_of(o, *e));
    if (s == nullptr) return draft_.note(line, key, "not carried over: there is no such service");
    if (s->backends.empty()) {
      s->value.forward = o.forward;
      if (o.forward == forward_mode::full_nat)
        draft_.note(line, key,
                    "full-nat takes its sources from dataplane.nat-pool in node.yaml, which has "
                    "to be written by hand");
    } else if (s->value.forward != o.forward) {
      return draft_.note(line, key,
                         "not carried over: all backends of a service are reached in one way, "
                         "and the first one is by another");
    }
    if (const auto port = number(o.tunnel_port, 65535);
        o.forward == forward_mode::gue && port && *port != 6080)
      draft_.note(line, key, "GUE's port is dataplane.gue-port in node.yaml, for all services");
    draft_backend b;
    b.line = line;
    b.value.address = real->address;
    b.value.port = real->port;
    const auto weight = number(o.weight, 65535);
    if (!weight) draft_.note(line, key, "a weight is at most 65535; 100 is used");
    b.value.weight = weight.value_or(100);
    if (const auto most = number(o.most, most_connections); !o.most.empty() && most)
      b.value.max_connections = *most;  // 0: none
    else if (!o.most.empty())
      draft_.note(line, key + ": -x", "is no number of connections");
    if (!model::translates(o.forward) && real->port != e->port && real->port != 0)
      draft_.note(line, key,
                  "its port is not carried over: a packet keeps the one that it came with");
    s->backends.push_back(b);
  }

  draft draft_;
};

}  // namespace

result from_ipvsadm(std::string_view text, std::string_view file_name) {
  ipvsadm_reader lines{file_name};
  unsigned line = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines.read_line(text.substr(at, end - at), ++line);
    at = end + 1;
  }
  return lines.finish();
}

}  // namespace sluice::importing
