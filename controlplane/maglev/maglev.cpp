// SPDX-License-Identifier: Apache-2.0
#include "controlplane/maglev/maglev.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "controlplane/maglev/last_slots.hpp"
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

// How many free slots are few: then finding the nearest of all takes fewer cycles (0.8 per free
// slot) than walking to it (one per step, size / free steps, and a mispredicted branch).
std::uint32_t few_slots(std::uint32_t size) noexcept {
  std::uint32_t few = 1;
  while (few * few < size) few *= 2;
  return std::min(few / 2, size);
}

// population hands out the slots, to each member the next free one of its walk: step by step
// while every second is free, then eight at a time, and the last few by distance. Each of the
// three is a loop of its own, with all it needs in registers.
class population {
 public:
  population(std::span<cursor> cursors, std::span<std::uint16_t> table)
      : table_{table},
        size_{static_cast<std::uint32_t>(table.size())},
        few_{few_slots(size_)},
        free_{size_},
        cursors_{cursors},
        strides_(cursors.size()),
        taken_(size_ / 64 + 1) {
    for (std::size_t i = 0; i < cursors.size(); ++i) {
      std::uint32_t away = 0;
      for (std::int32_t& s : strides_[i]) {
        away = step(away, cursors[i].skip, size_);
        s = static_cast<std::int32_t>(away - size_);
      }
    }
  }

  // turn() gives a slot to each of `members` that has one left to take; true: it has more.
  bool turn(std::span<const std::uint32_t> members) {
    bool more = false;
    while (!members.empty() && free_ != 0) {
      const std::uint32_t end = free_ > size_ / 2 ? size_ / 2 : free_ > few_ ? few_ : 0;
      const auto now = members.first(std::min<std::size_t>(members.size(), free_ - end));
      more |= end == size_ / 2 ? by_steps(now) : end == few_ ? by_strides(now) : by_distance(now);
      members = members.subspan(now.size());
      if (end == few_ && free_ == few_) list();
    }
    return more;
  }

 private:
  using eight = std::array<std::int32_t, 8>;

  static std::uint64_t bit(const std::uint64_t* words, std::uint32_t at) noexcept {
    return words[at / 64] >> at % 64 & 1;
  }
  static void set(std::uint64_t* words, std::uint32_t at) noexcept {
    words[at / 64] |= std::uint64_t{1} << at % 64;
  }
  static std::uint32_t step(std::uint32_t at, std::uint32_t skip, std::uint32_t size) noexcept {
    // A comparison would be a branch that nobody can predict.
    return std::min(at + skip, at + skip - size);
  }
  // These end: quotas add up to the size, so a free slot is left, and the walk meets it.
  bool by_steps(std::span<const std::uint32_t> members) noexcept {
    const std::uint32_t size = size_;
    std::uint64_t* const taken = taken_.data();
    std::uint16_t* const table = table_.data();
    std::uint32_t given = 0;
    bool more = false;
    for (const std::uint32_t who : members) {
      cursor& c = cursors_[who];
      if (c.left == 0) continue;
      std::uint32_t at = c.position;
      const std::uint32_t skip = c.skip;
      while (bit(taken, at) != 0) at = step(at, skip, size);
      set(taken, at);
      table[at] = static_cast<std::uint16_t>(who);
      c.position = step(at, skip, size);
      more |= --c.left != 0;
      ++given;
    }
    free_ -= given;
    return more;
  }
  // by_strides() looks at eight steps before it branches: their sums do not wait for each other.
  bool by_strides(std::span<const std::uint32_t> members) noexcept {
    const auto size = static_cast<std::int32_t>(size_);
    std::uint64_t* const taken = taken_.data();
    std::uint16_t* const table = table_.data();
    std::uint32_t given = 0;
    bool more = false;
    for (const std::uint32_t who : members) {
      cursor& c = cursors_[who];
      if (c.left == 0) continue;
      std::uint32_t at = c.position;
      if (bit(taken, at) != 0) {
        const eight& strides = strides_[who];
        std::array<std::uint32_t, 8> slots;
        for (;;) {
          for (std::size_t i = 0; i < 8; ++i) {
            const std::int32_t sum = static_cast<std::int32_t>(at) + strides[i];
            slots[i] = static_cast<std::uint32_t>(sum + (sum >> 31 & size));
          }
          std::uint64_t all = bit(taken, slots[0]);
          for (std::size_t i = 1; i < 8; ++i) all &= bit(taken, slots[i]);
          if (all == 0) break;
          at = slots[7];
        }
        std::uint64_t seen = 0;
        for (unsigned i = 0; i < 8; ++i) seen |= bit(taken, slots[i]) << i;
        at = slots[static_cast<std::size_t>(std::countr_one(seen))];
      }
      set(taken, at);
      table[at] = static_cast<std::uint16_t>(who);
      c.position = step(at, c.skip, size_);
      more |= --c.left != 0;
      ++given;
    }
    free_ -= given;
    return more;
  }
  bool by_distance(std::span<const std::uint32_t> members) noexcept {
    bool more = false;
    for (const std::uint32_t who : members) {
      cursor& c = cursors_[who];
      if (c.left == 0) continue;
      const std::uint32_t steps = fewest_steps(slots_, c.position, inverses_[who], size_);
      const auto at =
          static_cast<std::uint32_t>((c.position + std::uint64_t{steps} * c.skip) % size_);
      *std::find(slots_.begin(), slots_.end(), at) = slots_.back();
      slots_.pop_back();
      table_[at] = static_cast<std::uint16_t>(who);
      c.position = step(at, c.skip, size_);
      more |= --c.left != 0;
      --free_;
    }
    return more;
  }
  // list() makes the list of what is left.
  void list() {
    slots_.reserve(few_);
    for (std::uint32_t at = 0; at < size_; ++at)
      if (bit(taken_.data(), at) == 0) slots_.push_back(at);
    std::vector<std::uint32_t> skips;
    skips.reserve(cursors_.size());
    for (const cursor& c : cursors_) skips.push_back(c.skip);
    inverses_ = inverse_multipliers(skips, size_);
  }

  std::span<std::uint16_t> table_;
  std::uint32_t size_;
  std::uint32_t few_;
  std::uint32_t free_;
  std::span<cursor> cursors_;
  std::vector<eight> strides_;        // of each member: 1 to 8 steps, less the size
  std::vector<std::uint64_t> taken_;  // a bit for each slot: 8 KiB of 65537 stay in the L1 cache
  std::vector<std::uint32_t> slots_;  // the free ones, afterwards
  std::vector<multiplier> inverses_;  // of the members' skips
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

  population slots{cursors, table};
  while (!due.empty()) {
    std::pop_heap(due.begin(), due.end(), due_later);
    weight_class& turn = due.back();
    const bool more = slots.turn(std::span{order}.subspan(turn.first, turn.last - turn.first));
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
