// SPDX-License-Identifier: Apache-2.0
// probe_program: the two tc programs of bpf/probe.bpf.c, loaded by this process, their maps,
// and where they are attached. A filter is found by its priority and handle, so that one that a
// killed process has left is replaced; nobody else's filter or qdisc is touched. The clsact
// qdisc that a filter needs is made where there is none, and stays: others may use it by then.
// One thread at a time. Needs CAP_BPF and CAP_NET_ADMIN.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include <tl/expected.hpp>

#include "dataplane/abi/probe_abi.h"

struct bpf_object;

namespace sluice::bpf_loader {

class probe_program {
 public:
  // Before nearly everything else that an interface has; others at the same priority are
  // told apart by the handle.
  static constexpr std::uint32_t priority = 5;

  // load() returns the reason when the kernel will not have it. handle: not 0, the same at
  // every start. targets: the most that there can be.
  [[nodiscard]] static tl::expected<std::unique_ptr<probe_program>, std::string> load(
      std::uint32_t handle, std::uint32_t targets);
  // Takes the filters off again.
  ~probe_program();
  probe_program(const probe_program&) = delete;
  probe_program& operator=(const probe_program&) = delete;

  // These return an empty text, or what went wrong.
  [[nodiscard]] std::string configure(const sluice_probe_config& config);
  [[nodiscard]] std::string put(std::uint32_t mark, const sluice_probe_target& target);
  void erase(std::uint32_t mark);
  // attach_tx() attaches where the far end of the pair receives: that filter goes with the
  // interface. attach_rx() attaches where an uplink receives; once more: sees to it that the
  // filter is still there.
  [[nodiscard]] std::string attach_tx(int ifindex);
  [[nodiscard]] std::string attach_rx(int ifindex);

  // remove_leftovers() takes our filters off the interfaces of this network namespace.
  static void remove_leftovers(std::uint32_t handle);

  [[nodiscard]] std::array<std::uint64_t, SLUICE_PROBE_COUNTERS> counters() const;

 private:
  struct closer {
    void operator()(bpf_object* object) const noexcept;
  };
  using object_ptr = std::unique_ptr<bpf_object, closer>;

  probe_program(object_ptr object, std::uint32_t handle);
  [[nodiscard]] std::string attach(int ifindex, int program);

  object_ptr object_;
  std::uint32_t handle_;
  int tx_, rx_, config_, targets_, stats_;  // descriptors of object_
};

}  // namespace sluice::bpf_loader
