// SPDX-License-Identifier: Apache-2.0
// The packet path and its reference model side by side, under the same frames, tables and clock.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/abi/worker_state.hpp"
#include "dataplane/connection/bucket_probe.hpp"
#include "dataplane/connection/table_file.hpp"
#include "dataplane/path/packet_path.hpp"
#include "tests/packet/table_builder.hpp"
#include "tests/reference/path.hpp"

namespace sluice::reference {

class world {
 public:
  // connections: of each family, that the connection table is made for. may_overflow: it is too
  // small for what comes. Which connections have an entry is then not compared: with schedulers
  // that hash, and tables that stay, it makes no difference to any packet.
  world(std::uint64_t connections, sluice::connection::instruction_set instructions,
        bool may_overflow);
  ~world();
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  void use(const description& estate);
  [[nodiscard]] bool unknown(const frame& f) const { return model_.unknown(f); }
  // run() puts a burst through both and compares. All of these return what differs, in words;
  // "" is nothing.
  [[nodiscard]] std::string run(const std::vector<frame>& burst);
  // pass() lets time pass.
  void pass(std::uint64_t ns) { now_ns_ += ns; }
  // maintain() has the path remove what is too old, `times` times a few buckets.
  [[nodiscard]] std::string maintain(unsigned times);
  // compare() compares all counters and connections.
  [[nodiscard]] std::string compare();

  [[nodiscard]] std::uint64_t tracked() const { return table_.size(); }
  // load() is how full the fuller of the two parts of the table is, in percent.
  [[nodiscard]] std::uint64_t load() const {
    return std::max(100 * table_.v4.size() / table_.v4.capacity(),
                    100 * table_.v6.size() / table_.v6.capacity());
  }
  [[nodiscard]] const path& model() const { return model_; }
  // count_of() is the path's counter.
  [[nodiscard]] std::uint64_t count_of(abi::counter_id id) const {
    return counts_[static_cast<std::size_t>(id)].read();
  }

 private:
  struct buffer;
  [[nodiscard]] std::string check(const frame& in, const outcome& wanted, const packet& got,
                                  buffer& memory) const;
  [[nodiscard]] std::string compare_counts() const;
  [[nodiscard]] std::string compare_rows() const;
  [[nodiscard]] std::string check_released();
  [[nodiscard]] std::string forget_gone();
  [[nodiscard]] std::map<connection_key, connection> tracked_now() const;
  [[nodiscard]] std::map<ends, session> sessions_now() const;
  [[nodiscard]] std::string compare_sessions() const;
  [[nodiscard]] std::string compare_connections() const;

  sluice::connection::table_file file_;
  sluice::connection::connection_table table_;
  std::array<abi::counter, abi::counter_capacity> counts_{};
  std::vector<abi::service_counters> services_;
  std::vector<abi::backend_counters> backends_;
  nat_table nat_;
  packet_path path_;
  path model_;
  bool may_overflow_;
  std::unique_ptr<test::table_builder> tables_;
  std::vector<std::unique_ptr<buffer>> buffers_;
  // Fragments that the path has asked to keep, by place: the model's number, and what it is.
  struct kept {
    std::size_t number;
    std::unique_ptr<buffer> memory;
    frame in;
  };
  std::map<std::uint16_t, kept> held_;
  std::uint64_t now_ns_{65'000'000'000'000};  // the table's clock will soon wrap
};

}  // namespace sluice::reference
