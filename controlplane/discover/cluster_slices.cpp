// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/cluster_slices.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace sluice::discover {
namespace {

using namespace std::chrono_literals;

constexpr kubernetes_watch::pace slices_pace{1s, 60s, 100};
constexpr auto services_together = 20ms;  // Services that come together are asked for together
constexpr std::size_t most_names = 50;    // in a selector; with more, all slices are watched
constexpr const char* label = "kubernetes.io/service-name";

std::string namespace_of(const std::string& key) {
  return key.substr(0, key.find('/'));
}

}  // namespace

class cluster_slices::shared_source final : public source {
 public:
  shared_source(cluster_slices& all, const question& q, on_report report_to)
      : all_{all},
        service_{q.what.name},
        wish_{q.what.port_name, q.ipv4, q.ipv6},
        report_to_{std::move(report_to)} {}
  ~shared_source() override { stop(); }

  void start() override {
    if (!std::exchange(started_, true)) all_.add(*this);
  }
  void stop() override {
    if (std::exchange(started_, false)) all_.remove(*this);
  }

  [[nodiscard]] const std::string& service() const noexcept { return service_; }
  // tell() reports what differs from the last report.
  void tell(const slices& now) {
    auto list = found_in(now, wish_);
    if (said_ == list) return;
    said_ = list;
    report_to_(std::move(list));
  }
  void tell_problem(const std::string& why) {
    said_.reset();
    report_to_(tl::unexpected{why});
  }
  // forget() has the next tell() report in any case.
  void forget() { said_.reset(); }

 private:
  cluster_slices& all_;
  const std::string service_;
  const slice_wish wish_;
  const on_report report_to_;
  std::optional<std::vector<found>> said_;
  bool started_{false};
};

cluster_slices::cluster_slices(event_loop& loop, const kubernetes_config& config)
    : loop_{loop}, config_{config} {
  std::vector<std::string> spaces = config.namespaces;
  if (spaces.empty()) spaces.emplace_back();
  for (std::string& space : spaces)
    parts_.emplace_back(std::make_unique<part>())->space = std::move(space);
}

cluster_slices::~cluster_slices() {
  loop_.cancel(timer_);
}

std::unique_ptr<source> cluster_slices::source_for(const question& q, on_report report_to) {
  const model::discovery& w = q.what;
  const auto& spaces = config_.namespaces;
  const bool here = w.kind == model::discovery_kind::kubernetes && w.server == config_.server &&
                    w.ca == config_.ca && w.token_file == config_.token_file &&
                    w.load_balancer_class.empty() &&
                    (spaces.empty() ||
                     std::find(spaces.begin(), spaces.end(), namespace_of(w.name)) != spaces.end());
  if (!here) return nullptr;
  return std::make_unique<shared_source>(*this, q, std::move(report_to));
}

cluster_slices::part& cluster_slices::part_of(const std::string& service) {
  for (const auto& p : parts_)
    if (p->space == namespace_of(service)) return *p;
  return *parts_.front();
}

void cluster_slices::add(shared_source& s) {
  asked_[s.service()].insert(&s);
  watch_soon();
}

void cluster_slices::remove(shared_source& s) {
  const auto at = asked_.find(s.service());
  if (at == asked_.end()) return;
  at->second.erase(&s);
  if (!at->second.empty()) return;
  covered_.erase(at->first);
  known_.erase(at->first);
  std::erase_if(service_of_, [&](const auto& slice) { return slice.second == at->first; });
  asked_.erase(at);
  if (asked_.empty()) watch_soon();
}

void cluster_slices::watch_soon() {
  if (timer_ != 0) return;
  timer_ = loop_.call_after(services_together, [this] {
    timer_ = 0;
    watch_all();
  });
}

// watch_all() has all that is asked for listed and watched.
void cluster_slices::watch_all() {
  std::set<std::string> names;
  bool covered = true;
  for (const auto& [service, some] : asked_) {
    names.insert(service.substr(service.find('/') + 1));
    covered = covered && covered_.contains(service);
  }
  if (covered && !asked_.empty()) {
    // Somebody else asks for what is watched already.
    for (const auto& [service, some] : asked_)
      if (part_of(service).listed) changed_.insert(service);
    for (const auto& p : parts_)
      if (p->listed) settled(*p);
    return;
  }
  covered_.clear();
  for (const auto& p : parts_) {
    p->watch.reset();
    p->listed = false;
  }
  if (asked_.empty()) return;
  for (const auto& [service, some] : asked_) covered_.insert(service);
  std::string selector = label;
  if (names.size() <= most_names) {
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : ",") + name;
    selector += " in (" + list + ")";
  }
  for (const auto& p : parts_) watch_part(*p, selector);
}

void cluster_slices::watch_part(part& p, const std::string& selector) {
  kubernetes_watch::reader reader;
  reader.page = [this, &p](std::string_view body, bool first) { return take_page(p, body, first); };
  reader.line = [this](std::string_view line) { return take_line(line); };
  reader.settled = [this, &p] { settled(p); };
  reader.failed = [this, &p](const std::string& why) { failed(p, why); };
  p.watch = std::make_unique<kubernetes_watch>(
      loop_, api_access{config_.server, config_.ca, config_.token_file},
      "/apis/discovery.k8s.io/v1/" +
          (p.space.empty() ? std::string{} : "namespaces/" + url_part(p.space) + "/") +
          "endpointslices",
      "&labelSelector=" + url_part(selector), slices_pace, std::move(reader));
  p.watch->start();
}

void cluster_slices::drop(const std::string& slice) {
  const auto at = service_of_.find(slice);
  if (at == service_of_.end()) return;
  changed_.insert(at->second);
  const auto of = known_.find(at->second);
  if (of != known_.end()) {
    of->second.erase(slice);
    if (of->second.empty()) known_.erase(of);
  }
  service_of_.erase(at);
}

void cluster_slices::put(const std::string& slice, endpoint_slice one) {
  const auto at = service_of_.find(slice);
  if (at != service_of_.end() && at->second != one.service) drop(slice);
  // Others' are not kept.
  if (!asked_.contains(one.service)) return;
  changed_.insert(one.service);
  service_of_[slice] = one.service;
  known_[one.service][slice] = std::move(one);
}

tl::expected<list_page, std::string> cluster_slices::take_page(part& p, std::string_view body,
                                                               bool first) {
  auto list = parse_slice_list(body);
  if (!list) return tl::unexpected{std::move(list.error())};
  if (first) p.fresh.clear();
  for (auto& [name, one] : list->all)
    if (asked_.contains(one.service)) p.fresh.insert_or_assign(name, std::move(one));
  if (list->next.empty()) {
    std::vector<std::string> before;
    for (const auto& [slice, service] : service_of_)
      if (p.space.empty() || slice.starts_with(p.space + "/")) before.push_back(slice);
    for (const std::string& slice : before)
      if (!p.fresh.contains(slice)) drop(slice);
    for (auto& [slice, one] : std::exchange(p.fresh, {})) put(slice, std::move(one));
    p.listed = true;
    // Also those that have none.
    for (const auto& [service, some] : asked_) {
      if (&part_of(service) != &p) continue;
      changed_.insert(service);
      for (shared_source* s : some) s->forget();
    }
  }
  return list_page{std::move(list->version), std::move(list->next)};
}

watch_line cluster_slices::take_line(std::string_view line) {
  watched w = parse_watched(line);
  if (w.event == watch_event::changed) put(w.slice, std::move(w.one));
  if (w.event == watch_event::deleted) drop(w.slice);
  return w;
}

void cluster_slices::settled(part& p) {
  static const slices none;
  for (const std::string& service : std::exchange(changed_, {})) {
    const auto asked = asked_.find(service);
    if (asked == asked_.end() || &part_of(service) != &p) continue;
    const auto known = known_.find(service);
    for (shared_source* s : asked->second) s->tell(known == known_.end() ? none : known->second);
  }
}

void cluster_slices::failed(part& p, const std::string& why) {
  for (const auto& [service, some] : asked_)
    if (&part_of(service) == &p)
      for (shared_source* s : some) s->tell_problem(why);
}

}  // namespace sluice::discover
