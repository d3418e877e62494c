#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Packets per second of one worker of sluice-dataplane, beside dpdk-testpmd on the same core.

Both run over a net_null port whose packets a preloaded source writes (flow_source.cpp), or read the
same capture by net_pcap: every program gets the same flows, and is measured by the same clock. What is compared is alive at the
same time and takes turns on the core, a slice each, round by round; medians, the lowest and the
highest of the rounds are shown, and the median of the rounds' ratios. Rates are per second that
the thread has had the core (contestants.py).
Root; a core that nobody else uses. Nothing but this machine's memory and CPU is touched.

    run.py                          all rows (about 5 minutes)
    run.py --quick                  three rounds of a tenth of a second
    run.py path.ipip.v4.1M          rows by name
    run.py --sweep flows            cost by flows; also services, backends (perf/plot draws them)
    run.py --json FILE              one object per figure
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from lab.lab import Lab  # noqa: E402
from lab.process import LabError  # noqa: E402
from contestants import Republished, Sluice, Testpmd, captured_mib  # noqa: E402
from machine import TESTPMD, free_huge_mib, huge_pages, machine, missing  # noqa: E402

K, M = 1000, 1000 * 1000
TARGETS = ("perf/throughput/libflow_source.so", "dataplane/sluice-dataplane",
           "tests/end_to_end/plane_tool")


def row(name, flows, traffic="hits", mode="ipip", v6=False, connections=None, **more):
    return {"name": name, "flows": flows, "traffic": traffic, "mode": mode, "v6": v6,
            "services": 100, "backends": 100, "connections": connections or max(flows, 1024),
            "reference": "csum", **more}


# 65537 slots for each of so many services would be 512 MiB.
MANY_SERVICES = {"backends": 10, "table_size": 1021}
ROWS = [
    row("path.ipip.v4.1flow", 1),
    row("path.ipip.v4.1k", K),
    row("path.ipip.v4.100k", 100 * K),
    row("path.ipip.v4.1M", M),
    row("path.ipip.v4.10M", 10 * M),
    row("path.ipip.v6.1M", M, v6=True),
    # IPv4 and IPv6 at random, 100 services of each.
    row("path.ipip.mixed.1M", M, v6="mixed"),
    row("path.dsr-l2.v4.1M", M, mode="dsr-l2"),
    # Four connections are provided for each session of NAT (nat_table::sessions_for()).
    row("path.nat.v4.1M", M, mode="nat", connections=5 * M),
    row("path.new_flows", M, traffic="opening", warm=3 * M),
    # More handshakes than there is room for, so that every bucket is full.
    row("path.synflood", 2 * M, traffic="flood", connections=M),
    row("scaling.2workers", M, workers=2, reference={"label": "one worker", "workers": 1}),
    row("growth.services.4096", 100 * K, services=4096, **MANY_SERVICES,
        reference={"label": "one service", "services": 1}),
    row("growth.backends.1000", 100 * K, backends=1000,
        reference={"label": "one backend each", "backends": 1}),
]
# All services with other weights once in each slice, beside slices without.
ROWS += [row("publish.rate", M, slice=1.0, reference="undisturbed")]
# The same out of a capture in memory, again and again: receiving is a copy, as from a virtual NIC.
# --quick leaves these out unless they are named.
LONG = ("path.ipip.mixed.1M", "path.dsr-l2.v4.1M", "growth.services.4096", "growth.backends.1000", "publish.rate",
        "pcap.ipip.v4.100k", "pcap.ipip.v4.1M")
ROWS += [row(f"pcap.ipip.v4.{name}", flows, capture=True)
         for name, flows in (("10k", 10 * K), ("100k", 100 * K), ("1M", M))]
# What the reference itself is made of, in the same run.
TESTPMD_ROWS = [("testpmd.null", "io", "none"), ("testpmd.io", "io", "random"),
                ("testpmd.macswap", "macswap", "random"), ("testpmd.5tswap", "5tswap", "random"),
                ("testpmd.csum", "csum", "random")]
# Cost against the number of flows, services and backends of a service. Half of the latter are
# with established flows, half with new ones, for which a backend is looked up in the service's table.
SWEEPS = {
    "flows": [row(f"sweep.flows.{n}", n) for n in
              (1, 10, 100, K, 10 * K, 30 * K, 100 * K, 300 * K, M, 3 * M, 10 * M)],
    "services": [row(f"sweep.services.{n}{suffix}", 100 * K, traffic=traffic, services=n,
                     warm=300 * K, **MANY_SERVICES)
                 for traffic, suffix in (("hits", ""), ("opening", ".new"))
                 for n in (1, 4, 16, 64, 256, 1024, 4096)],
    "backends": [row(f"sweep.backends.{n}{suffix}", 100 * K, traffic=traffic, backends=n,
                     warm=300 * K)
                 for traffic, suffix in (("hits", ""), ("opening", ".new"))
                 for n in (1, 3, 10, 30, 100, 300, 1000)],
}


class Bench:
    def __init__(self, lab, arguments):
        self.lab, self.arguments = lab, arguments
        self.build = arguments.build.resolve()
        self.huge = False
        self.count = 0

    def choose_memory(self, r):
        self.huge = not self.arguments.no_huge and free_huge_mib() >= needed_mib(r)

    def conditions(self):
        a = self.arguments
        return machine(self.build) | {
            "core": a.cpu, "memory": "2 MB pages" if self.huge else "4 KB pages",
            "rounds": a.rounds * a.sittings, "sittings": a.sittings, "seconds": a.seconds}


def needed_mib(r):
    """needed_mib() is what a row's programs take of 2 MB pages, all at once."""
    return 384 + (r["connections"] * 35 >> 20) + 2 * captured_mib(r)


class Race:
    """Contestants of one core, a slice each in turn."""

    def __init__(self, bench, report):
        self.arguments, self.report = bench.arguments, report
        self.rates, self.taken = {}, []

    def sit(self, starters, seconds):
        """sit() starts them one by one (who comes later is given who is there), and then goes round
        by round."""
        contestants = []
        a = self.arguments
        try:
            for start in starters:
                contestants.append(start(contestants))
                contestants[-1].wait_until_ready()
            for number in range(a.rounds):
                # There and back again: a drift of the machine's speed shall favour nobody.
                for c in contestants[::-1 if number % 2 else 1]:
                    # What the other one has put into the caches goes first.
                    rate, taken = c.measure(max(0.1, a.seconds / 2), seconds)
                    self.rates.setdefault(c.label, []).append(rate)
                    self.taken.append(taken)
            for c in contestants:
                c.judge()
        finally:
            for c in reversed(contestants):
                c.close()

    def show(self):
        for label, rates in self.rates.items():
            self.report(f"    {label:24}{statistics.median(rates):8.2f} Mpps "
                        f"({min(rates):.2f} to {max(rates):.2f})")


def describe(values):
    return {"value": round(statistics.median(values), 3), "lowest": round(min(values), 3),
            "highest": round(max(values), 3)}


def figure_of(name, race, label, reference, facts, **more):
    """figure_of() is the object of a figure, as perf/run's."""
    figure = {"name": name, "unit": "Mpps", **describe(race.rates[label])}
    if reference:
        others = describe(race.rates[reference[0]])
        ratios = describe([a / b for a, b in zip(race.rates[label], race.rates[reference[0]])])
        figure |= {"reference": reference[1], "reference_value": others["value"],
                   "reference_lowest": others["lowest"], "reference_highest": others["highest"],
                   "ratio": ratios["value"], "ratio_lowest": ratios["lowest"],
                   "ratio_highest": ratios["highest"]}
    taken = round(statistics.mean(race.taken), 3)
    return figure | {"conditions": facts | {"core_taken": taken} | more}


def measure(bench, rows, report):
    """measure() has each row race against its reference; returns the figures, and how many rows
    there are none of."""
    a = bench.arguments
    figures, failed = [], 0
    if a.references:
        report("  testpmd")
        race = Race(bench, report)
        standard = row("testpmd", M)
        bench.choose_memory(standard)
        names = {}

        def starter(name, mode, traffic):
            def start(_):
                c = Testpmd(bench, mode, standard, traffic)
                c.label = name
                return c
            return start
        for name, mode, traffic in TESTPMD_ROWS:
            names[name] = starter(name, mode, traffic)
        for _ in range(a.sittings):
            race.sit(list(names.values()), a.seconds)
        race.show()
        facts = bench.conditions()
        figures += [figure_of(name, race, name, None, facts) for name in names]
    for r in rows:
        workers = r.get("workers", 1)
        if workers > (os.cpu_count() or 1):
            continue
        bench.choose_memory(r)
        report(f"  {r['name']}" + ("" if bench.huge else ": in 4 KB pages"))
        race = Race(bench, report)
        starters = [lambda _, r=r: Sluice(bench, r)]
        reference, label = r["reference"], "sluice"
        if isinstance(reference, dict):
            starters.append(lambda _, r=r: Sluice(bench, r | r["reference"],
                                                  label=r["reference"]["label"]))
            against = (reference["label"], reference["label"])
        elif reference == "undisturbed":
            starters.append(lambda there: Republished(there[0]))
            label, against = "republished", ("sluice", "undisturbed")
        else:
            starters.append(lambda _, r=r: Testpmd(bench, r["reference"], r, "random"))
            against = (f"testpmd-{reference}", f"testpmd {reference}")
        if a.sweep:
            starters.append(lambda _, r=r: Testpmd(bench, "io", r, "random"))
        try:
            for _ in range(a.sittings):
                race.sit(starters, max(a.seconds, r.get("slice", 0)))
        except LabError as error:
            print(f"run.py: {error}", file=sys.stderr, flush=True)
            failed += 1
            continue
        race.show()
        facts = bench.conditions()
        more = {"services": r["services"], "backends": r["backends"], "flows": r["flows"]}
        if a.sweep:
            more["io_mpps"] = describe(race.rates["testpmd-io"])["value"]
        figures.append(figure_of(r["name"], race, label, against, facts, **more))
    return figures, failed


def show(figures):
    print(f"{'Mpps on one core':28}{'median':>8}{'lowest':>8}{'highest':>8}"
          f"   {'reference':16}{'median':>8}{'ratio':>8}  from   to")
    for f in figures:
        line = f"{f['name']:28}{f['value']:8.2f}{f['lowest']:8.2f}{f['highest']:8.2f}"
        if "reference" in f:
            line += (f"   {f['reference']:16}{f['reference_value']:8.2f}{f['ratio']:8.2f}"
                     f"{f['ratio_lowest']:6.2f}{f['ratio_highest']:6.2f}")
        print(line)


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names, or parts of names; all")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="the build directory")
    parser.add_argument("--seconds", type=float, help="of each slice (0.25)")
    parser.add_argument("--rounds", type=int, help="of a sitting (6)")
    parser.add_argument("--sittings", type=int, help="how often all is started afresh (2)")
    parser.add_argument("--quick", action="store_true",
                        help="one sitting, three rounds, slices of 0.1 s, unless they are given")
    parser.add_argument("--sweep", choices=tuple(SWEEPS))
    parser.add_argument("--services", type=int, help="instead of the rows' own (100)")
    parser.add_argument("--backends", type=int, help="of each service, likewise (100)")
    parser.add_argument("--flows", type=int, help="likewise")
    parser.add_argument("--cpu", type=int, default=(os.cpu_count() or 1) - 1,
                        help="the core that is measured (the last one)")
    parser.add_argument("--main-cpu", type=int, default=0, help="where everything else runs")
    parser.add_argument("--no-huge", action="store_true", help="in ordinary memory")
    parser.add_argument("--no-references", dest="references", action="store_false",
                        help="without the rows of testpmd's own (io, macswap, 5tswap)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--list", action="store_true", help="the rows' names")
    arguments = parser.parse_args()
    if arguments.sweep:
        arguments.references = False
    for name, quick, usual in (("seconds", 0.1, 0.25), ("rounds", 3, 6), ("sittings", 1, 2)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else usual)
    arguments.wanted = [
        r | {k: getattr(arguments, k) for k in ("services", "backends", "flows")
             if getattr(arguments, k)}
        for r in SWEEPS.get(arguments.sweep, ROWS)
        if any(w in r["name"] for w in arguments.rows) or not (
            arguments.rows or arguments.quick and r["name"] in LONG)]
    if arguments.list:
        return arguments
    if not arguments.wanted:
        parser.error("no row has such a name (--list)")
    if arguments.rounds < 1 or arguments.sittings < 1 or arguments.seconds <= 0:
        parser.error("--rounds and --sittings are at least 1, --seconds above 0")
    if os.geteuid() != 0:
        parser.error("root is needed: DPDK's memory, and cores of one's own")
    if shutil.which(TESTPMD) is None:
        parser.error(f"{TESTPMD} is not installed (tools/setup brings it)")
    if text := missing(arguments.build, *TARGETS):
        parser.error(text)
    return arguments


def main():
    arguments = read_arguments()
    if arguments.list:
        print("\n".join(r["name"] for r in arguments.wanted))
        return 0
    began = time.monotonic()
    wanted = 0 if arguments.no_huge else max(needed_mib(r) for r in arguments.wanted)
    with huge_pages(wanted), Lab("perf") as lab:
        bench = Bench(lab, arguments)
        if free_huge_mib() < wanted:
            print(f"note: there are not {wanted} MiB of free 2 MB pages; figures of many flows suffer")
        if os.getloadavg()[0] > 0.5:
            print(f"note: load {os.getloadavg()[0]:.1f}: somebody else uses this machine; ratios of "
                  "programs that take turns bear it better than rates do")
        try:
            figures, failed = measure(bench, arguments.wanted, lambda text: print(text, flush=True))
        except LabError as error:
            print(f"run.py: {error}", file=sys.stderr)
            return 1
    print()
    show(figures)
    if figures:
        print(f"\n{figures[-1]['conditions']}\n{time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
