#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The data plane is killed with -9, and stopped for an upgrade, under 200 TCP
connections with traffic all the time, and is away for 3 seconds each time: the XDP stand-in
forwards meanwhile, the connection tables are taken over afterwards. Once with connections
that are where the hash puts them, once after a change of backends, when a good part of them
is where only the connection table knows.

SLUICE_ROUNDS=N repeats each way of dying N times and prints the figures of all."""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.sluice import finish_load  # noqa: E402
from lab.stand import ECHO_PORT, Stand, service, vip4, vip6  # noqa: E402

# VIP, forward, connections: 200 in all, each with 20 requests per second.
FLOWS = {"ipip": (vip4(10), "ipip", 70), "direct": (vip4(20), "dsr-l2", 60),
         "ipip6": (vip6(10), "ipip", 70)}
RATE = 20
AWAY_S = 3.0
LEAST = 200 * RATE * (AWAY_S - 0.5)  # packets that the stand-in has to forward meanwhile
MOST_GAP_MS = 300
MOVED = "10.77.0.21"  # the backend that gives up its share of new connections


class Counters:
    """The XDP program's own, read as the control plane reads them."""

    def __init__(self, stand):
        self.lab = stand.lab
        self.tool = stand.binaries.build / "tests" / "end_to_end" / "steer_tool"

    def read(self):
        return json.loads(self.lab.run("edge", [self.tool, "counters", "up0"]).stdout)


def start_loads(b, checks):
    loads = [b.start_load(name, vip, ECHO_PORT, mode="tcp", connections=n, rate=n * RATE)
             for name, (vip, _, n) in FLOWS.items()]
    for load in loads:
        load.wait_for_output("every connection has been answered", 10)
    return loads


def judge(checks, what, loads, figures):
    reports = {load.name: finish_load(load, stop=True) for load in loads}
    total = {key: sum(r[key] for r in reports.values())
             for key in ("requests_ok", "requests_failed", "connections_broken",
                         "connections_opened", "backend_changes")}
    gap = max(r["longest_gap_ms"]["max"] for r in reports.values())
    typical = max(r["longest_gap_ms"]["p50"] for r in reports.values())
    figures.append((what, total, gap))
    checks.check(total["connections_broken"] == 0 and total["requests_failed"] == 0 and
                 total["backend_changes"] == 0 and total["connections_opened"] == 200,
                 f"{what}: 200 connections, {total['requests_ok']} requests: "
                 f"{total['connections_broken']} reset, {total['requests_failed']} failed, "
                 f"{total['backend_changes']} on another backend",
                 {n: {k: v for k, v in r.items() if k != "failures"} for n, r in reports.items()})
    checks.check(gap < MOST_GAP_MS, f"{what}: longest gap {gap:.0f} ms (half of the connections: "
                 f"{typical:.0f} ms or less; {1000 / RATE:.0f} ms lie between two requests)",
                 {n: r["longest_gap_ms"] for n, r in reports.items()})


def die(stand, checks, number, counters):
    """die() has the data plane away for a while; returns what the stand-in forwarded."""
    b = stand.balancer
    before = counters.read()
    b.dataplane.signal(number)
    b.dataplane.wait(10)
    time.sleep(AWAY_S)
    b.start_dataplane()
    adopted = [int(line.split("adopted ")[1].split()[0])
               for line in b.dataplane.output().split("\n") if "adopted" in line]
    checks.check(len(adopted) == 1 and adopted[0] >= 200,
                 f"the next one has adopted {sum(adopted)} connections", b.dataplane.tail())
    after = counters.read()
    return {key: after[key] - before[key] for key in after}


def one_round(stand, checks, counters, name, number, figures):
    checks.title(f"{name}, away for {AWAY_S:.0f} s; connections as the hash has them")
    loads = start_loads(stand.balancer, checks)
    stood_in = die(stand, checks, number, counters)
    time.sleep(0.5)
    judge(checks, name, loads, figures)
    checks.check(stood_in["forwarded"] > LEAST and stood_in["pinned"] < stood_in["forwarded"] / 5,
                 f"the stand-in forwarded {stood_in['forwarded']} packets", stood_in)
    checks.check(stood_in["no_socket"] == 0, "no packet reached the kernel's TCP", stood_in)


def one_pinned_round(stand, checks, counters, name, number, figures):
    checks.title(f"{name}; a third of the connections is where only the table knows")
    loads = start_loads(stand.balancer, checks)
    set_weight(stand, 0)
    time.sleep(0.5)
    stood_in = die(stand, checks, number, counters)
    time.sleep(0.5)
    judge(checks, name + ", pinned", loads, figures)
    checks.check(stood_in["pinned"] > LEAST / 6,
                 f"the stand-in forwarded {stood_in['pinned']} packets as the table says, "
                 f"{stood_in['forwarded']} as the hash does", stood_in)
    checks.check(stood_in["no_socket"] == 0, "no packet reached the kernel's TCP", stood_in)
    set_weight(stand, 100)
    time.sleep(0.3)


def set_weight(stand, weight):
    """set_weight() changes where new connections go: those of one backend stay on it."""
    for s in stand.services:
        for backend in s["backends"]:
            if backend["address"] in (MOVED, "fd77::21"):
                backend["weight"] = weight
    stand.balancer.apply(stand.services)


def scenario(lab, checks):
    def services(scene):
        return [service(scene, name, vip, forward, port=ECHO_PORT)
                for name, (vip, forward, _) in FLOWS.items()]

    stand = Stand(lab, services, direct=[vip4(20)], echo=True)
    stand.let_standin_be_heard()
    counters = Counters(stand)
    figures = []
    for _ in range(int(os.environ.get("SLUICE_ROUNDS", "1"))):
        one_round(stand, checks, counters, "kill -9", signal.SIGKILL, figures)
        one_pinned_round(stand, checks, counters, "kill -9", signal.SIGKILL, figures)
        one_pinned_round(stand, checks, counters, "SIGTERM", signal.SIGTERM, figures)
    if len(figures) > 3:
        for what in dict.fromkeys(f[0] for f in figures):
            gaps = sorted(gap for w, _, gap in figures if w == what)
            broken = sum(t["connections_broken"] for w, t, _ in figures if w == what)
            checks.title(f"{what}: {len(gaps)} times, {broken} connections reset, longest gaps "
                         f"{', '.join(f'{g:.0f}' for g in gaps)} ms")
    stand.balancer.dataplane.signal(signal.SIGINT)
    checks.check(stand.balancer.dataplane.wait(10) == 0, "SIGINT ends it")
    link = lab.ip("edge", "link show dev up0")
    checks.check("prog/xdp" not in link, "and takes the stand-in away", link)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("crash"), scenario))
