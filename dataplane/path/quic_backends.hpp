// SPDX-License-Identifier: Apache-2.0
// quic_backends: (service, server id) -> backend, for the worker. Learned from the backend
// rows: the first few thousand when a generation is taken up, the rest between bursts. Nothing
// is ever taken out: what is found is checked against the row, and an entry whose row says
// something else by now makes room. 65536 places; up to about 30000 ids find theirs.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/flow_hash.h"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/path/quic.hpp"

namespace sluice {

class quic_backends {
 public:
  static constexpr std::uint32_t places = 65536;
  static constexpr std::uint32_t rows_at_once = 4096;  // 50 us or so
  static constexpr std::uint32_t rows_per_call = 256;

  // find() returns the backend of a service that has this id and keeps connections.
  [[nodiscard]] abi::backend_ref find(const abi::config_view& view, abi::service_id service,
                                      quic::server_id id) const noexcept {
    const std::uint64_t h = hash(service, id);
    for (std::uint32_t i = 0; i < probes; ++i) {
      const entry& e = entries_[(h + i) % places];
      if (e.used == 0) break;
      if (e.tag != tag(h)) continue;
      const abi::backend_row* row = view.backend(e.backend());
      if (row != nullptr && row->service == service && id_of(*row) == id &&
          (row->flags & abi::backend_keeps_connections) != 0)
        return e.backend();
    }
    return {};
  }

  // take_up() begins to look through the rows of a new generation.
  void take_up(const abi::config_view& view) noexcept {
    left_ = view.empty() ? 0 : view.header().backend_count;
    look(view, rows_at_once);
  }
  // go_on() looks at some more; between bursts.
  void go_on(const abi::config_view& view) noexcept {
    if (left_ != 0) [[unlikely]]
      look(view, rows_per_call);
  }

 private:
  static constexpr std::uint32_t probes = 8;
  struct entry {
    std::uint32_t tag;
    std::uint32_t used : 1;
    std::uint32_t ref : 24;
    [[nodiscard]] abi::backend_ref backend() const noexcept { return {ref}; }
  };
  static_assert(sizeof(entry) == 8 && abi::backend_ref::bits == 24);

  struct row_id {
    std::uint64_t bytes;
    std::uint8_t length;
    bool operator==(const quic::server_id& o) const noexcept {
      return bytes == o.bytes && length == o.length;
    }
  };
  static row_id id_of(const abi::backend_row& row) noexcept {
    row_id id{0, row.quic_id_length};
    std::memcpy(&id.bytes, row.quic_id.data(), id.length < 8 ? id.length : 8);
    return id;
  }
  static std::uint64_t hash(abi::service_id service, quic::server_id id) noexcept {
    return sluice_mix64(sluice_mix64(id.bytes) ^ static_cast<std::uint64_t>(service) << 8 ^
                        id.length);
  }
  static std::uint32_t tag(std::uint64_t h) noexcept { return static_cast<std::uint32_t>(h >> 32); }

  // look() learns from the next n rows. In a circle over all generations: one that follows soon
  // does not keep the last rows from their turn.
  void look(const abi::config_view& view, std::uint32_t n) noexcept {
    if (view.empty()) return;
    const std::uint32_t count = view.header().backend_count;
    for (n = std::min({n, left_, count}); n > 0; --n, --left_) {
      if (at_ >= count) at_ = 0;
      const std::uint32_t index = at_++;
      const abi::backend_row* row = view.backend_at(index);
      if (row->quic_id_length == 0 || row->quic_id_length > 8 ||
          (row->flags & abi::backend_in_use) == 0)
        continue;
      learn(view, abi::backend_ref::make(index, row->incarnation), *row);
    }
  }
  void learn(const abi::config_view& view, abi::backend_ref ref,
             const abi::backend_row& row) noexcept {
    const row_id id = id_of(row);
    const std::uint64_t h = hash(row.service, {id.bytes, id.length});
    entry* place = nullptr;
    for (std::uint32_t i = 0; i < probes; ++i) {
      entry& e = entries_[(h + i) % places];
      if (e.used != 0 && e.tag == tag(h) && e.backend() == ref) return;
      if (place == nullptr && (e.used == 0 || stale(view, e, (h + i) % places))) place = &e;
      if (e.used == 0) break;
    }
    if (place != nullptr) *place = {tag(h), 1, ref.value & 0xffffffu};
  }
  // stale() tells whether nothing would be lost with an entry.
  [[nodiscard]] static bool stale(const abi::config_view& view, const entry& e,
                                  std::uint64_t place) noexcept {
    const abi::backend_row* row = view.backend(e.backend());
    if (row == nullptr) return true;
    const row_id id = id_of(*row);
    const std::uint64_t h = hash(row->service, {id.bytes, id.length});
    return tag(h) != e.tag || (place + places - h % places) % places >= probes;
  }

  std::array<entry, places> entries_{};
  std::uint32_t left_{0};
  std::uint32_t at_{0};
};

}  // namespace sluice
