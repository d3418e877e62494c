#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where a packet's time goes in a running sluice-dataplane, by stage of the packet path.

    where.py path.ipip.v4.1k path.synflood       a table of ns per packet, a column for each row

The rows are run.py's, as are --build, --cpu and --main-cpu. `perf record` (Debian's linux-perf) takes
samples by the CPU's clock while the row has its turn: no hardware counters are needed, and what the
processor does is what is seen, other than with perf/instructions/stages.py (AVX-512, prefetching, what
waits for memory). Where instructions retire together a sample may fall on the next function. Root.
"""

import argparse
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "perf" / "instructions")]

import run  # noqa: E402
from lab.lab import Lab  # noqa: E402
from machine import huge_pages, missing  # noqa: E402
from stages import STAGES  # noqa: E402

SECONDS = 4
# Of what is not the path, in front: the first that matches has it.
AROUND = [
    ("frame written (source)", r"on_receive|source::|flow_frames"),
    ("worker: mbufs, queues", r"sluice::worker::"),
]
KERNEL = "the kernel, neighbours"
REST = "DPDK: net_null, buffers"


def stage_of(symbol):
    if symbol.startswith("[k]"):
        return KERNEL
    return next((name for name, pattern in AROUND + STAGES if re.search(pattern, symbol)),
                "the rest" if "sluice::" in symbol else REST)


def shares(data):
    """shares() returns the percentages of a record, by stage."""
    report = subprocess.run(
        ["perf", "report", "-i", str(data), "--no-children", "--stdio", "--sort", "symbol"],
        capture_output=True, text=True, check=True).stdout
    out = {}
    for line in report.splitlines():
        if match := re.match(r"\s+([\d.]+)%\s+(\[.\] .*)$", line):
            stage = stage_of(match[2])
            out[stage] = out.get(stage, 0) + float(match[1])
    return out


def sample(bench, row):
    """sample() runs a row; returns ns per packet by stage, and Mpps."""
    bench.choose_memory(row)
    contestant = run.Sluice(bench, row)
    try:
        contestant.wait_until_ready()
        data = bench.lab.path(contestant.name, "perf.data")
        result = []
        turn = threading.Thread(
            target=lambda: result.append(contestant.measure(0.5, SECONDS + 1.5)))
        turn.start()
        subprocess.run(["sleep", "0.7"], check=True)  # the part that is not counted
        recorded = subprocess.run(
            ["perf", "record", "-q", "-e", "cpu-clock", "-F", "8000", "-p",
             str(contestant.process.popen.pid), "-o", str(data), "sleep", str(SECONDS)],
            capture_output=True, text=True, check=False)
        turn.join()
        if recorded.returncode != 0:
            sys.exit(f"where.py: perf record: {recorded.stderr.strip()}")
        rate = result[0][0]
        part = shares(data)
        # Other threads of the process, and what the kernel does for neighbours, are not the packet's.
        part.pop(KERNEL, None)
        whole = sum(part.values())
        return {stage: p / whole * 1000 / rate for stage, p in part.items()}, rate
    finally:
        contestant.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", metavar="ROW", help="as run.py --list names them")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="the build directory")
    parser.add_argument("--cpu", type=int, default=1, help="the core that is measured (1)")
    parser.add_argument("--main-cpu", type=int, default=0, help="where everything else runs (0)")
    arguments = parser.parse_args()
    if shutil.which("perf") is None:
        parser.error("perf is not installed (Debian: linux-perf)")
    if text := missing(arguments.build, *run.TARGETS):
        parser.error(text)
    known = {r["name"]: r for r in run.ROWS if not r.get("workers")}
    if unknown := [name for name in arguments.rows if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}")
    rows = [known[name] for name in arguments.rows]
    arguments.no_huge, arguments.seconds = False, SECONDS
    columns = []
    with huge_pages(max(map(run.needed_mib, rows))), Lab("perf") as lab:
        bench = run.Bench(lab, arguments)
        for row in rows:
            print(f"  {row['name']}", file=sys.stderr, flush=True)
            columns.append(sample(bench, row))
    order = list(dict.fromkeys(name for name, _ in STAGES + AROUND[1:])) + ["the rest", REST]
    print("| ns per packet | " + " | ".join(f"`{r['name']}`" for r in rows) + " |")
    print("|---|" + "---|" * len(rows))
    for stage in order:
        if any(stage in spent for spent, _ in columns):
            print(f"| {stage} | " + " | ".join(
                f"{spent[stage]:.1f}" if stage in spent else "" for spent, _ in columns) + " |")
    print("| **all** | " + " | ".join(f"{1000 / rate:.1f}" for _, rate in columns) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
