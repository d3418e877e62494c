// SPDX-License-Identifier: Apache-2.0
// keepalived.conf: its virtual servers (keepalived.conf(5), "LVS CONFIGURATION").
#include <algorithm>
#include <array>
#include <map>

#include "controlplane/model/health_text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "tools/import/draft.hpp"
#include "tools/import/keepalived_parts.hpp"
#include "tools/import/words.hpp"

namespace sluice::importing {

namespace {

using model::forward_mode;

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
};

class keepalived_reader {
 public:
  explicit keepalived_reader(const line_table& lines) : draft_{lines} {}

  result run(const statements& all) {
    const std::vector<statement>& top = all.top;
    for (const unread& u : all.left_out) draft_.note(u.line, u.key, "not carried over: " + u.why);
    for (const statement& s : top)
      if (s.word(0) == "virtual_server_group") groups_[std::string{s.word(1)}] = &s;
    for (const statement& s : top) {
      if (s.word(0) == "virtual_server") {
        read_virtual_server(s);
      } else if (s.word(0) == "virtual_server_group") {
        if (!used(top, s.word(1))) draft_.note(s.line, joined(s), "no virtual_server uses it");
      } else {
        const auto* known = find_key(other_blocks, s.word(0));
        draft_.note(s.line, joined(s),
                    std::string{"not carried over: "} +
                        std::string{known != nullptr ? known->why : "this is not known"});
      }
    }
    return draft_.finish();
  }

 private:
  static bool used(const std::vector<statement>& top, std::string_view group) {
    return std::any_of(top.begin(), top.end(), [group](const statement& s) {
      return s.word(0) == "virtual_server" && s.word(1) == "group" && s.word(2) == group;
    });
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
      if (key == "real_server" || read_timing(draft_, k, s.key, times)) continue;
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
        left_out(draft_, k, s.key);
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
      if (read_timing(draft_, k, where, times)) continue;
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
        left_out(draft_, k, where);
      }
    }
    const std::uint16_t service_port = b->value.port;
    const model::health_check found = read_check(draft_, check, where, times, own_host);
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

  draft draft_;
  std::map<std::string, const statement*> groups_;
  // Of the virtual server that is being read.
  std::string persistence_;
  std::string granularity_;
  std::string first_real_;
};

}  // namespace

result from_keepalived(std::string_view text, std::string_view file_name,
                       const include_reader& include) {
  const auto all = read_statements(text, file_name, include);
  if (!all) return tl::unexpected{all.error()};
  return keepalived_reader{all->lines}.run(*all);
}

}  // namespace sluice::importing
