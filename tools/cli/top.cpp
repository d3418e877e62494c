// SPDX-License-Identifier: Apache-2.0
// top: services, backends, workers and drops on the whole screen, again and again.
#include <unistd.h>
#include <clocale>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

#include "dataplane/abi/utf8.hpp"
#include "tools/cli/commands.hpp"
#include "tools/cli/top_screen.hpp"

// After what is ours: without the macros that would rewrite it.
#define NCURSES_NOMACROS 1
#include <curses.h>

namespace sluice::cli {

namespace {

using std::chrono::steady_clock;

volatile std::sig_atomic_t top_ends = 0;

look take_look(client& api) {
  look l;
  l.status = api.get("/v1/status");
  l.services = api.get("/v1/services");
  l.backends = api.get("/v1/backends");
  l.stats = api.get("/v1/stats");
  l.workers = api.get("/v1/workers");
  l.drops = api.get("/v1/drops");
  l.when = steady_clock::now();
  return l;
}

// terminal: the screen while it is ours, whatever ends it.
class terminal {
 public:
  terminal() {
    std::setlocale(LC_ALL, "");
    screen_ = ::newterm(nullptr, stdout, stdin);
    if (screen_ == nullptr)
      throw failure("top: this terminal cannot be used ($TERM); sluice stats --watch does without");
    ::cbreak();
    ::noecho();
    ::curs_set(0);
    ::keypad(::stdscr, true);
    if (::has_colors()) {
      ::start_color();
      ::use_default_colors();
      ::init_pair(1, COLOR_GREEN, -1);
      ::init_pair(2, COLOR_RED, -1);
    }
  }
  terminal(const terminal&) = delete;
  terminal& operator=(const terminal&) = delete;
  ~terminal() {
    ::endwin();
    ::delscreen(screen_);
  }

  [[nodiscard]] static int rows() { return ::getmaxy(::stdscr); }
  [[nodiscard]] static int columns() { return ::getmaxx(::stdscr); }
  // key() waits for at most so long; ERR: there was none.
  [[nodiscard]] static int key(std::chrono::milliseconds wait) {
    ::wtimeout(::stdscr, static_cast<int>(wait.count()));
    return ::wgetch(::stdscr);
  }

  static void put(int y, const top_line& line) {
    std::string text = line.text;
    // What comes from elsewhere is not to move the cursor.
    for (char& c : text)
      if (is_control(c)) c = '?';
    const auto width = static_cast<std::size_t>(std::max(columns(), 1));
    if (text.size() > width) text.resize(width);
    const chtype how = attribute(line.style);
    ::wattron(::stdscr, static_cast<int>(how));
    ::mvwaddstr(::stdscr, y, 0, text.c_str());
    ::wattroff(::stdscr, static_cast<int>(how));
  }

 private:
  static chtype attribute(line_style s) {
    switch (s) {
      case line_style::plain:
        return A_NORMAL;
      case line_style::title:
        return A_REVERSE;
      case line_style::good:
        return A_BOLD | (::has_colors() ? static_cast<chtype>(COLOR_PAIR(1)) : A_NORMAL);
      case line_style::bad:
        return A_BOLD | (::has_colors() ? static_cast<chtype>(COLOR_PAIR(2)) : A_NORMAL);
      case line_style::dim:
        return A_DIM;
    }
    return A_NORMAL;
  }

  SCREEN* screen_;
};

class top_command {
 public:
  top_command(client api, double interval_s)
      : api_{std::move(api)},
        interval_{std::chrono::duration_cast<steady_clock::duration>(
            std::chrono::duration<double>{interval_s})} {
    now_ = take_look(api_);  // before the screen is taken: what is wrong is told on stderr
  }

  void run() {
    terminal screen;
    while (top_ends == 0) {
      draw();
      const auto next = now_tried_ + interval_;
      while (top_ends == 0 && steady_clock::now() < next) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(next - steady_clock::now());
        const int key = terminal::key(
            std::clamp(left, std::chrono::milliseconds{1}, std::chrono::milliseconds{100}));
        if (key == ERR) continue;
        if (!take(key)) return;
        draw();
      }
      refresh_look();
    }
  }

 private:
  void refresh_look() {
    now_tried_ = steady_clock::now();
    try {
      look fresh = take_look(api_);
      before_ = std::exchange(now_, std::move(fresh));
      problem_.clear();
    } catch (const failure& e) {
      problem_ = "no answer, what is shown is old: " + std::string{e.what()};
    }
  }

  // take() does what a key asks for; false: to end.
  bool take(int key) {
    const int page = std::max(1, terminal::rows() - 9);
    switch (key) {
      case 'q':
      case 'Q':
        return false;
      case '1':
      case 's':
        show(top_view::services);
        break;
      case '2':
      case 'w':
        show(top_view::workers);
        break;
      case '3':
      case 'd':
        show(top_view::drops);
        break;
      case 'b':
        folded_ = !folded_;
        first_ = 0;
        break;
      case KEY_DOWN:
      case 'j':
        ++first_;
        break;
      case KEY_UP:
      case 'k':
        --first_;
        break;
      case KEY_NPAGE:
      case ' ':
        first_ += page;
        break;
      case KEY_PPAGE:
        first_ -= page;
        break;
      case KEY_HOME:
        first_ = 0;
        break;
      default:
        break;
    }
    return true;
  }

  void show(top_view v) {
    view_ = v;
    first_ = 0;
  }

  void draw() {
    const auto width = static_cast<std::size_t>(std::max(terminal::columns(), 20));
    const top_page page = make_page(now_, before_, view_, folded_, width);
    const int rows = terminal::rows();
    ::werase(::stdscr);
    int y = 0;
    for (const top_line& line : page.head)
      if (y < rows) terminal::put(y++, line);
    const int room = std::max(0, rows - y - 1);
    const int size = static_cast<int>(page.body.size());
    first_ = std::clamp(first_, 0, std::max(0, size - room));
    for (int i = 0; i < room && first_ + i < size; ++i)
      terminal::put(y++, page.body[static_cast<std::size_t>(first_ + i)]);
    if (rows > 1) {
      std::string foot = "q quit  1 services  2 workers  3 drops  b backends";
      if (size > room)
        foot += "  " + std::to_string(first_ + 1) + "-" + std::to_string(first_ + room) + " of " +
                std::to_string(size) + " (arrows)";
      terminal::put(rows - 1, problem_.empty() ? top_line{foot, line_style::dim}
                                               : top_line{problem_, line_style::bad});
    }
    ::wrefresh(::stdscr);
  }

  client api_;
  steady_clock::duration interval_;
  look now_;
  look before_;
  steady_clock::time_point now_tried_{steady_clock::now()};
  std::string problem_;
  top_view view_{top_view::services};
  bool folded_{false};
  int first_{0};  // line of the body that is shown at the top
};

}  // namespace

void register_top(CLI::App& app, context& c) {
  static double interval = 1.0;
  CLI::App* top = app.add_subcommand(
      "top",
      "Services, backends, workers and drops on the whole screen, with rates, once a second.\n"
      "Keys: q ends; 1, 2, 3: services, workers, drops; b: with or without backends; arrows.\n"
      "Example: sluice top --interval 2");
  top->add_option("--interval", interval, "seconds between two looks")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  top->callback([&c] {
    if (c.output != format::table)
      throw CLI::ValidationError("--output", "top is for people; sluice stats prints objects");
    if (::isatty(STDIN_FILENO) != 1 || ::isatty(STDOUT_FILENO) != 1)
      throw failure("top: wants a terminal; sluice stats --watch does without");
    std::signal(SIGINT, [](int) { top_ends = 1; });
    std::signal(SIGTERM, [](int) { top_ends = 1; });
    // A screen that stands still for long is worse than one that says so.
    top_command{client{c.api, std::chrono::seconds{std::min(c.timeout_s, 3)}}, interval}.run();
  });
}

}  // namespace sluice::cli
