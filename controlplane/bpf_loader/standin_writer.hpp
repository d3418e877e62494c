// SPDX-License-Identifier: Apache-2.0
// standin_writer: keeps the stand-in of every interface as the published tables are. One
// thread. A table whose slots stay is not written again, also across generations and
// interfaces; a new one is a new map, put in place of the old by one pointer.
//
// Order of writing: rows, then the ports that went, tables, ports that came, rows that
// went: so that whatever a packet finds on its way belongs to services and backends as
// they are before or after, never to a number that was given to another in between.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include <tl/expected.hpp>

#include "controlplane/bpf_loader/attached.hpp"
#include "controlplane/bpf_loader/standin_contents.hpp"

namespace sluice::bpf_loader {

class standin_writer {
 public:
  // write() brings the program attached to an interface up to date. `view` is the
  // generation that `contents` was read from. keep: slots stay with the backends that they have
  // as far as those keep connections (keep_slots()).
  tl::expected<void, steer_error> write(const std::string& interface,
                                        const standin_contents& contents,
                                        const abi::config_view& view, bool keep = false);
  // forget() gives up what an interface's program had, which is gone.
  void forget(const std::string& interface);

 private:
  // table: one service's slots in the kernel; shared by the interfaces.
  struct table {
    table_identity identity;
    std::shared_ptr<file_descriptor> map;
    bool kept;  // some slots are of an earlier generation
  };
  tl::expected<std::shared_ptr<file_descriptor>, steer_error> table_for(
      int outer, std::uint32_t service, const standin_contents& contents,
      const abi::config_view& view, bool keep);
  tl::expected<void, steer_error> write_tables(int outer, std::uint32_t outer_id,
                                               const standin_contents& contents,
                                               const abi::config_view& view, bool keep);
  void drop_unattached();

  std::map<std::uint32_t, table> tables_;          // by service
  std::map<std::string, std::uint32_t> outer_of_;  // by interface: its outer map's id
  // By the outer map's id: what it has for each service.
  std::map<std::uint32_t, std::map<std::uint32_t, std::shared_ptr<file_descriptor>>> placed_;
};

}  // namespace sluice::bpf_loader
