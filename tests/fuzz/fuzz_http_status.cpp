// SPDX-License-Identifier: Apache-2.0
// Any bytes, cut anywhere, must give the verdict that they give in one piece, and the
// parser must keep to its bounds.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "controlplane/health/http_status_parser.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using sluice::health::http_status_parser;
  using progress = http_status_parser::progress;
  if (size == 0) return 0;
  // The first byte says how the rest is cut.
  const std::size_t piece = std::size_t{data[0]} + 1;
  const std::string_view bytes{reinterpret_cast<const char*>(data) + 1, size - 1};

  http_status_parser whole;
  const progress expected = whole.feed(bytes);
  http_status_parser cut;
  progress got = progress::need_more;
  for (std::size_t at = 0; at < bytes.size(); at += piece) got = cut.feed(bytes.substr(at, piece));

  const auto must = [](bool held) {
    if (!held) std::abort();
  };
  must(got == expected && cut.status() == whole.status() && cut.error() == whole.error());
  must((expected == progress::done) == (whole.status() >= 100 && whole.status() <= 599));
  must((expected == progress::bad) == !whole.error().empty());
  must(expected != progress::need_more || bytes.size() <= http_status_parser::max_bytes);
  // Done is final, whatever follows.
  must(whole.feed("\xff") == (bytes.empty()                     ? progress::bad
                              : expected == progress::need_more ? whole.feed("")
                                                                : expected));
  return 0;
}
