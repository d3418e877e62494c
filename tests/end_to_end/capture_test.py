#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""sluice capture while traffic flows, and the commands on DPDK's telemetry socket. The files are
read by scapy and by tshark, neither of which is ours."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.sluice import finish_load  # noqa: E402
from lab.stand import ECHO_PORT, Stand, service, vip4, vip6  # noqa: E402


class Telemetry:
    """DPDK's telemetry socket of the data plane."""

    def __init__(self, balancer):
        path = balancer.run_directory / "dpdk" / "eal" / "dpdk_telemetry.v2"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(5)
        self.sock.connect(str(path))
        self.greeting = json.loads(self.sock.recv(16384))

    def ask(self, command, *parameters):
        self.sock.send(",".join((command, *map(str, parameters))).encode())
        return json.loads(self.sock.recv(16384))[command]


def packets(path):
    """packets() returns [(direction, packet)] of a pcapng file, as scapy and tshark see it."""
    from scapy.layers.l2 import Ether
    from scapy.utils import RawPcapNgReader
    found = []
    for data, meta in RawPcapNgReader(str(path)):
        found.append((getattr(meta, "direction", None), Ether(data)))
    return found


def directions(lab, path):
    """directions() returns tshark's (epb flags, outermost destination, length) per packet."""
    text = lab.run(None, ["tshark", "-r", path, "-T", "fields", "-e", "frame.packet_flags",
                          "-e", "ip.dst", "-e", "ipv6.dst"]).stdout
    rows = []
    for line in text.splitlines():
        flags, v4, v6 = (line.split("\t") + ["", ""])[:3]
        # An inner header's address follows after a comma.
        rows.append((int(flags, 0) & 3, (v4 or v6).split(",")[0]))
    return rows


def telemetry(lab, checks, b, names):
    checks.title("DPDK telemetry")
    t = Telemetry(b)
    checks.check(t.greeting["pid"] == b.dataplane.pid or "version" in t.greeting,
                 "the socket answers", t.greeting)
    known = t.ask("/sluice/help")
    checks.check({f"/sluice/{c}" for c in ("workers", "services", "drops", "ports", "capture")}
                 <= set(known), "/sluice/help names the commands", known)
    checks.check(set(known) <= set(t.ask("/")), "and so does DPDK's own list")
    workers = t.ask("/sluice/workers")
    checks.check(workers["0"]["phase"] == "running" and workers["0"]["forwarded"] > 0,
                 "/sluice/workers", workers)
    one = t.ask("/sluice/workers", 0)
    checks.check(one["forwarded"] >= workers["0"]["forwarded"] and "drop_truncated" in one,
                 "/sluice/workers,0 has every counter", one)
    checks.check("error" in t.ask("/sluice/workers", 7), "there is no worker 7, and it says so")
    services = {s["name"]: s for s in t.ask("/sluice/services").values()}
    shown = {s["name"]: s for s in b.show("stats")["services"]}
    checks.check(set(services) == set(names) and all(
        services[n]["packets"] == shown[n]["packets"] > 0 for n in names),
        "/sluice/services agrees with sluice stats", (services, shown))
    checks.check(t.ask("/sluice/services", names[0])["name"] == names[0], "one by its name")
    checks.check("error" in t.ask("/sluice/services", "nosuch"), "no such service: says so")
    drops = t.ask("/sluice/drops")
    shown = {d["reason"]: d["packets"] for d in b.show("drops")["drops"]}
    checks.check({r: n for r, n in shown.items() if not r.startswith("standin_")} == drops,
                 "/sluice/drops agrees with sluice drops", drops)
    # What the devices have counted is read twice a second.
    wait_until(lambda: t.ask("/sluice/ports")["0"]["rx_packets"], 2, "the device's counters")
    ports = t.ask("/sluice/ports")
    checks.check(ports["0"]["name"] == "up0" and ports["0"]["link_up"] == 1 and
                 ports["0"]["rx_packets"] > 0, "/sluice/ports", ports)
    for wrong in ("nonsense", "start,relative", "start,/nonexistent/x", "start,/tmp/x,service=no",
                  "start,/tmp/x,source=1.2.3", "start,/tmp/x,what=1", "start,/tmp/x,count=0"):
        answer = t.ask("/sluice/capture", wrong)
        checks.check("error" in answer, f"refused: capture {wrong}", answer)
    return t


def one_flow(lab, checks, stand):
    """A capture by 5-tuple: of three connections side by side, one, before and after rewriting."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    checks.title("One flow, by its 5-tuple")
    b, scene = stand.balancer, stand.scene
    for v6, vip in ((False, vip4(10)), (True, vip6(10))):
        client, layer = scene.client_address(v6), IPv6 if v6 else IP

        def at(address, port, v6=v6):
            return f"[{address}]:{port}" if v6 else f"{address}:{port}"

        load = b.start_load(f"flows{vip}", vip, 80, connections=3, rate=90, local_port=40001,
                            duration=60)
        load.wait_for_output("every connection has been answered", 10)
        path = lab.path(f"flow{6 if v6 else 4}.pcapng")
        said = b.show("capture", "--runtime-dir", b.run_directory, "--protocol", "tcp", "--source",
                      at(client, 40002), "--destination", at(vip, 80), "--count", 60, "-w", path)
        report = finish_load(load, stop=True)
        seen = [p for _, p in packets(path)]
        came = [p for p in seen if p[layer].dst == vip]
        left = [p for p in seen if p[layer].dst in {scene.address(n, v6) for n in scene.backends}]
        checks.check(said["written"] == len(seen) == len(came) + len(left) == 60 and
                     abs(len(came) - len(left)) <= 32 and report["requests_failed"] == 0,
                     f"{vip}: {len(came)} packets as they came, {len(left)} as they left", said)
        checks.check(all(p[TCP].sport == 40002 and p[TCP].dport == 80 for p in seen) and
                     all(p[layer].src == client for p in came) and
                     all(p[layer].payload.src == client and p[layer].payload.dst == vip
                         for p in left) and len({p[layer].dst for p in left}) == 1,
                     "all of that flow, and to one backend", [p.summary() for p in seen[:4]])
        pairs = list(zip(came, left))
        checks.check(all(bytes(x[TCP])[:20] == bytes(y[TCP])[:20] for x, y in pairs),
                     "each is there before and after")


def captures(lab, checks, stand, t):
    b, scene = stand.balancer, stand.scene
    runtime = ("--runtime-dir", b.run_directory)
    vip, client = vip4(10), scene.client_address()
    backends = {scene.address(name) for name in scene.backends}

    checks.title("A capture by service, with a count")
    path = lab.path("web.pcapng")
    load = b.start_load("load", vip, 80, connections=5, rate=100, duration=200)
    udp = b.start_load("udp", vip, ECHO_PORT, mode="udp", connections=5, rate=100, duration=200)
    said = b.sluice("capture", *runtime, "--service", "web", "--count", 200, "-w", path).stdout
    checks.check(said == f"200 packets written to {path}\n", said.strip())
    from scapy.layers.inet import IP, TCP
    rows, seen = directions(lab, path), packets(path)
    came = [p for p in seen if p[1][IP].dst == vip]
    left = [p for p in seen if p[1][IP].dst in backends]
    checks.check(len(seen) == len(rows) == 200 and len(came) + len(left) == 200 and
                 abs(len(came) - len(left)) <= 64 and
                 all(p[IP].payload.dst == vip and p[IP].proto == 4 and p[TCP].dport == 80
                     for _, p in left) and
                 all(p[IP].src == client and p[TCP].dport == 80 for _, p in came),
                 f"{len(came)} as the client sent them, {len(left)} encapsulated to a backend")
    checks.check(all((flags == 1) == (to == vip) for flags, to in rows),
                 "the direction of each is in the file", rows[:5])
    whole = [p for _, p in came if IP in p and bytes(p[IP].payload)]
    inner = {bytes(p[IP].payload.payload) for _, p in left}
    paired = sum(bytes(p[IP].payload)[:p[IP].len - 20] in inner for p in whole)
    checks.check(paired >= len(came) - 64, f"{paired} of them are there before and after")

    checks.title("By protocol, addresses and time")
    path = lab.path("udp.pcapng")
    began = time.monotonic()
    said = b.show("capture", *runtime, "--protocol", "udp", "--source", f"{client}/32",
                  "--destination", f"{vip}:{ECHO_PORT}", "--seconds", 1, "-w", path)
    took = time.monotonic() - began
    rows = directions(lab, path)
    checks.check(0.9 < took < 3 and said["written"] == len(rows) > 100 and said["missed"] == 0,
                 f"{len(rows)} packets in {took:.1f} s", said)
    checks.check({to for flags, to in rows if flags == 1} == {vip} and
                 {to for flags, to in rows if flags == 2} <= backends, "of that service only")
    came = sum(flags == 1 for flags, _ in rows)
    checks.check(came * 2 == len(rows), "and both sides of each packet")
    path = lab.path("none.pcapng")
    said = b.show("capture", *runtime, "--source", "192.0.2.1", "--seconds", 1, "-w", path)
    checks.check(said["written"] == 0 and directions(lab, path) == [], "nothing fits: an empty file")

    checks.title("More packets than there are copies at a time")
    path = lab.path("many.pcapng")
    many = b.start_load("many", vip, ECHO_PORT, mode="udp", connections=20, rate=2000, duration=60)
    said = b.show("capture", *runtime, "--protocol", "udp", "--count", 9000, "--seconds", 15,
                  "--snap", 64, "-w", path)
    finish_load(many, stop=True)
    checks.check(said["written"] == 9000 and len(directions(lab, path)) == 9000,
                 f"{said['written']} packets, {said['missed']} missed", said)

    checks.title("The end of a capture")
    path = lab.path("stopped.pcapng")
    process = lab.start("edge", "capture", [b.binaries.cli, "--socket", b.socket, "capture", "-w",
                                            path])
    wait_until(lambda: t.ask("/sluice/capture").get("written", 0) > 50 and
               t.ask("/sluice/capture")["running"], 5, "packets in the file")
    second = b.sluice("capture", *runtime, "-w", lab.path("second.pcapng"), check=False)
    checks.check(second.returncode == 1 and "another capture is running" in second.stderr,
                 "a second one is refused", second.stderr)
    process.signal(signal.SIGINT)
    checks.check(process.wait(5) == 0 and "packets written to" in process.output() and
                 len(directions(lab, path)) > 50, "Ctrl-C ends it, and the file is whole",
                 process.tail())
    process = lab.start("edge", "lost", [b.binaries.cli, "--socket", b.socket, "capture", "-w",
                                         lab.path("lost.pcapng")])
    wait_until(lambda: t.ask("/sluice/capture")["running"], 5, "the capture")
    process.kill()
    time.sleep(5.5)  # nobody may ask meanwhile
    status = t.ask("/sluice/capture")
    wait_until(lambda: not t.ask("/sluice/capture")["running"], 2, "the end of it")
    checks.check("nobody asked" in t.ask("/sluice/capture").get("error", ""),
                 "whoever wanted it was killed: it ends by itself", status)
    pipe = lab.path("pipe.pcapng")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    refused = b.sluice("capture", *runtime, "-w", pipe, check=False)
    os.close(reader)
    checks.check(refused.returncode == 1 and "is a pipe" in refused.stderr,
                 "a pipe, which might not be read: refused", refused.stderr)
    full = b.sluice("capture", *runtime, "-w", "/dev/full", check=False)
    checks.check(full.returncode == 1 and "/dev/full" in full.stderr,
                 "a disk that is full: an error", full.stderr)
    for load in (load, udp):
        report = finish_load(load, stop=True)
        checks.check(report["requests_failed"] == 0 and report["backend_changes"] == 0,
                     f"{report['requests_ok']} requests meanwhile, none failed", report)
    wrong = b.sluice("capture", "-w", "x", "--source", "10.0.0", check=False)
    checks.check(wrong.returncode == 2 and "expected IP, IP/LENGTH" in wrong.stderr,
                 "a wrong address is wrong usage", wrong.stderr)
    wrong = b.sluice("capture", "-w", "x", "--runtime-dir", "/nonexistent", check=False)
    checks.check(wrong.returncode == 1 and "--runtime-dir" in wrong.stderr,
                 "no data plane there: says where it looked", wrong.stderr)


def scenario(lab, checks):
    def services(scene):
        return [service(scene, "web", vip4(10)), service(scene, "web6", vip6(10)),
                service(scene, "echo.udp-1", vip4(10), protocol="udp", port=ECHO_PORT)]
    stand = Stand(lab, services, echo=True, workers=2)
    b = stand.balancer
    for vip, port, mode in ((vip4(10), 80, "http"), (vip6(10), 80, "http"),
                            (vip4(10), ECHO_PORT, "udp")):
        b.load(vip, port, mode=mode, connections=5, requests=20)
    names = [s["name"] for s in stand.services]
    captures(lab, checks, stand, telemetry(lab, checks, b, names))
    one_flow(lab, checks, stand)
    codes = b.stop()
    checks.check(codes == (0, 0) and not (b.run_directory / "dpdk").exists(),
                 "both end with 0, and nothing of DPDK's is left", codes)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("capture"), scenario))
