// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/embedded.hpp"

namespace sluice::api {

const embedded_file* find_embedded(std::string_view name) noexcept {
  for (const auto& file : embedded_files())
    if (file.name == name) return &file;
  return nullptr;
}

reply page(const request& r) {
  const std::string name = r.segments.size() > 1 ? r.segments[1] : "index.html";
  const embedded_file* file = name == "openapi.json" ? nullptr : find_embedded(name);
  if (file == nullptr) return refuse(404, "the page has no such file");
  reply out{200, std::string{file->content}, std::string{file->type}};
  // It asks this server only, runs only what comes with it, and is in nobody's frame.
  out.headers = {{"Content-Security-Policy",
                  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                  "connect-src 'self'; base-uri 'none'; form-action 'none'; "
                  "frame-ancestors 'none'"},
                 {"X-Content-Type-Options", "nosniff"},
                 {"Referrer-Policy", "no-referrer"},
                 {"Cache-Control", "no-cache"}};
  return out;
}

reply openapi() {
  const embedded_file* file = find_embedded("openapi.json");
  if (file == nullptr) return refuse(500, "the document is not part of this binary");
  return {200, std::string{file->content}, std::string{file->type}};
}

}  // namespace sluice::api
