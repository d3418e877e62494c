// SPDX-License-Identifier: Apache-2.0
// flow_map: the connections of one worker and one address family.
//
// Caller-supplied memory (zeroed = empty; the same bytes can be taken up again by
// another process, nothing in them is an address), one thread, no allocation, no
// exceptions. Cache-line buckets, two-choice hashing: a connection lives in its primary
// bucket, or in its secondary if the primary was full when it came; the primary counts
// those that had to go (overflow, exact), so that a look-up normally reads one line.
// (Two-choice hashing: Azar et al., STOC 1994. When both buckets are full, residents
// move to their other bucket, one or two steps of a cuckoo walk: Pagh and Rodler, ESA 2001.)
//
// Handles are pointers to an entry's word. They, and everything found through them, hold
// until the next insert(), erase() or sweep(): in a burst, first find and store all that
// is there, then insert the rest one after the other.
//
// Time: `now` is the table's clock, 16 bits of seconds that wrap. Timeouts are below
// 32768 s. An entry that has been idle for 32768 to 65535 s counts as expired, one that
// nobody has looked at for longer seems young again. So the error is bounded by the time
// of one full sweep(): it must be well below 65536 s - 32768 s (minutes, in practice).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/connection/bucket_hash.hpp"
#include "dataplane/connection/bucket_probe.hpp"
#include "dataplane/connection/bulk_find.hpp"
#include "dataplane/connection/vacancy.hpp"
#include "dataplane/connection/victim.hpp"

namespace sluice::connection {

using abi::connection_state;
using timeout_table = std::array<std::uint16_t, abi::connection_state_count>;

enum class outcome : std::uint8_t {
  inserted,  // into a free place
  existing,  // the key was there (not expired): nothing changed, the handle names it
  expired,   // in place of a connection that had been idle too long (old)
  evicted,   // in place of one that was worth less (old)
  no_room,   // all eight places are worth more: forward by the hash
};

struct insertion {
  connection::handle handle;  // null: no_room
  connection::outcome outcome;
  connection_word old;  // outcome expired, evicted: what was there
};

template <class Family>
class flow_map {
 public:
  using key_type = typename Family::key_type;
  using bucket = typename Family::bucket;
  static constexpr unsigned per_bucket = Family::per_bucket;
  static_assert(sizeof(bucket) % cache_line == 0);

  // memory: count buckets, aligned to the cache line, zeroed or used before under the
  // same secret. count: 2 to 2^32. Call recount() if used before. instructions: for tests
  // and benchmarks; only what the processor has.
  flow_map(void* memory, std::uint64_t count, const std::array<std::uint64_t, 2>& secret,
           instruction_set instructions = best_instruction_set()) noexcept;

  [[nodiscard]] bucket_hash hash(const key_type& key) const noexcept { return hasher_(key); }
  [[nodiscard]] const bucket_hasher& hasher() const noexcept { return hasher_; }
  [[nodiscard]] instruction_set instructions() const noexcept { return instructions_; }

  // prefetch() fetches the line(s) that find() will most likely need, and returns the bucket
  // for find_bulk().
  bucket* prefetch(bucket_hash h) const noexcept {
    bucket* const first = buckets_ + primary(h);
    Family::prefetch(first);
    return first;
  }

  // find() returns the entry of a key, expired or not, or null.
  [[nodiscard]] handle find(bucket_hash h, const key_type& key) const noexcept {
    bucket* const first = buckets_ + primary(h);
    if (const handle found = find_in(*first, key); found != nullptr) return found;
    if (!overflowed(*first)) return nullptr;
    return find_in(buckets_[secondary(h)], key);
  }

  // in_primary() tells where an entry that is in the table lives; for tests and statistics.
  [[nodiscard]] bool in_primary(bucket_hash h, const key_type& key) const noexcept {
    return find_in(buckets_[primary(h)], key) != nullptr;
  }

  // find_primaries() looks n <= chunk keys up where most of them are; firsts: what prefetch()
  // has returned for them, some tens of ns before. find_secondaries() is for those of them that may
  // be elsewhere (first_look::again), better some tens of ns later; it returns which are. Both
  // fetch the companions of what they find; the first also what insert() will need for those that
  // are not there.
  static constexpr unsigned chunk = 64;
  [[nodiscard]] first_look find_primaries(const key_type* keys, const bucket_hash* hashes,
                                          bucket* const* firsts, handle* found, companions beside,
                                          unsigned n) const noexcept {
    const unsigned enough = twice(all_hold_on()   ? every_state
                                  : nearly_full() ? yielding_states
                                                  : only_free);
    return find_.first(buckets_, count_, keys, hashes, firsts, found, beside, n, enough);
  }
  std::uint64_t find_secondaries(const key_type* keys, const bucket_hash* hashes, handle* found,
                                 companions beside, std::uint64_t again) const noexcept {
    return again == 0 ? 0 : find_.second(buckets_, count_, keys, hashes, found, beside, again);
  }
  // find_bulk() is both, for who has no companions.
  void find_bulk(const key_type* keys, const bucket_hash* hashes, handle* found,
                 unsigned n) const noexcept {
    const companions none{reinterpret_cast<const std::byte*>(buckets_),
                          reinterpret_cast<const std::byte*>(buckets_)};
    std::array<bucket*, chunk> firsts;
    for (unsigned now; n != 0; keys += now, hashes += now, found += now, n -= now) {
      now = n < chunk ? n : chunk;
      for (unsigned i = 0; i < now; ++i) firsts[i] = buckets_ + primary(hashes[i]);
      const first_look look = find_primaries(keys, hashes, firsts.data(), found, none, now);
      find_secondaries(keys, hashes, found, none, look.again);
    }
  }

  // expired() tells whether an entry has been idle for longer than its state allows.
  [[nodiscard]] bool expired(connection_word w, std::uint16_t now) const noexcept {
    return idle(w, now) > timeouts_[static_cast<std::size_t>(w.state()) & 7u];
  }
  static std::uint16_t idle(connection_word w, std::uint16_t now) noexcept {
    return static_cast<std::uint16_t>(now - w.seen());
  }
  // set_timeouts(): seconds by state; values of 32768 and more are cut to 32767.
  void set_timeouts(const timeout_table& t) noexcept {
    for (std::size_t i = 0; i < t.size(); ++i) {
      timeouts_[i] = t[i] > max_timeout ? max_timeout : t[i];
      patience_[i] = timeouts_[i];
    }
    patience_[static_cast<std::size_t>(connection_state::free)] = -1;
  }
  [[nodiscard]] const timeout_table& timeouts() const noexcept { return timeouts_; }

  // insert() enters a connection with this word (its VIP the key's, its time now, its
  // state not free), unless it is there already. See flow_map_insert.hpp for what gives
  // way to what.
  // fresh: find() has just said that it is not.
  insertion insert(bucket_hash h, const key_type& key, connection_word word,
                   bool fresh = false) noexcept {
    return insert_(*this, h, key, word, fresh);
  }

  // store() gives an entry a new word (backend, state, time). The VIP must stay. Stores
  // only if something changes: a line that is only read stays clean.
  void store(handle at, connection_word word) noexcept {
    const std::uint64_t before = at->value;
    const std::uint64_t after =
        (word.value & ~connection_word::spare_mask) | (before & connection_word::spare_mask);
    if (after == before) return;
    const auto was = connection_word{before}.state();
    if (was != word.state()) {
      --by_state_[static_cast<std::size_t>(was) & 7u];
      ++by_state_[static_cast<std::size_t>(word.state()) & 7u];
    }
    write(at, after);
  }

  // erase() removes the entry that a handle names.
  void erase(handle at) noexcept;

  // sweep() removes the expired entries of n buckets from `from` on, calls
  // gone(connection_word) for each, and returns where to go on (wraps to 0). It also
  // moves entries back to their primary bucket where there is room again.
  template <class Gone>
  std::uint64_t sweep(std::uint64_t from, std::uint64_t n, std::uint16_t now,
                      Gone&& gone) noexcept {
    return erase_if(
        from, n, [this, now](connection_word w) { return expired(w, now); }, gone);
  }
  // erase_if() is sweep() with another question: remove(connection_word) -> bool.
  template <class Remove, class Gone>
  std::uint64_t erase_if(std::uint64_t from, std::uint64_t n, Remove&& remove,
                         Gone&& gone) noexcept;

  // for_each() calls fn(key, word) for every entry. Slow; for lists and tests.
  template <class Function>
  void for_each(Function&& fn) const {
    for (std::uint64_t b = 0; b < count_; ++b)
      for (unsigned i = 0; i < per_bucket; ++i)
        if (const auto& e = buckets_[b].entries[i]; e.word.state() != connection_state::free)
          fn(Family::key_of(e), connection_word{e.word.value & ~connection_word::spare_mask});
  }

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] std::uint64_t size(connection_state s) const noexcept {
    return by_state_[static_cast<std::size_t>(s) & 7u];
  }
  [[nodiscard]] std::uint64_t capacity() const noexcept { return count_ * per_bucket; }
  [[nodiscard]] std::uint64_t bucket_count() const noexcept { return count_; }
  [[nodiscard]] const bucket* buckets() const noexcept { return buckets_; }

  // repair() takes up a table that another process left, whatever state it was in: entries
  // that cannot be found or are there twice go, all counts are made anew. Returns how many
  // went. Two passes over the memory; start-up only.
  std::uint64_t repair() noexcept;
  // recount() sets size() from the memory, after taking up a used table that is in order.
  void recount() noexcept;
  // consistent() checks every count, overflow counter and placement. Slow; for tests and
  // before a table that another process left behind is used.
  [[nodiscard]] bool consistent() const noexcept;

 private:
  static constexpr std::uint16_t max_timeout = 32767;

  [[nodiscard]] bool nearly_full() const noexcept { return size_ > nearly_full_from_; }
  // all_hold_on() tells that all but one in 64 places are established connections: as in a flood
  // into a table full of them.
  [[nodiscard]] bool all_hold_on() const noexcept {
    return by_state_[static_cast<std::size_t>(connection_state::established)] > all_hold_on_from_;
  }
  [[nodiscard]] std::uint64_t primary(bucket_hash h) const noexcept {
    return primary_bucket(h, count_);
  }
  [[nodiscard]] std::uint64_t secondary(bucket_hash h) const noexcept {
    return secondary_bucket(h, count_);
  }
  static handle find_in(bucket& b, const key_type& key) noexcept {
    const unsigned at = scalar_probe::match(b, key);
    return at == per_bucket ? nullptr : &b.entries[at].word;
  }

  // The spare bits of a word: away_bit is the entry's, which is in its secondary bucket. The others
  // are the bucket's, a digit of its overflow counter. The first
  // digit is never 0 unless the count is, so that one word tells whether there is any:
  // count 0 is all zeros; count c > 0 is digit 1 + (c - 1) % 7 and (c - 1) / 7 above.
  // At its maximum it sticks: look-ups then always go on to the secondary.
  static constexpr unsigned digit_bits = 3;
  static constexpr std::uint32_t max_overflow = 7u << (digit_bits * (per_bucket - 1));
  static constexpr std::uint64_t one_digit = std::uint64_t{1} << connection_word::spare_shift;
  static constexpr std::uint64_t away_bit = connection_word::spare_mask & ~digit_mask;
  static bool is_away(const typename Family::entry& e) noexcept {
    return (e.word.value & away_bit) != 0;
  }
  bucket& home_of(const typename Family::entry& e) const noexcept {
    return buckets_[primary(hasher_(Family::key_of(e)))];
  }
  static std::uint32_t overflow(const bucket& b) noexcept {
    const auto digit = [&b](unsigned i) {
      return static_cast<std::uint32_t>((b.entries[i].word.value & digit_mask) >>
                                        connection_word::spare_shift);
    };
    if (digit(0) == 0) return 0;
    std::uint32_t high = 0;
    for (unsigned i = per_bucket - 1; i > 0; --i) high = high << digit_bits | digit(i);
    return high * 7 + digit(0);
  }
  [[gnu::noinline]] static void set_overflow(bucket& b, std::uint32_t count) noexcept {
    std::uint32_t digits = count == 0 ? 0 : ((count - 1) / 7) << digit_bits | (1 + (count - 1) % 7);
    for (unsigned i = 0; i < per_bucket; ++i, digits >>= digit_bits) {
      connection_word& w = b.entries[i].word;
      const std::uint64_t value = (w.value & ~digit_mask) | std::uint64_t{digits & 7}
                                                                << connection_word::spare_shift;
      if (value != w.value) write(&w, value);
    }
  }

  static void write(handle at, std::uint64_t value) noexcept {
    std::atomic_ref<std::uint64_t>{at->value}.store(value, std::memory_order_release);
  }
  struct place {
    bucket* in;  // null: there is none
    unsigned at;
    bool idle;  // free, or its connection has expired
  };
  place make_room(bucket& first, bucket& second) noexcept;
  unsigned vacate(bucket& b, unsigned steps) noexcept;
  void move(bucket& from, unsigned at, bucket& to, unsigned place_there, bool home) noexcept;
  void bring_home(bucket& b, unsigned at) noexcept;
  void add_overflow(bucket& home) noexcept;
  void drop_overflow(bucket& home) noexcept;
  void remove(bucket& b, unsigned at) noexcept;
  static insertion insert_scalar(flow_map& map, bucket_hash h, const key_type& key,
                                 connection_word word, bool fresh) noexcept;
  static insertion insert_avx2(flow_map& map, bucket_hash h, const key_type& key,
                               connection_word word, bool fresh) noexcept;
  template <auto Vacancy>
  insertion insert_by(bucket_hash h, const key_type& key, connection_word word,
                      bool fresh) noexcept;
  insertion renew(bucket_hash h, const key_type& key, connection_word word) noexcept;
  place choose(bucket& first, bucket& second, connection_word word) noexcept;
  [[nodiscard]] bool place_is_right(std::uint64_t b, unsigned at) const noexcept;

  bucket* buckets_;
  std::uint64_t count_;
  bucket_hasher hasher_;
  instruction_set instructions_;
  bulk_functions<Family> find_;
  insertion (*insert_)(flow_map&, bucket_hash, const key_type&, connection_word, bool) noexcept;
  victim_function<Family> victim_;
  alignas(32) std::array<std::int32_t, abi::connection_state_count> patience_{};  // timeouts_
  timeout_table timeouts_{abi::default_timeouts};
  std::uint64_t nearly_full_from_;
  std::uint64_t all_hold_on_from_;
  std::uint64_t size_{0};
  std::array<std::uint64_t, abi::connection_state_count> by_state_{};
  unsigned rotor_{0};  // where the search among equals starts
};

}  // namespace sluice::connection

#include "dataplane/connection/flow_map_insert.hpp"
#include "dataplane/connection/flow_map_repair.hpp"

namespace sluice::connection {

// In flow_map.cpp. Where each that includes this made its own copies the linker would take one of
// them, and not of the best-built.
extern template class flow_map<ipv4>;
extern template class flow_map<ipv6>;

}  // namespace sluice::connection
