// SPDX-License-Identifier: Apache-2.0
// What a worker knows of datagrams that come in fragments: where the first one went, and
// which others wait for it. (Maglev, NSDI 2016, section 4.3.) Fixed memory, one thread, no
// allocation; what there is no room for is said, not waited for.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/path/packet.hpp"

namespace sluice {

// fragment_key: what the fragments of a datagram have in common (RFC 791 section 3.2, RFC
// 8200 section 4.5: without the protocol, whose field may differ between them).
struct fragment_key {
  ip_address source;
  ip_address destination;
  std::uint32_t id;        // as in the packet; IPv4: 16 bits
  std::uint32_t protocol;  // IPv6: 0
  bool operator==(const fragment_key&) const noexcept = default;
};
static_assert(sizeof(fragment_key) == 40 && std::has_unique_object_representations_v<fragment_key>);

// fragment_table: what became of first fragments, for a few seconds each. Four to a bucket;
// the one that was entered first gives way.
class fragment_table {
 public:
  // elsewhere: handed over to the worker that deals with the flow.
  enum class fate : std::uint8_t { none, backend, kernel, dropped, elsewhere };
  struct alignas(cache_line) entry {
    fragment_key key;
    std::uint64_t entered_ns;
    abi::backend_ref backend;
    fate what;
    std::uint8_t worker;    // elsewhere
    std::uint32_t session;  // backend: number of the translation; no_session: none
  };
  static constexpr std::uint32_t no_session = 0xffffffff;
  static_assert(sizeof(entry) == cache_line);

  // How long later fragments are awaited. Networks reorder by milliseconds; hosts keep an
  // id out of use for longer, at rates below 20,000 datagrams per second to one address.
  static constexpr std::uint64_t lifetime_ns = 3'000'000'000;

  // find() returns what became of the first fragment, or null if it is not known. hash: of
  // the key, under a secret.
  [[nodiscard]] const entry* find(std::uint64_t hash, const fragment_key& key,
                                  std::uint64_t now_ns) const noexcept {
    for (const entry& e : bucket_of(hash))
      if (e.what != fate::none && e.key == key && now_ns - e.entered_ns < lifetime_ns) return &e;
    return nullptr;
  }
  void enter(std::uint64_t hash, const fragment_key& key, fate what, abi::backend_ref backend,
             std::uint8_t worker, std::uint32_t session, std::uint64_t now_ns) noexcept {
    auto& b = buckets_[hash % bucket_count];
    entry* to = b.data();
    for (entry& e : b) {
      if (e.what != fate::none && e.key == key) {
        to = &e;
        break;
      }
      if (e.entered_ns < to->entered_ns) to = &e;
    }
    *to = {key, now_ns, backend, what, worker, session};
  }

 private:
  // 4096 datagrams in 256 KiB: at 3 s each, more than 1300 per second and worker before any
  // is forgotten early, and what is then forgotten is the oldest.
  static constexpr std::size_t bucket_count = 1024;
  using bucket = std::array<entry, 4>;
  [[nodiscard]] const bucket& bucket_of(std::uint64_t hash) const noexcept {
    return buckets_[hash % bucket_count];
  }
  std::array<bucket, bucket_count> buckets_{};
};

// waiting_room: packets that came before their first fragment. A place that has been left
// is not given away again before free_left().
class waiting_room {
 public:
  struct guest {
    packet frame;  // as it came; its owner keeps the buffer
    fragment_key key;
    std::uint64_t since_ns;
  };
  static constexpr std::uint64_t patience_ns = 1'000'000'000;
  // A datagram has at most 45 fragments of 1480 bytes: more than this of one are no
  // reason to turn others away.
  static constexpr unsigned most_of_one = 64;

  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }

  // enter() returns the number of the place, or waiting_places if there is no room.
  std::size_t enter(std::uint64_t hash, const fragment_key& key, const packet& p,
                    std::uint64_t now_ns) noexcept {
    std::size_t place = waiting_places;
    unsigned same = 0;
    for (std::size_t i = 0; i < waiting_places; ++i) {
      if (states_[i] == state::free && place == waiting_places) place = i;
      same += states_[i] == state::waiting && hashes_[i] == hash;
    }
    if (place == waiting_places || same >= most_of_one) return waiting_places;
    states_[place] = state::waiting;
    hashes_[place] = hash;
    guests_[place] = {p, key, now_ns};
    ++count_;
    return place;
  }
  // leave() calls out(place, const packet&) for every guest of a datagram.
  template <class Out>
  void leave(std::uint64_t hash, const fragment_key& key, Out&& out) noexcept {
    for (std::size_t i = 0; i < waiting_places && count_ != 0; ++i)
      if (hashes_[i] == hash && states_[i] == state::waiting && guests_[i].key == key) go(i, out);
  }
  // leave_late() does so for all that have waited for too long.
  template <class Out>
  void leave_late(std::uint64_t now_ns, Out&& out) noexcept {
    for (std::size_t i = 0; i < waiting_places && count_ != 0; ++i)
      if (states_[i] == state::waiting && now_ns - guests_[i].since_ns >= patience_ns) go(i, out);
  }
  void free_left() noexcept {
    for (state& s : states_)
      if (s == state::left) s = state::free;
  }

 private:
  enum class state : std::uint8_t { free, waiting, left };
  template <class Out>
  void go(std::size_t i, Out& out) noexcept {
    states_[i] = state::left;
    --count_;
    out(i, guests_[i].frame);
  }

  std::size_t count_{0};
  std::array<state, waiting_places> states_{};
  std::array<std::uint64_t, waiting_places> hashes_{};
  std::array<guest, waiting_places> guests_{};
};

}  // namespace sluice
