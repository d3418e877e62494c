// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/router.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include <spdlog/spdlog.h>

#include "controlplane/api/backups.hpp"
#include "controlplane/api/changes.hpp"
#include "controlplane/api/connections.hpp"
#include "controlplane/api/embedded.hpp"
#include "controlplane/api/events.hpp"
#include "controlplane/api/heartbeats.hpp"
#include "controlplane/api/objects.hpp"
#include "controlplane/api/revisions.hpp"
#include "controlplane/api/routes.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/version.hpp"

namespace sluice::api {
namespace {

reply no_service(const std::string& name) {
  return refuse(404, "there is no service '" + name + "'");
}

}  // namespace

reply router::handle(const request& r) {
  try {
    if (const auto no = no_route(r)) return *no;
    const auto& s = r.segments;
    if (s[0] == "ui") return page(r);
    // What is called, and how, is in routes.cpp.
    const std::string& what = s[1];
    if (what == "config") return config(r);
    if (what == "services") return services(r);
    if (what == "heartbeats") return take_heartbeat(controller_, r);
    if (what == "backups")
      return r.method == "POST" ? make_backup(backups_, r)
                                : show_backups(backups_, controller_.node());
    if (what == "history" || what == "diff" || what == "rollback") return revisions(r);
    if (what == "events")
      return s.size() == 3 ? recent_events(controller_.events(), r)
                           : follow_events(controller_.events(), r);
    if (what == "openapi.json") return openapi();
    if (what == "version")
      return ok({{"version", SLUICE_VERSION}, {"api", 1}, {"abi", abi::abi_version}});
    if (what == "connections" && r.method == "POST") return flush_connections(controller_, r);
    if (what == "connections")
      return s.size() == 3 ? count_connections(controller_, r) : list_connections(controller_, r);
    if (what == "node") return drain_node(controller_, r, s[2] == "drain");
    if (what == "explain") return explain(controller_, r);

    view_of_now v = view_of_now::take(controller_);
    for (auto& p : backups_.problems()) v.snap.warnings.push_back(std::move(p));
    const auto xdp = [this] { return reconcile::read_xdp_counters(controller_.node()); };
    if (what == "status") return ok(status_json(controller_, v));
    if (what == "workers") return ok({{"workers", workers_json(v)}});
    if (what == "ports") return ok({{"ports", ports_json(v, controller_.node(), xdp())}});
    if (what == "nodes") return ok({{"nodes", nodes_json(controller_, v)}});
    if (what == "drops") return ok({{"drops", drops_json(v, xdp())}});
    if (what == "counters") return ok({{"counters", counters_json(v, xdp())}});

    // What can be had of one service only.
    const auto only = r.parameter("service");
    if (only && std::none_of(v.snap.services.begin(), v.snap.services.end(),
                             [&](const auto& x) { return x->config.name == *only; }))
      return no_service(*only);
    if (what == "stats") return ok(stats_json(v, only, xdp()));
    json list = json::array();
    for (const auto& service : v.snap.services)
      if (!only || service->config.name == *only)
        for (auto& b : backends_json(v, *service)) list.push_back(std::move(b));
    return ok({{"backends", std::move(list)}});
  } catch (const std::exception& e) {
    spdlog::error("{} /{}: {}", r.method, r.segments.empty() ? "" : r.segments.back(), e.what());
    return refuse(500, std::string{"internal error: "} + e.what());
  }
}

reply router::config(const request& r) {
  if (r.method == "PUT") return put_config(controller_, r);
  const std::string format = r.parameter("format").value_or("json");
  if (format != "json" && format != "yaml") return refuse(400, "is json or yaml", "format");
  auto [revision, state] = controller_.desired();
  if (const auto text = r.parameter("revision")) {
    auto old = get_revision(controller_, *text, "revision");
    if (!old) return old.error();
    revision = old->info.number;
    state = std::move(old->state);
  }
  const std::string etag = "\"" + std::to_string(revision) + "\"";
  if (format == "yaml") return {200, model::to_yaml(state), "text/yaml", etag};
  json out = {{"revision", revision}};
  out["services"] = model::to_json(state).at("services");
  reply answer = ok(out);
  answer.etag = etag;
  return answer;
}

reply router::services(const request& r) {
  const auto& s = r.segments;
  if (s.size() == 2) {
    if (r.method == "POST") return add_service(controller_, r);
    const view_of_now v = view_of_now::take(controller_);
    json list = json::array();
    for (const auto& service : v.snap.services) list.push_back(service_json(v, *service, false));
    return ok({{"services", std::move(list)}});
  }
  const std::string& name = s[2];
  if (s.size() > 3) return service_backends(r);
  if (r.method == "PATCH") return patch_service(controller_, r, name);
  if (r.method == "DELETE") return remove_service(controller_, r, name);
  const view_of_now v = view_of_now::take(controller_);
  for (const auto& service : v.snap.services)
    if (service->config.name == name) return ok(service_json(v, *service, true));
  return no_service(name);
}

reply router::service_backends(const request& r) {
  const auto& s = r.segments;
  const std::string& name = s[2];
  if (s.size() == 4) {
    if (r.method == "POST") return add_backend(controller_, r, name);
    const view_of_now v = view_of_now::take(controller_);
    for (const auto& service : v.snap.services)
      if (service->config.name == name) return ok({{"backends", backends_json(v, *service)}});
    return no_service(name);
  }
  const std::string& address = s[4];
  if (s.size() == 6) {
    return drain_backend(controller_, r, name, address, s[5] == "drain");
  }
  return r.method == "PATCH" ? patch_backend(controller_, r, name, address)
                             : remove_backend(controller_, r, name, address);
}

reply router::revisions(const request& r) {
  const auto& s = r.segments;
  if (s[1] == "rollback") return rollback(controller_, r);
  if (s.size() == 3) return show_revision(controller_, s[2]);
  return s[1] == "diff" ? diff_revisions(controller_, r) : history(controller_, r);
}

}  // namespace sluice::api
