#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Instructions per packet of the packet path, counted by callgrind, beside the baseline.

    count.py build/perf/instructions/scenarios                  the table
    count.py … --check                                          fails when a row rose by over 5%
    count.py … --write --because "…"                            makes these figures the baseline
    count.py … --only hit.ipip.v4 --profile                     where the instructions go
"""

import argparse
import json
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

BASELINE = pathlib.Path(__file__).resolve().parent.parent / "baseline.json"
SKIPPED = 77


class Unusable(Exception):
    """The figures cannot be had, or not be compared, here; says why."""


def count(binary, only, directory):
    """Runs the scenarios under callgrind; returns what built them, and instructions by name."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Unusable("valgrind is not installed (tools/setup brings it)")
    run = subprocess.run(
        [valgrind, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={directory}/out",
         str(binary), only], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{binary}: exit code {run.returncode}\n{run.stderr[-2000:]}")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    packets = {row["name"]: row["packets"] for row in lines[1:]}
    code = count_code(binary, only)
    if not packets and not code:
        sys.exit(f"no scenario's name contains {only!r}")
    rows = {}
    dumps = {}
    for dump in pathlib.Path(directory).glob("out.*"):
        head = dump.read_text(errors="replace")[:2000]
        name = re.search(r"^desc: Trigger: Client Request: (\S+)$", head, re.M)
        total = re.search(r"^summary: (\d+)$", head, re.M)
        if name and total:
            rows[name[1]] = round(int(total[1]) / packets[name[1]], 1)
            dumps[name[1]] = dump
    missing = set(packets) - set(rows)
    if missing:
        sys.exit(f"callgrind left no dump of {', '.join(sorted(missing))}")
    return lines[0], {name: rows[name] for name in packets} | code, dumps


# What callgrind cannot execute (AVX-512) is one loop without a branch that is mostly taken: its
# code's length says what it costs. An eighth of it, for one of the eight packets of a turn.
WIDE = {"wide.v4.code": "wide4<false>", "wide.v6.code": "wide6<false>"}


def count_code(binary, only):
    """count_code() returns the instructions of WIDE's functions, by name; none where the processor is
    another."""
    rows = {name: function for name, function in WIDE.items() if only in name}
    if not rows or platform.machine() != "x86_64":
        return {}
    if shutil.which("objdump") is None:
        raise Unusable("objdump is not installed (tools/setup brings it)")
    text = subprocess.run(["objdump", "-dC", "--no-show-raw-insn", str(binary)], capture_output=True,
                          text=True, check=True).stdout
    found = {}
    for block in text.split("\n\n"):
        head = block.partition("\n")[0]
        for name, function in rows.items():
            if f"packet_path::{function}(" in head:
                found[name] = round(len(re.findall(r"^ +[0-9a-f]+:\t(?!nop|data16|cs nop|xchg +%ax,%ax)",
                                                   block, re.M)) / 8, 1)
    missing = set(rows) - set(found)
    if missing:
        sys.exit(f"{binary}: no code for {', '.join(sorted(missing))}")
    return {name: found[name] for name in rows}


def compare(baseline, conditions, rows, everything=True):
    """Returns what is wrong, as lines. Raises Unusable where the baseline says nothing."""
    for key, value in baseline["conditions"].items():
        if conditions.get(key) != value:
            raise Unusable(f"the baseline is for {key} {value}, this is {conditions.get(key)}")
    wrong = []
    for name, now in rows.items():
        tolerance = next((wider for part, wider in baseline.get("wider", {}).items()
                          if part in name), baseline["tolerance"])
        before = baseline["instructions_per_packet"].get(name)
        if before is None:
            wrong.append(f"{name}: not in the baseline")
        elif now > before * (1 + tolerance):
            wrong.append(f"{name}: {now} instructions per packet, {now / before - 1:+.1%} from"
                         f" {before}; at most {tolerance:+.0%} is allowed")
    if everything:
        wrong += [f"{name}: in the baseline, but not measured"
                  for name in baseline["instructions_per_packet"] if name not in rows]
    return wrong


def table(baseline, rows):
    known = baseline["instructions_per_packet"] if baseline else {}
    width = max(map(len, rows)) + 2
    print(f"{'instructions per packet':{width}}{'now':>9}{'baseline':>10}{'':>8}")
    for name, now in rows.items():
        before = known.get(name)
        print(f"{name:{width}}{now:9.1f}" + (f"{before:10.1f}{now / before - 1:+8.1%}"
                                             if before else f"{'-':>10}"))


def profile(dumps):
    for name, dump in dumps.items():
        print(f"\n== {name}", flush=True)
        subprocess.run(["callgrind_annotate", "--auto=no", "--threshold=97", str(dump)], check=False)


def self_test():
    """The comparison must be able to fail, and must not fail for nothing."""
    base = {"conditions": {"compiler": "gcc 1"}, "tolerance": 0.05, "wider": {"wide": 0.5},
            "instructions_per_packet": {"a": 100.0, "b": 200.0}}
    here = {"compiler": "gcc 1", "instruction_set": "avx2"}
    cases = [({"a": 104.9, "b": 150.0}, 0), ({"a": 105.1, "b": 200.0}, 1), ({"a": 100.0}, 1),
             ({"a": 100.0, "b": 200.0, "c": 1.0}, 1), ({"a": 300.0, "b": 300.0}, 2),
             ({"a": 100.0, "b": 200.0, "wide": 149.0}, 0),
             ({"a": 100.0, "b": 200.0, "wide": 151.0}, 1)]
    base["instructions_per_packet"]["wide"] = 100.0
    cases = [({"wide": 100.0, **rows}, expected) for rows, expected in cases]
    for rows, expected in cases:
        if len(compare(base, here, rows)) != expected:
            sys.exit(f"self-test: {rows}: {compare(base, here, rows)}")
    try:
        compare(base, {"compiler": "gcc 2"}, {})
    except Unusable:
        print(f"self-test: {len(cases) + 1} cases hold")
        return 0
    sys.exit("self-test: another compiler was compared")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", help="the built perf/instructions/scenarios")
    parser.add_argument("--baseline", type=pathlib.Path, default=BASELINE)
    parser.add_argument("--check", action="store_true", help="exit code 1 if a row rose; 77: skipped")
    parser.add_argument("--write", action="store_true", help="make these figures the baseline")
    parser.add_argument("--because", help="why the baseline changes (with --write)")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name has TEXT")
    parser.add_argument("--profile", action="store_true", help="instructions by function")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if arguments.binary is None:
        parser.error("which binary?")
    if arguments.write and (arguments.only or not arguments.because):
        parser.error("--write wants all scenarios, and --because with the reason")
    baseline = (json.loads(arguments.baseline.read_text()) if arguments.baseline.exists() else None)
    with tempfile.TemporaryDirectory() as directory:
        try:
            conditions, rows, dumps = count(arguments.binary, arguments.only, directory)
            print(f"{conditions['compiler']}, {conditions['instruction_set']} under callgrind")
            table(baseline, rows)
            if arguments.profile:
                profile(dumps)
            if arguments.write:
                arguments.baseline.write_text(json.dumps(
                    {"conditions": conditions, "tolerance": 0.05,
                     "wider": (baseline or {}).get("wider", {}), "because": arguments.because,
                     "instructions_per_packet": rows}, indent=2) + "\n")
                print(f"written: {arguments.baseline}")
            elif arguments.check:
                if baseline is None:
                    sys.exit(f"{arguments.baseline}: there is no baseline")
                wrong = compare(baseline, conditions, rows, not arguments.only)
                if wrong:
                    print("\n" + "\n".join(wrong) + "\n\nIf this is meant to be, change the baseline"
                          " in the same commit, and say why:\n  perf/instructions/count.py"
                          f" {arguments.binary} --write --because \"…\"", file=sys.stderr)
                    return 1
        except Unusable as why:
            print(f"skipped: {why}", file=sys.stderr)
            return SKIPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
