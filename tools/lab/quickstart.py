#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A demonstration with real packets: a client, the balancer and three nginx backends, each in
a network namespace of its own on one Ethernet segment.

The balancer runs both daemons on a veth interface with AF_XDP. What happens to the client
while a backend is killed, drained and brought back is measured and checked. Exit code 0 only
if every check held; everything is removed at the end, also on failure or Ctrl-C."""

import argparse
import json
import math
import shlex
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import nginx, state, suite  # noqa: E402
from lab.checks import Checks  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.scene import Scene, vip4, vip6  # noqa: E402
from lab.sluice import (Balancer, Binaries, finish_load, request_log,  # noqa: E402
                        set_up_backend)

REQUESTS = 2000
WEIGHTS = {"b1": 100, "b2": 100, "b3": 50}
HEALTH = {"type": "http", "path": "/healthz", "port": 80, "interval": "500ms",
          "timeout": "300ms", "rise": 2, "fall": 2}
# Published tables reach the workers within this time of the command's answer.
SETTLE_S = 0.2


def endpoint(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def services(scene):
    def backends(ipv6, weights):
        return [{"address": scene.address(name, ipv6), "weight": weight}
                for name, weight in weights.items()]

    equal = dict.fromkeys(WEIGHTS, 100)
    common = {"protocol": "tcp", "port": 80, "scheduler": "maglev", "health": HEALTH}
    return [
        {"name": "web", "address": vip4(10), **common, "forward": "ipip",
         "backends": backends(False, WEIGHTS)},
        {"name": "web6", "address": vip6(10), **common, "forward": "ipip",
         "backends": backends(True, WEIGHTS)},
        {"name": "direct", "address": vip4(20), **common, "forward": "dsr-l2",
         "backends": backends(False, equal)},
    ]


class Demonstration:
    def __init__(self, lab, checks, binaries):
        self.lab = lab
        self.checks = checks
        self.binaries = binaries
        self.scene = None
        self.balancer = None
        self.served = {}  # what each nginx has logged so far

    # -- set-up --------------------------------------------------------------------------

    def build_scene(self):
        c = self.checks
        c.title("The network: client, edge (the balancer) and b1, b2, b3 on one segment")
        self.scene = Scene(self.lab, backends=3)
        # 24 MiB at 1 MiB/s: a download that lasts longer than all that happens to it.
        self.scene.start_nginx(big_rate="1m")
        for name in self.scene.backends:
            set_up_backend(self.scene, name, self.binaries, tunnel=[vip4(10), vip6(10)],
                           direct=[vip4(20)])
        c.check(True, "3 nginx run; VIPs on lo and decapsulation in front of them "
                      "(tools/backend-setup)")
        for name in self.scene.backends:
            c.figure(f"{name}: {self.scene.address(name)}, {self.scene.address(name, True)}, "
                     f"weight {WEIGHTS[name]}")

    def start_balancer(self):
        c = self.checks
        c.title("The balancer: data plane and control plane")
        self.balancer = Balancer(self.scene, self.binaries)
        began = time.monotonic()
        self.balancer.start()
        c.check(True, f"both daemons are ready after {time.monotonic() - began:.1f} s")
        # Each daemon is ready by itself; that they have found each other takes a look more.
        deadline = time.monotonic() + 3
        status = self.balancer.show("status")
        while status["dataplane"]["state"] != "running" and time.monotonic() < deadline:
            time.sleep(0.05)
            status = self.balancer.show("status")
        plane = status["dataplane"]
        c.check(plane["state"] == "running", "sluice status: the data plane is running", status)
        c.figure("memory: " + ("hugepages" if plane.get("hugepages") else "no hugepages"))
        for worker in rows(self.balancer.show("get", "workers"), "workers"):
            c.figure(f"worker {worker['id']}: cpu {worker['cpu']}, NUMA node "
                     f"{worker['numa_node']}: {worker.get('placement', '')}")
        for port in rows(self.balancer.show("get", "ports"), "ports"):
            c.figure(f"port {port['name']}: {port['device']}, {port.get('driver', '')}, "
                     f"{port.get('mac', '')}")

    def apply_services(self):
        c = self.checks
        c.title("sluice apply -f services.yaml")
        began = time.monotonic()
        self.balancer.apply(services(self.scene))
        for name, ipv6 in (("web", False), ("web6", True), ("direct", False)):
            self.balancer.wait_for_health(
                name, [self.scene.address(b, ipv6) for b in self.scene.backends])
        c.check(True, f"3 services; all backends healthy after {time.monotonic() - began:.1f} s")

        # The table can be newer than the next hops in it: packets count, so that the first
        # ones are not asked to wait for a neighbour.
        def resolved():
            found = [row for name in ("web", "web6", "direct")
                     for row in self.balancer.backends(name).values()]
            return all(row.get("next_hop", {}).get("state") in ("static", "resolved", "")
                       for row in found)
        wait_until(resolved, 10, "the next hops of all backends to be resolved", 0.1)
        c.check(True, "the next hop of every backend is known from the kernel")

    # -- what is shown -------------------------------------------------------------------

    def new_in_logs(self):
        """new_in_logs() returns how many requests of / each nginx has logged since last asked,
        that flowgen made (health checks ask for something else)."""
        time.sleep(0.1)  # the log is written after the answer is sent
        counts = {}
        for name, server in self.scene.nginx.items():
            total = len(server.requests("/"))
            counts[name] = total - self.served.get(name, 0)
            self.served[name] = total
        return counts

    def split(self, title, vip, weights, requests):
        """split() makes requests over new connections and compares with the weights."""
        c = self.checks
        c.title(title)
        self.new_in_logs()
        report = self.balancer.load(vip, 80, connections=20, requests=requests,
                                    requests_per_connection=1)
        logged = self.new_in_logs()
        c.check(report["requests_ok"] == requests and report["requests_failed"] == 0,
                f"{report['requests_ok']} of {requests} requests answered, each over a new "
                f"connection ({report['requests_ok'] / report['seconds']:.0f} per second, "
                f"p99 {(report['latency_us'] or {}).get('p99', 0) / 1000:.1f} ms)",
                brief(report))
        total = sum(weights.values())
        held = True
        for name, weight in weights.items():
            count = report["backends"].get(name, {}).get("requests", 0)
            share = weight / total
            # The client's ports are as good as random: the count is binomial. Five standard
            # deviations are exceeded by chance once in two million runs.
            tolerance = 5 * math.sqrt(requests * share * (1 - share))
            c.figure(f"{name}: weight {weight:3}: {count:4} requests = {count / requests:6.1%} "
                     f"(by weight {share:.1%}: {requests * share:.0f} ± {tolerance:.0f}); "
                     f"its nginx logged {logged[name]}")
            held = held and abs(count - requests * share) <= tolerance
        c.check(held, "split as the weights say")
        c.check(all(logged[n] == report["backends"].get(n, {}).get("requests", 0) for n in weights),
                "every nginx has logged what the client was told", logged)

    def explain(self, source, destination):
        return self.balancer.show("explain", "--protocol", "tcp", "--source", source,
                                  "--destination", destination)

    def explanations(self):
        c = self.checks
        c.title("sluice explain: asked before a connection is made, and while it lives")
        for ipv6, port in ((False, 7001), (True, 7002)):
            client = self.scene.client_address(ipv6)
            source = endpoint(client, port)
            vip = vip6(10) if ipv6 else vip4(10)
            destination = endpoint(vip, 80)
            before = self.explain(source, destination)
            predicted = self.scene.by_address(before.get("backend") or "::")
            load = self.balancer.start_load(f"explained-{port}", vip, connections=1, rate=10,
                                            local_port=port)
            load.wait_for_output("every connection has been answered", 10)
            after = self.explain(source, destination)
            report = finish_load(load, stop=True)
            time.sleep(0.1)
            seen = sorted({name for name, server in self.scene.nginx.items()
                           for row in server.requests("/") if row["client_port"] == str(port)})
            c.figure(f"{source} -> {destination}: before: {before['rule']}: {predicted}; "
                     f"while it lives: {after['rule']} ({after.get('connection_state')}): "
                     f"{self.scene.by_address(after.get('backend') or '::')}")
            c.check(report["requests_failed"] == 0 and seen == [predicted],
                    f"nginx saw port {port} on {', '.join(seen) or 'no backend'}, as explained",
                    (before, after))
            c.check(after["rule"] == "connection-table" and
                    after.get("backend") == before.get("backend"),
                    "and explain finds the live connection there", after)

    def port_for(self, wanted, vip, first=20000, tries=200):
        """port_for() asks explain for a client port whose connection goes to a backend."""
        for port in range(first, first + tries):
            answer = self.explain(endpoint(self.scene.client_address(), port), endpoint(vip, 80))
            if self.scene.by_address(answer.get("backend") or "::") == wanted:
                return port
        raise LabError(f"none of {tries} client ports goes to {wanted}")

    def failover(self):
        c = self.checks
        b = self.balancer
        vip = vip4(10)
        victim, drained, other = "b1", "b2", "b3"
        c.title("Under load: a download from b3, 60 keep-alive connections at 120 requests/s, "
                "200 new connections/s")
        # The download's fate shall not depend on luck: it is put on a backend that stays.
        port = self.port_for(other, vip)
        download = b.start_load("download", vip, connections=0, downloads=1, local_port=port)
        held = b.start_load("held", vip, connections=60, rate=120, timeout_ms=1000)
        fresh = b.start_load("fresh", vip, connections=20, rate=200, requests_per_connection=1,
                             timeout_ms=1000)
        held.wait_for_output("every connection has been answered", 10)
        time.sleep(1)
        before = len(request_log(fresh)), sum(r["outcome"] != "ok" for r in request_log(fresh))
        c.check(before[0] > 100 and before[1] == 0,
                f"at rest: {before[1]} of {before[0]} new connections failed")

        c.title(f"{victim} is killed (kill -9 of its nginx)")
        killed = time.time()
        self.scene.nginx[victim].kill()
        detected = self.time_until(victim, "down")
        c.figure(f"health check: down after {(detected - killed) * 1000:.0f} ms "
                 f"(interval 500 ms, fall 2)")
        time.sleep(3)
        fresh_log = request_log(fresh)
        during = [r for r in fresh_log if killed <= r["began"] < detected + SETTLE_S]
        after = [r for r in fresh_log if r["began"] >= detected + SETTLE_S]
        c.check(after and not failed(after),
                f"new connections: {len(failed(during))} of {len(during)} failed until the health "
                f"check acted; after it {len(failed(after))} of {len(after)}", failed(after)[:5])
        held_log = request_log(held)
        on_victim = {r["connection"] for r in held_log
                     if r["backend"] == victim and r["outcome"] == "ok" and r["ended"] < killed}
        # A connection of the victim's is refused, too, when it tries again at once.
        innocent = [r for r in failed(held_log) if r["connection"] not in on_victim]
        c.check(on_victim and not innocent,
                f"kept connections: {len(on_victim)} of 60 were on {victim} and ended with it; "
                f"of the others {len({r['connection'] for r in innocent})} noticed", innocent[:5])
        late = [r for r in failed(held_log) if r["began"] >= detected + SETTLE_S]
        c.check(not late, f"and those of {victim} came back elsewhere: {len(late)} failed later",
                late[:5])

        c.title(f"{victim} is brought back")
        began = time.time()
        self.scene.nginx[victim].start()
        back = self.time_until(victim, "up")
        c.figure(f"health check: up after {(back - began) * 1000:.0f} ms (rise 2)")
        time.sleep(1.5)
        log = [r for r in request_log(fresh) if r["began"] >= back + SETTLE_S]
        count = sum(r["backend"] == victim for r in log)
        c.check(count and not failed(log),
                f"of {len(log)} new connections {count} went to {victim}, none failed",
                failed(log)[:5])
        log = [r for r in request_log(held) if r["began"] >= detected + SETTLE_S]
        c.check(log and not failed(log), "and no kept connection noticed", failed(log)[:5])

        c.title(f"{drained} is drained (sluice backend drain web {self.scene.address(drained)})")
        b.sluice("backend", "drain", "web", self.scene.address(drained))
        since = time.time() + SETTLE_S
        time.sleep(2.5)
        log = [r for r in request_log(fresh) if r["began"] >= since]
        count = sum(r["backend"] == drained for r in log)
        c.check(log and count == 0 and not failed(log),
                f"of {len(log)} new connections {count} went to {drained}, "
                f"{len(failed(log))} failed", failed(log)[:5])
        log = [r for r in request_log(held) if r["began"] >= since]
        count = sum(r["backend"] == drained for r in log)
        c.check(count and not failed(log),
                f"while {count} requests over kept connections were still answered by {drained}, "
                f"{len(failed(log))} failed", failed(log)[:5])
        b.sluice("backend", "undrain", "web", self.scene.address(drained))
        since = time.time() + SETTLE_S
        time.sleep(1.5)
        log = [r for r in request_log(fresh) if r["began"] >= since]
        count = sum(r["backend"] == drained for r in log)
        c.check(count and not failed(log), f"undrained: {count} of {len(log)} new connections go "
                                           f"there again", failed(log)[:5])

        c.title("The control plane is killed (kill -9) and started again")
        since = time.time()
        b.controlplane.kill()
        time.sleep(1)
        b.start_controlplane()
        b.wait_for_health("web", [self.scene.address(n) for n in self.scene.backends])
        time.sleep(1)
        log = [r for r in request_log(fresh) + request_log(held) if r["began"] >= since]
        c.check(log and not failed(log),
                f"{len(failed(log))} of {len(log)} requests failed meanwhile", failed(log)[:5])

        c.title("The end of the load")
        fresh_report = finish_load(fresh, stop=True)
        held_report = finish_load(held, stop=True)
        c.figure(f"new connections: {fresh_report['requests_ok']} ok, "
                 f"{fresh_report['requests_failed']} failed")
        c.figure(f"kept connections: {held_report['requests_ok']} ok, "
                 f"{held_report['requests_failed']} failed; longest gap between two answers "
                 f"(500 ms by the rate) of one that was not on {victim}: "
                 f"{longest_gap(request_log(held), on_victim):.0f} ms")
        still = download.running()
        result = finish_load(download)["downloads"][0]
        c.check(result["complete"] and result["crc32"] == nginx.big_crc32(self.lab),
                f"the download: {result['bytes']} bytes in {result['seconds']:.1f} s from "
                f"{result['backend']}, CRC {result['crc32']:08x} as the file's, longest gap "
                f"{result['longest_gap_ms']:.0f} ms", result)
        c.check(still and result["backend"] == other, "and it was under way all the time", result)

    def time_until(self, name, health):
        address = self.scene.address(name)
        wait_until(lambda: self.balancer.backends("web")[address]["health"] == health, 10,
                   f"{name} to be {health}", 0.02)
        return time.time()

    def counters(self):
        c = self.checks
        c.title("sluice stats, sluice drops")
        total = self.balancer.show("stats")["total"]
        c.figure(", ".join(f"{key} {value}" for key, value in total.items()))
        drops = rows(self.balancer.show("drops"), "drops")
        happened = [d for d in drops if d["packets"]]
        for drop in happened:
            c.figure(f"{drop['reason']}: {drop['packets']}: {drop.get('text', '')}")
        c.check(total["forwarded"] > 2 * REQUESTS, "the data plane counted what it forwarded")
        c.check(not happened, "and dropped nothing", happened)

    def stop(self):
        c = self.checks
        c.title("The end")
        codes = self.balancer.stop()
        c.check(codes == (0, 0), "both daemons ended cleanly", f"exit codes {codes}")

    def how_to_go_on(self):
        edge = self.lab.namespaces["edge"]
        client = self.lab.namespaces["client"]
        return {
            "commands": [
                f"ip netns exec {client} curl http://{vip4(10)}/",
                f"ip netns exec {client} curl 'http://[{vip6(10)}]/'",
                f"export SLUICE_SOCKET={shlex.quote(str(self.balancer.socket))}",
                f"{self.binaries.cli} status",
                f"{self.binaries.cli} get backends",
                f"{self.binaries.cli} stats --watch",
                f"{self.binaries.cli} backend drain web {self.scene.address('b1')}",
                f"ip netns exec {edge} curl -s http://{self.balancer.metrics}/metrics",
            ],
            "files": [str(self.balancer.node_file), str(self.lab.path("services.yaml")),
                      str(self.lab.directory / "log")],
        }


def rows(found, key):
    return found[key] if isinstance(found, dict) else found


def failed(log):
    return [r for r in log if r["outcome"] != "ok"]


def longest_gap(log, without):
    """longest_gap() returns the longest time in ms between two answers on one connection."""
    last, longest = {}, 0.0
    for r in sorted(log, key=lambda r: r["ended"]):
        if r["connection"] in without or r["outcome"] != "ok":
            continue
        if r["connection"] in last:
            longest = max(longest, r["ended"] - last[r["connection"]])
        last[r["connection"]] = r["ended"]
    return longest * 1000


def brief(report):
    return json.dumps({**report, "failures": report["failures"][:5]})


def build(checks):
    """build() builds what the demonstration runs; returns an error text or None."""
    phase = suite.PHASES[0]
    checks.title("Build")
    with suite.tree_lock():
        error = suite.configure(phase, False) or suite.regenerate(phase)
        if error:
            return error
        return suite.build(phase, suite.product_files(phase))


def show_kept():
    kept = [s for s in state.states("quickstart") if s.data["kept"]]
    for s in kept:
        print(f"{s.data['name']}:")
        for command in s.data["info"].get("commands", []):
            print(f"  {command}")
    if not kept:
        print("nothing is running")
    return 0


def take_down():
    kept = [s for s in state.states("quickstart") if s.data["kept"]]
    with state.locked():
        for s in kept:
            state.tear_down(s)
            print(f"removed {s.data['name']}")
    if not kept:
        print("nothing to remove")
    state.sweep()
    return 0


def main():
    parser = argparse.ArgumentParser(prog="tools/quickstart", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true",
                        help="leave it running at the end, to play with")
    parser.add_argument("--down", action="store_true", help="remove what --keep has left")
    parser.add_argument("--status", action="store_true", help="show what --keep has left")
    parser.add_argument("--no-build", action="store_true",
                        help="use what is built (in $SLUICE_BUILD, or build/)")
    arguments = parser.parse_args()
    if arguments.down:
        return take_down()
    if arguments.status:
        return show_kept()

    checks = Checks()
    if not arguments.no_build:
        error = build(checks)
        if error:
            checks.error(f"the build:\n{error}")
            return 1
        checks.check(True, f"built in {checks.seconds():.0f} s")
    binaries = Binaries()
    began = time.monotonic()
    kept = None
    with Lab("quickstart") as lab:
        demonstration = Demonstration(lab, checks, binaries)
        try:
            demonstration.build_scene()
            demonstration.start_balancer()
            demonstration.apply_services()
            demonstration.split(f"{REQUESTS} HTTP requests over IPv4, forwarded by ipip",
                                vip4(10), WEIGHTS, REQUESTS)
            demonstration.split(f"{REQUESTS} HTTP requests over IPv6, forwarded by ipip (6in6)",
                                vip6(10), WEIGHTS, REQUESTS)
            demonstration.split("600 HTTP requests to a service forwarded by dsr-l2",
                                vip4(20), dict.fromkeys(WEIGHTS, 100), 600)
            demonstration.explanations()
            demonstration.failover()
            demonstration.counters()
            if arguments.keep and not checks.failures:
                kept = demonstration.how_to_go_on()
                lab.keep_running(kept)
            else:
                demonstration.stop()
        except (LabError, KeyError, TypeError, ValueError) as error:
            checks.error(f"{type(error).__name__}: {error}" if not isinstance(error, LabError)
                         else str(error))
        if checks.failures:
            lab.show_logs()
    checks.title("Summary")
    checks.say(f"  {checks.passed} checks passed, {len(checks.failures)} failed, in "
               f"{time.monotonic() - began:.0f} s")
    for failure in checks.failures:
        checks.say(f"  failed: {failure.splitlines()[0]}")
    if kept:
        checks.say("\n  It is still running; try:")
        for command in kept["commands"]:
            checks.say(f"    {command}")
        checks.say(f"  Files: {', '.join(kept['files'])}")
        checks.say("  tools/quickstart --down removes it.")
    elif not checks.failures:
        checks.say("  All of it has been removed. tools/quickstart --keep leaves it running;")
        checks.say("  tools/test runs the tests; README.md says how to deploy on a real NIC.")
    return checks.exit_code()


if __name__ == "__main__":
    sys.exit(main())
