// SPDX-License-Identifier: Apache-2.0
// be<T>: an integer in network byte order. No implicit conversion, so that a
// forgotten swap does not compile. Costs one compare or one bswap.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace sluice {

template <std::unsigned_integral T>
constexpr T byte_swap(T v) noexcept {
  if constexpr (sizeof(T) == 1) {
    return v;
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bswap16(v);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bswap32(v);
  } else {
    return __builtin_bswap64(v);
  }
}

// be<T> must itself be packed, or gcc will not pack the headers that hold it.
template <std::unsigned_integral T>
class [[gnu::packed]] be {
 public:
  constexpr be() noexcept = default;
  // be(v) stores the host-order value v.
  explicit constexpr be(T v) noexcept
      : raw_{std::endian::native == std::endian::little ? byte_swap(v) : v} {}

  // host() returns the value in host order.
  [[nodiscard]] constexpr T host() const noexcept {
    return std::endian::native == std::endian::little ? byte_swap(T{raw_}) : T{raw_};
  }
  // raw() returns the bytes as they are in memory (network order).
  [[nodiscard]] constexpr T raw() const noexcept { return raw_; }
  static constexpr be from_raw(T raw) noexcept {
    be r;
    r.raw_ = raw;
    return r;
  }

  friend constexpr bool operator==(be a, be b) noexcept { return T{a.raw_} == T{b.raw_}; }
  friend constexpr auto operator<=>(be a, be b) noexcept { return a.host() <=> b.host(); }

 private:
  T raw_{};
};

using be16 = be<std::uint16_t>;
using be32 = be<std::uint32_t>;
using be64 = be<std::uint64_t>;

static_assert(sizeof(be32) == 4 && alignof(be32) == 1 && std::is_trivially_copyable_v<be32>);

}  // namespace sluice
