// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/consul_source.hpp"

#include <utility>

#include "controlplane/discover/backoff.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::discover {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 300s;  // of a blocking query; Consul adds up to a sixteenth
constexpr auto reply_within = 340s;
// A service whose instances change all the time is asked for this often at most.
constexpr auto breath = 100ms;

}  // namespace

consul_source::consul_source(event_loop& loop, question q, on_report report_to)
    : loop_{loop}, question_{std::move(q)}, report_to_{std::move(report_to)}, client_{loop} {}

consul_source::~consul_source() {
  stop();
}

void consul_source::start() {
  if (std::exchange(started_, true)) return;
  ask_after(0ms);
}

void consul_source::stop() {
  started_ = false;
  loop_.cancel(std::exchange(timer_, 0));
  client_.cancel();
}

std::string consul_source::url() const {
  const model::discovery& d = question_.what;
  std::string out = d.server + (d.passing ? "/v1/health/service/" : "/v1/catalog/service/") +
                    url_part(d.name) + "?wait=" + std::to_string(patience.count()) + "s";
  if (d.passing) out += "&passing=1";
  if (!d.datacenter.empty()) out += "&dc=" + url_part(d.datacenter);
  if (!d.tag.empty()) out += "&tag=" + url_part(d.tag);
  if (index_.wait_for() != 0) out += "&index=" + std::to_string(index_.wait_for());
  return out;
}

void consul_source::ask_after(std::chrono::milliseconds wait) {
  timer_ = loop_.call_after(wait, [this] {
    timer_ = 0;
    ask();
  });
}

void consul_source::ask() {
  http_request r;
  r.url = url();
  r.ca = question_.what.ca;
  r.timeout = reply_within;
  std::string token;
  std::string error;
  if (!read_token(question_.what.token_file, token, error)) {
    ask_after(retry_after(question_.what, failures_++, random_));
    return report_to_(tl::unexpected{std::move(error)});
  }
  if (!token.empty()) r.headers.push_back("X-Consul-Token: " + token);
  client_.send(std::move(r), [this](http_response response) { answered(response); });
}

void consul_source::answered(const http_response& r) {
  std::string why;
  if (r.status == 0)
    why = r.error;
  else if (r.status != 200)
    why = "HTTP status " + std::to_string(r.status) + ": " + yaml::shown(r.body);
  if (why.empty()) {
    auto answer = parse_consul(r.body);
    if (answer) {
      failures_ = 0;
      const bool news = index_.answered(r.index);
      ask_after(breath);
      if (news) report_to_(std::move(answer));
      return;
    }
    why = answer.error();
  }
  // What was waited for may be of another server by then.
  index_.reset();
  ask_after(retry_after(question_.what, failures_++, random_));
  report_to_(tl::unexpected{std::move(why)});
}

}  // namespace sluice::discover
