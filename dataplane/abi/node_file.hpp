// SPDX-License-Identifier: Apache-2.0
// node.yaml: what this host offers, read once at start by both daemons (and by the
// tools that run the packet path). docs/configuration.md explains every key.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice {

enum class device_kind : std::uint8_t { af_xdp, pci, vdev };

// log_level: what is logged, and all that is worse.
enum class log_level : std::uint8_t { debug, info, warning, error };
[[nodiscard]] std::string_view to_string(log_level l) noexcept;
[[nodiscard]] std::optional<log_level> parse_log_level(std::string_view word) noexcept;

struct port_config {
  std::string name;    // [a-z0-9][a-z0-9._-]{0,31}, unique
  std::string device;  // as in the file
  device_kind kind{device_kind::vdev};
  std::string interface;                // af_xdp: the kernel's interface; otherwise empty
  std::optional<unsigned> queues;       // receive queues; nothing: as the device and workers allow
  std::optional<mac_address> next_hop;  // nothing: the kernel's routes and neighbours decide
  std::optional<bool> twin;             // a TAP through which the kernel uses the port; nothing:
                                        //   where the device is no interface of the kernel

  // wants_twin(): the kernel is given a TAP with the port's MAC, for what is not ours.
  [[nodiscard]] bool wants_twin() const noexcept {
    return kind != device_kind::af_xdp && twin.value_or(kind == device_kind::pci);
  }
  // twin_name() is the TAP's name.
  [[nodiscard]] std::string twin_name() const { return "sl-" + name; }

  bool operator==(const port_config&) const = default;
};

enum class worker_selection : std::uint8_t { automatic, count, list };

struct workers_config {
  worker_selection selection{worker_selection::automatic};
  unsigned count{};            // for count
  std::vector<unsigned> cpus;  // for list: in the order given, each once

  bool operator==(const workers_config&) const = default;
};

enum class idle_mode : std::uint8_t { busy, yield, sleep };
enum class steering_mode : std::uint8_t { rss, owner };
enum class hugepage_mode : std::uint8_t { automatic, on, off };

struct dataplane_config {
  workers_config workers;
  std::vector<port_config> ports;              // may be empty: then only replay can use this file
  std::optional<ip_prefix> encap_source_ipv4;  // single(): one address; otherwise the host bits
  std::optional<ip_prefix> encap_source_ipv6;  //   of each packet come from its flow's hash
  std::vector<ip_address> nat_pool;            // full-nat's sources; each once, IPv4 first
  std::uint16_t gue_port{6080};                // UDP destination port of gue
  std::uint32_t connections{1'000'000};        // per worker
  idle_mode idle{idle_mode::busy};
  steering_mode steering{steering_mode::rss};  // where a flow is dealt with
  hugepage_mode hugepages{hugepage_mode::automatic};
  std::optional<unsigned> memory_mib;  // EAL's memory; nothing: computed
  unsigned burst{96};                  // packets, 8 to 256
  std::vector<std::string> eal_args;   // appended to EAL's own, one argument each

  bool operator==(const dataplane_config&) const = default;
};

struct limits_config {
  std::uint32_t services{4096};
  std::uint32_t backends{65536};
  std::uint32_t table_memory_mib{512};  // for the lookup tables of one generation

  bool operator==(const limits_config&) const = default;
};

// Words of controlplane.backup.
enum class backup_method : std::uint8_t { full, incremental, differential };
enum class copy_mode : std::uint8_t { sync, async };

// backup_config: scheduled backups of the state file.
struct backup_config {
  std::string to;  // directory; empty: none are made
  std::chrono::milliseconds interval{std::chrono::hours{1}};
  backup_method kind{backup_method::incremental};
  std::uint32_t full_every{24};  // backups; the first is full, too
  std::uint32_t keep{7};         // full backups, each with what builds on it
  std::string copy_to;           // second directory; empty: none
  copy_mode copy{copy_mode::sync};

  bool operator==(const backup_config&) const = default;
};

struct history_config {
  std::uint32_t revisions{10'000};  // kept at least; 0: all

  bool operator==(const history_config&) const = default;
};

// api_listen_config: the API over TCP. The files are read by the control plane.
struct api_listen_config {
  ip_port address;
  std::string certificate;  // PEM, with what it needs of its chain
  std::string key;          // PEM
  std::string tokens;
  unsigned line{};  // in node.yaml

  bool operator==(const api_listen_config&) const = default;
};

// announce_config: where VIPs are put so that a routing daemon announces them.
struct announce_config {
  std::string interface;
  std::chrono::milliseconds withdraw_after{3000};  // the data plane's last sign of life

  bool operator==(const announce_config&) const = default;
};

// ip_range: addresses of one family, both ends included.
struct ip_range {
  ip_address first;
  ip_address last;

  [[nodiscard]] bool holds(const ip_address& a) const noexcept {
    return a.is_v4() == first.is_v4() && first <= a && a <= last;
  }
  auto operator<=>(const ip_range&) const = default;
};

// kubernetes_config: the cluster whose Services of type LoadBalancer become services.
struct kubernetes_config {
  std::string server;      // a URL
  std::string ca;          // PEM file; empty: the host's
  std::string token_file;  // empty: none
  std::string load_balancer_class{"sluice.io/sluice"};
  std::vector<std::string> namespaces;  // empty: all
  std::vector<ip_range> pool;           // the VIPs that are given out
  std::vector<ip_range> on_request;     // VIPs for those who ask for them by address
  std::string service_file;             // what the services have in common; empty: the defaults
  unsigned line{};                      // in node.yaml

  bool operator==(const kubernetes_config&) const = default;
};

struct controlplane_config {
  std::string state{"/var/lib/sluice/state.db"};
  std::string checks{"/etc/sluice/checks"};     // where programs of health checks are; empty: off
  std::string api_socket;                       // default: runtime_dir/api.sock
  unsigned api_mode{0660};                      // permission bits of the socket
  std::optional<api_listen_config> api_listen;  // nothing: off
  std::optional<ip_port> metrics_listen;        // nothing: off
  limits_config limits;
  history_config history;
  backup_config backup;
  std::optional<announce_config> announce;      // nothing: off
  std::optional<kubernetes_config> kubernetes;  // nothing: off

  bool operator==(const controlplane_config&) const = default;
};

struct node_config {
  std::string file;                        // where it was read from
  std::string name;                        // default: the host's name
  std::string runtime_dir{"/run/sluice"};  // absolute, no '/' at the end
  log_level log{log_level::info};          // read again by a reload
  std::uint64_t hash_seed{0};
  dataplane_config dataplane;
  controlplane_config controlplane;

  // Files in runtime_dir that both daemons agree on.
  [[nodiscard]] std::string config_segment_path() const { return runtime_dir + "/config.shm"; }
  [[nodiscard]] std::string observation_segment_path() const {
    return runtime_dir + "/observations.shm";
  }
  [[nodiscard]] std::string dataplane_lock_path() const { return runtime_dir + "/dataplane.lock"; }
  [[nodiscard]] std::string controlplane_lock_path() const {
    return runtime_dir + "/controlplane.lock";
  }
  [[nodiscard]] const port_config* find_port(std::string_view port_name) const noexcept;
};

// load_node_file() reads and validates node.yaml. Any thread.
[[nodiscard]] tl::expected<node_config, std::vector<config_error>> load_node_file(
    const std::string& path);
// parse_node_text() is the same for text in memory; file_name is for the errors.
[[nodiscard]] tl::expected<node_config, std::vector<config_error>> parse_node_text(
    std::string_view text, std::string_view file_name);

// changed_keys() names what differs, as "controlplane.limits"; not the order of keys, comments
// or where the file is.
[[nodiscard]] std::vector<std::string_view> changed_keys(const node_config& a,
                                                         const node_config& b);

// read_text_file() returns a file's content, at most yaml::max_bytes.
[[nodiscard]] tl::expected<std::string, config_error> read_text_file(const std::string& path);

}  // namespace sluice
