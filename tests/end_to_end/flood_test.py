#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A SYN flood at full speed, at least ten times the connection table's size, beside a thousand
connections: none of them is broken, and while a backend is removed all others' keep theirs."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.sluice import finish_load, request_log  # noqa: E402
from lab.stand import Stand, service, vip4  # noqa: E402

CONNECTIONS = 1000
CONFIGURED = 2500  # dataplane.connections
TABLE = 6250  # places of IPv4 that so small a table has
FLOOD_S = 3


def scenario(lab, checks):
    def services(scene):
        # Checked slowly: what is tested is not how a backend under flood answers its checks.
        health = {"type": "tcp", "port": 80, "interval": "2s", "timeout": "2s", "fall": 10}
        return [{**service(scene, "web", vip4(10), health=health), "limits": {"syn-flood": 2000}}]

    stand = Stand(lab, services, backends=4, connections=CONFIGURED)
    b, scene = stand.balancer, stand.scene
    mac = lab.run("edge", ["cat", "/sys/class/net/up0/address"]).stdout.strip()
    # The backends answer none of the spoofed sources.
    for name in scene.backends:
        lab.ip(name, "route add unreachable 198.18.0.0/15")

    checks.title(f"{CONNECTIONS} connections, then the flood")
    kept = b.start_load("kept", vip4(10), connections=CONNECTIONS, rate=500, timeout_ms=10000)
    kept.wait_for_output("every connection has been answered", 20)
    time.sleep(2.5)  # each is used once more: established
    before = b.counters()
    began = time.time()
    flood = lab.start("client", "flood",
                      [stand.binaries.build / "tests" / "end_to_end" / "synflood",
                       "--interface", "eth0", "--to-mac", mac, "--target", f"{vip4(10)}:80",
                       "--seconds", FLOOD_S])
    time.sleep(FLOOD_S / 2)
    b.apply([{**s, "backends": [x for x in s["backends"] if x["address"] != scene.address("b4")]}
             for s in stand.services])
    flood.wait(FLOOD_S + 20)
    ended = time.time()
    sent = int(flood.output().split()[-1])
    time.sleep(2.5)
    after = b.counters()
    grown = {k: after[k] - before[k] for k in after}
    finish_load(kept, stop=True)
    log = request_log(kept)
    on_removed = {r["connection"] for r in log if r["backend"] == "b4"}
    innocent = [r for r in log if r["connection"] not in on_removed]
    failed = [r for r in innocent if r["outcome"] != "ok"]
    during = [r for r in innocent if began <= r["began"] < ended]
    backends = {}
    for r in innocent:
        if r["outcome"] == "ok":
            backends.setdefault(r["connection"], set()).add(r["backend"])
    changed = [c for c, names in backends.items() if len(names) > 1]
    checks.figure(f"{sent} SYNs in {ended - began:.1f} s; the data plane received "
                  f"{grown['rx_packets']}, sent {grown['syn_flood_stateless']} SYNs on without an "
                  f"entry, gave {grown['connections_evicted']} entries up")
    checks.check(grown["forwarded"] >= 10 * TABLE,
                 f"{grown['forwarded']} packets forwarded: more than ten times the table's {TABLE} places")
    checks.check(on_removed, f"{len(on_removed)} connections were on the backend that is removed")
    checks.check(len(backends) >= CONNECTIONS / 2 and not failed,
                 f"{len(failed)} of {len(innocent)} requests of the other {len(backends)} "
                 f"connections failed, {len(during)} of them began in the flood", failed[:5])
    checks.check(not changed, f"{len(changed)} of them changed their backend", changed[:5])
    checks.check(grown["syn_flood_stateless"] > 8 * TABLE and
                 grown["connections_evicted"] < TABLE / 10, "the flood took next to no entries",
                 grown)
    report = b.load(vip4(10), connections=20, requests=100, requests_per_connection=1)
    checks.check(report["requests_failed"] == 0, "afterwards: 100 new connections, all answered",
                 report)
    checks.check(b.dataplane.running() and b.controlplane.running(), "both daemons run")


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("flood"), scenario))
