// SPDX-License-Identifier: Apache-2.0
// The packet path: bursts of frames in, verdicts out. One per worker; owns nothing but
// its scratch memory. No DPDK: the worker, `sluice replay`, the tests and the fuzzer all
// run this same object.
//
// Threading: all calls by the worker that owns it, and none of them throws, allocates
// or makes a system call. Counters are written here and read by anybody.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/huge_pages.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/version.hpp"
#include "dataplane/abi/worker_state.hpp"
#include "dataplane/connection/table.hpp"
#include "dataplane/connection/tcp_state.hpp"
#include "dataplane/packet/icmp.hpp"
#include "dataplane/packet/parse.hpp"
#include "dataplane/path/flow_owner.hpp"
#include "dataplane/path/fragment_table.hpp"
#include "dataplane/path/nat_table.hpp"
#include "dataplane/path/packet.hpp"
#include "dataplane/path/persistence.hpp"
#include "dataplane/path/quic_backends.hpp"
#include "dataplane/path/rate_limit.hpp"
#include "dataplane/path/rewrite.hpp"
#include "dataplane/path/schedule/connection_loads.hpp"
#include "dataplane/path/schedule/context.hpp"
#include "dataplane/path/service_cache.hpp"
#include "dataplane/path/service_state.hpp"
#include "dataplane/path/source_rates.hpp"
#include "dataplane/path/vip_cache.hpp"

// For wide4() and 6: clang wants it where they are declared.
#ifdef __x86_64__
#define SLUICE_WIDE [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,aes,vaes,bmi,bmi2")]]
#else
#define SLUICE_WIDE
#endif

namespace sluice {

// path_port: what the path knows about a port of the data plane.
struct path_port {
  mac_address mac{};                  // source of the frames sent there
  bool leaves_rest_to_kernel{false};  // packets not for a service get verdict::kernel
};

// path_counters: where to count. All belong to this worker alone and outlive the path.
struct path_counters {
  abi::counter* worker{nullptr};             // worker_block::counters, all of them
  abi::service_counters* services{nullptr};  // observation_map::services(i)
  std::uint32_t service_rows{0};
  abi::backend_counters* backends{nullptr};  // observation_map::backends(i)
  std::uint32_t backend_rows{0};  // packets of those above a power of two go the long way
  // For least_connections: the first backend row of each other worker, and which observation
  // segment (segment_header::instance; 0: unknown) all of them are in.
  std::span<const abi::backend_counters* const> other_backends{};
  std::uint64_t instance{0};
  abi::counter* resets{nullptr};  // observation_map::resets(i), backend_rows of them; null: none
};

class packet_path {
 public:
  static constexpr std::size_t max_burst = 256;

  // The table outlives the path. At most abi::max_ports ports; more are cut off. Ports
  // are numbered as in backend_row::out_port and packet::in_port.
  packet_path(connection::connection_table& table, const path_counters& counters,
              std::span<const path_port> ports) noexcept;

  packet_path(const packet_path&) = delete;
  packet_path& operator=(const packet_path&) = delete;

  // set_view() takes up a generation, between bursts. The view is copied; an empty one
  // makes every IP packet a no_tables drop. When it returns nothing of the generation
  // before is in use.
  void set_view(const abi::config_view& view) noexcept;
  [[nodiscard]] const abi::config_view& view() const noexcept { return view_; }

  // use_nat() gives the path the worker's translations, which outlive it; without any, nat
  // and full-nat packets are nat_no_room drops. all: those of all workers, by number, this
  // one's among them: a reply that another one's knows gets verdict::hand_over. Between bursts.
  void use_nat(nat_table* nat, std::span<const nat_table* const> all = {}) noexcept;

  // use_persistence() gives the path the table that all workers have in common, which outlives
  // it; without, it has one of its own. Before the first burst.
  void use_persistence(persistence_table& shared) noexcept {
    persistence_ = &shared;
    own_persistence_.reset();
  }

  // process() decides on a burst. More than max_burst packets are decided on in several
  // bursts. now_ns: CLOCK_MONOTONIC (replay: the capture's clock); never goes back.
  // Counts everything but RX, TX and the loop, which are the worker's.
  void process(std::span<packet> burst, std::uint64_t now_ns) noexcept;

  // process_handed() is process() for packets that another path has handed over: they are
  // decided on here, whoever owns them.
  void process_handed(std::span<packet> burst, std::uint64_t now_ns) noexcept {
    accepts_all_ = true;
    process(burst, now_ns);
    accepts_all_ = false;
  }

  // set_owner() has the flows dealt with by the worker that `owner` names: a packet of a
  // service that finds no connection here, and is another worker's, gets
  // verdict::hand_over. Null: each is dealt with where it came in. self: this worker's
  // number. The object outlives the path.
  void set_owner(const flow_owner* owner, unsigned self) noexcept {
    owner_ = owner;
    self_ = self;
  }

  // released() names the packets that process() or maintain() has taken out of the waiting
  // room since the call before: decided on now (forward, kernel, drop), their buffers are
  // those that the owner keeps under their `place`. First put away what the burst holds, then
  // take these out. At most waiting_places; valid until the next call.
  [[nodiscard]] std::span<const packet> released() const noexcept {
    return {released_.data(), released_count_};
  }

  // maintain() removes idle connections, a few buckets per call; call it between bursts,
  // as often as convenient. Returns how many connections left.
  std::size_t maintain(std::uint64_t now_ns) noexcept;

 private:
  // What is known of the packets of one family that belong to a service's address.
  // Eight may be written where fewer are meant.
  static constexpr std::size_t batch_room = max_burst + 7;
  template <class Family>
  struct batch {
    unsigned size;
    std::array<typename Family::key_type, batch_room> keys;
    std::array<connection::bucket_hash, batch_room> hashes;
    std::array<typename Family::bucket*, batch_room> firsts;  // primary buckets
    std::array<connection::handle, max_burst> found;
    std::array<wire::common, batch_room> commons;  // spelled(): parsed_ has been filled
    std::array<packet*, batch_room> packets;
  };
  // A packet without a connection, on its way to a backend.
  struct newcomer {
    const abi::service_row* service;
    const abi::service_options* options;  // null: none
    const std::byte* slot;                // of the scheduler's table; null: backend is known
    const abi::backend_ref* members;      // copied from the service_cache; null: the long way
    std::uint64_t hash;                   // abi::choice_hash()
    abi::backend_ref backend;             // by the hash, or by its QUIC connection id
    std::uint32_t member_count;           // with members
    std::uint16_t service_number;         // with members
    std::uint8_t in_batch;
    bool by_id;
    bool wide;  // slot, without members
  };
  // A look-up of a burst that is under way; a bit for each packet of the batch.
  static constexpr unsigned chunk = connection::flow_map<connection::ipv4>::chunk;
  static constexpr std::size_t small_table = std::size_t{1} << 20;
  struct search {
    connection::companions beside;
    // Words of first_look; in two arrays, as gcc makes a vector of two words side by side, by way
    // of memory, which takes its time.
    std::array<std::uint64_t, 2 * max_burst / chunk> missed;  // so far
    std::array<std::uint64_t, 2 * max_burst / chunk> again;
    std::array<std::uint64_t, 2 * max_burst / chunk> known;  // and not dealt with yet
    unsigned step{chunk};                                    // so many packets for each of these
    unsigned missing{0};
    unsigned unsent{0};     // of those found, by hit()
    unsigned looked{0};     // so many have been looked up in their primary buckets
    unsigned looked_on{0};  // and of these so many in their secondaries
    bool prepared{false};   // the missing are newcomers_
  };
  // outer4: of a roomy IPv4 packet what send_roomy() needs, made for eight at once.
  struct outer4 {
    std::uint64_t first;  // first 8 bytes of an outer IPv4 header
    std::uint32_t sum;    // of `first` without the flags that every one has
    std::uint32_t lived;  // the inner header's TTL, protocol and checksum on their way out
  };
  static_assert(sizeof(outer4) == 16);
  // Counts of one burst, added to the shared counters at its end.
  struct tally {
    std::uint64_t forwarded, hits, opened, closed, expired, evicted, moved, untracked, to_kernel;
  };
  // Everything about a backend that a packet of one of its connections needs, checked and
  // made ready: one compare of the tag stands for all checks of the tables.
  // It is in backend_counters::own of the backend's row.
  struct egress {
    enum class way : std::uint8_t { none, ipip4, ipip6, dsr_l2, nat, other };
    std::uint64_t tag;          // backend_ref, VIP | generation: tag_of()
    std::uint64_t hop;          // the next hop's address, 48 bits; above them, of ipip4, sum() of
                                // the outer header without its first word, length and checksum
    std::uint32_t address;      // the backend's, of ipip4 (that of ipip6: outer6_)
    std::uint16_t limit;        // longest IP packet
    std::uint16_t limit_ipip4;  // the same of ipip4, else 0
    // The packet's last 8 bytes, `how` in the place of what is reserved there.
    std::uint16_t service;
    std::uint16_t reason;
    std::uint8_t outcome;
    std::uint8_t out_port;
    std::uint8_t why;
    way how;
  };
  static_assert(sizeof(egress) == sizeof(abi::backend_counters::own) &&
                offsetof(egress, service) == 24 && offsetof(egress, how) == 31);
  // tag_of() is the tag of what a connection's word names, in this generation.
  [[nodiscard]] std::uint64_t tag_of(abi::connection_word w) const noexcept {
    static_assert(abi::connection_word::time_shift + generation_bits == 64);
    return w.value << generation_bits | generation_;
  }
  static constexpr unsigned generation_bits = 24;
  // A fragment of the burst: notes_.
  struct fragment_note {
    fragment_key key;
    std::uint64_t hash;
    std::uint32_t session;  // that the first one belongs to; fragment_table::no_session: none
    std::uint8_t at;        // which packet of the burst
    bool first;
  };
  struct choice {
    const abi::backend_row* row;  // null: `reason` says why
    abi::backend_ref ref;
    abi::counter_id reason;
  };

  // Stage 1: parse, find the VIP, key, hash, prefetch the bucket. packet_path.cpp
  void classify() noexcept;
  void classify_any(std::size_t i) noexcept;
  void classify_narrow(std::size_t i) noexcept;
  void classify_one(std::size_t i, unsigned& n4, unsigned& n6) noexcept;
  void classify_mixed(std::size_t i) noexcept;
  // wide4() and 6 classify packets i.. of the burst, or the i-th.. of a list of its numbers (and
  // less than `end`), in eights, as long as they are common ones to known VIPs; they return how far
  // they came. classify_wide.cpp
  template <bool listed>
  SLUICE_WIDE std::size_t wide4(const std::uint8_t* list, std::size_t i, std::size_t end) noexcept;
  template <bool listed>
  SLUICE_WIDE std::size_t wide6(const std::uint8_t* list, std::size_t i, std::size_t end) noexcept;
  static bool processor_is_wide() noexcept;
  // enter4() and 6 make a packet the n-th of its batch.
  void enter4(packet& p, const wire::ipv4_header& ip, const wire::udp_header& ports,
              std::uint64_t vip_bits, wire::common c, unsigned n) noexcept;
  void enter6(packet& p, const wire::ipv6_header& ip, const wire::udp_header& ports,
              std::uint64_t vip_bits, wire::common c, unsigned n) noexcept;
  // spell_out() makes parsed_ and the packet what everything but the shortest way expects;
  // version: 4 or 6.
  void spell_out(std::size_t i, wire::common c, std::uint8_t version) noexcept;
  static constexpr std::size_t located_at_once = 16;
  template <class Family>
  void locate(batch<Family>& b, const connection::flow_map<Family>& map, unsigned from,
              unsigned to) noexcept;
  static void begin_packet(packet& p) noexcept;
  void judge_rest(std::size_t i) noexcept;
  void process_some(std::span<packet> burst) noexcept;
  // Stage 2: connections, backends, rewriting. connections.cpp, newcomers.cpp
  // wide: there may be roomy packets.
  template <bool wide, class Family>
  void resolve(batch<Family>& b, connection::flow_map<Family>& map) noexcept;
  template <class Family>
  void prepare(const batch<Family>& b, const search& s) noexcept;
  template <class Family>
  void resolve_new(batch<Family>& b, connection::flow_map<Family>& map, unsigned count,
                   bool prepared) noexcept;
  template <bool wide, class Family>
  void look_on(batch<Family>& b, connection::flow_map<Family>& map, search& s,
               unsigned end) noexcept;
  template <bool wide, class Family, class Before>
  bool hit(batch<Family>& b, connection::flow_map<Family>& map, unsigned k,
           Before&& before) noexcept;
  template <class Family>
  void spell_out(const batch<Family>& b, unsigned k) noexcept;
  void make_stamps(std::uint16_t now) noexcept;
  template <class Family>
  void hit_slow(connection::flow_map<Family>& map, connection::handle found, std::size_t i,
                bool rated) noexcept;
  [[nodiscard]] const abi::backend_row* kept_backend(abi::backend_ref ref,
                                                     const abi::vip_row& vip) const noexcept;
  // What services ask for by their options. options.cpp
  enum class course : std::uint8_t { as_ever, never_ready, ended };
  course every_packet(std::size_t i, const abi::service_row& s, abi::backend_ref ref,
                      bool rated) noexcept;
  [[nodiscard]] service_state* state_of(const abi::service_row& s) noexcept;
  [[nodiscard]] abi::counter_id let_in(std::size_t i, const abi::service_row& s,
                                       const abi::service_options* options, bool stranger,
                                       bool rated) noexcept;
  [[nodiscard]] bool within_packet_rate(const abi::service_row& s,
                                        const abi::service_options& o) noexcept;
  [[nodiscard]] abi::counter_id begin(std::size_t i, const abi::service_row& s,
                                      const abi::service_options& o, bool& flooded) noexcept;
  [[nodiscard]] connection::key6 source_key(std::size_t i, const abi::service_row& s,
                                            unsigned bits4, unsigned bits6,
                                            std::uint64_t purpose) const noexcept;
  [[nodiscard]] abi::backend_ref persistent(std::size_t i, const abi::service_row& s,
                                            const abi::service_options& o) const noexcept;
  void remember(std::size_t i, const abi::service_row& s, const abi::service_options& o,
                abi::backend_ref ref) noexcept;
  [[nodiscard]] abi::backend_ref by_quic_id(std::size_t i, const abi::service_row& s,
                                            const abi::service_options& o) const noexcept;
  // line_of() is a backend's row; another one, whose tag says so, if it has none.
  [[nodiscard]] abi::backend_counters& line_of(abi::backend_ref ref) const noexcept {
    static_assert(abi::backend_ref::index_bits < 32);
    return lines_[ref.value & line_mask_];  // the index is the low bits
  }
  [[nodiscard]] static egress& egress_in(abi::backend_counters& line) noexcept {
    return *std::launder(reinterpret_cast<egress*>(line.own.data()));
  }
  [[nodiscard]] egress& egress_of(abi::backend_ref ref) const noexcept {
    return egress_in(line_of(ref));
  }
  void make_egress(std::uint64_t tag, abi::backend_ref ref, const abi::backend_row& row) noexcept;
  [[nodiscard]] choice checked(const abi::service_row& s, abi::backend_ref ref) const noexcept;
  template <class Family>
  void enter(batch<Family>& b, connection::flow_map<Family>& map, const newcomer& c,
             bool fresh) noexcept;
  // The same for a service of the service_cache and a backend whose egress is ready.
  template <class Family>
  void enter_quickly(batch<Family>& b, connection::flow_map<Family>& map, newcomer& c,
                     bool fresh) noexcept;
  void fetch_slots(unsigned count) const noexcept;
  template <class Family>
  [[nodiscard]] bool quick(const batch<Family>& b, unsigned k, newcomer& n) noexcept;
  [[nodiscard]] choice choose(std::size_t i, const abi::vip_row& vip, bool anew,
                              bool rated) noexcept;
  [[nodiscard]] std::uint64_t choice_hash(std::size_t i, const abi::service_row& s,
                                          const abi::service_options* options) const noexcept;
  [[nodiscard]] abi::backend_ref scheduled(const abi::service_row& s, abi::scheduler kind,
                                           std::uint64_t hash) noexcept;
  [[nodiscard]] std::uint64_t flow_hash(std::size_t i) const noexcept;
  void send(std::size_t i, abi::backend_ref ref) noexcept;
  // send() with everything ready. ready.hpp
  template <class Family>
  [[nodiscard]] bool send_ready(packet& p, std::uint32_t ip_length, abi::backend_ref ref,
                                abi::backend_counters& line) noexcept;
  template <class Family>
  [[nodiscard]] bool send_prepared(const batch<Family>& b, unsigned k, abi::backend_ref ref,
                                   abi::backend_counters& line) noexcept;
  void write_outer4(std::byte* frame, const egress& e, std::uint64_t first,
                    std::uint64_t second) const noexcept;
  void send_roomy(packet& p, std::uint32_t ip_length, const outer4& outer, abi::backend_ref ref,
                  abi::backend_counters& line) noexcept;
  void send_roomy(packet& p, std::uint32_t ip_length, std::uint64_t outer, abi::backend_ref ref,
                  abi::backend_counters& line) noexcept;
  template <class Inner>
  [[nodiscard]] bool into_ipip6(packet& p, std::uint32_t ip_length, abi::backend_ref ref,
                                const egress& e) noexcept;
  template <class Family>
  void send_new(const batch<Family>& b, unsigned k, const abi::service_row& s,
                const choice& to) noexcept;
  void clamp_mss(abi::service_id service, std::byte* l4, std::uint32_t available) noexcept;
  void count_sent(std::size_t i, abi::backend_ref ref, std::uint16_t service,
                  std::uint8_t out_port) noexcept;
  // Translating packets of known sessions, together, in stages. nat_ready.cpp
  template <class Family>
  void put_off(const batch<Family>& b, unsigned k) noexcept {
    nat_->prefetch_hint(b.hashes[k].value);
    // In the order of the burst; few come late.
    unsigned at = put_off_count_++;
    for (; at != 0 && put_off_[at - 1] > k; --at) put_off_[at] = put_off_[at - 1];
    put_off_[at] = static_cast<std::uint8_t>(k);
  }
  template <class Family>
  void translate_put_off(batch<Family>& b, unsigned end) noexcept;  // those before
  template <class Family>
  [[nodiscard]] bool translate_ready(const batch<Family>& b, unsigned k, nat_session* s,
                                     abi::backend_ref ref, abi::backend_counters& line) noexcept;
  void confirm(nat_session& s, std::uint64_t hash, std::uint64_t vip_bits, bool v6) noexcept;
  // count_ready() says and counts what there is to say of a packet that was sent by its egress.
  void count_ready(packet& p, std::uint32_t ip_length, abi::backend_ref ref,
                   abi::backend_counters& line) noexcept;
  // nat and full-nat. nat.cpp
  void translate(std::size_t i, abi::backend_ref ref, const abi::backend_row& row,
                 hop_words to) noexcept;
  [[nodiscard]] bool answer(std::size_t i) noexcept;
  [[nodiscard]] bool hand_over_reply(packet& p, const wire::flow_ends& ends, std::uint8_t protocol,
                                     bool met) noexcept;
  // hand_over_to_holder() is the same for a client's packet: to another worker whose table has
  // its session.
  [[nodiscard]] bool hand_over_to_holder(packet& p, const wire::flow_ends& ends,
                                         std::uint8_t protocol) noexcept;
  [[nodiscard]] nat_session* nat_session_for(const packet& p, const wire::parsed& m,
                                             abi::backend_ref ref, const ip_address& server,
                                             hop_words to, abi::counter_id& why) noexcept;
  void pass_to_client(packet& p, const wire::parsed& m, const nat_session& s) noexcept;
  // Fragments of translated datagrams. nat_fragments.cpp
  bool fragment_of_reply(std::size_t i) noexcept;
  bool first_fragment_of_other(std::size_t i) noexcept;
  void note_session(std::size_t i, const nat_session& s) noexcept;
  void follow_translated(std::size_t i, const fragment_table::entry& known) noexcept;
  [[nodiscard]] bool may_be_nat_backend(const ip_address& a) noexcept;
  // ICMP errors about translated flows. nat_errors.cpp
  bool error_to_client(std::size_t i) noexcept;
  void error_to_backend(std::size_t i, const wire::quoted& q) noexcept;
  void count_opened(abi::backend_ref ref, bool anew) noexcept;
  void count_closed(abi::backend_ref ref) noexcept;
  void count_entered(const connection::insertion& i) noexcept;
  void count_given_way() noexcept;

  // hand_over() gives packet i to the worker that owns its flow; false: that is us.
  bool hand_over(std::size_t i) noexcept;
  // The same for a packet about a flow that others' packets belong to.
  bool hand_over(packet& p, const ip_address& client, const ip_address& vip, be16 client_port,
                 be16 vip_port) noexcept;
  bool hand_over_to(packet& p, unsigned worker) noexcept;

  // Fragments. fragments.cpp
  bool note_fragment(std::size_t i) noexcept;
  void settle_fragments() noexcept;
  void follow(std::size_t i, const fragment_table::entry& known) noexcept;
  void release(std::size_t place, const packet& guest) noexcept;
  void forget_released() noexcept;
  void expire_waiting(std::uint64_t now_ns) noexcept;
  // ICMP: errors about connections and tunnels, echo, too big. icmp.cpp
  void icmp_to_vip(std::size_t i) noexcept;
  void steer_error(std::size_t i) noexcept;
  bool error_about_tunnel(std::size_t i) noexcept;
  void too_big(std::size_t i, std::uint32_t mtu, std::uint32_t overhead) noexcept;
  void reply_too_big(std::size_t i, std::uint32_t at, std::uint32_t there,
                     const wire::quoted& about, std::uint32_t mtu) noexcept;
  [[nodiscard]] bool answers_echo(const ip_address& address) noexcept;
  void answer_echo(std::size_t i) noexcept;
  [[nodiscard]] std::uint32_t icmp_rate() const noexcept;
  [[nodiscard]] abi::backend_ref owner_of(const abi::vip_row& vip, const abi::service_row& service,
                                          const ip_address& client, be16 client_port,
                                          be16 vip_port) const noexcept;

  void count(abi::counter_id id) noexcept { counters_.worker[static_cast<std::size_t>(id)].add(1); }
  void drop(packet& p, abi::counter_id reason) noexcept;
  // leave() gives a packet to the kernel if its port has one, else drops it.
  void leave(packet& p, kernel_reason why, abi::counter_id otherwise) noexcept;

  abi::config_view view_{};
  connection::connection_table& table_;
  path_counters counters_;
  std::array<wire::mac_word, abi::max_ports> port_macs_{};
  std::array<std::uint64_t, abi::max_ports> port_sources4_{};  // and the type: IPv4, behind it
  std::array<std::uint64_t, abi::max_ports> port_sources6_{};  // IPv6
  std::uint32_t kernel_ports_{0};  // bit i: port i leaves the rest to the kernel
  unsigned port_count_;
  std::uint16_t now_{0};
  std::uint64_t now_ns_{0};
  // lines_: the backends' rows, each with its egress, which is not cleared with a new generation:
  // the tag holds it. As many as the largest power of two that there are; no_line_ where there is
  // none.
  abi::backend_counters no_line_{};
  abi::backend_counters* lines_;
  std::uint64_t line_mask_;
  abi::huge_array<ip_address> outer6_;  // the address of an ipip6 backend, by row
  ip_address outer6_source_{};          // the tunnels'
  std::uint64_t outer4_begin_{0};       // of ipip4: TTL and protocol, 0, the tunnel's source
  std::uint64_t generation_{0};         // below 2^generation_bits; 0: no egress has it
  const flow_owner* owner_{nullptr};
  unsigned self_{0};
  bool accepts_all_{false};  // during process_handed()
  connection::sweeper sweeper_{};
  std::uint64_t flushes_{0};         // generation_header::flushes, as of the last view
  bool flush_begins_{false};         // and maintain() has not seen it yet
  std::uint64_t flush_until_ns_{0};  // connections whose backend has no row are forgotten
  rate_limit echo_limit_;
  rate_limit error_limit_;
  bool echo_known_{false};                       // echo_vips_ is of this generation
  std::array<std::uint64_t, 1024> echo_vips_{};  // a bit per vip_id
  nat_table* nat_{nullptr};
  bool nat_active_{false};  // there is a table, and a service of this generation needs it
  std::span<const nat_table* const> all_nat_;
  nat_session* translated_{nullptr};  // by the last translate()
  unsigned put_off_count_{0};
  std::array<std::uint8_t, max_burst> put_off_;    // places in the batch
  std::array<nat_session*, max_burst> hinted_;     // what they may belong to; null: not known
  bool nat_backends_known_{false};                 // nat_backends_ is of this generation
  std::array<std::uint64_t, 512> nat_backends_{};  // a bit per hash of an address

  fragment_table fragments_;
  waiting_room waiting_;
  unsigned note_count_{0};
  unsigned released_count_{0};
  std::array<fragment_note, max_burst> notes_;
  std::array<packet, waiting_places> released_;
  static_assert(waiting_places <= max_burst);

  bool wide_{false};  // wide4() and 6 are of use
  vip_cache vip_cache_;
  service_cache service_cache_;
  packet* burst_{nullptr};  // during process()
  std::size_t burst_size_{0};
  tally tally_{};
  std::array<wire::parsed, max_burst> parsed_;
  // settled_: time and state of an established TCP connection that was seen this second. Only
  // these flags change it: whatever else comes, there is nothing to write.
  std::uint64_t settled_{0};
  static constexpr std::uint64_t settled_mask =
      (std::uint64_t{0xffff} << abi::connection_word::time_shift) |
      (std::uint64_t{0xf} << abi::connection_word::state_shift);
  // is_settled() is written so that it takes shifts and no mask.
  [[nodiscard]] bool is_settled(abi::connection_word w) const noexcept {
    constexpr unsigned above = 64 - abi::connection_word::spare_shift;
    static_assert(settled_mask << above >> above == settled_mask);
    return (w.value ^ settled_) << above >> (abi::connection_word::time_shift + above) == 0;
  }
  static constexpr std::uint32_t unsettling =
      std::uint32_t{connection::tcp_fin | connection::tcp_syn | connection::tcp_rst}
      << wire::common_flags_shift;
  // stamps_: what an entry's time and state become, by its state and the packet's flags.
  struct stamp {
    std::uint64_t word;
    std::uint64_t mask;  // 0: nothing changes
  };
  std::array<stamp, 8 * 32> stamps_;
  [[nodiscard]] const stamp& stamp_for(abi::connection_word w, wire::common c) const noexcept {
    // Two shifts less than by the index.
    static_assert(sizeof(stamp) == 1 << wire::common_flags_shift);
    const std::uint64_t state = w.value >> (abi::connection_word::state_shift - 9) & 7u << 9;
    const std::uint64_t flags = c & 31u << wire::common_flags_shift;
    return *reinterpret_cast<const stamp*>(reinterpret_cast<const std::byte*>(stamps_.data()) +
                                           (state | flags));
  }
  [[nodiscard]] std::size_t number_of(const packet* p) const noexcept {
    return static_cast<std::size_t>(p - burst_);
  }
  batch<connection::ipv4> batch4_;
  std::array<outer4, batch_room> outers4_;  // of batch4_'s roomy packets
  bool expects_new_{false};                 // most packets of the burst before began connections
  std::array<std::uint64_t, batch_room> choices4_;  // then, of roomy ones: sluice_flow_hash4()
  std::array<std::uint64_t, batch_room> outers6_;   // of batch6_'s: as outer4::first
  batch<connection::ipv6> batch6_;
  std::array<newcomer, max_burst> newcomers_;
  // Connections that gave way: counted at the end, when their backends' lines have come.
  unsigned gave_way_count_{0};
  std::array<abi::connection_word, max_burst> gave_way_;

  // For new connections only.
  struct option_tables {
    source_rates sources;
    quic_backends quic;
  };
  std::unique_ptr<service_state[]> states_;  // by service_id, service_rows of them
  std::unique_ptr<option_tables> tables_;
  std::unique_ptr<persistence_table> own_persistence_;  // null: the workers' is in use
  persistence_table* persistence_;
  connection_loads loads_;
  random_bits random_;
};

template <class Family>
void packet_path::spell_out(const batch<Family>& b, unsigned k) noexcept {
  if (const wire::common c = b.commons[k]; (c & 3) != 0)
    spell_out(number_of(b.packets[k]), c, std::is_same_v<Family, connection::ipv4> ? 4 : 6);
}

// count_sent() sets the verdict of a packet that has been rewritten, and counts it.
[[gnu::always_inline]] inline void packet_path::count_sent(std::size_t i, abi::backend_ref ref,
                                                           std::uint16_t service,
                                                           std::uint8_t out_port) noexcept {
  packet& p = burst_[i];
  const std::uint32_t bytes = parsed_[i].ip_length;
  p.service = static_cast<abi::service_id>(service);
  p.backend = ref;
  p.outcome = verdict::forward;
  p.out_port = out_port;
  ++tally_.forwarded;
  if (service < counters_.service_rows) [[likely]] {
    abi::service_counters& c = counters_.services[service];
    c.packets.add(1);
    c.bytes.add(bytes);
  }
  if (ref.index() < counters_.backend_rows) [[likely]] {
    abi::backend_counters& c = counters_.backends[ref.index()];
    c.packets.add(1);
    c.bytes.add(bytes);
  }
}

}  // namespace sluice
