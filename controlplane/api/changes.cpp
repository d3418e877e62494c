// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/changes.hpp"

#include <algorithm>
#include <charconv>
#include <utility>
#include <variant>

#include "controlplane/config/config.hpp"

namespace sluice::api {
namespace {

using reconcile::change_error;
using reconcile::refusal;
using edited = tl::expected<model::desired_state, change_error>;

tl::unexpected<change_error> fail(refusal why, std::string message) {
  return tl::unexpected{change_error{why, {{{}, 0, {}, std::move(message)}}}};
}
tl::unexpected<change_error> invalid(std::vector<config_error> errors) {
  return tl::unexpected{change_error{refusal::invalid, std::move(errors)}};
}
tl::unexpected<change_error> unknown_service(const std::string& name) {
  return fail(refusal::not_found, "there is no service '" + name + "'");
}

int status_of(refusal why) {
  switch (why) {
    case refusal::invalid:
      return 400;
    case refusal::not_found:
      return 404;
    case refusal::conflict:
      return 409;
    case refusal::busy:
      return 503;
    case refusal::failed:
      break;
  }
  return 500;
}

// expected_revision() reads If-Match: nothing asked for, or a number; an error: neither.
tl::expected<std::optional<std::uint64_t>, std::monostate> expected_revision(const request& r) {
  std::string_view text = r.if_match;
  if (text.empty() || text == "*") return std::optional<std::uint64_t>{};
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"')
    text = text.substr(1, text.size() - 2);
  const auto number = parse_revision(text);
  if (!number) return tl::unexpected{std::monostate{}};
  return std::optional{*number};
}

reply run(reconcile::controller& c, const request& r, reconcile::edit make) {
  const std::string dry = r.parameter("dry_run").value_or("0");
  if (dry != "0" && dry != "1") return refuse(400, "is 0 or 1", "dry_run");
  const auto expected = expected_revision(r);
  if (!expected)
    return refuse(400, "is the number of a revision, such as \"12\", or *", "If-Match");
  const auto guarded = [&](const model::desired_state& now) -> edited {
    auto next = make(now);
    if (!next) return next;
    const std::string name = model::touched_owned(*next, now);
    if (name.empty()) return next;
    const model::service* owned = model::find_service(now, name);
    return fail(refusal::conflict,
                owned == nullptr
                    ? "service '" + name + "': owner: kubernetes is not for operators to say"
                    : "service '" + name + "' is made of Kubernetes' Service " +
                          owned->discover.name + ": change it there");
  };
  const auto done = c.change({guarded, r.author, r.reason, dry == "1", *expected});
  if (!done) return refuse(status_of(done.error().why), done.error().errors);
  return ok({{"revision", done->revision}, {"changes", changes_json(done->changes)}});
}

// file_of() is the name that errors show: what the client calls its file.
std::string file_of(const request& r) {
  return r.parameter("file").value_or("");
}

// edit_backend() finds a service and one of its backends before it calls
// change(state, service, backend), which returns an error or nothing.
template <class Change>
reply edit_backend(reconcile::controller& c, const request& r, const std::string& name,
                   const std::string& address_text, Change&& change) {
  const auto address = parse_ip(address_text);
  if (!address) return refuse(400, address.error(), "address");
  return run(c, r, [&](const model::desired_state& now) -> edited {
    model::desired_state next = now;
    model::service* service = model::find_service(next, name);
    if (service == nullptr) return unknown_service(name);
    model::backend* backend = model::find_backend(*service, *address);
    if (backend == nullptr &&
        (c.discovered(name, *address) ||
         model::discovered_admin_of(*service, *address) != model::admin_state::enabled)) {
      // A copy that only lives here: of what is discovered, only the admin state is kept.
      model::backend copy{.address = *address,
                          .admin = model::discovered_admin_of(*service, *address),
                          .source = model::backend_source::discovered};
      const model::backend before = copy;
      if (std::optional<change_error> error = change(*service, copy))
        return tl::unexpected{std::move(*error)};
      const model::admin_state admin = std::exchange(copy.admin, before.admin);
      if (copy != before)
        return invalid({{file_of(r), 0, format_ip(*address),
                         "is discovered: only admin can be changed here; the rest is what its "
                         "source says"}});
      model::set_discovered_admin(*service, *address, admin);
      return next;
    }
    if (backend == nullptr)
      return fail(refusal::not_found,
                  "service '" + name + "' has no backend " + format_ip(*address));
    if (std::optional<change_error> error = change(*service, *backend))
      return tl::unexpected{std::move(*error)};
    return next;
  });
}

}  // namespace

json changes_json(const std::vector<model::change>& changes) {
  json list = json::array();
  for (const auto& change : changes)
    list.push_back({{"kind", std::string{model::to_string(change.kind)}},
                    {"service", change.service},
                    {"backend", change.backend ? json(format_ip(*change.backend)) : json()},
                    {"text", change.text}});
  return list;
}

std::optional<std::uint64_t> parse_revision(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return number;
}

reply put_config(reconcile::controller& c, const request& r) {
  return run(c, r, [&](const model::desired_state& now) -> edited {
    auto parsed = config::parse_services(r.body, file_of(r), c.context());
    if (!parsed) return invalid(std::move(parsed.error()));
    model::keep_owned(*parsed, now);
    return std::move(*parsed);
  });
}

reply rollback(reconcile::controller& c, const request& r) {
  const auto number = parse_revision(r.parameter("revision").value_or(""));
  if (!number) return refuse(400, "is the number of a revision", "revision");
  auto old = c.keeper().get(*number);
  if (!old) return refuse(500, old.error());
  if (!*old) return no_revision(*number);
  request named = r;
  if (named.reason.empty()) named.reason = "rollback to revision " + std::to_string(*number);
  return run(c, named, [&](const model::desired_state& now) -> edited {
    model::desired_state next = (*old)->state;
    model::keep_owned(next, now);
    return next;
  });
}

reply add_service(reconcile::controller& c, const request& r) {
  return run(c, r, [&](const model::desired_state& now) -> edited {
    auto parsed = config::parse_service(r.body, file_of(r), c.context());
    if (!parsed) return invalid(std::move(parsed.error()));
    if (model::find_service(now, parsed->name) != nullptr)
      return fail(refusal::conflict, "there is a service '" + parsed->name + "' already");
    model::desired_state next = now;
    next.services.push_back(std::move(*parsed));
    return next;
  });
}

reply patch_service(reconcile::controller& c, const request& r, const std::string& name) {
  return run(c, r, [&](const model::desired_state& now) -> edited {
    model::desired_state next = now;
    model::service* service = model::find_service(next, name);
    if (service == nullptr) return unknown_service(name);
    auto parsed = config::parse_service(r.body, file_of(r), c.context(), service);
    if (!parsed) return invalid(std::move(parsed.error()));
    // Backends have calls of their own; to lose them by a PATCH would be an accident.
    if (parsed->backends != service->backends)
      return invalid({{file_of(r), 0, "backends",
                       "is not changed here: use .../services/" + name + "/backends"}});
    *service = std::move(*parsed);
    return next;
  });
}

reply remove_service(reconcile::controller& c, const request& r, const std::string& name) {
  return run(c, r, [&](const model::desired_state& now) -> edited {
    model::desired_state next = now;
    if (std::erase_if(next.services, [&](const auto& s) { return s.name == name; }) == 0)
      return unknown_service(name);
    return next;
  });
}

reply add_backend(reconcile::controller& c, const request& r, const std::string& service_name) {
  return run(c, r, [&](const model::desired_state& now) -> edited {
    model::desired_state next = now;
    model::service* service = model::find_service(next, service_name);
    if (service == nullptr) return unknown_service(service_name);
    auto parsed = config::parse_backend(r.body, file_of(r));
    if (!parsed) return invalid(std::move(parsed.error()));
    if (model::find_backend(*service, parsed->address) != nullptr)
      return fail(refusal::conflict, "service '" + service_name + "' has a backend " +
                                         format_ip(parsed->address) + " already");
    service->backends.push_back(*parsed);
    return next;
  });
}

reply patch_backend(reconcile::controller& c, const request& r, const std::string& service,
                    const std::string& address) {
  return edit_backend(c, r, service, address,
                      [&](model::service&, model::backend& b) -> std::optional<change_error> {
                        auto parsed = config::parse_backend(r.body, file_of(r), &b);
                        if (!parsed) return change_error{refusal::invalid, parsed.error()};
                        b = *parsed;
                        return std::nullopt;
                      });
}

reply remove_backend(reconcile::controller& c, const request& r, const std::string& service,
                     const std::string& address) {
  return edit_backend(
      c, r, service, address,
      [](model::service& s, model::backend& b) -> std::optional<change_error> {
        if (b.source != model::backend_source::configured)
          return change_error{
              refusal::conflict,
              {{{},
                0,
                {},
                format_ip(b.address) + " is discovered: remove it at its source, or drain "
                                       "it or force it down"}}};
        s.backends.erase(s.backends.begin() + (&b - s.backends.data()));
        return std::nullopt;
      });
}

reply drain_backend(reconcile::controller& c, const request& r, const std::string& service,
                    const std::string& address, bool drain) {
  return edit_backend(c, r, service, address,
                      [drain](model::service&, model::backend& b) -> std::optional<change_error> {
                        b.admin = drain ? model::admin_state::drain : model::admin_state::enabled;
                        return std::nullopt;
                      });
}

reply drain_node(reconcile::controller& c, const request& r, bool drain) {
  const auto done = c.drain_node(drain, r.author, r.reason);
  if (!done) return refuse(500, done.error().errors);
  const bool never = done->time == std::chrono::system_clock::time_point{};
  return ok({{"node", c.node().name},
             {"state", done->drained ? "drained" : "up"},
             {"time", never ? json() : json(rfc3339(done->time))},
             {"author", done->author},
             {"reason", done->reason}});
}

}  // namespace sluice::api
