// SPDX-License-Identifier: Apache-2.0
// The control plane's hand on the steering program (bpf/steer.bpf.c) of one interface.
// The program is loaded by the data plane, in another process, and outlives it. It is found through
// the interface: attached program -> its maps -> by name. Nothing is pinned, so that no bpffs is
// needed (`ip netns exec` hides it), instances do not collide, and kill -9 leaves no stale pin.
// Needs root (CAP_BPF and CAP_NET_ADMIN) and the interface's network namespace.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <tl/expected.hpp>

#include "controlplane/bpf_loader/attached.hpp"
#include "controlplane/bpf_loader/steer_contents.hpp"
#include "dataplane/abi/standin_drops.hpp"

namespace sluice::bpf_loader {

// Packets since the program was loaded, over all CPUs; see sluice_steer_counter.
struct steer_counters {
  std::uint64_t redirected{};
  std::uint64_t no_socket{};
  std::uint64_t passed{};
  std::uint64_t malformed{};
  // By the stand-in, while there was no data plane:
  std::uint64_t forwarded{};  // as the hash says
  std::uint64_t pinned{};     // as the connection table said
  std::uint64_t dropped{};
  // The same by reason, as in abi::standin_drop_infos.
  std::array<std::uint64_t, abi::standin_drop_count> drops{};
};

// mirror_state: what the data plane has told the program.
struct mirror_state {
  bool beats{};                // a worker's heartbeat is fresh
  std::uint64_t generation{};  // SLUICE_TOLD_GENERATION
};

struct steer_update {
  std::size_t added{};  // or changed
  std::size_t removed{};
};

// Not thread-safe: one thread at a time per object. Keeps nothing open between calls,
// so that a killed data plane's program goes when it is detached.
class steer_maps {
 public:
  explicit steer_maps(std::string interface) : interface_{std::move(interface)} {}

  [[nodiscard]] const std::string& interface() const noexcept { return interface_; }

  // program_id() returns the kernel's id of the attached program. It changes whenever a
  // data plane starts: then set_vips() has to be called again, since its set is empty.
  tl::expected<std::uint32_t, steer_error> program_id() const;

  // set_vips() makes vip_set hold exactly `vips`. Compares with what the kernel has,
  // adds before it removes, touches nothing that stays. Idempotent.
  // set() does it with all that the program knows; the update counts vip_set only.
  tl::expected<steer_update, steer_error> set(const steer_contents& contents) const;
  tl::expected<steer_update, steer_error> set_vips(std::span<const vip> vips) const;

  tl::expected<steer_counters, steer_error> counters() const;

  tl::expected<mirror_state, steer_error> mirror() const;

  // detach() takes the program off the interface; only ours, and only the one that was
  // looked at (compare and exchange in the kernel).
  tl::expected<void, steer_error> detach() const;

 private:
  std::string interface_;
};

}  // namespace sluice::bpf_loader
