// SPDX-License-Identifier: Apache-2.0
// lint: cold file: start-up only
// flow_map::repair(): makes a table right that its process left behind, however it ended:
// in the middle of an insertion (key written, word not), of a move (the entry in both of
// its buckets) or of counting an overflow. Included by flow_map.hpp only.
#pragma once

#include "dataplane/connection/flow_map.hpp"

namespace sluice::connection {

// place_is_right() tells whether an entry in bucket b is one that a look-up can find.
template <class Family>
bool flow_map<Family>::place_is_right(std::uint64_t b, unsigned at) const noexcept {
  const auto& e = buckets_[b].entries[at];
  if (static_cast<std::size_t>(e.word.state()) >= abi::connection_state_count ||
      e.word.vip() == abi::no_vip)
    return false;
  const bucket_hash h = hasher_(Family::key_of(e));
  if (b != primary(h) && b != secondary(h)) return false;
  for (unsigned i = 0; i < at; ++i)
    if (buckets_[b].entries[i].word.state() != connection_state::free &&
        Family::key_of(buckets_[b].entries[i]) == Family::key_of(e))
      return false;
  return true;
}

template <class Family>
std::uint64_t flow_map<Family>::repair() noexcept {
  std::uint64_t removed = 0;
  const auto clear = [](auto& e) {
    Family::set_key(e, key_type{});
    write(&e.word, 0);
  };
  // First every bucket for itself, and all overflow counters to 0.
  for (std::uint64_t b = 0; b < count_; ++b) {
    for (unsigned i = 0; i < per_bucket; ++i) {
      auto& e = buckets_[b].entries[i];
      write(&e.word, e.word.value & ~connection_word::spare_mask);
      if (e.word.state() == connection_state::free) {
        clear(e);
      } else if (!place_is_right(b, i)) {
        clear(e);
        ++removed;
      }
    }
  }
  // Then what is in a secondary bucket: counted by its primary, unless it is there as well.
  for (std::uint64_t b = 0; b < count_; ++b) {
    for (unsigned i = 0; i < per_bucket; ++i) {
      auto& e = buckets_[b].entries[i];
      if (e.word.state() == connection_state::free) continue;
      const key_type key = Family::key_of(e);
      bucket& home = buckets_[primary(hasher_(key))];
      if (&home == &buckets_[b]) continue;
      if (find_in(home, key) == nullptr) {
        add_overflow(home);
        write(&e.word, e.word.value | away_bit);
        continue;
      }
      const std::uint64_t count_bits = e.word.value & digit_mask;
      clear(e);
      write(&e.word, count_bits);
      ++removed;
    }
  }
  recount();
  return removed;
}

}  // namespace sluice::connection
