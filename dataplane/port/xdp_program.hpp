// SPDX-License-Identifier: Apache-2.0
// The steering program of an interface (bpf/steer.bpf.c), as the data plane has it. The
// program outlives the process: while no data plane is there it forwards by itself. So a
// data plane that starts takes over the maps of the one before, and puts its program in the
// place of the old one's in one step: at no time do a service's packets reach the kernel.
//
//   auto left = look_at_xdp("eth1");                 refuses what is not ours to take
//   ... driver_keeps_off guard; set the port up; its sockets are in no map yet ...
//   auto program = xdp_program::load(object, *left, first_port_s_program);
//   program->attach("eth1", *left);
//   program->enter(queue, socket);                   from here on packets arrive
//
// Main thread. Needs root and the interface's network namespace.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <tl/expected.hpp>

struct bpf_object;

namespace sluice {

// xdp_left: the program of an earlier data plane that is attached to an interface.
class xdp_left {
 public:
  xdp_left() = default;
  xdp_left(xdp_left&& other) noexcept { swap(other); }
  xdp_left& operator=(xdp_left&& other) noexcept {
    swap(other);
    return *this;
  }
  xdp_left(const xdp_left&) = delete;
  xdp_left& operator=(const xdp_left&) = delete;
  ~xdp_left();

  [[nodiscard]] bool found() const noexcept { return program_ >= 0; }

 private:
  friend tl::expected<xdp_left, std::string> look_at_xdp(const std::string& interface);
  friend class xdp_program;
  void swap(xdp_left& other) noexcept;

  int program_{-1};
  std::uint32_t mode_flags_{0};
  std::vector<int> maps_;
};

// look_at_xdp() refuses, with a text for the operator, an interface with a program that is
// not ours, or one that a running process still holds.
[[nodiscard]] tl::expected<xdp_left, std::string> look_at_xdp(const std::string& interface);

// driver_keeps_off: while one lives, DPDK's AF_XDP driver on this thread neither attaches
// nor detaches programs. It would attach one of its own where none is, refuse to start where
// one is, and detach whatever is there when a port is closed.
class driver_keeps_off {
 public:
  driver_keeps_off() noexcept;
  ~driver_keeps_off();
  driver_keeps_off(const driver_keeps_off&) = delete;
  driver_keeps_off& operator=(const driver_keeps_off&) = delete;
};

class xdp_program {
 public:
  // load() makes the program, with the maps of `left` where they have the same layout.
  // `other`, if any: another interface's program, with which all maps but the sockets' and
  // the counters are shared.
  [[nodiscard]] static tl::expected<xdp_program, std::string> load(const std::string& object,
                                                                   const xdp_left& left,
                                                                   const xdp_program* other);
  // attach() puts it on the interface, in one step in the place of `left`.
  [[nodiscard]] tl::expected<void, std::string> attach(const std::string& interface,
                                                       const xdp_left& left);
  // enter() has the packets of an RX queue go to a socket.
  [[nodiscard]] tl::expected<void, std::string> enter(std::uint32_t queue, int socket);

  // beat() says that the worker of an RX queue lived at this time (CLOCK_MONOTONIC, ns; 1:
  // it is about to go, and the stand-in shall forward at once).
  void beat(std::uint32_t queue, std::uint64_t ns) noexcept;
  // map() returns a descriptor by name; -1 if there is none.
  [[nodiscard]] int map(const char* name) const noexcept;
  // kept() is how many maps were taken over.
  [[nodiscard]] unsigned kept() const noexcept { return kept_; }

  xdp_program(xdp_program&&) noexcept;
  xdp_program& operator=(xdp_program&&) noexcept;
  ~xdp_program();

 private:
  struct object_closer {
    void operator()(bpf_object* o) const noexcept;
  };
  xdp_program() = default;

  std::unique_ptr<bpf_object, object_closer> object_;
  std::uint64_t* beats_{nullptr};
  unsigned kept_{0};
};

}  // namespace sluice
