#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a service may ask for by its options, through a running data plane on AF_XDP: limits,
allow and deny lists that change while connections live, ranges of ports, persistence, the mode
for SYN floods, pings. Looked at where packets arrive, and where they are counted."""

import contextlib
import random
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.sluice import finish_load  # noqa: E402
from lab.stand import ECHO_PORT, HTTP_HEALTH, Stand, service, vip4, vip6  # noqa: E402
from netns_sockets import Flows, Recorders, family, new_socket, packet_socket  # noqa: E402

UDP_PORT = 5000
RATE, SOURCE_RATE, PACKET_RATE, SYN_RATE = 20, 5, 50, 100
LIMITED = vip4(10)
PORTS, LISTS, LISTS6 = vip4(13), vip4(14), vip6(14)
PERSISTENT, FLOODED, SILENT, ECHOING = vip4(15), vip4(16), vip4(17), vip4(18)
BY_SOURCE = (vip4(11), vip6(11))
PACKETS = vip4(12)
GOOD, BAD = "10.77.0.101", "10.77.0.102"  # addresses of the client
GOOD6, BAD6 = "fd77::101", "fd77::102"
CROWD = [f"10.78.0.{n}" for n in range(1, 31)]
# Port: the only backend of the service that shall take it: exact, a range, or any.
TAKEN_BY = {8005: "b1", 8000: "b2", 8002: "b2", 8004: "b2", 7999: "b3", 8006: "b3", 1: "b3",
            65535: "b3"}


def services(scene):
    def udp(name, vip, port=UDP_PORT, only=None, **more):
        found = {**service(scene, name, vip, protocol="udp", port=port, health=HTTP_HEALTH), **more}
        if only:
            found["backends"] = [{"address": scene.address(only)}]
        return found

    return [
        udp("rate", LIMITED, limits={"new-connections": RATE}),
        *(udp(f"source{i}", vip, limits={"per-source": {
            "new-connections": SOURCE_RATE, "ipv4-prefix": 24, "ipv6-prefix": 64}})
          for i, vip in enumerate(BY_SOURCE)),
        udp("packets", PACKETS, limits={"packets": PACKET_RATE}),
        udp("exact", PORTS, 8005, "b1"), udp("range", PORTS, "8000-8004", "b2"),
        udp("any", PORTS, "any", "b3"),
        service(scene, "tcp-range", PORTS, port="70-90", health=HTTP_HEALTH),
        service(scene, "web", LISTS), service(scene, "web6", LISTS6),
        {**service(scene, "persistent", PERSISTENT), "persistence": {"timeout": "10m"}},
        udp("persistent-udp", PERSISTENT, persistence={"timeout": "10m"}),
        {**service(scene, "flooded", FLOODED), "limits": {"syn-flood": SYN_RATE}},
        {**service(scene, "silent", SILENT), "echo": False},
        service(scene, "echoing", ECHOING, protocol="udp", port=ECHO_PORT),
    ]


class Scene:
    """What the parts of this test share."""

    def __init__(self, lab, checks):
        self.lab, self.checks = lab, checks
        self.stand = Stand(lab, services, echo=True)
        self.b, self.scene = self.stand.balancer, self.stand.scene
        self.services = {s["name"]: s for s in self.stand.services}
        vips = (LIMITED, *BY_SOURCE, PACKETS, PERSISTENT)
        self.servers = Recorders(lab, {name: [
            *((vip, UDP_PORT) for vip in vips),
            *((PORTS, port) for port in TAKEN_BY)] for name in self.scene.backends})
        lab.ip("client", *(f"address add {a}/24 dev eth0" for a in (GOOD, BAD)),
               *(f"address add {a}/64 dev eth0 nodad" for a in (GOOD6, BAD6)),
               *(f"address add {a}/32 dev lo" for a in CROWD))

    def apply(self, name, **options):
        """apply() gives a service other options, by `sluice apply`."""
        self.services[name].update(options)
        return self.b.apply(list(self.services.values()))

    def drop(self, reason):
        return self.b.counters()[f"drop_{reason}"]

    def arrived(self, sent):
        return set(sent) & {s[3] for s in list(self.servers.seen)}

    def accounted(self, sent, reason, before):
        """accounted() waits until each of what was sent has arrived or was dropped; returns
        what arrived."""
        with contextlib.suppress(LabError):
            wait_until(lambda: len(self.arrived(sent)) + self.drop(reason) - before >= len(sent),
                       10, "")
        got, dropped = self.arrived(sent), self.drop(reason) - before
        self.checks.check(len(got) + dropped == len(sent),
                          f"of {len(sent)} packets {len(got)} arrived, {dropped} were dropped: "
                          f"{reason}", self.b.counters())
        return got

    def connects(self, source, vip, port=80, timeout=10.0):
        with new_socket(self.lab, "client", family(vip), socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.bind((source, 0))
            with contextlib.suppress(OSError):
                sock.connect((vip, port))
                return True
        return False


def limits(t):
    t.checks.title("rates")

    def shot(name, vip, sources, reason, rate, kinds):
        flows = Flows(t.lab, vip, UDP_PORT, sources)
        before, began = t.drop(reason), time.monotonic()
        sent = flows.send(name)
        got = t.accounted(sent, reason, before)
        most = rate + rate * (time.monotonic() - began) + 1
        counts = [len(got & set(kind)) for kind in kinds(sent)]
        t.checks.check(all(rate <= n <= most for n in counts),
                       f"{name}: {counts} new flows let in; the limit is {rate} per second", most)
        # What was let in goes on, as fast as it likes.
        flows_in = [i for i, text in enumerate(sent) if text in got]
        again = [text for turn in range(10) for text in flows.send(f"{name} {turn}", flows_in)]
        with contextlib.suppress(LabError):
            wait_until(lambda: t.arrived(again) == set(again), 5, "")
        t.checks.check(t.arrived(again) == set(again),
                       f"{name}: 10 more packets of each of these arrived")
        flows.close()
        stats = t.b.ask(f"/v1/stats?service={name}")["services"][0]
        # A retry of none of them: each that was refused is a drop of the service.
        t.checks.check(stats["dropped"] == len(sent) - len(got) and
                       t.b.metric("sluice_service_dropped_packets_total", service=name) ==
                       stats["dropped"], f"{name}: {stats['dropped']} in its stats and metrics",
                       stats)

    client = {v6: t.scene.client_address(v6) for v6 in (False, True)}
    shot("rate", LIMITED, [(client[False], 200)], "connection_rate", RATE, lambda sent: [sent])
    # Two prefixes, several addresses in each.
    t.lab.ip("client", *(f"address add 10.79.{n}.{k}/32 dev lo" for n in (1, 2) for k in (1, 2, 3)),
             *(f"address add fd79:{n}::{k}/128 dev lo nodad" for n in (1, 2) for k in (1, 2, 3)))
    for i, (vip, form) in enumerate(zip(BY_SOURCE, ("10.79.{}.{}", "fd79:{}::{}"))):
        shot(f"source{i}", vip, [(form.format(n, k), 20) for n in (1, 2) for k in (1, 2, 3)],
             "source_rate", SOURCE_RATE, lambda sent: [sent[:60], sent[60:]])

    flows = Flows(t.lab, PACKETS, UDP_PORT, [(client[False], 4)])
    before, began = t.drop("packet_rate"), time.monotonic()
    sent = [text for turn in range(100) for text in flows.send(f"packets {turn}")]
    got = t.accounted(sent, "packet_rate", before)
    most = PACKET_RATE * (1 + time.monotonic() - began) + 1
    t.checks.check(PACKET_RATE <= len(got) <= most,
                   f"packets: {len(got)} of 4 flows let in; the limit is {PACKET_RATE}", most)
    flows.close()
    table = t.b.sluice("drops").stdout
    for reason in ("connection_rate", "source_rate", "packet_rate"):
        t.checks.check(reason in table and
                       t.b.metric("sluice_worker_dropped_packets_total", reason=reason) > 0,
                       f"sluice drops and the metrics have {reason}", table)


def lists(t):
    t.checks.title("allow and deny lists, changed while connections live")
    loads = [t.b.start_load(f"load-{source}", vip, connections=10, rate=40, source=source,
                            timeout_ms=10000)
             for vip, sources in ((LISTS, (GOOD, BAD)), (LISTS6, (GOOD6, BAD6)))
             for source in sources]
    for load in loads:
        load.wait_for_output("every connection has been answered", 20)

    def let_in(what, source, vip, wanted):
        if wanted:
            t.checks.check(t.connects(source, vip), f"{what}: {source} may connect")
            return
        before = t.drop("denied")
        t.checks.check(not t.connects(source, vip, timeout=0.5) and t.drop("denied") > before,
                       f"{what}: {source} may not; counted as denied")

    for name, vip, good, bad in (("web", LISTS, GOOD, BAD), ("web6", LISTS6, GOOD6, BAD6)):
        bits = 128 if ":" in vip else 32
        let_in("no list", bad, vip, True)
        t.apply(name, deny=[f"{bad}/{bits}"])
        let_in("deny", bad, vip, False)
        let_in("deny", good, vip, True)
        t.apply(name, deny=[], allow=[good])
        let_in("allow", bad, vip, False)
        let_in("allow", good, vip, True)
        path = t.lab.path(f"{name}.list")
        path.write_text(f"# who may\n{good}/{bits}\n")
        t.apply(name, allow=[], **{"allow-file": str(path)})
        let_in("allow-file", bad, vip, False)
        let_in("allow-file", good, vip, True)
        if ":" in vip:  # what follows is about files, and takes its time
            continue
        path.write_text(f"{good}\n{bad} # now he, too\n")
        wait_until(lambda: t.connects(bad, vip, timeout=0.5), 15, "the changed file", 0.1)
        t.checks.check(True, f"the file has changed: {bad} may connect")
        path = t.lab.path(f"{name}-deny.list")
        path.write_text(f"192.0.2.1\n{bad}/300\n")
        refused = None
        try:
            t.apply(name, **{"allow-file": "none", "deny-file": str(path)})
        except LabError as error:
            refused = str(error)
        t.checks.check(refused and f"{path}:2" in refused,
                       "what is wrong in a file refuses the change, by file and line", refused)
        let_in("refused", bad, vip, True)
        path.write_text(f"{bad}\n")
        t.apply(name)
        let_in("deny-file", bad, vip, False)
        let_in("deny-file", good, vip, True)
    for load in loads:
        report = finish_load(load, stop=True)
        t.checks.check(report["requests_failed"] == 0 and report["connections_broken"] == 0 and
                       report["backend_changes"] == 0 and report["connections_opened"] == 10,
                       f"{load.name}: 10 connections went on through all of it, "
                       f"{report['requests_ok']} requests", report)


def ports(t):
    t.checks.title("ranges of ports, and any port")
    client = t.scene.client_address()
    for port, backend in TAKEN_BY.items():
        flows = Flows(t.lab, PORTS, port, [(client, 5)])
        sent = flows.send(f"port {port}")
        with contextlib.suppress(LabError):
            wait_until(lambda: t.arrived(sent) == set(sent), 5, "")
        where = {(s[0], s[1]) for s in list(t.servers.seen) if s[3] in sent}
        t.checks.check(t.arrived(sent) == set(sent) and where == {(backend, port)},
                       f"port {port}: all at {backend}", where)
        flows.close()
    report = t.b.load(PORTS, 80, connections=5, requests=50, requests_per_connection=5)
    t.checks.check(report["requests_ok"] == 50 and report["requests_failed"] == 0,
                   "HTTP through a range of TCP ports", report)
    t.checks.check(not t.connects(client, PORTS, 91, timeout=0.5) and
                   t.b.counters()["drop_no_service_port"] == 0,
                   "a port beyond the range is the kernel's, and reaches nobody")


def persistence(t):
    t.checks.title("persistence")

    def where(text):
        """The backends that new flows of each source arrive at: {source: {backend}}"""
        flows = Flows(t.lab, PERSISTENT, UDP_PORT, [(a, 5) for a in CROWD])
        sent = flows.send(text)
        with contextlib.suppress(LabError):
            wait_until(lambda: t.arrived(sent) == set(sent), 5, "")
        found = {}
        for backend, _, peer, data in list(t.servers.seen):
            if data in sent:
                found.setdefault(peer, set()).add(backend)
        flows.close()
        return found

    # The service is TCP for its real clients, and UDP here, where more sources are wanted.
    report = t.b.load(PERSISTENT, 80, connections=5, requests=40, requests_per_connection=1)
    t.checks.check(report["requests_ok"] == 40 and len(report["backends"]) == 1,
                   f"40 TCP connections of one client at {', '.join(report['backends'])}", report)
    first = where("first")
    t.checks.check(len(first) == len(CROWD) and all(len(b) == 1 for b in first.values()) and
                   len(set.union(*first.values())) == 3,
                   f"5 flows of each of {len(first)} sources: each source at one of 3 backends",
                   first)
    moved = t.scene.address("b1")
    stay = [a for a, b in first.items() if b == {"b1"}]
    for s in ("persistent", "persistent-udp"):
        for backend in t.services[s]["backends"]:
            backend["weight"] = 1 if backend["address"] == moved else 10000
    hits = t.b.counters()["persistence_hits"]
    t.apply("persistent")
    second = where("second")
    t.checks.check(stay and second == first,
                   f"b1 has hardly any weight now: the {len(stay)} sources there stay, as do all",
                   {a: (first[a], second.get(a)) for a in first})
    t.checks.check(t.b.counters()["persistence_hits"] - hits >= len(CROWD) * 5,
                   "counted as persistence_hits")
    # Whoever has been silent for longer than the timeout is free.
    t.services["persistent"]["persistence"] = {"timeout": "1s"}
    t.apply("persistent-udp", persistence={"timeout": "1s"})
    time.sleep(2.1)
    third = where("third")
    t.checks.check(len(third) == len(CROWD) and not any(b == {"b1"} for b in third.values()),
                   "after the timeout nobody is at b1 any more", third)


def flood(t):
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    t.checks.title("the mode for SYN floods")
    # The backends answer none of the spoofed sources.
    for name in t.scene.backends:
        t.lab.ip(name, "route add unreachable 198.18.0.0/15")
    mac = t.lab.run("edge", ["cat", "/sys/class/net/up0/address"]).stdout.strip()
    rnd = random.Random(7)
    frames = [bytes(Ether(dst=mac, src="02:00:00:00:00:99") /
                    IP(src=f"198.18.{rnd.randrange(256)}.{rnd.randrange(256)}", dst=FLOODED) /
                    TCP(sport=10000 + i, dport=80, flags="S")) for i in range(500)]
    wire = packet_socket(t.lab, "client", "eth0")

    def stateless():
        return t.b.counters()["syn_flood_stateless"]

    def opened():
        return t.b.ask("/v1/stats?service=flooded")["services"][0]["connections_opened"]

    def connects_with_entry():
        before = stateless()
        return t.connects(t.scene.client_address(), FLOODED) and stateless() == before

    t.checks.check(connects_with_entry(), "before: a SYN takes an entry")
    before = opened()
    for frame in frames:
        wire.send(frame)
    with contextlib.suppress(LabError):
        wait_until(lambda: opened() - before + stateless() >= len(frames), 10, "")
    entries, without = opened() - before, stateless()
    # A second may begin anew in the middle of them; the mode stays on then.
    t.checks.check(entries + without == len(frames) and entries <= 2 * SYN_RATE,
                   f"{len(frames)} SYNs at once: {entries} took an entry, {without} none; "
                   f"the limit is {SYN_RATE}")

    stop = threading.Event()

    def go_on():
        while not stop.is_set():
            for frame in frames[:2 * SYN_RATE]:
                wire.send(frame)
            stop.wait(0.2)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    before = stateless()
    kept = t.b.start_load("in-flood", FLOODED, connections=20, rate=100, timeout_ms=10000)
    kept.wait_for_output("every connection has been answered", 20)
    stop.set()
    thread.join()
    t.checks.check(stateless() - before >= 20,
                   f"20 connections made meanwhile; {stateless() - before} SYNs without an entry")
    t.checks.check(t.b.metric("sluice_worker_syn_flood_stateless_total") == stateless(),
                   "the metric sluice_worker_syn_flood_stateless_total says so, too")
    wait_until(connects_with_entry, 10, "the end of the mode", 0.3)
    t.checks.check(True, "afterwards a SYN takes an entry again")
    count = t.b.ask("/v1/connections/count?service=flooded")["by_state"]
    t.checks.check(count["established"] >= 20,
                   "and those from the flood have theirs since their handshake", count)
    report = finish_load(kept, stop=True)
    t.checks.check(report["requests_failed"] == 0 and report["backend_changes"] == 0,
                   f"they were answered {report['requests_ok']} times, and none failed", report)
    wire.close()


def pings(t):
    t.checks.title("pings")

    def answered(vip):
        run = t.lab.run("client", ["ping", "-n", "-c", "3", "-i", "0.05", "-W", "0.5", vip],
                        check=False)
        return int(run.stdout.split(" received")[0].split()[-1])

    before = t.drop("unsupported_protocol")
    t.checks.check(answered(SILENT) == 0 and t.drop("unsupported_protocol") == before + 3,
                   "echo: false: no ping is answered; counted as unsupported_protocol")
    t.checks.check(answered(ECHOING) == 3, "echo: true: pings are answered")
    backends = [x["address"] for x in t.services["echoing"]["backends"]]
    for name in t.scene.backends:
        t.stand.echo[name].stop()
    t.b.wait_for_health("echoing", [])
    wait_until(lambda: answered(ECHOING) == 0, 5, "silence", 0.1)
    t.checks.check(answered(ECHOING) == 0, "not while no backend is healthy")
    t.stand.start_echo(t.scene.backends[0])
    t.b.wait_for_health("echoing", backends[:1])
    wait_until(lambda: answered(ECHOING) == 3, 5, "an answer", 0.1)
    t.checks.check(True, "with a healthy one again they are")


def scenario(lab, checks):
    t = Scene(lab, checks)
    for part in (limits, lists, ports, persistence, flood, pings):
        part(t)
        checks.figure(f"{checks.seconds():.1f} s so far")
    t.servers.stop()
    checks.check(t.b.dataplane.running() and t.b.controlplane.running(), "both daemons run")


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("options"), scenario))
