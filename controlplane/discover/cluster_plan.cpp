// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/cluster_plan.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "controlplane/config/config.hpp"
#include "controlplane/config/read_health.hpp"
#include "controlplane/discover/cluster_vips.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/fnv.hpp"

namespace sluice::discover {
namespace {

using model::service;
using services_of = std::map<std::string, std::vector<service>>;  // by key
using built = tl::expected<std::vector<service>, std::string>;

constexpr std::size_t longest_name = 48;
constexpr std::chrono::seconds longest_affinity{65535};

// An address that only holds the place in what services have in common.
constexpr ip_address placeholder = ip_address::v4({192, 0, 2, 1});

bool over_tcp(model::health_kind k) {
  return k != model::health_kind::none && k != model::health_kind::udp &&
         k != model::health_kind::dns && k != model::health_kind::icmp &&
         k != model::health_kind::exec;
}

std::string name_of(const std::string& key, const cluster_port& port, bool v4) {
  std::string name = key;
  std::replace(name.begin(), name.end(), '/', '.');
  name += "." + std::to_string(port.port) + "-" + std::string{model::to_string(port.protocol)};
  if (!v4) name += "-v6";
  if (name.size() <= longest_name) return name;
  constexpr std::string_view digits = "0123456789abcdef";
  fnv1a digest;
  digest.add(name);
  name.resize(longest_name - 13);
  name += "-";
  for (unsigned i = 0; i < 12; ++i) name += digits[(digest.value() >> (4 * i)) & 15];
  return name;
}

std::string first_of(const std::vector<config_error>& errors) {
  if (errors.empty()) return {};
  return (errors.front().key.empty() ? "" : errors.front().key + " ") + errors.front().message;
}

// allow_only() reads loadBalancerSourceRanges; an error, not nothing, where they are unclear.
std::string allow_only(const std::vector<std::string>& ranges, service& s) {
  if (ranges.empty()) return {};
  if (s.allow.given())
    return "loadBalancerSourceRanges beside the list allow of service-file; expected one of them";
  for (const std::string& text : ranges) {
    const auto from = text.find_first_not_of(' ');
    const auto to = text.find_last_not_of(' ');
    const auto prefix = parse_prefix(from == text.npos ? text : text.substr(from, to + 1 - from));
    if (!prefix) return "loadBalancerSourceRanges: " + prefix.error();
    s.allow.prefixes.push_back(*prefix);
  }
  return {};
}

// grant() takes over what the annotations of a Service wish.
std::string grant(const std::map<std::string, std::string>& wishes, service& s) {
  for (const auto& [key, value] : wishes) {
    if (key == "address") continue;
    const std::string shown = "annotation sluice.io/" + key + ": ";
    if (key == "forward" || key == "scheduler") {
      const auto text = nlohmann::json{{key, value}}.dump(-1, ' ', false,
                                                          nlohmann::json::error_handler_t::replace);
      auto changed = config::parse_service(text, {}, {}, &s);
      if (!changed) return shown + changed.error().front().message;
      s = std::move(*changed);
    } else if (key == "health") {
      auto health = config::parse_health(value, {}, nullptr);
      if (!health) return shown + first_of(health.error());
      // These reach for files of this host.
      if (health->kind == model::health_kind::exec || !health->ca_file.empty())
        return shown + "programs and files are not for Services to name";
      s.health = std::move(*health);
    } else {
      return shown + "is not known; expected address, forward, scheduler or health";
    }
  }
  return {};
}

class planner {
 public:
  planner(const model::desired_state& now, const plan_input& in) : in_{in}, vips_{in.config} {
    for (const service& s : now.services) {
      if (s.owner == model::service_owner::kubernetes) {
        before_[key_of(s)].push_back(s);
      } else {
        out_.next.services.push_back(s);
        vips_.take_away(s.address);
      }
    }
  }

  cluster_plan run() {
    std::vector<const cluster_service*> ours;
    for (const auto& [key, s] : in_.services)
      if (is_ours(s, in_.config)) ours.push_back(&s);
    for (const auto& [key, some] : before_)
      if (!known(key)) keep(key);
    // All VIPs first, so that nobody is given what another one has.
    std::vector<vip_wish> wishes;
    for (const cluster_service* s : ours) wishes.push_back(wish_of(*s));
    const auto given = vips_.give(wishes);
    for (std::size_t i = 0; i < ours.size(); ++i) plan_one(*ours[i], given[i]);
    for (const auto& [key, some] : before_)
      if (known(key) && !done_.contains(key)) out_.changed.insert(key);
    model::normalise(out_.next);
    return std::move(out_);
  }

 private:
  [[nodiscard]] bool known(const std::string& key) const {
    const std::string space = key.substr(0, key.find('/'));
    const auto& configured = in_.config.namespaces;
    if (configured.empty()) return in_.listed.contains({});
    return in_.listed.contains(space) ||
           std::find(configured.begin(), configured.end(), space) == configured.end();
  }

  void keep(const std::string& key) {
    const auto before = before_.find(key);
    if (before == before_.end()) return;
    done_.insert(key);
    for (const service& s : before->second) {
      out_.next.services.push_back(s);
      vips_.hold(key, s.address);
    }
  }

  [[nodiscard]] vip_wish wish_of(const cluster_service& s) const {
    vip_wish w{s.key, s.families, {}, {}, {}, {}};
    if (w.families.empty()) w.families.push_back(true);
    for (const std::string& text : s.asked) {
      if (auto a = parse_ip(text))
        w.asked.push_back(*a);
      else
        w.problem = a.error();
    }
    for (const std::string& text : s.addresses)
      if (auto a = parse_ip(text)) w.in_status.push_back(*a);
    if (const auto before = before_.find(s.key); before != before_.end())
      for (const service& old : before->second) w.had.push_back(old.address);
    return w;
  }

  // build() is what a Service stands for.
  [[nodiscard]] built build(const cluster_service& s, const std::vector<ip_address>& vips) const {
    std::vector<service> out;
    for (const cluster_port& port : s.ports)
      for (const ip_address& vip : vips) {
        service one = in_.common;
        one.name = name_of(s.key, port, vip.is_v4());
        one.owner = model::service_owner::kubernetes;
        one.address = vip;
        one.protocol = port.protocol;
        one.port = {port.port, port.port};
        if (port.protocol == model::protocol::udp) {
          one.client = model::client_address::none;
          one.mss_clamp = {};
          one.limits.syn_flood = 0;
          if (over_tcp(one.health.kind)) one.health = {};
        } else {
          one.quic_id_length = 0;
        }
        one.discover.kind = model::discovery_kind::kubernetes;
        one.discover.name = s.key;
        one.discover.server = in_.config.server;
        one.discover.ca = in_.config.ca;
        one.discover.token_file = in_.config.token_file;
        one.discover.port_name = port.name;
        one.discover.allow_empty = true;  // Services without endpoints are nothing special
        if (s.affinity) one.persistence.timeout = std::min(*s.affinity, longest_affinity);
        if (std::string why = allow_only(s.source_ranges, one); !why.empty())
          return tl::unexpected{std::move(why)};
        if (std::string why = grant(s.wishes, one); !why.empty())
          return tl::unexpected{std::move(why)};
        model::normalise(one);
        out.push_back(std::move(one));
      }
    std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return out;
  }

  void plan_one(const cluster_service& s,
                const tl::expected<std::vector<ip_address>, std::string>& vips) {
    const auto fail = [&](std::string why) {
      out_.problems[s.key] = std::move(why);
      keep(s.key);
    };
    if (!vips) return fail(vips.error());
    auto made = build(s, *vips);
    if (!made) return fail(std::move(made.error()));
    if (made->empty())
      return fail(s.unfit_ports.empty()
                      ? "it has no ports"
                      : "port " + s.unfit_ports.front() + " is impossible; expected TCP or UDP");
    const auto before = before_.find(s.key);
    // What an operator asked of backends stays.
    if (before != before_.end())
      for (service& one : *made)
        for (const service& old : before->second)
          if (old.name == one.name) one.discovered = old.discovered;
    const bool same = before != before_.end() && before->second == *made;
    const std::size_t others = out_.next.services.size();
    out_.next.services.insert(out_.next.services.end(), made->begin(), made->end());
    if (!same) {
      if (std::string why = in_.check(out_.next); !why.empty()) {
        out_.next.services.resize(others);
        return fail(std::move(why));
      }
      out_.changed.insert(s.key);
    }
    done_.insert(s.key);
    if (!s.unfit_ports.empty())
      out_.problems[s.key] = "port " + s.unfit_ports.front() + " is left out; expected TCP or UDP";
  }

  const plan_input& in_;
  vip_book vips_;
  services_of before_;
  std::set<std::string> done_;  // keys that are in the next state as they are to be
  cluster_plan out_;
};

}  // namespace

tl::expected<model::service, std::vector<config_error>> common_service(
    const kubernetes_config& config) {
  service base;
  base.name = "common";
  base.address = placeholder;
  base.port = {1, 1};
  base.forward = model::forward_mode::full_nat;
  base.health.kind = model::health_kind::tcp;
  if (config.service_file.empty()) return base;
  const auto text = read_text_file(config.service_file);
  if (!text) return tl::unexpected{std::vector{text.error()}};
  auto common = config::parse_service(*text, config.service_file, {}, &base);
  if (!common) return common;
  const service& c = *common;
  std::vector<config_error> errors;
  const auto not_here = [&](bool wrong, const char* key) {
    if (wrong)
      errors.push_back(
          {config.service_file, 0, key, "is said by each Service; expected it not here"});
  };
  not_here(c.address != base.address, "address");
  not_here(c.protocol != base.protocol, "protocol");
  not_here(c.port != base.port, "port");
  not_here(c.discover.given() || !c.discovered.empty(), "discover");
  not_here(!c.backends.empty(), "backends");
  not_here(c.owner != base.owner, "owner");
  if (c.forward == model::forward_mode::dsr_dscp)
    errors.push_back({config.service_file, 0, "forward",
                      "dsr-dscp needs a DSCP for each backend, which Kubernetes has not; expected "
                      "another mode"});
  if (!errors.empty()) return tl::unexpected{std::move(errors)};
  return common;
}

cluster_plan make_plan(const model::desired_state& now, const plan_input& in) {
  return planner{now, in}.run();
}

bool is_ours(const cluster_service& s, const kubernetes_config& config) {
  return s.balanced && s.load_balancer_class == config.load_balancer_class;
}

const std::string& key_of(const model::service& s) {
  return s.discover.name;
}

std::vector<std::string> vips_of(const model::desired_state& state, const cluster_service& s) {
  std::set<ip_address> seen;
  for (const service& one : state.services)
    if (one.owner == model::service_owner::kubernetes && key_of(one) == s.key)
      seen.insert(one.address);
  std::vector<ip_address> sorted{seen.begin(), seen.end()};
  const bool v6_first = !s.families.empty() && !s.families.front();
  std::stable_partition(sorted.begin(), sorted.end(),
                        [&](const ip_address& a) { return a.is_v4() != v6_first; });
  std::vector<std::string> out;
  for (const ip_address& a : sorted) out.push_back(format_ip(a));
  return out;
}

model::desired_state only(const model::desired_state& now, const cluster_plan& plan,
                          const std::string& key) {
  const auto of_key = [&](const service& s) {
    return s.owner == model::service_owner::kubernetes && key_of(s) == key;
  };
  model::desired_state out = now;
  std::erase_if(out.services, of_key);
  std::copy_if(plan.next.services.begin(), plan.next.services.end(),
               std::back_inserter(out.services), of_key);
  model::normalise(out);
  return out;
}

}  // namespace sluice::discover
