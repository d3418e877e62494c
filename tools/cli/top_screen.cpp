// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/top_screen.hpp"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "tools/cli/output.hpp"

namespace sluice::cli {

namespace {

const json& at(const json& o, const char* key) {
  static const json nothing;
  const auto it = o.is_object() ? o.find(key) : o.end();
  return o.is_object() && it != o.end() ? *it : nothing;
}

std::string word(const json& o, const char* key) {
  return cell_of(at(o, key));
}

double count(const json& o, const char* key) {
  const json& v = at(o, key);
  return v.is_number() ? v.get<double>() : 0.0;
}

// rates: what has been counted since, per second.
class rates {
 public:
  rates(const look& now, const look& before) {
    if (before.stats.is_object())
      seconds_ = std::chrono::duration<double>(now.when - before.when).count();
  }
  [[nodiscard]] bool known() const noexcept { return seconds_ > 0; }
  [[nodiscard]] double of(const json& now, const json& before, const char* key) const {
    // What begins anew (a data plane that was restarted) counts from 0.
    return known() ? std::max(0.0, count(now, key) - count(before, key)) / seconds_ : 0.0;
  }
  [[nodiscard]] std::string text(const json& now, const json& before, const char* key) const {
    return known() ? human(of(now, before, key)) : std::string{"-"};
  }

 private:
  double seconds_{0};
};

const json& find_by(const json& list, const char* key, const json& value) {
  static const json nothing;
  if (list.is_array())
    for (const json& o : list)
      if (at(o, key) == value) return o;
  return nothing;
}

std::string share_text(const json& v) {
  return v.is_number() ? fmt::format("{:.1f}%", v.get<double>() * 100.0) : std::string{"-"};
}

void add_head(top_page& page, const look& now, const look& before, const rates& r) {
  const json& s = now.status;
  const json& d = at(s, "dataplane");
  const json& services = at(s, "services");
  const json& backends = at(s, "backends");
  const bool running = at(d, "state") == "running";
  page.head.push_back(
      {fmt::format("sluice {}{}  revision {}  generation {}  data plane {}, {} workers",
                   word(s, "node"), at(s, "drained").is_object() ? " (drained)" : "",
                   word(s, "revision"), word(s, "generation"), word(d, "state"),
                   word(d, "workers")),
       running ? line_style::title : line_style::bad});
  const json& total = at(now.stats, "total");
  const json& was = at(before.stats, "total");
  page.head.push_back(
      {fmt::format("packets/s  in {}  forwarded {}  to kernel {}  dropped {}  by stand-in {}",
                   r.text(total, was, "rx_packets"), r.text(total, was, "forwarded"),
                   r.text(total, was, "to_kernel"), r.text(total, was, "dropped"),
                   r.text(total, was, "standin_forwarded"))});
  const json& c = at(s, "connections");
  page.head.push_back({fmt::format(
      "services {} ({} down)  backends {} ({} down, {} draining)  connections {} of {}",
      word(services, "total"), word(services, "down"), word(backends, "total"),
      word(backends, "down"), word(backends, "draining"), human(count(c, "tracked")),
      human(count(c, "capacity")))});
  // What is dropped now, the worst first.
  std::vector<std::pair<double, std::string>> worst;
  for (const json& reason : at(now.drops, "drops")) {
    const json& old = find_by(at(before.drops, "drops"), "reason", at(reason, "reason"));
    if (const double rate = r.of(reason, old, "packets"); rate > 0)
      worst.emplace_back(rate, word(reason, "reason"));
  }
  std::sort(worst.begin(), worst.end(), std::greater<>{});
  std::string drops = "drops/s    ";
  for (std::size_t i = 0; i < std::min<std::size_t>(worst.size(), 4); ++i)
    drops += fmt::format("{}{} {}", i == 0 ? "" : "  ", worst[i].second, human(worst[i].first));
  page.head.push_back({worst.empty() ? drops + "none" : drops,
                       worst.empty() ? line_style::plain : line_style::bad});
  std::string busy = "workers    ";
  for (const json& w : at(now.workers, "workers"))
    busy += fmt::format("{}:{} ", word(w, "id"),
                        at(w, "state") == "running" ? share_text(at(w, "busy")) : word(w, "state"));
  page.head.push_back({busy});
  const json& warnings = at(s, "warnings");
  const std::size_t n = warnings.is_array() ? warnings.size() : 0;
  page.head.push_back({n == 0   ? std::string{}
                       : n == 1 ? "warning: " + cell_of(warnings[0])
                                : fmt::format("{} warnings: {}", n, cell_of(warnings[0])),
                       line_style::bad});
}

// A row: a name that takes what width is left, then columns of fixed width.
struct cell {
  std::string text;
  std::size_t width;
};
// Where there is too little room for the name, the last columns go.
std::string row(const std::string& name, const std::vector<cell>& cells, std::size_t width) {
  constexpr std::size_t shortest_name = 16;
  std::size_t shown = cells.size();
  std::size_t fixed = 0;
  for (const cell& c : cells) fixed += c.width + 1;
  while (shown > 1 && fixed + shortest_name > width) fixed -= cells[--shown].width + 1;
  std::string out = fit(name, width > fixed + shortest_name ? width - fixed : shortest_name);
  for (std::size_t i = 0; i < shown; ++i) out += " " + fit(cells[i].text, cells[i].width, i != 0);
  return out;
}

line_style style_of(const std::string& state) {
  if (state == "up" || state == "in use" || state == "unchecked") return line_style::plain;
  if (state == "down" || state == "degraded" || state == "panic" || state == "unreachable" ||
      state == "forced down" || state == "flapping")
    return line_style::bad;
  return line_style::dim;
}

void add_services(top_page& page, const look& now, const look& before, const rates& r, bool folded,
                  std::size_t width) {
  page.head.push_back({row("SERVICE / BACKEND",
                           {{"STATE", 11},
                            {"UP/WGT", 7},
                            {"SHARE", 6},
                            {"CONN", 7},
                            {"PKT/S", 7},
                            {"BYTE/S", 7},
                            {"NEW/S", 6}},
                           width),
                       line_style::title});
  std::map<std::pair<std::string, std::string>, const json*> known;
  for (const json& b : at(now.backends, "backends"))
    known[{word(b, "service"), word(b, "address")}] = &b;
  for (const json& s : at(now.stats, "services")) {
    const json& about = find_by(at(now.services, "services"), "name", at(s, "name"));
    const json& was = find_by(at(before.stats, "services"), "name", at(s, "name"));
    const std::string state = at(about, "panic") == true ? "panic" : word(about, "state");
    page.body.push_back({row(word(s, "name"),
                             {{state, 11},
                              {word(about, "backends_up") + "/" + word(about, "backends_total"), 7},
                              {"", 6},
                              {human(count(s, "connections")), 7},
                              {r.text(s, was, "packets"), 7},
                              {r.text(s, was, "bytes"), 7},
                              {r.text(s, was, "connections_opened"), 6}},
                             width),
                         style_of(state) == line_style::bad ? line_style::bad : line_style::good});
    if (folded) continue;
    for (const json& b : at(s, "backends")) {
      const auto it = known.find({word(s, "name"), word(b, "address")});
      static const json nothing;
      const json& more = it == known.end() ? nothing : *it->second;
      const json& old = find_by(at(was, "backends"), "address", at(b, "address"));
      const std::string standing = word(more, "standing");
      page.body.push_back({row("  " + word(b, "address"),
                               {{standing, 11},
                                {word(more, "effective_weight"), 7},
                                {share_text(at(more, "share")), 6},
                                {human(count(b, "connections")), 7},
                                {r.text(b, old, "packets"), 7},
                                {r.text(b, old, "bytes"), 7},
                                {r.text(b, old, "connections_opened"), 6}},
                               width),
                           style_of(standing)});
    }
  }
  if (page.body.empty()) page.body.push_back({"no services", line_style::dim});
}

void add_workers(top_page& page, const look& now, const look& before, const rates& r,
                 std::size_t width) {
  page.head.push_back({row("WORKER",
                           {{"STATE", 9},
                            {"CPU", 4},
                            {"NUMA", 4},
                            {"BUSY", 6},
                            {"RX/S", 7},
                            {"TX/S", 7},
                            {"CONN", 7},
                            {"ROOM", 7}},
                           width),
                       line_style::title});
  for (const json& w : at(now.workers, "workers")) {
    const json& old = find_by(at(before.workers, "workers"), "id", at(w, "id"));
    std::string ports;
    for (const json& p : at(w, "ports")) ports += (ports.empty() ? "" : ",") + cell_of(p);
    page.body.push_back({row(word(w, "id") + " " + ports,
                             {{word(w, "state"), 9},
                              {word(w, "cpu"), 4},
                              {word(w, "numa_node"), 4},
                              {share_text(at(w, "busy")), 6},
                              {r.text(w, old, "rx_packets"), 7},
                              {r.text(w, old, "tx_packets"), 7},
                              {human(count(w, "connections")), 7},
                              {human(count(w, "capacity")), 7}},
                             width),
                         at(w, "state") == "running" ? line_style::plain : line_style::bad});
  }
  if (page.body.empty())
    page.body.push_back({"no workers: the data plane is not running", line_style::bad});
}

void add_drops(top_page& page, const look& now, const look& before, const rates& r,
               std::size_t width) {
  const std::size_t meaning = width > 44 ? width - 44 : 8;
  page.head.push_back({fit("REASON", 22) + " " + fit("PACKETS", 11, true) + " " +
                           fit("PKT/S", 7, true) + "  " + fit("MEANING", meaning),
                       line_style::title});
  for (const json& d : at(now.drops, "drops")) {
    if (count(d, "packets") == 0) continue;
    const json& old = find_by(at(before.drops, "drops"), "reason", at(d, "reason"));
    std::string text = word(d, "text");
    if (text.size() > meaning) text.resize(meaning);
    page.body.push_back({fit(word(d, "reason"), 22) + " " + fit(word(d, "packets"), 11, true) +
                             " " + fit(r.text(d, old, "packets"), 7, true) + "  " + text,
                         r.of(d, old, "packets") > 0 ? line_style::bad : line_style::plain});
  }
  if (page.body.empty()) page.body.push_back({"nothing was dropped", line_style::dim});
}

}  // namespace

std::string fit(std::string text, std::size_t width, bool right) {
  if (text.size() > width) {
    text.erase(0, text.size() - width);
    if (!text.empty()) text[0] = '~';
  }
  text.insert(right ? 0 : text.size(), width - text.size(), ' ');
  return text;
}

top_page make_page(const look& now, const look& before, top_view view, bool folded,
                   std::size_t width) {
  top_page page;
  const rates r{now, before};
  add_head(page, now, before, r);
  switch (view) {
    case top_view::services:
      add_services(page, now, before, r, folded, width);
      break;
    case top_view::workers:
      add_workers(page, now, before, r, width);
      break;
    case top_view::drops:
      add_drops(page, now, before, r, width);
      break;
  }
  return page;
}

}  // namespace sluice::cli
