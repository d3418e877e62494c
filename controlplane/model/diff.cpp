// SPDX-License-Identifier: Apache-2.0
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::model {
namespace {

using fields = nlohmann::ordered_json;

std::string shown(const fields& v) {
  if (v.is_array() && v.size() > 4) return std::to_string(v.size()) + " prefixes";
  return v.is_string() ? v.get<std::string>() : v.dump();
}

// flatten() puts the scalars and lists of a map, and of the maps in it, beside each other.
void flatten(const std::string& prefix, const fields& from, fields& out) {
  for (const auto& [key, v] : from.items()) {
    if (v.is_object())
      flatten(prefix + key + ".", v, out);
    else
      out[prefix + key] = v;
  }
}

// flat() is an object's fields, with those of health, limits, ... beside them. Taken from
// the JSON form, so that a field added there is compared here too.
fields flat(const service& s) {
  fields all = to_json(s);
  all.erase("backends");
  all.erase("discovered");
  all.erase("name");
  fields out;
  flatten({}, all, out);
  return out;
}

fields flat(const backend& b) {
  fields out = to_json(b);
  // Left out of the JSON when they are the defaults; a difference names both values.
  out["tier"] = b.tier;
  out["admin"] = to_string(b.admin);
  out.erase("address");
  return out;
}

// same_words() tells two lists apart that look the same when shown.
std::string same_words(const fields& before, const fields& after) {
  return shown(before) == shown(after) ? " (others)" : "";
}

// field_changes() says per field what changed: "weight 100 -> 50".
std::vector<std::string> field_changes(const fields& before, const fields& after) {
  std::vector<std::string> out;
  for (const auto& [key, v] : before.items()) {
    const auto now = after.find(key);
    if (now == after.end())
      out.push_back(key + " " + shown(v) + " -> none");
    else if (*now != v)
      out.push_back(key + " " + shown(v) + " -> " + shown(*now) + same_words(v, *now));
  }
  for (const auto& [key, v] : after.items())
    if (!before.contains(key)) out.push_back(key + " none -> " + shown(v));
  return out;
}

std::string backend_prefix(const service& s, const backend& b) {
  return s.name + ": backend " + format_ip(b.address) + ": ";
}

std::string summary(const backend& b) {
  std::string out = "weight " + std::to_string(b.weight);
  if (b.tier != 0) out += ", tier " + std::to_string(b.tier);
  if (b.admin != admin_state::enabled) out += ", " + std::string{to_string(b.admin)};
  return out;
}

// merge() walks two sorted lists by key.
template <class T, class Less, class OnlyBefore, class OnlyAfter, class Both>
void merge(const std::vector<T>& before, const std::vector<T>& after, Less less,
           OnlyBefore only_before, OnlyAfter only_after, Both both) {
  auto a = before.begin();
  auto b = after.begin();
  while (a != before.end() || b != after.end()) {
    if (b == after.end() || (a != before.end() && less(*a, *b)))
      only_before(*a++);
    else if (a == before.end() || less(*b, *a))
      only_after(*b++);
    else
      both(*a++, *b++);
  }
}

// diff_discovered() says what was asked of backends that are discovered.
void diff_discovered(const service& before, const service& after, std::vector<change>& out) {
  const auto add = [&](const ip_address& address, admin_state from, admin_state to) {
    out.push_back({change_kind::changed, after.name, address,
                   after.name + ": discovered backend " + format_ip(address) + ": admin " +
                       std::string{to_string(from)} + " -> " + std::string{to_string(to)}});
  };
  merge(
      before.discovered, after.discovered,
      [](const auto& a, const auto& b) { return a.address < b.address; },
      [&](const auto& d) { add(d.address, d.admin, admin_state::enabled); },
      [&](const auto& d) { add(d.address, admin_state::enabled, d.admin); },
      [&](const auto& a, const auto& b) {
        if (a.admin != b.admin) add(a.address, a.admin, b.admin);
      });
}

void diff_service(const service& before, const service& after, std::vector<change>& out) {
  if (before == after) return;
  for (std::string& text : field_changes(flat(before), flat(after)))
    out.push_back({change_kind::changed, after.name, std::nullopt, after.name + ": " + text});
  merge(
      before.backends, after.backends,
      [](const backend& a, const backend& b) { return a.address < b.address; },
      [&](const backend& b) {
        out.push_back(
            {change_kind::removed, after.name, b.address, backend_prefix(after, b) + "removed"});
      },
      [&](const backend& b) {
        out.push_back({change_kind::added, after.name, b.address,
                       backend_prefix(after, b) + "added, " + summary(b)});
      },
      [&](const backend& a, const backend& b) {
        if (a == b) return;
        for (const std::string& text : field_changes(flat(a), flat(b)))
          out.push_back(
              {change_kind::changed, after.name, b.address, backend_prefix(after, b) + text});
      });
  diff_discovered(before, after, out);
}

}  // namespace

std::string_view to_string(change_kind k) noexcept {
  switch (k) {
    case change_kind::added:
      return "added";
    case change_kind::removed:
      return "removed";
    case change_kind::changed:
      return "changed";
  }
  return "unknown";
}

std::vector<change> diff(const desired_state& before, const desired_state& after) {
  std::vector<change> out;
  const auto whole = [&](change_kind kind, const service& s) {
    const std::size_t n = s.backends.size();
    out.push_back({kind, s.name, std::nullopt,
                   s.name + ": " + std::string{to_string(kind)} + ", " + identity(s) + ", " +
                       std::to_string(n) + (n == 1 ? " backend" : " backends")});
  };
  merge(
      before.services, after.services,
      [](const service& a, const service& b) { return a.name < b.name; },
      [&](const service& s) { whole(change_kind::removed, s); },
      [&](const service& s) { whole(change_kind::added, s); },
      [&](const service& a, const service& b) { diff_service(a, b, out); });
  return out;
}

}  // namespace sluice::model
