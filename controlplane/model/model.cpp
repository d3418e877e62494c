// SPDX-License-Identifier: Apache-2.0
#include "controlplane/model/model.hpp"

#include <algorithm>
#include <iterator>
#include <map>

namespace sluice::model {
namespace {

// Templates, so that const and non-const finders share one search.
template <class State>
auto* service_in(State& s, std::string_view name) noexcept {
  // compare(): clang 14 cannot take libstdc++ 12's < of a string and a view.
  const auto at =
      std::lower_bound(s.services.begin(), s.services.end(), name,
                       [](const service& a, std::string_view b) { return a.name.compare(b) < 0; });
  return at != s.services.end() && at->name == name ? &*at : nullptr;
}

template <class Service>
auto* backend_in(Service& s, const ip_address& address) noexcept {
  const auto at =
      std::lower_bound(s.backends.begin(), s.backends.end(), address,
                       [](const backend& a, const ip_address& b) { return a.address < b; });
  return at != s.backends.end() && at->address == address ? &*at : nullptr;
}

}  // namespace

void normalise(service& s) {
  std::stable_sort(s.backends.begin(), s.backends.end(),
                   [](const backend& a, const backend& b) { return a.address < b.address; });
  std::erase_if(s.discovered, [](const auto& d) { return d.admin == admin_state::enabled; });
  std::stable_sort(s.discovered.begin(), s.discovered.end(),
                   [](const auto& a, const auto& b) { return a.address < b.address; });
}

void normalise(desired_state& s) {
  for (service& one : s.services) normalise(one);
  std::stable_sort(s.services.begin(), s.services.end(),
                   [](const service& a, const service& b) { return a.name < b.name; });
}

const service* find_service(const desired_state& s, std::string_view name) noexcept {
  return service_in(s, name);
}
service* find_service(desired_state& s, std::string_view name) noexcept {
  return service_in(s, name);
}
const backend* find_backend(const service& s, const ip_address& address) noexcept {
  return backend_in(s, address);
}
backend* find_backend(service& s, const ip_address& address) noexcept {
  return backend_in(s, address);
}

admin_state discovered_admin_of(const service& s, const ip_address& address) noexcept {
  for (const discovered_admin& d : s.discovered)
    if (d.address == address) return d.admin;
  return admin_state::enabled;
}

void set_discovered_admin(service& s, const ip_address& address, admin_state admin) {
  std::erase_if(s.discovered, [&](const auto& d) { return d.address == address; });
  s.discovered.push_back({address, admin});
  normalise(s);
}

void keep_owned(desired_state& next, const desired_state& now) {
  const auto owned = [](const service& s) { return s.owner != service_owner::operators; };
  std::erase_if(next.services, owned);
  std::copy_if(now.services.begin(), now.services.end(), std::back_inserter(next.services), owned);
  normalise(next);
}

std::string touched_owned(const desired_state& next, const desired_state& now) {
  const auto owned_of = [](const desired_state& of) {
    std::map<std::string_view, const service*> out;
    for (const service& s : of.services)
      if (s.owner != service_owner::operators) out.emplace(s.name, &s);
    return out;
  };
  const auto before = owned_of(now);
  const auto after = owned_of(next);
  for (const auto& [name, s] : after)
    if (!before.contains(name)) return s->name;
  for (const auto& [name, s] : before) {
    const auto at = after.find(name);
    if (at == after.end()) return s->name;
    service same = *at->second;
    same.discovered = s->discovered;
    if (same != *s) return s->name;
  }
  return {};
}

}  // namespace sluice::model
