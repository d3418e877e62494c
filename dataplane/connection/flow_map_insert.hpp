// SPDX-License-Identifier: Apache-2.0
// flow_map's members that write: insert, erase, sweep, and who gives way to whom.
// Included by flow_map.hpp only.
//
// Order of giving way: free, expired, of the primary bucket; in a table that is nearly full then
// closed and embryonic ones of it, which spares the newcomer another line (and leaves entries where
// they belong); free, expired, of the secondary; then, among all places of both buckets: closed;
// then a resident that can move to its other bucket moves; the embryonic (syn, learned, udp_new),
// oldest first; closing, oldest first; udp and established only if
//   - the newcomer is not embryonic itself (a connection adopted from elsewhere), or
//   - udp: idle for more than a quarter of its timeout, or
//   - established: the same, and the newcomer is `learned`: it has been a connection
//     somewhere, whereas a SYN may be one of a flood.
// In a table full of established connections the secondary is not looked into for an embryonic
// newcomer: hardly any has a place to give, and each is another line.
// So a flood of SYNs turns over the embryonic entries and takes nothing from live ones.
#pragma once

#include "dataplane/connection/flow_map.hpp"

namespace sluice::connection {

template <class Family>
insertion flow_map<Family>::insert_scalar(flow_map& map, bucket_hash h, const key_type& key,
                                          connection_word word, bool fresh) noexcept {
  return map.insert_by<vacancy_scalar<Family>>(h, key, word, fresh);
}
template <class Family>
SLUICE_AVX2 insertion flow_map<Family>::insert_avx2(flow_map& map, bucket_hash h,
                                                    const key_type& key, connection_word word,
                                                    bool fresh) noexcept {
  return map.insert_by<vacancy_avx2<Family>>(h, key, word, fresh);
}

// renew() is insert() for a key that is there; a handle of null if it is not.
template <class Family>
[[gnu::noinline]] insertion flow_map<Family>::renew(bucket_hash h, const key_type& key,
                                                    connection_word word) noexcept {
  const handle found = find(h, key);
  if (found == nullptr) return {};
  const connection_word old{found->value & ~connection_word::spare_mask};
  if (!expired(old, word.seen())) return {found, outcome::existing, {}};
  store(found, word);
  return {found, outcome::expired, old};
}

template <class Family>
template <auto Vacancy>
[[gnu::always_inline]] inline insertion flow_map<Family>::insert_by(bucket_hash h,
                                                                    const key_type& key,
                                                                    connection_word word,
                                                                    bool fresh) noexcept {
  if (!fresh) [[unlikely]]
    if (const insertion there = renew(h, key, word); there.handle != nullptr) return there;
  const std::uint16_t now = word.seen();
  bucket& first = buckets_[primary(h)];
  vacancy best = Vacancy(first, now, patience_.data(), rotor_);
  place to{&first, best.at, best.rank >= expired_rank};
  if (!to.idle) {
    if (best.rank >= yielding_rank && nearly_full()) {
      ++rotor_;
    } else {
      const std::uint32_t here = best.rank;
      const bool of_a_flood = embryonic(word.state()) && word.state() != connection_state::learned;
      if (here == all_established && of_a_flood && all_hold_on())
        return {nullptr, outcome::no_room, {}};
      bucket& second = buckets_[secondary(h)];
      best = Vacancy(second, now, patience_.data(), rotor_);
      to = {&second, best.at, best.rank >= expired_rank};
      if (!to.idle) {
        // A flood into a full table: nobody here gives way to a newcomer of this kind.
        if (here == all_established && best.rank == all_established && nearly_full() && of_a_flood)
          return {nullptr, outcome::no_room, {}};
        to = choose(first, second, word);
        if (to.in == nullptr) return {nullptr, outcome::no_room, {}};
      }
    }
  }

  auto& entry = to.in->entries[to.at];
  const std::uint64_t before = entry.word.value;
  const connection_word old{before & ~connection_word::spare_mask};
  outcome result = outcome::inserted;
  if (old.state() == connection_state::free) {
    ++size_;
    ++by_state_[static_cast<std::size_t>(word.state()) & 7u];
  } else {
    result = to.idle ? outcome::expired : outcome::evicted;
    if (is_away(entry)) [[unlikely]]
      drop_overflow(home_of(entry));
    // Free first: a reader in another process then sees no half entry.
    write(&entry.word, before & digit_mask);
    if (old.state() != word.state()) {
      --by_state_[static_cast<std::size_t>(old.state()) & 7u];
      ++by_state_[static_cast<std::size_t>(word.state()) & 7u];
    }
  }
  std::uint64_t added = key.vip_bits | (before & digit_mask);
  if (to.in != &first) {
    add_overflow(first);
    added |= away_bit;
  }
  Family::set_key(entry, key);
  // The word last, for the same reason.
  write(&entry.word,
        (word.value & ~(connection_word::spare_mask | connection_word::vip_mask)) | added);
  return {&entry.word, result, old};
}

// choose() finds a place in two full buckets; .in is null if nobody gives way.
template <class Family>
[[gnu::noinline]] typename flow_map<Family>::place flow_map<Family>::choose(
    bucket& first, bucket& second, connection_word word) noexcept {
  const unsigned at = victim_(first, second, word.state(), word.seen(), patience_.data(), rotor_++);
  const place victim{at == nobody ? nullptr : at < per_bucket ? &first : &second, at & 3u, false};
  // Nobody loses a closed one; for anything better, first see whether a resident can move.
  if (at != nobody && victim.in->entries[victim.at].word.state() == connection_state::closed)
    return victim;
  const place room = make_room(first, second);
  return room.in != nullptr ? room : victim;
}

// make_room() frees a place in one of two full buckets by moving residents to their other
// bucket. Without this, two-choice hashing refuses 4% of the connections at 80% load and
// 23% after long churn; with one step 0.08% and 0.5%; with two none (tests:
// connection_load). Lines read: 8 for a step, 32 more for two. A table that is nearly full, as in a
// flood, has no room to make and is not worth looking through.
template <class Family>
typename flow_map<Family>::place flow_map<Family>::make_room(bucket& first,
                                                             bucket& second) noexcept {
  if (nearly_full()) return {};
  for (unsigned steps = 1; steps <= 2; ++steps) {
    for (bucket* b : {&first, &second}) {
      const unsigned at = vacate(*b, steps);
      if (at != per_bucket) return {b, at, true};
    }
  }
  return {};
}

// vacate() frees a place of a full bucket in exactly `steps` moves; per_bucket: it cannot.
template <class Family>
unsigned flow_map<Family>::vacate(bucket& b, unsigned steps) noexcept {
  std::array<bucket*, per_bucket> other;
  std::array<bool, per_bucket> home;
  for (unsigned i = 0; i < per_bucket; ++i) {
    const bucket_hash h = hasher_(Family::key_of(b.entries[i]));
    bucket* const first = buckets_ + primary(h);
    home[i] = first != &b;
    other[i] = home[i] ? first : buckets_ + secondary(h);
    Family::prefetch(other[i]);
  }
  for (unsigned i = 0; i < per_bucket; ++i) {
    const unsigned there = steps == 1 ? free_place(*other[i]) : vacate(*other[i], steps - 1);
    if (there == per_bucket) continue;
    move(b, i, *other[i], there, home[i]);
    return i;
  }
  return per_bucket;
}

// move() takes an entry to a free place in its other bucket. A reader in another process
// may see it twice for a moment, not never.
template <class Family>
void flow_map<Family>::move(bucket& from, unsigned at, bucket& to, unsigned place_there,
                            bool home) noexcept {
  auto& old = from.entries[at];
  auto& fresh = to.entries[place_there];
  const key_type key = Family::key_of(old);
  Family::set_key(fresh, key);
  write(&fresh.word, (old.word.value & ~connection_word::spare_mask) |
                         (fresh.word.value & digit_mask) | (home ? 0 : away_bit));
  write(&old.word, old.word.value & digit_mask);
  Family::set_key(old, key_type{});
  if (home) {
    drop_overflow(to);
  } else {
    add_overflow(from);
  }
}

// bring_home() moves an entry that is in its secondary bucket to a free place in its
// primary, if it has one by now. Without it, churn at 80% load leaves every third entry
// in its secondary; the sweep meets each of them anyway.
template <class Family>
void flow_map<Family>::bring_home(bucket& b, unsigned at) noexcept {
  if (!is_away(b.entries[at])) return;
  bucket& home = home_of(b.entries[at]);
  if (const unsigned there = free_place(home); there != per_bucket) move(b, at, home, there, true);
}

// Mostly the first digit is all that changes.
template <class Family>
[[gnu::always_inline]] inline void flow_map<Family>::add_overflow(bucket& home) noexcept {
  const handle first = &home.entries[0].word;
  if ((first->value & digit_mask) < digit_mask) [[likely]]
    return write(first, first->value + one_digit);
  if (const std::uint32_t n = overflow(home); n < max_overflow) set_overflow(home, n + 1);
}
template <class Family>
[[gnu::always_inline]] inline void flow_map<Family>::drop_overflow(bucket& home) noexcept {
  const handle first = &home.entries[0].word;
  if (const std::uint64_t digit = first->value & digit_mask;
      digit > one_digit && digit < digit_mask)
    return write(first, first->value - one_digit);
  const std::uint32_t n = overflow(home);
  if (n != 0 && n != max_overflow) set_overflow(home, n - 1);
}

// remove() frees a place that is in use and takes it off its primary's overflow count if
// it was not there.
template <class Family>
void flow_map<Family>::remove(bucket& b, unsigned at) noexcept {
  auto& entry = b.entries[at];
  bucket& home = is_away(entry) ? home_of(entry) : b;
  --size_;
  --by_state_[static_cast<std::size_t>(entry.word.state()) & 7u];
  write(&entry.word, entry.word.value & digit_mask);
  Family::set_key(entry, key_type{});
  if (&home != &b) drop_overflow(home);
}

template <class Family>
void flow_map<Family>::erase(handle at) noexcept {
  const auto offset = static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(at) -
                                                 reinterpret_cast<const std::byte*>(buckets_));
  bucket& b = buckets_[offset / sizeof(bucket)];
  remove(b, static_cast<unsigned>(offset % sizeof(bucket) / sizeof(b.entries[0])));
}

template <class Family>
template <class Remove, class Gone>
std::uint64_t flow_map<Family>::erase_if(std::uint64_t from, std::uint64_t n, Remove&& remove_it,
                                         Gone&& gone) noexcept {
  if (from >= count_) from = 0;
  for (; n > 0; --n) {
    bucket& b = buckets_[from];
    for (unsigned i = 0; i < per_bucket; ++i) {
      const connection_word w{b.entries[i].word.value & ~connection_word::spare_mask};
      if (w.state() == connection_state::free) continue;
      if (remove_it(w)) {
        remove(b, i);
        gone(w);
      } else {
        bring_home(b, i);
      }
    }
    if (++from == count_) from = 0;
  }
  return from;
}

template <class Family>
void flow_map<Family>::recount() noexcept {
  size_ = 0;
  by_state_ = {};
  for (std::uint64_t b = 0; b < count_; ++b)
    for (unsigned i = 0; i < per_bucket; ++i)
      if (const connection_state s = buckets_[b].entries[i].word.state();
          s != connection_state::free) {
        ++size_;
        ++by_state_[static_cast<std::size_t>(s) & 7u];
      }
}

template <class Family>
bool flow_map<Family>::consistent() const noexcept {
  // Every entry sits in one of its two buckets; one in its secondary has a primary that
  // says so; the overflow counters together count exactly those.
  std::uint64_t entries = 0;
  std::uint64_t displaced = 0;
  std::uint64_t counted = 0;
  bool sticky = false;
  for (std::uint64_t b = 0; b < count_; ++b) {
    const bucket& here = buckets_[b];
    const std::uint32_t over = overflow(here);
    counted += over;
    sticky = sticky || over == max_overflow;
    for (unsigned i = 0; i < per_bucket; ++i) {
      const auto& e = here.entries[i];
      const std::uint64_t word = e.word.value & ~connection_word::spare_mask;
      if (e.word.state() == connection_state::free) {
        if (word != 0 || is_away(e) || !(Family::key_of(e) == key_type{})) return false;
        continue;
      }
      if (static_cast<std::size_t>(e.word.state()) >= abi::connection_state_count) return false;
      const bucket_hash h = hasher_(Family::key_of(e));
      if (is_away(e) != (b != primary(h))) return false;
      if (is_away(e)) {
        if (b != secondary(h) || !overflowed(buckets_[primary(h)])) return false;
        ++displaced;
      }
      ++entries;
    }
  }
  return entries == size_ && (sticky || displaced == counted);
}

}  // namespace sluice::connection
