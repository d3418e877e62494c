// SPDX-License-Identifier: Apache-2.0
// Random frames: mostly packets of flows that go on, with whatever else may arrive mixed in.
#pragma once

#include <utility>
#include <vector>

#include "tests/reference/dice.hpp"
#include "tests/reference/frame.hpp"
#include "tests/reference/path.hpp"

namespace sluice::reference {

class traffic {
 public:
  // flows: how many are alive at a time.
  traffic(dice& d, std::size_t flows) : dice_{d}, flows_(flows) {}

  // serve() says to what services the flows that begin from now on go; it outlives its use.
  void serve(const description& estate) { estate_ = &estate; }
  // reply_to() says which flows backends may answer, by the names that they have for them.
  void reply_to(std::vector<ends> names) { replies_ = std::move(names); }
  frame next();

 private:
  struct flow {
    bool v6{false};
    bool tcp{true};
    bool fresh{true};  // no packet of it was sent yet
    address client{};
    address vip{};
    unsigned client_port{0};
    unsigned vip_port{0};
    unsigned tags{0};
    octets before_type{};  // the tags
  };
  void begin(flow& f);
  flow reply();
  octets segment(flow& f);
  octets packet(const flow& f, unsigned protocol, const octets& payload);
  void spoil(const flow& f, frame& out);
  octets ping(const flow& f);
  void break_up(const octets& packet);
  octets with_extensions(unsigned protocol, const octets& payload, unsigned& next);

  dice& dice_;
  const description* estate_{nullptr};
  std::vector<flow> flows_;
  std::vector<ends> replies_;
  std::vector<octets> pieces_;  // fragments, as packets, that are still to be sent
};

}  // namespace sluice::reference
