#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The data plane's process alone: every kind of port, start, stop, kill -9, and what it makes
of bad tables. plane_tool stands in for the control plane. Root."""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from netns_sockets import packet_socket  # noqa: E402

BUILD = Path(os.environ.get("SLUICE_BUILD",
                            Path(__file__).resolve().parents[2] / "build")).resolve()
DATAPLANE = BUILD / "dataplane" / "sluice-dataplane"
TOOL = BUILD / "tests" / "end_to_end" / "plane_tool"

VIP = "198.51.100.10"
CLIENT = "203.0.113.7"
NEXT_HOP = "02:00:00:00:00:01"
SERVICES = f"""
services:
  - name: web
    address: {VIP}
    protocol: udp
    port: 53
    table-size: 251
    forward: ipip
    backends: [{{address: 10.0.1.11}}, {{address: 10.0.1.12}}]
"""


class Plane:
    """One data plane with a runtime directory of its own."""

    def __init__(self, lab, name, ports, workers="1", idle="sleep", huge="off", short=None,
                 next_hop=True, more=""):
        self.lab, self.name, self.short = lab, name, short
        self.run_dir = lab.path(name, "run")
        self.node = lab.path(name, "node.yaml")
        self.services = lab.path(name, "services.yaml")
        self.services.write_text(SERVICES)
        hop = f"  next-hop: {{{ports[-1][0]}: '{NEXT_HOP}'}}\n" if next_hop else ""
        self.node.write_text(
            f"node: {{name: t, runtime-dir: {self.run_dir}}}\n"
            f"dataplane:\n  workers: {workers}\n  idle: {idle}\n  hugepages: {huge}\n"
            "  connections: 10000\n  encap-source: {ipv4: 192.0.2.10}\n" + hop + more +
            "  ports:\n" +
            "".join(f"    - {{name: {n}, device: '{d}'}}\n" for n, d in ports) +
            "controlplane:\n  limits: {services: 64, backends: 256, table-memory: 8}\n")
        self.process = None

    def start(self, wait=True):
        self.process = self.lab.start(self.short, self.name, [DATAPLANE, "--node", self.node])
        if wait:
            self.process.wait_for_output(" ready: ", 20)
        return self

    def stop(self):
        """stop() ends it for good: SIGTERM would leave what the next start takes over."""
        self.process.signal(signal.SIGINT)
        return self.process.wait(10)

    def tool(self, command, *arguments, check=True):
        return self.lab.run(None, [TOOL, command, self.node, *arguments], check=check)

    def publish(self, command="publish"):
        return int(self.tool(command, self.services).stdout)

    def show(self):
        return json.loads(self.tool("show").stdout)

    def counters(self):
        total = {}
        for worker in self.show()["workers"]:
            for name, value in worker.get("counters", {}).items():
                total[name] = total.get(name, 0) + value
        return total

    def wait_tables(self, number=1):
        wait_until(lambda: all(w["epoch"] >= number for w in self.show()["workers"]), 5,
                   f"generation {number} in all workers of {self.name}")

    def says(self, text):
        return text in self.process.output()


def frame(source_port=1000, destination=VIP, mac="02:00:00:00:00:99", port=53):
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    return Ether(dst=mac, src="02:00:00:00:00:77") / IP(src=CLIENT, dst=destination) / \
        UDP(sport=source_port, dport=port) / b"query"


def tunnelled(packets):
    """tunnelled() returns those that are IP in IP from us to a backend, with the inner ports."""
    from scapy.layers.inet import IP, UDP
    found = []
    for packet in packets:
        if IP in packet and packet[IP].proto == 4 and packet[IP].src == "192.0.2.10" and \
                packet[IP].dst in ("10.0.1.11", "10.0.1.12") and \
                packet[IP].payload.dst == VIP and packet.dst == NEXT_HOP:
            found.append(packet[UDP].sport)
    return sorted(found)


def receive(sock, want, timeout=5.0):
    """receive() reads frames until `want` tunnelled ones have come, or the time is over."""
    from scapy.layers.l2 import Ether
    got, deadline = [], time.monotonic() + timeout
    while len(tunnelled(got)) < want and time.monotonic() < deadline:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            got.append(Ether(sock.recv(4096)))
        except TimeoutError:
            break
    return tunnelled(got)


def usage(lab, checks):
    checks.title("Arguments and errors")
    version = lab.run(None, [DATAPLANE, "--version"]).stdout
    checks.check(version.startswith("sluice-dataplane "), "--version", version)
    checks.check("--node" in lab.run(None, [DATAPLANE, "--help"]).stdout, "--help")
    for arguments in ([], ["--nonsense"], ["--node", "x", "y"]):
        code = lab.run(None, [DATAPLANE, *arguments], check=False).returncode
        checks.check(code == 2, f"wrong usage {arguments} is exit code 2", code)

    def refused(ports, expected, **options):
        plane = Plane(lab, f"refused{len(lab.processes)}-{time.monotonic_ns()}", ports, **options)
        result = lab.run(None, [DATAPLANE, "--node", plane.node], check=False)
        said = result.stderr
        checks.check(result.returncode == 1 and expected in said, f"refused: {expected}", said)

    refused([("up0", "af_xdp:nosuch0")], "there is no network interface nosuch0")
    refused([("up0", "0000:ff:1f.7")], "there is no PCI device 0000:ff:1f.7")
    refused([("up0", "net_nosuch0")], "port up0: net_nosuch0: cannot be opened")
    refused([("up0", "net_pcap0,rx_pcap=/nonexistent.pcap")], "port up0: net_pcap0: cannot be")
    refused([("up0", "net_null0")], "CPU 1000 does not exist", workers="[1000]")
    refused([("up0", "net_null0")], "eal-args", more="  eal-args: 7\n")
    refused([("up0", "net_null0")], "DPDK does not start", more="  eal-args: [--nonsense]\n")

    plane = Plane(lab, "check", [("up0", "net_null0")], workers="auto")
    text = lab.run(None, [DATAPLANE, "--node", plane.node, "--check"]).stdout
    checks.check("worker 0: CPU" in text and "memory:" in text and not plane.run_dir.exists(),
                 "--check tells the plan and makes nothing", text)


def pcap_port(lab, checks, huge):
    from scapy.utils import rdpcap, wrpcap
    checks.title(f"pcap in, pcap out, hugepages: {huge}")
    name = f"pcap-{huge}"
    source, sink = lab.path(name, "in.pcap"), lab.path(name, "out.pcap")
    ports = list(range(2000, 2100))
    frames = [frame(p) for p in ports]
    frames += [frame(1, destination="198.51.100.99"), frame(1, port=54)]
    wrpcap(str(source), frames)
    plane = Plane(lab, name, [("p0", f"net_pcap,rx_pcap={source},tx_pcap={sink}")], huge=huge,
                  workers="2")
    plane.run_dir.mkdir(parents=True)
    plane.publish()  # the tables are there before the data plane
    plane.start()
    try:
        wait_until(lambda: plane.counters().get("rx_packets", 0) == len(frames), 5, "the frames")
        wait_until(lambda: plane.counters().get("tx_packets", 0) == len(ports), 5, "transmission")
    except LabError as error:
        checks.error(f"{error}: {plane.counters()}")
    counters, shown = plane.counters(), plane.show()
    checks.check(counters.get("forwarded") == len(ports) and
                 counters.get("drop_not_for_us") == 1 and
                 counters.get("drop_no_service_port") == 1, "each packet is counted once", counters)
    checks.check(len(shown["workers"]) == 1 and plane.says("1 of 2 planned workers are used"),
                 "a device with one TX queue gets one worker, and it is said", shown)
    checks.check(shown["workers"][0]["tracked"] == len(ports), "the connections are tracked",
                 shown["workers"])
    checks.check((shown["flags"] & 1) == (huge == "on"), "the mode is shown", shown["flags"])
    beat = shown["now_ns"] - shown["workers"][0]["heartbeat_ns"]
    checks.check(beat < 500e6 and shown["alive"], "heartbeat and lock tell that it lives", shown)
    checks.check(plane.stop() == 0, "SIGINT ends it with 0", plane.process.tail())
    sent = tunnelled(rdpcap(str(sink)))
    checks.check(sent == ports, "every packet to the VIP went out, encapsulated", sent)
    left = [p.name for p in plane.run_dir.iterdir() if p.name not in
            ("config.shm", "dataplane.lock")]
    checks.check(not left, "a clean stop leaves no files", left)


def life_and_tables(lab, checks):
    checks.title("Tables that come late, are bad, or change; one per directory; kill -9")
    plane = Plane(lab, "life", [("p0", "net_ring0")]).start()
    checks.check(plane.says("waiting for sluice-controlplane"), "it waits for tables, and says so")
    plane.tool("version", "999")
    plane.process.wait_for_output("layout version 999", 5)
    checks.check(True, "another layout version is refused, with both numbers")
    larger = Plane(lab, "life-larger", [("p0", "net_ring0")])
    larger.node.write_text(plane.node.read_text().replace("services: 64", "services: 128"))
    larger.publish()
    plane.process.wait_for_output("made for 128 services", 5)
    checks.check(True, "more services than there are counters: refused")
    checks.check(plane.publish() == 1, "published")
    plane.wait_tables(1)
    bad = int(plane.tool("spoil").stdout)
    plane.process.wait_for_output("refused: impossible values", 5)
    time.sleep(0.1)
    shown = plane.show()
    checks.check(shown["bad_generations"] == 1 and
                 all(w["epoch"] == bad - 1 for w in shown["workers"]),
                 "a spoilt generation is refused, and not reported as taken up", shown)
    number = plane.publish("publish")  # a new file
    wait_until(lambda: plane.process.output().count("tables attached") == 2, 5, "the new segment")
    plane.wait_tables(number)
    checks.check(plane.publish("again") == number + 1, "the next generation in the new segment")
    plane.wait_tables(number + 1)
    wait_until(lambda: plane.show()["instance"], 5, "the new segment in use by all workers")

    second = lab.run(None, [DATAPLANE, "--node", plane.node], check=False)
    checks.check(second.returncode == 1 and f"pid {plane.process.pid}" in second.stderr,
                 "a second one is refused with the first one's pid", second.stderr)
    old = plane.show()["pid"]
    plane.process.kill()
    checks.check(not plane.show()["alive"], "after kill -9 the lock is free")
    plane.start()
    plane.wait_tables(number + 1)
    checks.check(plane.says("connection table 0: adopted 0 connections"),
                 "and takes the connection table over")
    shown = plane.show()
    checks.check(shown["alive"] and shown["pid"] != old, "it starts again and reads the tables",
                 shown)
    plane.process.signal(signal.SIGSTOP)
    time.sleep(0.2)
    shown = plane.show()
    stale = shown["now_ns"] - shown["workers"][0]["heartbeat_ns"]
    plane.process.signal(signal.SIGCONT)
    checks.check(stale > 100e6, "a stopped process has no heartbeat", stale)
    checks.check(plane.process.stop() == 0, "SIGTERM ends it with 0")
    plane.start()
    checks.check(plane.says("connection table 0: adopted 0 connections"),
                 "what SIGTERM leaves is taken over, too")
    plane.process.stop()
    lab.run(None, [DATAPLANE, "--node", plane.node, "--remove"])
    plane.start()
    checks.check(not plane.says("adopted"), "--remove leaves nothing to take over")
    checks.check(plane.stop() == 0, "it stops", plane.process.tail())


def netdev_port(lab, checks, device, kernel, queues=1, workers="1", idle="sleep", huge="off"):
    """A veth pair: we on one side of it, the data plane on the other."""
    name = f"{kernel.replace('_', '')}{queues}{huge}"
    checks.title(f"{device.format('veth')}: {queues} queue(s), {workers} worker(s), {idle}, "
                 f"hugepages {huge}")
    peer, mine = f"{name}-peer", f"{name}-plane"
    lab.namespace(peer)
    lab.namespace(mine)
    lab.link(peer, "v0", mine, "v1", queues=queues)
    plane = Plane(lab, name, [("up0", device.format("v1"))], short=mine, workers=workers, idle=idle,
                  huge=huge)
    plane.start()
    plane.publish()
    plane.wait_tables()
    if kernel == "af_xdp":
        steer(lab, mine, "v1")
    sock = packet_socket(lab, peer, "v0")
    ports = list(range(3000, 3064))

    def through(what):
        for port in ports:
            sock.send(bytes(frame(port)))
        got = receive(sock, len(ports))
        checks.check(got == ports, f"{len(ports)} packets through {what}",
                     f"{len(got)} came; {plane.counters()}")

    through(device.format("veth"))
    # The kernel tells of a carrier with some delay.
    wait_until(lambda: plane.show()["ports"][0]["link_up"], 5, "the link")
    shown = plane.show()
    port = shown["ports"][0]
    checks.check(port["kernel_name"] == "v1" and port["link_up"] == 1 and port["mtu"] == 1500,
                 "the kernel's interface, link and MTU are shown", port)
    if int(workers) > 1:
        served = [w.get("counters", {}).get("rx_packets", 0) for w in shown["workers"]]
        checks.check(len(served) == int(workers) and all(served), "every worker had packets",
                     f"{served} {port}")
    if kernel == "af_xdp":
        plane.process.kill()
        plane.start()
        checks.check(plane.says("taking over from a data plane that has ended"),
                     "started again after kill -9, it takes the interface over")
        plane.wait_tables()
        through("the port again, with the VIP set as it was")
    checks.check(plane.stop() == 0, "it stops", plane.process.tail())
    link = lab.ip(mine, "link show dev v1")
    checks.check("prog/xdp" not in link, "the interface is left without a program", link)
    sock.close()


def tap_port(lab, checks):
    """The kernel is on the other side of a TAP."""
    checks.title("net_tap")
    lab.namespace("tap")
    plane = Plane(lab, "tap", [("p0", "net_tap,iface=sluicetap")], short="tap", idle="yield")
    plane.start()
    plane.publish()
    plane.wait_tables()
    lab.ip("tap", "link set sluicetap up")
    sock = packet_socket(lab, "tap", "sluicetap")
    for port in range(10):
        sock.send(bytes(frame(4000 + port)))
    got = receive(sock, 10)
    checks.check(got == [4000 + p for p in range(10)], "10 packets came back through the TAP",
                 f"{got} {plane.counters()}")
    checks.check(plane.stop() == 0, "it stops", plane.process.tail())
    sock.close()


def memif_port(lab, checks):
    """testpmd is at the other end of a memif; in by one port, out by another one."""
    checks.title("net_memif to testpmd, out by a second port")
    from scapy.utils import rdpcap, wrpcap
    path, sink = lab.path("memif", "memif.sock"), lab.path("memif", "out.pcap")
    source = lab.path("memif", "in.pcap")
    wrpcap(str(source), [frame(5000 + p) for p in range(20)])
    plane = Plane(lab, "memif", [
        ("m0", f"net_memif,role=server,socket={path},socket-abstract=no"),
        ("out", f"net_pcap,tx_pcap={sink}")], huge="on")
    plane.run_dir.mkdir(parents=True)
    plane.publish()
    plane.start()
    # testpmd ends when its standard input does.
    hold, keep = os.pipe()
    testpmd = lab.start(None, "testpmd", [
        "dpdk-testpmd", "--no-huge", "-m", "128", "--no-shconf", "--no-pci", "--no-telemetry",
        f"--file-prefix={lab.name}", "-l", "0,1",
        f"--vdev=net_memif0,role=client,socket={path},socket-abstract=no",
        f"--vdev=net_pcap0,rx_pcap={source}", "--", "-i", "--total-num-mbufs=8192",
        "--no-mlockall", "--no-lsc-interrupt", "--no-flush-rx"], stdin=hold)
    os.close(hold)
    try:
        wait_until(lambda: plane.show()["ports"][0]["link_up"], 10, "the memif's link")
        os.write(keep, b"start\n")
        wait_until(lambda: plane.counters().get("forwarded", 0) >= 20, 10, "the packets")
        checks.check(True, "20 packets came over shared memory")
    except LabError as error:
        checks.error(f"{error}: {plane.show()} {testpmd.tail()}")
    os.close(keep)
    testpmd.kill()
    checks.check(plane.show()["ports"][0]["driver"] == "net_memif", "the driver is shown")
    checks.check(plane.stop() == 0, "it stops", plane.process.tail())
    got = tunnelled(rdpcap(str(sink)))
    checks.check(got == [5000 + p for p in range(20)], "they left by the other port", got)


def steer(lab, short, interface):
    """steer() puts the service into the XDP program's VIP set."""
    return lab.run(short, [BUILD / "tests" / "end_to_end" / "steer_tool", "set", interface,
                           VIP, "udp", "53", "53"])


def scenario(lab, checks):
    usage(lab, checks)
    pcap_port(lab, checks, "off")
    pcap_port(lab, checks, "on")
    life_and_tables(lab, checks)
    netdev_port(lab, checks, "af_xdp:{}", "af_xdp", idle="busy", huge="on")
    netdev_port(lab, checks, "af_xdp:{}", "af_xdp", queues=2, workers="2")
    netdev_port(lab, checks, "net_af_packet,iface={}", "af_packet")
    netdev_port(lab, checks, "net_af_packet,iface={},qpairs=2", "af_packet", queues=2,
                workers="2")
    tap_port(lab, checks)
    memif_port(lab, checks)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("ports"), scenario))
