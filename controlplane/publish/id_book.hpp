// SPDX-License-Identifier: Apache-2.0
// id_book: which row numbers belong to which VIP, service and backend. Numbers stay
// while their owner exists; a freed one is given out again as late as possible (FIFO),
// because connection entries and counters may still name it. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/publish/published_state.hpp"
#include "controlplane/publish/reader_watch.hpp"
#include "dataplane/abi/ids.hpp"

namespace sluice::publish {

// id_pool: numbers 0..limit-1, first freed, first given.
class id_pool {
 public:
  // Freed numbers rest until this many do: a number is not given out again at once,
  // and the rows in use stay dense enough to be copied quickly.
  static constexpr std::size_t resting = 1024;

  explicit id_pool(std::uint32_t limit) : limit_{limit} {}
  // take() returns nothing when all numbers are in use.
  [[nodiscard]] std::optional<std::uint32_t> take();
  void give_back(std::uint32_t id) { free_.push_back(id); }
  // restore() starts over with numbers 0..top-1 given out before, `used` of them still.
  void restore(std::uint32_t top, const std::vector<bool>& used);
  // top() is one more than the largest number ever given out.
  [[nodiscard]] std::uint32_t top() const noexcept { return top_; }
  [[nodiscard]] std::uint32_t limit() const noexcept { return limit_; }

 private:
  std::uint32_t limit_;
  std::uint32_t top_{0};
  std::deque<std::uint32_t> free_;
};

struct backend_slot {
  std::uint8_t incarnation{0};
  counter_sums base{};
};

struct service_ids {
  abi::service_id id{abi::no_service};
  std::vector<std::pair<ip_address, std::uint32_t>> backends;  // rows, sorted by address
};

using vip_key = std::pair<ip_address, std::uint8_t>;  // address, protocol

class id_book {
 public:
  // `salt` sets the incarnation that each row starts with: a segment that begins anew
  // shall not by accident name its backends as its predecessor did.
  id_book(std::uint32_t services, std::uint32_t backends, std::uint64_t salt);

  // update() frees what is not in `state` and numbers what is new; the state is within
  // the limits. The bases of the rows that are given out come from `watch`.
  void update(const published_state& state, const reader_watch& watch);
  // renew() gives a service's backends other names: connections that name them are nobody's.
  // False: there is no such service in what was published.
  bool renew(const std::string& service);
  // forget_bases() is called when the counters have begun anew.
  void forget_bases();

  [[nodiscard]] const service_ids& service(const std::string& name) const {
    return services_.at(name);
  }
  // find_backend() returns the backend's row; nothing when it has none.
  [[nodiscard]] std::optional<std::uint32_t> find_backend(const std::string& service,
                                                          const ip_address& address) const;
  [[nodiscard]] abi::vip_id vip(const vip_key& key) const { return vips_.at(key); }
  [[nodiscard]] const std::map<vip_key, abi::vip_id>& vips() const noexcept { return vips_; }
  [[nodiscard]] const backend_slot& row(std::uint32_t i) const { return rows_[i]; }
  [[nodiscard]] const counter_sums& service_base(abi::service_id id) const {
    return service_bases_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] std::uint32_t service_rows() const noexcept { return service_pool_.top(); }
  [[nodiscard]] std::uint32_t backend_rows() const noexcept { return backend_pool_.top(); }

  // restore() takes over what recover() read from a live segment. False when it does not
  // fit these limits or contradicts itself.
  struct image {
    std::map<std::string, service_ids> services;
    std::map<vip_key, abi::vip_id> vips;
    std::vector<backend_slot> rows;
    std::vector<counter_sums> service_bases;
  };
  [[nodiscard]] bool restore(image from);

 private:
  void free_removed(service_ids& ids, const published_service& service);
  void update_backends(service_ids& ids, const published_service& service,
                       const reader_watch& watch);

  id_pool service_pool_;
  id_pool backend_pool_;
  id_pool vip_pool_;
  std::map<std::string, service_ids> services_;
  std::map<vip_key, abi::vip_id> vips_;
  std::vector<backend_slot> rows_;
  std::vector<bool> given_;  // the row had an owner since this book began
  std::vector<counter_sums> service_bases_;
};

}  // namespace sluice::publish
