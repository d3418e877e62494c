// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/node_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace sluice {
namespace {

std::string errors_of(std::string_view text) {
  const auto n = parse_node_text(text, "node.yaml");
  return n ? "" : to_string(n.error());
}

// The example of the contract.
constexpr std::string_view contract = R"(node: {name: edge1}
cluster: {hash-seed: 42}                 # the same on every node
dataplane:
  workers: auto                          # or a number, or a cpu list
  ports:
    - {name: up0, device: "af_xdp:eth1"}
  encap-source: {ipv4: 192.0.2.10, ipv6: "2001:db8::10"}
  connections: 1000000                   # per worker
  idle: busy
  next-hop: {up0: "02:00:00:00:00:01"}
controlplane:
  state: /var/lib/sluice/state.db
  api: {socket: /run/sluice/api.sock}
  metrics: {listen: "127.0.0.1:9090"}
)";

TEST(node_file, reads_the_contract) {
  const auto n = parse_node_text(contract, "node.yaml");
  ASSERT_TRUE(n) << to_string(n.error());
  EXPECT_EQ(n->file, "node.yaml");
  EXPECT_EQ(n->name, "edge1");
  EXPECT_EQ(n->hash_seed, 42u);
  EXPECT_EQ(n->runtime_dir, "/run/sluice");
  EXPECT_EQ(n->config_segment_path(), "/run/sluice/config.shm");
  const dataplane_config& d = n->dataplane;
  EXPECT_EQ(d.workers.selection, worker_selection::automatic);
  ASSERT_EQ(d.ports.size(), 1u);
  EXPECT_EQ(d.ports[0].name, "up0");
  EXPECT_EQ(d.ports[0].device, "af_xdp:eth1");
  EXPECT_EQ(d.ports[0].kind, device_kind::af_xdp);
  EXPECT_EQ(d.ports[0].interface, "eth1");
  EXPECT_FALSE(d.ports[0].queues);
  EXPECT_EQ(d.ports[0].next_hop, (mac_address{2, 0, 0, 0, 0, 1}));
  ASSERT_TRUE(d.encap_source_ipv4 && d.encap_source_ipv6);
  EXPECT_TRUE(d.encap_source_ipv4->single());
  EXPECT_EQ(format_prefix(*d.encap_source_ipv6), "2001:db8::10");
  EXPECT_EQ(d.connections, 1'000'000u);
  EXPECT_EQ(d.idle, idle_mode::busy);
  EXPECT_EQ(d.hugepages, hugepage_mode::automatic);
  EXPECT_FALSE(d.memory_mib);
  EXPECT_EQ(d.burst, 96u);
  EXPECT_TRUE(d.eal_args.empty());
  const controlplane_config& c = n->controlplane;
  EXPECT_EQ(c.state, "/var/lib/sluice/state.db");
  EXPECT_EQ(c.api_socket, "/run/sluice/api.sock");
  EXPECT_EQ(c.api_mode, 0660u);
  ASSERT_TRUE(c.metrics_listen);
  EXPECT_EQ(format_ip_port(*c.metrics_listen), "127.0.0.1:9090");
  EXPECT_EQ(c.limits.services, 4096u);
  EXPECT_EQ(c.limits.backends, 65536u);
  EXPECT_EQ(c.limits.table_memory_mib, 512u);
  EXPECT_TRUE(n->find_port("up0"));
  EXPECT_FALSE(n->find_port("up1"));
}

TEST(node_file, says_what_has_changed) {
  const auto a = parse_node_text(contract, "node.yaml");
  ASSERT_TRUE(a);
  auto b = *a;
  EXPECT_TRUE(changed_keys(*a, b).empty());
  b.log = log_level::debug;
  b.dataplane.burst = 128;
  b.controlplane.limits.services = 1;
  EXPECT_EQ(changed_keys(*a, b),
            (std::vector<std::string_view>{"node.log-level", "dataplane", "controlplane.limits"}));
  for (const auto level : {log_level::debug, log_level::info, log_level::warning, log_level::error})
    EXPECT_EQ(parse_log_level(to_string(level)), level);
  EXPECT_FALSE(parse_log_level("loud"));
  EXPECT_NE(errors_of("controlplane: {announce: {withdraw-after: 1s}}"), "");
  EXPECT_NE(errors_of("controlplane: {announce: {interface: a/b}}"), "");
}

TEST(node_file, reads_every_key) {
  const auto n = parse_node_text(R"(
node: {name: edge2.example.net, runtime-dir: /tmp/sluice-1/, log-level: warning}
cluster: {hash-seed: 18446744073709551615}
dataplane:
  workers: "2-3,6"
  ports:
    - {name: a, device: "0000:3B:00.0", queues: 4}
    - {name: b, device: "net_pcap0,rx_pcap=/tmp/a.pcap,tx_pcap=/tmp/b.pcap", queues: auto, twin: true}
    - {name: c, device: net_tap0}
  encap-source: {ipv4: 10.64.0.0/16, ipv6: "2001:db8:1::/64"}
  connections: 1024
  idle: sleep
  next-hop: {c: "02-00-00-00-00-02"}
  hugepages: off
  memory: 256
  burst: 128
  eal-args: ["--log-level=8", "--no-telemetry"]
controlplane:
  state: /tmp/sluice-1/state.db
  api: {mode: 0600}
  metrics: {listen: off}
  limits: {services: 10, backends: 1048575, table-memory: 64}
  announce: {interface: lo, withdraw-after: 5s}
)",
                                 "node.yaml");
  ASSERT_TRUE(n) << to_string(n.error());
  EXPECT_EQ(n->hash_seed, UINT64_MAX);
  EXPECT_EQ(n->log, log_level::warning);
  ASSERT_TRUE(n->controlplane.announce);
  EXPECT_EQ(n->controlplane.announce->interface, "lo");
  EXPECT_EQ(n->controlplane.announce->withdraw_after, std::chrono::seconds{5});
  EXPECT_EQ(n->runtime_dir, "/tmp/sluice-1");
  EXPECT_EQ(n->controlplane.api_socket, "/tmp/sluice-1/api.sock");
  EXPECT_EQ(n->controlplane.api_mode, 0600u);
  EXPECT_FALSE(n->controlplane.metrics_listen);
  EXPECT_EQ(n->controlplane.limits.backends, 1048575u);
  const dataplane_config& d = n->dataplane;
  EXPECT_EQ(d.workers.selection, worker_selection::list);
  EXPECT_EQ(d.workers.cpus, (std::vector<unsigned>{2, 3, 6}));
  EXPECT_EQ(d.ports[0].kind, device_kind::pci);
  EXPECT_EQ(d.ports[0].queues, 4u);
  EXPECT_EQ(d.ports[1].kind, device_kind::vdev);
  EXPECT_FALSE(d.ports[1].queues);
  EXPECT_TRUE(d.ports[0].wants_twin());  // a PCI device
  EXPECT_TRUE(d.ports[1].wants_twin());  // asked for
  EXPECT_EQ(d.ports[1].twin_name(), "sl-b");
  EXPECT_TRUE(d.ports[2].next_hop);
  EXPECT_EQ(d.encap_source_ipv4->length, 16);
  EXPECT_EQ(d.idle, idle_mode::sleep);
  EXPECT_EQ(d.hugepages, hugepage_mode::off);
  EXPECT_EQ(d.memory_mib, 256u);
  EXPECT_EQ(d.eal_args, (std::vector<std::string>{"--log-level=8", "--no-telemetry"}));
}

TEST(node_file, backups_and_history) {
  const auto read = [](const std::string& keys) {
    return parse_node_text("controlplane: {" + keys + "}\n", "n");
  };
  const auto plain = read("state: /s");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->controlplane.history.revisions, 10'000u);
  EXPECT_TRUE(plain->controlplane.backup.to.empty());
  EXPECT_EQ(read("history: {revisions: all}")->controlplane.history.revisions, 0u);
  const auto n = read(
      "history: {revisions: 100}, backup: {to: /b/, interval: 90s, kind: differential, "
      "full-every: 3, keep: 2, copy: {to: /c, mode: async}}");
  ASSERT_TRUE(n) << to_string(n.error());
  const backup_config& b = n->controlplane.backup;
  EXPECT_EQ(n->controlplane.history.revisions, 100u);
  EXPECT_EQ(b.to, "/b");
  EXPECT_EQ(b.interval, std::chrono::seconds{90});
  EXPECT_EQ(b.kind, backup_method::differential);
  EXPECT_EQ(b.full_every, 3u);
  EXPECT_EQ(b.keep, 2u);
  EXPECT_EQ(b.copy_to, "/c");
  EXPECT_EQ(b.copy, copy_mode::async);
  for (const auto& [keys, key] : std::initializer_list<std::pair<const char*, const char*>>{
           {"history: {revisions: 99}", "controlplane.history.revisions"},
           {"history: {days: 9}", "controlplane.history.days"},
           {"backup: {interval: 1h}", "controlplane.backup"},
           {"backup: {to: here}", "controlplane.backup.to"},
           {"backup: {to: /b, interval: 500ms}", "controlplane.backup.interval"},
           {"backup: {to: /b, kind: half}", "controlplane.backup.kind"},
           {"backup: {to: /b, keep: 0}", "controlplane.backup.keep"},
           {"backup: {to: /b, full-every: 0}", "controlplane.backup.full-every"},
           {"backup: {to: /b, copy: {mode: sync}}", "controlplane.backup.copy"},
           {"backup: {to: /b, copy: {to: /b/}}", "controlplane.backup.copy.to"},
           {"backup: {to: /b, copy: {to: /c, mode: later}}", "controlplane.backup.copy.mode"}}) {
    const auto wrong = read(keys);
    ASSERT_FALSE(wrong) << keys;
    ASSERT_EQ(wrong.error().size(), 1u) << keys;
    EXPECT_EQ(wrong.error()[0].key.rfind(key, 0), 0u) << wrong.error()[0].to_string();
  }
}

TEST(node_file, pool_gue_port_and_twins) {
  const auto n = parse_node_text(
      "dataplane:\n"
      "  ports: [{name: a, device: net_null0, twin: true}, {name: b, device: net_null1, twin: "
      "false}, {name: c, device: net_null2, twin: auto}]\n"
      "  nat-pool: {ipv6: [\"2001:db8::1\"], ipv4: [192.0.2.1, 192.0.2.2]}\n"
      "  gue-port: 5555\n",
      "n");
  ASSERT_TRUE(n) << to_string(n.error());
  EXPECT_EQ(n->dataplane.ports[0].twin, true);
  EXPECT_EQ(n->dataplane.ports[1].twin, false);
  EXPECT_EQ(n->dataplane.ports[2].twin, std::nullopt);
  EXPECT_EQ(n->dataplane.nat_pool, (std::vector{*parse_ip("192.0.2.1"), *parse_ip("192.0.2.2"),
                                                *parse_ip("2001:db8::1")}));
  EXPECT_EQ(n->dataplane.gue_port, 5555);
  EXPECT_EQ(parse_node_text("{}", "n")->dataplane.gue_port, 6080);
}

TEST(node_file, the_name_defaults_to_the_host) {
  const auto n = parse_node_text("cluster: {hash-seed: 1}\n", "node.yaml");
  ASSERT_TRUE(n);
  EXPECT_FALSE(n->name.empty());
  EXPECT_TRUE(n->dataplane.ports.empty());
}

TEST(node_file, worker_forms) {
  const auto workers = [](const std::string& text) {
    return parse_node_text("dataplane: {workers: " + text + "}", "n").value().dataplane.workers;
  };
  EXPECT_EQ(workers("3").selection, worker_selection::count);
  EXPECT_EQ(workers("3").count, 3u);
  EXPECT_EQ(workers("[3]").cpus, (std::vector<unsigned>{3}));
  EXPECT_EQ(workers("2-3").cpus, (std::vector<unsigned>{2, 3}));
}

struct bad_node {
  std::string_view dataplane;  // one key of dataplane, or a whole file that begins in line 1
  std::string_view error;
};

TEST(node_file, bad_dataplane_keys_are_refused_with_line_and_key) {
  const bad_node rows[] = {
      {"workers: 0", "workers: '0' is out of range; expected auto or a whole number from 1 to 64"},
      {"workers: 65",
       "workers: '65' is out of range; expected auto or a whole number from 1 to 64"},
      {"workers: \"4\"",
       "workers: '4' in quotes; expected 4 for four workers, or [4] for one worker on cpu 4"},
      {"workers: 3-2",
       "workers: '3-2' is not a cpu list; expected auto, a number of workers, or cpus such as "
       "\"2-3,6\" or [2, 3, 6], each from 0 to 1023"},
      {"workers: 1-4000000000",
       "workers: '1-4000000000' is not a cpu list; expected auto, a number of workers, or cpus "
       "such as \"2-3,6\" or [2, 3, 6], each from 0 to 1023"},
      {"workers: 2-3,3", "workers: cpu 3 is named twice; one worker runs on each"},
      {"workers: [1, x]", "workers[1]: 'x' is given; expected a whole number from 0 to 1023"},
      {"workers: 0-99", "workers: 100 cpus; expected at most 64"},
      {"workers: []", "workers: the list is empty; expected at least one cpu, or auto"},
      {"ports: []", "ports: the list is empty; expected at least one port"},
      {"ports: {a: b}", "ports: a map is given; expected a list"},
      {"ports: [{name: a}]", "ports[0].device: is missing; for example \"af_xdp:eth1\""},
      {"ports: [{device: net_null0}]", "ports[0].name: is missing; for example up0"},
      {"ports: [{name: A b, device: net_null0}]",
       "ports[0].name: 'A b' is not a port name; expected 1 to 32 of a-z, 0-9, '.', '_', '-', "
       "beginning with a letter or digit"},
      {"ports: [{name: a, device: net_null0}, {name: a, device: net_null1}]",
       "ports[1].name: 'a' is the name of another port; expected one of its own"},
      {"ports: [{name: a, device: \"af_xdp:eth1\"}, {name: b, device: \"af_xdp:eth1\"}]",
       "ports[1].device: 'af_xdp:eth1' is the device of port 'a' already; expected a device of its "
       "own"},
      {"ports: [{name: a, device: \"af_xdp:interface-too-long\"}]",
       "ports[0].device: 'af_xdp:interface-too-long' names no network interface; expected "
       "af_xdp:IFACE with an IFACE of 1 to 15 characters, such as af_xdp:eth1"},
      {"ports: [{name: a, device: \"03:00.0\"}]",
       "ports[0].device: '03:00.0' lacks the PCI domain; expected 0000:03:00.0"},
      {"ports: [{name: a, device: eth0}]",
       "ports[0].device: 'eth0' is no device; expected af_xdp:IFACE, a PCI address such as "
       "0000:03:00.0, or a DPDK vdev such as net_tap0,iface=tap0"},
      {"ports: [{name: a, device: \"\"}]",
       "ports[0].device: '' (quoted text) is given; expected text"},
      {"ports: [{name: a, device: \"net_null0 --evil\"}]",
       "ports[0].device: has spaces or other than printable ASCII characters; expected none"},
      {"ports: [{name: a, device: net_null0, queues: 0}]",
       "ports[0].queues: '0' is out of range; expected auto or a whole number from 1 to 64"},
      {"ports: [{name: a, device: net_null0, que: 1}]",
       "ports[0].que: unknown key; known here are name, device, queues or twin"},
      {"ports: [{name: a, device: net_null0, twin: maybe}]",
       "ports[0].twin: is neither auto nor true nor false; expected one of them"},
      {"ports: [{name: a, device: \"af_xdp:eth0\", twin: true}]",
       "ports[0].twin: has no effect: an af_xdp port is an interface of the kernel already; "
       "expected auto or false"},
      {"nat-pool: {ipv4: [192.0.2.1, 192.0.2.1]}",
       "nat-pool.ipv4[1]: '192.0.2.1' is named twice; expected each address once"},
      {"nat-pool: {ipv6: [192.0.2.1]}",
       "nat-pool.ipv6[0]: '192.0.2.1' is IPv4; expected an IPv6 address"},
      {"nat-pool: {ipv4: [224.0.0.1]}",
       "nat-pool.ipv4[0]: '224.0.0.1' cannot be a source address; expected one that the backends "
       "send replies to"},
      {"nat-pool: {ipv4: 192.0.2.1}", "nat-pool.ipv4: '192.0.2.1' is given; expected a list"},
      {"gue-port: 0", "gue-port: '0' is out of range; expected a whole number from 1 to 65535"},
      {"ports: [{name: thirteen-long, device: net_null0, twin: true}]",
       "ports[0].twin: the twin would be called 'sl-thirteen-long', and Linux allows 15 bytes; "
       "expected a port name of at most 12, or twin: false"},
      {"ports: [{name: thirteen-long, device: \"0000:03:00.0\"}]",
       "ports[0]: the twin would be called 'sl-thirteen-long', and Linux allows 15 bytes; "
       "expected a port name of at most 12, or twin: false"},
      {"next-hop: {up0: \"02:00:00:00:00:01\"}", "next-hop.up0: names no port of dataplane.ports"},
      {"encap-source: {ipv4: \"2001:db8::1\"}",
       "encap-source.ipv4: '2001:db8::1' is IPv6; expected an IPv4 address, or a prefix of /8 to "
       "/32"},
      {"encap-source: {ipv6: 10.0.0.1}",
       "encap-source.ipv6: '10.0.0.1' is IPv4; expected an IPv6 address, or a prefix of /32 to "
       "/128"},
      {"encap-source: {ipv4: 10.0.0.1/16}",
       "encap-source.ipv4: '10.0.0.1/16' has bits set beyond the prefix; the prefix is "
       "10.0.0.0/16; expected an IPv4 address, or a prefix of /8 to /32"},
      {"encap-source: {ipv4: 0.0.0.0/0}",
       "encap-source.ipv4: '0.0.0.0/0' is too wide; expected an IPv4 address, or a prefix of /8 to "
       "/32"},
      {"encap-source: {ipv4: 127.0.0.1}",
       "encap-source.ipv4: '127.0.0.1' cannot be a source address; expected one that the backends "
       "accept"},
      {"encap-source: 10.0.0.1", "encap-source: '10.0.0.1' is given; expected a map (key: value)"},
      {"connections: 1000",
       "connections: '1000' is out of range; expected a whole number from 1024 to 1000000000"},
      {"connections: lots",
       "connections: 'lots' is given; expected a whole number from 1024 to 1000000000"},
      {"idle: busyy",
       "idle: 'busyy' is unknown; expected busy, yield or sleep (did you mean busy?)"},
      {"hugepages: maybe", "hugepages: 'maybe' is unknown; expected auto, on or off"},
      {"burst: 7", "burst: '7' is out of range; expected a whole number from 8 to 256"},
      {"memory: 2G", "memory: '2G' is given; expected a whole number from 16 to 1048576"},
      {"eal-args: --no-huge", "eal-args: '--no-huge' is given; expected a list"},
      {"worker: 2", "worker: unknown key; did you mean workers?"},
  };
  for (const bad_node& row : rows)
    EXPECT_EQ(errors_of("node: {name: a}\ndataplane:\n  " + std::string{row.dataplane} + "\n"),
              "node.yaml:3: dataplane." + std::string{row.error});
}

TEST(node_file, bad_files_are_refused_with_line_and_key) {
  const bad_node rows[] = {
      {"", "node.yaml:1: is empty; expected a map (key: value)"},
      {"- a\n", "node.yaml:1: a list is given; expected a map (key: value)"},
      {"nodes: {name: a}\n", "node.yaml:1: nodes: unknown key; did you mean node?"},
      {"node: {name: Edge 1}\n",
       "node.yaml:1: node.name: 'Edge 1' is not a node name; expected 1 to 64 of a-z, 0-9, '.', "
       "'_', '-', beginning with a letter or digit"},
      {"node: {name: a, runtime-dir: run/sluice}\n",
       "node.yaml:1: node.runtime-dir: 'run/sluice' is not an absolute path; expected one that "
       "begins with '/'"},
      {"node:\n  name: a\n  name: b\n",
       "node.yaml:3: node.name: is given twice; it is first given in line 2"},
      {"cluster: {hash-seed: 18446744073709551616}\n",
       "node.yaml:1: cluster.hash-seed: '18446744073709551616' is out of range; expected a whole "
       "number from 0 to 18446744073709551615"},
      {"controlplane:\n  api: {mode: 0999}\n",
       "node.yaml:2: controlplane.api.mode: '0999' is no permission bits; expected octal such as "
       "\"0660\""},
      {"controlplane:\n  metrics: {listen: 9090}\n",
       "node.yaml:2: controlplane.metrics.listen: '9090' is not an address with a port, such as "
       "192.0.2.1:80 or [2001:db8::1]:80; or off"},
      {"controlplane:\n  limits: {backends: 1048576}\n",
       "node.yaml:2: controlplane.limits.backends: '1048576' is out of range; expected a whole "
       "number from 1 to 1048575"},
  };
  for (const bad_node& row : rows) EXPECT_EQ(errors_of(row.dataplane), row.error);
  // What is shown of the file stays on one line, and UTF-8 where it is cut.
  EXPECT_EQ(errors_of("node: {name: \"a\\nb\"}\n").substr(0, 42),
            "node.yaml:1: node.name: 'a b' is not a nod");
  std::string euros = "node: {name: \"";
  for (int i = 0; i < 30; ++i) euros += "\xe2\x82\xac";
  EXPECT_EQ(errors_of(euros + "\"}\n").substr(24 + 1 + 63, 24), "...' is not a node name;");
  const std::string socket(108, 'x');
  EXPECT_EQ(errors_of("controlplane:\n  api: {socket: /" + socket + "}\n"),
            "node.yaml:2: controlplane.api.socket: the path has 109 bytes; expected at most 107");
}

TEST(node_file, a_tcp_listener_comes_with_all_that_it_needs) {
  const std::string before = "controlplane:\n  api:\n    listen: ";
  const auto n = parse_node_text(
      before + "{address: \"[::1]:9443\", certificate: /a.crt, key: /a.key, tokens: /t}\n",
      "node.yaml");
  ASSERT_TRUE(n) << to_string(n.error());
  const auto& listen = n->controlplane.api_listen;
  ASSERT_TRUE(listen);
  EXPECT_EQ(format_ip_port(listen->address), "[::1]:9443");
  EXPECT_EQ(listen->certificate, "/a.crt");
  EXPECT_EQ(listen->key, "/a.key");
  EXPECT_EQ(listen->tokens, "/t");
  EXPECT_EQ(listen->line, 3u);
  for (const std::string off : {"off", "\"off\""}) {
    const auto none = parse_node_text(before + off + "\n", "node.yaml");
    ASSERT_TRUE(none) << to_string(none.error());
    EXPECT_FALSE(none->controlplane.api_listen);
  }
  const std::string all = errors_of(before + "{}\n");
  for (const char* key : {"address", "certificate", "key", "tokens"})
    EXPECT_NE(all.find(std::string{"controlplane.api.listen."} + key), std::string::npos) << all;
  EXPECT_NE(
      errors_of(before + "{address: 1.2.3.4, certificate: a.crt, key: /k, tokens: /t}\n")
          .find("node.yaml:3: controlplane.api.listen.certificate: 'a.crt' is not an absolute"),
      std::string::npos);
}

TEST(node_file, next_hops_name_ports_and_stations) {
  const std::string file =
      "dataplane:\n"
      "  ports: [{name: up0, device: net_null0}, {name: up1, device: net_null1}]\n"
      "  next-hop:\n"
      "    up2: 02:00:00:00:00:01\n"
      "    up0: 01:00:5e:00:00:01\n"
      "    up1: 02:00\n";
  EXPECT_EQ(errors_of(file),
            "node.yaml:4: dataplane.next-hop.up2: names no port of dataplane.ports; did you mean "
            "up0?\n"
            "node.yaml:5: dataplane.next-hop.up0: '01:00:5e:00:00:01' is a group or empty address; "
            "expected the MAC of one station\n"
            "node.yaml:6: dataplane.next-hop.up1: '02:00' is not a MAC address, such as "
            "02:00:00:00:00:01");
}

TEST(node_file, files_that_cannot_be_read) {
  const auto missing = load_node_file("/nonexistent/node.yaml");
  ASSERT_FALSE(missing);
  EXPECT_EQ(to_string(missing.error()),
            "/nonexistent/node.yaml: cannot be opened: No such file or directory");
  const auto directory = load_node_file("/tmp");
  ASSERT_FALSE(directory);
  EXPECT_EQ(to_string(directory.error()), "/tmp: is a directory; expected a file");

  const std::string path =
      std::filesystem::temp_directory_path() / ("sluice-node-" + std::to_string(getpid()));
  std::ofstream{path} << contract;
  const auto good = load_node_file(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(good);
  EXPECT_EQ(good->file, path);
}

}  // namespace
}  // namespace sluice
