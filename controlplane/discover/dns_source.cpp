// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/dns_source.hpp"

#include <algorithm>
#include <utility>

#include "controlplane/discover/dns_lookup.hpp"

namespace sluice::discover {

dns_source::dns_source(event_loop& loop, question q, on_report report_to)
    : loop_{loop}, question_{std::move(q)}, report_to_{std::move(report_to)} {}

dns_source::~dns_source() {
  stop();
}

void dns_source::start() {
  if (lookup_ || timer_ != 0) return;
  timer_ = loop_.call_after({}, [this] {
    timer_ = 0;
    ask();
  });
}

void dns_source::stop() {
  loop_.cancel(std::exchange(timer_, 0));
  lookup_.reset();
}

void dns_source::ask() {
  lookup_ = std::make_unique<dns_lookup>(loop_, question_, [this](dns_result result) {
    const auto least = question_.what.min_interval;
    const auto most = question_.what.max_interval;
    if (result.answer) {
      failures_ = 0;
      ask_after(
          std::clamp(std::chrono::milliseconds{std::chrono::seconds{result.ttl}}, least, most));
    } else {
      ask_after(std::min(least * (1 << std::min(failures_++, 10u)), most));
    }
    lookup_.reset();
    report_to_(std::move(result.answer));
  });
}

void dns_source::ask_after(std::chrono::milliseconds wait) {
  // Up to a tenth more.
  std::uniform_int_distribution<std::int64_t> more{0, wait.count() / 10};
  timer_ = loop_.call_after(wait + std::chrono::milliseconds{more(random_)}, [this] {
    timer_ = 0;
    ask();
  });
}

}  // namespace sluice::discover
