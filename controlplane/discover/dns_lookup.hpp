// SPDX-License-Identifier: Apache-2.0
// dns_lookup: the queries that one answer to a question takes, all at once: addresses, or SRV
// records and then the addresses of their targets. On the loop's thread.
#pragma once

#include <ares.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "controlplane/discover/dns_reply.hpp"
#include "controlplane/discover/source.hpp"

namespace sluice::discover {

struct dns_result {
  report answer;
  std::uint32_t ttl{};  // seconds
};

class dns_lookup {
 public:
  // done() is called once, from the loop, unless this is gone before. It may destroy this.
  dns_lookup(event_loop& loop, const question& q, std::function<void(dns_result)> done);
  ~dns_lookup();
  dns_lookup(const dns_lookup&) = delete;
  dns_lookup& operator=(const dns_lookup&) = delete;

 private:
  struct query {
    dns_lookup* owner;
    std::string name;
    record_type type;
  };
  void ask(const std::string& name, record_type type);
  void ask_addresses(const std::string& name);
  void answered(const query& q, int status, std::span<const std::uint8_t> reply);
  void on_socket(int fd, bool readable, bool writable);
  void process(int read_fd, int write_fd);
  void finish_soon();
  void finish();

  event_loop& loop_;
  const question question_;
  std::function<void(dns_result)> done_;
  ares_channel channel_{nullptr};
  std::set<int> watched_;
  event_loop::timer_id timer_{0};
  event_loop::timer_id end_timer_{0};
  std::size_t outstanding_{0};
  std::string error_;  // the first
  std::uint32_t ttl_{0xffffffff};
  std::vector<srv_record> services_;
  std::map<std::string, std::vector<ip_address>> addresses_;  // by name
};

// found_by_srv() gives the targets' addresses their tiers and weights. Pure.
[[nodiscard]] std::vector<found> found_by_srv(
    const std::vector<srv_record>& services,
    const std::map<std::string, std::vector<ip_address>>& addresses);

}  // namespace sluice::discover
