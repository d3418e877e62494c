#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real TCP between real kernels: wrk, a balancer, and nginx servers, each in a namespace of its own,
joined by veth pairs. The balancer is, in turn and round by round, Sluice over AF_XDP (nat, ipip
with bpf/decap, dsr-l2), HAProxy (tcp mode), nginx (stream), and nftables (DNAT by a hash of client
and port); and, as what the rest allows, none.

Requests per second over connections that stay, and connections per second, each for one request.
All share this machine's cores, so a figure is what the whole arrangement does with that balancer
in it. A request that fails, fails the run. Root; nothing but namespaces made for it is touched.

    kernel_tcp.py                   three rounds of two seconds (about two minutes)
    kernel_tcp.py --quick           one round of a second: does it work
    kernel_tcp.py sluice haproxy    only these balancers
    kernel_tcp.py --json FILE       one object per figure
"""

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.scene import Scene, vip4  # noqa: E402
from lab.sluice import Balancer, Binaries, set_up_backend  # noqa: E402
from lab.stand import service  # noqa: E402
from machine import machine  # noqa: E402

PORT = 80
REFERENCE = "haproxy"
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
# name: VIP. Each has one of its own: no state of one balancer is met by another.
WAYS = {"sluice_nat": vip4(40), "sluice_ipip": vip4(41), "sluice_dsr_l2": vip4(42),
        "haproxy": vip4(50), "nginx": vip4(51), "nftables": vip4(52)}
FORWARD = {"sluice_nat": "nat", "sluice_ipip": "ipip", "sluice_dsr_l2": "dsr-l2"}
BALANCERS = ("direct", "sluice", "haproxy", "nginx", "nftables")
KINDS = {"requests": [], "connections": ["-H", "Connection: close"]}

HAPROXY = """\
global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend vip
  bind {vip}:{port}
  default_backend servers
backend servers
  balance roundrobin
{servers}
"""
NGINX = """\
load_module {module};
daemon off;
worker_processes 1;
pid {base}/nginx.pid;
error_log {base}/error.log warn;
events {{ worker_connections 8000; }}
stream {{
  upstream servers {{
{servers}
  }}
  server {{
    listen {vip}:{port} backlog=4096;
    proxy_pass servers;
  }}
}}
"""
NFTABLES = """\
table ip balancer {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    ip daddr {vip} tcp dport {port} dnat to jhash ip saddr . tcp sport mod {count} map {{ {servers} }}
  }}
}}
"""


class Network:
    """Two segments: what a balancer translates has to come back through it, by the backends'
    routes; what it tunnels, and its own connections, take the ways that they have anyway."""

    def __init__(self, lab, arguments):
        self.lab, self.arguments = lab, arguments
        self.binaries = Binaries(arguments.build)
        self.scene = scene = Scene(lab, backends=arguments.backends, segments=2)
        scene.start_nginx()
        for name in scene.backends:
            set_up_backend(scene, name, self.binaries, tunnel=[WAYS["sluice_ipip"]],
                           direct=[WAYS["sluice_dsr_l2"]])
            lab.ip(name, f"rule add from {scene.address(name)} to 10.77.0.0/24 lookup 100",
                   f"route add 10.77.0.0/24 via {scene.edge_address(segment=1)} table 100")
        lab.run("edge", ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        lab.ip("edge", *(f"address add {WAYS[w]}/32 dev lo" for w in ("haproxy", "nginx")))
        # Without a balancer the client's packets take the edge as well, as a router.
        self.addresses = [scene.address(b) for b in scene.backends]
        lab.ip("client", *(f"route replace {a}/32 via {scene.edge_address()}"
                           for a in self.addresses))

    def proxy(self, name, command):
        process = self.lab.start("edge", name, command)

        def listens():
            if not process.running():
                raise LabError(f"{name} ended:\n{process.tail()}")
            return f":{PORT} " in self.lab.run("edge", ["ss", "-Hltn"]).stdout
        wait_until(listens, 15, name)
        return process.stop

    # -- the balancers: each starts, and returns how it is ended -------------------------------

    def start_direct(self):
        return lambda: None

    def start_sluice(self):
        scene = self.scene
        balancer = Balancer(scene, self.binaries, workers=1, idle=self.arguments.idle,
                            hugepages="off" if self.arguments.no_huge else "auto")
        wanted = [service(scene, name.replace("_", "-"), WAYS[name], forward)
                  for name, forward in FORWARD.items()]
        balancer.start()
        balancer.apply(wanted)
        balancer.wait_until_usable(wanted)

        def stop():
            drops = {d["reason"]: d["packets"] for d in balancer.show("drops")["drops"]
                     if d["packets"]}
            if balancer.stop() != (0, 0):
                raise LabError("a daemon did not end well")
            # The stand-in stays, and would see the next balancer's packets, too.
            for interface in scene.ports.values():
                for kind in ("xdpdrv", "xdpgeneric"):
                    self.lab.ip("edge", f"link set dev {interface} {kind} off")
            if drops:
                print(f"    note: dropped: {drops}", flush=True)
        return stop

    def start_haproxy(self):
        file = self.lab.path("haproxy.cfg")
        servers = "\n".join(f"  server s{i} {a}:{PORT}" for i, a in enumerate(self.addresses))
        file.write_text(HAPROXY.format(vip=WAYS["haproxy"], port=PORT, servers=servers))
        return self.proxy("haproxy", ["haproxy", "-db", "-f", file])

    def start_nginx(self):
        base = self.lab.path("stream", "x").parent
        file = base / "nginx.conf"
        servers = "\n".join(f"    server {a}:{PORT};" for a in self.addresses)
        file.write_text(NGINX.format(module=STREAM_MODULE, base=base, vip=WAYS["nginx"], port=PORT,
                                     servers=servers))
        return self.proxy("stream", ["nginx", "-c", file, "-p", base, "-e", base / "error.log"])

    def start_nftables(self):
        servers = ", ".join(f"{i} : {a}" for i, a in enumerate(self.addresses))
        self.lab.run("edge", ["nft", "-f", "-"], input=NFTABLES.format(
            vip=WAYS["nftables"], port=PORT, count=len(self.addresses), servers=servers))
        return lambda: self.lab.run("edge", ["nft", "delete", "table", "ip", "balancer"])

    def ways_of(self, balancer):
        """ways_of() are (name, address) that a balancer is measured at."""
        if balancer == "direct":
            return [("direct", self.addresses[0])]
        return [(name, vip) for name, vip in WAYS.items() if name.split("_")[0] == balancer]

    # -- what is measured ----------------------------------------------------------------------

    def see_backends(self, name, address):
        """see_backends() waits until it answers, then checks that it spreads connections."""
        def ask():
            done = self.lab.run("client", ["curl", "-s", "-m", "2", f"http://{address}/"],
                                check=False)
            return done.stdout.strip() if done.returncode == 0 else None
        wait_until(ask, 15, f"an answer through {name}")
        wanted = 1 if name == "direct" else min(2, len(self.addresses))
        seen = set()
        for _ in range(40):
            seen.add(ask())
            if len(seen - {None}) >= wanted:
                break
        if None in seen or len(seen) < wanted:
            raise LabError(f"{name}: answers from {seen} only")

    def load(self, name, kind, address):
        """load() returns the rate, and the latencies in ms by percentile."""
        a = self.arguments
        out = self.lab.run("client", ["wrk", "-t", "1", "-c", a.connections, "-d",
                                      f"{a.seconds}s", "--latency", *KINDS[kind],
                                      f"http://{address}/"], timeout=a.seconds + 30).stdout
        rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
        failed = re.search(r"Socket errors:.*|Non-2xx.*", out)
        if not rate or float(rate[1]) == 0 or failed:
            raise LabError(f"{name}, {kind}: {failed[0] if failed else out}")
        scale = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
        latency = {f"p{p}": round(float(v) * scale[unit], 3) for p, v, unit in
                   re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)\b", out)}
        return float(rate[1]), latency


def measure(network, report):
    """measure() goes round by round over all balancers; returns (name, kind): [(rate, latency)]."""
    a = network.arguments
    found = {}
    for number in range(a.rounds):
        report(f"  round {number + 1} of {a.rounds}")
        for balancer in a.balancers if number % 2 == 0 else a.balancers[::-1]:
            stop = getattr(network, f"start_{balancer}")()
            for name, address in network.ways_of(balancer):
                network.see_backends(name, address)
                for kind in KINDS:
                    got = network.load(name, kind, address)
                    found.setdefault((name, kind), []).append(got)
                    report(f"    {name:16}{got[0]:10.0f} {kind:12} a second, {got[1]} ms")
            stop()
    return found


def figures_of(found, facts):
    figures = []
    for (name, kind), rows in found.items():
        rates = [rate for rate, _ in rows]
        figure = {"name": f"tcp.{kind}.{name}", "unit": "1/s",
                  "value": round(statistics.median(rates)), "lowest": round(min(rates)),
                  "highest": round(max(rates))}
        against = {other: round(statistics.median(
            ours / theirs for ours, (theirs, _) in zip(rates, found[other, kind])), 3)
            for other, k in found if k == kind and other != name}
        if REFERENCE in against:
            figure |= {"reference": REFERENCE, "ratio": against[REFERENCE], "reference_value": round(
                statistics.median(rate for rate, _ in found[REFERENCE, kind]))}
        latency = {key: statistics.median(row[key] for _, row in rows) for key in rows[0][1]}
        figures.append(figure | {"conditions": facts | {"latency_ms": latency, "ratios": against}})
    return figures


def show(figures):
    print(f"\n{'per second':32}{'median':>9}{'lowest':>9}{'highest':>9}{'p99 ms':>9}"
          f"{'to ' + REFERENCE:>12}")
    for f in figures:
        print(f"{f['name']:32}{f['value']:9}{f['lowest']:9}{f['highest']:9}"
              f"{f['conditions']['latency_ms'].get('p99', 0):9.2f}"
              + (f"{f['ratio']:12.2f}" if "ratio" in f else ""))


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("balancers", nargs="*", metavar="BALANCER", help=", ".join(BALANCERS))
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="the build directory")
    parser.add_argument("--quick", action="store_true",
                        help="one round of a second, unless they are given")
    parser.add_argument("--rounds", type=int, help="(3)")
    parser.add_argument("--seconds", type=int, help="of each measurement (2)")
    parser.add_argument("--connections", type=int, default=50, help="at a time (50)")
    parser.add_argument("--backends", type=int, default=2, help="nginx servers (2)")
    parser.add_argument("--idle", choices=("sleep", "yield", "busy"), default="sleep",
                        help="what Sluice's worker does without packets (sleep: all share the cores)")
    parser.add_argument("--no-huge", action="store_true", help="in ordinary memory")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if unknown := [b for b in arguments.balancers if b not in BALANCERS]:
        parser.error(f"no balancer: {', '.join(unknown)}; there are {', '.join(BALANCERS)}")
    arguments.balancers = arguments.balancers or list(BALANCERS)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (1 if arguments.quick else 2)
    if arguments.rounds < 1 or arguments.seconds < 1 or arguments.backends < 1:
        parser.error("--rounds, --seconds and --backends are at least 1")
    if os.geteuid() != 0:
        parser.error("root is needed: network namespaces")
    for program in ("wrk", "haproxy", "nft", "nginx", "curl"):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed (tools/setup brings it)")
    if not Path(STREAM_MODULE).exists():
        parser.error(f"{STREAM_MODULE} is not installed (tools/setup brings it)")
    if gone := Binaries(arguments.build).missing():
        parser.error(f"not built: {', '.join(gone)}")
    return arguments


def main():
    arguments = read_arguments()
    began = time.monotonic()

    def report(text):
        print(text, flush=True)
    if os.getloadavg()[0] > 0.5:
        report(f"note: load {os.getloadavg()[0]:.1f}: somebody else uses this machine")
    try:
        with Lab("tcp") as lab:
            network = Network(lab, arguments)
            facts = machine(network.binaries.build) | {
                "rounds": arguments.rounds, "seconds": arguments.seconds, "servers": arguments.backends,
                "connections": arguments.connections, "idle": arguments.idle,
                "links": "veth, offloads off", "generator": "wrk, one thread"}
            figures = figures_of(measure(network, report), facts)
    except LabError as error:
        print(f"kernel_tcp.py: {error}", file=sys.stderr)
        return 1
    show(figures)
    print(f"\n{facts}\n{time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
