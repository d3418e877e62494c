#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of packets that reach no backend: `sluice drops -w` while each reason is
provoked on the wire, first of the data plane, then, once it has been killed, of the XDP stand-in;
and what the stand-in has forwarded and the next data plane has taken over."""

import contextlib
import re
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.stand import HTTP_HEALTH, Stand, service, vip4, vip6  # noqa: E402
from netns_sockets import Flows, Recorders, packet_socket  # noqa: E402

PORT = 5000
POOL = "10.77.0.200"
WEB, WEB6 = vip4(10), vip6(10)
NONE, LOST = vip4(11), vip4(12)
NEW, SOURCE, PACKETS, DENIED, SILENT = (vip4(n) for n in range(13, 18))
NAT, FULL, DSCP = (vip4(n) for n in range(18, 21))
DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "counters.md"


def services(scene):
    def udp(name, vip, forward="ipip", **more):
        return {**service(scene, name, vip, forward, "udp", PORT, HTTP_HEALTH), **more}

    # No backend is set up for it: checked as it is, they would all be down.
    dscp = udp("dscp", DSCP, "dsr-dscp", health={**HTTP_HEALTH, "via": "direct"})
    for backend in dscp["backends"]:
        backend["dscp"] = 13
    return [udp("web", WEB), udp("web6", WEB6),
            udp("new", NEW, limits={"new-connections": 1}),
            udp("source", SOURCE, limits={"per-source": {"new-connections": 1}}),
            udp("packets", PACKETS, limits={"packets": 1}),
            udp("denied", DENIED, deny=["10.77.0.0/16"]),
            udp("silent", SILENT, echo=False), udp("nat", NAT, "nat"), udp("full", FULL, "full-nat"),
            dscp]


class Watch:
    """`sluice drops --all -w`, and what it shows last."""

    def __init__(self, lab, b):
        self.process = lab.start("edge", "watch", [
            b.binaries.cli, "drops", "--all", "--watch", "--interval", "0.2"],
            env=b.environment())

    def last(self):
        """last() returns {reason: packets} of the last table that is whole."""
        tables = self.process.output().split("REASON ")[1:]
        for table in reversed(tables[:-1]):
            return {m[1]: int(m[2]) for m in re.finditer(r"^(\w+) +(\d+) ", table, re.M)}
        return {}


def of_data_plane(world):
    """What to send for each reason: {reason: frames}. Frames are from the Ethernet type on."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
    from scapy.packet import Raw
    client, client6 = world.scene.client_address(), world.scene.client_address(True)
    data = Raw(b"x" * 32)

    def to(vip, number=1, ip=None, size=32, **fields):
        return [IP(**{"src": client, "dst": vip, **(ip or {})}) /
                UDP(**{"sport": 20000 + n, "dport": PORT, **fields}) / Raw(b"x" * size)
                for n in range(number)]

    lost = IP(src=WEB, dst=client) / UDP(sport=9, dport=9)
    return {
        "truncated": [Raw(bytes(to(WEB)[0])[:30]), *to(WEB, ip={"len": 24}),
                      IPv6(src=client6, dst=WEB6, plen=999) / UDP(dport=PORT) / data],
        "bad_ipv4_checksum": to(WEB, ip={"chksum": 0x1234}),
        "bad_l4_header": to(WEB, len=3),
        "ttl_expired": to(WEB, 3, ip={"ttl": 1}),
        "bad_source": to(WEB, ip={"src": "127.0.0.1"}) + to(WEB, ip={"src": WEB}),
        "fragment": [IP(src=client, dst=WEB, id=7, frag=10, proto=17) / data],
        "fragment_room": [IPv6(src=client6, dst=WEB6) / IPv6ExtHdrFragment(
            id=n // 60, offset=10 * (1 + n % 60), nh=17, m=1) / Raw(b"x" * 80)
            for n in range(300)],
        "unsupported_protocol": [IP(src=client, dst=SILENT) / ICMP() / data],
        "no_backend": to(NONE, 4),
        "no_next_hop": to(LOST, 4),
        "too_big": to(WEB, 2, ip={"flags": "DF"}, size=1560),
        "bad_icmp": [IP(src=client, dst=WEB) / ICMP(type=3, code=1, chksum=1) / lost],
        "icmp_unmatched": [IP(src=client, dst=WEB) / ICMP(type=3, code=1) / lost],
        "icmp_rate": [IP(src=client, dst=WEB) / ICMP() / data] * 20000,
        "denied": to(DENIED, 5),
        "connection_rate": to(NEW, 30),
        "source_rate": to(SOURCE, 30),
        "packet_rate": to(PACKETS, 30),
        "nat_unmatched": [IP(src=client, dst=POOL) / UDP(sport=1, dport=2) / data,
                          IP(src=client, dst=POOL) / TCP(sport=1, dport=2)],
    }


def of_standin(world):
    from scapy.layers.inet import IP, UDP
    from scapy.packet import Raw
    client = world.scene.client_address()

    def to(vip, size=32, **ip):
        return [IP(src=client, dst=vip, **ip) / UDP(sport=21000 + n, dport=PORT) / Raw(b"x" * size)
                for n in range(5)]

    return {"standin_no_backend": to(NONE) + to(LOST),
            "standin_mode": to(NAT) + to(FULL) + to(DSCP),
            "standin_too_big": to(WEB, 1560, flags="DF"),
            "standin_ttl": to(WEB, ttl=1),
            "standin_fragment": [IP(src=client, dst=WEB, id=8, frag=10, proto=17) / Raw(b"x" * 32)],
            "standin_failed": to(WEB, len=999)}


class World:
    def __init__(self, lab, checks):
        self.lab, self.checks = lab, checks
        self.stand = Stand(lab, services, dataplane={"nat-pool": {"ipv4": [POOL]}})
        self.stand.let_standin_be_heard()
        self.b, self.scene = self.stand.balancer, self.stand.scene
        lab.ip("edge", f"address add {POOL}/32 dev up0")
        lab.ip("client", "link set eth0 mtu 1600")
        self.b.apply([*self.stand.services,
                      {"name": "none", "address": NONE, "protocol": "udp", "port": PORT},
                      {"name": "lost", "address": LOST, "protocol": "udp", "port": PORT,
                       "backends": [{"address": "10.77.0.99"}]}])
        self.servers = Recorders(lab, {n: [(WEB, PORT)] for n in self.scene.backends})
        self.wire = packet_socket(lab, "client", "eth0")
        self.macs = [lab.run(n, ["cat", f"/sys/class/net/{i}/address"]).stdout.strip()
                     for n, i in (("edge", "up0"), ("client", "eth0"))]
        self.watch = Watch(lab, self.b)
        wait_until(lambda: len(self.watch.last()) > 20, 10, "sluice drops -w")

    def provoke(self, reason, packets):
        from scapy.layers.l2 import Ether
        before = self.watch.last()
        # Made before: what shall meet in a room or in a second is sent at once. The same packet
        # many times is made once.
        made = {id(p): bytes(Ether(dst=self.macs[0], src=self.macs[1],
                                   type=0x86dd if p.name == "IPv6" else 0x0800) / p)
                for p in {id(p): p for p in packets}.values()}
        for packet in packets:
            self.wire.send(made[id(packet)])
        # Limits let some through, rooms hold some; what is lost outright is all there.
        least = {"fragment_room": 44, "icmp_rate": 1, "connection_rate": 1, "source_rate": 1,
                 "packet_rate": 1}.get(reason, len(packets))
        with contextlib.suppress(LabError):
            wait_until(lambda: self.watch.last().get(reason, 0) - before[reason] >= least, 5, "")
        grown = {r: n - before[r] for r, n in self.watch.last().items() if n != before[r]}
        self.checks.check(least <= grown.get(reason, 0) <= len(packets),
                          f"{reason}: {len(packets)} packets, {grown.get(reason, 0)} more in "
                          "sluice drops -w", grown)

    def answered(self, number):
        """answered() returns how many of so many new flows a backend has got."""
        flows = Flows(self.lab, WEB, PORT, [(self.scene.client_address(), number)])
        sent = set(flows.send(f"flow of {len(self.servers.seen)}"))
        with contextlib.suppress(LabError):
            wait_until(lambda: sent <= {s[3] for s in list(self.servers.seen)}, 5, "")
        flows.close()
        return len(sent & {s[3] for s in self.servers.seen})


def scenario(lab, checks):
    w = World(lab, checks)
    b = w.b
    shown = w.watch.last()
    known = {d["reason"] for d in b.ask("/v1/drops")["drops"]}
    documented = set(re.findall(r"^\| `(\w+)` \|.*\|.*\|$", DOCUMENTED.read_text().split(
        "## Counters")[0], re.M))
    checks.check(set(shown) == known == documented,
                 f"sluice drops --all -w, the API and docs/counters.md have {len(known)} reasons",
                 (set(shown) ^ known, known ^ documented))
    checks.check(not any(shown.values()), "none has happened yet", shown)

    checks.title("the data plane drops")
    for reason, packets in of_data_plane(w).items():
        w.provoke(reason, packets)
    checks.check(w.answered(20) == 20, "20 flows that are in order reach a backend")
    api = {d["reason"]: d["packets"] for d in b.ask("/v1/drops")["drops"]}
    metric = {r: b.metric("sluice_worker_dropped_packets_total", reason=r)
              for r in api if not r.startswith("standin_")}
    checks.check(all(metric[r] == api[r] for r in metric), "the metrics say the same",
                 {r: (metric[r], api[r]) for r in metric if metric[r] != api[r]})

    checks.title("the data plane is killed: the stand-in drops")
    b.dataplane.kill()
    for reason, packets in of_standin(w).items():
        w.provoke(reason, packets)
    before = b.ask("/v1/stats")["total"]["standin_forwarded"]
    checks.check(w.answered(20) == 20, "20 flows that are in order reach a backend")
    total = b.ask("/v1/stats")["total"]
    port, = b.ask("/v1/ports")["ports"]
    by = {how: b.metric("sluice_standin_forwarded_packets_total", port="up0", by=how)
          for how in ("hash", "table")}
    checks.check(total["standin_forwarded"] - before == 20 and
                 total["standin_forwarded"] == port["standin_forwarded"] == sum(by.values()),
                 f"stats, get ports and the metrics: the stand-in has forwarded "
                 f"{total['standin_forwarded']}", (before, total, port, by))
    drops = {d["reason"]: d["packets"] for d in b.ask("/v1/drops")["drops"]}
    standin = {r: n for r, n in drops.items() if r.startswith("standin_")}
    checks.check(total["standin_dropped"] == port["standin_dropped"] == sum(standin.values()) and
                 all(b.metric("sluice_standin_dropped_packets_total", port="up0", reason=r) == n
                     for r, n in standin.items()),
                 f"and has dropped {sum(standin.values())}", (total, port, standin))
    checks.check("BY STAND-IN" in b.sluice("stats").stdout and
                 "BY STAND-IN" in b.sluice("get", "ports").stdout, "so do the CLI's tables")

    checks.title("the next data plane")
    b.start_dataplane()
    worker, = b.show("get", "workers")["workers"]
    checks.check(worker["adopted"] >= 20 and
                 b.metric("sluice_worker_connections_adopted_total") == worker["adopted"] and
                 f"adopted {worker['adopted']} connections" in b.dataplane.output(),
                 f"sluice get workers: {worker['adopted']} connections were adopted", worker)
    checks.check(re.search(r"ADOPTED", b.sluice("get", "workers").stdout), "the table has them, too")
    wait_until(lambda: w.answered(5) == 5, 5, "the data plane")
    checks.check(b.ask("/v1/stats")["total"]["standin_forwarded"] >= total["standin_forwarded"],
                 "the stand-in's counters go on")
    w.watch.process.signal(signal.SIGINT)
    checks.check(w.watch.process.wait(5) == 0, "Ctrl-C ends sluice drops -w")
    w.servers.stop()


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("drops"), scenario))
