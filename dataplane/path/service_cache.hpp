// SPDX-License-Identifier: Apache-2.0
// service_cache: the services whose new connections go by a table and by nothing else, ready for
// use: found, checked and with pointers to their tables. A worker's own, of one generation, with
// two places for those that fall on one. What a service asks for besides (options, an MSS, a
// scheduler that counts) keeps it out: its packets take the long way.
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/abi/byteorder.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/stateless_choice.hpp"
#include "dataplane/path/schedule/by_hash.hpp"

namespace sluice {

class service_cache {
 public:
  struct alignas(cache_line) place {
    std::uint64_t match;              // generation 24 | spare | vip_bits 16 | port 16, raw
    abi::slot_table slots;            // shared memory: not to be trusted. Empty: none of these
    const abi::backend_ref* members;  // the same
    const abi::service_row* row;
    std::uint32_t member_count;
    std::uint16_t service;
  };
  static_assert(sizeof(place) == cache_line);

  // services: rows that have counters.
  explicit service_cache(std::uint32_t services) noexcept
      : services_{services}, places_{new place[size]{}} {}  // lint: cold

  void forget() noexcept {
    generation_ += std::uint64_t{1} << 40;
    if (generation_ != 0) return;
    for (std::size_t i = 0; i < size; ++i) places_[i] = {};
    generation_ = std::uint64_t{1} << 40;
  }

  // find() returns the service of a VIP's port if it is one of these, else null.
  [[nodiscard]] [[gnu::always_inline]] const place* find(const abi::config_view& view,
                                                         const abi::vip_row& vip,
                                                         std::uint64_t vip_bits,
                                                         std::uint16_t raw_port) noexcept {
    const std::uint64_t match = generation_ | vip_bits << 16 | raw_port;
    place* const pair = &places_[2 * (match * 0x9e3779b97f4a7c15u >> (65 - bits))];
    if (pair->match == match) [[likely]]
      return pair->slots.empty() ? nullptr : pair;
    return look(view, vip, match, pair);
  }

 private:
  static constexpr unsigned bits = 13;
  static constexpr std::size_t size = std::size_t{1} << bits;

  [[gnu::noinline]] const place* look(const abi::config_view& view, const abi::vip_row& vip,
                                      std::uint64_t match, place* pair) const noexcept {
    if (pair[1].match == match) return pair[1].slots.empty() ? nullptr : &pair[1];
    // Of this generation: taken.
    place& p = pair[0].match >> 40 == generation_ >> 40 ? pair[1] : pair[0];
    p = {};
    p.match = match;
    const auto port = be16::from_raw(static_cast<std::uint16_t>(match)).host();
    const abi::service_row* s = view.empty() ? nullptr : view.find_service(vip, port);
    if (s == nullptr || (s->flags & abi::service_has_options) != 0 || s->mss_clamp != 0 ||
        s->vip != vip.id || !by_hash::is(s->kind) || abi::goes_by_source(*s, nullptr) ||
        static_cast<std::uint32_t>(s->self) >= services_)
      return nullptr;
    const auto slots = view.table_of(*s);
    const auto members = view.members_of(*s);
    if (slots.empty() || members.empty()) return nullptr;
    p.members = members.data();
    p.row = s;
    p.member_count = static_cast<std::uint32_t>(members.size());
    p.service = static_cast<std::uint16_t>(s->self);
    p.slots = slots;
    return &p;
  }

  std::uint32_t services_;
  std::uint64_t generation_{std::uint64_t{1} << 40};
  std::unique_ptr<place[]> places_;
};

}  // namespace sluice
