// SPDX-License-Identifier: Apache-2.0
// file_source: backends from a file of the form of services.yaml's backends, read again when it
// has changed: seen by inotify on its directory (a file that is replaced, a symbolic link that
// is moved on), and by a look every 10 s where inotify does not tell (network file systems).
// Read and parsed on a thread of its own.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <string>

#include "controlplane/discover/source.hpp"

namespace sluice::discover {

class file_source final : public source {
 public:
  file_source(event_loop& loop, std::string path, on_report report_to);
  ~file_source() override;
  void start() override;
  void stop() override;

 private:
  struct stamp {
    std::uint64_t device{}, inode{}, size{}, changed_ns{};
    bool operator==(const stamp&) const = default;
  };
  [[nodiscard]] stamp look() const;
  void watch();
  void on_events();
  void check();
  void read();

  event_loop& loop_;
  const std::string path_;
  on_report report_to_;
  int inotify_{-1};
  int watched_{-1};
  bool started_{false};
  stamp seen_;  // of the last reading
  bool read_once_{false};
  bool reading_{false};
  event_loop::timer_id settle_timer_{0};
  event_loop::timer_id look_timer_{0};
  std::shared_ptr<bool> here_{std::make_shared<bool>(true)};  // gone when this is
  std::future<void> work_;                                    // waited for at the end
};

}  // namespace sluice::discover
