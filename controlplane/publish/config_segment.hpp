// SPDX-License-Identifier: Apache-2.0
// config_segment: the memory of a config segment (dataplane/abi/service_table.hpp), in
// the shared file or, for tests, fuzzing and replay, in anonymous memory.
// One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::publish {

class config_segment {
 public:
  template <class T>
  using result = tl::expected<T, std::string>;

  // create_file() puts a new file in the place of `path`. The file is sparse: memory is
  // taken as tables come.
  [[nodiscard]] static result<config_segment> create_file(const std::string& path,
                                                          const abi::config_limits& limits);
  // attach_file() maps an existing one, writable; refuses impossible limits and sizes.
  [[nodiscard]] static result<config_segment> attach_file(const std::string& path);
  [[nodiscard]] static result<config_segment> in_memory(const abi::config_limits& limits);

  [[nodiscard]] std::byte* data() const noexcept { return file_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return file_.size(); }
  [[nodiscard]] const abi::config_limits& limits() const noexcept { return limits_; }
  [[nodiscard]] const abi::config_layout& layout() const noexcept { return layout_; }
  [[nodiscard]] abi::config_control& control() const noexcept;
  [[nodiscard]] std::uint64_t instance() const noexcept;

  // reserve() has the file system set memory aside for a range before it is written:
  // a full tmpfs is an error here and would be SIGBUS there.
  [[nodiscard]] result<void> reserve(std::uint64_t offset, std::uint64_t bytes);

  // view() opens the current generation; empty when nothing was published or it is damaged.
  [[nodiscard]] abi::config_view view() const noexcept;

 private:
  config_segment(abi::mapped_file file, const abi::config_limits& limits);

  abi::mapped_file file_;
  abi::config_limits limits_;
  abi::config_layout layout_;
  void prefer_huge(std::uint64_t offset) noexcept;

  std::vector<bool> reserved_;  // per chunk; empty in memory
};

}  // namespace sluice::publish
