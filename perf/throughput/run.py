#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Packets per second of one worker of sluice-dataplane, beside dpdk-testpmd on the same core.

Both run over a net_null port whose packets a preloaded source writes (flow_source.cpp): every
program gets the same flows, and is measured by the same clock. They take turns, round by round;
medians, the lowest and the highest of the rounds are shown, and the median of the rounds' ratios.
Root; a core that nobody else uses. Nothing but this machine's memory and CPU is touched.

    run.py                          all rows (about 12 minutes)
    run.py --quick                  two rounds of half a second
    run.py path.ipip.v4.1M          rows by name
    run.py --json FILE              one object per figure
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402

TESTPMD = "dpdk-testpmd"
K, M = 1000, 1000 * 1000


def row(name, flows, traffic="hits", mode="ipip", v6=False, connections=None, **more):
    return {"name": name, "flows": flows, "traffic": traffic, "mode": mode, "v6": v6,
            "connections": connections or max(flows, 1024), "reference": "csum", **more}


ROWS = [
    row("path.ipip.v4.1flow", 1),
    row("path.ipip.v4.1k", K),
    row("path.ipip.v4.100k", 100 * K),
    row("path.ipip.v4.1M", M),
    row("path.ipip.v4.10M", 10 * M),
    row("path.ipip.v6.1M", M, v6=True),
    row("path.dsr-l2.v4.1M", M, mode="dsr-l2"),
    row("path.nat.v4.1M", M, mode="nat", connections=4 * M),
    row("path.new_flows", M, traffic="opening", warm=3 * M),
    # More handshakes than there is room for, so that every bucket is full.
    row("path.synflood", 2 * M, traffic="flood", connections=M),
    row("scaling.2workers", M, workers=2, reference="1worker"),
]
# What the reference itself is made of, in the same run.
TESTPMD_ROWS = [("testpmd.null", "io", "none"), ("testpmd.io", "io", "random"),
                ("testpmd.macswap", "macswap", "random"), ("testpmd.5tswap", "5tswap", "random"),
                ("testpmd.csum", "csum", "random")]


def free_huge_mib():
    path = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    return 2 * int(path.read_text()) if path.exists() else 0


class Bench:
    def __init__(self, lab, arguments):
        self.lab, self.arguments = lab, arguments
        self.build = Path(arguments.build).resolve()
        self.huge = not arguments.no_huge and free_huge_mib() >= 256
        self.count = 0

    def source(self, r, traffic, result):
        v6 = 1 if r["v6"] else 0
        text = (f"traffic={traffic} flows={r['flows']} services={self.arguments.services} v6={v6} "
                f"seconds={self.arguments.seconds} warm={r.get('warm', M)} result={result}")
        return {"SLUICE_SOURCE": text,
                "LD_PRELOAD": str(self.build / "perf" / "throughput" / "libflow_source.so")}

    def result(self, process, path, queues):
        """result() waits for the source's own figures; returns millions of packets a second."""
        files = [Path(f"{path}.{q}") for q in range(queues)]

        def there():
            if not process.running():
                raise LabError(f"{process.name} ended with {process.popen.returncode}:\n"
                               f"{process.tail()}")
            return all(f.exists() for f in files)
        wait_until(there, self.arguments.seconds + 120, f"figures of {process.name}")
        figures = [json.loads(f.read_text()) for f in files]
        for f in files:
            f.unlink()
        return sum(f["packets"] / f["seconds"] for f in figures) / 1e6

    def testpmd(self, mode, r, traffic):
        self.count += 1
        path = self.lab.path("testpmd", "result")
        size = 74 if r["v6"] else 60
        memory = ["--in-memory"] if self.huge else ["--no-huge", "-m", "256", "--no-shconf"]
        process = self.lab.start(
            None, f"testpmd{self.count}",
            [TESTPMD, "--lcores", f"0@{self.arguments.main_cpu},1@{self.arguments.cpu}", *memory,
             "--no-pci", "--no-telemetry", "--log-level=error", f"--file-prefix=perf{os.getpid()}",
             f"--vdev=net_null0,size={size}", "--", f"--forward-mode={mode}", "--nb-cores=1",
             "--port-topology=loop", "--total-num-mbufs=16384", "--no-lsc-interrupt"],
            env=self.source(r, traffic, path), stdin=subprocess.PIPE)
        try:
            return self.result(process, path, 1)
        finally:
            process.popen.stdin.close()  # testpmd ends with its input
            end(process)

    def services(self, r):
        a = self.arguments
        lines = ["services:"]
        for s in range(a.services):
            vip = f"'2001:db8:f::{s:x}'" if r["v6"] else f"198.18.{s >> 8}.{s & 255}"
            lines += [f"  - name: s{s}", f"    address: {vip}", "    protocol: tcp",
                      "    port: 80", f"    forward: {r['mode']}", "    backends:"]
            for b in range(a.backends):
                n = s * a.backends + b
                address = (f"'2001:db8:2::{n:x}'" if r["v6"] else
                           f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}")
                lines.append(f"      - {{address: {address}}}")
        return "\n".join(lines) + "\n"

    def sluice(self, r, workers=1):
        self.count += 1
        a = self.arguments
        name = f"sluice{self.count}"
        path = self.lab.path("sluice", "result")
        run_dir = self.lab.path(name, "run")
        run_dir.mkdir(mode=0o755)
        node = self.lab.path(name, "node.yaml")
        services = self.lab.path(name, "services.yaml")
        services.write_text(self.services(r))
        cpus = [a.cpu] if workers == 1 else [a.cpu, a.main_cpu]
        size = 74 if r["v6"] else 60
        node.write_text(
            f"node: {{name: t, runtime-dir: {run_dir}}}\n"
            f"dataplane:\n  workers: [{', '.join(map(str, cpus))}]\n  idle: busy\n"
            f"  hugepages: {'auto' if self.huge else 'off'}\n  connections: {r['connections']}\n"
            "  encap-source: {ipv4: 192.0.2.10, ipv6: '2001:db8:9::1'}\n"
            "  next-hop: {up0: '02:00:00:00:00:01'}\n"
            f"  ports: [{{name: up0, device: 'net_null0,size={size}', twin: false}}]\n")
        tool = self.build / "tests" / "end_to_end" / "plane_tool"
        self.lab.run(None, [tool, "publish", node, services])
        process = self.lab.start(None, name,
                                 [self.build / "dataplane" / "sluice-dataplane", "--node", node],
                                 env=self.source(r, r["traffic"], path))
        try:
            rate = self.result(process, path, workers)
            show = json.loads(self.lab.run(None, [tool, "show", node]).stdout)
            self.judge(r, show)
            return rate
        finally:
            end(process)
            shutil.rmtree(run_dir, ignore_errors=True)

    @staticmethod
    def judge(r, show):
        """judge() refuses a figure of something else than its name says."""
        counters = {}
        for worker in show["workers"]:
            for key, value in worker.get("counters", {}).items():
                counters[key] = counters.get(key, 0) + value
        received, sent = counters.get("rx_packets", 0), counters.get("tx_packets", 0)
        hits = counters.get("connection_hits", 0)
        # Between two counters that are read while they are written a burst may be missing.
        if sent < 0.999 * received:
            drops = {k: v for k, v in counters.items() if k.startswith("drop_")}
            raise LabError(f"{r['name']}: {received} packets in, {sent} out; {drops}")
        if r["traffic"] == "hits" and hits + r["flows"] * 2.2 * len(show["workers"]) < received:
            raise LabError(f"{r['name']}: {hits} hits of {received} packets")
        if r["traffic"] == "opening" and counters.get("connections_opened", 0) < 0.99 * received:
            raise LabError(f"{r['name']}: {counters}")


def end(process):
    if process.running():
        process.signal(signal.SIGINT)
    try:
        process.wait(20)
    except LabError:
        process.kill()


def describe(values):
    return {"value": round(statistics.median(values), 3), "lowest": round(min(values), 3),
            "highest": round(max(values), 3)}


def cpu_model():
    lines = Path("/proc/cpuinfo").read_text().split("\n")
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                "unknown")


def conditions(bench):
    return {"cpu": cpu_model(), "core": bench.arguments.cpu, "cores": os.cpu_count(),
            "memory": "2 MB pages" if bench.huge else "4 KB pages",
            "rounds": bench.arguments.rounds, "seconds": bench.arguments.seconds,
            "services": bench.arguments.services, "backends": bench.arguments.backends,
            "kernel": os.uname().release, "load": round(os.getloadavg()[0], 1),
            "build": build_type(bench.build)}


def build_type(build):
    options = build / "meson-info" / "intro-buildoptions.json"
    if not options.exists():
        return "unknown"
    known = {o["name"]: o["value"] for o in json.loads(options.read_text())}
    return f"{known['buildtype']}, -O{known['optimization']} (what runs per packet: -O3)"


def measure(bench, rows, report):
    """measure() goes round by round over all rows, each beside its reference."""
    a = bench.arguments
    kept = {}

    def take(name, value):
        kept.setdefault(name, []).append(value)
        report(f"    {name:24}{value:8.2f} Mpps")
        return value
    ratios = {}
    for number in range(a.rounds):
        report(f"  round {number + 1} of {a.rounds}")
        standard = row("testpmd", M)
        for name, mode, traffic in TESTPMD_ROWS:
            if a.references:
                take(name, bench.testpmd(mode, standard, traffic))
        for r in rows:
            if r.get("workers", 1) > (os.cpu_count() or 1):
                continue
            ours = take(r["name"], bench.sluice(r, r.get("workers", 1)))
            if r["reference"] == "1worker":
                other = bench.sluice(r)
            else:
                other = bench.testpmd(r["reference"], r, "random")
            take(f"{r['name']}/{r['reference']}", other)
            ratios.setdefault(r["name"], []).append(ours / other)
    facts = conditions(bench)
    figures = []
    for name, values in kept.items():
        if "/" in name:
            continue
        figure = {"name": name, "unit": "Mpps", **describe(values), "conditions": facts}
        r = next((r for r in rows if r["name"] == name), None)
        if r:
            others = describe(kept[f"{name}/{r['reference']}"])
            figure |= {"reference": "one worker" if r["reference"] == "1worker"
                       else f"testpmd {r['reference']}",
                       "reference_value": others["value"], "reference_lowest": others["lowest"],
                       "reference_highest": others["highest"],
                       "ratio": round(statistics.median(ratios[name]), 3)}
        figures.append(figure)
    return figures


def show(figures):
    print(f"{'Mpps on one core':24}{'median':>8}{'lowest':>8}{'highest':>8}"
          f"   {'reference':16}{'median':>8}{'ratio':>8}")
    for f in figures:
        line = f"{f['name']:24}{f['value']:8.2f}{f['lowest']:8.2f}{f['highest']:8.2f}"
        if "reference" in f:
            line += f"   {f['reference']:16}{f['reference_value']:8.2f}{f['ratio']:8.2f}"
        print(line)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names, or parts of names; all")
    parser.add_argument("--build", default=ROOT / "build", help="the build directory")
    parser.add_argument("--seconds", type=float, help="of each measurement (2)")
    parser.add_argument("--rounds", type=int, help="(5)")
    parser.add_argument("--quick", action="store_true",
                        help="two rounds of half a second, unless they are given")
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--backends", type=int, default=100, help="of each service")
    parser.add_argument("--cpu", type=int, default=(os.cpu_count() or 1) - 1,
                        help="the core that is measured (the last one)")
    parser.add_argument("--main-cpu", type=int, default=0, help="where everything else runs")
    parser.add_argument("--no-huge", action="store_true", help="in ordinary memory")
    parser.add_argument("--no-references", dest="references", action="store_false",
                        help="without the rows of testpmd's own (io, macswap, 5tswap)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--list", action="store_true", help="the rows' names")
    arguments = parser.parse_args()
    rows = [r for r in ROWS if not arguments.rows or any(w in r["name"] for w in arguments.rows)]
    if arguments.list:
        print("\n".join(r["name"] for r in rows))
        return 0
    if not rows:
        parser.error("no row has such a name (--list)")
    if arguments.rounds is None:
        arguments.rounds = 2 if arguments.quick else 5
    if arguments.seconds is None:
        arguments.seconds = 0.5 if arguments.quick else 2.0
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("--rounds and --seconds are at least 1 and above 0")
    if os.geteuid() != 0:
        parser.error("root is needed: DPDK's memory, and cores of one's own")
    if shutil.which(TESTPMD) is None:
        parser.error(f"{TESTPMD} is not installed (tools/setup brings it)")
    needed = ["perf/throughput/libflow_source.so", "dataplane/sluice-dataplane",
              "tests/end_to_end/plane_tool"]
    for name in needed:
        if not (Path(arguments.build) / name).exists():
            parser.error(f"{arguments.build}/{name} is not built: ninja -C {arguments.build} "
                         + " ".join(needed))
    began = time.monotonic()
    with Lab("perf") as lab:
        bench = Bench(lab, arguments)
        if not bench.huge:
            print("note: 4 KB pages" + ("" if arguments.no_huge else
                  ", for there are not 256 MiB of free 2 MB pages; figures of many flows suffer"))
        if os.getloadavg()[0] > 0.5:
            print(f"note: load {os.getloadavg()[0]:.1f}: somebody else uses this machine; the "
                  "figures are good for nothing but to see that this works")
        try:
            figures = measure(bench, rows, lambda text: print(text, flush=True))
        except LabError as error:
            print(f"run.py: {error}", file=sys.stderr)
            return 1
    print()
    show(figures)
    print(f"\n{conditions(bench)}\n{time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
