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
// So a flood of SYNs turns over the embryonic entries and takes nothing from live ones.
#pragma once

#include "dataplane/connection/flow_map.hpp"

namespace sluice::connection {

template <class Family>
insertion flow_map<Family>::insert(bucket_hash h, const key_type& key, connection_word word,
                                   bool fresh) noexcept {
  const std::uint16_t now = word.seen();
  bucket& first = buckets_[primary(h)];
  bucket* second = nullptr;
  if (!fresh) {
    handle found = find_in(first, key);
    if (found == nullptr && overflowed(first)) {
      second = buckets_ + secondary(h);
      found = find_in(*second, key);
    }
    if (found != nullptr) {
      const connection_word old{found->value & ~connection_word::spare_mask};
      if (!expired(old, now)) return {found, outcome::existing, {}};
      store(found, word);
      return {found, outcome::expired, old};
    }
  }

  vacancy there = vacancy_(first, now, wide_timeouts_.data());
  place to{&first, there.at & 3u};
  bool idle_place = there.at < per_bucket;
  if (!idle_place && !there.all_established && nearly_full())
    if (const unsigned at = own_victim_(first, now, wide_timeouts_.data(), rotor_);
        at < per_bucket) {
      ++rotor_;
      return replace(first, at, key, word);
    }
  if (!idle_place) {
    const bool all_live = there.all_established;
    second = buckets_ + secondary(h);
    there = vacancy_(*second, now, wide_timeouts_.data());
    to = {second, there.at & 3u};
    idle_place = there.at < per_bucket;
    // A flood into a full table: nobody here gives way to a newcomer of this kind.
    if (!idle_place && all_live && there.all_established && nearly_full() &&
        embryonic(word.state()) && word.state() != connection_state::learned)
      return {nullptr, outcome::no_room, {}};
  }
  if (!idle_place) {
    const unsigned at = victim_(first, *second, word.state(), now, wide_timeouts_.data(), rotor_++);
    to = {at == nobody ? nullptr : at < per_bucket ? &first : second, at & 3u};
    // Nobody loses a closed one; for anything better, first see whether a resident can move.
    if ((to.in == nullptr || to.in->entries[to.at].word.state() != connection_state::closed) &&
        make_room(first, *second, to))
      idle_place = true;
    if (to.in == nullptr) return {nullptr, outcome::no_room, {}};
  }

  auto& entry = to.in->entries[to.at];
  const connection_word old{entry.word.value & ~connection_word::spare_mask};
  outcome result = outcome::inserted;
  if (old.state() != connection_state::free) {
    result = idle_place ? outcome::expired : outcome::evicted;
    remove(*to.in, to.at);
  }
  if (to.in != &first) add_overflow(first);
  Family::set_key(entry, key);
  // The word last: a reader in another process then sees no half entry.
  write(&entry.word, (word.value & ~(connection_word::spare_mask | connection_word::vip_mask)) |
                         key.vip_bits | (entry.word.value & connection_word::spare_mask));
  ++size_;
  ++by_state_[static_cast<std::size_t>(word.state()) & 7u];
  return {&entry.word, result, old};
}

// make_room() frees a place in one of two full buckets by moving residents to their other
// bucket. Without this, two-choice hashing refuses 4% of the connections at 80% load and
// 23% after long churn; with one step 0.08% and 0.5%; with two none (tests:
// connection_load). Lines read: 8 for a step, 32 more for two. A table that is nearly full, as in a
// flood, has no room to make and is not worth looking through.
template <class Family>
bool flow_map<Family>::make_room(bucket& first, bucket& second, place& out) noexcept {
  if (nearly_full()) return false;
  for (unsigned steps = 1; steps <= 2; ++steps) {
    for (bucket* b : {&first, &second}) {
      const unsigned at = vacate(*b, steps);
      if (at == per_bucket) continue;
      out = {b, at};
      return true;
    }
  }
  return false;
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
                         (fresh.word.value & connection_word::spare_mask));
  write(&old.word, old.word.value & connection_word::spare_mask);
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
  bucket& home = buckets_[primary(hasher_(Family::key_of(b.entries[at])))];
  if (&home == &b) return;
  if (const unsigned there = free_place(home); there != per_bucket) move(b, at, home, there, true);
}

template <class Family>
void flow_map<Family>::add_overflow(bucket& home) noexcept {
  const std::uint32_t n = overflow(home);
  if (n < max_overflow) set_overflow(home, n + 1);
}
template <class Family>
void flow_map<Family>::drop_overflow(bucket& home) noexcept {
  const std::uint32_t n = overflow(home);
  if (n != 0 && n != max_overflow) set_overflow(home, n - 1);
}

// remove() frees a place that is in use and takes it off its primary's overflow count if
// it was not there.
template <class Family>
void flow_map<Family>::remove(bucket& b, unsigned at) noexcept {
  auto& entry = b.entries[at];
  const bucket_hash h = hasher_(Family::key_of(entry));
  --size_;
  --by_state_[static_cast<std::size_t>(entry.word.state()) & 7u];
  write(&entry.word, entry.word.value & connection_word::spare_mask);
  Family::set_key(entry, key_type{});
  bucket& home = buckets_[primary(h)];
  if (&home != &b) drop_overflow(home);
}

// replace() is remove() and a newcomer in that place, which is in its primary bucket.
template <class Family>
insertion flow_map<Family>::replace(bucket& b, unsigned at, const key_type& key,
                                    connection_word word) noexcept {
  auto& entry = b.entries[at];
  const connection_word old{entry.word.value & ~connection_word::spare_mask};
  bucket& home = buckets_[primary(hasher_(Family::key_of(entry)))];
  if (&home != &b) [[unlikely]]
    drop_overflow(home);
  const std::uint64_t spare = entry.word.value & connection_word::spare_mask;
  write(&entry.word, spare);
  Family::set_key(entry, key);
  write(&entry.word, (word.value & ~(connection_word::spare_mask | connection_word::vip_mask)) |
                         key.vip_bits | spare);
  if (old.state() != word.state()) {
    --by_state_[static_cast<std::size_t>(old.state()) & 7u];
    ++by_state_[static_cast<std::size_t>(word.state()) & 7u];
  }
  return {&entry.word, outcome::evicted, old};
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
        if (word != 0 || !(Family::key_of(e) == key_type{})) return false;
        continue;
      }
      if (static_cast<std::size_t>(e.word.state()) >= abi::connection_state_count) return false;
      const bucket_hash h = hasher_(Family::key_of(e));
      if (b != primary(h)) {
        if (b != secondary(h) || !overflowed(buckets_[primary(h)])) return false;
        ++displaced;
      }
      ++entries;
    }
  }
  return entries == size_ && (sticky || displaced == counted);
}

}  // namespace sluice::connection
