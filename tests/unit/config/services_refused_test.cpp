// SPDX-License-Identifier: Apache-2.0
// Services that are refused: each with its line, its key, and what would be right.
#include <gtest/gtest.h>

#include "tests/unit/config/services_rows.hpp"

namespace sluice::config {
namespace {

TEST(services, bad_keys_of_a_service) {
  const row rows[] = {
      {"unknown key", "    schedular: maglev",
       "services.yaml:7: services[0].schedular: unknown key; did you mean scheduler?"},
      {"key twice", "    port: 80",
       "services.yaml:7: services[0].port: is given twice; it is first given in line 4"},
      {"protocol", "    protocol: sctp",
       "services.yaml:7: services[0].protocol: 'sctp' is unknown; expected tcp or udp"},
      {"scheduler", "    scheduler: best",
       "services.yaml:7: services[0].scheduler: 'best' is unknown; expected maglev, ring-hash, "
       "partitioned-hash, source-hash, round-robin, weighted-round-robin, random, "
       "weighted-random, least-connections or weighted-least-connections"},
      {"forward", "    forward: ip-ip",
       "services.yaml:7: services[0].forward: 'ip-ip' is unknown; expected ipip, gue, gre, dsr-l2, "
       "dsr-dscp, nat or full-nat (did you mean ipip?)"},
      {"table size of round-robin", "    scheduler: round-robin\n    table-size: 251",
       "services.yaml:8: services[0].table-size: has no effect with scheduler: round-robin; "
       "expected it only with the others"},
      {"table size no prime", "    table-size: 65536",
       "services.yaml:7: services[0].table-size: 65536 is not prime; expected a prime, such as "
       "65537"},
      {"table size range", "    table-size: 100",
       "services.yaml:7: services[0].table-size: '100' is out of range; expected a whole number "
       "from 251 to 16777213"},
      {"table size type", "    table-size: \"65537\"",
       "services.yaml:7: services[0].table-size: '65537' (quoted text) is given; expected a whole "
       "number from 251 to 16777213"},
      {"health without type", "    health: {interval: 2s}",
       "services.yaml:7: services[0].health.type: is missing; for example http"},
      {"health type", "    health: {type: httpd}",
       "services.yaml:7: services[0].health.type: 'httpd' is unknown; expected none, tcp, http, "
       "https, http2, grpc, udp, dns, icmp or exec (did you mean http?)"},
      {"health as word", "    health: tcp",
       "services.yaml:7: services[0].health: 'tcp' is given; expected a map (key: value)"},
      {"timeout over interval", "    health: {type: tcp, interval: 1s, timeout: 2s}",
       "services.yaml:7: services[0].health.timeout: the timeout (2000ms) is longer than the "
       "interval (1000ms); expected a timeout of at most the interval"},
      {"fast-interval over interval", "    health: {type: tcp, interval: 1s, fast-interval: 2s}",
       "services.yaml:7: services[0].health.fast-interval: is longer than the interval (1000ms); "
       "expected at most that, or auto"},
      {"jitter", "    health: {type: tcp, jitter: 51}",
       "services.yaml:7: services[0].health.jitter: '51' is out of range; expected a whole "
       "number from 0 to 50"},
      {"source", "    health: {type: tcp, source: eth0}",
       "services.yaml:7: services[0].health.source: 'eth0' is not an IP address; expected one such "
       "as 192.0.2.1 or \"2001:db8::1\""},
      {"source of the other family", "    forward: nat\n    health: {type: tcp, source: \"::1\"}",
       "services.yaml:8: services[0].health.source: ::1 is of another family than the service's "
       "address; expected one of that, or auto"},
      {"interval without unit", "    health: {type: tcp, interval: 5}",
       "services.yaml:7: services[0].health.interval: '5' has no unit; expected a duration from "
       "10ms to 1h, such as 500ms, 2s, 1m or 1h"},
      {"rise", "    health: {type: tcp, rise: 0}",
       "services.yaml:7: services[0].health.rise: '0' is out of range; expected a whole number "
       "from "
       "1 to 1000"},
      {"way of none", "    health: {type: none, via: direct}",
       "services.yaml:7: services[0].health.via: has no effect with type: none; expected it only "
       "with another type"},
      {"way", "    health: {type: tcp, via: tunnel}",
       "services.yaml:7: services[0].health.via: 'tunnel' is unknown; expected auto, direct or "
       "data-path"},
      {"health port", "    health: {type: tcp, port: 65536}",
       "services.yaml:7: services[0].health.port: '65536' is out of range; expected a whole number "
       "from 1 to 65535"},
      {"path of tcp", "    health: {type: tcp, path: /x}",
       "services.yaml:7: services[0].health.path: has no effect with this type; expected it only "
       "with type http, https or http2"},
      {"interval of none", "    health: {type: none, interval: 1s}",
       "services.yaml:7: services[0].health.interval: has no effect with type: none; expected it "
       "only with another type"},
      {"verify without tls", "    health: {type: grpc, verify: false}",
       "services.yaml:7: services[0].health.verify: has no effect without TLS; expected it only "
       "with tls: true"},
      {"ca-file without verify", "    health: {type: https, verify: false, ca-file: /a}",
       "services.yaml:7: services[0].health.ca-file: has no effect with verify: false; expected it "
       "only with verify: true"},
      {"sni", "    health: {type: https, sni: \"a b\"}",
       "services.yaml:7: services[0].health.sni: 'a b' is not a name; expected one such as "
       "www.example.net"},
      {"bytes", "    health: {type: udp, send: \"hex:0\"}",
       "services.yaml:7: services[0].health.send: is not text, or bytes such as \"hex:0a0b\", of "
       "at "
       "most 1024 bytes"},
      {"dns without a name", "    health: {type: dns}",
       "services.yaml:7: services[0].health.name: is missing; for example www.example.net"},
      {"dns name", "    health: {type: dns, name: a..b}",
       "services.yaml:7: services[0].health.name: 'a..b' is not a DNS name; expected one such as "
       "www.example.net, or \".\""},
      {"dns record", "    health: {type: dns, name: a, record: ANY}",
       "services.yaml:7: services[0].health.record: 'ANY' is no type of record; expected A, AAAA, "
       "CNAME, MX, NS, PTR, SOA, SRV or TXT"},
      {"port of icmp", "    health: {type: icmp, port: 80}",
       "services.yaml:7: services[0].health.port: has no effect with this type; expected it only "
       "with type tcp, http, https, http2, grpc, udp, dns or exec"},
      {"via of exec", "    health: {type: exec, command: /a, via: data-path}",
       "services.yaml:7: services[0].health.via: has no effect with type: exec, whose program goes "
       "its own way; expected it only with type tcp, http, https, http2, grpc, udp, dns or icmp"},
      {"exec without a command", "    health: {type: exec}",
       "services.yaml:7: services[0].health.command: is missing; for example "
       "[/etc/sluice/checks/app, --fast]"},
      {"command", "    health: {type: exec, command: app}",
       "services.yaml:7: services[0].health.command: is not a command; expected the absolute path "
       "of a program, or a list of that and its arguments"},
      {"path with a space", "    health: {type: http, path: /a b}",
       "services.yaml:7: services[0].health.path: is not a request path; expected one that begins "
       "with '/', without spaces, of at most 1024 bytes, such as /healthz"},
      {"path that smuggles a header", "    health: {type: http, path: \"/a\\r\\nX: y\"}",
       "services.yaml:7: services[0].health.path: is not a request path; expected one that begins "
       "with '/', without spaces, of at most 1024 bytes, such as /healthz"},
      {"host that smuggles a header", "    health: {type: http, host: \"a\\r\\nX: y\"}",
       "services.yaml:7: services[0].health.host: is not a host name; expected one such as "
       "www.example.net"},
      {"expect", "    health: {type: http, expect: 99}",
       "services.yaml:7: services[0].health.expect: '99' is out of range; expected a status code "
       "from 100 to 599, or a range such as \"200-399\""},
      {"expect backwards", "    health: {type: http, expect: 399-200}",
       "services.yaml:7: services[0].health.expect: '399-200' runs backwards; expected a status "
       "code from 100 to 599, or a range such as \"200-399\""},
  };
  for (const row& r : rows) EXPECT_EQ(errors_of(service_with(r.text)), r.errors) << r.about;
}

TEST(services, bad_options) {
  const row rows[] = {
      {"client-address elsewhere", "    client-address: toa",
       "services.yaml:7: services[0].client-address: has no effect with forward: ipip; expected it "
       "only with forward: full-nat"},
      {"client-address", "    forward: full-nat\n    client-address: proxy",
       "services.yaml:8: services[0].client-address: 'proxy' is unknown; expected none, proxy-v2 "
       "or toa"},
      {"client-address of udp",
       "    protocol: udp\n    forward: full-nat\n    client-address: proxy-v2",
       "services.yaml:9: services[0].client-address: proxy-v2 is for tcp; expected none with "
       "protocol: udp"},
      {"mss-clamp of udp", "    protocol: udp\n    mss-clamp: auto",
       "services.yaml:8: services[0].mss-clamp: has no effect with protocol: udp; expected it only "
       "with protocol: tcp"},
      {"mss-clamp", "    mss-clamp: 500",
       "services.yaml:7: services[0].mss-clamp: '500' is out of range; expected off or auto or a "
       "whole number from 536 to 65495"},
      {"echo", "    echo: maybe",
       "services.yaml:7: services[0].echo: 'maybe' is given; expected true or false"},
      {"persistence without timeout", "    persistence: {ipv4-prefix: 24}",
       "services.yaml:7: services[0].persistence.timeout: is missing; for example 5m"},
      {"persistence of milliseconds", "    persistence: {timeout: 1500ms}",
       "services.yaml:7: services[0].persistence.timeout: is not a whole number of seconds; "
       "expected one such as 300s or 5m"},
      {"persistence prefix", "    persistence: {timeout: 5m, ipv6-prefix: 129}",
       "services.yaml:7: services[0].persistence.ipv6-prefix: '129' is out of range; expected a "
       "whole number from 1 to 128"},
      {"quic of tcp", "    quic: {server-id-length: 4}",
       "services.yaml:7: services[0].quic: has no effect with protocol: tcp; expected it only with "
       "protocol: udp"},
      {"quic length", "    protocol: udp\n    quic: {server-id-length: 9}",
       "services.yaml:8: services[0].quic.server-id-length: '9' is out of range; expected a whole "
       "number from 1 to 8"},
      {"syn-flood of udp", "    protocol: udp\n    limits: {syn-flood: 10}",
       "services.yaml:8: services[0].limits.syn-flood: has no effect with protocol: udp; expected "
       "it only with protocol: tcp"},
      {"tier threshold", "    failover: {tier-threshold: 101}",
       "services.yaml:7: services[0].failover.tier-threshold: '101' is out of range; expected a "
       "whole number from 0 to 100"},
      {"failback", "    failover: {failback: 2h}",
       "services.yaml:7: services[0].failover.failback: '2h' is out of range; expected a duration "
       "from 0ms to 1h, such as 500ms, 2s, 1m or 1h"},
      {"unknown failover", "    failover: {fail-back: 2s}",
       "services.yaml:7: services[0].failover.fail-back: unknown key; did you mean failback?"},
      {"slow-start without time", "    slow-start: {steps: 3}",
       "services.yaml:7: services[0].slow-start.time: is missing; for example 30s"},
      {"slow-start without weights", "    scheduler: random\n    slow-start: {time: 30s}",
       "services.yaml:8: services[0].slow-start: has no effect with scheduler: random; expected it "
       "only with schedulers that take weights"},
      {"slow-start steps", "    slow-start: {time: 30s, steps: 0}",
       "services.yaml:7: services[0].slow-start.steps: '0' is out of range; expected a whole "
       "number from 1 to 20"},
      {"flap-damping without falls", "    flap-damping: {hold: 30s}",
       "services.yaml:7: services[0].flap-damping.falls: is missing; for example 3"},
      {"flap-damping falls", "    flap-damping: {falls: 1}",
       "services.yaml:7: services[0].flap-damping.falls: '1' is out of range; expected a whole "
       "number from 2 to 50"},
      {"drain-deadline", "    drain-deadline: forever",
       "services.yaml:7: services[0].drain-deadline: 'forever' is not a duration; expected a "
       "duration from 100ms to 24h, such as 500ms, 2s, 1m or 1h"},
      {"unknown limit", "    limits: {connections: 10}",
       "services.yaml:7: services[0].limits.connections: unknown key; did you mean "
       "new-connections?"},
      {"limit per source", "    limits: {per-source: {ipv4-prefix: 24}}",
       "services.yaml:7: services[0].limits.per-source.new-connections: is missing; for example "
       "100"},
      {"prefix", "    allow: [10.0.0.0/8, 10.0.0.1/8]",
       "services.yaml:7: services[0].allow[1]: '10.0.0.1/8' has bits set beyond the prefix; the "
       "prefix is 10.0.0.0/8; expected one such as 192.0.2.0/24 or \"2001:db8::/32\""},
      {"relative path", "    deny-file: lists/bad.txt",
       "services.yaml:7: services[0].deny-file: 'lists/bad.txt' is not an absolute path; expected "
       "one that begins with '/', of at most 1024 bytes, or none"},
      {"dscp missing", "    forward: dsr-dscp",
       "services.yaml:6: services[0].backends[0].dscp: is missing; dsr-dscp names the service's "
       "address by it, so expected a number from 1 to 63"},
      {"port elsewhere", "      - {address: 10.0.1.12, port: 80}",
       "services.yaml:7: services[0].backends[1].port: has no effect with forward: ipip; expected "
       "it only with nat or full-nat"},
      {"dscp elsewhere", "      - {address: 10.0.1.12, dscp: 4}",
       "services.yaml:7: services[0].backends[1].dscp: has no effect with forward: ipip; expected "
       "it only with dsr-dscp"},
      {"dscp", "      - {address: 10.0.1.12, dscp: 64}",
       "services.yaml:7: services[0].backends[1].dscp: '64' is out of range; expected none or a "
       "whole number from 1 to 63"},
      {"quic-id of tcp", "      - {address: 10.0.1.12, quic-id: \"0a\"}",
       "services.yaml:7: services[0].backends[1].quic-id: has no effect without quic in the "
       "service; expected no quic-id"},
      {"quic-id", "      - {address: 10.0.1.12, quic-id: xyz}",
       "services.yaml:7: services[0].backends[1].quic-id: 'xyz' is not a server id; expected 1 to "
       "8 bytes in hexadecimal, such as \"0a01\""},
      {"quic-id length",
       "      - {address: 10.0.1.12, quic-id: 0a01}\n    protocol: udp\n"
       "    quic: {server-id-length: 1}",
       "services.yaml:7: services[0].backends[1].quic-id: has 2 bytes; expected as many as "
       "quic.server-id-length says (1)"},
      {"quic-id twice",
       "      - {address: 10.0.1.12, quic-id: 0a}\n      - {address: 10.0.1.13, quic-id: 0A}\n"
       "    protocol: udp\n    quic: {server-id-length: 1}",
       "services.yaml:8: services[0].backends[2].quic-id: 0a is the id of 10.0.1.12 already; "
       "expected an id of its own"},
      {"family of nat", "      - {address: \"fd00::1\"}\n    forward: nat",
       "services.yaml:7: services[0].backends[1].address: fd00::1 is IPv6 but the service's "
       "address is IPv4; nat does not change the family, so expected the same"},
  };
  for (const row& r : rows) EXPECT_EQ(errors_of(service_with(r.text)), r.errors) << r.about;
}

TEST(services, what_full_nat_and_tunnels_need_of_the_node) {
  const auto text = service_with("    forward: full-nat");
  const auto refused = parse_services(text, "services.yaml", {.pool_ipv4 = false});
  ASSERT_FALSE(refused);
  EXPECT_EQ(to_string(refused.error()),
            "services.yaml:7: services[0].forward: full-nat needs source addresses; expected "
            "dataplane.nat-pool.ipv4 in node.yaml");
  EXPECT_TRUE(parse_services(text, "services.yaml", {.pool_ipv6 = false}));
  const auto gue =
      parse_services(service_with("    forward: gue"), "services.yaml", {.encap_ipv4 = false});
  ASSERT_FALSE(gue);
  EXPECT_EQ(to_string(gue.error()),
            "services.yaml:7: services[0].forward: gue to 10.0.1.11 needs an outer source address; "
            "expected dataplane.encap-source.ipv4 in node.yaml");
}

// A patch that changes protocol or mode loses what has no effect any more, and may not ask
// for it.
TEST(services, bad_backends) {
  const row rows[] = {
      {"address", "      - {address: 10.0.1}",
       "services.yaml:7: services[0].backends[1].address: '10.0.1' is not an IP address; expected "
       "one such as 192.0.2.1 or \"2001:db8::1\""},
      {"no address", "      - {weight: 5}",
       "services.yaml:7: services[0].backends[1].address: is missing; for example 10.0.1.11"},
      {"a bare word", "      - 10.0.1.12",
       "services.yaml:7: services[0].backends[1]: '10.0.1.12' is given; expected a map (key: "
       "value)"},
      {"weight range", "      - {address: 10.0.1.12, weight: 65536}",
       "services.yaml:7: services[0].backends[1].weight: '65536' is out of range; expected a whole "
       "number from 0 to 65535"},
      {"weight sign", "      - {address: 10.0.1.12, weight: -1}",
       "services.yaml:7: services[0].backends[1].weight: '-1' is out of range; expected a whole "
       "number from 0 to 65535"},
      {"weight type", "      - {address: 10.0.1.12, weight: heavy}",
       "services.yaml:7: services[0].backends[1].weight: 'heavy' is given; expected a whole number "
       "from 0 to 65535"},
      {"tier", "      - {address: 10.0.1.12, tier: 256}",
       "services.yaml:7: services[0].backends[1].tier: '256' is out of range; expected a whole "
       "number from 0 to 255"},
      {"admin", "      - {address: 10.0.1.12, admin: drain}",
       "services.yaml:7: services[0].backends[1].admin: 'drain' is unknown; expected enabled, "
       "draining, up or down"},
      {"unknown key", "      - {address: 10.0.1.12, wieght: 1}",
       "services.yaml:7: services[0].backends[1].wieght: unknown key; did you mean weight?"},
      {"twice", "      - {address: 10.0.1.11}",
       "services.yaml:7: services[0].backends[1].address: 10.0.1.11 is a backend of this service "
       "already (line 6); expected each address once"},
      {"the service's own VIP", "      - {address: 198.51.100.10}",
       "services.yaml:7: services[0].backends[1].address: 198.51.100.10 is the address of service "
       "'web' (line 2); a backend needs an address of its own, or packets would go round in "
       "circles"},
      {"multicast", "      - {address: 224.0.0.1}",
       "services.yaml:7: services[0].backends[1].address: 224.0.0.1 is a multicast address; "
       "expected a unicast address of a backend"},
      {"loopback", "      - {address: \"::1\"}",
       "services.yaml:7: services[0].backends[1].address: ::1 is the loopback address; expected a "
       "unicast address of a backend"},
      {"link-local", "      - {address: \"fe80::1\"}",
       "services.yaml:7: services[0].backends[1].address: fe80::1 is a link-local address; "
       "expected "
       "a unicast address of a backend"},
  };
  for (const row& r : rows) EXPECT_EQ(errors_of(service_with(r.text)), r.errors) << r.about;
}

TEST(services, bad_names_addresses_and_ports) {
  const auto with = [](std::string_view key, std::string_view v) {
    std::string text = "services:\n";
    for (const auto& [k, good] :
         {std::pair{"name", "web"}, {"address", "192.0.2.1"}, {"port", "80"}})
      text += (std::string{k} == "name" ? "  - " : "    ") + std::string{k} + ": " +
              std::string{key == k ? v : good} + "\n";
    return text;
  };
  const std::string ports =
      "; expected a port from 1 to 65535, a range such as \"8000-8100\", or any";
  const struct {
    std::string_view key, value;
    std::string error;
  } rows[] = {
      {"name", "Web",
       "2: services[0].name: 'Web' is not a service name; expected 1 to 48 of a-z, 0-9, '.', '_', "
       "'-', beginning with a letter or digit"},
      {"name", "\"\"", "2: services[0].name: '' (quoted text) is given; expected text"},
      {"name", "[a]", "2: services[0].name: a list is given; expected text"},
      {"name", "../etc",
       "2: services[0].name: '../etc' is not a service name; expected 1 to 48 of a-z, 0-9, '.', "
       "'_', '-', beginning with a letter or digit"},
      {"address", "192.0.2.300",
       "3: services[0].address: '192.0.2.300' is not an IP address; expected one such as 192.0.2.1 "
       "or \"2001:db8::1\""},
      {"address", "192.0.2.0/24",
       "3: services[0].address: '192.0.2.0/24' is not an IP address; expected one such as "
       "192.0.2.1 "
       "or \"2001:db8::1\""},
      {"address", "0.0.0.0",
       "3: services[0].address: 0.0.0.0 is an unspecified address (0.0.0.0/8); expected a unicast "
       "address that clients can reach"},
      {"address", "127.0.0.1",
       "3: services[0].address: 127.0.0.1 is a loopback address; expected a unicast address that "
       "clients can reach"},
      {"address", "239.1.1.1",
       "3: services[0].address: 239.1.1.1 is a multicast address; expected a unicast address that "
       "clients can reach"},
      {"address", "169.254.1.1",
       "3: services[0].address: 169.254.1.1 is a link-local address; expected a unicast address "
       "that clients can reach"},
      {"address", "255.255.255.255",
       "3: services[0].address: 255.255.255.255 is the broadcast address; expected a unicast "
       "address that clients can reach"},
      {"address", "\"ff02::1\"",
       "3: services[0].address: ff02::1 is a multicast address; expected a unicast address that "
       "clients can reach"},
      {"address", "\"::\"",
       "3: services[0].address: :: is the unspecified address; expected a unicast address that "
       "clients can reach"},
      {"port", "0", "4: services[0].port: '0' is out of range" + ports},
      {"port", "65536", "4: services[0].port: '65536' is out of range" + ports},
      {"port", "99999999999999999999999",
       "4: services[0].port: '99999999999999999999999' is out of range" + ports},
      {"port", "8100-8000", "4: services[0].port: '8100-8000' runs backwards" + ports},
      {"port", "0-100", "4: services[0].port: '0-100' is out of range" + ports},
      {"port", "http", "4: services[0].port: 'http' is not a number or range" + ports},
      {"port", "80-", "4: services[0].port: '80-' is not a number or range" + ports},
      {"port", "-80", "4: services[0].port: '-80' is not a number or range" + ports},
      {"port", "80,81", "4: services[0].port: '80,81' is not a number or range" + ports},
      {"port", "[80]", "4: services[0].port: a list is given; expected text"},
      {"port", "", "4: services[0].port: is empty; expected text"},
  };
  for (const auto& r : rows) EXPECT_EQ(errors_of(with(r.key, r.value)), "services.yaml:" + r.error);
  EXPECT_EQ(errors_of(with("name", std::string(48, 'a'))), "");
  EXPECT_NE(errors_of(with("name", std::string(49, 'a'))), "");
}

}  // namespace
}  // namespace sluice::config
