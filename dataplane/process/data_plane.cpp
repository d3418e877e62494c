// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/data_plane.hpp"

#include <fmt/format.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <thread>

#include "dataplane/abi/segment.hpp"
#include "dataplane/port/mbuf_pool.hpp"
#include "dataplane/port/twin.hpp"
#include "dataplane/port/xdp_attach.hpp"
#include "dataplane/process/eal.hpp"
#include "dataplane/process/notify.hpp"
#include "dataplane/process/telemetry.hpp"
#include "dataplane/worker/mapping_guard.hpp"

namespace sluice {
namespace {

constexpr unsigned least_buffers = 8191;
// Packets that may wait from one worker to another: two of the largest bursts.
constexpr unsigned handover_ring_size = 512;

unsigned lcore_of(std::size_t worker) {
  return static_cast<unsigned>(worker) + 1;
}

int socket_of(std::size_t worker) {
  return static_cast<int>(rte_lcore_to_socket_id(lcore_of(worker)));
}

template <std::size_t N>
void copy_text(std::array<char, N>& to, std::string_view from) noexcept {
  to.fill('\0');
  std::memcpy(to.data(), from.data(), std::min(from.size(), N - 1));
}

// Older kernels count the memory of AF_XDP and BPF against this limit.
void lift_memlock_limit() noexcept {
  const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
  ::setrlimit(RLIMIT_MEMLOCK, &all);
}

}  // namespace

data_plane::data_plane(const node_config& node, start_plan& plan)
    : node_{node},
      plan_{plan},
      config_{node.config_segment_path(), node.controlplane.limits.services,
              node.controlplane.limits.backends},
      captures_{[this](const capture* c) {
        return std::ranges::any_of(workers_, [c](const auto& w) { return w->tap().in_use() == c; });
      }} {}

data_plane::~data_plane() {
  close();
}

tl::expected<std::unique_ptr<data_plane>, std::string> data_plane::start(const node_config& node,
                                                                         start_plan& plan) {
  std::unique_ptr<data_plane> made{new data_plane{node, plan}};
  if (auto done = made->open(); !done) return tl::unexpected{done.error()};
  return made;
}

tl::expected<void, std::string> data_plane::open() {
  lift_memlock_limit();
  if (!mapping_guard::install()) return tl::unexpected{std::string{"cannot handle SIGBUS"}};
  for (const device_plan& device : plan_.devices) {
    leftovers_.emplace_back();
    if (device.config->kind != device_kind::af_xdp) continue;
    auto left = look_at_xdp(device.config->interface);
    if (!left) return tl::unexpected{"port " + device.config->name + ": " + left.error()};
    if (left->found()) {
      spdlog::info("port {}: taking over from a data plane that has ended", device.config->name);
      leave_ = true;  // should this start fail, the stand-in goes on
    }
    leftovers_.back() = std::move(*left);
  }
  const auto arguments = eal_arguments(node_, plan_.places, plan_.devices, plan_.memory);
  if (auto done = start_eal(arguments, node_.runtime_dir); !done) return done;
  eal_ = true;
  using step = tl::expected<void, std::string> (data_plane::*)();
  for (const step next :
       {&data_plane::open_ports, &data_plane::start_ports, &data_plane::make_peers,
        &data_plane::look_for_tables, &data_plane::make_tables, &data_plane::make_nat_tables,
        &data_plane::make_observations, &data_plane::launch_workers, &data_plane::attach_programs})
    if (auto done = (this->*next)(); !done) return done;
  attach_telemetry({observations_, &config_, &captures_});
  watchdog_every_ns_ = watchdog_interval_ns() / 2;
  return {};
}

tl::expected<void, std::string> data_plane::open_ports() {
  ports_.reserve(plan_.devices.size());
  for (const device_plan& device : plan_.devices) {
    auto opened = probe_port(device);
    if (!opened) return tl::unexpected{opened.error()};
    ports_.push_back(std::move(*opened));
  }
  auto workers = settle_workers();
  if (!workers) return tl::unexpected{workers.error()};
  placement::drop_workers(plan_.places, plan_.machine, *workers);
  for (port& p : ports_) {
    if (p.rx.size() < *workers)
      p.add_note(p.rx.size() == 1
                     ? std::string{"one RX queue: worker 0 polls it alone"}
                     : fmt::format("{} RX queues for {} workers", p.rx.size(), *workers));
    if (!p.note.empty()) spdlog::info("port {}: {}", p.name(), p.note);
  }
  return {};
}

// settle_workers() configures the ports for as many of the planned workers as they can
// serve: each worker needs a TX queue of its own on every port, since it may have to
// send anywhere, and sharing one would need a lock.
tl::expected<unsigned, std::string> data_plane::settle_workers() {
  auto workers = static_cast<unsigned>(plan_.places.workers.size());
  const auto limit = [&workers](unsigned to, const std::string& why) {
    if (to >= workers) return;
    spdlog::warn("{} of {} planned workers are used: {}", to, workers, why);
    workers = to;
  };
  unsigned most_rx = 1;
  for (const port& p : ports_) {
    most_rx = std::max(most_rx, p.max_rx_queues);
    limit(std::max(1u, p.max_tx_queues),
          fmt::format("port {} ({}) has {} TX queue(s)", p.name(), p.driver, p.max_tx_queues));
  }
  // Who owns flows can have some without a queue of his own.
  if (node_.dataplane.workers.selection == worker_selection::automatic &&
      node_.dataplane.steering == steering_mode::rss)
    limit(most_rx, fmt::format("no port has more than {} RX queue(s)", most_rx));
  const wire::rss_key key = flow_owner::key_of(node_.hash_seed);
  for (;;) {
    std::string refused;
    for (port& p : ports_)
      if (auto done = configure_port(p, workers, key); !done) {
        refused = fmt::format("port {} ({}): {}", p.name(), p.driver, done.error());
        break;
      }
    if (refused.empty()) return workers;
    if (workers == 1) return tl::unexpected{refused};
    limit(workers / 2, refused);
  }
}

tl::expected<void, std::string> data_plane::start_ports() {
  const auto workers = static_cast<unsigned>(plan_.places.workers.size());
  const bool xdp = std::ranges::any_of(ports_, [](const port& p) { return p.is_af_xdp(); });
  unsigned mtu = 0;
  for (const port& p : ports_)
    if (!p.scatters) mtu = std::max<unsigned>(mtu, p.mtu);
  std::map<int, pool_size> sizes;
  for (unsigned w = 0; w < workers; ++w) {
    pool_size& size = sizes[socket_of(w)];
    size.data_room = data_room_for(mtu, xdp);
    size.buffers += worker_buffers + (workers - 1) * handover_ring_size / 8;
  }
  for (const port& p : ports_)
    for (unsigned q = 0; q < p.rx.size(); ++q)
      sizes[socket_of(rx_worker(q, workers))].buffers +=
          (port_buffers(p) + static_cast<unsigned>(p.rx.size()) - 1) /
          static_cast<unsigned>(p.rx.size());
  for (const port& p : ports_)
    if (p.plan->config->wants_twin()) sizes[socket_of(0)].buffers += 2 * twin_ring_size;
  std::map<int, rte_mempool*> pools;
  for (auto& [socket, size] : sizes) {
    size.buffers = std::max(size.buffers, least_buffers);
    auto pool = create_pool(size, socket, xdp);
    if (!pool) return tl::unexpected{pool.error()};
    pools[socket] = *pool;
  }
  for (port& p : ports_) {
    if (auto done = start_port(
            p, [&](unsigned queue) { return pools[socket_of(rx_worker(queue, workers))]; });
        !done)
      return done;
    if (!p.plan->config->wants_twin()) continue;
    if (auto done = open_twin(p, pools[socket_of(0)]); !done) return done;
    spdlog::info("port {}: the kernel has it as {}", p.name(), p.twin->name());
  }
  std::vector<twin*> twins;
  for (const port& p : ports_)
    if (p.twin) twins.push_back(p.twin.get());
  if (!twins.empty()) pump_ = std::make_unique<twin_pump>(std::move(twins));
  return {};
}

// make_peers() makes the rings over which workers hand packets to each other: one per pair,
// so that nobody ever waits for a third.
tl::expected<void, std::string> data_plane::make_peers() {
  const std::size_t workers = plan_.places.workers.size();
  owner_ = std::make_unique<flow_owner>(flow_owner::key_of(node_.hash_seed),
                                        static_cast<unsigned>(workers));
  peers_.assign(workers, std::vector<rte_ring*>(workers, nullptr));
  for (std::size_t from = 0; from < workers; ++from)
    for (std::size_t to = 0; to < workers; ++to) {
      if (from == to) continue;
      peers_[from][to] =
          rte_ring_create(fmt::format("hand {} {}", from, to).c_str(), handover_ring_size,
                          socket_of(to), RING_F_SP_ENQ | RING_F_SC_DEQ);
      if (peers_[from][to] == nullptr)
        return tl::unexpected{fmt::format("no memory for the rings between {} workers: {}", workers,
                                          rte_strerror(rte_errno))};
    }
  return {};
}

tl::expected<void, std::string> data_plane::make_observations() {
  const limits_config& limits = node_.controlplane.limits;
  const auto workers = static_cast<std::uint32_t>(plan_.places.workers.size());
  const auto layout = abi::observation_layout::of(
      workers, limits.services, abi::observation_layout::backend_rows_for(limits.backends));
  const auto fill = [&](std::byte* base) {
    const abi::observation_map<std::byte> map{base, layout};
    abi::dataplane_info& info = map.info();
    info.pid = ::getpid();
    info.worker_count = workers;
    info.port_count = static_cast<std::uint32_t>(ports_.size());
    info.services = limits.services;
    info.backends = layout.backend_rows;
    info.flags = (plan_.memory.huge ? abi::dataplane_huge_pages : 0u) |
                 (node_.dataplane.idle == idle_mode::busy ? abi::dataplane_idle_busy : 0u);
    info.started_ns = abi::clock_ns(CLOCK_REALTIME);
    info.heartbeat_ns.set(abi::clock_ns(CLOCK_MONOTONIC));
    copy_text(info.version, SLUICE_VERSION);
    for (std::size_t i = 0; i < ports_.size(); ++i)
      fill_port_info(ports_[i], map.port(static_cast<unsigned>(i)));
    for (unsigned w = 0; w < workers; ++w) {
      abi::worker_block& block = map.worker(w);
      const placement::worker_place& place = plan_.places.workers[w];
      block.phase.store(abi::worker_phase::starting, std::memory_order_relaxed);
      block.cpu = static_cast<std::int32_t>(place.cpu);
      block.numa_node = place.numa_node;
      block.queue = static_cast<std::uint16_t>(w);
      for (std::size_t i = 0; i < ports_.size(); ++i)
        if (w < ports_[i].rx.size()) block.port_mask |= 1u << i;
      copy_text(block.connection_path, tables_[w].path());
      count_adopted(w, map);
      copy_text(block.placement, place.reason);
    }
  };
  std::string error;
  segment_ = abi::create_segment(node_.observation_segment_path(), abi::observation_magic,
                                 layout.total, 0644, true, fill, error);
  if (!segment_) return tl::unexpected{error};
  observations_ = {segment_.data(), layout};
  // A huge page may hold rows of several workers; each shall have its own on its own node.
  const auto& places = plan_.places.workers;
  if (std::ranges::all_of(places,
                          [&](const auto& p) { return p.numa_node == places[0].numa_node; }))
    abi::make_huge(segment_.data(), 0, segment_.size());
  return {};
}

// look_for_tables() has the workers start with the tables that are there, so that a
// restart drops no packet for want of them.
tl::expected<void, std::string> data_plane::look_for_tables() {
  const auto none = [](const attached_config*) { return false; };
  config_.poll({none, none});
  return {};
}

tl::expected<void, std::string> data_plane::launch_workers() {
  const auto count = static_cast<unsigned>(plan_.places.workers.size());
  const limits_config& limits = node_.controlplane.limits;
  const auto& first = *reinterpret_cast<const abi::connection_header*>(tables_[0].data());
  persistence_ = std::make_unique<persistence_table>(
      std::array<std::uint64_t, 2>{first.secret[0], first.secret[1]}, count);
  for (unsigned w = 0; w < count; ++w) {
    worker_setup setup;
    setup.burst = node_.dataplane.burst;
    setup.idle = node_.dataplane.idle;
    setup.block = &observations_.worker(w);
    setup.counters = {setup.block->counters.data(), observations_.services(w), limits.services,
                      observations_.backends(w), observations_.layout().backend_rows};
    setup.counters.resets = observations_.resets(w);
    setup.counters.instance =
        reinterpret_cast<const abi::segment_header*>(segment_.data())->instance;
    for (unsigned other = 0; other < count; ++other)
      if (other != w) setup.other_backends.push_back(observations_.backends(other));
    setup.connections = tables_[w].data();
    setup.self = w;
    if (node_.dataplane.steering == steering_mode::owner) setup.owner = owner_.get();
    setup.peers.to = peers_[w];
    for (unsigned from = 0; from < count; ++from)
      if (from != w) setup.peers.from.push_back(peers_[from][w]);
    for (const auto& nat : nat_tables_) setup.nat.push_back(nat.get());
    setup.persistence = persistence_.get();
    setup.config = &config_.wanted();
    setup.capture_wanted = &captures_.wanted();
    for (std::size_t i = 0; i < ports_.size(); ++i) {
      const port& p = ports_[i];
      // Of an af_xdp port the kernel has kept what it should have; what comes up to us
      // cannot be given back.
      setup.ports.push_back({p.mac, p.twin != nullptr});
      // One worker reads what the kernel sends: its order is kept.
      setup.twins.push_back(p.twin ? worker_twin{p.twin->to_kernel(),
                                                 i % count == w ? p.twin->from_kernel() : nullptr,
                                                 &p.twin->refused()}
                                   : worker_twin{});
      setup.tx.push_back({p.tx[w].device, p.tx[w].queue, p.longest_chain});
      for (unsigned q = 0; q < p.rx.size(); ++q)
        if (rx_worker(q, count) == w)
          setup.rx.push_back({p.rx[q].device, p.rx[q].queue, static_cast<std::uint8_t>(i)});
    }
    workers_.push_back(std::make_unique<worker>(std::move(setup)));
  }
  late_.assign(count, false);
  const auto run = [](void* self) {
    static_cast<worker*>(self)->run();
    return 0;
  };
  for (unsigned w = 0; w < count; ++w)
    if (const int error = rte_eal_remote_launch(run, workers_[w].get(), lcore_of(w)); error != 0)
      return tl::unexpected{fmt::format("worker {} does not start: {}", w, std::strerror(-error))};
    else
      launched_ = true;
  for (unsigned w = 0; w < count; ++w)
    while (observations_.worker(w).phase.load(std::memory_order_acquire) ==
           abi::worker_phase::starting)
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
  return {};
}

std::string data_plane::summary() const {
  std::string ports;
  for (const port& p : ports_)
    ports += fmt::format("{}{} ({}, {}, MTU {}, {} RX, {} TX)", ports.empty() ? "" : ", ", p.name(),
                         p.driver, format_mac(p.mac), p.mtu, p.rx.size(), p.tx.size());
  std::string workers;
  for (const placement::worker_place& w : plan_.places.workers)
    workers += fmt::format("{}CPU {} ({})", workers.empty() ? "" : ", ", w.cpu, w.reason);
  return fmt::format("ports: {}; workers: {}; memory: {}; idle: {}", ports, workers,
                     plan_.memory.text,
                     node_.dataplane.idle == idle_mode::busy    ? "busy"
                     : node_.dataplane.idle == idle_mode::yield ? "yield"
                                                                : "sleep");
}

void data_plane::close() noexcept {
  if (leave_) hand_to_standin();
  pinned_.reset();
  detach_telemetry();
  captures_.stop();
  for (const auto& w : workers_) w->request_stop();
  if (launched_) rte_eal_mp_wait_lcore();
  launched_ = false;
  pump_.reset();
  for (port& p : ports_) {
    const bool xdp = p.is_af_xdp();
    close_port(p);
    if (!xdp || leave_) continue;
    if (auto done = detach_xdp(p.plan->config->interface); !done)
      spdlog::warn("port {}: {}", p.name(), done.error());
  }
  ports_.clear();
  programs_.clear();
  workers_.clear();
  if (segment_) ::unlink(node_.observation_segment_path().c_str());
  segment_ = {};
  if (leave_) {
    for (connection::table_file& table : tables_)
      table.keep_adoptable(config_.instance(), abi::clock_ns(CLOCK_MONOTONIC));
    for (std::size_t w = 0; w < nat_tables_.size(); ++w)
      nat_files_[w].note_port(nat_tables_[w]->next_port());
  } else {
    for (connection::table_file& table : tables_) table.remove();
    for (nat_file& file : nat_files_) file.remove();
  }
  tables_.clear();
  if (eal_) stop_eal();
  eal_ = false;
}

}  // namespace sluice
