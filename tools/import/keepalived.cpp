// SPDX-License-Identifier: Apache-2.0
// keepalived.conf: its virtual servers (keepalived.conf(5), "LVS CONFIGURATION").
#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <map>
#include <sstream>

#include "controlplane/model/health_text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "tools/import/draft.hpp"
#include "tools/import/words.hpp"

namespace sluice::importing {

namespace {

using model::forward_mode;
using model::health_kind;
using std::chrono::milliseconds;

constexpr std::string_view checks_directory = "/etc/sluice/checks";  // node.yaml's default

// Keys that are known, and why there is nothing for them. An empty reason: there is nothing to
// carry over, as Sluice does so anyway.
struct known_key {
  std::string_view key;
  std::string_view why;
};
constexpr std::array known_keys{
    known_key{"alpha", ""},  // a backend is down until it was checked
    known_key{"inhibit_on_failure",
              "a backend that is down gets nothing, not even connections "
              "that it has"},
    known_key{"sorry_server_inhibit", "see inhibit_on_failure"},
    known_key{"omega", "there are no scripts; `sluice events` tells what happens"},
    known_key{"notify_up", "there are no scripts; `sluice events` tells what happens"},
    known_key{"notify_down", "there are no scripts; `sluice events` tells what happens"},
    known_key{"quorum_up", "there are no scripts; `sluice events` tells what happens"},
    known_key{"quorum_down", "there are no scripts; `sluice events` tells what happens"},
    known_key{"quorum",
              "a service goes on with one backend; failover.tier-threshold says when the "
              "next tier takes over"},
    known_key{"hysteresis", "belongs to quorum; see failover.failback"},
    known_key{"ha_suspend", "health checks go on whoever has the address"},
    known_key{"ops", "a datagram's flow keeps its backend"},
    known_key{"hashed", "belongs to the scheduler sh"},
    known_key{"mh-port", ""},  // maglev hashes the ports
    known_key{"mh-fallback", ""},
    known_key{"sh-port", "source-hash takes the address alone; maglev takes the ports, too"},
    known_key{"sh-fallback", ""},
    known_key{"flag-1", "flags of schedulers are not known"},
    known_key{"flag-2", "flags of schedulers are not known"},
    known_key{"flag-3", "flags of schedulers are not known"},
    known_key{"persistence_engine", "there is no such engine (sip)"},
    known_key{"smtp_alert", "no mail is sent; packaging/prometheus has alert rules"},
    known_key{"no_smtp_alert", ""},
    known_key{"snmp_name", "there is no SNMP"},
    known_key{"lthreshold",
              "a backend at its maximum gets connections again below 90 per cent of it"},
    known_key{"warmup", "checks begin at once, spread over an interval"},
    known_key{"delay_before_retry", "a check that failed is repeated after the interval"},
    known_key{"ip_family", ""},
};

// What stands beside the virtual servers.
constexpr std::array other_blocks{
    known_key{"global_defs", "nothing of it is about services"},
    known_key{"vrrp_instance",
              "who has the address is not Sluice's to say: keep keepalived for "
              "VRRP, or announce the address by a routing daemon"},
    known_key{"vrrp_sync_group", "see vrrp_instance"},
    known_key{"vrrp_script", "see vrrp_instance"},
    known_key{"vrrp_track_process", "see vrrp_instance"},
    known_key{"track_file", "see vrrp_instance"},
    known_key{"vrrp_track_file", "see vrrp_instance"},
    known_key{"static_ipaddress", "addresses are the host's own business"},
    known_key{"static_routes", "routes are the host's own business"},
    known_key{"static_rules", "routes are the host's own business"},
    known_key{"bfd_instance", "there is no BFD"},
    known_key{"SSL", "health checks have no client certificate"},
    known_key{"include", "other files are not read: import each of them"},
};

// seconds() reads "10" or "2.5"; nothing: it is no time of up to an hour.
std::optional<milliseconds> seconds(std::string_view text) {
  double value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (wrong != std::errc{} || end != text.data() + text.size() || !(value >= 0.01) || value > 3600)
    return std::nullopt;
  return milliseconds{static_cast<std::int64_t>(value * 1000 + 0.5)};
}

std::string joined(const statement& s) {
  std::string out;
  for (const std::string& w : s.words) out += (out.empty() ? "" : " ") + w;
  return out;
}

// timing: what keepalived repeats at each level, the innermost of which counts.
struct timing {
  milliseconds interval{60'000};  // delay_loop
  milliseconds timeout{5'000};    // connect_timeout
  std::uint32_t retry{1};
};

class keepalived_reader {
 public:
  keepalived_reader(std::string_view file_name) : draft_{file_name} {}

  result run(const std::vector<statement>& top) {
    for (const statement& s : top)
      if (s.word(0) == "virtual_server_group") groups_[std::string{s.word(1)}] = &s;
    for (const statement& s : top) {
      if (s.word(0) == "virtual_server") {
        read_virtual_server(s);
      } else if (s.word(0) == "virtual_server_group") {
        if (!used(top, s.word(1))) draft_.note(s.line, joined(s), "no virtual_server uses it");
      } else {
        const auto* known = find(other_blocks, s.word(0));
        draft_.note(s.line, joined(s),
                    std::string{"not carried over: "} +
                        std::string{known != nullptr ? known->why : "this is not known"});
      }
    }
    return draft_.finish();
  }

 private:
  template <std::size_t N>
  static const known_key* find(const std::array<known_key, N>& keys, std::string_view key) {
    const auto* it =
        std::find_if(keys.begin(), keys.end(), [key](const known_key& k) { return k.key == key; });
    return it == keys.end() ? nullptr : it;
  }

  static bool used(const std::vector<statement>& top, std::string_view group) {
    return std::any_of(top.begin(), top.end(), [group](const statement& s) {
      return s.word(0) == "virtual_server" && s.word(1) == "group" && s.word(2) == group;
    });
  }

  // left_out() tells of a key that has nowhere to go.
  void left_out(const statement& s, const std::string& where) {
    const auto* known = find(known_keys, s.word(0));
    if (known != nullptr && known->why.empty()) return;
    draft_.note(s.line, where + ": " + joined(s),
                std::string{"not carried over: "} +
                    std::string{known != nullptr ? known->why : "this key is not known"});
  }

  // read_timing() takes what it knows; true: it was one of these keys.
  bool read_timing(const statement& s, const std::string& where, timing& t) {
    const std::string_view key = s.word(0);
    if (key == "delay_loop" || key == "connect_timeout") {
      const auto value = seconds(s.word(1));
      if (!value)
        draft_.note(s.line, where + ": " + joined(s), "is no time from 0.01 to 3600 seconds");
      else
        (key == "delay_loop" ? t.interval : t.timeout) = *value;
      return true;
    }
    if (key == "retry" || key == "nb_get_retry") {
      const auto value = number(s.word(1), 999);
      if (!value)
        draft_.note(s.line, where + ": " + joined(s), "is no number up to 999");
      else
        t.retry = *value;
      return true;
    }
    return false;
  }

  void read_virtual_server(const statement& vs) {
    const std::string key = joined(vs);
    if (vs.word(1) == "fwmark") {
      draft_.note(vs.line, key, "not carried over: a service has an address, not a firewall mark");
      return;
    }
    draft_service base;
    base.key = key;
    base.line = vs.line;
    read_service(vs, base);
    if (vs.word(1) != "group") return add(base, vs.word(1), vs.word(2), vs.line);
    const auto group = groups_.find(std::string{vs.word(2)});
    if (group == groups_.end()) {
      draft_.note(vs.line, key, "not carried over: there is no such group");
      return;
    }
    for (const statement& member : group->second->block) {
      if (member.word(0) == "fwmark")
        draft_.note(member.line, "virtual_server_group " + group->first + ": " + joined(member),
                    "not carried over: a service has an address, not a firewall mark");
      else
        add_range(base, member);
    }
  }

  // add_range() adds a service for each address of "198.51.100.10-12 443".
  void add_range(const draft_service& base, const statement& member) {
    const std::string_view text = member.word(0);
    const std::size_t dash = text.find('-');
    if (dash == std::string_view::npos) return add(base, text, member.word(1), member.line);
    const auto first = parse_ip(text.substr(0, dash));
    const auto last = number(text.substr(dash + 1), 255);
    if (!first || !first->is_v4() || !last || *last < first->bytes[15]) {
      draft_.note(member.line, base.key + ": " + joined(member),
                  "not carried over: this is no range of IPv4 addresses");
      return;
    }
    ip_address address = *first;
    for (unsigned n = first->bytes[15]; n <= *last; ++n) {
      address.bytes[15] = static_cast<std::uint8_t>(n);
      add(base, format_ip(address), member.word(1), member.line);
    }
  }

  void add(const draft_service& base, std::string_view address, std::string_view port,
           unsigned line) {
    draft_service s = base;
    s.line = line;
    const auto ip = parse_ip(address);
    const auto number_of_port =
        port.empty() ? std::optional<std::uint32_t>{0} : number(port, 65535);
    if (!ip || !number_of_port) {
      draft_.note(line, s.key, "not carried over: it wants an address and a port");
      return;
    }
    s.value.address = *ip;
    const auto p = static_cast<std::uint16_t>(*number_of_port);
    s.value.port = p == 0 ? model::port_range{0, 65535} : model::port_range{p, p};
    if (!persistence_.empty()) draft_.set_persistence(s, persistence_, granularity_, line);
    if (model::has_port(s.value.health.kind) && p == 0 && s.value.health.port == 0) {
      draft_.note(line, s.key,
                  "the health check is not carried over: with any port it needs a connect_port");
      s.value.health = {};
    }
    draft_.add(std::move(s));
  }

  void read_service(const statement& vs, draft_service& s) {
    timing times;
    std::string host;
    std::uint32_t weight = 100;
    bool weighed = false;
    persistence_.clear();
    granularity_.clear();
    std::string scheduler = "wlc";
    unsigned scheduler_line = vs.line;
    s.value.forward = forward_mode::dsr_l2;
    bool forward_given = false;
    bool tcp = true;
    for (const statement& k : vs.block) {
      const std::string_view key = k.word(0);
      if (key == "real_server" || read_timing(k, s.key, times)) continue;
      if (key == "lb_algo" || key == "lvs_sched") {
        scheduler = k.word(1);
        scheduler_line = k.line;
      } else if (key == "lb_kind" || key == "lvs_method") {
        forward_given = read_method(k, s) || forward_given;
      } else if (key == "protocol") {
        tcp = k.word(1) != "UDP";
        if (k.word(1) != "TCP" && k.word(1) != "UDP")
          draft_.note(k.line, s.key + ": " + joined(k), "tcp and udp are balanced; tcp is used");
      } else if (key == "persistence_timeout") {
        persistence_ = k.words.size() > 1 ? std::string{k.word(1)} : "360";
      } else if (key == "persistence_granularity") {
        granularity_ = k.word(1);
      } else if (key == "virtualhost") {
        host = k.word(1);
      } else if (key == "weight") {
        weighed = read_weight(k, s.key, weight);
      } else if (key == "sorry_server") {
        read_sorry_server(k, s);
      } else {
        left_out(k, s.key);
      }
    }
    if (!forward_given) draft_.note(vs.line, s.key, "there is no lb_kind; dsr-l2 is used");
    s.value.protocol = tcp ? model::protocol::tcp : model::protocol::udp;
    draft_.set_scheduler(s, scheduler, scheduler_line);
    bool first = true;
    for (const statement& k : vs.block)
      if (k.word(0) == "real_server")
        read_real_server(k, s, times, host, weighed ? weight : 1, first);
    if (first) draft_.note(vs.line, s.key, "has no real_server");
  }

  bool read_method(const statement& k, draft_service& s) {
    const std::string_view method = k.word(1);
    if (method == "NAT") {
      s.value.forward = forward_mode::nat;
    } else if (method == "DR") {
      s.value.forward = forward_mode::dsr_l2;
    } else if (method == "FNAT") {  // of DPVS
      s.value.forward = forward_mode::full_nat;
      draft_.note(k.line, s.key + ": " + joined(k),
                  "full-nat takes its sources from dataplane.nat-pool in node.yaml, which has to "
                  "be written by hand");
    } else if (method == "TUN") {
      s.value.forward = forward_mode::ipip;
      for (std::size_t n = 2; n < k.words.size(); ++n) {
        const std::string_view word = k.word(n);
        if (word == "gue") {
          s.value.forward = forward_mode::gue;
          if (const auto port = number(k.word(n + 1), 65535); port && *port != 6080)
            draft_.note(k.line, s.key + ": " + joined(k),
                        "GUE's port is dataplane.gue-port in node.yaml, for all services");
        } else if (word == "gre") {
          s.value.forward = forward_mode::gre;
        } else if (word == "csum" || word == "remcsum") {
          draft_.note(k.line, s.key + ": " + joined(k), "tunnels have no checksum option");
        }
      }
    } else {
      draft_.note(k.line, s.key + ": " + joined(k), "is NAT, DR or TUN; dsr-l2 is used");
    }
    return true;
  }

  bool read_weight(const statement& k, const std::string& where, std::uint32_t& weight) {
    const auto value = number(k.word(1), 65535);
    if (!value) {
      draft_.note(k.line, where + ": " + joined(k), "is no weight up to 65535");
      return false;
    }
    weight = *value;
    return true;
  }

  void read_bound(const statement& k, const std::string& where, std::uint32_t& most) {
    if (const auto value = number(k.word(1), most_connections))
      most = *value;
    else
      draft_.note(k.line, where + ": " + joined(k), "is no number of connections");
  }

  // read_endpoint() takes "10.0.1.11 80" behind a keyword.
  std::optional<draft_backend> read_endpoint(const statement& k, const std::string& where) {
    const auto ip = parse_ip(k.word(1));
    const auto port = k.words.size() > 2 ? number(k.word(2), 65535) : std::uint32_t{0};
    if (!ip || !port) {
      draft_.note(k.line, where + ": " + joined(k), "not carried over: it wants address and port");
      return std::nullopt;
    }
    draft_backend b;
    b.line = k.line;
    b.value.address = *ip;
    b.value.port = static_cast<std::uint16_t>(*port);
    return b;
  }

  void read_sorry_server(const statement& k, draft_service& s) {
    if (const auto b = read_endpoint(k, s.key)) s.sorry.push_back(*b);
  }

  void read_real_server(const statement& rs, draft_service& s, timing times,
                        const std::string& host, std::uint32_t weight, bool& first) {
    const std::string where = s.key + ": " + joined(rs);
    auto b = read_endpoint(rs, s.key);
    if (!b) return;
    b->value.weight = weight;
    std::string own_host = host;
    const statement* check = nullptr;
    for (const statement& k : rs.block) {
      const std::string_view key = k.word(0);
      if (read_timing(k, where, times)) continue;
      if (key == "weight") {
        read_weight(k, where, b->value.weight);
      } else if (key == "uthreshold") {
        read_bound(k, where, b->value.max_connections);
      } else if (key == "virtualhost") {
        own_host = k.word(1);
      } else if (key == "lvs_method") {
        draft_.note(k.line, where + ": " + joined(k),
                    "not carried over: all backends of a service are reached in one way");
      } else if (is_check(key)) {
        if (check != nullptr)
          draft_.note(k.line, where + ": " + joined(k), "not carried over: one check is made");
        else
          check = &k;
      } else {
        left_out(k, where);
      }
    }
    const std::uint16_t service_port = b->value.port;
    const model::health_check found = read_check(check, where, times, own_host);
    if (first) {
      s.value.health = found;
      first = false;
      first_real_ = joined(rs);
    } else if (!(found == s.value.health)) {
      draft_.note(rs.line, where,
                  "its health check is not that of " + first_real_ +
                      ", which is used: a service has one for all its backends");
    }
    if (!model::translates(s.value.forward) && service_port != 0 && !same_port(s, rs, service_port))
      draft_.note(rs.line, where,
                  "its port is not carried over: with this lb_kind a packet keeps the one that it "
                  "came with");
    s.backends.push_back(*b);
  }

  // same_port() looks where the service's own port stands. A group's may differ from address to
  // address.
  static bool same_port(const draft_service& s, const statement&, std::uint16_t port) {
    const std::size_t gap = s.key.rfind(' ');
    const auto own = number(std::string_view{s.key}.substr(gap + 1), 65535);
    return !own || *own == port || s.key.find(" group ") != std::string::npos;
  }

  static bool is_check(std::string_view key) {
    return key == "HTTP_GET" || key == "SSL_GET" || key == "TCP_CHECK" ||
           (key.size() > 6 && key.substr(key.size() - 6) == "_CHECK");
  }

  model::health_check read_check(const statement* check, const std::string& where, timing times,
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
      if (read_own(k, here, h, times) || read_timing(k, here, times)) continue;
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
        left_out(k, here);
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

  draft draft_;
  std::map<std::string, const statement*> groups_;
  // Of the virtual server that is being read.
  std::string persistence_;
  std::string granularity_;
  std::string first_real_;
};

}  // namespace

result from_keepalived(std::string_view text, std::string_view file_name) {
  const auto statements = read_statements(text, file_name);
  if (!statements) return tl::unexpected{statements.error()};
  return keepalived_reader{file_name}.run(*statements);
}

}  // namespace sluice::importing
