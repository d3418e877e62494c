// SPDX-License-Identifier: Apache-2.0
// The reference model of the packet path: what dataplane/path/README.md promises, said again
// without regard to speed. Shares no code with the path, its parsers, its rewriting or its
// connection table: a map, vectors, and one packet after the other.
//
// Not in the model (the driver keeps it out, see unknown()): fragments that may be translated,
// ICMP errors, what full-nat puts into a stream, limits and lists,
// persistence, QUIC, several workers.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "dataplane/abi/counters.hpp"
#include "dataplane/path/packet.hpp"
#include "tests/reference/description.hpp"
#include "tests/reference/frame.hpp"

namespace sluice::reference {

// named: a backend by row and incarnation.
struct named {
  unsigned row{0};
  unsigned incarnation{0};
  bool operator==(const named&) const = default;
};

// outcome: what becomes of a frame. Fields that the verdict does not speak of are not compared.
struct outcome {
  verdict what{verdict::drop};
  abi::counter_id reason{abi::counter_id::count_};
  kernel_reason why{kernel_reason::none};
  unsigned out_port{0};
  std::optional<unsigned> service{};
  std::optional<named> backend{};
  frame out{};           // in_port apart
  std::size_t waits{0};  // held: a number of its own
};

// connection_key: VIP's id, client's address and port, VIP's port.
struct connection_key {
  unsigned vip{0};
  address client{};
  unsigned client_port{0};
  unsigned vip_port{0};
  auto operator<=>(const connection_key&) const = default;
};
struct connection {
  named backend{};
  abi::connection_state state{abi::connection_state::free};
  std::uint64_t seen{0};  // seconds
};

// ends: what tells the packets of a flow, as one side sends them.
struct ends {
  unsigned protocol{0};
  address source{};
  unsigned source_port{0};
  address destination{};
  unsigned destination_port{0};
  auto operator<=>(const ends&) const = default;
};
// session: a translation.
struct session {
  ends client{};     // as the client names the flow
  address server{};  // the other side: where its packets go to, and come from in their new shape
  unsigned server_port{0};
  address local{};
  unsigned local_port{0};
  bool full{false};
  named backend{};
  abi::connection_state state{abi::connection_state::free};
  std::uint64_t seen{0};
  unsigned in_port{0};  // where the client's packets come from
  mac client_mac{};

  // reply() is how the backend names the flow.
  [[nodiscard]] ends reply() const {
    return {client.protocol, server, server_port, local, local_port};
  }
  bool operator==(const session&) const = default;
};

struct port {
  reference::mac mac{};
  bool has_kernel{false};
};

struct service_counts {
  std::uint64_t packets{0}, bytes{0}, opened{0}, dropped{0};
  bool operator==(const service_counts&) const = default;
};
struct backend_counts {
  std::uint64_t packets{0}, bytes{0}, opened{0}, closed{0};
  bool operator==(const backend_counts&) const = default;
};

// datagram: what its fragments have in common. IPv6: without the protocol.
struct datagram {
  address source{};
  address destination{};
  std::uint32_t id{0};
  unsigned protocol{0};
  auto operator<=>(const datagram&) const = default;
};

class path {
 public:
  // first_port: where full-nat begins to take source ports, from 1024.
  path(std::vector<port> ports, unsigned first_port)
      : ports_{std::move(ports)}, next_port_{first_port} {}

  // use() takes up tables, which outlive their use.
  void use(const description& tables);

  // unknown() tells that the model has nothing to say on a frame.
  [[nodiscard]] bool unknown(const frame& f) const;

  // process() decides on a burst. Its packets are independent of each other but for one
  // thing: those of connections that are known when the burst comes are sent first, then the
  // others in their order. So what begins a connection and what ends it, in one burst, leaves
  // the connection as it was begun: without an entry, a FIN or RST goes by the hash.
  // said: the backends that the path has chosen, for schedulers that leave a choice: the model
  // says whether they may be.
  std::vector<outcome> process(const std::vector<frame>& burst, std::uint64_t now_ns,
                               const std::vector<std::optional<named>>& said);

  // begin_call() forgets what released() was.
  void begin_call() { released_.clear(); }
  // expire_waiting() gives up on fragments that have waited for too long.
  void expire_waiting(std::uint64_t now_ns);
  // released() are the fragments that no longer wait, by outcome::waits.
  [[nodiscard]] const std::map<std::size_t, outcome>& released() const { return released_; }

  // forget() removes a connection that the path has removed: because of its age, or because one
  // that was reset gave way to another in a full bucket. False: neither is so.
  bool forget(const connection_key& key, std::uint64_t now_s);

  // forget_session() is the same for a translation that is too old.
  bool forget_session(const ends& client, std::uint64_t now_s);

  [[nodiscard]] const std::map<connection_key, connection>& connections() const {
    return connections_;
  }
  [[nodiscard]] const std::map<ends, session>& sessions() const { return sessions_; }
  [[nodiscard]] std::uint64_t count_of(abi::counter_id id) const {
    return counts_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] const service_counts& service_of(unsigned i) const { return services_.at(i); }
  [[nodiscard]] const backend_counts& backend_of(unsigned i) const { return backends_.at(i); }

  static constexpr unsigned most_services = 64;
  static constexpr unsigned most_backends = 256;

 private:
  struct work {
    const frame& in;
    reading r;
    outcome& out;
    std::optional<named> said{};
    connection_key key{};
    std::size_t vip{0};
  };

  void count(abi::counter_id id) { ++counts_[static_cast<std::size_t>(id)]; }
  void drop(work& w, abi::counter_id why);
  void leave(work& w, kernel_reason why, abi::counter_id otherwise);
  // admit() decides on what is not for a service's port; true: the packet goes on.
  bool admit(work& w);
  void icmp(work& w);
  void echo(work& w);
  void known(work& w);
  void newcomer(work& w);
  // by_hash() is the backend of packets without an entry, scheduled() that of a new connection,
  // or one that is moved. None: after a drop.
  std::optional<named> by_hash(work& w, unsigned service);
  std::optional<named> scheduled(work& w, unsigned service);
  [[nodiscard]] std::uint64_t hash_for(const work& w, const service& s) const;
  // member() is a backend if the tables agree that it is one of the service's.
  [[nodiscard]] std::optional<named> member(unsigned service, std::size_t place) const;
  // schedule.cpp
  std::optional<named> in_turn(const work& w, unsigned service);
  [[nodiscard]] std::optional<named> at_random(const work& w, unsigned service) const;
  [[nodiscard]] std::optional<named> least(const work& w, unsigned service) const;
  [[nodiscard]] const backend* row_of(const named& n) const;
  [[nodiscard]] bool may_go_on(const connection& c, std::size_t vip) const;
  [[nodiscard]] bool expired(const connection& c) const;
  void opened(const named& n, bool anew);
  void closed(const named& n);

  // send.cpp
  void send(work& w, const named& to);
  void sent(work& w, const backend& b);
  octets routed(const work& w, const backend& b);
  // pass_on() makes the frame that holds the packet instead of the one that came.
  void pass_on(work& w, const octets& packet, const mac& next_hop, unsigned out_port) const;
  void tell_too_big(work& w, unsigned mtu, unsigned added);
  // fragments.cpp
  struct guest {
    frame in;
    std::uint64_t since_ns;
    std::size_t number;
  };
  struct first_one {
    verdict what;
    std::optional<named> backend;
    std::uint64_t entered_ns;
  };
  static datagram datagram_of(const reading& r);
  [[nodiscard]] bool translates_at(const address& at) const;
  void settle_fragments(std::vector<work>& firsts, std::vector<work>& others);
  [[nodiscard]] const first_one* first_of(const datagram& d) const;
  void follow(work& w, const first_one& first);

  // nat.cpp
  void translate(work& w, const named& to, const backend& b);
  // session_for() is that of a client's packet, begun if need be; null after a drop.
  session* session_for(work& w, const named& to, const backend& b);
  [[nodiscard]] bool take_source(session& s);
  // answer() decides on a backend's packet; false: it is none.
  bool answer(work& w);
  [[nodiscard]] bool session_expired(const session& s) const;
  void close_session(const ends& client);
  [[nodiscard]] octets readdressed(const work& w, octets packet, const ends& to) const;

  void clamp_mss(const work& w, octets& packet, unsigned most);
  [[nodiscard]] octets framed(const work& w, unsigned type, const octets& packet,
                              const mac& destination, const mac& source) const;

  std::vector<port> ports_;
  const description* tables_{nullptr};
  std::uint64_t now_s_{0};
  std::uint64_t now_ns_{0};
  std::map<datagram, first_one> firsts_;
  std::map<datagram, std::vector<guest>> waiting_;
  std::size_t waiting_count_{0};
  std::size_t last_number_{0};
  std::map<std::size_t, outcome> released_;
  std::map<connection_key, connection> connections_;
  // Round robin: the slots whose turn it may be, by service. The first one is not foretold.
  std::map<unsigned, std::vector<std::size_t>> turns_;
  std::map<ends, session> sessions_;
  std::map<ends, ends> replies_;  // session::reply() -> session::client
  std::array<std::uint16_t, 8> session_timeouts_{abi::default_timeouts};
  std::vector<address> pool_[2];  // IPv4, IPv6
  std::size_t next_address_[2]{};
  unsigned next_port_;
  std::array<std::uint64_t, abi::counter_count> counts_{};
  std::vector<service_counts> services_{std::vector<service_counts>(most_services)};
  std::vector<backend_counts> backends_{std::vector<backend_counts>(most_backends)};
};

// after() is the state of a connection after a client's TCP segment; none: nothing changes,
// not even the time. free: there is no connection yet.
std::optional<abi::connection_state> after(abi::connection_state s, unsigned flags);

// corrected() is a checksum after a word that it covers has changed: RFC 1624 equation 3.
unsigned corrected(unsigned checksum, unsigned before, unsigned after);
void sum_ipv4_header(octets& packet);

// hash_of_flow() and hash_of_source() are the documented flow hash (docs, abi/flow_hash.h).
std::uint64_t hash_of_flow(std::uint64_t seed, const reading& r);
std::uint64_t hash_of_source(std::uint64_t seed, const address& source);

}  // namespace sluice::reference
