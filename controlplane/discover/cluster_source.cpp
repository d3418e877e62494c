// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/cluster_source.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include <spdlog/spdlog.h>

#include "controlplane/discover/cluster_plan.hpp"

namespace sluice::discover {
namespace {

constexpr kubernetes_watch::pace services_pace{std::chrono::seconds{1}, std::chrono::minutes{1},
                                               200};

}  // namespace

cluster_source::cluster_source(event_loop& loop, const kubernetes_config& config,
                               std::function<void()> on_news)
    : config_{config}, on_news_{std::move(on_news)} {
  std::vector<std::string> spaces = config.namespaces;
  if (spaces.empty()) spaces.emplace_back();
  for (const std::string& space : spaces) {
    part& p = *parts_.emplace_back(std::make_unique<part>());
    p.space = space;
    p.status.type = "kubernetes-services";
    p.status.name = space.empty() ? "all namespaces" : space;
    kubernetes_watch::reader reader;
    reader.page = [this, &p](std::string_view body, bool first) {
      return take_page(p, body, first);
    };
    reader.line = [this, &p](std::string_view line) { return take_line(p, line); };
    reader.settled = [this, &p] { settled(p); };
    reader.failed = [this, &p](std::string why) { failed(p, std::move(why)); };
    p.watch = std::make_unique<kubernetes_watch>(
        loop, api_access{config.server, config.ca, config.token_file},
        space.empty() ? "/api/v1/services" : "/api/v1/namespaces/" + url_part(space) + "/services",
        std::string{}, services_pace, std::move(reader));
  }
}

void cluster_source::start() {
  for (const auto& p : parts_) p->watch->start();
}

void cluster_source::stop() {
  for (const auto& p : parts_) p->watch->stop();
}

tl::expected<list_page, std::string> cluster_source::take_page(part& p, std::string_view body,
                                                               bool first) {
  auto list = parse_service_list(body);
  if (!list) return tl::unexpected{std::move(list.error())};
  if (first) p.fresh.clear();
  p.fresh.merge(list->all);
  if (list->next.empty()) {
    std::erase_if(services_, [&](const auto& s) {
      return p.space.empty() || s.first.starts_with(p.space + "/");
    });
    services_.merge(p.fresh);
    p.fresh.clear();
    p.news = true;
    listed_.insert(p.space);
    if (!p.status.problem.empty())
      spdlog::info("kubernetes: Services of {}: answers", p.status.name);
    p.status.problem.clear();
    ++p.status.answers;
    p.status.last_success = std::chrono::system_clock::now();
  }
  return list_page{std::move(list->version), std::move(list->next)};
}

watch_line cluster_source::take_line(part& p, std::string_view line) {
  watched_service w = parse_watched_service(line);
  if (!w.service) return w;
  p.status.last_success = std::chrono::system_clock::now();
  const auto known = services_.find(w.service->key);
  if (w.event == watch_event::deleted) {
    if (known == services_.end()) return w;
    p.news = p.news || known->second.balanced;
    services_.erase(known);
  } else if (known == services_.end()) {
    p.news = p.news || w.service->balanced;
    services_.emplace(w.service->key, std::move(*w.service));
  } else {
    // Also where only its version has changed: what is written names that.
    p.news = p.news || known->second.balanced || w.service->balanced;
    known->second = std::move(*w.service);
  }
  return w;
}

void cluster_source::settled(part& p) {
  if (std::exchange(p.news, false)) on_news_();
}

void cluster_source::failed(part& p, std::string why) {
  ++p.status.errors;
  if (p.status.problem != why) spdlog::warn("kubernetes: Services of {}: {}", p.status.name, why);
  p.status.problem = std::move(why);
}

std::vector<source_status> cluster_source::status() const {
  std::vector<source_status> out;
  for (const auto& p : parts_) {
    source_status s = p->status;
    s.backends = static_cast<std::size_t>(
        std::count_if(services_.begin(), services_.end(), [&](const auto& one) {
          return is_ours(one.second, config_) &&
                 (p->space.empty() || one.first.starts_with(p->space + "/"));
        }));
    out.push_back(std::move(s));
  }
  return out;
}

}  // namespace sluice::discover
