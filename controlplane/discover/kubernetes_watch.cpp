// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/kubernetes_watch.hpp"

#include <utility>

#include "controlplane/discover/backoff.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::discover {
namespace {

using namespace std::chrono_literals;

constexpr auto watch_for = 290s;  // the server ends it then
constexpr auto watch_limit = 320s;
constexpr auto pause = 100ms;  // between a watch and the next request
constexpr std::size_t longest_line = 4u << 20;

}  // namespace

bool prepare(const api_access& access, http_request& r, std::string& error) {
  std::string token;
  if (!read_token(access.token_file, token, error)) return false;
  if (!token.empty()) r.headers.push_back("Authorization: Bearer " + token);
  r.headers.emplace_back("Accept: application/json");
  r.ca = access.ca;
  return true;
}

std::string status_text(const http_response& r) {
  return r.status == 0 ? r.error
                       : "HTTP status " + std::to_string(r.status) + ": " + yaml::shown(r.body);
}

kubernetes_watch::kubernetes_watch(event_loop& loop, api_access access, std::string path,
                                   std::string selector, pace p, reader r)
    : loop_{loop},
      access_{std::move(access)},
      url_{access_.server + std::move(path) + "?limit=" + std::to_string(p.page) +
           std::move(selector)},
      pace_{p},
      reader_{std::move(r)},
      client_{loop} {}

kubernetes_watch::~kubernetes_watch() {
  stop();
}

void kubernetes_watch::start() {
  if (std::exchange(started_, true)) return;
  list_after(0ms);
}

void kubernetes_watch::stop() {
  started_ = false;
  loop_.cancel(std::exchange(timer_, 0));
  client_.cancel();
}

void kubernetes_watch::failed(std::string why) {
  list_after(retry_after(pace_.shortest, pace_.longest, failures_++, random_));
  reader_.failed(std::move(why));
}

void kubernetes_watch::list_after(std::chrono::milliseconds wait) {
  loop_.cancel(timer_);
  timer_ = loop_.call_after(wait, [this] {
    timer_ = 0;
    list({});
  });
}

void kubernetes_watch::watch_after(std::chrono::milliseconds wait) {
  loop_.cancel(timer_);
  timer_ = loop_.call_after(wait, [this] {
    timer_ = 0;
    watch();
  });
}

void kubernetes_watch::list(const std::string& next) {
  http_request r;
  std::string error;
  r.url = url_;
  if (!next.empty()) r.url += "&continue=" + url_part(next);
  if (!prepare(access_, r, error)) return failed(std::move(error));
  client_.send(std::move(r),
               [this, first = next.empty()](http_response response) { listed(response, first); });
}

void kubernetes_watch::listed(const http_response& r, bool first) {
  // The rest of a list may be too old by the time it is asked for.
  if (r.status == 410 && !first) return list_after(pause);
  if (r.status != 200) return failed(status_text(r));
  auto page = reader_.page(r.body, first);
  if (!page) return failed(std::move(page.error()));
  // What has happened since the first page is for the watch to say.
  if (first) version_ = std::move(page->version);
  if (!page->next.empty()) return list(page->next);
  failures_ = 0;
  watch_after(0ms);
  reader_.settled();
}

void kubernetes_watch::watch() {
  http_request r;
  std::string error;
  r.url = url_ + "&watch=1&allowWatchBookmarks=true&resourceVersion=" + url_part(version_) +
          "&timeoutSeconds=" + std::to_string(watch_for.count());
  r.timeout = watch_limit;
  if (!prepare(access_, r, error)) return failed(std::move(error));
  line_.clear();
  client_.send(
      std::move(r), [this](http_response response) { watch_ended(response); },
      [this](std::string_view piece) { saw(piece); });
}

void kubernetes_watch::saw(std::string_view piece) {
  line_ += piece;
  std::size_t at = 0;
  for (std::size_t end; (end = line_.find('\n', at)) != line_.npos; at = end + 1)
    if (!saw_line(std::string_view{line_}.substr(at, end - at))) return;
  line_.erase(0, at);
  if (line_.size() > longest_line) {
    client_.cancel();
    return failed("a line of the watch is longer than 4 MiB");
  }
  reader_.settled();
}

bool kubernetes_watch::saw_line(std::string_view line) {
  if (line.empty()) return true;
  watch_line w = reader_.line(line);
  if (w.event == watch_event::expired) {
    client_.cancel();
    list_after(pause);
    return false;
  }
  if (w.event == watch_event::error) {
    client_.cancel();
    failed("the watch: " + w.text);
    return false;
  }
  version_ = std::move(w.version);
  return true;
}

void kubernetes_watch::watch_ended(const http_response& r) {
  if (r.status == 200) return watch_after(pause);
  if (r.status == 410) return list_after(pause);
  failed("the watch: " + status_text(r));
}

}  // namespace sluice::discover
