// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/consul_reply.hpp"

#include <algorithm>
#include <charconv>

#include "controlplane/discover/json_text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::discover {
namespace {

constexpr std::uint64_t heaviest = 1u << 20;  // refused later, with its address

}  // namespace

report parse_consul(std::string_view body) {
  const nlohmann::json all = parse_json(body);
  if (!all.is_array())
    return tl::unexpected{std::string{"the answer is not a JSON list, as Consul's are"}};
  std::vector<found> out;
  bool weighted = false;
  for (const nlohmann::json& entry : all) {
    const nlohmann::json& service = member(entry, "Service");  // of /v1/health
    const bool health = service.is_object();
    std::string address =
        health ? text_of(member(service, "Address")) : text_of(member(entry, "ServiceAddress"));
    if (address.empty())
      address = health ? text_of(member(member(entry, "Node"), "Address"))
                       : text_of(member(entry, "Address"));
    const auto parsed = parse_ip(address);
    if (!parsed)
      return tl::unexpected{"an entry's address " + yaml::shown(address) +
                            " is no IP address; names are not looked up"};
    found f;
    f.backend.address = *parsed;
    const auto port =
        number_of(health ? member(service, "Port") : member(entry, "ServicePort")).value_or(0);
    if (port > 65535)
      return tl::unexpected{address + ": the port " + std::to_string(port) + " is over 65535"};
    f.backend.port = static_cast<std::uint16_t>(port);
    const auto weight = number_of(
        member(health ? member(service, "Weights") : member(entry, "ServiceWeights"), "Passing"));
    f.backend.weight =
        static_cast<std::uint32_t>(std::clamp<std::uint64_t>(weight.value_or(1), 1, heaviest));
    weighted = weighted || f.backend.weight != 1;
    out.push_back(f);
  }
  for (found& f : out) {
    f.weighted = weighted;
    if (!weighted) f.backend.weight = model::backend{}.weight;
  }
  return out;
}

bool consul_index::answered(std::string_view header) noexcept {
  std::uint64_t index = 0;
  const char* const end = header.data() + header.size();
  const auto [at, error] = std::from_chars(header.data(), end, index);
  if (error != std::errc{} || at != end) index = 0;
  if (index == 0) index = 1;
  const std::uint64_t before = last_;
  last_ = index < before ? 0 : index;
  return index != before;
}

}  // namespace sluice::discover
