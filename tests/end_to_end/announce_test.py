#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""VIPs announced by a real bird: its BGP neighbour's kernel gets a route while a VIP can be served
and packets are forwarded, and loses it otherwise. Traffic takes that route. Withdrawn: by health,
by a data plane that stands still or is gone, by the end of a service; not: by restarts."""

import os
import re
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.scene import VIP_NETS, vip4, vip6  # noqa: E402
from lab.stand import Stand, service  # noqa: E402

WITHDRAW_AFTER = 1.0  # seconds

ROUTER = """router id 10.77.0.100;
protocol device { scan time 1; }
protocol kernel { ipv4 { export all; import none; }; }
protocol kernel { ipv6 { export all; import none; }; }
protocol bgp edge {
  local 10.77.0.100 as 64500;
  neighbor 10.77.0.10 as 64512;
  connect delay time 1;
  connect retry time 1;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
"""
EDGE = """router id 10.77.0.10;
protocol device { scan time 1; }
protocol direct vips {
  interface "lo";
  ipv4 { import where net ~ [198.51.100.0/24{32,32}]; };
  ipv6 { import where net ~ [2001:db8:100::/64{128,128}]; };
}
protocol bgp upstream {
  local 10.77.0.10 as 64512;
  neighbor 10.77.0.100 as 64500;
  connect delay time 1;
  connect retry time 1;
  ipv4 { import none; export where source = RTS_DEVICE; next hop self; };
  ipv6 { import none; export where source = RTS_DEVICE; next hop address fd77::10; };
}
"""


class Routers:
    """bird in the edge's and the client's namespaces, and what the client's kernel is told."""

    def __init__(self, lab):
        self.lab = lab
        for name, text in (("client", ROUTER), ("edge", EDGE)):
            config = lab.path(f"bird-{name}.conf")
            config.write_text(text)
            lab.start(name, f"bird-{name}", ["bird", "-f", "-c", config, "-s",
                                             lab.path(f"bird-{name}.ctl"), "-P",
                                             lab.path(f"bird-{name}.pid")])
        # It took the VIPs' nets from a static route so far.
        lab.ip("client", *(f"route del {net}" for net in VIP_NETS))
        self.monitor = lab.start("client", "monitor", ["ip", "monitor", "route"])

    def routes(self):
        text = "".join(self.lab.run("client", ["ip", family, "route", "show", "proto", "bird"]).stdout
                       for family in ("-4", "-6"))
        return {m[1] for m in re.finditer(r"(?m)^(\S+) .*(?:via|nhid|dev)", text)}

    def wait(self, expected, what, timeout=15.0):
        """wait() returns the seconds until the client has exactly these routes."""
        began = time.monotonic()
        wait_until(lambda: self.routes() == set(expected), timeout,
                   f"{what}: {sorted(expected)}, there is {sorted(self.routes())}", 0.02)
        return time.monotonic() - began

    def changes(self):
        """changes() counts what the kernel was told about VIPs so far."""
        return len(re.findall(r"198\.51\.100\.|2001:db8:100::", self.monitor.output()))


def on_lo(lab):
    text = lab.run("edge", ["ip", "-br", "address", "show", "lo"]).stdout
    return {a.split("/")[0] for a in text.split()[2:]} - {"127.0.0.1", "::1"}


def scenario(lab, checks):
    def services(scene):
        alone = service(scene, "other", vip4(11))
        alone["backends"] = alone["backends"][:1]
        web = {**service(scene, "web", vip4(10)), "quorum": {"percent": 60, "hysteresis": 30}}
        return [web, service(scene, "web6", vip6(10)), alone]

    stand = Stand(lab, services, controlplane={
        "announce": {"interface": "lo", "withdraw-after": f"{int(WITHDRAW_AFTER * 1000)}ms"}})
    b = stand.balancer
    routers = Routers(lab)
    web, web6, other = vip4(10), vip6(10), vip4(11)
    routers.wait([web, web6, other], "all VIPs", 30)
    for vip in (web, web6):
        report = b.load(vip, 80, connections=4, requests=40)
        checks.check(report["requests_failed"] == 0, f"40 requests over the announced route to {vip}",
                     report)
    checks.check(b.show("get", "services")["services"][0]["announcement"] == "announced",
                 "the API says announced")

    # Health: the only backend of `other` goes.
    first = stand.scene.backends[0]
    stand.scene.nginx[first].stop()
    began = time.monotonic()
    b.wait_for_health("other", [])
    took = routers.wait([web, web6], "other is withdrawn")
    checks.check(took < 2, f"withdrawn {took:.2f} s after the last backend was found dead "
                 f"({time.monotonic() - began:.2f} s after it died)")
    checks.check(any("198.51.100.11 is not announced: below quorum" in w
                     for w in b.ask("/v1/status")["warnings"]), "status warns")
    checks.check(b.metric("sluice_vip_announced", address=other) == 0 and
                 b.metric("sluice_vip_announced", address=web) == 1, "and so does the metric")
    # web has a quorum: 60 % withdraw it, 90 % bring it back. web6 has one backend left.
    second = stand.scene.backends[1]
    stand.scene.nginx[second].stop()
    routers.wait([web6], "a third of web's backends is no quorum")
    stand.scene.nginx[first].start()
    took = routers.wait([web6, other], "other is back")
    checks.check(took < 5, f"announced again {took:.2f} s after the backend came back")
    # Its check in `web` is another one than in `other`.
    wait_until(lambda: len([r for r in b.backends("web").values() if r["health"] == "up"]) == 2,
               5, "two of web's backends to be up")
    time.sleep(0.5)
    checks.check(routers.routes() == {web6, other},
                 "two thirds are not enough to be announced again", routers.routes())
    stand.scene.nginx[second].start()
    routers.wait([web, web6, other], "all of them are")

    # The control plane: killed, stopped, started.
    before = routers.changes()
    b.restart_controlplane(signal.SIGKILL)
    b.restart_controlplane()
    time.sleep(1)
    checks.check(routers.changes() == before and on_lo(lab) == {web, web6, other},
                 "no route moves when the control plane is killed and restarted")
    # The data plane: a restart within its patience, one that hangs, one that is gone.
    b.dataplane.signal(signal.SIGKILL)
    b.dataplane.wait(10)
    b.start_dataplane()
    time.sleep(0.5)
    print(f"     routes changed by a killed and restarted data plane: {routers.changes() - before}")
    routers.wait([web, web6, other], "all of them")
    b.dataplane.signal(signal.SIGSTOP)
    took = routers.wait([], "nothing is forwarded")
    checks.check(took < WITHDRAW_AFTER + 4, f"all withdrawn {took:.2f} s after the data plane stood "
                 f"still (2 s until that is noticed, {WITHDRAW_AFTER:g} s of patience)")
    b.dataplane.signal(signal.SIGCONT)
    took = routers.wait([web, web6, other], "it forwards again")
    checks.check(took >= WITHDRAW_AFTER * 0.9, f"and announced {took:.2f} s after it went on")

    # An operator takes the node out; the control plane's restart does not put it back in.
    b.sluice("node", "drain", "--reason", "new kernel")
    took = routers.wait([], "the node is drained")
    checks.check(True, f"all withdrawn {took:.2f} s after `sluice node drain`")
    b.restart_controlplane()
    time.sleep(0.5)
    checks.check(on_lo(lab) == set() and "drained by" in b.sluice("status").stdout and
                 b.show("get", "services")["services"][0]["announcement"] == "drained",
                 "still so after a restart of the control plane")
    b.sluice("node", "undrain")
    took = routers.wait([web, web6, other], "it is back in")
    checks.check(True, f"announced {took:.2f} s after `sluice node undrain`")

    # Somebody tidies up.
    lab.ip("edge", f"address del {web}/32 dev lo")
    wait_until(lambda: web in on_lo(lab), 5, "the address is put back")
    routers.wait([web, web6, other], "and announced")
    # What was there before is not ours.
    lab.ip("edge", f"address add {vip4(12)}/32 dev lo")
    b.sluice("service", "remove", "other")
    routers.wait([web, web6, vip4(12)], "without the service no route")
    b.sluice("service", "remove", "web")
    b.sluice("service", "remove", "web6")
    routers.wait([vip4(12)], "nor without any")
    checks.check(on_lo(lab) == {vip4(12)}, "what somebody else has put on lo stays")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(run_scenario(lambda: Lab("announce"), scenario))
