// SPDX-License-Identifier: Apache-2.0
// stats and drops: what was counted, once or again and again.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <iostream>
#include <thread>

#include <fmt/format.h>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

volatile std::sig_atomic_t interrupted = 0;

// repeat() calls once(previous answer or null) each interval until Ctrl-C.
template <class Once>
void repeat(bool watch, double interval, Once&& once) {
  json previous;
  if (!watch) {
    once(previous, 0.0);
    return;
  }
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::signal(SIGTERM, [](int) { interrupted = 1; });
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  auto last = std::chrono::steady_clock::now();
  while (interrupted == 0 && std::cout) {
    const auto now = std::chrono::steady_clock::now();
    if (terminal) std::cout << "\x1b[H\x1b[2J";
    once(previous, std::chrono::duration<double>(now - last).count());
    last = now;
    std::cout.flush();
    for (int i = 0; i < 10 && interrupted == 0; ++i)
      std::this_thread::sleep_for(std::chrono::duration<double>(interval / 10));
  }
}

double value_of(const json& o, const char* key) {
  return o.is_object() && o.contains(key) && o[key].is_number() ? o[key].get<double>() : 0.0;
}

// with_rates() adds "<key>_rate" (per second) from the answer before.
void with_rates(json& now, const json& before, double seconds,
                std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (before.is_object() && seconds > 0)
      now[std::string{key} + "_rate"] = (value_of(now, key) - value_of(before, key)) / seconds;
  }
}

const json* by_key(const json& list, const char* key, const json& value) {
  if (!list.is_array()) return nullptr;
  for (const json& o : list)
    if (o.contains(key) && o[key] == value) return &o;
  return nullptr;
}

column rate(std::string title, const char* key) {
  return {std::move(title),
          [key = std::string{key} + "_rate"](const json& o) {
            return o.contains(key) ? human(o[key].get<double>()) : std::string{"-"};
          },
          true};
}

void show_stats(const context& c, const std::string& service, json& previous, double seconds) {
  json s = c.connect().get("/v1/stats", service.empty() ? query{} : query{{"service", service}});
  const json plain = s;
  if (c.output != format::table) {
    print_object(std::cout, c.output, s);
  } else {
    const bool rates = previous.is_object();
    json& total = s["total"];
    with_rates(total, previous.is_object() ? previous["total"] : json{}, seconds,
               {"rx_packets", "forwarded", "dropped", "to_kernel", "standin_forwarded"});
    print_table(
        std::cout,
        rates
            ? std::vector<column>{rate("RX/S", "rx_packets"), rate("FORWARDED/S", "forwarded"),
                                  rate("TO KERNEL/S", "to_kernel"), rate("DROPPED/S", "dropped"),
                                  rate("BY STAND-IN/S", "standin_forwarded")}
            : std::vector<column>{number("RX PACKETS", "rx_packets"),
                                  number("RX BYTES", "rx_bytes"),
                                  number("TX PACKETS", "tx_packets"),
                                  number("TX BYTES", "tx_bytes"), number("FORWARDED", "forwarded"),
                                  number("TO KERNEL", "to_kernel"), number("DROPPED", "dropped"),
                                  number("BY STAND-IN", "standin_forwarded")},
        json::array({total}), "");
    json rows = json::array();
    for (json& v : s["services"]) {
      const json* before = rates ? by_key(previous["services"], "name", v["name"]) : nullptr;
      const json backends = v.value("backends", json::array());
      json row = v;
      row["what"] = v["name"];
      if (before != nullptr)
        with_rates(row, *before, seconds, {"packets", "bytes", "connections_opened"});
      rows.push_back(row);
      for (json b : backends) {
        const json* was =
            before != nullptr ? by_key((*before)["backends"], "address", b["address"]) : nullptr;
        if (was != nullptr)
          with_rates(b, *was, seconds, {"packets", "bytes", "connections_opened"});
        b["what"] = "  " + cell_of(b["address"]);
        rows.push_back(b);
      }
    }
    std::cout << "\n";
    std::vector<column> columns{field("SERVICE / BACKEND", "what"),
                                number("PACKETS", "packets"),
                                number("BYTES", "bytes"),
                                number("OPENED", "connections_opened"),
                                number("CONNECTIONS", "connections"),
                                number("RESETS", "resets")};
    if (rates) {
      columns.push_back(rate("PACKETS/S", "packets"));
      columns.push_back(rate("BYTES/S", "bytes"));
      columns.push_back(rate("OPENED/S", "connections_opened"));
    }
    print_table(std::cout, columns, rows, "no services");
  }
  previous = plain;
}

void show_drops(const context& c, bool all, json& previous, double seconds) {
  const json answer = c.connect().get("/v1/drops");
  if (c.output != format::table) {
    print_object(std::cout, c.output, answer);
  } else {
    json rows = json::array();
    for (json d : answer.value("drops", json::array())) {
      if (previous.is_object())
        if (const json* was = by_key(previous["drops"], "reason", d["reason"]))
          with_rates(d, *was, seconds, {"packets"});
      if (all || value_of(d, "packets") > 0) rows.push_back(d);
    }
    std::vector<column> columns{field("REASON", "reason"), number("PACKETS", "packets")};
    if (previous.is_object()) columns.push_back(rate("PACKETS/S", "packets"));
    columns.push_back(field("MEANING", "text"));
    print_table(std::cout, columns, rows,
                "nothing was dropped (--all shows every reason there is)");
  }
  previous = answer;
}

void add_watch(CLI::App& command, bool& watch, double& interval) {
  command.add_flag("-w,--watch", watch, "again and again, with rates, until Ctrl-C");
  command.add_option("--interval", interval, "seconds between two looks")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
}

}  // namespace

void register_counters(CLI::App& app, context& c) {
  static bool watch = false;
  static double interval = 1.0;

  CLI::App* stats = app.add_subcommand("stats",
                                       "Packets, bytes and connections, by service and backend.\n"
                                       "Example: sluice stats --service web --watch");
  static std::string service;
  stats->add_option("--service", service, "only this service")
      ->type_name("NAME")
      ->check(not_empty());
  add_watch(*stats, watch, interval);
  add_output(*stats, c);
  stats->callback([&c] {
    repeat(watch, interval,
           [&](json& previous, double seconds) { show_stats(c, service, previous, seconds); });
  });

  CLI::App* drops = app.add_subcommand(
      "drops",
      "Packets that ended anywhere but at a backend, by reason.\nExample: sluice drops --all");
  static bool all = false;
  drops->add_flag("-a,--all", all, "also the reasons that never happened");
  add_watch(*drops, watch, interval);
  add_output(*drops, c);
  drops->callback([&c] {
    repeat(watch, interval,
           [&](json& previous, double seconds) { show_drops(c, all, previous, seconds); });
  });
}

}  // namespace sluice::cli
