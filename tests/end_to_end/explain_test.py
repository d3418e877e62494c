#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""sluice explain beside a running data plane: it names every step, and the backend that it names
is the one that the flow's packets then arrive at."""

import contextlib
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.stand import HTTP_HEALTH, Stand, service, vip4, vip6  # noqa: E402
from netns_sockets import Recorders, family, inside, socket  # noqa: E402

PORT = 5000
POOL = "10.77.0.200"
PORTS = range(30000, 30008)  # of the client
HEX = "[0-9a-fx]+"
BY_FLOW = rf"maglev: flow hash {HEX} names slot \d+ of 65537"
DIRECT = vip4(23)
# name: (VIP, forward, other keys, what the steps say besides what all say)
CASES = {
    "ipip": (vip4(20), "ipip", {}, [
        BY_FLOW, r"encapsulated, from 10\.77\.0\.10: 20 bytes more, .* 1580 bytes .* 1600"]),
    "ipip6": (vip6(20), "ipip", {}, [
        BY_FLOW, "encapsulated, from fd77::10: 40 bytes more, .* 1560 bytes .* 1600"]),
    "gue": (vip4(21), "gue", {}, [BY_FLOW, r"from 10\.77\.0\.10, UDP port 6080: 28 bytes more"]),
    "gre": (vip4(22), "gre", {}, [BY_FLOW, "24 bytes more"]),
    "direct": (DIRECT, "dsr-l2", {"scheduler": "source-hash"}, [
        rf"source-hash: source hash {HEX} names slot \d+ of 65537", "up to 1600 bytes fit"]),
    "dscp": (vip4(24), "dsr-dscp", {"health": {**HTTP_HEALTH, "via": "direct"}}, [
        BY_FLOW, "its destination becomes BACKEND, its DSCP 13"]),
    "nat": (vip4(25), "nat", {}, [BY_FLOW, f"its destination becomes BACKEND:{PORT}"]),
    "full": (vip4(26), "full-nat", {}, [
        BY_FLOW, f"its destination becomes BACKEND:{PORT}", "one of nat-pool, which has 1 of"]),
    "ring": (vip4(27), "ipip", {"scheduler": "ring-hash"}, [
        rf"ring-hash: flow hash {HEX} names slot \d+ of \d+"]),
    "sticky": (vip4(28), "ipip", {"persistence": {"timeout": "5m", "ipv4-prefix": 24},
                                  "scheduler": "round-robin"}, [
        "persistence: a /24 source that has opened a connection within 300 s stays where it is",
        rf"any other source: source hash {HEX} names slot"]),
    "quic": (vip4(29), "ipip", {"quic": {"server-id-length": 2}}, [
        r"a QUIC packet whose connection id has a server id goes by that: .*0a01: 10\.77\.0\.21",
        BY_FLOW]),
    "lists": (vip4(30), "ipip", {"deny": ["192.0.2.0/24"], "allow": ["10.77.0.0/24"]}, [
        "CLIENT is not in the service's deny list", "CLIENT is in the service's allow list"]),
    "limits": (vip4(31), "ipip", {"limits": {
        "new-connections": 1000, "packets": 2000,
        "per-source": {"new-connections": 100, "ipv4-prefix": 16}}}, [
        r"more than 2000 packets on a worker in a second are dropped \(packet_rate\)",
        r"more than 1000 new connections on a worker in a second are dropped \(connection_rate\)",
        r"more than 100 new connections of one /16 source .*\(source_rate\)"]),
}


def services(scene):
    found = []
    for name, (vip, forward, more, _) in CASES.items():
        s = {**service(scene, name, vip, forward, "udp", PORT, HTTP_HEALTH), **more}
        for n, backend in enumerate(s["backends"]):
            if forward == "dsr-dscp":
                backend["dscp"] = 13
            if "quic" in more:
                backend["quic-id"] = f"0a0{n + 1}"
        found.append(s)
    found.append({**service(scene, "web", vip4(20)), "limits": {"syn-flood": 3000},
                  "mss-clamp": 1200})
    found.append({**service(scene, "turns", vip4(33), protocol="udp", port=PORT,
                            health=HTTP_HEALTH), "scheduler": "round-robin"})
    return found


def at(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class World:
    def __init__(self, lab, checks):
        self.lab, self.checks = lab, checks
        self.stand = Stand(lab, services, direct=[DIRECT],
                           dataplane={"nat-pool": {"ipv4": [POOL]}})
        self.b, self.scene = self.stand.balancer, self.stand.scene
        lab.ip("edge", f"address add {POOL}/32 dev up0")
        for name in self.scene.backends:
            lab.run(name, [self.stand.binaries.backend_setup, "up", "--interface", "eth0",
                           "--mode", "dsr-dscp", "--dscp", "13", "--vip", CASES["dscp"][0],
                           "--object", self.stand.binaries.bpf / "decap.bpf.o"],
                    env={"SLUICE_RUN_DIR": str(lab.path(f"backend-{name}", "x").parent)})
        self.mac = {n: lab.run(n, ["cat", "/sys/class/net/eth0/address"]).stdout.strip()
                    for n in self.scene.backends}
        plain = [vip for vip, forward, *_ in CASES.values() if "nat" not in forward]
        self.servers = Recorders(lab, {n: [*((vip, PORT) for vip in (*plain, vip4(33))),
                                           (self.scene.address(n), PORT)]
                                       for n in self.scene.backends})

    def explain(self, vip, source_port, protocol="udp", port=PORT, source=None):
        source = source or self.scene.client_address(":" in vip)
        return self.b.ask(f"/v1/explain?protocol={protocol}&source={at(source, source_port)}"
                          f"&destination={at(vip, port)}".replace("[", "%5B").replace("]", "%5D"))

    def where(self, vip, port, text):
        """where() sends a datagram from the client's port; returns the backend that has it."""
        with inside(self.lab, "client"):
            sock = socket.socket(family(vip), socket.SOCK_DGRAM)
        with sock:
            sock.bind((self.scene.client_address(":" in vip), port))
            sock.sendto(text, (vip, PORT))

        def found():
            return next((s[0] for s in list(self.servers.seen) if s[3] == text), None)
        with contextlib.suppress(LabError):
            return wait_until(found, 5, "")
        return None

    def says(self, what, told, patterns):
        """says() checks that each pattern is in a step, in their order."""
        steps, missing = list(told["steps"]), []
        for pattern in patterns:
            hit = next((i for i, s in enumerate(steps) if re.search(pattern, s)), None)
            if hit is None:
                missing.append(pattern)
            else:
                steps = steps[hit + 1:]
        self.checks.check(not missing, f"{what}: all of the {len(told['steps'])} steps are there, in "
                          "order", f"{missing} not in\n" + "\n".join(told["steps"]))


def one(w, name):
    vip, forward, more, patterns = CASES[name]
    wrong, first = [], None
    for port in PORTS:
        if wrong:
            break
        told = w.explain(vip, port)
        first = first or told
        arrived = w.where(vip, port, f"{name} {port}".encode())
        backend = told["backend"] and w.scene.by_address(told["backend"])
        if told["verdict"] != "forwarded" or arrived is None or backend != arrived or \
                told["next_hop"]["mac"] != w.mac[arrived] or told["next_hop"]["port"] != "up0":
            wrong.append((port, arrived, told))
    w.checks.check(not wrong, f"{name}: {len(PORTS)} flows arrive where explain says",
                   "\n".join(map(str, wrong[:1])))
    backend = first["backend"]
    rule = "persistence" if "persistence" in more else more.get("scheduler", "maglev")
    patterns = [p.replace("BACKEND", re.escape(backend)).replace(
        "CLIENT", re.escape(w.scene.client_address())) for p in patterns]
    # In what order: service, lists, limits, choice, backend, what is rewritten, next hop, port.
    choice = [p for p in patterns if re.search("slot|list|dropped|connections|persistence|QUIC", p)]
    rest = [p for p in patterns if p not in choice]
    w.says(name, first, [
        "no worker has it in its connection table: a new connection",
        f"service {name} listens on {re.escape(at(vip, PORT))}", *choice,
        f"backend {re.escape(backend)}, forwarded by {forward}", *rest,
        "sent to (..:){5}.. through port up0"])
    again = w.explain(vip, PORTS[0])
    w.checks.check(first["rule"] == rule and again["rule"] == "connection-table" and
                   again["worker"] == 0 and again["backend"] == backend and
                   any(s.startswith("worker 0 has it in its connection table: udp")
                       for s in again["steps"]),
                   f"{name}: first by {rule}, then by the connection table", again)


def dropped(w):
    """What ends elsewhere, and what is the data plane's to choose."""
    checks = w.checks
    for what, told, verdict, reason, step in (
            ("a port without a service", w.explain(vip4(20), 1, port=9), "kernel", None,
             "has no service on port 9"),
            ("no VIP", w.explain("198.51.100.99", 1), "kernel", None, "has no service"),
            ("in the deny list", w.explain(CASES["lists"][0], 1, source="192.0.2.9"), "dropped",
             "denied", "192.0.2.9 is in the service's deny list"),
            ("not in the allow list", w.explain(CASES["lists"][0], 1, source="203.0.113.9"),
             "dropped", "denied", "203.0.113.9 is not in the service's allow list"),
            ("a bad source", w.explain(vip4(20), 1, source="127.0.0.1"), "dropped", "bad_source",
             "no packet may come from 127.0.0.1")):
        checks.check(told["verdict"] == verdict and told["reason"] == reason and
                     any(step in s for s in told["steps"]), f"{what}: {verdict}, {reason}", told)
    told = w.explain(vip4(20), 1, "tcp", 80)
    w.says("tcp", told, ["while more than 3000 SYNs come to a worker in a second, a SYN takes no",
                         BY_FLOW, "a SYN's segment size is lowered to 1200"])
    told = w.explain(vip4(33), 1)
    checks.check(told["backend"] is None and told["rule"] == "round-robin" and any(
        "each worker chooses by itself, of 3 backends (10.77.0.21, 10.77.0.22, 10.77.0.23)" in s
        for s in told["steps"]), "round-robin: names the candidates", told)
    where = w.where(vip4(33), 30000, b"turns")
    told = w.explain(vip4(33), 30000)
    checks.check(told["backend"] == w.scene.address(where) and told["rule"] == "connection-table",
                 "round-robin: and the backend, once the connection is there", told)


def changed(w):
    """A connection that stays where the hash would no longer put it, and one that loses its
    backend."""
    checks = w.checks
    vip = CASES["ipip"][0]
    victim = w.explain(vip, PORTS[0])["backend"]
    s = next(s for s in w.stand.services if s["name"] == "ipip")
    for backend in s["backends"]:
        if backend["address"] == victim:
            backend["admin"] = "draining"
    w.b.apply(w.stand.services)
    told = w.explain(vip, PORTS[0])
    arrived = w.where(vip, PORTS[0], b"drained")
    checks.check(told["backend"] == victim == w.scene.address(arrived) and
                 told["rule"] == "connection-table", "its backend is drained: it stays", told)
    s["backends"] = [x for x in s["backends"] if x["address"] != victim]
    w.b.apply(w.stand.services)
    told = w.explain(vip, PORTS[0])
    arrived = w.where(vip, PORTS[0], b"moved")
    checks.check(told["backend"] == w.scene.address(arrived) != victim and
                 told["rule"] == "maglev" and any("is given another one" in x
                                                  for x in told["steps"]),
                 "its backend is removed: explain names the next one", (told, arrived))
    text = w.b.sluice("explain", "--protocol", "udp", "--source",
                      at(w.scene.client_address(), PORTS[1]), "--destination", at(vip, PORT)).stdout
    checks.check(re.search(r"-> 198\.51\.100\.20:5000: forwarded to 10\.77\.0\.2\d \(service ipip",
                           text) and "  sent to " in text, "the CLI prints the steps", text)


def flushed(w):
    """A connection that a drained backend keeps is forgotten when it is told to be; those of
    other services stay."""
    checks = w.checks
    vip = CASES["gue"][0]
    arrived = w.where(vip, 31000, b"before")
    victim = w.scene.address(arrived)
    w.b.sluice("backend", "drain", "gue", victim)
    checks.check(w.where(vip, 31000, b"drained") == arrived, "a drained backend keeps it")
    before = w.b.show("connections", "count")["by_service"]
    text = w.b.sluice("connections", "flush", "--service", "gue").stdout
    after = w.b.show("connections", "count")["by_service"]
    checks.check("gue: flushed" in text and before["gue"] > 0 and after["gue"] == 0 and
                 all(after[n] == before[n] for n in after if n != "gue"),
                 f"flushed: {before['gue']} connections of gue, and no others", (text, after))
    told = w.explain(vip, 31000)
    checks.check(told["rule"] == "maglev" and told["backend"] != victim,
                 "explain: the next packet is decided on anew", told)
    checks.check(w.scene.address(w.where(vip, 31000, b"flushed")) == told["backend"],
                 "and it goes where explain says")
    rest = sum(after.values()) + 1  # the one that was just made again
    wait_until(lambda: w.b.show("status")["connections"]["tracked"] == rest, 15,
               "the workers to forget them")
    # Before the sweep has come round, too: names are not used up.
    for _ in range(3):
        w.b.sluice("connections", "flush")
    checks.check(w.b.show("connections", "count")["total"] == 0, "all of them")
    w.b.sluice("backend", "undrain", "gue", victim)


def scenario(lab, checks):
    w = World(lab, checks)
    checks.title("new connections, and the same again")
    for name in CASES:
        one(w, name)
        if checks.failures:
            return  # the rest would only fail for the same reason, slowly
    checks.title("other ends")
    dropped(w)
    checks.title("changes")
    changed(w)
    checks.title("flushed")
    flushed(w)
    w.servers.stop()


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("explain"), scenario))
