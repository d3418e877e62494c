#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who gets the new connections while backends come and go: tiers, failback after a hold-down, a
sorry server as the last tier, panic, slow start, drain with a deadline, flapping. Under load, with
the figures printed; what is shown is read back from the published tables."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.sluice import finish_load, request_log  # noqa: E402
from lab.stand import Stand, service, vip4  # noqa: E402
from story_figures import tell  # noqa: E402

FAILBACK_S = 3.0
SLOW_S = 3.0
DEADLINE_S = 2.0
HOLD_S = 4.0
TIERS = {"b1": 0, "b2": 0, "b3": 1, "b4": 2}


def tiered(scene, **options):
    out = {**service(scene, "web", vip4(10)), **options}
    for name, b in zip(scene.backends, out["backends"]):
        b["tier"] = TIERS[name]
    return out


class Story:
    def __init__(self, lab, checks):
        def services(scene):
            # In "all" they are one tier.
            return [tiered(scene, failover={"failback": f"{FAILBACK_S:.0f}s"}),
                    {**service(scene, "all", vip4(11)), "failover": {"panic-threshold": 50}}]

        self.checks = checks
        self.stand = Stand(lab, services, backends=len(TIERS))
        self.b, self.scene = self.stand.balancer, self.stand.scene
        self.down = set()

    def rows(self, name="web"):
        """rows() returns what get backends shows, by the backends' names."""
        return {self.scene.by_address(a): row for a, row in self.b.backends(name).items()}

    def weights(self, name="web"):
        return {n: row["effective_weight"] for n, row in self.rows(name).items()}

    def used(self, name="web"):
        return sorted(n for n, weight in self.weights(name).items() if weight)

    def wait_for_use(self, *names, timeout=15):
        wait_until(lambda: self.used() == sorted(names), timeout, f"only {names} in use", 0.02)
        return time.time()

    def wait_for_health(self):
        self.b.wait_for_health("web", [self.scene.address(n) for n in TIERS if n not in self.down])

    def fail(self, *names):
        self.down |= set(names)
        at = time.time()
        for name in names:
            self.scene.nginx[name].kill()
        return at

    def heal(self, *names):
        self.down -= set(names)
        for name in names:
            self.scene.nginx[name].start()

    def change(self, **options):
        self.stand.services[0] = tiered(self.scene, **options)
        self.b.apply(self.stand.services)

    def load(self, name, target=vip4(10), **options):
        options = {"connections": 10, "rate": 100, "timeout_ms": 1000,
                   "requests_per_connection": 1} | options
        load = self.b.start_load(name, target, **options)
        load.wait_for_output("every connection has been answered", 10)
        return load

    def wait_for_requests(self, load, backends, begun_after):
        """wait_for_requests() waits for answers to requests begun after a moment; all of them
        from `backends`."""
        def enough():
            return len([r for r in request_log(load) if r["began"] >= begun_after]) >= 30
        wait_until(enough, 15, "answers", 0.1)
        rows = [r for r in request_log(load) if r["began"] >= begun_after]
        others = [r for r in rows if r["outcome"] != "ok" or r["backend"] not in backends]
        self.checks.check(not others, f"all {len(rows)} requests since then are answered by "
                          f"{' and '.join(backends)}", others[:3])


def tiers(s, load):
    s.checks.title("tier 0 fails, tier 1 takes over")
    kept = s.load("tiers-kept", connections=20, requests_per_connection=0)
    failed = s.fail("b1", "b2")
    used = s.wait_for_use("b3")
    tell(s.checks, "tier failover", failed, used, [load], [kept], ["b1", "b2"])
    s.wait_for_requests(load, ["b3"], used + 0.2)
    s.checks.check(s.b.show("get", "services", "web")["tier"] == 1, "tier 1 is said to be in use")

    s.checks.title("tier 0 comes back")
    began = time.time()
    s.heal("b1", "b2")
    s.wait_for_health()
    seen = time.time()
    rows = s.rows()
    s.checks.check(rows["b1"]["standing"] == "standby" and rows["b3"]["share"] == 1,
                   "it stands by while the hold-down lasts", rows["b1"]["standing"])
    used = s.wait_for_use("b1", "b2")
    s.checks.check(used - began > FAILBACK_S, f"back {used - seen:.2f} s after both were shown to "
                   f"be up (failback: {FAILBACK_S:.0f} s after the first was)")
    before = [r for r in request_log(load) if r["began"] >= seen]
    s.checks.check(all(r["outcome"] == "ok" for r in before),
                   f"none of {len(before)} requests failed meanwhile")
    tell(s.checks, "fail back", seen, used, [load], [kept])
    s.wait_for_requests(load, ["b1", "b2"], used + 0.2)
    report = finish_load(kept, stop=True)
    s.checks.check(report["requests_ok"], "long connections went on", report)


def sorry_and_panic(s, load):
    s.checks.title("all but the sorry server fail")
    failed = s.fail("b1", "b2", "b3")
    used = s.wait_for_use("b4")
    tell(s.checks, "last tier", failed, used, [load], gone=["b1", "b2", "b3"])
    s.wait_for_requests(load, ["b4"], used + 0.2)
    wait_until(lambda: s.used("all") == sorted(TIERS), 10, "panic")
    s.checks.figure(f"panic: {(time.time() - failed) * 1000:.0f} ms after the failure")
    warnings = s.b.show("status")["warnings"]
    s.checks.check(any("all: too few backends can serve" in w for w in warnings),
                   "one of four is below panic-threshold 50: the service without tiers ignores "
                   "health, and status says so", warnings)
    s.checks.check({row["standing"] for row in s.rows("all").values()} == {"panic"},
                   "its backends are said to be in use by panic")
    s.heal("b1", "b2", "b3")
    s.wait_for_health()
    wait_until(lambda: not s.b.show("get", "services", "all")["panic"], 10, "the end of panic")
    s.wait_for_use("b1", "b2")


def slow_start(s, load):
    s.checks.title("a backend comes back slowly")
    s.change(**{"slow-start": {"time": f"{SLOW_S:.0f}s", "steps": 3}})
    s.fail("b2")
    s.wait_for_use("b1")
    s.heal("b2")
    seen = []
    began = None

    def whole():
        nonlocal began
        row = s.rows()["b2"]
        if row["effective_weight"] and (not seen or seen[-1][0] != row["effective_weight"]):
            began = began or time.time()
            seen.append((row["effective_weight"], row["standing"], row["share"]))
        return row["effective_weight"] == 100
    wait_until(whole, 20, "the whole weight", 0.05)
    took = time.time() - began
    weights = [w for w, _, _ in seen]
    # On a busy machine not every step is seen.
    s.checks.check(len(weights) > 1 and weights == sorted(weights) and weights[0] < 100 and
                   set(weights) <= {25, 50, 75, 100} and
                   {standing for _, standing, _ in seen[:-1]} == {"slow start"},
                   f"its weight goes {', '.join(map(str, weights))}", seen)
    s.checks.check(all(abs(share - w / (w + 100)) < 0.001 for w, _, share in seen),
                   "its share of the published table follows", seen)
    s.checks.figure(f"the whole weight {took:.2f} s after the first connections (time: "
                    f"{SLOW_S:.0f} s)")
    rows = tell(s.checks, "slow start", began, began + took, [load])
    bad = [r for r in rows if r["outcome"] != "ok"]
    s.checks.check(not bad, "no request failed meanwhile", bad[:3])


def drain(s, load):
    s.checks.title("a drain with a deadline")
    s.change(**{"drain-deadline": f"{DEADLINE_S:.0f}s"})
    s.wait_for_use("b1", "b2")
    kept = s.load("kept", connections=20, requests_per_connection=0)
    time.sleep(0.5)
    at = time.time()
    s.b.sluice("backend", "drain", "web", s.scene.address("b1"))
    wait_until(lambda: s.rows()["b1"]["standing"] == "draining", 5, "draining", 0.02)
    tell(s.checks, "drain", at, time.time(), [load], [kept], ["b1"])
    wait_until(lambda: s.rows()["b1"]["standing"] == "drained", 10, "the deadline", 0.02)
    passed = time.time()
    s.checks.check(DEADLINE_S - 0.1 <= passed - at <= DEADLINE_S + 5,
                   f"over after {passed - at:.2f} s (drain-deadline: {DEADLINE_S:.0f} s)")
    time.sleep(1)
    log = request_log(kept)
    victims = {r["connection"] for r in log if r["backend"] == "b1"}
    bad = [r for r in log if r["outcome"] != "ok"]
    early = [r for r in bad if r["ended"] < at + DEADLINE_S]
    late = [r for r in log if r["began"] >= passed + 0.2 and r["backend"] == "b1"]
    connections = {r["connection"] for r in log}
    s.checks.check(victims and not early, f"none of the {len(victims)} connections of "
                   f"{len(connections)} that it had broke before",
                   early[:3])
    s.checks.check(not late, "nobody is answered by it afterwards", late[:3])
    innocent = [r for r in bad if r["connection"] not in victims]
    s.checks.check(not innocent, "nobody else noticed", innocent[:3])
    finish_load(kept, stop=True)
    s.b.sluice("backend", "undrain", "web", s.scene.address("b1"))


def flapping(s, load):
    s.checks.title("a backend flaps")
    s.change(**{"flap-damping": {"falls": 2, "within": "1m", "hold": f"{HOLD_S:.0f}s"}})
    s.wait_for_use("b1", "b2")
    s.fail("b2")
    s.wait_for_use("b1")
    s.heal("b2")
    s.wait_for_use("b1", "b2")
    fell = s.fail("b2")
    tell(s.checks, "second fall", fell, s.wait_for_use("b1"), [load], gone=["b2"])
    s.heal("b2")
    s.wait_for_health()
    row = s.rows()["b2"]
    s.checks.check(row["standing"] == "flapping" and row["standing_until"] and row["health"] == "up"
                   and row["effective_weight"] == 0, "up for the second time, it is held out", row)
    used = s.wait_for_use("b1", "b2")
    s.checks.check(HOLD_S < used - fell <= HOLD_S + 6, f"let in {used - fell:.2f} s after its "
                   f"server was killed (hold: {HOLD_S:.0f} s after that was seen)")
    s.wait_for_requests(load, ["b1", "b2"], used + 0.2)


def scenario(lab, checks):
    s = Story(lab, checks)
    load = s.load("fresh")
    s.wait_for_use("b1", "b2")
    tiers(s, load)
    sorry_and_panic(s, load)
    slow_start(s, load)
    drain(s, load)
    flapping(s, load)
    report = finish_load(load, stop=True)
    checks.figure(f"{report['requests_ok']} requests answered, {report['requests_failed']} failed "
                  "in all, each with its own connection")
    checks.check(s.b.dataplane.running() and s.b.controlplane.running(), "both daemons run")


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("failover"), scenario))
