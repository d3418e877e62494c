#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A backend fails under load, loudly (its server is killed) and silently (its link goes):
nobody else's connection may notice."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.sluice import finish_load, request_log  # noqa: E402
from lab.stand import Stand, service, vip4, vip6  # noqa: E402
from story_figures import tell  # noqa: E402

SETTLE_S = 0.2


def failed(log):
    return [r for r in log if r["outcome"] != "ok"]


def scenario(lab, checks):
    targets = {"web": vip4(10), "web6": vip6(10), "direct": vip4(20), "direct6": vip6(20)}

    def services(scene):
        return [service(scene, name, vip, "dsr-l2" if name.startswith("direct") else "ipip")
                for name, vip in targets.items()]

    stand = Stand(lab, services, direct=(vip4(20), vip6(20)), backends=4)
    stand.let_standin_be_heard()
    b, scene = stand.balancer, stand.scene
    kept = {name: b.start_load(f"kept-{name}", vip, connections=40, rate=80, timeout_ms=1000)
            for name, vip in targets.items()}
    fresh = {name: b.start_load(f"fresh-{name}", vip, connections=10, rate=60, timeout_ms=1000,
                                requests_per_connection=1)
             for name, vip in targets.items()}
    for load in (*kept.values(), *fresh.values()):
        load.wait_for_output("every connection has been answered", 10)
    time.sleep(1)

    def address(name, backend):
        return scene.address(backend, name.endswith("6"))

    gone = []
    for victim, how, fail in (
            ("b1", "its nginx is killed", lambda: scene.nginx["b1"].kill()),
            ("b2", "its link goes down", lambda: lab.ip("b2", "link set eth0 down"))):
        checks.title(f"{victim}: {how}")
        gone.append(victim)
        at = time.time()
        fail()
        alive = [n for n in scene.backends if n not in gone]
        for name in targets:
            b.wait_for_health(name, [address(name, n) for n in alive])
        seen = time.time()
        checks.figure(f"seen by the health checks of all four services within "
                      f"{(seen - at) * 1000:.0f} ms")
        time.sleep(2)
        tell(checks, how, at, seen, list(fresh.values()), list(kept.values()), [victim])
        for name in targets:
            log = request_log(fresh[name])
            during = [r for r in log if at <= r["began"] < seen + SETTLE_S]
            after = [r for r in log if r["began"] >= seen + SETTLE_S]
            checks.check(after and not failed(after),
                         f"{name}: new connections: {len(failed(during))} of {len(during)} failed "
                         f"until then, {len(failed(after))} of {len(after)} after", failed(after)[:5])
            log = request_log(kept[name])
            # Whoever was on the victim, then or when it came back to it before the verdict.
            on_victim = {r["connection"] for r in log if r["backend"] in gone}
            innocent = [r for r in failed(log) if r["connection"] not in on_victim]
            others = {r["connection"] for r in log} - on_victim
            checks.check(others and not innocent,
                         f"{name}: none of {len(others)} connections to other backends noticed",
                         innocent[:5])

    for name, load in (*kept.items(), *fresh.items()):
        report = finish_load(load, stop=True)
        checks.check(report["backend_changes"] == 0, f"{load.name}: {report['requests_ok']} ok, "
                     f"{report['requests_failed']} failed in all", report["failures_by_kind"])
    checks.check(b.dataplane.running() and b.controlplane.running(), "both daemons run")


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("backend-failure"), scenario))
