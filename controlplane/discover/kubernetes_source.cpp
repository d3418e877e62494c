// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/kubernetes_source.hpp"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

#include "controlplane/discover/backoff.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::discover {
namespace {

using namespace std::chrono_literals;

constexpr auto watch_for = 290s;  // the server ends it then
constexpr auto watch_limit = 320s;
constexpr auto pause = 100ms;  // between a watch and the next request
constexpr auto status_every = 60s;
constexpr std::size_t longest_line = 4u << 20;

std::string status_text(const http_response& r) {
  return r.status == 0 ? r.error
                       : "HTTP status " + std::to_string(r.status) + ": " + yaml::shown(r.body);
}

}  // namespace

kubernetes_source::kubernetes_source(event_loop& loop, question q, on_report report_to)
    : loop_{loop},
      question_{std::move(q)},
      report_to_{std::move(report_to)},
      wish_{question_.what.port_name, question_.ipv4, question_.ipv6},
      client_{loop},
      status_client_{loop} {
  const std::string& both = question_.what.name;
  const auto slash = std::min(both.find('/'), both.size());
  space_ = both.substr(0, slash);
  name_ = both.substr(std::min(slash + 1, both.size()));
}

kubernetes_source::~kubernetes_source() {
  stop();
}

void kubernetes_source::start() {
  if (std::exchange(started_, true)) return;
  list_after(0ms);
  if (!question_.what.load_balancer_class.empty())
    status_timer_ = loop_.call_after({}, [this] { look_at_status(); });
}

void kubernetes_source::stop() {
  started_ = false;
  loop_.cancel(std::exchange(timer_, 0));
  loop_.cancel(std::exchange(status_timer_, 0));
  client_.cancel();
  status_client_.cancel();
}

bool kubernetes_source::prepare(http_request& r, std::string& error) const {
  std::string token;
  if (!read_token(question_.what.token_file, token, error)) return false;
  if (!token.empty()) r.headers.push_back("Authorization: Bearer " + token);
  r.headers.emplace_back("Accept: application/json");
  r.ca = question_.what.ca;
  return true;
}

std::string kubernetes_source::slices_url() const {
  return question_.what.server + "/apis/discovery.k8s.io/v1/namespaces/" + url_part(space_) +
         "/endpointslices?labelSelector=" + url_part("kubernetes.io/service-name=" + name_);
}

std::string kubernetes_source::service_url() const {
  return question_.what.server + "/api/v1/namespaces/" + url_part(space_) + "/services/" +
         url_part(name_);
}

void kubernetes_source::failed(std::string why) {
  list_after(retry_after(question_.what, failures_++, random_));
  report_to_(tl::unexpected{std::move(why)});
}

void kubernetes_source::list_after(std::chrono::milliseconds wait) {
  loop_.cancel(timer_);
  timer_ = loop_.call_after(wait, [this] {
    timer_ = 0;
    list();
  });
}

void kubernetes_source::watch_after(std::chrono::milliseconds wait) {
  loop_.cancel(timer_);
  timer_ = loop_.call_after(wait, [this] {
    timer_ = 0;
    watch();
  });
}

void kubernetes_source::list() {
  http_request r;
  std::string error;
  r.url = slices_url();
  if (!prepare(r, error)) return failed(std::move(error));
  client_.send(std::move(r), [this](http_response response) { listed(response); });
}

void kubernetes_source::listed(const http_response& r) {
  if (r.status != 200) return failed(status_text(r));
  auto list = parse_slice_list(r.body, wish_);
  if (!list) return failed(list.error());
  failures_ = 0;
  slices_ = std::move(list->all);
  version_ = std::move(list->version);
  watch_after(0ms);
  report_to_(found_in(slices_));
}

void kubernetes_source::watch() {
  http_request r;
  std::string error;
  r.url = slices_url() + "&watch=1&allowWatchBookmarks=true&resourceVersion=" + url_part(version_) +
          "&timeoutSeconds=" + std::to_string(watch_for.count());
  r.timeout = watch_limit;
  if (!prepare(r, error)) return failed(std::move(error));
  line_.clear();
  client_.send(
      std::move(r), [this](http_response response) { watch_ended(response); },
      [this](std::string_view piece) {
        const std::vector<found> before = found_in(slices_);
        line_ += piece;
        std::size_t at = 0;
        bool goes_on = true;
        for (std::size_t end; goes_on && (end = line_.find('\n', at)) != line_.npos; at = end + 1)
          goes_on = saw(std::string_view{line_}.substr(at, end - at));
        if (!goes_on) return;
        line_.erase(0, at);
        if (line_.size() > longest_line) {
          client_.cancel();
          return failed("a line of the watch is longer than 4 MiB");
        }
        if (auto now = found_in(slices_); now != before) report_to_(std::move(now));
      });
}

bool kubernetes_source::saw(std::string_view line) {
  if (line.empty()) return true;
  watched w = parse_watched(line, wish_);
  switch (w.event) {
    case watch_event::changed:
      slices_[w.slice] = std::move(w.one);
      break;
    case watch_event::deleted:
      slices_.erase(w.slice);
      break;
    case watch_event::bookmark:
      break;
    case watch_event::expired:
      client_.cancel();
      list_after(pause);
      return false;
    case watch_event::error:
      client_.cancel();
      failed("the watch: " + w.text);
      return false;
  }
  version_ = std::move(w.version);
  return true;
}

void kubernetes_source::watch_ended(const http_response& r) {
  if (r.status == 200) return watch_after(pause);
  if (r.status == 410) return list_after(pause);
  failed("the watch: " + status_text(r));
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
  if (!prepare(r, error)) return tell_status(error);
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
  if (!prepare(patch, error)) return tell_status(error);
  patch.headers.emplace_back("Content-Type: application/merge-patch+json");
  status_client_.send(std::move(patch), [this, vip](http_response response) {
    if (response.status != 200) return tell_status(status_text(response));
    tell_status({});
    spdlog::info("kubernetes {}: {} is in its status", question_.what.name, vip);
  });
}

}  // namespace sluice::discover
