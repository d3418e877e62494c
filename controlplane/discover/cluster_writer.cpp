// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/cluster_writer.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include <spdlog/spdlog.h>

#include "controlplane/discover/backoff.hpp"

namespace sluice::discover {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t most_events = 100;  // that wait
constexpr auto shortest_wait = 1s;
constexpr auto longest_wait = 60s;

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& w : words) out += (out.empty() ? "" : ", ") + w;
  return out.empty() ? "no address" : out;
}

}  // namespace

cluster_writer::cluster_writer(event_loop& loop, api_access access)
    : loop_{loop}, access_{std::move(access)}, client_{loop} {}

cluster_writer::~cluster_writer() {
  stop();
}

void cluster_writer::stop() {
  loop_.cancel(std::exchange(timer_, 0));
  client_.cancel();
  busy_ = true;  // for good
}

void cluster_writer::set(std::map<std::string, status> wanted) {
  wanted_ = std::move(wanted);
  if (wanted_.empty()) problem_.clear();
  next();
}

void cluster_writer::warn(const cluster_service& about, const std::string& message) {
  if (events_.size() >= most_events) return;
  events_.push_back({about.key.substr(0, about.key.find('/')),
                     warning_event(about, message, std::chrono::system_clock::now())});
  next();
}

bool cluster_writer::send(http_request r, http_client::on_done done) {
  std::string error;
  if (!prepare(access_, r, error)) {
    problem_ = std::move(error);
    wait();
    return false;
  }
  busy_ = true;
  client_.send(std::move(r), std::move(done));
  return true;
}

void cluster_writer::next() {
  if (busy_ || timer_ != 0) return;
  http_request r;
  const auto first = std::find_if(wanted_.begin(), wanted_.end(),
                                  [&](const auto& w) { return !failed_.contains(w.first); });
  if (first != wanted_.end()) {
    const auto& [key, what] = *first;
    const auto slash = std::min(key.find('/'), key.size() - 1);
    r.method = "PATCH";
    r.url = access_.server + "/api/v1/namespaces/" + url_part(key.substr(0, slash)) + "/services/" +
            url_part(key.substr(slash + 1)) + "/status";
    r.body = ingress_patch(what.version, what.addresses);
    r.headers.emplace_back("Content-Type: application/merge-patch+json");
    (void)send(std::move(r), [this, k = key, w = what](http_response response) {
      busy_ = false;
      answered(k, w, response);
    });
  } else if (!events_.empty()) {
    event e = std::move(events_.front());
    events_.pop_front();
    r.method = "POST";
    r.url = access_.server + "/api/v1/namespaces/" + url_part(e.space) + "/events";
    r.body = std::move(e.body);
    r.headers.emplace_back("Content-Type: application/json");
    (void)send(std::move(r), [this](const http_response& response) {
      busy_ = false;
      if (response.status / 100 != 2)
        spdlog::debug("kubernetes: an Event is not written: {}", status_text(response));
      next();
    });
  } else if (!wanted_.empty()) {
    wait();
  }
}

void cluster_writer::answered(const std::string& key, const status& written,
                              const http_response& r) {
  const auto now = wanted_.find(key);
  const bool current = now != wanted_.end() && now->second == written;
  if (r.status == 200) {
    spdlog::info("kubernetes {}: {} is in its status", key, joined(written.addresses));
  } else if (r.status != 404 && r.status != 409) {
    problem_ = "the status of " + key + " is not written: " + status_text(r);
    spdlog::warn("kubernetes: {}", problem_);
    failed_.insert(key);
    return next();
  }
  // 409: it has changed meanwhile, 404: it is gone; the watch says how.
  failed_.erase(key);
  if (current) wanted_.erase(now);
  if (failed_.empty()) {
    failures_ = 0;
    problem_.clear();
  }
  next();
}

void cluster_writer::wait() {
  timer_ = loop_.call_after(retry_after(shortest_wait, longest_wait, failures_++, random_), [this] {
    timer_ = 0;
    failed_.clear();
    next();
  });
}

}  // namespace sluice::discover
