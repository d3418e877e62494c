// SPDX-License-Identifier: Apache-2.0
// How the CLI prints objects: a table for people, JSON and YAML for scripts.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "tools/cli/client.hpp"

namespace sluice::cli {

enum class format { table, json_text, yaml_text };

struct column {
  std::string title;
  std::function<std::string(const json&)> cell;
  bool right{false};  // numbers
};

// cell_of() prints a value as a table shows it: "-" for null and for what is absent.
std::string cell_of(const json& value);
// field() and number() make columns of a key; nested keys with '.'.
column field(std::string title, std::string key);
column number(std::string title, std::string key);

// print_table() writes a header and one line per row; widths from the content.
void print_table(std::ostream& out, const std::vector<column>& columns, const json& rows,
                 const std::string& when_empty);
// print_pairs() writes "key  value" lines of one object.
void print_pairs(std::ostream& out, const std::vector<column>& fields, const json& object);
// print_object() writes JSON or YAML; not for format::table.
void print_object(std::ostream& out, format f, const json& object);

std::string to_yaml(const json& object);

// human() writes a count with a unit: 1234567 -> "1.23M".
std::string human(double value);

}  // namespace sluice::cli
