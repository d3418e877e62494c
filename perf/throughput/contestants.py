# SPDX-License-Identifier: Apache-2.0
"""sluice-dataplane and dpdk-testpmd over a port that flow_source.cpp feeds, alive at the same
time on the same core, taking turns: whoever has none is held in the source's callback.

A slice's rate is by the source's own count, per second that its thread has had the core: what
other processes take of it makes the slice longer and the rate no lower, but for the caches.
"""

import json
import os
import select
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from lab.process import LabError
from lab.sluice import fnv1a
from machine import TESTPMD, end

# Memory of NAT sessions comes as they do, from housekeeping: who opens more in a second is refused.
NAT_PACE = 1000 * 1000


class Fifos:
    """One queue's turns and slices (flow_source.cpp)."""

    def __init__(self, stem):
        ends = []
        for what in ("turn", "slice"):
            path = f"{stem}.{what}"
            os.mkfifo(path)
            # Both directions: neither side waits for the other to open it.
            ends.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        self.turn, self.slice = ends
        self.unread = b""

    def close(self):
        for descriptor in (self.turn, self.slice):
            os.close(descriptor)

    def line(self, timeout):
        """line() returns what the source has said, or None."""
        if b"\n" not in self.unread and select.select([self.slice], [], [], timeout)[0]:
            self.unread += os.read(self.slice, 4096)
        if b"\n" not in self.unread:
            return None
        text, self.unread = self.unread.split(b"\n", 1)
        return text.decode()


class Contestant:
    """A process that is measured. What it is, its subclass says."""

    def __init__(self, bench, name, queues=1):
        bench.count += 1
        self.bench, self.lab, self.arguments = bench, bench.lab, bench.arguments
        self.name = f"{name}{bench.count}"
        self.label = name
        self.stem = bench.lab.path(self.name, "q")
        self.fifos = [Fifos(f"{self.stem}.{q}") for q in range(queues)]
        self.process = None

    def source(self, r, traffic):
        """source() is the environment that has the program fed with a row's packets."""
        text = (f"flows={r['flows']} services={r['services']} v6={2 if r['v6'] == 'mixed' else int(r['v6'])} "
                f"turns={self.stem}")
        if r.get("capture"):
            # Once round, and every flow is known.
            text += f" traffic=none buffers={r['flows']} warm={2 * r['flows'] + 100_000}"
        else:
            text += f" traffic={traffic} warm={r.get('warm', 100_000)}"
        if r["mode"] in ("nat", "full-nat") and traffic in ("hits", "flood"):
            text += f" pace={NAT_PACE} passes=2"  # the second for who was refused nevertheless
        library = self.bench.build / "perf" / "throughput" / "libflow_source.so"
        return {"SLUICE_SOURCE": text, "LD_PRELOAD": str(library)}

    def hear(self, timeout):
        """hear() returns a line of each queue."""
        deadline = time.monotonic() + timeout
        lines = []
        for fifo in self.fifos:
            while (line := fifo.line(0.2)) is None:
                if not self.process.running():
                    raise LabError(f"{self.name} ended with {self.process.popen.returncode}:\n"
                                   f"{self.process.tail()}")
                if time.monotonic() > deadline:
                    raise LabError(f"waited {timeout:g} s for {self.name}:\n{self.process.tail()}")
            lines.append(line)
        return lines

    def wait_until_ready(self):
        # A large capture takes its time to be read.
        if any(line != "ready" for line in self.hear(180)):
            raise LabError(f"{self.name}: a slice before it was ready")

    def measure(self, warm, seconds):
        """measure() gives it a turn; returns Mpps and the part of the core that others took."""
        for fifo in self.fifos:
            os.write(fifo.turn, f"{warm} {seconds}\n".encode())
        rate, taken = 0.0, 0.0
        for line in self.hear(60 + 10 * (warm + seconds)):
            packets, wall, cpu = map(float, line.split())
            # Clocks that are read one after the other: a slice is never shorter than its CPU time.
            rate += packets / min(wall, max(cpu, 1e-9)) / 1e6
            taken = max(taken, 1 - min(1.0, cpu / wall))
        return rate, taken

    def judge(self):
        """judge() refuses figures of something else than the row says."""

    def close(self):
        for fifo in self.fifos:
            fifo.close()  # lets go of who is held
        if self.process:
            end(self.process)


class Testpmd(Contestant):
    """dpdk-testpmd in a forwarding mode."""

    def __init__(self, bench, mode, r, traffic):
        super().__init__(bench, f"testpmd-{mode}")
        memory = (["--in-memory"] if bench.huge else
                  ["--no-huge", "-m", str(256 + captured_mib(r)), "--no-shconf"])
        self.process = self.lab.start(
            None, self.name,
            [TESTPMD, "--lcores", f"0@{self.arguments.main_cpu},1@{self.arguments.cpu}", *memory,
             "--no-pci", "--no-telemetry", "--log-level=error",
             f"--file-prefix={self.lab.name}{self.name}", f"--vdev={device_of(bench, r)}", "--",
             f"--forward-mode={mode}", "--nb-cores=1", "--port-topology=loop",
             "--total-num-mbufs=16384", "--no-lsc-interrupt", "--no-flush-rx"],
            env=self.source(r, traffic), stdin=subprocess.PIPE)

    def close(self):
        # With its input it ends by itself.
        self.process.popen.stdin.close()
        super().close()


class Sluice(Contestant):
    """sluice-dataplane with tables that the control plane's library has published."""

    def __init__(self, bench, r, label="sluice"):
        workers = r.get("workers", 1)
        super().__init__(bench, "sluice", workers)
        self.label = label
        a = self.arguments
        self.row = r
        self.run_directory = runtime_directory(self.lab)
        self.node = self.lab.path(self.name, "node.yaml")
        listed = self.lab.path(self.name, "services.yaml")
        listed.write_text(services(r))
        cpus = [a.cpu] if workers == 1 else [a.cpu, a.main_cpu]
        number = r["services"]
        self.node.write_text(
            f"node: {{name: t, runtime-dir: {self.run_directory}}}\n"
            f"controlplane: {{limits: {{services: {max(4096, number)}, "
            f"backends: {max(65536, number * r['backends'])}, "
            f"table-memory: {table_memory(r)}}}}}\n"
            f"dataplane:\n  workers: [{', '.join(map(str, cpus))}]\n  idle: busy\n"
            f"  hugepages: {'auto' if bench.huge else 'off'}\n  connections: {r['connections']}\n"
            "  encap-source: {ipv4: 192.0.2.10, ipv6: '2001:db8:9::1'}\n"
            + (f"  memory: {192 + captured_mib(r)}\n" if r.get("capture") else "")
            + "  next-hop: {up0: '02:00:00:00:00:01'}\n"
            f"  ports: [{{name: up0, device: '{device_of(bench, r)}', twin: false}}]\n")
        self.tool = bench.build / "tests" / "end_to_end" / "plane_tool"
        self.lab.run(None, [self.tool, "publish", self.node, listed], timeout=120)
        self.process = self.lab.start(
            None, self.name, [bench.build / "dataplane" / "sluice-dataplane", "--node", self.node],
            env=self.source(r, r["traffic"]))

    def wait_until_ready(self):
        super().wait_until_ready()
        self.before = self.counters()

    def counters(self):
        """counters() are the sums over the workers since it started."""
        show = json.loads(self.lab.run(None, [self.tool, "show", self.node]).stdout)
        total = {}
        for worker in show["workers"]:
            for key, value in worker.get("counters", {}).items():
                total[key] = total.get(key, 0) + value
        return total

    def judge(self):
        now = self.counters()
        did = {k: v - self.before.get(k, 0) for k, v in now.items()}
        received = did.get("rx_packets", 0)
        # What a worker counts it shows a little later.
        enough = 0.995 * received
        wanted = {"hits": "connection_hits", "opening": "connections_opened"}.get(
            self.row["traffic"], "tx_packets")
        if received == 0 or did.get("tx_packets", 0) < enough or did.get(wanted, 0) < enough:
            raise LabError(f"{self.row['name']}: of {received} packets: "
                           f"{ {k: v for k, v in did.items() if v} }")

    def close(self):
        super().close()
        shutil.rmtree(self.run_directory, ignore_errors=True)
        for file in kept_files(self.run_directory):
            Path(file).unlink(missing_ok=True)


class Republished:
    """A Sluice that is there already, whose services are all published anew in each of its slices,
    with other weights: beside it without. The publisher has the other core."""

    def __init__(self, sluice):
        self.sluice, self.label, self.count, self.late = sluice, "republished", 0, 0
        self.files = [sluice.lab.path(sluice.name, f"services{n}.yaml") for n in (0, 1)]
        for file, weight in zip(self.files, (50, 100)):
            file.write_text(services(sluice.row, weight))

    def wait_until_ready(self):
        pass

    def measure(self, warm, seconds):
        s = self.sluice
        command = ["taskset", "-c", s.arguments.main_cpu, s.tool, "again", s.node,
                   self.files[self.count % 2]]
        self.count += 1
        publisher = s.lab.start(None, f"publisher{self.count}", command)
        measured = s.measure(warm, seconds)
        self.late += publisher.running()
        while publisher.running():  # it may wait for the worker
            s.measure(0, 0.1)
        if publisher.wait() != 0:
            raise LabError(f"publishing again:\n{publisher.tail()}")
        return measured

    def judge(self):
        """judge() refuses slices that were over before half of them were published in."""
        if self.late > self.count / 2:
            raise LabError(f"{self.late} of {self.count} slices were over before all was published: "
                           "--seconds is too short for this machine")

    def close(self):
        pass


def device_of(bench, r):
    if r.get("capture"):
        return f"net_pcap0,rx_pcap={capture_of(bench, r)},infinite_rx=1"
    return f"net_null0,size={74 if r['v6'] else 60}"


def captured_mib(r):
    """captured_mib() is what a row's capture takes in packet buffers."""
    return r["flows"] * 512 >> 20 if r.get("capture") else 0


def capture_of(bench, r):
    """capture_of() returns a capture of one established packet of each flow, made once."""
    path = bench.lab.path(f"{r['flows']}-{r['services']}.pcap")
    if path.exists():
        return path
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        ethernet = struct.pack("<IIII", 0, 0, 60, 60) + bytes.fromhex("020000000000020000000001" "0800")
        begin = bytes.fromhex("4500002800000000" "4006")
        sum_of_begin = sum(struct.unpack("!5H", begin))
        rest = struct.pack("!HIIBBHHH6x", 80, 0, 0, 0x50, 0x10, 0, 0, 0)
        for flow in range(r["flows"]):
            # The flows of flow_frames.hpp.
            source = 0x0a000000 | flow & 0xffffff
            to = 0xc6120000 | (flow * 0x9e3779b1 & 0xffffffff) * r["services"] >> 32
            total = (sum_of_begin + (source >> 16) + (source & 0xffff) + (to >> 16) + (to & 0xffff))
            total = (total & 0xffff) + (total >> 16)
            total = (total & 0xffff) + (total >> 16)
            out.write(ethernet + begin + struct.pack(
                "!HIIH", ~total & 0xffff, source, to, 0x8000 | flow >> 24 & 0x1f) + rest)
    return path


def table_memory(r):
    """table_memory() is what the Maglev tables may take, in MiB: two generations of them."""
    return max(512, r["services"] * r.get("table_size", 65537) * 2 * 3 >> 20)


def kept_files(run_directory):
    """kept_files() are what a data plane leaves for the next one outside its directory."""
    return [f"/dev/hugepages/sluice-{fnv1a(str(run_directory))}.{what}.{worker}"
            for worker in range(2) for what in ("connections", "nat")]


def runtime_directory(lab):
    """runtime_directory() makes one in memory, as /run is: sessions of NAT are in a file there,
    and pages of a disk's file are written back."""
    shm = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix=f"sluice-{lab.name}-",
                                 dir=shm if os.access(shm, os.W_OK) else lab.directory))
    path.chmod(0o755)
    lab.state.add("directories", str(path))
    for file in kept_files(path):
        lab.state.add("files", file)
    return path


def service(r, v6, s, weight):
    """service() is one of services()' entries."""
    vip = f"'2001:db8:f::{s:x}'" if v6 else f"198.{18 + (s >> 16)}.{s >> 8 & 255}.{s & 255}"
    lines = [f"  - name: {'six' if v6 else 's'}{s}", f"    address: {vip}", "    protocol: tcp",
             "    port: 80", f"    forward: {r['mode']}"]
    if "table_size" in r:
        lines.append(f"    table-size: {r['table_size']}")
    lines.append("    backends:")
    for n in range(s * r["backends"], (s + 1) * r["backends"]):
        address = (f"'2001:db8:2::{n >> 16:x}:{n & 0xffff:x}'" if v6 else
                   f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}")
        special = f", weight: {weight}" if n % r["backends"] == 0 and weight != 100 else ""
        lines.append(f"      - {{address: {address}{special}}}")
    return lines


def services(r, weight=100):
    """services() is a row's services.yaml; weight: of the first backend of each service."""
    lines = ["services:"]
    for v6 in (False, True) if r["v6"] == "mixed" else (r["v6"],):
        for number in range(r["services"]):
            lines += service(r, v6, number, weight)
    return "\n".join(lines) + "\n"
