// SPDX-License-Identifier: Apache-2.0
#include "controlplane/maglev/maglev.hpp"

#include <algorithm>
#include <numeric>

#include "dataplane/abi/flow_hash.h"
#include "dataplane/abi/fnv.hpp"

namespace sluice::maglev {
namespace {

// Two independent draws from one identity: fractional digits of pi.
constexpr std::uint64_t offset_salt = 0x243f6a8885a308d3ull;
constexpr std::uint64_t skip_salt = 0x13198a2e03707344ull;

std::uint64_t mix_identity(const identity& id, std::uint64_t seed) noexcept {
  std::uint64_t h = sluice_mix64(seed ^ id.address.high());
  h = sluice_mix64(h ^ id.address.low());
  return sluice_mix64(h ^ id.port);
}

// A member's walk through its permutation of the slots: offset + k * skip mod size,
// which visits every slot once because the size is prime.
struct cursor {
  std::uint32_t position;
  std::uint32_t skip;
  std::uint32_t left;  // slots still to take
};

// Members of one weight take their turns at the same virtual times, in order of
// identity; so the queue holds one entry for each distinct weight.
struct weight_class {
  std::uint64_t weight;
  std::uint64_t turn;   // 2k + 1, due at turn / (2 * weight)
  std::uint32_t first;  // range of `order`
  std::uint32_t last;
};

// due_later() orders a heap with the earliest turn on top. Exact: turn < 2^26 and
// weight <= 2^20. At the same time, the heavier class first: a rule that depends on
// no third class.
bool due_later(const weight_class& a, const weight_class& b) noexcept {
  const std::uint64_t left = a.turn * b.weight;
  const std::uint64_t right = b.turn * a.weight;
  return left != right ? left > right : a.weight < b.weight;
}

class taken_slots {
 public:
  explicit taken_slots(std::uint32_t size) : words_((size + 63) / 64) {}
  [[nodiscard]] bool test(std::uint32_t i) const noexcept {
    return (words_[i >> 6] >> (i & 63) & 1) != 0;
  }
  void set(std::uint32_t i) noexcept { words_[i >> 6] |= std::uint64_t{1} << (i & 63); }

 private:
  std::vector<std::uint64_t> words_;
};

tl::expected<void, std::string> check(std::span<const member> members, std::size_t size) {
  if (members.empty()) return tl::unexpected<std::string>{"a table needs at least one member"};
  if (members.size() > max_members)
    return tl::unexpected{std::to_string(members.size()) + " members, at most " +
                          std::to_string(max_members) + " fit"};
  if (size > max_size || !is_prime(static_cast<std::uint32_t>(size)))
    return tl::unexpected{"table size " + std::to_string(size) + " is not a prime up to " +
                          std::to_string(max_size)};
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (members[i].weight == 0 || members[i].weight > max_weight)
      return tl::unexpected{"weight " + std::to_string(members[i].weight) + " is not in 1 to " +
                            std::to_string(max_weight)};
    if (i > 0 && members[i - 1].id >= members[i].id)
      return tl::unexpected<std::string>{"members are not sorted by identity, each once"};
  }
  return {};
}

}  // namespace

bool is_prime(std::uint32_t n) noexcept {
  if (n < 2 || n % 2 == 0) return n == 2;
  for (std::uint64_t d = 3; d * d <= n; d += 2)
    if (n % d == 0) return false;
  return true;
}

std::vector<std::uint32_t> quotas(std::span<const member> members, std::uint32_t size) {
  std::uint64_t total = 0;
  for (const member& m : members) total += m.weight;
  std::vector<std::uint32_t> quota(members.size());
  std::vector<std::uint64_t> remainder(members.size());
  std::uint32_t given = 0;
  for (std::size_t i = 0; i < members.size(); ++i) {
    // At most 2^20 * 2^24: no overflow.
    const std::uint64_t scaled = std::uint64_t{members[i].weight} * size;
    quota[i] = static_cast<std::uint32_t>(scaled / total);
    remainder[i] = scaled % total;
    given += quota[i];
  }
  const std::size_t rest = size - given;  // fewer than there are members
  std::vector<std::uint32_t> order(members.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto before = [&remainder](std::uint32_t a, std::uint32_t b) {
    return remainder[a] != remainder[b] ? remainder[a] > remainder[b] : a < b;
  };
  if (rest < order.size())
    std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(rest), order.end(),
                     before);
  for (std::size_t i = 0; i < rest; ++i) ++quota[order[i]];
  return quota;
}

tl::expected<void, std::string> build(std::span<const member> members, std::uint64_t seed,
                                      std::span<std::uint16_t> table) {
  if (auto ok = check(members, table.size()); !ok) return ok;
  const auto size = static_cast<std::uint32_t>(table.size());

  const std::vector<std::uint32_t> quota = quotas(members, size);
  std::vector<cursor> cursors(members.size());
  for (std::size_t i = 0; i < members.size(); ++i) {
    const std::uint64_t h = mix_identity(members[i].id, seed);
    cursors[i] = {static_cast<std::uint32_t>(sluice_mix64(h ^ offset_salt) % size),
                  static_cast<std::uint32_t>(sluice_mix64(h ^ skip_salt) % (size - 1) + 1),
                  quota[i]};
  }

  std::vector<std::uint32_t> order(members.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&members](std::uint32_t a, std::uint32_t b) {
    return members[a].weight > members[b].weight;
  });
  std::vector<weight_class> due;
  for (std::uint32_t i = 0; i < order.size(); ++i) {
    const std::uint32_t weight = members[order[i]].weight;
    if (due.empty() || due.back().weight != weight) due.push_back({weight, 1, i, i});
    due.back().last = i + 1;
  }
  std::make_heap(due.begin(), due.end(), due_later);

  taken_slots taken{size};
  while (!due.empty()) {
    std::pop_heap(due.begin(), due.end(), due_later);
    weight_class& turn = due.back();
    bool more = false;
    for (std::uint32_t i = turn.first; i < turn.last; ++i) {
      const std::uint32_t who = order[i];
      cursor& c = cursors[who];
      if (c.left == 0) continue;
      std::uint32_t at = c.position;
      const std::uint32_t skip = c.skip;
      const auto next = [size, skip](std::uint32_t p) {
        p += skip;
        return p >= size ? p - size : p;
      };
      // Ends: quotas add up to the size, so a free slot is left, and the walk meets it.
      while (taken.test(at)) at = next(at);
      taken.set(at);
      table[at] = static_cast<std::uint16_t>(who);
      c.position = next(at);
      more |= --c.left != 0;
    }
    if (more) {
      turn.turn += 2;
      std::push_heap(due.begin(), due.end(), due_later);
    } else {
      due.pop_back();
    }
  }
  return {};
}

std::uint64_t identity_hash(const identity& id) noexcept {
  return mix_identity(id, 0);
}

std::uint64_t digest(std::span<const member> members, std::span<const std::uint16_t> table) {
  std::vector<std::uint64_t> hashes(members.size());
  for (std::size_t i = 0; i < members.size(); ++i) hashes[i] = identity_hash(members[i].id);
  fnv1a h;
  for (const std::uint16_t position : table) h.add(position < hashes.size() ? hashes[position] : 0);
  return h.value();
}

}  // namespace sluice::maglev
