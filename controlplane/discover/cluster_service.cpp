// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/cluster_service.hpp"

#include <algorithm>
#include <ctime>

#include "controlplane/discover/kubernetes_json.hpp"

namespace sluice::discover {
namespace {

using nlohmann::json;

constexpr std::string_view our_annotations = "sluice.io/";
constexpr std::size_t longest_wish = 4096;
constexpr std::size_t most_ports = 1000;
constexpr std::uint64_t longest_affinity_s = 86'400;  // Kubernetes takes no more
constexpr std::uint64_t usual_affinity_s = 10'800;

// A name of Kubernetes: it becomes a part of URLs and of our names.
bool name_ok(std::string_view name) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !name.empty() && name.size() <= 63 && plain(name.front()) && plain(name.back()) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return plain(c) || c == '-'; });
}

// texts_of() are the texts of a list.
std::vector<std::string> texts_of(const json& list) {
  std::vector<std::string> out;
  if (list.is_array())
    for (const json& item : list)
      if (std::string text = text_of(item); !text.empty()) out.push_back(std::move(text));
  return out;
}

// words_of() are what is between commas, without blanks.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto end = std::min(text.find(','), text.size());
    std::string_view word = text.substr(0, end);
    const auto from = word.find_first_not_of(" \t");
    if (from != word.npos)
      out.emplace_back(word.substr(from, word.find_last_not_of(" \t") + 1 - from));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

void read_ports(const json& ports, cluster_service& out) {
  if (!ports.is_array()) return;
  for (const json& p : ports) {
    if (out.ports.size() + out.unfit_ports.size() == most_ports) return;
    const std::string word = text_of(member(p, "protocol"));
    const auto number = number_of(member(p, "port")).value_or(0);
    const bool udp = word == "UDP";
    if (number == 0 || number > 65535 || (!udp && !word.empty() && word != "TCP"))
      out.unfit_ports.push_back(std::to_string(number) + "/" + word.substr(0, 16));
    else
      out.ports.push_back({text_of(member(p, "name")),
                           udp ? model::protocol::udp : model::protocol::tcp,
                           static_cast<std::uint16_t>(number)});
  }
}

void read_affinity(const json& spec, cluster_service& out) {
  if (text_of(member(spec, "sessionAffinity")) != "ClientIP") return;
  const json& client = member(member(spec, "sessionAffinityConfig"), "clientIP");
  const auto seconds = number_of(member(client, "timeoutSeconds")).value_or(usual_affinity_s);
  out.affinity = std::chrono::seconds{std::clamp<std::uint64_t>(seconds, 1, longest_affinity_s)};
}

void read_annotations(const json& annotations, cluster_service& out) {
  if (!annotations.is_object()) return;
  for (const auto& [key, value] : annotations.items())
    if (key.starts_with(our_annotations) && value.is_string())
      out.wishes[key.substr(our_annotations.size())] =
          value.get_ref<const std::string&>().substr(0, longest_wish);
}

void read_spec(const json& spec, cluster_service& out) {
  out.load_balancer_class = text_of(member(spec, "loadBalancerClass"));
  read_ports(member(spec, "ports"), out);
  for (const std::string& family : texts_of(member(spec, "ipFamilies"))) {
    const bool v4 = family == "IPv4";
    if (out.families.size() < 2 && (v4 || family == "IPv6")) out.families.push_back(v4);
  }
  read_affinity(spec, out);
  out.source_ranges = texts_of(member(spec, "loadBalancerSourceRanges"));
  const auto wish = out.wishes.find("address");
  out.asked =
      words_of(wish != out.wishes.end() ? wish->second : text_of(member(spec, "loadBalancerIP")));
}

std::optional<cluster_service> service_of(const json& object) {
  const json& meta = member(object, "metadata");
  const std::string space = text_of(member(meta, "namespace"));
  const std::string name = text_of(member(meta, "name"));
  if (!name_ok(space) || !name_ok(name)) return std::nullopt;
  cluster_service out;
  out.key = space + "/" + name;
  out.uid = text_of(member(meta, "uid"));
  out.version = version_of(object);
  const json& spec = member(object, "spec");
  out.balanced = text_of(member(spec, "type")) == "LoadBalancer" &&
                 text_of(member(meta, "deletionTimestamp")).empty();
  const json& ingress = member(member(member(object, "status"), "loadBalancer"), "ingress");
  if (ingress.is_array())
    for (const json& i : ingress) {
      if (std::string ip = text_of(member(i, "ip")); !ip.empty())
        out.addresses.push_back(std::move(ip));
      else
        out.other_ingress = true;
    }
  // Of the others there are many.
  if (!out.balanced) return out;
  read_annotations(member(meta, "annotations"), out);
  read_spec(spec, out);
  return out;
}

}  // namespace

tl::expected<service_list, std::string> parse_service_list(std::string_view body) {
  const json list = parse_json(body);
  service_list out;
  out.version = version_of(list);
  out.next = text_of(member(member(list, "metadata"), "continue"));
  if (text_of(member(list, "kind")) != "ServiceList" || out.version.empty())
    return tl::unexpected{std::string{"the answer is no ServiceList"}};
  const json& items = member(list, "items");
  if (!items.is_array()) return out;  // null: none
  for (const json& item : items)
    if (auto s = service_of(item)) out.all.insert_or_assign(s->key, std::move(*s));
  return out;
}

watched_service parse_watched_service(std::string_view line) {
  const json event = parse_json(line);
  watched_service out;
  static_cast<watch_line&>(out) = line_of(event, line);
  if (out.event == watch_event::changed || out.event == watch_event::deleted)
    out.service = service_of(member(event, "object"));
  return out;
}

std::string ingress_patch(const std::string& version, const std::vector<std::string>& addresses) {
  json ingress;  // null takes it away
  for (const std::string& a : addresses) ingress.push_back({{"ip", a}});
  json out;
  out["metadata"]["resourceVersion"] = version;
  out["status"]["loadBalancer"]["ingress"] = std::move(ingress);
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string warning_event(const cluster_service& about, const std::string& message,
                          std::chrono::system_clock::time_point now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char time[32];
  (void)std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", &parts);
  const auto slash = std::min(about.key.find('/'), about.key.size());
  const std::string space = about.key.substr(0, slash);
  const std::string name = about.key.substr(std::min(slash + 1, about.key.size()));
  const json out = {{"apiVersion", "v1"},
                    {"kind", "Event"},
                    {"metadata", {{"generateName", name + "."}, {"namespace", space}}},
                    {"involvedObject",
                     {{"apiVersion", "v1"},
                      {"kind", "Service"},
                      {"namespace", space},
                      {"name", name},
                      {"uid", about.uid}}},
                    {"type", "Warning"},
                    {"reason", "LoadBalancerRefused"},
                    {"message", message.substr(0, 1024)},
                    {"source", {{"component", "sluice"}}},
                    {"firstTimestamp", time},
                    {"lastTimestamp", time},
                    {"count", 1}};
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace sluice::discover
