// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/output.hpp"

#include <algorithm>
#include <array>
#include <ostream>

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

namespace sluice::cli {

namespace {

const json* find(const json& object, std::string_view key) {
  const json* at = &object;
  while (true) {
    const auto dot = key.find('.');
    const std::string head{key.substr(0, dot)};
    if (!at->is_object() || !at->contains(head)) return nullptr;
    at = &(*at)[head];
    if (dot == std::string_view::npos) return at;
    key.remove_prefix(dot + 1);
  }
}

void emit(YAML::Emitter& out, const json& value) {
  switch (value.type()) {
    case json::value_t::object:
      out << YAML::BeginMap;
      for (const auto& [k, v] : value.items()) {
        out << YAML::Key << k << YAML::Value;
        emit(out, v);
      }
      out << YAML::EndMap;
      break;
    case json::value_t::array:
      if (value.empty()) out << YAML::Flow;
      out << YAML::BeginSeq;
      for (const json& v : value) emit(out, v);
      out << YAML::EndSeq;
      break;
    case json::value_t::string: {
      // Quote what YAML would read as another type.
      const auto& text = value.get_ref<const std::string&>();
      static constexpr std::array<std::string_view, 9> typed{"null", "true", "false", "yes", "no",
                                                             "on",   "off",  "y",     "n"};
      std::string lower = text;
      for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      // A word that begins with a digit may be a number: 12e34.
      const bool plain_word = !text.empty() &&
                              ((lower[0] >= 'a' && lower[0] <= 'z') || lower[0] == '/') &&
                              std::find(typed.begin(), typed.end(), lower) == typed.end() &&
                              std::all_of(text.begin(), text.end(), [](char c) {
                                return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                       (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '/';
                              });
      if (!plain_word) out << YAML::DoubleQuoted;
      out << text;
      break;
    }
    case json::value_t::null:
      out << YAML::Null;
      break;
    case json::value_t::boolean:
      out << value.get<bool>();
      break;
    default:
      out << value.dump();
  }
}

}  // namespace

std::string cell_of(const json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) {
    const auto& s = value.get_ref<const std::string&>();
    return s.empty() ? "-" : s;
  }
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_array()) {
    std::string out;
    for (const json& v : value) out += (out.empty() ? "" : ",") + cell_of(v);
    return out.empty() ? "-" : out;
  }
  return value.dump();
}

column field(std::string title, std::string key) {
  return {std::move(title),
          [key = std::move(key)](const json& o) {
            const json* v = find(o, key);
            return v == nullptr ? std::string{"-"} : cell_of(*v);
          },
          false};
}

column number(std::string title, std::string key) {
  column c = field(std::move(title), std::move(key));
  c.right = true;
  return c;
}

void print_table(std::ostream& out, const std::vector<column>& columns, const json& rows,
                 const std::string& when_empty) {
  if (rows.empty()) {
    out << when_empty << "\n";
    return;
  }
  std::vector<std::vector<std::string>> cells;
  std::vector<std::size_t> widths;
  for (const column& c : columns) widths.push_back(c.title.size());
  for (const json& row : rows) {
    auto& line = cells.emplace_back();
    for (std::size_t i = 0; i < columns.size(); ++i) {
      line.push_back(columns[i].cell(row));
      widths[i] = std::max(widths[i], line.back().size());
    }
  }
  const auto print_line = [&](auto&& text_of) {
    std::string line;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (i != 0) line += "  ";
      line += columns[i].right ? fmt::format("{:>{}}", text_of(i), widths[i])
                               : fmt::format("{:<{}}", text_of(i), widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << "\n";
  };
  print_line([&](std::size_t i) { return columns[i].title; });
  for (const auto& line : cells) print_line([&](std::size_t i) { return line[i]; });
}

void print_pairs(std::ostream& out, const std::vector<column>& fields, const json& object) {
  std::size_t width = 0;
  for (const column& c : fields) width = std::max(width, c.title.size());
  for (const column& c : fields) out << fmt::format("{:<{}}  {}\n", c.title, width, c.cell(object));
}

std::string to_yaml(const json& object) {
  YAML::Emitter e;
  emit(e, object);
  return std::string{e.c_str()} + "\n";
}

void print_object(std::ostream& out, format f, const json& object) {
  if (f == format::yaml_text) {
    out << to_yaml(object);
  } else {
    out << object.dump(2) << "\n";
  }
}

std::string human(double value) {
  static constexpr std::array<const char*, 5> units{"", "k", "M", "G", "T"};
  std::size_t u = 0;
  while (value >= 1000.0 && u + 1 < units.size()) {
    value /= 1000.0;
    ++u;
  }
  return u == 0 ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}{}", value, units[u]);
}

}  // namespace sluice::cli
