// SPDX-License-Identifier: Apache-2.0
// vip_book: which VIPs the Services of a cluster are given. Pure; cluster_plan.hpp says the rules.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::discover {

struct vip_wish {
  std::string key;             // "namespace/name"
  std::vector<bool> families;  // true: IPv4
  std::vector<ip_address> asked;
  std::vector<ip_address> in_status;
  std::vector<ip_address> had;
  std::string problem;  // with what is asked; empty: none
};

class vip_book {
 public:
  explicit vip_book(const kubernetes_config& config) : config_{config} {}

  // take_away() is for addresses that are nobody's here.
  void take_away(const ip_address& a) { taken_.insert(a); }
  // hold() has an address stay with a Service.
  void hold(const std::string& key, const ip_address& a) { holders_[a].insert(key); }

  // give() is the VIPs of each, one per family at most; or why there are none.
  using given = tl::expected<std::vector<ip_address>, std::string>;
  [[nodiscard]] std::vector<given> give(const std::vector<vip_wish>& wishes);

 private:
  [[nodiscard]] given ask(const vip_wish& w);
  [[nodiscard]] std::optional<ip_address> keep(const vip_wish& w, bool v4);
  [[nodiscard]] std::optional<ip_address> fresh(const vip_wish& w, bool v4);
  [[nodiscard]] bool free_for(const std::string& key, const ip_address& a) const;

  const kubernetes_config& config_;
  std::set<ip_address> taken_;
  std::map<ip_address, std::set<std::string>> holders_;
  std::map<ip_address, std::set<std::string>> asked_by_;
};

}  // namespace sluice::discover
