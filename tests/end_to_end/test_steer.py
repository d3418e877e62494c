#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The steering program as DPDK's AF_XDP PMD loads it: VIP packets reach user space, all others
the kernel; what happens when the data plane is killed and when the next one starts. The data
plane is dpdk-testpmd, which sends each packet back where it came from (5tswap)."""

import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.sluice import Binaries  # noqa: E402
from netns_sockets import EchoServer, tcp_echo, udp_echo  # noqa: E402

VIPS = ("198.51.100.10", "2001:db8::10")
SERVICES = [word for vip in VIPS for word in (vip, "udp", "53", "53", vip, "udp", "8000", "8100")]


class DataPlane:
    """dpdk-testpmd on an interface; ends when its standard input does."""

    def __init__(self, lab, number):
        binaries = Binaries()
        self.input, self.write_end = os.pipe()
        self.process = lab.start("edge", f"testpmd{number}", [
            "dpdk-testpmd", "--no-huge", "-m", "256", "--no-shconf", "--no-pci", "-l", "0,1",
            "--file-prefix", f"{lab.name}-{number}", f"--vdev=net_af_xdp0,iface=eth0,"
            f"xdp_prog={binaries.bpf / 'steer.bpf.o'}", "--", "--forward-mode=5tswap",
            "--total-num-mbufs=10240", "--no-mlockall", "--auto-start", "--interactive"],
            stdin=self.input)

    def wait(self):
        # The prompt comes after the ports have been started.
        wait_until(lambda: "testpmd>" in self.process.output() or not self.process.running(), 20,
                   "testpmd to start")
        if "Start ports failed" in self.process.output() or not self.process.running():
            raise LabError("testpmd has not started: " + self.process.tail(5))
        return self

    def stop(self):
        os.write(self.write_end, b"quit\n")
        self.process.wait(20)

    def kill(self):
        self.process.kill()


class Tool:
    def __init__(self, lab):
        self.lab = lab
        self.path = Binaries().build / "tests" / "end_to_end" / "steer_tool"
        self.leftover = lab.path("leftover")

    def run(self, command, *arguments, check=True):
        done = self.lab.run("edge", [self.path, command, "eth0", *arguments], check=check)
        return done.stdout.strip() if check else done

    def counters(self):
        return json.loads(self.run("counters"))


def answers(lab, address, port):
    """Who answers: user space sends the packet itself back, the kernel's server says so."""
    try:
        reply = udp_echo(lab, "client", address, port, b"who?", timeout=1.0)
    except (TimeoutError, OSError):
        return "nobody"
    return {b"who?": "data plane", b"kernel": "kernel"}.get(reply, reply)


class KernelServer(EchoServer):
    def _serve_udp(self):
        while True:
            _, peer = self.udp.recvfrom(65536)
            self.udp.sendto(b"kernel", peer)


def expect(checks, lab, wanted, what):
    for vip in VIPS:
        for port, who in wanted.items():
            got = answers(lab, vip, port)
            checks.check(got == who, f"{what}: {vip} port {port}: {who}", got)


def scenario(lab, checks):
    lab.namespace("client")
    lab.namespace("edge")
    lab.link("client", "eth0", "edge", "eth0")
    lab.ip("client", "addr add 10.0.0.2/24 dev eth0", "addr add fd00::2/64 dev eth0 nodad",
           f"route add {VIPS[0]} via 10.0.0.1", f"route add {VIPS[1]} via fd00::1")
    # The VIPs are the host's own addresses too: what is no service is still the host's.
    lab.ip("edge", "addr add 10.0.0.1/24 dev eth0", "addr add fd00::1/64 dev eth0 nodad",
           f"addr add {VIPS[0]}/32 dev lo", f"addr add {VIPS[1]}/128 dev lo nodad")
    for vip in VIPS:
        for port in (22, 53, 7999, 8000, 8100):
            KernelServer(lab, "edge", vip, port)
    tool = Tool(lab)

    checks.title("A data plane and its VIP set")
    expect(checks, lab, {53: "kernel"}, "before there is one")
    checks.check(tool.run("set", *SERVICES, check=False).returncode == 1,
                 "the control plane is told that no program is there")
    first = DataPlane(lab, 1).wait()
    link = json.loads(lab.run("edge", ["ip", "-j", "-d", "link", "show", "eth0"]).stdout)[0]
    checks.check(link["xdp"]["mode"] == 1, "DPDK has attached it in native mode", link.get("xdp"))
    expect(checks, lab, {53: "kernel", 22: "kernel"}, "no VIPs yet")
    # Four ports and ranges, and a marker for each address.
    checks.check(tool.run("set", *SERVICES) == "added 6 removed 0", "VIPs set from another process")
    before = tool.counters()
    expect(checks, lab, {53: "data plane", 22: "kernel", 7999: "kernel", 8000: "data plane",
                         8100: "data plane"}, "with VIPs")
    after = tool.counters()
    checks.check(after["redirected"] - before["redirected"] == 6 and after["no_socket"] == 0,
                 "six packets were redirected", after)
    checks.check(tcp_echo(lab, "client", VIPS[0], 53, b"tcp") == b"tcp",
                 "TCP to a UDP service's port is the kernel's")
    checks.check(tool.run("set", *SERVICES[:4]) == "added 0 removed 4", "services removed")
    checks.check(answers(lab, VIPS[0], 8000) == "kernel" and answers(lab, VIPS[0], 53) ==
                 "data plane", "takes effect at once, the rest goes on")
    tool.run("set", *SERVICES)
    refused = tool.run("take-over", tool.leftover, check=False)
    checks.check(refused.returncode == 1 and str(first.process.pid) in refused.stderr,
                 "a second data plane is refused the interface", refused.stderr)

    checks.title("Killed with -9, started again")
    before = tool.counters()
    first.kill()
    expect(checks, lab, {53: "kernel", 22: "kernel"}, "killed")
    after = tool.counters()
    checks.check(after["no_socket"] - before["no_socket"] == 2, "counted as without a socket", after)
    stuck = DataPlane(lab, 2)
    try:
        stuck.wait()
        checks.check(False, "the PMD starts over a leftover program: take_over_xdp() is not needed")
    except LabError:
        checks.check("already attached" in stuck.process.output(),
                     "the PMD does not start where a program is left", stuck.process.output())
    stuck.kill()
    checks.check(tool.run("take-over", tool.leftover) == "found 1 entries 6",
                 "take_over_xdp() detaches it and keeps its VIPs")
    second = DataPlane(lab, 3).wait()
    checks.check(tool.run("restore", tool.leftover) == "restored 6", "restore_vips() puts them back")
    expect(checks, lab, {53: "data plane", 8050: "data plane", 22: "kernel"},
           "without any control plane")
    checks.check(tool.run("set", *SERVICES) == "added 0 removed 0",
                 "the control plane finds nothing to change")

    checks.title("Stopped")
    second.stop()
    tool.run("take-over", tool.leftover)
    expect(checks, lab, {53: "kernel"}, "stopped and detached")
    link = lab.run("edge", ["ip", "link", "show", "eth0"]).stdout
    checks.check("xdp" not in link, "no program is left on the interface", link)


def make_lab():
    if not shutil.which("dpdk-testpmd"):
        raise LabError("dpdk-testpmd is not installed (package dpdk)")
    return Lab("steer")


if __name__ == "__main__":
    sys.exit(run_scenario(make_lab, scenario))
