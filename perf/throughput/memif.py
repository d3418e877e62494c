#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two processes on two cores: traffic (generator and sink) sends over a memif into a running
sluice-dataplane, with its control plane, and takes back what leaves by a second one; or both are
joined by vhost-user, the balancer having the virtio devices.

For each row: what gets through flat out, the highest rate without loss (RFC 2544, bisection), and
the latency at 10, 50 and 90 % of it; beside them the same of dpdk-testpmd in io mode, which only
passes on. Every packet is checked: next hop, outer header, backend of its service and the same
for all of its connection, inner header, order. A packet that is wrong fails the run. Root; two
cores; all in shared memory and a network namespace made for it.

    memif.py                        all rows (about 40 minutes)
    memif.py --quick                trials of 0.2 seconds, losses allowed: does it work
    memif.py memif.ipip.v4.64.1M    rows by name, or part of it
    memif.py --json FILE            one object per figure
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.sluice import Balancer, Binaries  # noqa: E402
from machine import TESTPMD, end, free_huge_mib, machine, missing  # noqa: E402

NEXT_HOP = "02:00:00:00:00:01"
ENCAP_SOURCE = "192.0.2.10"
HUGE_MIB = 384  # both processes and the connection table
SIZES = {"v4.64": [], "v4.imix": ["--imix"], "v6.84": ["--v6"]}  # the smallest that hold a clock
FLOWS = {"1flow": 1, "1k": 1000, "1M": 1000 * 1000}
MODES = ("ipip", "dsr-l2")
LINKS = ("memif", "vhost")
PERCENTILES = ("p50", "p99", "p99.9", "max")


def rows(arguments):
    names = [f"{link}.{arguments.forward}.{size}.{flows}" for link in LINKS for size in SIZES
             for flows in FLOWS if link == "memif" or size != "v4.imix"]
    return [n for n in names if not arguments.rows or any(w in n for w in arguments.rows)]


class Edge:
    """The balancer's host: a namespace without interfaces, for its ports need none."""

    segments = 1
    ports = {}

    def __init__(self, lab):
        self.lab = lab
        lab.namespace("edge")

    @staticmethod
    def edge_address(v6=False, segment=0):
        del segment
        return "2001:db8:9::1" if v6 else ENCAP_SOURCE


class Bench:
    def __init__(self, arguments, report):
        self.arguments, self.report = arguments, report
        self.binaries = Binaries(arguments.build)
        self.huge = not arguments.no_huge and free_huge_mib() >= HUGE_MIB

    def zero_copy(self, row):
        """zero_copy() is the side that lends its buffers: a memif's client can; who has the virtio
        device does."""
        if link_of(row) == "vhost":
            return "balancer"
        return self.arguments.zero_copy if self.huge else "none"

    def serves(self, row):
        """serves() tells whether traffic is the memifs' server, and then starts first."""
        return self.zero_copy(row) != "generator"

    def devices(self, lab, row):
        """devices() are the two ports as the measured program opens them."""
        if link_of(row) == "vhost":
            return [f"net_virtio_user{i},path={lab.path('link.sock')}.{i},"
                    f"queue_size={1 << self.arguments.ring_bits}" for i in (0, 1)]
        role = "client" if self.serves(row) else "server"
        more = ",zero-copy=yes" if self.zero_copy(row) == "balancer" else ""
        return [f"net_memif{i},id={i},role={role},socket={lab.path('link.sock')},"
                f"socket-abstract=no,rsize={self.arguments.ring_bits}{more}" for i in (0, 1)]

    def traffic(self, lab, row, through):
        a = self.arguments
        family, size, flows = row.split(".")[-3:]
        command = [self.binaries.build / "perf" / "throughput" / "traffic",
                   "--link", link_of(row), "--socket", lab.path("link.sock"), "--cpu", a.main_cpu,
                   "--role", "server" if self.serves(row) else "client",
                   "--flows", FLOWS[flows], "--services", a.services, "--backends", a.backends,
                   "--through", through, *SIZES[f"{family}.{size}"],
                   "--trial", a.seconds, "--drain", a.drain, "--loss", a.loss,
                   "--max-rate", a.max_rate, "--resolution", a.resolution, "--tries", a.tries,
                   "--ring-bits", a.ring_bits, "--bucket", a.bucket,
                   "--fractions", ",".join(map(str, a.fractions)),
                   "--json", lab.path("figures.json"), "--stay"]
        if through != "io":
            command += ["--next-hop", NEXT_HOP]
        if not self.serves(row):
            command += ["--zero-copy"]
        if not self.huge:
            command += ["--no-huge"]
        process = lab.start(None, "traffic", command)
        if self.serves(row):
            # A client's port does not start before there is a server.
            last = lab.path("link.sock" + (".1" if link_of(row) == "vhost" else ""))
            wait_until(lambda: last.exists() or not process.running(), 30, "traffic's ports")
            if not process.running():
                raise LabError(process.tail())
        return process

    def follow(self, process, other):
        """follow() shows what traffic says until it is done; returns its figures.

        It keeps its memifs: net_memif of DPDK 22.11 unmaps the rings when the other side goes,
        and who polls them then has a segmentation fault. So `other` must end first."""
        shown = 0
        while True:
            running = process.running()
            lines = process.output().split("\n")[:-1]
            for line in lines[shown:]:
                self.report("    " + line.removeprefix("traffic: "))
            shown = len(lines)
            if not running or "traffic: done" in lines:
                break
            if not other.running():
                raise LabError(f"{other.name} ended with {other.popen.returncode}:\n"
                               f"{other.tail()}")
            time.sleep(0.1)
        if not running:
            raise LabError(f"traffic ended with {process.wait()}:\n{process.tail()}")
        return json.loads(process.lab.path("figures.json").read_text())

    def services(self, row):
        a = self.arguments
        v6 = ".v6." in row

        def vip(s):
            return f"2001:db8:f::{s:x}" if v6 else f"198.18.{s >> 8}.{s & 255}"

        def backend(n):
            return (f"2001:db8:2::{n >> 16:x}:{n & 0xffff:x}" if v6 else
                    f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}")
        return [{"name": f"s{s}", "address": vip(s), "protocol": "tcp", "port": 80,
                 "forward": a.forward,
                 "backends": [{"address": backend(n)}
                              for n in range(s * a.backends, (s + 1) * a.backends)]}
                for s in range(a.services)]

    def sluice(self, row):
        a = self.arguments
        with Lab("memif") as lab:
            ports = [{"name": name, "device": device, "twin": False}
                     for name, device in zip(("in", "out"), self.devices(lab, row))]
            balancer = Balancer(
                Edge(lab), self.binaries, workers=[a.cpu], idle="busy",
                hugepages="on" if self.huge else "off",
                connections=max(1024, FLOWS[row.split(".")[-1]]),
                dataplane={"ports": ports, "next-hop": {"out": NEXT_HOP}}
                | ({"eal-args": ["--single-file-segments"]} if self.huge else {}))
            traffic = self.traffic(lab, row, a.forward) if self.serves(row) else None
            balancer.start()
            balancer.apply(self.services(row))
            traffic = traffic or self.traffic(lab, row, a.forward)
            figures = self.follow(traffic, balancer.dataplane)
            judge(row, figures, balancer.counters())
            end(balancer.dataplane)
            end(balancer.controlplane)
            end(traffic)
            return figures

    def testpmd(self, row):
        a = self.arguments
        with Lab("memif") as lab:
            traffic = self.traffic(lab, row, "io") if self.serves(row) else None
            memory = (["--in-memory", "--single-file-segments"] if self.huge else
                      ["--no-huge", "-m", "128", "--no-shconf"])
            process = lab.start(
                None, "testpmd",
                [TESTPMD, "--lcores", f"0@{a.main_cpu},1@{a.cpu}", *memory, "--no-pci",
                 "--no-telemetry", "--log-level=error", "--iova-mode=va",
                 f"--file-prefix={lab.name}", *(f"--vdev={d}" for d in self.devices(lab, row)), "--",
                 "--forward-mode=io", "--nb-cores=1", "--port-topology=paired",
                 "--total-num-mbufs=16384", "--no-lsc-interrupt", "--disable-link-check"],
                stdin=subprocess.PIPE)
            if not self.serves(row):
                wait_until(lab.path("link.sock").exists, 30, "testpmd's memif")
            traffic = traffic or self.traffic(lab, row, "io")
            figures = self.follow(traffic, process)
            process.popen.stdin.close()  # testpmd ends with its input
            end(process)
            end(traffic)
            return figures


def link_of(row):
    return row.split(".")[0]


def judge(row, figures, counters):
    """judge() refuses figures of something else than established flows."""
    if figures["wrong"]:
        raise LabError(f"{row}: {figures['wrong']} packets came back wrong")
    if figures["flat_out"]["received"] == 0:
        raise LabError(f"{row}: nothing came back: {figures['flat_out']}")
    received, hits = counters["rx_packets"], counters["connection_hits"]
    # Handshakes may have been made three times.
    opening = 6.5 * FLOWS[row.split(".")[-1]] + 10000
    if hits + opening < received:
        raise LabError(f"{row}: {hits} hits of {received} packets")


def rounded(value):
    return None if value is None else round(value, 4)


def figures_of(row, ours, reference, facts):
    """figures_of() returns one object per figure, as perf/run's."""
    def figure(name, unit, value, other):
        out = {"name": f"{row}.{name}", "unit": unit, "value": rounded(value)}
        if reference:
            out |= {"reference": "testpmd io", "reference_value": rounded(other),
                    "ratio": round(value / other, 3) if value and other else None}
        return out | {"conditions": facts | {"limit": ours["limit"]}}
    found = [figure("flat_out", "Mpps", ours["flat_out"]["mpps"],
                    reference and reference["flat_out"]["mpps"]),
             figure("loss_free", "Mpps", ours["loss_free_mpps"],
                    reference and reference["loss_free_mpps"])]
    others = {row["fraction"]: row for row in (reference or {}).get("latency", [])}
    for latency in ours.get("latency", []):
        percent = f"{latency['fraction'] * 100:g}"
        for name in PERCENTILES:
            of_other = others.get(latency["fraction"], {}).get("latency_us", {}).get(name)
            found.append(figure(f"latency{percent}.{name}", "us",
                                latency.get("latency_us", {}).get(name), of_other)
                         | {"loss": latency["loss"]})
    return found


def show(figures):
    print(f"\n{'figure':44}{'value':>10}  unit  {'testpmd io':>10}{'ratio':>8}")
    for f in figures:
        def text(value):
            return "-" if value is None else f"{value:.3f}"
        print(f"{f['name']:44}{text(f['value']):>10}  {f['unit']:5}"
              f"{text(f.get('reference_value')):>11}{text(f.get('ratio')):>8}")


def measure(bench, names, report):
    a = bench.arguments
    facts = machine(bench.binaries.build) | {
        "cores": [a.main_cpu, a.cpu],
        "memory": "2 MB pages" if bench.huge else "4 KB pages", "trial_seconds": a.seconds,
        "loss_allowed": a.loss, "tries": a.tries, "ring": 1 << a.ring_bits, "services": a.services,
        "backends": a.backends}
    figures = []
    for name in names:
        report(f"  {name}")
        ours = bench.sluice(name)
        reference = None
        if a.references:
            report(f"  {name}: testpmd io")
            reference = bench.testpmd(name)
        figures += figures_of(name, ours, reference,
                              facts | {"buffers_of": bench.zero_copy(name)})
    return figures


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names, or parts of names; all")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="the build directory")
    parser.add_argument("--quick", action="store_true",
                        help="trials of 0.2 s, 1 %% of loss allowed, unless they are given")
    parser.add_argument("--seconds", type=float, help="of a trial (2)")
    parser.add_argument("--loss", type=float, help="part of the packets that may be lost (0)")
    parser.add_argument("--resolution", type=float, help="of the search, relative (0.02)")
    parser.add_argument("--tries", type=int, default=3,
                        help="of a rate at which up to 5 %% was lost: somebody was held up (3)")
    parser.add_argument("--max-rate", type=float, default=30, help="Mpps where it begins (30)")
    parser.add_argument("--drain", type=float, default=0.5,
                        help="seconds without a packet that end a trial (0.5)")
    parser.add_argument("--fractions", type=lambda t: [float(f) for f in t.split(",")],
                        default=[0.1, 0.5, 0.9], help="of the rate, for the latency (0.1,0.5,0.9)")
    parser.add_argument("--forward", choices=MODES, default="ipip")
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--backends", type=int, default=100, help="of each service")
    parser.add_argument("--zero-copy", choices=("balancer", "generator", "none"),
                        default="balancer",
                        help="who lends its buffers over memif; the other one copies, both ways")
    parser.add_argument("--ring-bits", type=int, default=10, help="log2 of a ring's slots (10)")
    parser.add_argument("--bucket", type=int, default=256,
                        help="packets that a generator that was held up may send at once (256)")
    parser.add_argument("--cpu", type=int, default=(os.cpu_count() or 1) - 1,
                        help="the core that is measured (the last one)")
    parser.add_argument("--main-cpu", type=int, default=0,
                        help="the generator's and sink's core, and everything else's")
    parser.add_argument("--no-huge", action="store_true", help="in ordinary memory: all is copied")
    parser.add_argument("--no-references", dest="references", action="store_false",
                        help="without testpmd")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--list", action="store_true", help="the rows' names")
    arguments = parser.parse_args()
    for name, quick, usual in (("seconds", 0.2, 2.0), ("loss", 0.01, 0.0),
                               ("resolution", 0.2, 0.02)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else usual)
    if arguments.list:
        return arguments
    if not rows(arguments):
        parser.error("no row has such a name (--list)")
    if os.geteuid() != 0:
        parser.error("root is needed: DPDK's memory, a network namespace, cores of one's own")
    if arguments.references and shutil.which(TESTPMD) is None:
        parser.error(f"{TESTPMD} is not installed (tools/setup brings it)")
    if arguments.cpu == arguments.main_cpu or (os.cpu_count() or 1) < 2:
        parser.error("two cores are needed, --cpu and --main-cpu")
    if text := missing(arguments.build, "perf/throughput/traffic", "dataplane/sluice-dataplane",
                       "controlplane/sluice-controlplane", "tools/cli/sluice"):
        parser.error(text)
    return arguments


def main():
    # A pipe of ours may close early; a lab is taken down by its own handlers.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    arguments = read_arguments()
    if arguments.list:
        print("\n".join(rows(arguments)))
        return 0
    began = time.monotonic()

    def report(text):
        print(text, flush=True)
    bench = Bench(arguments, report)
    if not bench.huge:
        report("note: 4 KB pages, and no zero-copy"
               + ("" if arguments.no_huge else
                  f", for there are not {HUGE_MIB} MiB of free 2 MB pages"))
    if os.getloadavg()[0] > 0.5:
        report(f"note: load {os.getloadavg()[0]:.1f}: somebody else uses this machine; the figures "
               "are good for nothing but to see that this works")
    try:
        figures = measure(bench, rows(arguments), report)
    except LabError as error:
        print(f"memif.py: {error}", file=sys.stderr)
        return 1
    show(figures)
    print(f"\n{figures[0]['conditions']}\n{time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
