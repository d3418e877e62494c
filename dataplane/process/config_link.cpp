// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/config_link.hpp"

#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <utility>

#include "dataplane/abi/generation.hpp"

namespace sluice {

config_link::identity config_link::look() const noexcept {
  struct stat st {};
  if (::stat(path_.c_str(), &st) != 0) return {};
  return {static_cast<std::uint64_t>(st.st_ino),
          std::int64_t{st.st_ctim.tv_sec} * 1'000'000'000 + st.st_ctim.tv_nsec};
}

abi::config_view config_link::offered_view() const noexcept {
  abi::config_view view;
  if (!current_) return view;
  const abi::generation_word now{current_->current().load(std::memory_order_acquire)};
  if (now.none() || !current_->open(now.slot(), view)) return {};
  return view;
}

void config_link::poll(const usage& in_use) {
  if (current_ && current_->damaged() &&
      std::exchange(said_damaged_, current_.get()) != current_.get())
    spdlog::error(
        "{} was cut short while in use: services whose tables are gone drop their packets "
        "until sluice-controlplane makes a new one",
        path_);
  const identity file = look();
  if (file.inode == 0) {
    candidate_.reset();
    refused_ = {};
    if (!current_ && !std::exchange(said_waiting_, true))
      spdlog::warn(
          "{} is not there yet: waiting for sluice-controlplane; until then nothing is "
          "forwarded",
          path_);
  } else {
    const auto is_file = [&file](const std::unique_ptr<attached_config>& c) {
      return c && !c->damaged() && c->inode() == file.inode;
    };
    if (!is_file(current_) && !is_file(candidate_) && file != refused_) attach(file);
  }
  if (candidate_) offer();
  std::erase_if(retired_, [&](const std::unique_ptr<attached_config>& old) {
    return !in_use.by_any(old.get());
  });
  instance_ = current_ && in_use.by_all(current_.get()) ? current_->instance() : 0;
}

void config_link::attach(const identity& file) {
  auto attached = attached_config::attach(path_, service_rows_, backend_rows_);
  if (!attached) {
    refused_ = file;
    spdlog::error("tables refused: {}{}", attached.error(),
                  current_ ? "; going on with the tables from before" : "");
    return;
  }
  refused_ = {};
  candidate_ = std::move(*attached);
}

// offer() gives the candidate to the workers. While they have another segment only once
// something good is published in the new one: tables of yesterday beat none.
void config_link::offer() {
  if (current_) {
    const abi::generation_word now{candidate_->current().load(std::memory_order_acquire)};
    abi::config_view view;
    if (now.none() || !candidate_->open(now.slot(), view)) return;
    retired_.push_back(std::move(current_));
  }
  current_ = std::move(candidate_);
  // seq_cst, as the workers' announcement of what they use: before the question who uses
  // the old one.
  wanted_.store(current_.get(), std::memory_order_seq_cst);
  spdlog::info("tables attached: {}", path_);
}

}  // namespace sluice
