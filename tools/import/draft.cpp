// SPDX-License-Identifier: Apache-2.0
#include "tools/import/draft.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/utf8.hpp"

namespace sluice::importing {

namespace {

using model::scheduler_kind;

// What IPVS calls a scheduler, what comes closest, and what is then different.
struct scheduler_name {
  std::string_view name;
  scheduler_kind kind;
  std::string_view difference;
};
constexpr std::array scheduler_names{
    scheduler_name{"rr", scheduler_kind::round_robin, ""},
    scheduler_name{"wrr", scheduler_kind::weighted_round_robin, ""},
    scheduler_name{"lc", scheduler_kind::least_connections, ""},
    scheduler_name{"wlc", scheduler_kind::weighted_least_connections, ""},
    scheduler_name{"sh", scheduler_kind::source_hash, ""},
    scheduler_name{"mh", scheduler_kind::maglev,
                   "maglev hashes the ports, too; source-hash does not, as mh without mh-port"},
    scheduler_name{"conhash", scheduler_kind::maglev, "maglev hashes address and ports"},
    scheduler_name{"fo", scheduler_kind::maglev, ""},
    scheduler_name{"dh", scheduler_kind::maglev,
                   "there is no hash of the destination alone; maglev is used"},
    scheduler_name{"sed", scheduler_kind::weighted_least_connections,
                   "weighted-least-connections is used"},
    scheduler_name{"nq", scheduler_kind::weighted_least_connections,
                   "weighted-least-connections is used"},
    scheduler_name{"ovf", scheduler_kind::weighted_least_connections,
                   "there is no overflow by number of connections; weighted-least-connections is "
                   "used"},
    scheduler_name{
        "lblc", scheduler_kind::weighted_least_connections,
        "destinations have no backends of their own; weighted-least-connections is used"},
    scheduler_name{
        "lblcr", scheduler_kind::weighted_least_connections,
        "destinations have no backends of their own; weighted-least-connections is used"},
    scheduler_name{"twos", scheduler_kind::weighted_least_connections,
                   "all backends are compared, not two of them"},
};

// set_tiers() makes tiers of what IPVS's `fo` does with weights: the heaviest that is up gets
// everything.
bool set_tiers(draft_service& s) {
  if (s.heaviest_first) {
    std::set<std::uint32_t, std::greater<>> weights;
    for (const draft_backend& b : s.backends) weights.insert(b.value.weight);
    if (weights.size() > 250) return false;
    for (draft_backend& b : s.backends) {
      const auto heavier = std::distance(weights.begin(), weights.find(b.value.weight));
      b.value.tier = static_cast<std::uint8_t>(heavier);
      if (b.value.weight != 0) b.value.weight = 100;
    }
  }
  for (draft_backend& b : s.sorry) {
    b.value.sorry = true;
    s.backends.push_back(b);
  }
  s.sorry.clear();
  return true;
}

std::string name_of(const model::service& s) {
  std::string name = std::string{model::to_string(s.protocol)} + "-" + format_ip(s.address) + "-" +
                     model::to_string(s.port);
  std::replace(name.begin(), name.end(), ':', '-');
  return name;
}

// netmask_bits() counts the bits of "255.255.255.0"; nothing: it is no netmask.
std::optional<std::uint32_t> netmask_bits(std::string_view text) {
  const auto address = parse_ip(text);
  if (!address || !address->is_v4()) return std::nullopt;
  const std::uint32_t mask = address->v4_raw().host();
  for (std::uint32_t bits = 1; bits <= 32; ++bits)
    if (mask == ~0u << (32 - bits)) return bits;
  return std::nullopt;
}

}  // namespace

std::optional<std::uint32_t> number(std::string_view text, std::uint32_t most) {
  std::uint32_t value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (wrong != std::errc{} || end != text.data() + text.size() || value > most) return std::nullopt;
  return value;
}

void draft::note(unsigned line, std::string key, std::string message) {
  // The key has words of the file in it, which are not to move a terminal's cursor.
  for (char& c : key)
    if (is_control(c)) c = '?';
  notes_.emplace_back(line, error(line, std::move(key), std::move(message)));
}

draft_service* draft::service_at(const model::service& s) noexcept {
  const auto it = std::find_if(services_.begin(), services_.end(), [&](const draft_service& d) {
    return d.value.address == s.address && d.value.protocol == s.protocol && d.value.port == s.port;
  });
  return it == services_.end() ? nullptr : &*it;
}

draft_service* draft::add(draft_service s) {
  if (const draft_service* other = service_at(s.value)) {
    note(s.line, s.key, "is the same as " + lines_.words(other->line, s.line) + "; left out");
    return nullptr;
  }
  services_.push_back(std::move(s));
  return &services_.back();
}

void draft::set_scheduler(draft_service& s, std::string_view name, unsigned line) {
  const auto* known = std::find_if(scheduler_names.begin(), scheduler_names.end(),
                                   [name](const scheduler_name& n) { return n.name == name; });
  if (known == scheduler_names.end()) {
    note(line, s.key,
         "there is no scheduler like " + yaml::shown(name) +
             "; weighted-least-connections is used, the default of IPVS");
    s.value.scheduler = scheduler_kind::weighted_least_connections;
    return;
  }
  s.value.scheduler = known->kind;
  s.heaviest_first = name == "fo";
  if (!known->difference.empty())
    note(line, s.key, "scheduler " + std::string{name} + ": " + std::string{known->difference});
}

void draft::set_persistence(draft_service& s, std::string_view seconds,
                            std::string_view granularity, unsigned line) {
  const auto timeout = number(seconds, 65535);
  if (!timeout || *timeout == 0) {
    note(line, s.key,
         "a persistence of " + yaml::shown(seconds) + " is not carried over: 1 to 65535 seconds");
    return;
  }
  s.value.persistence.timeout = std::chrono::seconds{*timeout};
  if (granularity.empty()) return;
  const bool v4 = s.value.address.is_v4();
  auto bits = number(granularity, v4 ? 32 : 128);
  if (!bits && v4) bits = netmask_bits(granularity);
  if (!bits || *bits == 0) {
    note(line, s.key,
         "the persistence's netmask " + yaml::shown(granularity) +
             " is not carried over: each address counts for itself");
    return;
  }
  (v4 ? s.value.persistence.ipv4_prefix : s.value.persistence.ipv6_prefix) =
      static_cast<std::uint8_t>(*bits);
}

// prune_backends() takes out what cannot be a backend of its service.
void draft::prune_backends(draft_service& s) {
  std::map<ip_address, const draft_backend*> seen;
  std::vector<draft_backend> kept;
  kept.reserve(s.backends.size());  // seen points into it
  for (draft_backend& b : s.backends) {
    const std::string text = format_ip(b.value.address);
    if (const auto it = seen.find(b.value.address); it != seen.end()) {
      note(b.line, s.key,
           "backend " + text + " is there already (" + lines_.words(it->second->line, b.line) +
               "), and an address is a backend once, with one port; left out");
      continue;
    }
    if (!model::translates(s.value.forward)) b.value.port = 0;
    if (b.value.port != 0 && s.value.port.single() && b.value.port == s.value.port.first)
      b.value.port = 0;
    kept.push_back(b);
    seen.emplace(b.value.address, &kept.back());
  }
  s.backends = std::move(kept);
}

model::desired_state draft::state() const {
  model::desired_state out;
  for (const draft_service& d : services_) {
    out.services.push_back(d.value);
    for (const draft_backend& b : d.backends) out.services.back().backends.push_back(b.value);
  }
  model::normalise(out);
  return out;
}

// take_out() removes what a check found wrong: "services[NAME].backends[ADDRESS]..." or
// "services[NAME]...". False: it is about something else.
bool draft::take_out(const config_error& wrong) {
  constexpr std::string_view services = "services[";
  constexpr std::string_view backends = "].backends[";
  const std::string_view key = wrong.key;
  if (key.substr(0, services.size()) != services) return false;
  const std::size_t end = key.find(']');
  if (end == std::string_view::npos) return false;
  const std::string_view name = key.substr(services.size(), end - services.size());
  const auto it = std::find_if(services_.begin(), services_.end(),
                               [name](const draft_service& d) { return d.value.name == name; });
  // Gone already, by another error of the same round.
  if (it == services_.end()) return true;
  if (key.substr(end, backends.size()) == backends) {
    const std::size_t from = end + backends.size();
    const std::string_view address = key.substr(from, key.find(']', from) - from);
    const auto b = std::find_if(
        it->backends.begin(), it->backends.end(),
        [address](const draft_backend& d) { return format_ip(d.value.address) == address; });
    if (b == it->backends.end()) return true;
    note(b->line, it->key, wrong.message + "; this backend is left out");
    it->backends.erase(b);
    return true;
  }
  note(it->line, it->key, wrong.message + "; the service is left out");
  services_.erase(it);
  return true;
}

result draft::finish() {
  if (services_.empty())
    return tl::unexpected{error(0, "", "there is no service in it that could be carried over")};
  std::set<std::string> names;
  for (draft_service& s : services_) {
    if (!set_tiers(s))
      note(s.line, s.key, "scheduler fo: too many different weights; maglev is used as it is");
    prune_backends(s);
    // An IPv6 address in full is too long for a name.
    std::string name = name_of(s.value);
    if (name.size() > 48) name = "line-" + std::to_string(lines_.at(s.line).line);
    std::string unique = name;
    for (unsigned n = 2; !names.insert(unique).second; ++n) unique = name + "." + std::to_string(n);
    s.value.name = unique;
  }
  // Each round takes out at least one thing.
  while (true) {
    model::desired_state now = state();
    const auto errors = config::check(now, {});
    if (errors.empty()) {
      if (now.services.empty())
        return tl::unexpected{error(0, "", "no service in it could be carried over")};
      std::stable_sort(notes_.begin(), notes_.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
      imported out{std::move(now), {}};
      for (auto& [line, note] : notes_) out.notes.push_back(std::move(note));
      return out;
    }
    bool taken = false;
    for (const config_error& wrong : errors) taken = take_out(wrong) || taken;
    if (!taken) return tl::unexpected{error(0, errors.front().key, errors.front().message)};
  }
}

}  // namespace sluice::importing
