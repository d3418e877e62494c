// SPDX-License-Identifier: Apache-2.0
// Loads a compiled BPF object into the kernel and runs its program over single frames
// (BPF_PROG_TEST_RUN). Needs root.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "dataplane/abi/bpf_abi.h"
#include "dataplane/abi/bpf_objects.hpp"
#include "tests/unit/bpf/frame.hpp"

namespace sluice::test {

struct run_result {
  std::uint32_t verdict{};
  bytes frame;
};

class program {
 public:
  program(const char* object, const char* name)
      : object_{bpf_object__open_file(find_bpf_object(object).c_str(), nullptr)} {
    if (!object_) throw std::runtime_error{std::string{"cannot open "} + object + ".bpf.o"};
    if (bpf_object__load(object_.get()) != 0)
      throw std::runtime_error{std::string{"the kernel refuses "} + object + ".bpf.o"};
    select(name);
  }

  // select() takes another program of the object; the maps are the same.
  void select(const char* name) {
    bpf_program* found = bpf_object__find_program_by_name(object_.get(), name);
    if (!found) throw std::runtime_error{std::string{"no program "} + name};
    fd_ = bpf_program__fd(found);
  }

  [[nodiscard]] int fd() const noexcept { return fd_; }

  [[nodiscard]] int map(const char* name) const {
    const int fd = bpf_object__find_map_fd_by_name(object_.get(), name);
    if (fd < 0) throw std::runtime_error{std::string{"no map "} + name};
    return fd;
  }

  template <typename Key, typename Value>
  void put(const char* name, const Key& key, const Value& value) const {
    if (bpf_map_update_elem(map(name), &key, &value, BPF_ANY) != 0)
      throw std::runtime_error{std::string{"update of "} + name + ": " + std::strerror(errno)};
  }

  // mark: of the packet, for programs of tc.
  [[nodiscard]] run_result run(const bytes& frame, std::uint32_t mark = 0) const {
    __sk_buff context{};
    context.mark = mark;
    run_result result;
    result.frame.resize(frame.size() + 256);
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = frame.data();
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.data_out = result.frame.data();
    options.data_size_out = static_cast<std::uint32_t>(result.frame.size());
    options.repeat = 1;
    if (mark != 0) {
      options.ctx_in = &context;
      options.ctx_size_in = sizeof context;
    }
    if (const int error = bpf_prog_test_run_opts(fd_, &options); error != 0)
      throw std::runtime_error{std::string{"test run: "} + std::strerror(-error)};
    result.verdict = options.retval;
    result.frame.resize(options.data_size_out);
    return result;
  }

  // counters() sums a per-CPU array over the CPUs.
  [[nodiscard]] std::vector<std::uint64_t> counters(const char* name, std::uint32_t entries) const {
    std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(libbpf_num_possible_cpus()));
    std::vector<std::uint64_t> sums(entries);
    for (std::uint32_t i = 0; i < entries; ++i) {
      if (bpf_map_lookup_elem(map(name), &i, per_cpu.data()) != 0)
        throw std::runtime_error{std::string{"lookup in "} + name};
      for (const std::uint64_t value : per_cpu) sums[i] += value;
    }
    return sums;
  }

 private:
  struct closer {
    void operator()(bpf_object* object) const noexcept { bpf_object__close(object); }
  };
  std::unique_ptr<bpf_object, closer> object_;
  int fd_{-1};
};

// counted() returns the index of the one counter that `after` has one more of.
inline int counted(const std::vector<std::uint64_t>& before,
                   const std::vector<std::uint64_t>& after) {
  int index = -1;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (after[i] == before[i]) continue;
    if (after[i] != before[i] + 1 || index >= 0) return -2;
    index = static_cast<int>(i);
  }
  return index;
}

}  // namespace sluice::test
