// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/digest.hpp"

#include <openssl/sha.h>

#include <cstring>
#include <new>

namespace sluice::store {

static_assert(sizeof(digest) == SHA256_DIGEST_LENGTH);

digest sha256(std::string_view bytes) {
  digest out{};
  // Fails only for want of memory; a digest that was not computed must not compare equal.
  if (SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), out.data()) ==
      nullptr)
    throw std::bad_alloc{};
  return out;
}

std::string to_hex(const digest& d) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(d.size() * 2);
  for (const std::uint8_t b : d) {
    out += digits[b >> 4];
    out += digits[b & 15];
  }
  return out;
}

std::optional<digest> from_hex(std::string_view text) {
  digest out{};
  if (text.size() != out.size() * 2) return std::nullopt;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (v < 0) return std::nullopt;
    out[i / 2] = static_cast<std::uint8_t>(out[i / 2] << 4 | v);
  }
  return out;
}

std::string_view bytes_of(const digest& d) noexcept {
  return {reinterpret_cast<const char*>(d.data()), d.size()};
}

std::optional<digest> from_bytes(std::string_view bytes) noexcept {
  digest out{};
  if (bytes.size() != out.size()) return std::nullopt;
  std::memcpy(out.data(), bytes.data(), out.size());
  return out;
}

}  // namespace sluice::store
