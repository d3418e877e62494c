// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/world.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dataplane/abi/connection_layout.hpp"
#include "tests/packet/frame_builder.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLUICE_POISON 1
#endif
#endif
#if defined(SLUICE_POISON) || defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, n) (static_cast<void>(at), static_cast<void>(n))
#define ASAN_UNPOISON_MEMORY_REGION(at, n) (static_cast<void>(at), static_cast<void>(n))
#endif

namespace sluice::reference {
namespace {

constexpr std::array<path_port, 2> real_ports{
    {{{2, 0, 0, 0, 0, 0x01}, true}, {{2, 0, 0, 0, 0, 0x02}, false}}};

sluice::connection::table_file make_file(std::uint64_t connections) {
  sluice::connection::table_file_options options;
  options.connections4 = connections;
  options.connections6 = connections;
  auto file = sluice::connection::table_file::anonymous(options, {0x1234567, 0x89abcdef});
  if (!file) throw std::runtime_error{file.error()};
  reinterpret_cast<abi::connection_header*>(file->data())->clock_base_ns = 0;
  return std::move(*file);
}

constexpr std::uint8_t untouched = 0xa5;

}  // namespace

// buffer: memory of one frame, with a margin on both sides of what the path may write to.
// AddressSanitizer sees what is read behind the frame.
struct world::buffer {
  static constexpr std::size_t margin = 64;
  static constexpr std::size_t most_headroom = 128;
  static constexpr std::size_t front = margin + most_headroom;
  static constexpr std::size_t room = 4096;
  alignas(64) std::array<std::uint8_t, front + room + margin> bytes;

  ~buffer() { open(); }
  void open() { ASAN_UNPOISON_MEMORY_REGION(bytes.data(), bytes.size()); }

  packet put(const frame& f) {
    open();
    std::fill_n(bytes.begin(), front, untouched);
    std::copy_n(f.bytes.begin(), f.contiguous, bytes.begin() + front);
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(front + f.contiguous), margin,
                untouched);
    ASAN_POISON_MEMORY_REGION(bytes.data() + front + f.contiguous, room - f.contiguous);
    packet p{};
    p.data = reinterpret_cast<std::byte*>(bytes.data() + front);
    p.length = static_cast<std::uint32_t>(f.contiguous);
    p.total_length = static_cast<std::uint32_t>(f.bytes.size());
    p.headroom = static_cast<std::uint16_t>(f.headroom);
    p.in_port = static_cast<std::uint8_t>(f.in_port);
    return p;
  }
  // margins_hold() tells whether nothing was written but the frame and its headroom.
  [[nodiscard]] bool margins_hold(const frame& f) const {
    const auto clean = [](std::uint8_t b) { return b == untouched; };
    const auto end = bytes.begin() + static_cast<std::ptrdiff_t>(front + f.contiguous);
    return std::all_of(bytes.begin(),
                       bytes.begin() + static_cast<std::ptrdiff_t>(front - f.headroom), clean) &&
           std::all_of(end, end + margin, clean);
  }
};

world::world(std::uint64_t connections, sluice::connection::instruction_set instructions,
             bool may_overflow)
    : file_{make_file(connections)},
      table_{file_.data()},
      services_(path::most_services),
      backends_(path::most_backends),
      nat_{{.sessions = 65536, .secret = {3, 4}}},
      path_{table_,
            {counts_.data(), services_.data(), path::most_services, backends_.data(),
             path::most_backends},
            real_ports},
      model_{[] {
               std::vector<port> ports;
               for (const path_port& p : real_ports)
                 ports.push_back({p.mac, p.leaves_rest_to_kernel});
               return ports;
             }(),
             nat_.next_port()},
      may_overflow_{may_overflow} {
  path_.use_nat(&nat_);
  namespace c = sluice::connection;
  const abi::connection_header& h = file_.header();
  const std::array<std::uint64_t, 2> secret{h.secret[0], h.secret[1]};
  table_.v4 = c::flow_map<c::ipv4>{file_.data() + h.offset4, h.buckets4, secret, instructions};
  table_.v6 = c::flow_map<c::ipv6>{file_.data() + h.offset6, h.buckets6, secret, instructions};
}

world::~world() = default;

void world::use(const description& estate) {
  model_.use(estate);
  if (estate.empty) return path_.set_view({});
  auto next = std::make_unique<test::table_builder>();
  fill(estate, *next);
  path_.set_view(next->view());
  tables_ = std::move(next);
}

std::string world::run(const std::vector<frame>& burst) {
  if (buffers_.size() < burst.size()) buffers_.resize(burst.size());
  std::vector<packet> packets;
  for (std::size_t i = 0; i < burst.size(); ++i) {
    if (buffers_[i] == nullptr) buffers_[i] = std::make_unique<buffer>();
    packets.push_back(buffers_[i]->put(burst[i]));
  }
  model_.begin_call();
  path_.process(packets, now_ns_);
  std::vector<std::optional<named>> said;
  for (const packet& p : packets)
    said.push_back(p.backend.none()
                       ? std::nullopt
                       : std::optional{named{p.backend.index(), p.backend.incarnation()}});
  // A longer burst is several.
  for (std::size_t first = 0; first < burst.size(); first += packet_path::max_burst) {
    const std::size_t n = std::min(burst.size() - first, packet_path::max_burst);
    const auto at = burst.begin() + static_cast<std::ptrdiff_t>(first);
    const auto theirs = said.begin() + static_cast<std::ptrdiff_t>(first);
    const auto past = static_cast<std::ptrdiff_t>(n);
    const auto wanted = model_.process({at, at + past}, now_ns_, {theirs, theirs + past});
    for (std::size_t i = 0; i < n; ++i) {
      const packet& got = packets[first + i];
      std::unique_ptr<buffer>& memory = buffers_[first + i];
      if (std::string s = check(burst[first + i], wanted[i], got, *memory); !s.empty())
        return "packet " + std::to_string(first + i) + " of " + std::to_string(burst.size()) +
               ": " + s;
      if (got.outcome == verdict::held)
        if (!held_
                 .try_emplace(got.place, kept{wanted[i].waits, std::move(memory), burst[first + i]})
                 .second)
          return "a place is given away twice";
    }
  }
  if (std::string s = check_released(); !s.empty()) return s;
  if (std::string s = forget_gone(); !s.empty()) return s;
  return compare_counts();
}

std::string world::check(const frame& in, const outcome& wanted, const packet& got,
                         buffer& memory) const {
  std::string s;
  const auto differs = [&s](const char* what, auto a, auto b) {
    if (a == static_cast<decltype(a)>(b)) return;
    s += std::string{what} + ": the model says " + std::to_string(a) + ", the path " +
         std::to_string(b) + "\n";
  };
  const auto number = [](auto e) { return static_cast<unsigned>(e); };
  differs("verdict", number(wanted.what), number(got.outcome));
  if (wanted.what == got.outcome) {
    if (wanted.what == verdict::drop || wanted.what == verdict::reply)
      differs("reason", number(wanted.reason), number(got.reason));
    if (wanted.what == verdict::kernel) differs("why", number(wanted.why), number(got.why));
    if (wanted.what == verdict::forward || wanted.what == verdict::reply)
      differs("port", wanted.out_port, unsigned{got.out_port});
  }
  differs("service", wanted.service.value_or(number(abi::no_service)), number(got.service));
  const abi::backend_ref backend =
      wanted.backend ? abi::backend_ref::make(wanted.backend->row, wanted.backend->incarnation)
                     : abi::backend_ref{};
  differs("backend", backend.value, got.backend.value);
  differs("headroom", wanted.out.headroom, unsigned{got.headroom});
  differs("contiguous length", wanted.out.contiguous, got.length);
  differs("length", wanted.out.bytes.size(), got.total_length);
  const auto* data = reinterpret_cast<const std::uint8_t*>(got.data);
  const std::uint8_t* const base = memory.bytes.data() + buffer::front;
  if (data + in.headroom != base + got.headroom) s += "data is not where the headroom ends\n";
  memory.open();
  if (!memory.margins_hold(in)) s += "written outside of the frame and its headroom\n";
  // What is held may be released in the same call, and is looked at then.
  if (s.empty() && got.outcome != verdict::held) {
    octets frame{data, data + got.length};
    const auto rest = in.bytes.begin() + static_cast<std::ptrdiff_t>(in.contiguous);
    frame.insert(frame.end(), rest, rest + (got.total_length - got.length));
    if (frame != wanted.out.bytes) s = "the path's frame is\n" + test::hex(frame) + "\n";
  }
  if (s.empty()) return s;
  return s + "frame (" + std::to_string(in.contiguous) + " of " + std::to_string(in.bytes.size()) +
         " bytes contiguous, headroom " + std::to_string(in.headroom) + ", port " +
         std::to_string(in.in_port) + ")\n" + test::hex(in.bytes) + "\nthe model's\n" +
         test::hex(wanted.out.bytes) + "\n";
}

std::string world::check_released() {
  std::size_t looked_at = 0;
  for (const packet& p : path_.released()) {
    const auto at = held_.find(p.place);
    if (at == held_.end()) return "a fragment is released that was not held";
    const auto wanted = model_.released().find(at->second.number);
    if (wanted == model_.released().end()) return "a fragment is released that should wait";
    if (std::string s = check(at->second.in, wanted->second, p, *at->second.memory); !s.empty())
      return "a fragment that has waited: " + s;
    held_.erase(at);
    ++looked_at;
  }
  return looked_at == model_.released().size() ? "" : "a fragment should wait no longer";
}

std::string world::maintain(unsigned times) {
  for (; times > 0; --times) {
    model_.begin_call();
    path_.maintain(now_ns_);
    model_.expire_waiting(now_ns_);
    if (std::string s = check_released(); !s.empty()) return s;
  }
  const auto translated = sessions_now();
  std::vector<ends> over;
  for (const auto& [key, s] : model_.sessions())
    if (!translated.contains(key)) over.push_back(key);
  for (const ends& key : over)
    if (!model_.forget_session(key, now_ns_ / 1'000'000'000))
      return "a translation was removed before its time";
  if (std::string s = forget_gone(); !s.empty()) return s;
  return compare_counts();
}

// forget_gone() removes from the model what the path has removed. When it gets to that is its own
// affair, but there has to be a reason.
std::string world::forget_gone() {
  if (may_overflow_) return "";
  const auto known = [this](abi::counter_id id) {
    return counts_[static_cast<std::size_t>(id)].read() == model_.count_of(id);
  };
  if (known(abi::counter_id::connections_expired) && known(abi::counter_id::connections_evicted))
    return "";
  const auto now = tracked_now();
  std::vector<connection_key> gone;
  for (const auto& [key, c] : model_.connections())
    if (!now.contains(key)) gone.push_back(key);
  for (const connection_key& key : gone)
    if (!model_.forget(key, now_ns_ / 1'000'000'000))
      return "a connection was removed that is neither old nor closed";
  return "";
}

std::map<connection_key, connection> world::tracked_now() const {
  abi::connection_reader reader;
  if (abi::connection_reader::open(file_.data(), file_.size(), reader) !=
      abi::connection_reader::status::ok)
    throw std::logic_error{"the connection table cannot be read"};
  std::map<connection_key, connection> all;
  bool twice = false;
  reader.for_each([&](const abi::connection_view& v) {
    address client{static_cast<std::uint8_t>(v.source.is_v4() ? 4 : 16), {}};
    std::copy(v.source.bytes.end() - client.size, v.source.bytes.end(), client.bytes.begin());
    const connection_key key{static_cast<unsigned>(v.vip), client, v.source_port.host(),
                             v.destination_port.host()};
    const connection c{{v.backend.index(), v.backend.incarnation()}, v.state, v.seen};
    twice = !all.emplace(key, c).second || twice;
    return true;
  });
  if (twice) throw std::logic_error{"a connection is in the table twice"};
  return all;
}

std::string world::compare_counts() const {
  using enum abi::counter_id;
  std::string s;
  for (std::size_t i = 0; i < abi::counter_count; ++i) {
    const auto id = static_cast<abi::counter_id>(i);
    if (may_overflow_ &&
        (id == connection_hits || id == connections_opened || id == connections_closed ||
         id == connections_expired || id == connections_evicted || id == connections_untracked))
      continue;
    if (count_of(id) != model_.count_of(id))
      s += std::string{abi::counter_infos[i].name} + ": the model says " +
           std::to_string(model_.count_of(id)) + ", the path " + std::to_string(count_of(id)) +
           "\n";
  }
  if (count_of(connections_opened) - count_of(connections_closed) != table_.size())
    s += "opened and closed connections do not make those that are tracked\n";
  return s;
}

std::string world::compare_rows() const {
  std::string s;
  std::uint64_t opened = 0;
  for (unsigned i = 0; i < path::most_services; ++i) {
    const abi::service_counters& c = services_[i];
    service_counts wanted = model_.service_of(i);
    if (may_overflow_) wanted.opened = c.opened.read();
    opened += c.opened.read();
    if (service_counts{c.packets.read(), c.bytes.read(), c.opened.read(), c.dropped.read()} !=
        wanted)
      s += "service " + std::to_string(i) + ": its counters differ\n";
  }
  if (opened != count_of(abi::counter_id::connections_opened))
    s += "the services' connections are not all that were opened\n";
  for (unsigned i = 0; i < path::most_backends; ++i) {
    const abi::backend_counters& c = backends_[i];
    backend_counts wanted = model_.backend_of(i);
    if (may_overflow_) wanted.opened = c.opened.read(), wanted.closed = c.closed.read();
    if (backend_counts{c.packets.read(), c.bytes.read(), c.opened.read(), c.closed.read()} !=
        wanted)
      s += "backend " + std::to_string(i) + ": its counters differ\n";
  }
  return s;
}

std::map<ends, session> world::sessions_now() const {
  const auto plain = [](const ip_address& a) {
    address out{static_cast<std::uint8_t>(a.is_v4() ? 4 : 16), {}};
    std::copy(a.bytes.end() - out.size, a.bytes.end(), out.bytes.begin());
    return out;
  };
  std::map<ends, session> all;
  for (std::uint32_t i = 0; i < nat_.used(); ++i) {
    const nat_session* n = nat_.at(i);
    if (n == nullptr) continue;
    session s;
    s.client = {n->protocol, plain(n->client), n->client_port.host(), plain(n->vip),
                n->vip_port.host()};
    s.server = plain(n->server);
    s.server_port = n->server_port.host();
    s.local = plain(n->local);
    s.local_port = n->local_port.host();
    s.full = (n->flags & nat_full) != 0;
    s.backend = {n->backend.index(), n->backend.incarnation()};
    s.state = n->state;
    s.seen = n->seen;
    s.in_port = n->in_port;
    s.client_mac = n->client_mac;
    all[s.client] = s;
  }
  return all;
}

std::string world::compare_sessions() const {
  const auto now = sessions_now();
  if (now.size() != model_.sessions().size()) return "not as many translations\n";
  for (const auto& [key, s] : model_.sessions()) {
    session wanted = s;
    wanted.seen &= 0xffff;
    const auto at = now.find(key);
    if (at == now.end() || at->second != wanted) return "a translation differs\n";
  }
  return nat_.consistent() ? "" : "the table of translations is inconsistent\n";
}

// compare_connections(): each is as the model has it; in a table that may overflow, each is one
// that the model knows, with its backend.
std::string world::compare_connections() const {
  std::string s;
  const auto now = tracked_now();
  if (!may_overflow_ && now.size() != model_.connections().size())
    s += "the model has " + std::to_string(model_.connections().size()) +
         " connections, the path " + std::to_string(now.size()) + "\n";
  for (const auto& [key, real] : now) {
    const auto at = model_.connections().find(key);
    if (at == model_.connections().end()) return s + "the model does not know a connection\n";
    const connection& c = at->second;
    const bool as_young =
        may_overflow_ || (real.state == c.state && real.seen == (c.seen & 0xffff));
    if (real.backend != c.backend || !as_young)
      return s + "a connection differs: state " + std::to_string(static_cast<int>(c.state)) +
             " seen " + std::to_string(c.seen & 0xffff) + " backend " +
             std::to_string(c.backend.row) + ", in the table " +
             std::to_string(static_cast<int>(real.state)) + " seen " + std::to_string(real.seen) +
             " backend " + std::to_string(real.backend.row) + "\n";
  }
  return s;
}

std::string world::compare() {
  std::string s = compare_counts() + compare_rows() + compare_sessions() + compare_connections();
  if (!table_.v4.consistent() || !table_.v6.consistent())
    s += "the connection table is inconsistent\n";
  return s;
}

}  // namespace sluice::reference
