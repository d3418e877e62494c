// SPDX-License-Identifier: Apache-2.0
// Rows through AF_XDP ports: packet sockets on the peers of the ports' veths send and receive,
// and others on the ports' own interfaces see what the XDP program leaves to the kernel.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/publish/observations.hpp"
#include "tests/packet/live_rows.hpp"

namespace sluice::test {

// wire: a packet socket on an interface of the calling thread's network namespace.
class wire {
 public:
  explicit wire(const std::string& interface);
  wire(wire&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  wire(const wire&) = delete;
  wire& operator=(const wire&) = delete;
  wire& operator=(wire&&) = delete;
  ~wire();

  void send(const bytes& frame) const;
  // receive() takes a frame that has come in, tags and all; nothing when there is none.
  [[nodiscard]] std::optional<bytes> receive() const;

 private:
  int fd_;
};

// wires: by number of the port.
struct wires {
  std::array<wire, 2> peers;
  std::array<wire, 2> kernel;
};

// run_over() sends row after row, waits for each one's end, and returns what was wrong, one
// text per row; stops after a few.
[[nodiscard]] std::vector<std::string> run_over(const wires& w,
                                                const publish::observations& counted,
                                                const std::vector<live_row>& rows);

}  // namespace sluice::test
