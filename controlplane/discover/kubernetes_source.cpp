// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/kubernetes_source.hpp"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

#include "dataplane/abi/address_text.hpp"

namespace sluice::discover {
namespace {

using namespace std::chrono_literals;

constexpr auto status_every = 60s;
constexpr unsigned slices_per_page = 100;

}  // namespace

kubernetes_source::kubernetes_source(event_loop& loop, question q, on_report report_to)
    : loop_{loop},
      question_{std::move(q)},
      report_to_{std::move(report_to)},
      wish_{question_.what.port_name, question_.ipv4, question_.ipv6},
      access_{question_.what.server, question_.what.ca, question_.what.token_file},
      status_client_{loop} {
  const std::string& both = question_.what.name;
  const auto slash = std::min(both.find('/'), both.size());
  space_ = both.substr(0, slash);
  name_ = both.substr(std::min(slash + 1, both.size()));
  kubernetes_watch::reader reader;
  reader.page = [this](std::string_view body, bool first) -> tl::expected<list_page, std::string> {
    auto list = parse_slice_list(body);
    if (!list) return tl::unexpected{std::move(list.error())};
    if (first) listed_.clear();
    listed_.merge(list->all);
    if (list->next.empty()) {
      slices_ = std::exchange(listed_, {});
      known_.reset();
    }
    return list_page{std::move(list->version), std::move(list->next)};
  };
  reader.line = [this](std::string_view line) -> watch_line {
    watched w = parse_watched(line);
    if (w.event == watch_event::changed) slices_[w.slice] = std::move(w.one);
    if (w.event == watch_event::deleted) slices_.erase(w.slice);
    return w;
  };
  reader.settled = [this] { settled(); };
  reader.failed = [this](std::string why) { report_to_(tl::unexpected{std::move(why)}); };
  watch_ = std::make_unique<kubernetes_watch>(
      loop_, access_,
      "/apis/discovery.k8s.io/v1/namespaces/" + url_part(space_) + "/endpointslices",
      "&labelSelector=" + url_part("kubernetes.io/service-name=" + name_),
      kubernetes_watch::pace{question_.what.min_interval, question_.what.max_interval,
                             slices_per_page},
      std::move(reader));
}

kubernetes_source::~kubernetes_source() {
  stop();
}

void kubernetes_source::start() {
  if (std::exchange(started_, true)) return;
  watch_->start();
  if (!question_.what.load_balancer_class.empty())
    status_timer_ = loop_.call_after({}, [this] { look_at_status(); });
}

void kubernetes_source::stop() {
  started_ = false;
  watch_->stop();
  loop_.cancel(std::exchange(status_timer_, 0));
  status_client_.cancel();
}

// settled() reports what differs from the last report; a whole list always, as it is an answer.
void kubernetes_source::settled() {
  auto now = found_in(slices_, wish_);
  if (known_ == now) return;
  known_ = now;
  report_to_(std::move(now));
}

std::string kubernetes_source::service_url() const {
  return question_.what.server + "/api/v1/namespaces/" + url_part(space_) + "/services/" +
         url_part(name_);
}

void kubernetes_source::tell_status(const std::string& why) {
  if (why != status_problem_ && !why.empty())
    spdlog::warn("kubernetes {}: its status is not written: {}", question_.what.name, why);
  status_problem_ = why;
}

void kubernetes_source::look_at_status() {
  status_timer_ = loop_.call_after(status_every, [this] { look_at_status(); });
  http_request r;
  std::string error;
  r.url = service_url();
  if (!prepare(access_, r, error)) return tell_status(error);
  status_client_.send(std::move(r), [this](http_response response) { write_status(response); });
}

void kubernetes_source::write_status(const http_response& r) {
  if (r.status != 200) return tell_status(status_text(r));
  const auto service = parse_service(r.body);
  if (!service) return tell_status(service.error());
  const std::string& wanted = question_.what.load_balancer_class;
  if (!service->balanced || service->load_balancer_class != wanted)
    return tell_status("it is not of type LoadBalancer and loadBalancerClass " + wanted);
  std::vector<std::string> addresses = service->addresses;
  const std::string vip = format_ip(question_.vip);
  if (std::find(addresses.begin(), addresses.end(), vip) != addresses.end()) return tell_status({});
  addresses.push_back(vip);
  http_request patch;
  std::string error;
  patch.url = service_url() + "/status";
  patch.method = "PATCH";
  patch.body = status_patch(addresses);
  if (!prepare(access_, patch, error)) return tell_status(error);
  patch.headers.emplace_back("Content-Type: application/merge-patch+json");
  status_client_.send(std::move(patch), [this, vip](http_response response) {
    if (response.status != 200) return tell_status(status_text(response));
    tell_status({});
    spdlog::info("kubernetes {}: {} is in its status", question_.what.name, vip);
  });
}

}  // namespace sluice::discover
