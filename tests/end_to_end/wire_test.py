#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What should not be on the wire, on the wire: it is counted under a reason or left to the
kernel, the data plane lives, and those who behave notice nothing."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.sluice import finish_load  # noqa: E402
from lab.stand import Stand, service, vip4, vip6  # noqa: E402

# 50 of each kind: total and payload lengths beyond the frame; a checksum; a data offset; TTLs.
FORGED = {"truncated": 100, "bad_ipv4_checksum": 50, "bad_l4_header": 50, "ttl_expired": 100}

SENDER = r'''
import random, sys
from scapy.all import (Ether, IP, IPv6, TCP, UDP, Raw, Dot1Q, IPv6ExtHdrHopByHop, ICMP, conf,
                       get_if_hwaddr)
kind, mac, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
r = random.Random(seed)
V4, V6, C4, C6 = "198.51.100.10", "2001:db8:100::10", "10.77.0.100", "fd77:0::100"
e = Ether(src=get_if_hwaddr("eth0"), dst=mac)
def tcp(): return TCP(sport=r.randrange(1024, 65535), dport=80, flags="S")
def cut(p, n): return bytes(p)[:n]
frames = []
if kind == "forged":
    for _ in range(50):
        frames += [e / IP(src=C4, dst=V4, ihl=3) / tcp(), e / IP(src=C4, dst=V4, len=9000) / tcp(),
                   e / IP(src=C4, dst=V4, chksum=1) / tcp(), e / IP(src=C4, dst=V4, ttl=1) / tcp(),
                   e / IP(src=C4, dst=V4, proto=6) / Raw(b"short"),
                   e / IPv6(src=C6, dst=V6, plen=9000) / tcp(), e / IPv6(src=C6, dst=V6, hlim=1) / tcp(),
                   e / IPv6(src=C6, dst=V6, nh=6) / Raw(b"short"),
                   e / IP(src=C4, dst=V4) / TCP(dport=80, dataofs=1) / Raw(b"x" * 20)]
elif kind == "cut":
    for whole in (e / IP(src=C4, dst=V4) / tcp(), e / IPv6(src=C6, dst=V6) / tcp(),
                  e / Dot1Q(vlan=5) / IP(src=C4, dst=V4) / tcp(),
                  e / IPv6(src=C6, dst=V6) / IPv6ExtHdrHopByHop() / tcp()):
        frames += [cut(whole, n) for n in range(14, len(bytes(whole)))]
elif kind == "noise":
    whole = [bytes(p) for p in (e / IP(src=C4, dst=V4) / tcp(), e / IPv6(src=C6, dst=V6) / tcp(),
                                e / IP(src=C4, dst=V4) / UDP(dport=80) / Raw(b"x" * 64))]
    for _ in range(3000):
        base = bytearray(r.choice(whole))
        for _ in range(r.randrange(1, 6)):
            base[r.randrange(12, len(base))] = r.randrange(256)
        frames.append(bytes(base) + r.randbytes(r.choice((0, 0, 4, 200))))
s = conf.L2socket(iface="eth0")
for f in frames:
    s.send(f if isinstance(f, bytes) else bytes(f))
print(len(frames))
'''


def scenario(lab, checks):
    def services(scene):
        return [service(scene, "web", vip4(10)), service(scene, "web6", vip6(10))]

    stand = Stand(lab, services)
    b, scene = stand.balancer, stand.scene
    loads = [b.start_load("kept4", vip4(10), connections=30, rate=150),
             b.start_load("kept6", vip6(10), connections=30, rate=150)]
    for load in loads:
        load.wait_for_output("every connection has been answered", 10)
    mac = lab.run("edge", ["cat", "/sys/class/net/up0/address"]).stdout.strip()

    def dropped():
        return {d["reason"]: d["packets"] for d in b.show("drops")["drops"] if d["packets"]}

    def send(kind, seed=1):
        before = dropped()
        result = lab.run("client", ["/usr/bin/python3", "-c", SENDER, kind, mac, str(seed)],
                         timeout=60)
        sent = int(result.stdout.split()[-1])
        time.sleep(0.5)  # counters are published now and then, not for every packet
        after = dropped()
        return sent, {k: n - before.get(k, 0) for k, n in after.items() if n > before.get(k, 0)}

    checks.title("forged headers")
    sent, reasons = send("forged")
    checks.figure(", ".join(f"{k} {n}" for k, n in reasons.items()))
    # The rest has no port of the service's, or no length to find one by: the kernel's.
    checks.check(reasons == FORGED, f"{sum(reasons.values())} of {sent} frames counted, each "
                 "under its reason", f"expected: {FORGED}")
    checks.title("every truncation of four headers")
    sent, reasons = send("cut")
    checks.check(b.dataplane.running(), f"{sent} frames sent; dropped: "
                 + ", ".join(f"{k} {n}" for k, n in reasons.items()))
    checks.title("noise")
    for seed in (1, 2, 3):
        sent, reasons = send("noise", seed)
        checks.check(b.dataplane.running(), f"{sent} frames with bytes changed; dropped: "
                     + ", ".join(f"{k} {n}" for k, n in reasons.items()))

    checks.title("what is not for a VIP is the kernel's")
    lab.start("edge", "ssh", [stand.binaries.flowgen, "serve", "--listen", "0.0.0.0:22",
                              "--listen", "[::]:22", "--name",
                              "edge"]).wait_for_output("ready", 5)
    for v6 in (False, True):
        report = b.load(scene.edge_address(v6), 22, mode="tcp", connections=3, requests=30)
        checks.check(list(report["backends"]) == ["edge"] and report["requests_ok"] == 30,
                     f"TCP to the edge's own {scene.edge_address(v6)}", report)

    checks.title("those who behave")
    for load in loads:
        report = finish_load(load, stop=True)
        checks.check(report["requests_ok"] > 300 and report["requests_failed"] == 0,
                     f"{load.name}: {report['requests_ok']} requests answered, "
                     f"{report['requests_failed']} not", report)
    status = b.show("status")["dataplane"]
    checks.check(b.dataplane.running() and status["state"] == "running",
                 f"the data plane runs, {status['heartbeat_age_ms']} ms since its last heartbeat")
    codes = b.stop()
    checks.check(codes == (0, 0), "both daemons end cleanly", codes)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("wire"), scenario))
