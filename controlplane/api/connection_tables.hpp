// SPDX-License-Identifier: Apache-2.0
// connection_tables: the workers' connection tables, mapped read-only, while the workers
// go on. One thread per object; reading costs time in proportion to the tables' size.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/publish/observations.hpp"
#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/abi/segment.hpp"

namespace sluice::api {

class connection_tables {
 public:
  // open() maps the tables of all workers; those that cannot be read are in problems().
  [[nodiscard]] static connection_tables open(const publish::observations& data_plane);

  // for_each() calls fn(worker, entry, idle seconds) until it returns false.
  template <class Fn>
  void for_each(std::uint64_t now_ns, Fn&& fn) const {
    bool more = true;
    for (const auto& t : tables_) {
      if (!more) return;
      t.reader.for_each([&](const abi::connection_view& c) {
        more = fn(t.worker, c, t.reader.idle(c, now_ns));
        return more;
      });
    }
  }
  [[nodiscard]] const std::vector<std::string>& problems() const noexcept { return problems_; }

 private:
  struct table {
    std::uint32_t worker{};
    abi::mapped_file file;
    abi::connection_reader reader;
  };
  std::vector<table> tables_;
  std::vector<std::string> problems_;
};

}  // namespace sluice::api
