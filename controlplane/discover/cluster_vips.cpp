// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/cluster_vips.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/fnv.hpp"

namespace sluice::discover {
namespace {

constexpr std::uint64_t very_many = std::numeric_limits<std::uint64_t>::max();

std::uint64_t half(const ip_address& a, std::size_t from) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < 8; ++i) out = out << 8 | a.bytes[from + i];
  return out;
}

// size_of() is how many addresses a range has, or very_many.
std::uint64_t size_of(const ip_range& r) {
  if (half(r.first, 0) != half(r.last, 0)) return very_many;
  const std::uint64_t between = half(r.last, 8) - half(r.first, 8);
  return between == very_many ? very_many : between + 1;
}

ip_address plus(ip_address a, std::uint64_t n) {
  for (std::size_t i = 16; i-- > 0 && n != 0;) {
    n += a.bytes[i];
    a.bytes[i] = static_cast<std::uint8_t>(n);
    n >>= 8;
  }
  return a;
}

std::uint64_t pool_size(const std::vector<ip_range>& pool, bool v4) {
  std::uint64_t total = 0;
  for (const ip_range& r : pool)
    if (r.first.is_v4() == v4) {
      const std::uint64_t size = size_of(r);
      total = size > very_many - total ? very_many : total + size;
    }
  return total;
}

// at() is an address of the pool by its number.
ip_address at(const std::vector<ip_range>& pool, bool v4, std::uint64_t number) {
  for (const ip_range& r : pool) {
    if (r.first.is_v4() != v4) continue;
    const std::uint64_t size = size_of(r);
    if (number < size) return plus(r.first, number);
    number -= size;
  }
  return {};  // never: number is under pool_size()
}

bool in(const std::vector<ip_range>& ranges, const ip_address& a) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const ip_range& r) { return r.holds(a); });
}

std::string space_of(const std::string& key) {
  return key.substr(0, key.find('/'));
}

}  // namespace

bool vip_book::free_for(const std::string& key, const ip_address& a) const {
  if (taken_.contains(a)) return false;
  const auto held = holders_.find(a);
  return held == holders_.end() || held->second.empty() ||
         (held->second.size() == 1 && held->second.contains(key));
}

vip_book::given vip_book::ask(const vip_wish& w) {
  const auto fail = [](std::string why) { return tl::unexpected{std::move(why)}; };
  if (!w.problem.empty()) return fail(w.problem);
  std::vector<ip_address> out;
  for (const ip_address& a : w.asked) {
    const std::string text = format_ip(a);
    if (!in(config_.pool, a) && !in(config_.on_request, a))
      return fail(text + " is neither in pool nor in on-request of controlplane.kubernetes");
    if (std::find(w.families.begin(), w.families.end(), a.is_v4()) == w.families.end())
      return fail(text + " is of a family that the Service has not (ipFamilies)");
    if (std::any_of(out.begin(), out.end(),
                    [&](const ip_address& b) { return a.is_v4() == b.is_v4(); }))
      return fail("more than one address of a family is asked for; expected one at most");
    if (taken_.contains(a))
      return fail(text + " is the address of a service that is not Kubernetes'");
    for (const std::string& other : holders_[a])
      if (other != w.key && (space_of(other) != space_of(w.key) || !asked_by_[a].contains(other)))
        return fail(text + " is the address of Service " + other);
    out.push_back(a);
  }
  for (const ip_address& a : out) hold(w.key, a);
  return out;
}

// keep() is what a Service has already.
std::optional<ip_address> vip_book::keep(const vip_wish& w, bool v4) {
  for (const auto* some : {&w.in_status, &w.had})
    for (const ip_address& a : *some)
      if (a.is_v4() == v4 && in(config_.pool, a) && free_for(w.key, a)) {
        hold(w.key, a);
        return a;
      }
  return std::nullopt;
}

std::optional<ip_address> vip_book::fresh(const vip_wish& w, bool v4) {
  const std::uint64_t size = pool_size(config_.pool, v4);
  if (size == 0) return std::nullopt;
  fnv1a digest;
  digest.add(w.key);
  // Each address that is not free is in one of these.
  const std::uint64_t tries = std::min<std::uint64_t>(size, taken_.size() + holders_.size() + 1);
  std::uint64_t number = digest.value() % size;
  for (std::uint64_t i = 0; i < tries; ++i, number = number + 1 == size ? 0 : number + 1) {
    const ip_address a = at(config_.pool, v4, number);
    if (!free_for(w.key, a)) continue;
    hold(w.key, a);
    return a;
  }
  return std::nullopt;
}

std::vector<vip_book::given> vip_book::give(const std::vector<vip_wish>& wishes) {
  for (const vip_wish& w : wishes) {
    for (const ip_address& a : w.had) hold(w.key, a);
    for (const ip_address& a : w.asked) asked_by_[a].insert(w.key);
  }
  std::vector<given> out(wishes.size());
  for (std::size_t i = 0; i < wishes.size(); ++i)
    if (!wishes[i].asked.empty() || !wishes[i].problem.empty()) out[i] = ask(wishes[i]);
  // By place among a Service's families.
  std::vector<std::vector<std::optional<ip_address>>> found(wishes.size());
  const auto automatic = [&](auto&& find) {
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      const vip_wish& w = wishes[i];
      if (!w.asked.empty() || !w.problem.empty()) continue;
      found[i].resize(w.families.size());
      for (std::size_t f = 0; f < w.families.size(); ++f)
        if (!found[i][f]) found[i][f] = find(w, w.families[f]);
    }
  };
  automatic([&](const vip_wish& w, bool v4) { return keep(w, v4); });
  automatic([&](const vip_wish& w, bool v4) { return fresh(w, v4); });
  for (std::size_t i = 0; i < wishes.size(); ++i) {
    if (!wishes[i].asked.empty() || !wishes[i].problem.empty()) continue;
    for (const auto& a : found[i])
      if (a) out[i]->push_back(*a);
    if (out[i]->empty())
      out[i] =
          tl::unexpected{std::string{"no VIP of its family is free in "
                                     "controlplane.kubernetes.pool"}};
  }
  return out;
}

}  // namespace sluice::discover
