// SPDX-License-Identifier: Apache-2.0
#include "controlplane/config/read_reports.hpp"

#include <chrono>
#include <string>
#include <utility>

#include "controlplane/model/text.hpp"

namespace sluice::config {
namespace {

using std::chrono::milliseconds;
using yaml::assign;
using yaml::map_value;
using yaml::value;

constexpr milliseconds longest{3'600'000};
constexpr std::size_t longest_send = 256;

void read_agent(const value& v, model::agent_check& out) {
  if (v.is_word("off")) {
    out = {};
    return;
  }
  const auto m = v.map({"port", "send", "interval", "timeout"});
  if (!m) return;
  const auto port = out.off() ? m->require("port", "9777") : m->find("port");
  if (port) assign(out.port, port->integer(1, 65535));
  if (const auto send = m->find("send")) {
    if (auto text = send->text()) {
      if (text->size() > longest_send)
        send->error("is too long; expected at most " + std::to_string(longest_send) + " bytes");
      else
        out.send = std::move(*text);
    }
  }
  if (const auto d = m->find("interval"))
    assign(out.interval, d->duration(milliseconds{100}, longest));
  const auto timeout = m->find("timeout");
  if (timeout) assign(out.timeout, timeout->duration(milliseconds{1}, longest));
  if (out.timeout > out.interval) {
    if (timeout)
      timeout->error("is longer than the interval (" + model::to_string(out.interval) +
                     "); expected at most that");
    else
      out.timeout = out.interval;
  }
}

void read_heartbeat(const value& v, model::heartbeat& out) {
  if (v.is_word("off")) {
    out = {};
    return;
  }
  const auto m = v.map({"interval", "missing"});
  if (!m) return;
  const auto interval = out.off() ? m->require("interval", "5s") : m->find("interval");
  if (interval) assign(out.interval, interval->duration(milliseconds{100}, longest));
  if (const auto n = m->find("missing")) assign(out.missing, n->integer(1, 100));
}

void read_weights(const map_value& service_map, model::service& out) {
  const auto v = service_map.find("weights");
  if (!model::weighs(out.scheduler)) {
    if (v)
      v->error("has no effect with scheduler: " + std::string{model::to_string(out.scheduler)} +
               "; expected it only with schedulers that take weights");
    out.weights = {};
    return;
  }
  if (!v) return;
  const auto m = v->map({"smoothing", "dead-band", "max-step", "interval"});
  if (!m) return;
  if (const auto d = m->find("smoothing"))
    assign(out.weights.smoothing, d->duration(milliseconds{0}, longest));
  const auto band = m->find("dead-band");
  const auto step = m->find("max-step");
  if (band) assign(out.weights.dead_band, band->integer(0, 50));
  if (step) assign(out.weights.max_step, step->integer(1, 100));
  if (out.weights.max_step < out.weights.dead_band)
    (step   ? *step
     : band ? *band
            : *v)
        .error("the largest step is smaller than the dead band; expected max-step of at least " +
               std::to_string(out.weights.dead_band));
  if (const auto d = m->find("interval"))
    assign(out.weights.interval, d->duration(milliseconds{250}, longest));
}

void read_quorum(const value& v, model::quorum& out) {
  if (v.is_word("off")) {
    out = {};
    return;
  }
  const auto m = v.map({"percent", "hysteresis", "hold"});
  if (!m) return;
  if (const auto n = m->find("percent")) assign(out.percent, n->integer(0, 100));
  if (const auto n = m->find("hysteresis")) assign(out.hysteresis, n->integer(0, 100));
  if (const auto d = m->find("hold")) assign(out.hold, d->duration(milliseconds{0}, longest));
}

}  // namespace

void read_reports(const map_value& m, model::service& out) {
  if (const auto v = m.find("agent")) read_agent(*v, out.agent);
  if (const auto v = m.find("heartbeat")) read_heartbeat(*v, out.heartbeat);
  read_weights(m, out);
  if (const auto v = m.find("quorum")) read_quorum(*v, out.quorum);
}

}  // namespace sluice::config
