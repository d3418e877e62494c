#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The control plane dies, returns, and is given nonsense, under load. Datagrams are the
witnesses: nobody sends them again, so one packet lost is one request failed."""

import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.sluice import finish_load  # noqa: E402
from lab.stand import ECHO_PORT, Stand, service, vip4, vip6  # noqa: E402

NONSENSE = [
    ("broken YAML", "services: [", "services.yaml:"),
    ("an unknown key", "services:\n  - {name: a, adress: 1.2.3.4}\n", "services.yaml:2"),
    ("a port out of range", "services:\n  - name: a\n    address: 198.51.100.9\n"
     "    port: 70000\n    backends: []\n", "services.yaml:4"),
    ("a VIP twice", "services:\n" + "".join(
        f"  - {{name: {n}, address: 198.51.100.9, protocol: tcp, port: 80, forward: dsr-l2, "
        "health: {type: none}, backends: [{address: 10.77.0.21}]}\n" for n in "ab"),
     "services.yaml:3"),
    ("a backend that is a VIP", "services:\n  - {name: a, address: 198.51.100.9, protocol: tcp, "
     "port: 80, forward: dsr-l2, health: {type: none}, backends: [{address: 198.51.100.9}]}\n",
     "services.yaml:2"),
]


def scenario(lab, checks):
    def services(scene):
        return [service(scene, "dgram", vip4(10), protocol="udp", port=ECHO_PORT),
                service(scene, "dgram6", vip6(10), protocol="udp", port=ECHO_PORT),
                service(scene, "lines", vip4(10), port=ECHO_PORT),
                service(scene, "web", vip4(10))]

    stand = Stand(lab, services, echo=True)
    stand.let_standin_be_heard()
    b = stand.balancer
    before = b.show("status")

    loads = [b.start_load("udp4", vip4(10), ECHO_PORT, mode="udp", connections=50, rate=400),
             b.start_load("udp6", vip6(10), ECHO_PORT, mode="udp", connections=50, rate=400),
             b.start_load("tcp", vip4(10), ECHO_PORT, mode="tcp", connections=50, rate=200),
             b.start_load("fresh", vip4(10), 80, connections=10, rate=100,
                          requests_per_connection=1)]
    for load in loads:
        load.wait_for_output("every connection has been answered", 10)

    checks.title("nonsense is refused and changes nothing")
    path = lab.path("bad", "services.yaml")
    for what, text, place in NONSENSE:
        path.write_text(text)
        result = b.sluice("apply", "-f", path, check=False)
        checks.check(result.returncode == 1 and place in result.stderr,
                     f"{what}: refused, with the place: "
                     f"{(result.stderr.strip().split(chr(10)) or [''])[0][-110:]}",
                     (result.returncode, result.stdout, result.stderr))
    now = b.show("status")
    checks.check(now["revision"] == before["revision"] and now["digest"] == before["digest"],
                 f"revision {now['revision']} and the tables are what they were", (before, now))

    for number, name in ((signal.SIGKILL, "kill -9"), (signal.SIGTERM, "SIGTERM"),
                         (signal.SIGKILL, "kill -9")):
        checks.title(f"the control plane: {name}, and started again after a second")
        b.controlplane.signal(number)
        b.controlplane.wait(10)
        time.sleep(1)
        b.start_controlplane()
        stand.wait_until_healthy()
        after = b.show("status")
        checks.check(after["revision"] == before["revision"], "it knows its revision",
                     (before, after))
        checks.check(after["digest"] == before["digest"], "the tables have the same digest",
                     (before["digest"], after["digest"]))
        checks.check(after["dataplane"]["pid"] == before["dataplane"]["pid"] and
                     after["dataplane"]["state"] == "running", "the data plane has gone on", after)

    checks.title("what the clients noticed")
    for load in loads:
        report = finish_load(load, stop=True)
        checks.check(report["requests_ok"] > 500 and report["requests_failed"] == 0 and
                     report["connections_broken"] == 0 and report["backend_changes"] == 0,
                     f"{load.name}: {report['requests_ok']} answered, "
                     f"{report['requests_failed']} not; longest gap "
                     f"{report['longest_gap_ms']['max']:.0f} ms",
                     {k: v for k, v in report.items() if k != "failures"})
    codes = b.stop()
    checks.check(codes == (0, 0), "both daemons end cleanly", codes)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("control-plane"), scenario))
