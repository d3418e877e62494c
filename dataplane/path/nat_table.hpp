// SPDX-License-Identifier: Apache-2.0
// nat_table: the address translations of one worker (nat and full-nat services).
//
// A session is two cache lines: how the client names the flow (client and VIP), and how the
// backend does (backend and client, or backend and an address of the pool). An index of
// one-line buckets finds it by either; two candidate buckets per name, hashed with a secret.
// Memory is fixed and comes from the kernel zeroed: what was never used costs nothing. The
// sessions may be in a file that outlives the process (nat_file.hpp); the index never is, but is
// made again from them (adopt()). A session is whole while its state is not `free`: whoever
// begins one writes the state last.
//
// Source ports of full-nat: of 1024 to 65535, worker i of n takes those whose remainder by n
// is i, so that a reply says by itself whose it is (owner_of_port()). They are handed out in
// turn, the one that has rested longest first.
//
// Full is not fatal: a session gives way if it is expired, closed, half-open or one datagram
// old. An established one never does; then the newcomer is refused.
//
// Threading: the owning worker's thread, except holds_forward() and holds_reply(), which any
// worker may ask, and set_room(), used() and next_port(), which are for the housekeeping.
#pragma once

#include <emmintrin.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/version.hpp"
#include "dataplane/packet/readdress.hpp"

namespace sluice {

enum nat_flags : std::uint8_t {
  nat_full = 1,           // the source is changed, too: the local end is the pool's
  nat_toa = 2,            // the client's address goes into a TCP option
  nat_proxy = 4,          // ... or into a PROXY protocol header
  nat_client_known = 8,   // client_sequence is that of the client's SYN
  nat_server_known = 16,  // server_sequence is that of the server's SYN
  nat_header_acked = 32,  // the backend has the PROXY protocol header
  nat_server_fin = 64,    // the backend has nothing more to send
  nat_reset = 128,        // the backend has reset it
};

struct alignas(cache_line) nat_session {
  // All that the short way of an IPv4 packet to the backend reads is in the first line.
  ip_address client;
  be16 client_port;
  be16 vip_port;
  std::uint8_t protocol;
  std::uint8_t flags;  // nat_flags
  abi::connection_state state;
  std::uint8_t in_port;  // where the client's packets come in, and replies go out
  abi::backend_ref backend;
  mac_address client_mac;  // from whom they came in: the next hop of the replies
  std::uint16_t seen;      // seconds of the connection table's clock
  // What translating in the short way takes for granted (nat_ready.cpp); not kept over a
  // restart.
  std::uint32_t confirmed;  // in which generation; 0: none
  std::uint16_t ip_change;  // what to add to the complement of the IPv4 header's checksum
  std::uint16_t l4_change;  // and of the TCP or UDP checksum
  // Ends as the backend's packets name them; addresses: of IPv4, with `confirmed`.
  be16 local_port;
  be16 server_port;
  std::uint32_t local4;
  std::uint32_t server4;
  std::uint16_t vip_bits;  // connection_word::vip_bits() of `vip`, with `confirmed`
  std::uint16_t reserved0;
  std::uint32_t next_free;

  ip_address vip;
  ip_address local;
  ip_address server;
  std::uint32_t client_sequence;
  std::uint32_t server_sequence;
  std::uint32_t reserved1[2];

  // Ends of the packets that go to the backend, and of those that go to the client.
  [[nodiscard]] wire::flow_ends to_server() const noexcept {
    return {local, server, local_port, server_port};
  }
  [[nodiscard]] wire::flow_ends to_client() const noexcept {
    return {vip, client, vip_port, client_port};
  }
};
static_assert(sizeof(nat_session) == 2 * cache_line && offsetof(nat_session, vip) == 64);

class nat_table {
 public:
  struct options {
    std::uint32_t sessions{4096};
    unsigned worker{0};  // of `workers`
    unsigned workers{1};
    std::array<std::uint64_t, 2> secret{};
    // Where the sessions are, instead of memory of its own; outlives the table. Their memory is
    // touched as far as set_room() says, which is not at all at first.
    std::span<nat_session> memory{};
    int numa_node{-1};  // that the index should be on
  };
  static constexpr unsigned first_port = 1024;
  static constexpr std::uint32_t max_sessions = 1u << 28;

  // sessions_for() is how many (address space; memory is taken as sessions come) a worker has that
  // tracks these many connections: NAT sessions are eight times as large as table entries, and not
  // every service is NATed.
  static constexpr std::uint32_t sessions_for(std::uint64_t connections) noexcept {
    const std::uint64_t n = connections / 4;
    return n < 1024 ? 1024 : n > max_sessions ? max_sessions : static_cast<std::uint32_t>(n);
  }

  // Anything out of range is brought into it. Not ready(): there was no memory, and nothing
  // else may be called.
  explicit nat_table(const options& o) noexcept;
  [[nodiscard]] bool ready() const noexcept { return buckets_ != nullptr; }
  ~nat_table();
  nat_table(const nat_table&) = delete;
  nat_table& operator=(const nat_table&) = delete;

  // find_forward() and find_reply() look a packet's ends up: of one that a client sent to a
  // VIP, of one that a backend sent to the client or the pool. Null: no session.
  [[nodiscard]] nat_session* find_forward(const wire::flow_ends& ends,
                                          std::uint8_t protocol) const noexcept {
    return find(forward, ends, protocol);
  }
  [[nodiscard]] nat_session* find_reply(const wire::flow_ends& ends,
                                        std::uint8_t protocol) const noexcept {
    return find(reply, ends, protocol);
  }
  // holds_forward() and holds_reply() tell whether a packet is very likely this table's; any
  // thread. Only the index is read, so that a wrong answer (one in 2^31 or so) must not matter.
  [[nodiscard]] bool holds_forward(const wire::flow_ends& ends,
                                   std::uint8_t protocol) const noexcept {
    return holds(forward, ends, protocol);
  }
  [[nodiscard]] bool holds_reply(const wire::flow_ends& ends,
                                 std::uint8_t protocol) const noexcept {
    return holds(reply, ends, protocol);
  }

  // hinted() is what hint() was told for a hash (of the connection table's), or another session,
  // or null: to be verified by its names.
  [[nodiscard]] nat_session* hinted(std::uint64_t hash) const noexcept {
    const hint_line& line = hints_[hash & hint_mask_];
    const __m128i tag = _mm_set1_epi32(static_cast<int>(tag_of(hash)));
    const auto* tags = reinterpret_cast<const __m128i*>(line.tags.data());
    const __m128i equal = _mm_packs_epi32(_mm_cmpeq_epi32(_mm_load_si128(tags), tag),
                                          _mm_cmpeq_epi32(_mm_load_si128(tags + 1), tag));
    const auto found = static_cast<unsigned>(_mm_movemask_epi8(equal));  // two bits each
    if (found == 0) return nullptr;
    const std::uint32_t number = line.numbers[static_cast<unsigned>(__builtin_ctz(found)) / 2];
    return number < used() ? sessions_ + number : nullptr;
  }
  void prefetch_hint(std::uint64_t hash) const noexcept {
    __builtin_prefetch(hints_ + (hash & hint_mask_));
  }
  void hint(std::uint64_t hash, const nat_session& s) noexcept {
    hint_line& line = hints_[hash & hint_mask_];
    const std::uint32_t tag = tag_of(hash);
    std::size_t at = 0;
    while (at < line.tags.size() && line.tags[at] != tag && line.tags[at] != 0) ++at;
    if (at == line.tags.size()) at = hash >> 28 & 7;  // somebody's hint is lost
    line.tags[at] = tag;
    line.numbers[at] = number_of(s);
  }
  // number_of() names a session for at() later, when it may be over, or another's.
  [[nodiscard]] std::uint32_t number_of(const nat_session& s) const noexcept {
    return static_cast<std::uint32_t>(&s - sessions_);
  }
  [[nodiscard]] const nat_session* at(std::uint32_t number) const noexcept {
    return number < used() && sessions_[number].state != abi::connection_state::free
               ? sessions_ + number
               : nullptr;
  }

  // open() begins a session for a packet of a client: from its ends (not in the table yet) to
  // the backend at `server`:`port`. full: with a source of the pool's. On failure returns
  // null and says why: nat_no_port, nat_no_room. Time, the client's next hop and, last, the
  // state are the caller's to set, at once. `gone(const nat_session&)` sees whoever gives way.
  template <class Gone>
  nat_session* open(const wire::flow_ends& ends, std::uint8_t protocol, const ip_address& server,
                    be16 port, bool full, std::uint16_t now, abi::counter_id& why,
                    Gone&& gone) noexcept {
    if (!full) {
      // The same client and port, to another VIP or port that leads to the same place: over?
      nat_session* other = find_reply({server, ends.source, port, ends.source_port}, protocol);
      if (other != nullptr &&
          (expired(*other, now) || other->state <= abi::connection_state::closing)) {
        gone(*other);
        close(*other);
      }
    }
    if (free_ == none && used() >= room()) {
      nat_session* victim = least_valuable(now);
      if (victim == nullptr) {
        why = abi::counter_id::drop_nat_no_room;
        return nullptr;
      }
      gone(*victim);
      close(*victim);
    }
    nat_session* s = enter(ends, protocol, server, port, full, now, why);
    if (s == nullptr && victim_ != nullptr) {  // a port that is not worth keeping
      gone(*victim_);
      close(*victim_);
      s = enter(ends, protocol, server, port, full, now, why);
    }
    return s;
  }
  void close(nat_session& s) noexcept;

  // set_state() is for a session that is complete but for its state: what a process that is
  // killed leaves behind is whole, or free. Costs no instruction.
  static void set_state(nat_session& s, abi::connection_state state) noexcept {
    std::atomic_signal_fence(std::memory_order_release);
    s.state = state;
    std::atomic_signal_fence(std::memory_order_release);
  }

  [[nodiscard]] bool expired(const nat_session& s, std::uint16_t now) const noexcept {
    return static_cast<std::uint16_t>(now - s.seen) >
           timeouts_[static_cast<std::size_t>(s.state) & 7u];
  }

  // sweep() closes what is expired, and what also(session) says, a part of the table per call; a
  // round takes some 10 s.
  template <class Also, class Gone>
  void sweep(std::uint64_t now_ns, std::uint16_t now, Also&& also, Gone&& gone) noexcept {
    for (std::uint32_t n = due(now_ns); n != 0; --n) {
      nat_session& s = sessions_[swept_];
      if (s.state != abi::connection_state::free && (expired(s, now) || also(s))) {
        gone(s);
        close(s);
      }
      if (++swept_ >= used()) swept_ = 0;
    }
  }

  void set_timeouts(const std::array<std::uint16_t, abi::connection_state_count>& t) noexcept {
    timeouts_ = t;
  }
  // set_pool() says which addresses full-nat takes; sessions keep the one they have.
  void set_pool(std::span<const ip_address> pool) noexcept;
  [[nodiscard]] bool in_pool(const ip_address& a) const noexcept;

  // owner_of_port() is the worker that a source port of the pool belongs to.
  static unsigned owner_of_port(be16 port, unsigned workers) noexcept {
    return workers == 0 ? 0 : port.host() % workers;
  }
  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }
  void clear() noexcept;  // slow

  // adopt() takes over the sessions that an earlier process left in the memory, of which there
  // is `room`: makes the index, drops what is torn and what `keeps` does not want. next_port:
  // as next_port() was. Once, before anything else. Slow.
  struct adoption {
    std::uint32_t dropped{0};  // that `keeps` did not want
    std::uint32_t torn{0};
  };
  adoption adopt(std::uint32_t room, unsigned next_port,
                 const std::function<bool(const nat_session&)>& keeps);  // lint: cold
  // begin_at() has the search for source ports begin elsewhere than the secret says. Before
  // anything else.
  void begin_at(std::uint64_t anywhere) noexcept {
    next_port_ = static_cast<unsigned>(anywhere % port_count_);
  }
  // set_room() says how many sessions have memory; it never falls. used(): how many have been
  // taken so far. next_port(): where the search for a source port goes on.
  void set_room(std::uint32_t sessions) noexcept {
    room_.store(sessions < capacity_ ? sessions : capacity_, std::memory_order_relaxed);
  }
  // provide() has memory for the index, once there is a session; the worker would have it piece
  // by piece. Housekeeping.
  void provide() noexcept;
  [[nodiscard]] std::uint32_t used() const noexcept {
    return high_water_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] unsigned next_port() const noexcept {
    return next_port_.load(std::memory_order_relaxed);
  }
  // consistent() checks that every session is found by both its names, and the count. Slow.
  [[nodiscard]] bool consistent() const noexcept;

 private:
  enum direction : std::uint8_t { forward = 0, reply = 1 };
  // An entry: session + 1 in the low half (0: empty), above it the direction and 31 bits of
  // the hash.
  struct alignas(cache_line) bucket {
    std::array<std::atomic<std::uint64_t>, 8> entries;
  };
  // Of eight connections: part of the hash (never 0), and the number of the session.
  struct alignas(cache_line) hint_line {
    std::array<std::uint32_t, 8> tags;
    std::array<std::uint32_t, 8> numbers;
  };
  static std::uint32_t tag_of(std::uint64_t hash) noexcept {
    return static_cast<std::uint32_t>(hash >> 32) | 1u;
  }
  struct place {
    bucket* first;
    bucket* second;
    std::uint64_t tag;
  };
  static constexpr std::uint32_t none = 0xffffffff;

  [[nodiscard]] place place_of(direction d, const wire::flow_ends& ends,
                               std::uint8_t protocol) const noexcept;
  [[nodiscard]] nat_session* find(direction d, const wire::flow_ends& ends,
                                  std::uint8_t protocol) const noexcept;
  [[nodiscard]] bool holds(direction d, const wire::flow_ends& ends,
                           std::uint8_t protocol) const noexcept;
  nat_session* enter(const wire::flow_ends& ends, std::uint8_t protocol, const ip_address& server,
                     be16 port, bool full, std::uint16_t now, abi::counter_id& why) noexcept;
  [[nodiscard]] bool take_source(nat_session& s, std::uint16_t now) noexcept;
  [[nodiscard]] bool link(direction d, const wire::flow_ends& ends, std::uint8_t protocol,
                          std::uint32_t number) noexcept;
  void unlink(direction d, const wire::flow_ends& ends, std::uint8_t protocol,
              std::uint32_t number) noexcept;
  [[nodiscard]] nat_session* least_valuable(std::uint16_t now) noexcept;
  [[nodiscard]] std::uint32_t due(std::uint64_t now_ns) noexcept;
  [[nodiscard]] bool is_whole(const nat_session& s) const noexcept;
  [[nodiscard]] std::uint32_t room() const noexcept {
    return room_.load(std::memory_order_relaxed);
  }
  // The ends that a session is found by.
  static wire::flow_ends name(direction d, const nat_session& s) noexcept {
    return d == forward ? wire::flow_ends{s.client, s.vip, s.client_port, s.vip_port}
                        : wire::flow_ends{s.server, s.local, s.server_port, s.local_port};
  }

  bool provided_{false};
  nat_session* sessions_{nullptr};
  bucket* buckets_{nullptr};
  hint_line* hints_{nullptr};
  std::uint64_t hint_mask_{0};
  void* mapping_{nullptr};  // of the index, and of sessions that are not in a file
  std::size_t bytes_{0};
  std::size_t of_sessions_{0};  // of bytes_, at the start
  std::uint32_t capacity_;
  std::uint32_t bucket_count_{0};
  std::uint32_t size_{0};
  std::atomic<std::uint32_t> high_water_{0};  // sessions from here on were never used
  std::atomic<std::uint32_t> room_{0};        // sessions from here on have no memory
  std::uint32_t free_{none};
  std::uint32_t hand_{0};   // where the search for a victim goes on
  std::uint32_t swept_{0};  // where sweep() goes on
  std::uint64_t swept_ns_{0};
  std::uint64_t carry_{0};
  std::array<std::uint64_t, 4> secret_{};
  std::array<std::uint16_t, abi::connection_state_count> timeouts_{abi::default_timeouts};
  unsigned workers_;
  unsigned port_base_{0};   // lowest port of this worker
  unsigned port_count_{0};  // how many it has
  std::atomic<unsigned> next_port_{0};
  nat_session* victim_{nullptr};  // take_source() failed; its port comes next
  // The pool by family: [0] IPv4, [1] IPv6.
  std::array<std::array<ip_address, abi::max_pool_addresses>, 2> pool_{};
  std::array<unsigned, 2> pool_size_{};
  std::array<unsigned, 2> next_address_{};
};

}  // namespace sluice
