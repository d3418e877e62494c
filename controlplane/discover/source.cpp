// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/source.hpp"

#include <algorithm>

#include "controlplane/discover/consul_source.hpp"
#include "controlplane/discover/dns_source.hpp"
#include "controlplane/discover/file_source.hpp"
#include "controlplane/discover/kubernetes_source.hpp"
#include "controlplane/model/text.hpp"

namespace sluice::discover {

std::string question::key() const {
  std::string out = model::to_json(what).dump();
  out += std::string{ipv4 ? " ipv4" : ""} + (ipv6 ? " ipv6" : "");
  if (!what.load_balancer_class.empty()) out += " " + format_ip(vip);
  return out;
}

question question_of(const model::service& s) {
  question q{s.discover, false, false, {}};
  const model::discovery fresh;
  q.what.weight = fresh.weight;
  q.what.tier = fresh.tier;
  q.what.max_backends = fresh.max_backends;
  q.what.allow_empty = fresh.allow_empty;
  if (q.what.kind == model::discovery_kind::kubernetes) {
    (s.address.is_v4() ? q.ipv4 : q.ipv6) = true;
    if (!q.what.load_balancer_class.empty()) q.vip = s.address;
  }
  if (q.what.kind != model::discovery_kind::dns) return q;
  const auto records = q.what.records;
  const bool own = records == model::dns_records::automatic || records == model::dns_records::srv;
  const bool both = records == model::dns_records::both;
  q.ipv4 = both || records == model::dns_records::a || (own && s.address.is_v4());
  q.ipv6 = both || records == model::dns_records::aaaa || (own && !s.address.is_v4());
  // Those are what records came down to.
  if (records != model::dns_records::srv) q.what.records = fresh.records;
  return q;
}

std::unique_ptr<source> make_source(event_loop& loop, const question& q, on_report report_to) {
  switch (q.what.kind) {
    case model::discovery_kind::file:
      return std::make_unique<file_source>(loop, q.what.path, std::move(report_to));
    case model::discovery_kind::consul:
      return std::make_unique<consul_source>(loop, q, std::move(report_to));
    case model::discovery_kind::kubernetes:
      return std::make_unique<kubernetes_source>(loop, q, std::move(report_to));
    case model::discovery_kind::dns:
    case model::discovery_kind::none:
      break;
  }
  return std::make_unique<dns_source>(loop, q, std::move(report_to));
}

tl::expected<std::vector<model::backend>, std::string> backends_of(
    const model::service& s, const std::vector<found>& answer) {
  const auto fail = [](std::string why) { return tl::unexpected{std::move(why)}; };
  std::vector<model::backend> out;
  for (const found& f : answer) {
    model::backend b = f.backend;
    const std::string address = format_ip(b.address);
    b.source = model::backend_source::discovered;
    if (!f.weighted) b.weight = s.discover.weight;
    if (b.weight > 65535)
      return fail(address + ": the weight " + std::to_string(b.weight) + " is over 65535");
    if (b.tier + s.discover.tier > 255)
      return fail(address + ": the tier " + std::to_string(b.tier + s.discover.tier) +
                  " is over 255");
    b.tier = static_cast<std::uint8_t>(b.tier + s.discover.tier);
    // Other modes leave the port as the client wrote it. A file says what it means.
    if (s.discover.kind != model::discovery_kind::file && !model::translates(s.forward)) b.port = 0;
    out.push_back(b);
  }
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return a.address < b.address; });
  const auto twice = std::adjacent_find(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return a.address == b.address && a != b;
  });
  if (twice != out.end())
    return fail(format_ip(twice->address) +
                " is there twice, with different values; expected each address once");
  // The same said twice (a target with two names) is said once.
  out.erase(std::unique(out.begin(), out.end()), out.end());
  if (out.size() > s.discover.max_backends)
    return fail(std::to_string(out.size()) + " backends; expected at most " +
                std::to_string(s.discover.max_backends) + " (discover.max-backends)");
  return out;
}

}  // namespace sluice::discover
