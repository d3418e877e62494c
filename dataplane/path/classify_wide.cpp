// SPDX-License-Identifier: Apache-2.0
// Stage 1 of the path for eight packets at once, with AVX-512: what parse_common4(), the vip_cache
// and the hash say of one packet after the other is said here of eight, in the lanes of vectors.
// Any packet but a common one to a known VIP ends a row of eights, and is left to classify(), as is
// everything where the processor has no such instructions.
#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "dataplane/path/packet_path.hpp"

namespace sluice {

#ifdef __x86_64__

#define SLUICE_WIDE_INLINE SLUICE_WIDE [[gnu::always_inline]] inline

// gcc 12 takes what its intrinsics begin with, and overwrite, for something that is used (105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace {

constexpr unsigned lanes = 8;
// A word for each of eight packets. Unsigned, so that shifts are logical; operators work by lane.
using words = std::uint64_t __attribute__((vector_size(64)));

SLUICE_WIDE_INLINE words all(std::uint64_t x) noexcept {
  return words{} + x;
}
// What is compared with or masked, in memory: each is part of the instruction that needs it then.
// gcc makes constants that it knows of registers, which takes two instructions each time.
struct constants {
  std::uint64_t group = 1;
  std::uint64_t plain = 0x0045000800000000u;  // IPv4, 20 bytes of header
  std::uint64_t plain_mask = 0x00ffffff00000000u;
  std::uint64_t fragment = 0x0000ff3f00000000u;
  std::uint64_t ttl = 0x00fe000000000000u;
  std::uint64_t low32 = 0xffffffffu;
  std::uint64_t low16 = 0xffffu;
  std::uint64_t low8 = 0xffu;
  std::uint64_t halves = 0x0000ffff0000ffffu;
  std::uint64_t ethernet = sizeof(wire::ethernet_header);
  std::uint64_t ip = sizeof(wire::ipv4_header);
  std::uint64_t shortest = wire::common4_length;
  std::uint64_t shortest6 = wire::common6_length;
  std::uint64_t plain6 = 0x0060dd8600000000u;
  std::uint64_t plain6_mask = 0x00f0ffff00000000u;
  std::uint64_t ip6 = sizeof(wire::ipv6_header);
  std::uint64_t hop_limit = 0x0000fe0000000000u;
  std::uint64_t golden = vip_cache::golden;
  std::uint64_t mix1 = 0xbf58476d1ce4e5b9u;  // sluice_mix64()
  std::uint64_t mix2 = 0x94d049bb133111ebu;
  std::uint64_t label = 0xfffff;
  std::uint64_t class_bits = 0xf0ff;  // version and traffic class, as they are in memory
  std::uint64_t outer6_end =
      static_cast<std::uint64_t>(ip_proto::ipv6) << 48 | std::uint64_t{wire::outer_ttl} << 56;
  std::uint64_t added = wire::roomy_headroom;
  std::uint64_t roomy_tcp = wire::roomy | 1;
  std::uint64_t roomy_udp = wire::roomy | 2;
  std::uint64_t dont_fragment = std::uint64_t{be16{wire::ipv4_header::dont_fragment}.raw()} << 48;
  std::uint64_t ttl_carries = 0x20000;
  std::uint64_t one = 1;
  std::uint64_t loopback = 127;
  std::uint64_t usual_sources = 223;
  std::uint64_t tcp = static_cast<std::uint64_t>(ip_proto::tcp);
  std::uint64_t udp = static_cast<std::uint64_t>(ip_proto::udp);
  std::uint64_t tcp_least = sizeof(wire::tcp_header);
  std::uint64_t udp_least = sizeof(wire::udp_header);
  std::uint64_t tcp_bytes = 0x3c;
  std::uint64_t spread = vip_cache::spread4;
  std::uint64_t place = (std::uint64_t{1} << vip_cache::pair_bits) - 1;
  std::uint64_t matched = (std::uint64_t{1} << vip_cache::vip_shift4) - 1;
};
constinit constants the_constants{};

SLUICE_WIDE_INLINE __m512i raw(words w) noexcept {
  return reinterpret_cast<__m512i>(w);
}
SLUICE_WIDE_INLINE words as_words(__m512i v) noexcept {
  return reinterpret_cast<words>(v);
}

// two_words: 16 bytes of each of eight frames.
struct two_words {
  words first;
  words second;
};
SLUICE_WIDE_INLINE __m512i four(const std::byte* const* frames, std::size_t from) noexcept {
  const auto* const a = reinterpret_cast<const __m128i*>(frames[0] + from);
  const auto* const b = reinterpret_cast<const __m128i*>(frames[2] + from);
  const auto* const c = reinterpret_cast<const __m128i*>(frames[4] + from);
  const auto* const d = reinterpret_cast<const __m128i*>(frames[6] + from);
  __m512i v = _mm512_castsi128_si512(_mm_loadu_si128(a));
  v = _mm512_inserti64x2(v, _mm_loadu_si128(b), 1);
  v = _mm512_inserti64x2(v, _mm_loadu_si128(c), 2);
  return _mm512_inserti64x2(v, _mm_loadu_si128(d), 3);
}
SLUICE_WIDE_INLINE two_words read(const std::byte* const* frames, std::size_t from) noexcept {
  const __m512i even = four(frames, from);
  const __m512i odd = four(frames + 1, from);
  return {as_words(_mm512_unpacklo_epi64(even, odd)), as_words(_mm512_unpackhi_epi64(even, odd))};
}

// fields() are two words of eight packets: `length` and, above it, `total_length`; and the one that
// begins with `headroom`.
SLUICE_WIDE_INLINE two_words fields(const packet* p) noexcept {
  static_assert(sizeof(packet) == 32 && offsetof(packet, length) == 8 &&
                offsetof(packet, total_length) == 12 && offsetof(packet, headroom) == 16);
  const auto* const at = reinterpret_cast<const std::byte*>(p);
  const __m512i order = _mm512_setr_epi64(1, 5, 9, 13, 2, 6, 10, 14);
  const __m512i a =
      _mm512_permutex2var_epi64(_mm512_loadu_si512(at), order, _mm512_loadu_si512(at + 64));
  const __m512i b =
      _mm512_permutex2var_epi64(_mm512_loadu_si512(at + 128), order, _mm512_loadu_si512(at + 192));
  return {as_words(_mm512_shuffle_i64x2(a, b, 0x44)), as_words(_mm512_shuffle_i64x2(a, b, 0xee))};
}

SLUICE_WIDE_INLINE __mmask8 equal(words a, words b) noexcept {
  return _mm512_cmpeq_epu64_mask(raw(a), raw(b));
}
SLUICE_WIDE_INLINE __mmask8 at_least(words a, words b) noexcept {
  return _mm512_cmpge_epu64_mask(raw(a), raw(b));
}
SLUICE_WIDE_INLINE __mmask8 any_of(words a, words bits) noexcept {
  return _mm512_test_epi64_mask(raw(a), raw(bits));
}

// swapped16() is the big-endian number in the bytes `at` and at + 1 of each word.
template <unsigned at>
SLUICE_WIDE_INLINE words swapped16(words w) noexcept {
  constexpr std::uint64_t zero = 0x8080808080800000u;  // pshufb: a byte of 0
  constexpr std::uint64_t low = zero | at << 8 | (at + 1);
  constexpr std::uint64_t high = low + 0x0808;
  const __m512i from = _mm512_setr_epi64(low, high, low, high, low, high, low, high);
  return as_words(_mm512_shuffle_epi8(raw(w), from));
}

// holds() tells whose IPv4 header sums up to ones; 20 bytes: two from the end of `before`, all of
// `a` and `b`, two from the beginning of `behind`.
SLUICE_WIDE_INLINE __mmask8 holds(const constants& c, words before, words a, words b,
                                  words behind) noexcept {
  const words halves = all(c.halves);
  words sum = (a & halves) + (a >> 16 & halves) + (b & halves) + (b >> 16 & halves) +
              (before >> 48) + (behind & all(c.low16));
  sum = (sum & all(c.low32)) + (sum >> 32);
  return equal((sum & all(c.low16)) + (sum >> 16), all(c.low16));
}

// by_turns() is a's and b's words in turns: those of four packets from the first or the fifth on.
template <unsigned from>
SLUICE_WIDE_INLINE __m512i by_turns(words a, words b) noexcept {
  const __m512i order = _mm512_setr_epi64(from, from + 8, from + 1, from + 9, from + 2, from + 10,
                                          from + 3, from + 11);
  return _mm512_permutex2var_epi64(raw(a), order, raw(b));
}

SLUICE_WIDE_INLINE __m512i key(const connection::bucket_hasher& hasher, std::size_t i) noexcept {
  return _mm512_broadcast_i64x2(
      _mm_load_si128(reinterpret_cast<const __m128i*>(&hasher.keys()[i])));
}

// hashed() is the connection table's hash of eight keys: of the first 16 bytes of four and four
// others, and, of IPv6, the second 16.
SLUICE_WIDE_INLINE words ends_of(__m512i low, __m512i high) noexcept {
  return as_words(
      _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), high));
}
SLUICE_WIDE_INLINE void rounds(const connection::bucket_hasher& hasher, __m512i& low, __m512i& high,
                               std::size_t from, std::size_t to) noexcept {
  for (std::size_t i = from; i <= to; ++i) {
    low = _mm512_aesenc_epi128(low, key(hasher, i));
    high = _mm512_aesenc_epi128(high, key(hasher, i));
  }
}
SLUICE_WIDE_INLINE words hashed(const connection::bucket_hasher& hasher, __m512i low,
                                __m512i high) noexcept {
  low = _mm512_xor_si512(low, key(hasher, 0));
  high = _mm512_xor_si512(high, key(hasher, 0));
  rounds(hasher, low, high, 1, 3);
  return ends_of(low, high);
}
SLUICE_WIDE_INLINE words hashed(const connection::bucket_hasher& hasher, __m512i low, __m512i high,
                                __m512i low2, __m512i high2) noexcept {
  low = _mm512_xor_si512(low, key(hasher, 0));
  high = _mm512_xor_si512(high, key(hasher, 0));
  rounds(hasher, low, high, 1, 2);
  low = _mm512_xor_si512(low, low2);
  high = _mm512_xor_si512(high, high2);
  rounds(hasher, low, high, 3, 5);
  return ends_of(low, high);
}

// mixed() is sluice_mix64().
SLUICE_WIDE_INLINE words mixed(const constants& c, words x) noexcept {
  x ^= x >> 30;
  x = as_words(_mm512_mullo_epi64(raw(x), raw(all(c.mix1))));
  x ^= x >> 27;
  x = as_words(_mm512_mullo_epi64(raw(x), raw(all(c.mix2))));
  return x ^ x >> 31;
}

// at_offsets() are eight addresses.
struct addresses {
  const std::byte* at[lanes];
};
SLUICE_WIDE_INLINE addresses at_offsets(const void* base, words offsets) noexcept {
  const auto* const b = static_cast<const std::byte*>(base);
  alignas(64) std::array<std::uint64_t, lanes> o;
  _mm512_store_si512(o.data(), raw(offsets));
  return {{b + o[0], b + o[1], b + o[2], b + o[3], b + o[4], b + o[5], b + o[6], b + o[7]}};
}
SLUICE_WIDE_INLINE addresses frames_of(packet* const* p) noexcept {
  return {{p[0]->data, p[1]->data, p[2]->data, p[3]->data, p[4]->data, p[5]->data, p[6]->data,
           p[7]->data}};
}

// chosen are up to eight packets of a list; where there are fewer, the last lanes are the first one
// again.
struct chosen {
  alignas(64) std::array<packet*, lanes> packets;
  alignas(64) std::array<std::uint64_t, lanes> lengths;  // packet::length
  unsigned count;
};

// choose_eight() takes the first of a list that have the `shortest` bytes and the room. False: too
// few to be worth it.
SLUICE_WIDE_INLINE bool choose_eight(chosen& g, packet* burst, const std::uint8_t* list,
                                     std::size_t left, std::uint32_t shortest) noexcept {
  constexpr unsigned few = 3;
  if (left < few) return false;
  unsigned n = 0;
  for (; n < lanes && n < left; ++n) {
    packet* const p = burst + list[n];
    g.packets[n] = p;
    g.lengths[n] = p->length;
    if (p->length < shortest || p->headroom < wire::roomy_headroom) break;
  }
  if (n < few) return false;
  g.count = n;
  for (; n < lanes; ++n) {
    g.packets[n] = g.packets[0];
    g.lengths[n] = g.lengths[0];
  }
  return true;
}

// turn is what one turn of eight begins with.
struct turn {
  words length;  // packet::length
  addresses frames;
  unsigned count;
  packet* first;  // of eight in a row
  chosen others;  // of a list
};

// take() begins a turn with the packets of a burst from number i on, eight in a row, or with those
// that a list names from its i-th on, if they have the `shortest` bytes and the room.
template <bool listed>
SLUICE_WIDE_INLINE bool take(turn& t, const constants& c, packet* burst, const std::uint8_t* list,
                             std::size_t i, std::size_t end,
                             const std::uint64_t& shortest) noexcept {
  if constexpr (listed) {
    chosen& g = t.others;
    if (!choose_eight(g, burst, list + i, end - i, static_cast<std::uint32_t>(shortest)))
      return false;
    t.length = as_words(_mm512_load_si512(g.lengths.data()));
    t.frames = frames_of(g.packets.data());
    t.count = g.count;
  } else {
    if (i + lanes > end) return false;
    packet* const p = burst + i;
    const auto [lengths, rooms] = fields(p);
    t.length = lengths & all(c.low32);
    if ((at_least(t.length, all(shortest)) & at_least(rooms & all(c.low16), all(c.added))) != 0xff)
        [[unlikely]]
      return false;
    t.frames = {
        {p[0].data, p[1].data, p[2].data, p[3].data, p[4].data, p[5].data, p[6].data, p[7].data}};
    t.first = p;
    t.count = lanes;
  }
  return true;
}

// packets_of() is where a turn's packets are.
template <bool listed>
SLUICE_WIDE_INLINE __m512i packets_of(const turn& t) noexcept {
  if constexpr (listed) return _mm512_load_si512(t.others.packets.data());
  const words step = {0, 1, 2, 3, 4, 5, 6, 7};
  return raw(reinterpret_cast<std::uint64_t>(t.first) + step * sizeof(packet));
}

// locate_eight() notes hashes and primary buckets from the n-th packet of a batch on, and fetches
// the buckets.
template <class Family, class Batch>
SLUICE_WIDE_INLINE void locate_eight(Batch& b, unsigned n, words hash, words bucket_count,
                                     words first_bucket) noexcept {
  constexpr unsigned shift = std::countr_zero(sizeof(typename Family::bucket));
  static_assert(sizeof(typename Family::bucket) == 1u << shift);
  const words number = as_words(_mm512_mul_epu32(raw(hash >> 32), raw(bucket_count))) >> 32;
  _mm512_storeu_si512(&b.hashes[n], raw(hash));
  _mm512_storeu_si512(&b.firsts[n], raw(first_bucket + (number << shift)));
  const auto* const firsts = &b.firsts[n];
  for (unsigned lane = 0; lane < lanes; ++lane) Family::prefetch(firsts[lane]);
}

// go_on() counts a turn of which so many were fine. False: it was the last one. By what is known
// before, so that the next turn does not wait for what comes of this one.
SLUICE_WIDE_INLINE bool go_on(unsigned& n, std::size_t& i, unsigned fine, unsigned count) noexcept {
  if (fine != count) [[unlikely]] {
    n += fine;
    i += fine;
    return false;
  }
  n += count;
  i += count;
  return true;
}

// fine_ones() is how many of the first packets are all fine, by a bit for each of `count`.
SLUICE_WIDE_INLINE unsigned fine_ones(unsigned count, unsigned fine) noexcept {
  return static_cast<unsigned>(__builtin_ctz(~fine | 1u << count));
}

}  // namespace

bool packet_path::processor_is_wide() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned vaes = 1u << 9;  // of ecx; gcc 12 does not ask for it by name
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("aes") && __builtin_cpu_supports("bmi2") &&
         __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c & vaes) != 0;
}

template <bool listed>
SLUICE_WIDE std::size_t packet_path::wide4(const std::uint8_t* list, std::size_t i,
                                           std::size_t end) noexcept {
  const connection::flow_map<connection::ipv4>& map = table_.v4;
  const words buckets = all(map.bucket_count());
  const words base = all(reinterpret_cast<std::uint64_t>(map.buckets()));
  const words generation = all(vip_cache_.generation4());
  const words seed = all(view_.empty() ? 0 : view_.header().hash_seed);
  const constants* hidden = &the_constants;
  asm("" : "+r"(hidden));
  const constants& c = *hidden;
  unsigned n = batch4_.size;
  while (i < end) {
    turn t;
    if (!take<listed>(t, c, burst_, list, i, end, c.shortest)) break;
    const addresses& frames = t.frames;
    // The frame's 48 bytes as words w0 to w5. Ethernet begins at 0, IP at 14, TCP at 34.
    const auto [w0, w1] = read(frames.at, 0);
    const auto [w2, w3] = read(frames.at, 16);
    const auto [w4, w5] = read(frames.at, 32);

    // To a group, not IPv4 without options, or a fragment.
    const words odd =
        (w0 & all(c.group)) | ((w1 ^ all(c.plain)) & all(c.plain_mask)) | (w2 & all(c.fragment));
    const words ip_length = swapped16<0>(w2);
    const words source = w3 >> 16 & all(c.low32);
    const words destination = w3 >> 48 | (w4 & all(c.low16)) << 16;
    const words octet = source & all(c.low8);
    // As detail::odd_source.
    const __mmask8 bad = any_of(odd, odd) | at_least(octet - all(c.one), all(c.usual_sources)) |
                         equal(octet, all(c.loopback)) | equal(source, destination);
    const __mmask8 good = any_of(w2, all(c.ttl)) &  // TTL
                          at_least(t.length, ip_length + all(c.ethernet)) &
                          at_least(ip_length, all(c.ip)) & holds(c, w1, w2, w3, w4);
    const words protocol = w2 >> 56;
    const words l4_length = ip_length - all(c.ip);
    const words header = w5 >> 50 & all(c.tcp_bytes);  // bytes of TCP's
    const __mmask8 tcp = equal(protocol, all(c.tcp)) & at_least(header, all(c.tcp_least)) &
                         at_least(l4_length, header);
    const words datagram = swapped16<6>(w4);
    const __mmask8 udp = equal(protocol, all(c.udp)) & at_least(datagram, all(c.udp_least)) &
                         at_least(l4_length, datagram);

    const words match = destination | protocol << 32 | generation;
    const words place = (as_words(_mm512_mul_epu32(raw(destination), raw(all(c.spread)))) >>
                             (32 - vip_cache::pair_bits) &
                         all(c.place)) ^
                        protocol;
    // Eight loads are faster than a gather.
    const auto [first, second] = read(at_offsets(vip_cache_.words4(), place << 4).at, 0);
    const words matched = all(c.matched);
    const __mmask8 in_first = equal((first ^ match) & matched, words{});
    const __mmask8 in_second = equal((second ^ match) & matched, words{});
    const unsigned fine = fine_ones(t.count, good & ~bad & (tcp | udp) & (in_first | in_second));
    if (fine == 0) [[unlikely]]
      break;
    const words vip = as_words(_mm512_mask_blend_epi64(in_second, raw(first), raw(second))) >>
                      vip_cache::vip_shift4;

    const words common =
        ip_length << 12 | as_words(_mm512_mask_blend_epi64(
                              tcp, raw(all(c.roomy_udp)),
                              raw((w5 >> 56) << wire::common_flags_shift | all(c.roomy_tcp))));
    const words tuple = as_words(_mm512_mask_blend_epi32(0xaaaa, raw(w3 >> 16), raw(w4 << 16)));
    const __m512i low_keys = by_turns<0>(tuple, vip);
    const __m512i high_keys = by_turns<4>(tuple, vip);
    _mm512_storeu_si512(&batch4_.keys[n], low_keys);
    _mm512_storeu_si512(&batch4_.keys[n + 4], high_keys);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(&batch4_.commons[n]),
                        _mm512_cvtepi64_epi32(raw(common)));
    // What send_roomy() writes: of the inner header TTL, protocol and checksum as decrement_ttl()
    // makes them, of the outer one the first 8 bytes, and their sum.
    const words lifetime = w2 >> 48 | (w3 & all(c.low16)) << 16;
    const words lived = lifetime + all(c.low16) + ((lifetime + all(c.ttl_carries)) >> 32 << 16);
    const words outer_length = swapped16<0>(ip_length + all(c.ip));
    const words begin = w1 >> 48;
    const words outer = begin | outer_length << 16 | all(c.dont_fragment);
    const words more = (begin + outer_length) | lived << 32;
    _mm512_storeu_si512(&outers4_[n], by_turns<0>(outer, more));
    _mm512_storeu_si512(&outers4_[n + 4], by_turns<4>(outer, more));
    _mm512_storeu_si512(&batch4_.packets[n], packets_of<listed>(t));
    const words hash = hashed(map.hasher(), low_keys, high_keys);
    if (expects_new_)  // sluice_flow_hash4()
      _mm512_storeu_si512(&choices4_[n],
                          raw(mixed(c, mixed(c, seed ^ source ^ destination << 32) ^
                                           (w4 >> 16 & all(c.low32)) ^ protocol << 32)));
    locate_eight<connection::ipv4>(batch4_, n, hash, buckets, base);
    if (!go_on(n, i, fine, t.count)) break;
  }
  batch4_.size = n;
  return i;
}

template <bool listed>
SLUICE_WIDE std::size_t packet_path::wide6(const std::uint8_t* list, std::size_t i,
                                           std::size_t end) noexcept {
  const connection::flow_map<connection::ipv6>& map = table_.v6;
  const words buckets = all(map.bucket_count());
  const words base = all(reinterpret_cast<std::uint64_t>(map.buckets()));
  const words generation = all(vip_cache_.generation6());
  const words seed = all(view_.empty() ? 0 : view_.header().hash_seed);
  const constants* hidden = &the_constants;
  asm("" : "+r"(hidden));
  const constants& c = *hidden;
  unsigned n = batch6_.size;
  while (i < end) {
    turn t;
    if (!take<listed>(t, c, burst_, list, i, end, c.shortest6)) break;
    const addresses& frames = t.frames;
    // The frame's bytes: Ethernet begins at 0, IP at 14, TCP at 54. t1 are bytes 66 to 73.
    const auto [w0, w1] = read(frames.at, 0);
    const words odd = (w0 & all(c.group)) | ((w1 ^ all(c.plain6)) & all(c.plain6_mask));
    if ((any_of(odd, odd) & 1) != 0) [[unlikely]]  // not IPv6, mostly
      break;
    const auto [w2, w3] = read(frames.at, 16);
    const auto [w4, w5] = read(frames.at, 32);
    const auto [w6, w7] = read(frames.at, 48);
    const auto [t0, t1] = read(frames.at, 58);

    const words l4_length = swapped16<2>(w2);
    const words ip_length = l4_length + all(c.ip6);
    const words protocol = w2 >> 32 & all(c.low8);
    const words source_high = w2 >> 48 | w3 << 16;
    const words source_low = w3 >> 48 | w4 << 16;
    const words destination_high = w4 >> 48 | w5 << 16;
    const words destination_low = w5 >> 48 | w6 << 16;
    const words ports = w6 >> 48 | (w7 & all(c.low16)) << 16;
    const words differs = (source_high ^ destination_high) | (source_low ^ destination_low);
    const __mmask8 good = any_of(w2, all(c.hop_limit)) &
                          at_least(t.length, ip_length + all(c.ethernet)) &
                          any_of(source_high, source_high) &
                          any_of(destination_high, destination_high) & any_of(differs, differs);
    const __mmask8 bad = equal(source_high & all(c.low8), all(c.low8)) | any_of(odd, odd);
    const words header = t1 >> 2 & all(c.tcp_bytes);
    const __mmask8 tcp = equal(protocol, all(c.tcp)) & at_least(header, all(c.tcp_least)) &
                         at_least(l4_length, header);
    const words datagram = swapped16<2>(w7);
    const __mmask8 udp = equal(protocol, all(c.udp)) & at_least(datagram, all(c.udp_least)) &
                         at_least(l4_length, datagram);
    const words match = (generation | protocol) << 16;
    const words golden = all(c.golden);
    const words spread = as_words(_mm512_mullo_epi64(raw(destination_high), raw(golden)));
    const words place =
        as_words(_mm512_mullo_epi64(raw(spread ^ destination_low ^ protocol << 13), raw(golden))) >>
        (64 - vip_cache::pair_bits);
    const addresses vips = at_offsets(vip_cache_.words6(), place << 6);
    const auto [m, high] = read(vips.at, 0);
    const auto [low, unused] = read(vips.at, 16);
    words other =
        ((m ^ match) & ~all(c.low16)) | (high ^ destination_high) | (low ^ destination_low);
    words vip = m & all(c.low16);
    __mmask8 known = _knot_mask8(any_of(other, other));
    if (const __mmask8 elsewhere = _knot_mask8(known); elsewhere != 0) [[unlikely]] {
      const auto [m2, high2] = read(vips.at, 32);
      const auto [low2, unused2] = read(vips.at, 48);
      other =
          ((m2 ^ match) & ~all(c.low16)) | (high2 ^ destination_high) | (low2 ^ destination_low);
      known |= _knot_mask8(any_of(other, other));
      vip = as_words(_mm512_mask_blend_epi64(elsewhere, raw(vip), raw(m2 & all(c.low16))));
    }

    const unsigned fine = fine_ones(t.count, good & ~bad & (tcp | udp) & known);
    if (fine == 0) [[unlikely]]
      break;

    const words common =
        ip_length << 12 |
        as_words(_mm512_mask_blend_epi64(
            tcp, raw(all(c.roomy_udp)),
            raw((t1 >> 8 & all(c.low8)) << wire::common_flags_shift | all(c.roomy_tcp))));
    const __m512i low_sources = by_turns<0>(source_high, source_low);
    const __m512i high_sources = by_turns<4>(source_high, source_low);
    const __m512i low_rests = by_turns<0>(ports, vip);
    const __m512i high_rests = by_turns<4>(ports, vip);
    const __m512i pairs0 = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i pairs1 = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    auto* const keys = &batch6_.keys[n];
    _mm512_storeu_si512(keys, _mm512_permutex2var_epi64(low_sources, pairs0, low_rests));
    _mm512_storeu_si512(keys + 2, _mm512_permutex2var_epi64(low_sources, pairs1, low_rests));
    _mm512_storeu_si512(keys + 4, _mm512_permutex2var_epi64(high_sources, pairs0, high_rests));
    _mm512_storeu_si512(keys + 6, _mm512_permutex2var_epi64(high_sources, pairs1, high_rests));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(&batch6_.commons[n]),
                        _mm512_cvtepi64_epi32(raw(common)));
    _mm512_storeu_si512(&batch6_.packets[n], packets_of<listed>(t));
    const words hash = hashed(map.hasher(), low_sources, high_sources, low_rests, high_rests);
    locate_eight<connection::ipv6>(batch6_, n, hash, buckets, base);

    // The first 8 bytes of the outer header: make_outer6() with the label of sluice_flow_hash6().
    words label = mixed(c, seed ^ source_high);
    label = mixed(c, label ^ source_low);
    label = mixed(c, label ^ destination_high);
    label = mixed(c, label ^ destination_low);
    label = mixed(c, label ^ ports ^ protocol << 32) & all(c.label);
    label = as_words(_mm512_mask_mov_epi64(raw(label), equal(label, words{}), raw(all(c.one))));
    // Byte 0: 0; 1 to 3: the label; 4 and 5: the length.
    constexpr std::uint64_t even = 0x8080'0405'0001'0280u;  // pshufb: 0x80 makes a byte of 0
    constexpr std::uint64_t uneven = even + 0x0000'0808'0808'0800u;
    const words order = {even, uneven, even, uneven, even, uneven, even, uneven};
    const words swapped = as_words(_mm512_shuffle_epi8(raw(label | ip_length << 32), raw(order)));
    _mm512_storeu_si512(&outers6_[n],
                        raw((w1 >> 48 & all(c.class_bits)) | swapped | all(c.outer6_end)));
    if (!go_on(n, i, fine, t.count)) break;
  }
  batch6_.size = n;
  return i;
}

#pragma GCC diagnostic pop

#else

bool packet_path::processor_is_wide() noexcept {
  return false;
}
template <bool listed>
std::size_t packet_path::wide4(const std::uint8_t*, std::size_t i, std::size_t) noexcept {
  return i;
}
template <bool listed>
std::size_t packet_path::wide6(const std::uint8_t*, std::size_t i, std::size_t) noexcept {
  return i;
}

#endif

template std::size_t packet_path::wide4<false>(const std::uint8_t*, std::size_t,
                                               std::size_t) noexcept;
template std::size_t packet_path::wide4<true>(const std::uint8_t*, std::size_t,
                                              std::size_t) noexcept;
template std::size_t packet_path::wide6<false>(const std::uint8_t*, std::size_t,
                                               std::size_t) noexcept;
template std::size_t packet_path::wide6<true>(const std::uint8_t*, std::size_t,
                                              std::size_t) noexcept;

}  // namespace sluice
