// SPDX-License-Identifier: Apache-2.0
// Paths in node.yaml.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "dataplane/abi/yaml_reader.hpp"

namespace sluice {

// absolute_path() reads a path without '/' at its end.
inline std::optional<std::string> absolute_path(const yaml::value& v, std::size_t longest) {
  auto text = v.text();
  if (!text) return std::nullopt;
  while (text->size() > 1 && text->back() == '/') text->pop_back();
  if (text->front() != '/' || text->size() < 2 || text->find('\0') != text->npos) {
    v.error(yaml::shown(*text) + " is not an absolute path; expected one that begins with '/'");
    return std::nullopt;
  }
  if (text->size() > longest) {
    v.error("the path has " + std::to_string(text->size()) + " bytes; expected at most " +
            std::to_string(longest));
    return std::nullopt;
  }
  return text;
}

}  // namespace sluice
