#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The data plane is killed with -9, stopped for an upgrade, and made to hang (SIGSTOP), under
200 TCP connections with traffic all the time, and is away for 3 seconds each time: the XDP
stand-in forwards meanwhile, the connection tables are taken over afterwards. Once with
connections that are where the hash puts them, once after a change of backends, when a good part
of them is where only the connection table knows.

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
from lab.process import wait_until  # noqa: E402
from lab.sluice import finish_load  # noqa: E402
from lab.stand import ECHO_PORT, Stand, service, vip4, vip6  # noqa: E402

# VIP, forward, connections: 200 in all, each with 20 requests per second.
FLOWS = {"ipip": (vip4(10), "ipip", 70), "direct": (vip4(20), "dsr-l2", 60),
         "ipip6": (vip6(10), "ipip", 70)}
RATE = 20
AWAY_S = 3.0
LEAST = 200 * RATE * (AWAY_S - 0.5)  # packets that the stand-in has to forward meanwhile
MOST_GAP_MS = 300
# What comes in the 100 ms until a process counts as hanging lies in its queue: TCP sends it again,
# after a probe for a lost tail that may be lost as well.
MOST_HANGING_GAP_MS = 1000
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


def judge(checks, what, loads, figures, most=MOST_GAP_MS):
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
    checks.check(gap < most, f"{what}: longest gap {gap:.0f} ms (half of the connections: "
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


def one_hanging_round(stand, checks, counters, name, weight, figures):
    """one_hanging_round() stops the process and lets it go on: nothing is adopted, what its
    queues held when it was stopped is sent late. weight 0: a third of the connections is where
    only the table knows."""
    checks.title(f"{name} for {AWAY_S:.0f} s, then SIGCONT")
    b = stand.balancer
    loads = start_loads(b, checks)
    set_weight(stand, weight)
    time.sleep(0.5)
    before = counters.read()
    b.dataplane.signal(signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: counters.read()["forwarded"] > before["forwarded"], 5, "the stand-in", 0.01)
    checks.figure(f"the stand-in forwards after {(time.monotonic() - began) * 1000:.0f} ms or less")
    wait_until(lambda: b.ask("/v1/status")["dataplane"]["state"] == "stalled", 10,
               "sluice status to say that the data plane is stalled", 0.1)
    checks.check(b.metric("sluice_dataplane_up") == 0,
                 "sluice status says stalled, the metric sluice_dataplane_up 0")
    time.sleep(max(0.0, AWAY_S - (time.monotonic() - began)))
    received = b.counters()["rx_packets"]
    stood_in = counters.read()
    b.dataplane.signal(signal.SIGCONT)
    began = time.monotonic()
    wait_until(lambda: b.counters()["rx_packets"] - received > 200 * RATE / 10, 5,
               "the data plane", 0.01)
    checks.figure(f"the data plane has 400 packets more {(time.monotonic() - began) * 1000:.0f} ms "
                  "after SIGCONT")
    after = counters.read()
    time.sleep(0.5)
    end = counters.read()
    judge(checks, name, loads, figures, MOST_HANGING_GAP_MS)
    grown = {key: stood_in[key] - before[key] for key in after}
    checks.check(grown["forwarded"] + grown["pinned"] > LEAST and
                 (weight != 0 or grown["pinned"] > LEAST / 6),
                 f"the stand-in forwarded {grown['forwarded']} packets as the hash does, "
                 f"{grown['pinned']} as the table says", grown)
    checks.check(end["no_socket"] == before["no_socket"], "no packet reached the kernel's TCP", end)
    late = end["forwarded"] + end["pinned"] - after["forwarded"] - after["pinned"]
    checks.check(end["redirected"] - after["redirected"] > 10 * late,
                 f"then the data plane has its packets again: "
                 f"{end['redirected'] - after['redirected']} in half a second, the stand-in {late}")
    status = b.ask("/v1/status")["dataplane"]
    checks.check(status["state"] == "running" and b.dataplane.running() and
                 "adopted" not in b.dataplane.output().rsplit("ready", 1)[-1],
                 "it is the same process, and runs", status)
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
        one_hanging_round(stand, checks, counters, "SIGSTOP", 100, figures)
        one_hanging_round(stand, checks, counters, "SIGSTOP, pinned", 0, figures)
    if len(figures) > 5:
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
