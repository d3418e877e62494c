// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/dns_reply.hpp"

#include <ares.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

namespace sluice::discover {
namespace {

constexpr std::size_t header_bytes = 12;
constexpr std::size_t most_bytes = 65535;
constexpr std::uint16_t class_internet = 1;
constexpr std::uint16_t type_alias = 5;

class reader {
 public:
  explicit reader(std::span<const std::uint8_t> m) : all_{m} {}

  [[nodiscard]] std::size_t left() const noexcept { return all_.size() - at_; }
  void move_to(std::size_t at) noexcept { at_ = at; }
  [[nodiscard]] std::size_t at() const noexcept { return at_; }
  std::optional<std::uint16_t> u16() noexcept {
    if (left() < 2) return std::nullopt;
    const auto v = static_cast<std::uint16_t>(all_[at_] << 8 | all_[at_ + 1]);
    at_ += 2;
    return v;
  }
  std::optional<std::uint32_t> u32() noexcept {
    const auto high = u16();
    const auto low = u16();
    if (!high || !low) return std::nullopt;
    return static_cast<std::uint32_t>(*high) << 16 | *low;
  }
  std::optional<std::string> name() {
    if (left() == 0) return std::nullopt;
    char* text = nullptr;
    long used = 0;
    if (ares_expand_name(all_.data() + at_, all_.data(), static_cast<int>(all_.size()), &text,
                         &used) != ARES_SUCCESS)
      return std::nullopt;
    std::string out{text};
    ares_free_string(text);
    if (used <= 0 || static_cast<std::size_t>(used) > left()) return std::nullopt;
    at_ += static_cast<std::size_t>(used);
    return out;
  }
  template <std::size_t N>
  std::array<std::uint8_t, N> bytes() noexcept {  // there are as many
    std::array<std::uint8_t, N> out{};
    std::copy_n(all_.begin() + static_cast<std::ptrdiff_t>(at_), N, out.begin());
    at_ += N;
    return out;
  }

 private:
  std::span<const std::uint8_t> all_;
  std::size_t at_{0};
};

}  // namespace

tl::expected<dns_answer, std::string> parse_reply(std::span<const std::uint8_t> message,
                                                  record_type wanted) {
  const auto bad = [](const char* what) {
    return tl::unexpected{std::string{"the reply is damaged: "} + what};
  };
  if (message.size() < header_bytes || message.size() > most_bytes) return bad("its length");
  reader r{message};
  r.move_to(4);
  const std::uint16_t questions = *r.u16();
  const std::uint16_t answers = *r.u16();
  r.move_to(header_bytes);
  for (unsigned i = 0; i < questions; ++i)
    if (!r.name() || !r.u32()) return bad("its question");
  dns_answer out;
  for (unsigned i = 0; i < answers; ++i) {
    const auto owner = r.name();
    const auto type = r.u16();
    const auto of_class = r.u16();
    const auto ttl = r.u32();
    const auto length = r.u16();
    if (!owner || !type || !of_class || !ttl || !length || r.left() < *length)
      return bad("a record is cut off");
    const std::size_t end = r.at() + *length;
    const bool ours = *of_class == class_internet && *type == static_cast<std::uint16_t>(wanted);
    if (*of_class == class_internet && (ours || *type == type_alias))
      // A TTL with the highest bit set is 0 (RFC 2181 section 8).
      out.ttl = std::min(out.ttl, *ttl > 0x7fffffff ? 0 : *ttl);
    if (ours && wanted == record_type::a) {
      if (*length != 4) return bad("an address of another length");
      out.addresses.push_back(ip_address::v4(r.bytes<4>()));
    } else if (ours && wanted == record_type::aaaa) {
      if (*length != 16) return bad("an address of another length");
      ip_address a;
      a.bytes = r.bytes<16>();
      out.addresses.push_back(a);
    } else if (ours) {
      const auto priority = r.u16();
      const auto weight = r.u16();
      const auto port = r.u16();
      auto target = r.name();
      if (!priority || !weight || !port || !target || r.at() != end) return bad("an SRV record");
      // "." says that the service is not to be had there.
      if (!target->empty() && *target != ".")
        out.services.push_back({*priority, *weight, *port, std::move(*target)});
    }
    r.move_to(end);
  }
  return out;
}

}  // namespace sluice::discover
