#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where a packet's instructions and cache misses go, by stage of the packet path.

    stages.py build/perf/instructions/scenarios                a table for each row
    stages.py … --only path.ipip.v4.1M --l2 1024 --l3 16384    caches of so many KiB

Callgrind simulates a first-level cache (48 KiB, 12 ways) and one more, first of the size of the L2,
then of the share of the L3 that there is. It knows no prefetching: a line that the path has fetched
in time counts as a miss of the stage that uses it. So the figures say how much memory a stage needs,
not how long it waits; AVX-512 is unknown to it, too.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# The first that matches a function's name has it. What is inlined counts for what it is inlined into.
STAGES = [
    ("frame written (source)", r"perf::|bursts|flow_picker|prepare\(sluice::perf|__memcpy|memset"),
    ("parse, VIP, hash, bucket's address", r"classify|wide[46]<|locate|vip_cache"),
    ("connection: primary bucket", r"find_\w+_first"),
    ("connection: secondary bucket", r"find_\w+_second|look_on"),
    ("hit: state, backend, rewrite, counters", r"::resolve<|hit_slow"),
    ("NAT: session, rewrite, counters", r"translate|nat_table|nat_session"),
    ("new: service, slot of the table", r"::prepare<|fetch_slots|service_cache"),
    ("new: place in the connection table",
     r"flow_map<.*::(insert|renew|choose|replace|remove|make_room|vacate|add_overflow|drop_overflow)"
     r"|vacancy|victim|free_place|any_in"),
    ("new: backend, rewrite, counters", r"resolve_new|enter|count_given_way"),
]
EVENTS = ("Ir", "D1mr", "D1mw", "DLmr", "DLmw")


def stage_of(function):
    return next((name for name, pattern in STAGES if re.search(pattern, function)), "the rest")


def simulate(binary, only, last_kib):
    """simulate() returns, by row and stage, the events per packet; the last-level cache has so many
    KiB."""
    with tempfile.TemporaryDirectory() as directory:
        run = subprocess.run(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes",
             "--D1=49152,12,64", f"--LL={last_kib * 1024},16,64",
             f"--callgrind-out-file={directory}/out", str(binary), "--stages", only],
            capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"{binary}: exit code {run.returncode}\n{run.stderr[-2000:]}")
        packets = {row["name"]: row["packets"]
                   for row in map(json.loads, run.stdout.splitlines()[1:])}
        if not packets:
            sys.exit(f"no row's name contains {only!r}")
        rows = {}
        for dump in Path(directory).glob("out.*"):
            name = re.search(r"^desc: Trigger: Client Request: (\S+)$",
                             dump.read_text(errors="replace")[:2000], re.M)
            if name:
                rows[name[1]] = by_stage(dump, packets[name[1]])
        return {name: rows[name] for name in packets}


def by_stage(dump, packets):
    text = subprocess.run(
        ["callgrind_annotate", "--auto=no", "--threshold=100", f"--show={','.join(EVENTS)}",
         str(dump)], capture_output=True, text=True, check=True).stdout
    stages = {}
    for line in text.splitlines():
        found = re.match(r"\s*((?:(?:[\d,]+|\.)(?: \([ \d.]+%\))?\s+){5})(\S.*)$", line)
        if not found or "PROGRAM TOTALS" in line:
            continue
        numbers = [0 if n == "." else int(n.replace(",", ""))
                   for n in re.sub(r"\([ \d.]+%\)", "", found[1]).split()]
        # FILE:FUNCTION; a file's name has no colon.
        sums = stages.setdefault(stage_of(found[2].split(":", 1)[-1]), [0.0] * len(EVENTS))
        for i, n in enumerate(numbers):
            sums[i] += n / packets
    return stages


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="the built perf/instructions/scenarios")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has TEXT")
    parser.add_argument("--l2", type=int, default=1024, help="KiB (1024)")
    parser.add_argument("--l3", type=int, default=16384,
                        help="KiB (16384; the size of the simulated cache is a power of two)")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed (tools/setup brings it)")
    print("of each packet, callgrind's count; L2", arguments.l2, "KiB, L3", arguments.l3, "KiB")
    near, far = (simulate(arguments.binary, arguments.only, kib)
                 for kib in (arguments.l2, arguments.l3))
    order = [name for name, _ in STAGES] + ["the rest"]
    for row, stages in near.items():
        print(f"\n| `{row}` | instructions | lines not in L1 | not in L2 | not in L3 |")
        print("|---|---|---|---|---|")
        total = [0.0] * 4
        for name in order:
            if name not in stages:
                continue
            ir, d1r, d1w, l2r, l2w = stages[name]
            l3 = sum(far[row].get(name, [0.0] * 5)[3:])
            figures = (ir, d1r + d1w, l2r + l2w, l3)
            if ir < 0.5:
                continue
            if name != order[0]:
                total = [a + b for a, b in zip(total, figures)]
            print(f"| {name} | {ir:.0f} | {d1r + d1w:.2f} | {l2r + l2w:.2f} | {l3:.2f} |")
        print("| **all but the source** | " + f"{total[0]:.0f} | "
              + " | ".join(f"{n:.2f}" for n in total[1:]) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
