// SPDX-License-Identifier: Apache-2.0
#include "tools/import/keepalived_parts.hpp"

#include <charconv>

namespace sluice::importing {

namespace {

using std::chrono::milliseconds;

constexpr std::array known_keys{
    known_key{"alpha", ""},  // a backend is down until it was checked
    known_key{"inhibit_on_failure",
              "a backend that is down gets nothing, not even connections "
              "that it has"},
    known_key{"sorry_server_inhibit", "see inhibit_on_failure"},
    known_key{"omega", "there are no scripts; `sluice events` tells what happens"},
    known_key{"notify_up", "there are no scripts; `sluice events` tells what happens"},
    known_key{"notify_down", "there are no scripts; `sluice events` tells what happens"},
    known_key{"quorum_up", "there are no scripts; `sluice events` tells what happens"},
    known_key{"quorum_down", "there are no scripts; `sluice events` tells what happens"},
    known_key{"quorum",
              "a service goes on with one backend; quorum.percent withdraws its address below a "
              "part of their weight"},
    known_key{"hysteresis", "belongs to quorum; see quorum.hysteresis"},
    known_key{"ha_suspend", "health checks go on whoever has the address"},
    known_key{"ops", "a datagram's flow keeps its backend"},
    known_key{"hashed", "belongs to the scheduler sh"},
    known_key{"mh-port", ""},  // maglev hashes the ports
    known_key{"mh-fallback", ""},
    known_key{"sh-port", "source-hash takes the address alone; maglev takes the ports, too"},
    known_key{"sh-fallback", ""},
    known_key{"flag-1", "flags of schedulers are not known"},
    known_key{"flag-2", "flags of schedulers are not known"},
    known_key{"flag-3", "flags of schedulers are not known"},
    known_key{"persistence_engine", "there is no such engine (sip)"},
    known_key{"smtp_alert", "no mail is sent; packaging/prometheus has alert rules"},
    known_key{"no_smtp_alert", ""},
    known_key{"snmp_name", "there is no SNMP"},
    known_key{"lthreshold",
              "a backend at its maximum gets connections again below 90 per cent of it"},
    known_key{"warmup", "checks begin at once, spread over an interval"},
    known_key{"delay_before_retry", "a check that failed is repeated after the interval"},
    known_key{"ip_family", ""},
};

}  // namespace

std::optional<milliseconds> seconds(std::string_view text) {
  double value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (wrong != std::errc{} || end != text.data() + text.size() || !(value >= 0.01) || value > 3600)
    return std::nullopt;
  return milliseconds{static_cast<std::int64_t>(value * 1000 + 0.5)};
}

std::string joined(const statement& s) {
  std::string out;
  for (const std::string& w : s.words) out += (out.empty() ? "" : " ") + w;
  return out;
}

void left_out(draft& d, const statement& s, const std::string& where) {
  const auto* known = find_key(known_keys, s.word(0));
  if (known != nullptr && known->why.empty()) return;
  d.note(s.line, where + ": " + joined(s),
         std::string{"not carried over: "} +
             std::string{known != nullptr ? known->why : "this key is not known"});
}

bool read_timing(draft& d, const statement& s, const std::string& where, timing& t) {
  const std::string_view key = s.word(0);
  if (key == "delay_loop" || key == "connect_timeout") {
    const auto value = seconds(s.word(1));
    if (!value)
      d.note(s.line, where + ": " + joined(s), "is no time from 0.01 to 3600 seconds");
    else
      (key == "delay_loop" ? t.interval : t.timeout) = *value;
    return true;
  }
  if (key == "retry" || key == "nb_get_retry") {
    const auto value = number(s.word(1), 999);
    if (!value)
      d.note(s.line, where + ": " + joined(s), "is no number up to 999");
    else
      t.retry = *value;
    return true;
  }
  return false;
}

}  // namespace sluice::importing
