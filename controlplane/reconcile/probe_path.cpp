// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/probe_path.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <spdlog/spdlog.h>

#include "controlplane/config/kernel_port.hpp"
#include "dataplane/abi/file_descriptor.hpp"

namespace sluice::reconcile {
namespace {

using namespace std::chrono_literals;

constexpr auto look_again_after = 5s;
constexpr auto addresses_for = 1s;
constexpr unsigned calls_per_check = 10;     // of check()
constexpr unsigned calls_per_attempt = 100;  // to mend what could not be mended
// What is sent there gets a tunnel around it, and backends are told to answer in as little.
constexpr std::uint32_t pair_mtu = 1280;

std::uint32_t short_hash(const std::string& text) noexcept {
  std::uint32_t h = 0x811c9dc5;
  for (const char c : text) h = (h ^ static_cast<std::uint8_t>(c)) * 0x01000193;
  return h == 0 ? 1 : h;
}

std::string name_of(const char* prefix, std::uint32_t id) {
  char text[IFNAMSIZ];
  std::snprintf(text, sizeof text, "%s%08x", prefix, id);
  return text;
}

ip_address link_local6(std::uint8_t last) {
  std::array<std::uint8_t, 16> b{0xfe, 0x80};
  b[15] = last;
  return ip_address::v6(b);
}

// choose_ipv4() takes two neighbouring link-local addresses (RFC 3927) that no interface has;
// not from 169.254.169.0/24, where clouds have their own.
void choose_ipv4(neighbour::veth_settings& s, std::uint32_t id) {
  const auto host = host_addresses();
  const auto taken = [&](const ip_address& a) {
    return std::any_of(host.begin(), host.end(),
                       [&](const host_address& h) { return h.address == a; });
  };
  for (std::uint32_t attempt = 0; attempt < 64; ++attempt, id += 0x101) {
    auto third = static_cast<std::uint8_t>(1 + id % 253);
    if (third == 169) third = 254;
    const auto last = static_cast<std::uint8_t>(2 + (id >> 8) % 126 * 2);
    s.local4 = ip_address::v4({169, 254, third, last});
    s.peer4 = ip_address::v4({169, 254, third, static_cast<std::uint8_t>(last + 1)});
    if (!taken(s.local4) && !taken(s.peer4)) return;
  }
}

bool takes_path(const model::service& s) noexcept {
  return s.health.via != model::health_via::direct && model::carries(s.forward, s.health.kind);
}

// outer_source() is one of the addresses that the data plane would take; always the same for
// a target.
ip_address outer_source(const ip_prefix& source, std::uint64_t hash) {
  ip_address a = source.address;
  const unsigned width = a.is_v4() ? 32 : 128;
  const unsigned bits = std::min(width - std::min<unsigned>(source.length, width), 32u);
  if (bits == 0) return a;
  const std::uint64_t hosts = std::uint64_t{1} << bits;
  std::uint64_t host = 1 + hash % (hosts - 1);
  if (a.is_v4()) host = bits == 1 ? hash & 1 : 1 + hash % (hosts - 2);
  std::uint32_t low;
  std::memcpy(&low, a.bytes.data() + 12, sizeof low);
  low = htonl(static_cast<std::uint32_t>((ntohl(low) & ~(hosts - 1)) | host));
  std::memcpy(a.bytes.data() + 12, &low, sizeof low);
  return a;
}

void put(std::uint8_t (&to)[16], const ip_address& a) {
  std::memcpy(to, a.bytes.data(), sizeof to);
}

bool read_mac(const std::string& interface, std::uint8_t (&to)[6]) {
  const file_descriptor socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  ifreq r{};
  interface.copy(r.ifr_name, sizeof r.ifr_name - 1);
  const bool read = ::ioctl(socket.get(), SIOCGIFHWADDR, &r) == 0;
  if (read) std::memcpy(to, r.ifr_hwaddr.sa_data, sizeof to);
  return read;
}

}  // namespace

probe_path::probe_path(const node_config& node, change_callback on_change)
    : node_{node}, on_change_{std::move(on_change)}, id_{short_hash(node.runtime_dir)} {
  settings_.near = name_of("slp-", id_);
  settings_.far = name_of("slq-", id_);
  settings_.alias = "sluice: health checks of " + node.runtime_dir;
  settings_.mtu = pair_mtu;
  settings_.local6 = link_local6(1);
  // A process that was killed, and perhaps nobody who wants them now.
  if (::if_nametoindex(settings_.near.c_str()) != 0) {
    bpf_loader::probe_program::remove_leftovers(id_);
    neighbour::remove_veth_pair(settings_.near, settings_.alias);
  }
}

probe_path::~probe_path() {
  if (!program_) return;
  program_.reset();
  if (const auto error = neighbour::remove_veth_pair(settings_.near, settings_.alias);
      !error.empty())
    spdlog::warn("{}", error);
}

bool probe_path::wanted(const model::desired_state& state) noexcept {
  return std::any_of(state.services.begin(), state.services.end(), takes_path);
}

std::string probe_path::make() {
  auto program = bpf_loader::probe_program::load(id_, node_.controlplane.limits.backends);
  if (!program) return program.error();
  bpf_loader::probe_program::remove_leftovers(id_);
  choose_ipv4(settings_, id_);
  auto pair = neighbour::make_veth_pair(settings_);
  if (!pair) return pair.error();
  sluice_probe_config config{};
  config.ifindex = static_cast<std::uint32_t>(pair->near_index);
  std::copy(pair->near_mac.begin(), pair->near_mac.end(), config.mac);
  std::copy_n(settings_.local4.bytes.begin() + 12, 4, config.local4);
  std::copy_n(settings_.peer4.bytes.begin() + 12, 4, config.peer4);
  put(config.local6, settings_.local6);
  put(config.peer6, link_local6(2));
  std::string error = (*program)->configure(config);
  if (error.empty()) error = (*program)->attach_tx(pair->far_index);
  if (error.empty())
    if (const auto fault = neighbour::fault_of_veth_pair(settings_, *pair); !fault.empty())
      error = settings_.near + " is " + fault;
  if (!error.empty()) {
    neighbour::remove_veth_pair(settings_.near, settings_.alias);
    return error;
  }
  program_ = std::move(*program);
  pair_ = *pair;
  return {};
}

std::string probe_path::open() {
  if (open_.load(std::memory_order_acquire)) return {};
  const std::lock_guard lock{mutex_};
  if (open_.load(std::memory_order_relaxed)) return {};
  const auto& ports = node_.dataplane.ports;
  if (!std::exchange(ports_told_, true))
    for (const auto& p : ports)
      if (!config::is_kernel_port(p))
        spdlog::warn(
            "port {}: no interface of the kernel: backends that it leads to are probed directly, "
            "not through the data path",
            p.name);
  if (std::none_of(ports.begin(), ports.end(), config::is_kernel_port))
    return "no port is an interface of the kernel";
  std::string problem = make();
  if (problem.empty()) {
    if (!pair_.ipv6)
      spdlog::warn("{}: no IPv6: services of IPv6 are probed directly", settings_.near);
    open_.store(true, std::memory_order_release);
  } else if (problem != problem_) {
    spdlog::warn("health checks go straight to the backends, not through the data path: {}",
                 problem);
  }
  problem_ = problem;
  return problem;
}

std::optional<health::data_path> probe_path::path_for(const model::service& s,
                                                      const model::backend& b) const {
  if (!takes_path(s) || !open_.load(std::memory_order_acquire)) return std::nullopt;
  if (!s.address.is_v4()) {
    const std::lock_guard lock{mutex_};
    if (!pair_.ipv6) return std::nullopt;
  }
  return health::data_path{s.address, s.forward, b.dscp};
}

std::uint32_t probe_path::next_mark() {
  do {
    last_mark_ = (last_mark_ + 1) % SLUICE_PROBE_MARKS;
  } while (!marks_.insert(SLUICE_PROBE_FIRST_MARK + last_mark_).second);
  return SLUICE_PROBE_FIRST_MARK + last_mark_;
}

void probe_path::set_targets(const std::vector<health::wanted_target>& targets,
                             std::set<ip_address> vips) {
  vips_ = std::move(vips);
  decltype(slots_) kept;
  for (const auto& w : targets)
    if (auto node = slots_.extract(w.target)) kept.insert(std::move(node));
  for (const auto& [t, s] : slots_) {
    if (s.known && program_) program_->erase(s.mark);
    marks_.erase(s.mark);
  }
  slots_ = std::move(kept);
}

void probe_path::refresh(const health::target& t) {
  if (const auto found = slots_.find(t); found != slots_.end()) found->second.looked = {};
}

bool probe_path::through(const health::target& t) const {
  if (!t.path) return false;
  const auto found = slots_.find(t);
  return found == slots_.end() || !found->second.direct.value_or(false);
}

bool probe_path::listen_on(int ifindex) {
  if (ifindex <= 0) return false;
  if (listening_.contains(ifindex)) return true;
  std::string problem = program_->attach_rx(ifindex);
  char name[IFNAMSIZ] = {};
  if (problem.empty()) {
    listening_.insert(ifindex);
    filter_problem_.clear();
    return true;
  }
  ::if_indextoname(static_cast<unsigned>(ifindex), name);
  problem = std::string{name} + ": replies to health checks cannot be taken in: " + problem;
  if (problem != filter_problem_) spdlog::warn("{}", problem);
  filter_problem_ = std::move(problem);
  return false;
}

// look_at_host() reads the host's addresses, and listens on every port: with several, the
// backend's routes say by which the reply comes.
void probe_path::look_at_host() {
  const auto now = clock::now();
  if (now - host_read_ <= addresses_for) return;
  host_ = host_addresses();
  host_read_ = now;
  for (const auto& interface : hops_->kernel_interfaces())
    (void)listen_on(static_cast<int>(::if_nametoindex(interface.c_str())));
}

std::optional<sluice_probe_target> probe_path::compose(const health::target& t) {
  const auto way = hops_->probe_way_to(t.address, t.path->mode);
  if (!way) return std::nullopt;
  const auto ifindex = static_cast<int>(::if_nametoindex(way->interface.c_str()));
  const auto& pool = node_.dataplane.nat_pool;
  look_at_host();
  std::optional<host_address> source;
  if (t.check.source && t.check.source->is_v4() == t.path->vip.is_v4()) {
    const auto own = std::find_if(host_.begin(), host_.end(), [&](const host_address& h) {
      return h.address == *t.check.source;
    });
    if (own != host_.end()) source = *own;
  } else {
    source =
        find_probe_source(way->interface, t.address, t.path->vip, host_, [&](const ip_address& a) {
          return !vips_.contains(a) && std::find(pool.begin(), pool.end(), a) == pool.end();
        });
  }
  if (ifindex == 0 || !source) return std::nullopt;
  sluice_probe_target out{};
  if (model::tunnels(t.path->mode)) {
    const auto& from =
        t.address.is_v4() ? node_.dataplane.encap_source_ipv4 : node_.dataplane.encap_source_ipv6;
    if (!from) return std::nullopt;
    put(out.outer_source, outer_source(*from, health::target_hash{}(t)));
  }
  if (way->mac) {
    std::copy(way->mac->begin(), way->mac->end(), out.next_hop);
    if (!read_mac(way->interface, out.out_mac)) return std::nullopt;
  } else {
    put(out.via, way->via);
  }
  // By a port, or by what has the address, the reply comes.
  if (!listen_on(ifindex) || (source->ifindex != ifindex && !listen_on(source->ifindex)))
    return std::nullopt;
  put(out.vip, t.path->vip);
  put(out.source, source->address);
  put(out.backend, t.address);
  out.out_ifindex = static_cast<std::uint32_t>(ifindex);
  out.mode = static_cast<std::uint8_t>(t.path->mode);
  out.dscp = t.path->dscp;
  out.gue_port = htons(node_.dataplane.gue_port);
  out.timeout_ms = static_cast<std::uint32_t>(t.check.timeout.count());
  return out;
}

// look() brings what the program knows of a target up to date; false: there is no way.
bool probe_path::look(const health::target& t, slot& s) {
  if (!program_ || (!t.path->vip.is_v4() && !pair_.ipv6)) return false;
  const auto now = clock::now();
  if (s.known && s.looked != clock::time_point{} && now - s.looked < look_again_after) return true;
  const auto wanted = compose(t);
  if (!wanted) {
    s.looked = {};
    return false;
  }
  if (s.mark == 0) s.mark = next_mark();
  if (!s.known || std::memcmp(&*wanted, &s.told, sizeof s.told) != 0) {
    if (const auto error = program_->put(s.mark, *wanted); !error.empty()) {
      if (error != filter_problem_) spdlog::warn("health checks: {}", error);
      filter_problem_ = error;
      return false;
    }
    s.told = *wanted;
    s.known = true;
  }
  s.looked = now;
  return true;
}

tl::expected<health::probe_socket, std::error_code> probe_path::make_socket(
    const health::target& t) {
  if (!t.path || !open_.load(std::memory_order_acquire)) return health::make_plain_socket(t);
  slot& s = slots_[t];
  const bool way = look(t, s);
  const bool must = t.check.via == model::health_via::data_path;
  const bool direct = !way && !must;
  if (direct != s.direct) {
    s.direct = direct;
    on_change_(t);
  }
  if (direct) return health::make_plain_socket(t);
  if (!way) return tl::unexpected{std::make_error_code(std::errc::host_unreachable)};

  const bool v4 = t.path->vip.is_v4();
  health::probe_socket made;
  made.to = v4 ? settings_.peer4 : link_local6(2);
  made.scope = static_cast<std::uint32_t>(pair_.near_index);
  made.mark = s.mark;
  if (t.check.kind == model::health_kind::icmp) return made;
  const int type = model::streams(t.check.kind) ? SOCK_STREAM : SOCK_DGRAM;
  const int fd = ::socket(v4 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && ::setsockopt(fd, SOL_SOCKET, SO_MARK, &s.mark, sizeof s.mark) == 0 &&
      ::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, settings_.near.c_str(),
                   static_cast<socklen_t>(settings_.near.size() + 1)) == 0) {
    made.fd = fd;
    return made;
  }
  const std::error_code error{errno, std::generic_category()};
  if (fd >= 0) ::close(fd);
  // The pair is gone: ours to mend, and nothing to hold against the backend.
  return tl::unexpected{error.value() == ENODEV ? std::make_error_code(std::errc::no_buffer_space)
                                                : error};
}

void probe_path::forget() {
  listening_.clear();
  for (auto& [t, s] : slots_) {
    s.known = false;
    s.looked = {};
  }
}

// mend() makes the pair and the programs anew.
void probe_path::mend(const std::string& fault) {
  const std::lock_guard lock{mutex_};
  if (!fault.empty())
    spdlog::warn("{}: the pair for health checks is {}; made anew", settings_.near, fault);
  forget();
  program_.reset();
  std::string problem = make();
  if (problem.empty() && !problem_.empty())
    spdlog::info("health checks go through the data path again");
  if (!problem.empty() && problem != problem_)
    spdlog::warn("health checks go straight to the backends: {}", problem);
  problem_ = std::move(problem);
}

void probe_path::check() {
  if (!open_.load(std::memory_order_acquire) || ++checks_ % calls_per_check != 0) return;
  if (!program_) {
    if (checks_ % calls_per_attempt == 0) mend({});
    return;
  }
  std::string fault = neighbour::fault_of_veth_pair(settings_, pair_);
  if (fault.empty() && !program_->attach_tx(pair_.far_index).empty()) fault = "without its filter";
  if (!fault.empty()) return mend(fault);
  for (auto it = listening_.begin(); it != listening_.end();) {
    char name[IFNAMSIZ];
    const bool there = ::if_indextoname(static_cast<unsigned>(*it), name) != nullptr;
    // Somebody may have removed the qdisc, and our filter with it.
    if (there && program_->attach_rx(*it).empty())
      ++it;
    else
      it = listening_.erase(it);
  }
}

std::vector<std::string> probe_path::problems() const {
  std::vector<std::string> out;
  {
    const std::lock_guard lock{mutex_};
    if (!problem_.empty()) out.push_back("health checks go straight to the backends: " + problem_);
  }
  if (!filter_problem_.empty()) out.push_back(filter_problem_);
  return out;
}

}  // namespace sluice::reconcile
