#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The lab itself: what it promises must be there without any balancer in between, and must be
gone afterwards, however the lab ended."""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab import nginx, state  # noqa: E402
from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.scene import Scene, vip4, vip6  # noqa: E402
from lab.sluice import Binaries  # noqa: E402


def remains(name):
    """remains() returns what is left of the lab of a name."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    left = [line for line in listed.split("\n") if line.startswith(name + "-")]
    left += [str(p) for p in Path("/tmp").glob(f"sluice-{name}-*")]
    left += [str(p) for p in state.STATE_DIR.glob(f"{name}.json")]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = process.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if f"sluice-{name}-" in text:
            left.append(f"{process.parent.name} {text}")
    return left


def one_scene(segments):
    """one_scene() returns the scenario: client to VIP with a router where the balancer goes."""
    def scenario(lab, checks):
        checks.title(f"{segments} segment(s)")
        flowgen = Binaries().flowgen
        scene = Scene(lab, backends=2, segments=segments)
        scene.start_nginx(big_rate="16m")
        for backend in scene.backends:
            scene.add_vip(backend, vip4(10), vip6(10))
        lab.run("edge", ["sysctl", "-qw", "net.ipv4.ip_forward=1",
                         "net.ipv6.conf.all.forwarding=1"])
        lab.ip("edge", f"route add {vip4(10)} via {scene.address('b1')}",
               f"route add {vip6(10)} via {scene.address('b1', True)}")
        for vip in (vip4(10), f"[{vip6(10)}]"):
            result = lab.run("client", [flowgen, "load", "--target", f"{vip}:80", "--requests",
                                        "200", "--connections", "10",
                                        "--requests-per-connection", "1", "--downloads", "1"])
            report = json.loads(result.stdout)
            checks.check(report["requests_ok"] == 200 and report["requests_failed"] == 0,
                         f"200 requests to {vip} over new connections", report)
            checks.check(list(report["backends"]) == ["b1"], "all answered by b1", report)
            download = report["downloads"][0]
            checks.check(download["complete"] and download["crc32"] == nginx.big_crc32(lab),
                         f"a download of {download['bytes']} bytes is intact", download)
        seen = scene.nginx["b1"].requests("/")
        checks.check(len(seen) == 400, f"nginx in b1 has logged {len(seen)} requests")
        clients = {ipaddress.ip_address(r["client"]) for r in seen}
        wanted = {ipaddress.ip_address(scene.client_address(v6)) for v6 in (False, True)}
        checks.check(clients == wanted, "from the client's own addresses", clients)
    return scenario


def echo_servers(lab, checks):
    flowgen = Binaries().flowgen
    lab.namespace("a")
    lab.namespace("b")
    lab.link("a", "eth0", "b", "eth0")
    lab.ip("a", "address add 10.1.0.1/24 dev eth0", "address add fd01::1/64 dev eth0 nodad")
    lab.ip("b", "address add 10.1.0.2/24 dev eth0", "address add fd01::2/64 dev eth0 nodad")
    lab.start("b", "echo", [flowgen, "serve", "--listen", "0.0.0.0:7", "--listen", "[::]:7",
                            "--name", "b"]).wait_for_output("ready", 5)
    for mode in ("tcp", "udp"):
        for target in ("10.1.0.2:7", "[fd01::2]:7"):
            report = json.loads(lab.run("a", [flowgen, "load", "--mode", mode, "--target", target,
                                              "--requests", "500", "--connections", "5"]).stdout)
            checks.check(report["requests_ok"] == 500 and report["requests_failed"] == 0,
                         f"500 requests over {mode} to {target}", report)
    # The generator must notice what it is there to notice.
    report = json.loads(lab.run("a", [flowgen, "load", "--target", "10.1.0.2:81", "--requests",
                                      "5", "--rate", "100"]).stdout)
    checks.check(report["failures_by_kind"] == {"refused": 5}, "5 refused requests are 5 failures",
                 report)


def holding(lab, action):
    """What the child of endings() does: makes a lab and is ended in the middle of it."""
    scene = Scene(lab, backends=1)
    scene.start_nginx()
    if action == "stop":
        # What is stopped has to be ended, too, and without a wait for its answer.
        scene.nginx["b1"].process.signal(signal.SIGSTOP)
    if action == "keep":
        lab.keep_running({})
        return
    print(f"holding {lab.name}", flush=True)
    signal.pause()


def endings(lab, checks):
    def child(action):
        process = subprocess.Popen([sys.executable, __file__, "--hold", action],
                                   stdout=subprocess.PIPE, text=True)
        if action == "keep":
            process.communicate(timeout=30)
        else:
            process.stdout.readline()
        return process, f"sl{process.pid}"

    process, name = child("wait")
    checks.check(len(remains(name)) > 5, "another lab beside this one is there")
    process.send_signal(signal.SIGTERM)
    code = process.wait(20)
    checks.check(code == 128 + signal.SIGTERM and not remains(name),
                 "SIGTERM: gone, exit code 143", (code, remains(name)))

    process, name = child("stop")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait(20)
    took = time.monotonic() - began
    checks.check(code == 128 + signal.SIGTERM and not remains(name) and took < state.GRACE_S,
                 f"the same with a process that is stopped, in {took:.1f} s", remains(name))

    process, name = child("wait")
    process.kill()
    process.wait()
    checks.check(len(remains(name)) > 5, "SIGKILL: everything is left")
    # Any lab that starts meanwhile may do it, too.
    state.sweep()
    wait_until(lambda: not remains(name), 10, "the leftover to go")
    checks.check(not remains(name), "and gone once a lab sweeps", remains(name))

    process, name = child("keep")
    state.sweep()
    checks.check(len(remains(name)) > 5, "what is kept is not swept")
    for kept in state.states():
        if kept.data["name"] == name:
            state.tear_down(kept)
    checks.check(not remains(name), "and goes when told", remains(name))


def main():
    if "--hold" in sys.argv:
        with Lab("hold") as lab:
            holding(lab, sys.argv[-1])
        return 0

    def everything(lab, checks):
        checks.title("echo servers and flowgen")
        echo_servers(lab, checks)
        checks.title("how labs end")
        endings(lab, checks)

    code = 0
    for scenario in (everything, one_scene(1), one_scene(2)):
        code = code or run_scenario(lambda: Lab("lab-test"), scenario)
    left = remains(f"sl{os.getpid()}")
    if left:
        print("FAIL left behind:", left)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
