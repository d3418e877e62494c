// SPDX-License-Identifier: Apache-2.0
// Services on their way into a desired state: with the lines that they come from, so that what
// the state cannot hold is told there.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/import/import.hpp"
#include "tools/import/lines.hpp"

namespace sluice::importing {

struct draft_backend {
  model::backend value;
  unsigned line{};
};

struct draft_service {
  model::service value;  // without its name and backends
  std::string key;       // as notes name it: "virtual_server 198.51.100.10 443"
  unsigned line{};
  std::vector<draft_backend> backends;
  std::vector<draft_backend> sorry;  // for when all others are down
  bool heaviest_first{false};        // IPVS's scheduler fo
};

// draft: what was read so far. One thread.
class draft {
 public:
  explicit draft(line_table lines) : lines_{std::move(lines)} {}

  void note(unsigned line, std::string key, std::string message);
  // service_at() is the one of this address, protocol and ports; null: none yet.
  [[nodiscard]] draft_service* service_at(const model::service& s) noexcept;
  // add() keeps a service, unless one like it is there, which is noted; null then.
  draft_service* add(draft_service s);

  // set_scheduler() finds what comes closest to one of IPVS.
  void set_scheduler(draft_service& s, std::string_view name, unsigned line);
  // set_persistence() takes seconds, and how much of an address counts: a netmask or the length
  // of a prefix; empty: all of it.
  void set_persistence(draft_service& s, std::string_view seconds, std::string_view granularity,
                       unsigned line);

  // finish() names the services and takes out, with a note, what a desired state refuses.
  [[nodiscard]] result finish();

 private:
  [[nodiscard]] config_error error(unsigned line, std::string key, std::string message) const {
    const auto at = lines_.at(line);
    return {at.file, at.line, std::move(key), std::move(message)};
  }
  void prune_backends(draft_service& s);
  bool take_out(const config_error& wrong);
  [[nodiscard]] model::desired_state state() const;

  line_table lines_;
  std::vector<draft_service> services_;
  std::vector<std::pair<unsigned, config_error>> notes_;  // by line, before they are told
};

constexpr std::uint32_t most_connections = 4'000'000'000;  // max-connections

// number() reads a decimal number of at most `most`.
[[nodiscard]] std::optional<std::uint32_t> number(std::string_view text, std::uint32_t most);

}  // namespace sluice::importing
