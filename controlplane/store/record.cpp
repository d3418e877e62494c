// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/record.hpp"

#include <zstd.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::store {
namespace {

// Level 3 packs a services.yaml of 100 services to a twentieth in well under a millisecond.
constexpr int level = 3;
// From here on the hash tables of the level no longer reach back over the whole dictionary.
constexpr std::size_t long_distance_from = 256u << 10;

void add_number(std::string& to, std::uint64_t v) {
  for (int i = 0; i < 8; ++i) to += static_cast<char>(v >> (8 * i) & 0xff);
}
void add_text(std::string& to, std::string_view text) {
  add_number(to, text.size());
  to += text;
}

tl::unexpected<std::string> zstd_error(std::size_t code) {
  return tl::unexpected{std::string{ZSTD_getErrorName(code)}};
}

}  // namespace

digest chain(const digest& before, const revision_record& r) {
  std::string all{bytes_of(before)};
  add_number(all, r.number);
  add_number(all, static_cast<std::uint64_t>(r.time_ms));
  add_text(all, r.author);
  add_text(all, r.reason);
  all += bytes_of(r.text_digest);
  return sha256(all);
}

tl::expected<std::string, std::string> pack(std::string_view text, std::string_view base) {
  const std::unique_ptr<ZSTD_CCtx, std::size_t (*)(ZSTD_CCtx*)> c{ZSTD_createCCtx(), ZSTD_freeCCtx};
  if (!c) return tl::unexpected{std::string{"out of memory"}};
  const std::size_t both = text.size() + base.size();
  ZSTD_CCtx_setParameter(c.get(), ZSTD_c_compressionLevel, level);
  // The window has to hold the dictionary beside the text.
  if (!base.empty()) {
    const int log = std::clamp(static_cast<int>(std::bit_width(both)), 10, 26);
    ZSTD_CCtx_setParameter(c.get(), ZSTD_c_windowLog, log);
    ZSTD_CCtx_setParameter(c.get(), ZSTD_c_enableLongDistanceMatching, both > long_distance_from);
    if (const auto n = ZSTD_CCtx_refPrefix(c.get(), base.data(), base.size()); ZSTD_isError(n))
      return zstd_error(n);
  }
  std::string out(ZSTD_compressBound(text.size()), '\0');
  const auto n = ZSTD_compress2(c.get(), out.data(), out.size(), text.data(), text.size());
  if (ZSTD_isError(n)) return zstd_error(n);
  out.resize(n);
  return out;
}

tl::expected<std::string, std::string> unpack(std::string_view body, std::string_view base) {
  const auto size = ZSTD_getFrameContentSize(body.data(), body.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN)
    return tl::unexpected{std::string{"is not packed as a revision is"}};
  if (size > yaml::max_bytes)
    return tl::unexpected{std::string{"would have more than 16 MiB of text"}};
  const std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> c{ZSTD_createDCtx(), ZSTD_freeDCtx};
  if (!c) return tl::unexpected{std::string{"out of memory"}};
  ZSTD_DCtx_setParameter(c.get(), ZSTD_d_windowLogMax, 26);
  if (!base.empty())
    if (const auto n = ZSTD_DCtx_refPrefix(c.get(), base.data(), base.size()); ZSTD_isError(n))
      return zstd_error(n);
  std::string out(size, '\0');
  const auto n = ZSTD_decompressDCtx(c.get(), out.data(), out.size(), body.data(), body.size());
  if (ZSTD_isError(n)) return zstd_error(n);
  if (n != size) return tl::unexpected{std::string{"is cut off"}};
  return out;
}

tl::expected<std::string_view, std::string> text_reader::next(const revision_record& r) {
  const auto fail = [&](const std::string& why) {
    return tl::unexpected{"revision " + std::to_string(r.number) + ": " + why};
  };
  const bool alone = r.keyframe == r.number;
  if (!alone && (last_ == 0 || last_ + 1 != r.number))
    return fail("the one before it, which it builds on, is missing");
  auto text = unpack(r.body, alone ? std::string_view{} : std::string_view{text_});
  if (!text) return fail(text.error());
  if (sha256(*text) != r.text_digest) return fail("its checksum does not match");
  text_ = std::move(*text);
  last_ = r.number;
  return std::string_view{text_};
}

}  // namespace sluice::store
