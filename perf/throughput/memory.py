#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What memory a running sluice-dataplane takes, with the standard mix: 100 services of 100 backends,
a million IPv4 connections, and the services published anew, so that two generations are there.

    memory.py                    two figures; some seconds
    memory.py --json FILE        one object per figure

memory.connection is the IPv4 part of the connection table's file, all included, by the connections
that are in it. memory.rest is what the process has for itself in memory (anonymous, shared, huge
pages) beside that file, whose IPv6 part is empty here: packet buffers, tables, counters. Pages of
programs and libraries, which are the page cache's and the kernel's to drop, are not in it; `parts_mb`
in the conditions tells them (`code`), and the whole file. Root.
"""

import argparse
import json
import re
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import run  # noqa: E402
from contestants import Republished, Sluice  # noqa: E402
from lab.lab import Lab, LabError  # noqa: E402
from machine import huge_pages, missing  # noqa: E402

MB = 1e6
# What each figure has to be under.
LIMITS = {"memory.connection": 24.0, "memory.rest": 64.0}
ROW = next(r for r in run.ROWS if r["name"] == "publish.rate")


def mappings(pid):
    """mappings() yields the name and the fields, in bytes, of each mapping of a process."""
    name, fields = None, {}
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if begin := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line):
            if fields:
                yield name, fields
            name, fields = begin[1], {}
        elif size := re.match(r"(\w+): +(\d+) kB", line):
            fields[size[1]] = int(size[2]) * 1024
    yield name, fields


def memory_of(pid):
    """memory_of() returns bytes by kind, and where the tables of connections are."""
    kinds = dict.fromkeys(("dpdk", "tables", "counters", "other", "code", "connections"), 0)
    tables = set()
    for name, f in mappings(pid):
        whole = f["Rss"] + f["Private_Hugetlb"] + f["Shared_Hugetlb"]
        if ".connections." in name:
            kinds["connections"] += whole
            tables.add(name)
        elif "config.shm" in name:
            kinds["tables"] += whole
        elif "observations.shm" in name:
            kinds["counters"] += whole
        elif f["Private_Hugetlb"] + f["Shared_Hugetlb"] or "memfd:" in name:
            kinds["dpdk"] += whole
        elif ".so" in name or name.endswith("/sluice-dataplane"):
            # What relocations have changed is the process's own.
            kinds["other"] += f["Anonymous"]
            kinds["code"] += whole - f["Anonymous"]
        else:
            kinds["other"] += whole
    return kinds, sorted(tables)


def ipv4_part(path):
    """ipv4_part() is the bytes of a table of connections before its IPv6 part
    (dataplane/abi/connection_layout.hpp: connection_header)."""
    with open(path, "rb") as file:
        return struct.unpack_from("<QII6Q", file.read(64))[8]


def measure(bench):
    bench.choose_memory(ROW)
    sluice = Sluice(bench, ROW)
    try:
        sluice.wait_until_ready()
        again = Republished(sluice)
        for _ in range(2):
            again.measure(0.1, 0.2)
        kinds, tables = memory_of(sluice.process.popen.pid)
        shown = json.loads(sluice.lab.run(None, [sluice.tool, "show", sluice.node]).stdout)
        tracked = sum(w["tracked"] for w in shown["workers"])  # IPv4, all of them
        if tracked == 0 or len(tables) != len(shown["workers"]):
            raise LabError(f"{tracked} connections in {tables}")
        ipv4 = sum(map(ipv4_part, tables))
    finally:
        sluice.close()
    facts = bench.conditions() | {"flows": ROW["flows"], "services": ROW["services"],
                                  "backends": ROW["backends"], "tracked": tracked}
    rest = sum(v for k, v in kinds.items() if k not in ("code", "connections"))
    parts = {k: round(v / MB, 1) for k, v in kinds.items()}
    return [{"name": "memory.connection", "unit": "B", "value": round(ipv4 / tracked, 2),
             "conditions": facts},
            {"name": "memory.rest", "unit": "MB", "value": round(rest / MB, 1),
             "conditions": facts | {"parts_mb": parts}}]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="the build directory")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="as it is: it takes seconds")
    parser.add_argument("--check", action="store_true", help="a figure too large is an error")
    parser.add_argument("--no-huge", action="store_true", help="in ordinary memory")
    parser.add_argument("--cpu", type=int, default=1, help="the worker's core (1)")
    parser.add_argument("--main-cpu", type=int, default=0, help="where everything else runs (0)")
    arguments = parser.parse_args()
    if text := missing(arguments.build, *run.TARGETS):
        parser.error(text)
    arguments.seconds, arguments.rounds, arguments.sittings = 0.2, 1, 1
    with huge_pages(0 if arguments.no_huge else run.needed_mib(ROW)), Lab("perf") as lab:
        try:
            figures = measure(run.Bench(lab, arguments))
        except LabError as error:
            print(f"memory.py: {error}", file=sys.stderr)
            return 1
    for f in figures:
        print(f"{f['name']:20}{f['value']:8.1f} {f['unit']}")
    print(figures[-1]["conditions"]["parts_mb"])
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    large = [f["name"] for f in figures if f["value"] >= LIMITS[f["name"]]]
    if arguments.check and large:
        print(f"memory.py: too large: {', '.join(large)}; limits: {LIMITS}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
