// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/file_source.hpp"

#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <utility>

#include "controlplane/config/config.hpp"

namespace sluice::discover {
namespace {

using namespace std::chrono_literals;

constexpr auto settle = 50ms;  // a writer that writes in pieces
constexpr auto look_every = 10s;

report read_report(const std::string& path) {
  const auto text = read_text_file(path);
  if (!text) return tl::unexpected{text.error().to_string()};
  auto list = config::parse_backend_list(*text, path);
  if (!list) {
    const std::size_t more = list.error().size() - 1;
    return tl::unexpected{list.error().front().to_string() +
                          (more != 0 ? " (and " + std::to_string(more) + " more)" : "")};
  }
  std::vector<found> out;
  out.reserve(list->size());
  for (const model::backend& b : *list) out.push_back({b, true});
  return out;
}

}  // namespace

file_source::file_source(event_loop& loop, std::string path, on_report report_to)
    : loop_{loop}, path_{std::move(path)}, report_to_{std::move(report_to)} {}

file_source::~file_source() {
  stop();
}

auto file_source::look() const -> stamp {
  struct stat s {};
  if (::stat(path_.c_str(), &s) != 0) return {};
  return {s.st_dev, s.st_ino, static_cast<std::uint64_t>(s.st_size),
          static_cast<std::uint64_t>(s.st_mtim.tv_sec) * 1'000'000'000u +
              static_cast<std::uint64_t>(s.st_mtim.tv_nsec)};
}

void file_source::start() {
  if (std::exchange(started_, true)) return;
  inotify_ = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (inotify_ >= 0 && loop_.add_fd(inotify_, EPOLLIN, [this](std::uint32_t) { on_events(); })) {
    ::close(inotify_);
    inotify_ = -1;
  }
  check();
}

void file_source::stop() {
  if (!std::exchange(started_, false)) return;
  loop_.cancel(std::exchange(settle_timer_, 0));
  loop_.cancel(std::exchange(look_timer_, 0));
  if (inotify_ >= 0) {
    loop_.remove_fd(inotify_);
    ::close(std::exchange(inotify_, -1));
  }
  watched_ = -1;
  here_ = std::make_shared<bool>(true);  // what is being read is of no interest any more
  reading_ = false;
  read_once_ = false;
}

// watch() sees to it that the directory is watched; one that was made again, too.
void file_source::watch() {
  if (inotify_ < 0) return;
  std::string directory = path_.substr(0, path_.rfind('/'));
  if (directory.empty()) directory = "/";
  watched_ = ::inotify_add_watch(
      inotify_, directory.c_str(),
      IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_DELETE_SELF);
}

void file_source::on_events() {
  alignas(inotify_event) std::array<char, 4096> buffer{};
  while (::read(inotify_, buffer.data(), buffer.size()) > 0) {
  }
  if (settle_timer_ != 0) return;
  settle_timer_ = loop_.call_after(settle, [this] {
    settle_timer_ = 0;
    check();
  });
}

void file_source::check() {
  watch();
  loop_.cancel(look_timer_);
  look_timer_ = loop_.call_after(look_every, [this] { check(); });
  if (!reading_ && (!read_once_ || look() != seen_)) read();
}

void file_source::read() {
  seen_ = look();
  read_once_ = reading_ = true;
  // A start after a stop: the reading before ends first.
  work_ = std::async(std::launch::async,
                     [this, &loop = loop_, path = path_, here = std::weak_ptr{here_}] {
                       auto result = std::make_shared<report>(read_report(path));
                       loop.post([this, here, result] {
                         if (here.expired()) return;
                         reading_ = false;
                         report_to_(std::move(*result));
                         // What was written meanwhile.
                         if (!here.expired() && started_ && look() != seen_) read();
                       });
                     });
}

}  // namespace sluice::discover
