#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""VIPs by the daemons of docs/announce.md that announce_test.py has not: FRR, whose bgpd redistributes
what Sluice puts on lo to a bird; then a pair of nodes with keepalived, in which VRRP moves the VIP away
from a node whose data plane dies, or which is drained."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.scene import VIP_NETS, host_address, vip4, vip6  # noqa: E402
from lab.sluice import Balancer, finish_load  # noqa: E402
from lab.stand import Stand, service  # noqa: E402
from announce_test import ROUTER  # noqa: E402

WEB, WEB6 = vip4(20), vip6(20)
# As in docs/announce.md, but for addresses and times.
FRR = """ip prefix-list VIPS permit 198.51.100.0/24 ge 32
ipv6 prefix-list VIPS6 permit 2001:db8:100::/64 ge 128
route-map VIPS permit 10
 match ip address prefix-list VIPS
route-map VIPS6 permit 10
 match ipv6 address prefix-list VIPS6
 set ipv6 next-hop global fd77::10
router bgp 64512
 bgp router-id 10.77.0.10
 neighbor 10.77.0.100 remote-as 64500
 neighbor 10.77.0.100 timers connect 1
 neighbor 10.77.0.100 advertisement-interval 0
 address-family ipv4 unicast
  redistribute connected
  neighbor 10.77.0.100 route-map VIPS out
 address-family ipv6 unicast
  redistribute connected
  neighbor 10.77.0.100 activate
  neighbor 10.77.0.100 route-map VIPS6 out
"""
KEEPALIVED = """global_defs {{
  vrrp_version 3
  script_user root
  enable_script_security
}}
vrrp_script sluice {{
  script "{cli} --socket {socket} node ready web"
  interval 1
  timeout 2
  fall 1
  rise 1
}}
vrrp_instance edge {{
  state BACKUP
  interface up0
  virtual_router_id 51
  priority {priority}
  advert_int 0.25
  virtual_ipaddress {{
    {vip}/32
  }}
  track_script {{
    sluice
  }}
}}
"""


def start_frr(lab):
    config = lab.path("frr.conf")
    config.write_text(FRR)
    config.chmod(0o644)
    there = config.parent
    common = ["-u", "root", "-g", "frrvty", "-f", config, "-z", there / "zserv", "--vty_socket", there]
    started = []
    for name, more in (("zebra", []), ("bgpd", ["-p", "179"])):
        started.append(lab.start("edge", name, [f"/usr/lib/frr/{name}", *common, "-i",
                                                there / f"{name}.pid", *more]))
        if name == "zebra":
            wait_until(lambda: (there / "zserv").exists(), 10, "zebra's socket")
    return started


def bgp(lab, checks, b):
    lab.path("bird.conf").write_text(ROUTER)
    bird = lab.start("client", "bird", ["bird", "-f", "-c", lab.path("bird.conf"), "-s",
                                        lab.path("bird.ctl"), "-P", lab.path("bird.pid")])
    lab.ip("client", *(f"route del {net}" for net in VIP_NETS))
    daemons = start_frr(lab)

    def routes():
        text = "".join(lab.run("client", ["ip", family, "route", "show", "proto", "bird"]).stdout
                       for family in ("-4", "-6"))
        return {m[1] for m in re.finditer(r"(?m)^(\S+) .*(?:via|nhid|dev)", text)}

    def wait(expected, what, timeout=15):
        began = time.monotonic()
        wait_until(lambda: routes() == set(expected), timeout,
                   f"{what}: {sorted(expected)}, there is {sorted(routes())}", 0.02)
        return time.monotonic() - began

    checks.title("FRR")
    checks.check(True, f"both routes {wait([WEB, WEB6], 'FRR announces', 30):.1f} s after FRR's start")
    for vip in (WEB, WEB6):
        report = b.load(vip, 80, connections=4, requests=20)
        checks.check(report["requests_failed"] == 0, f"20 requests over the route to {vip}", report)
    b.sluice("node", "drain")
    checks.check(True, f"no routes {wait([], 'drained'):.2f} s after `sluice node drain`")
    b.sluice("node", "undrain")
    checks.check(True, f"both {wait([WEB, WEB6], 'undrained'):.2f} s after `sluice node undrain`")
    for daemon in (*reversed(daemons), bird):
        daemon.stop()


def vrrp(lab, checks, b, scene, services):
    """Two nodes; the client takes the VIPs for neighbours."""
    # keepalived puts the VIP where it belongs: Sluice announces nothing from here on.
    b.node["controlplane"].pop("announce")
    b.node_file.write_text(yaml.safe_dump(b.node, sort_keys=False))
    b.restart_controlplane()
    scene._station("edge2", "up0", 0, 11)
    other = Balancer(scene, b.binaries, at="edge2", dataplane={
        "encap-source": {"ipv4": host_address(0, 11), "ipv6": host_address(0, 11, True)}})
    other.start()
    other.apply(services)
    other.wait_until_usable(services)
    lab.ip("client", *(f"route replace {net} dev eth0" for net in VIP_NETS))
    for node, priority in ((b, 150), (other, 100)):
        config = lab.path(f"keepalived{node.suffix}.conf")
        config.write_text(KEEPALIVED.format(cli=b.binaries.cli, socket=node.socket, vip=WEB,
                                            priority=priority))
        config.chmod(0o644)
        lab.start(node.at, f"keepalived{node.suffix}",
                  ["keepalived", "-n", "-l", "-D", "-P", "-f", config, "-p",
                   lab.path(f"keepalived{node.suffix}.pid"), "-r",
                   lab.path(f"vrrp{node.suffix}.pid")])

    def has(node):
        text = lab.run(node.at, ["ip", "-br", "address", "show", "up0"]).stdout
        return f"{WEB}/32" in text

    def wait(holder, what, timeout=15):
        began = time.monotonic()
        wait_until(lambda: has(holder) and [has(b), has(other)].count(True) == 1, timeout, what, 0.02)
        return time.monotonic() - began

    def forwarded(node):
        return node.ask("/v1/stats")["services"][0]["packets"]

    checks.title("keepalived")
    wait(b, "the first node has the VIP")
    load = b.start_load("fresh", WEB, connections=5, rate=50, timeout_ms=1000,
                        requests_per_connection=1)
    load.wait_for_output("every connection has been answered", 10)
    b.dataplane.signal(signal.SIGKILL)
    took = wait(other, "its data plane is killed")
    checks.check(took < 5, f"the other node has the VIP {took:.2f} s after the data plane's end")
    # A neighbour that has just been heard is not believed to have moved (locktime, 1 s).
    wait_until(lambda: forwarded(other) > 20, 5, "the other node forwards")
    checks.check(True, "and its traffic")
    b.start_dataplane()
    took = wait(b, "it is back")
    checks.check(True, f"the first node has it back {took:.2f} s after its data plane was ready")
    time.sleep(0.3)
    b.sluice("node", "drain")
    took = wait(other, "the first node is drained")
    checks.check(took < 5, f"the other has it {took:.2f} s after `sluice node drain`")
    time.sleep(1)
    report = finish_load(load, stop=True)
    checks.check(report["requests_ok"] > 100, f"{report['requests_ok']} requests, "
                 f"{report['requests_failed']} of which failed, all the while", report)


def scenario(lab, checks):
    stand = Stand(lab, lambda scene: [service(scene, "web", WEB, "dsr-l2"),
                                      service(scene, "web6", WEB6, "dsr-l2")],
                  direct=(WEB, WEB6), backends=2,
                  controlplane={"announce": {"interface": "lo", "withdraw-after": "1s"}})
    stand.let_standin_be_heard()
    bgp(lab, checks, stand.balancer)
    vrrp(lab, checks, stand.balancer, stand.scene, stand.services)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(run_scenario(lambda: Lab("daemons"), scenario))
