#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A soak: steady traffic while the desired state changes at random, backends flap, and both daemons
are restarted and killed. Again and again it gets quiet, and then what is wanted, what is shown (read
back from the published tables) and what the workers use have to be the same. No connection may break
whose backend was up all along, and the daemons' memory has to stay flat.

    tests/end_to_end/soak_test.py                      half a minute
    tests/end_to_end/soak_test.py --minutes 30 --seed 7
"""

import argparse
import random
import signal
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.sluice import finish_load, request_log  # noqa: E402
from lab.stand import ECHO_PORT, Stand, service, vip4, vip6  # noqa: E402

STEADY = ("b1", "b2", "b3")  # up all along, and always wanted
FLAPPING = ("b4", "b5")
LOADS = {"ipip": (vip4(10), ECHO_PORT), "direct": (vip4(20), ECHO_PORT),
         "ipip6": (vip6(10), ECHO_PORT)}
KEPT = 20  # connections to each of LOADS
DETECTED_S = 2.0  # a failure, at the most, on a busy machine: interval 300 ms, fall 2
GROWTH = 0.05, 4096  # of resident memory while nothing is restarted: a part, and KiB


class Soak:
    def __init__(self, lab, checks, minutes, seed):
        self.checks = checks
        self.dice = random.Random(seed)
        self.minutes = minutes

        def services(scene):
            return [service(scene, "echo", LOADS["ipip"][0], port=ECHO_PORT),
                    service(scene, "echo-direct", LOADS["direct"][0], "dsr-l2", port=ECHO_PORT),
                    service(scene, "echo6", LOADS["ipip6"][0], port=ECHO_PORT),
                    service(scene, "web", vip4(10))]

        self.stand = Stand(lab, services, direct=(vip4(20),), backends=5, echo=True)
        self.stand.let_standin_be_heard()
        self.b, self.scene = self.stand.balancer, self.stand.scene
        self.wanted = {s["name"]: s for s in self.stand.services}
        self.down = set()
        self.failures = []  # (when, name)
        self.counts = {}
        self.loads = {}
        self.quiet = 0
        self.restarts = True
        self.extra = 0
        self.memory = []  # (when, control plane, data plane) in KiB, of the last processes

    # -- what can happen -----------------------------------------------------------------

    def row(self, service, name):
        address = self.scene.address(name, service == "echo6")
        for b in self.wanted[service]["backends"]:
            if b["address"] == address:
                return b
        return None

    def any_service(self):
        return self.dice.choice(["echo", "echo-direct", "echo6", "web"])

    def weigh(self):
        service, name = self.any_service(), self.dice.choice(self.scene.backends)
        if row := self.row(service, name):
            row["weight"] = self.dice.choice([0, 1, 50, 100, 150] if name in FLAPPING
                                             else [50, 80, 100, 150])
            self.b.sluice("backend", "set", service, row["address"], "--weight", row["weight"])

    def drain(self):
        service, name = self.any_service(), self.dice.choice(FLAPPING)
        if row := self.row(service, name):
            drains = row.get("admin", "enabled") != "draining"
            row["admin"] = "draining" if drains else "enabled"
            self.b.sluice("backend", "drain" if drains else "undrain", service, row["address"])

    def come_and_go(self):
        service, name = self.any_service(), self.dice.choice(FLAPPING)
        address = self.scene.address(name, service == "echo6")
        backends = self.wanted[service]["backends"]
        if row := self.row(service, name):
            backends.remove(row)
            self.b.sluice("backend", "remove", service, address)
        else:
            backends.append({"address": address, "weight": 100})
            self.b.sluice("backend", "add", service, address, "--weight", "100")

    def another_service(self):
        number = self.extra % 4
        name = f"extra{number}"
        self.extra += 1
        if name in self.wanted:
            del self.wanted[name]
            self.b.sluice("service", "remove", name)
        else:
            new = service(self.scene, name, vip4(10), port=8000 + number,
                          health={"type": "tcp", "port": ECHO_PORT, "interval": "500ms"})
            self.wanted[name] = new
            self.b.sluice("service", "add", name, "--address", new["address"], "--protocol", "tcp",
                          "--port", new["port"], "--forward", "ipip", "--health",
                          f"type=tcp,port={ECHO_PORT},interval=500ms",
                          *(w for b in new["backends"] for w in ("--backend", b["address"])))

    def whole_file(self):
        self.b.apply(list(self.wanted.values()))

    def nonsense(self):
        """A change that is refused must leave everything as it was."""
        bad = [{**self.wanted["web"], "table-size": 1000}, *(
            s for n, s in self.wanted.items() if n != "web")]
        path = self.b.lab.path("bad.yaml")
        path.write_text(yaml.safe_dump({"services": bad}))
        if self.b.sluice("apply", "-f", path, check=False).returncode != 1:
            raise LabError("a table size that is no prime is not refused")

    def roll_back(self):
        """To the revision before and back, which is two more."""
        now = self.b.ask("/v1/status")["revision"]
        # Not before the services were there.
        if now > self.first_revision + 1:
            self.b.sluice("rollback", str(now - 1))
            self.b.sluice("rollback", str(now))

    def flap(self):
        name = self.dice.choice(FLAPPING)
        if name in self.down:
            self.down.remove(name)
            self.stand.start_echo(name)
            self.scene.nginx[name].start()
        else:
            self.down.add(name)
            self.failures.append((time.time(), name))
            self.stand.echo[name].kill()
            self.scene.nginx[name].kill()

    def restart(self):
        if not self.restarts:
            return
        number = self.dice.choice([signal.SIGTERM, signal.SIGKILL])
        if self.dice.random() < 0.5:
            self.b.restart_controlplane(number)
        else:
            self.b.dataplane.signal(number)
            self.b.dataplane.wait(10)
            time.sleep(self.dice.random())
            self.b.start_dataplane()
        self.memory.clear()

    EVENTS = {weigh: 8, drain: 4, come_and_go: 4, another_service: 3, whole_file: 2, nonsense: 1,
              roll_back: 1, flap: 4, restart: 1}

    def something(self):
        event = self.dice.choices(list(self.EVENTS), list(self.EVENTS.values()))[0]
        name = event.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        event(self)

    # -- quiet points --------------------------------------------------------------------

    def wrong(self):
        """wrong() returns what is not as wanted, in words; empty: all is."""
        status = self.b.ask("/v1/status")
        if not status["published"] or status["dataplane"]["state"] != "running":
            return [f"published: {status['published']}, the data plane is "
                    f"{status['dataplane']['state']}"]
        found = []
        if status["dataplane"]["generation"] != status["generation"]:
            found.append(f"workers use generation {status['dataplane']['generation']}, "
                         f"{status['generation']} is published")
        desired = {s["name"]: s for s in self.b.ask("/v1/config")["services"]}
        if set(desired) != set(self.wanted):
            found.append(f"services {sorted(desired)} instead of {sorted(self.wanted)}")
        for name, wanted in self.wanted.items():
            have = {b["address"]: (b.get("weight", 100), b.get("admin", "enabled"))
                    for b in desired.get(name, {"backends": []})["backends"]}
            want = {b["address"]: (b["weight"], b.get("admin", "enabled"))
                    for b in wanted["backends"]}
            if have != want:
                found.append(f"{name}: the desired state has {have}, wanted is {want}")
        shown = {}
        for row in self.b.ask("/v1/backends")["backends"]:
            shown.setdefault(row["service"], {})[row["address"]] = row
        for name, wanted in self.wanted.items():
            rows = shown.get(name, {})
            if set(rows) != {b["address"] for b in wanted["backends"]}:
                found.append(f"{name}: {sorted(rows)} are shown")
                continue
            weights = {}
            for b in wanted["backends"]:
                up = self.scene.by_address(b["address"]) not in self.down
                if (rows[b["address"]]["health"] == "up") != up:
                    found.append(f"{name}: {b['address']} is shown to be "
                                 f"{rows[b['address']]['health']}")
                takes = up and b.get("admin", "enabled") == "enabled"
                weights[b["address"]] = b["weight"] if takes else 0
            total = sum(weights.values())
            for address, weight in weights.items():
                row = rows[address]
                if row["effective_weight"] != weight:
                    found.append(f"{name}: {address} has weight {row['effective_weight']} in the "
                                 f"table, not {weight}")
                elif abs(row["share"] - weight / total) > 0.001:
                    found.append(f"{name}: {address} has {row['share']:.4f} of the table, not "
                                 f"{weight / total:.4f}")
        return found

    def settle(self):
        """settle() waits until all agrees; how long it took is noted."""
        last = []

        def agreed():
            nonlocal last
            last = self.wrong()
            return not last
        try:
            wait_until(agreed, 20, "quiet", 0.1)
        except LabError:
            raise LabError("20 s after the last change:\n  " + "\n  ".join(last)) from None
        self.quiet += 1
        self.memory.append((time.monotonic(), self.resident(self.b.controlplane),
                            self.resident(self.b.dataplane)))
        for name, load in self.loads.items():
            if not load.running():
                raise LabError(f"the load {name} has ended:\n{load.tail()}")

    @staticmethod
    def resident(process):
        """resident() returns the daemon's memory in KiB: it is the process that ip netns exec
        became."""
        text = Path(f"/proc/{process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    # -- the whole -----------------------------------------------------------------------

    def run(self):
        self.first_revision = self.b.ask("/v1/status")["revision"]
        for name, (vip, port) in LOADS.items():
            self.loads[name] = self.b.start_load(name, vip, port, mode="tcp", connections=KEPT,
                                                 rate=KEPT * 5, timeout_ms=3000)
        # A packet or two are lost with a data plane that is killed: a SYN comes again after 1 s.
        self.loads["new"] = self.b.start_load("new", vip4(10), connections=10, rate=40,
                                              timeout_ms=2500, requests_per_connection=1)
        for load in self.loads.values():
            load.wait_for_output("every connection has been answered", 10)
        began = time.monotonic()
        ends = began + self.minutes * 60
        told = began
        self.settle()
        while (now := time.monotonic()) < ends:
            # Memory is looked at in the last third: a new process has only begun to grow.
            self.restarts = now < began + self.minutes * 40
            for _ in range(self.dice.randint(1, 8)):
                self.something()
                time.sleep(self.dice.random() * 0.3)
            self.settle()
            if now - told > 60:
                told = now
                self.checks.say(f"  ... {(now - began) / 60:.0f} of {self.minutes:g} minutes, "
                                f"{self.quiet} quiet points, {sum(self.counts.values())} events")
        for name in sorted(self.down):
            self.down.remove(name)
            self.stand.start_echo(name)
            self.scene.nginx[name].start()
        self.settle()

    def judge(self):
        self.checks.check(True, f"{self.quiet} quiet points: wanted, published and used were the "
                          f"same at each, after {sum(self.counts.values())} events ("
                          + ", ".join(f"{n} {e}" for e, n in sorted(self.counts.items())) + ")")
        broken, kept, requests = [], 0, 0
        for name in LOADS:
            finish_load(self.loads[name], stop=True)
            where = {}
            for r in request_log(self.loads[name]):
                requests += 1
                if r["outcome"] == "ok":
                    # Who answers a connection on its second request is who had it all along.
                    moved = where.get(r["connection"], (r["local"], r["backend"]))
                    if moved[0] == r["local"] and moved[1] != r["backend"] and moved[1] in STEADY:
                        broken.append((name, r, moved))
                    where[r["connection"]] = (r["local"], r["backend"])
                    kept += r["backend"] in STEADY
                else:
                    had = where.pop(r["connection"], None)
                    if had and had[0] == r["local"] and had[1] in STEADY:
                        broken.append((name, r, had))
        self.checks.check(not broken and kept > 0, f"{len(broken)} connections broke or moved of "
                          f"those whose backend was up all along ({kept} of {requests} requests "
                          f"were answered by one)", broken[:5])
        finish_load(self.loads["new"], stop=True)
        rows = request_log(self.loads["new"])
        bad = [r for r in rows if r["outcome"] != "ok"]
        late = [r for r in bad if not any(at - 0.1 <= r["began"] <= at + DETECTED_S
                                          for at, _ in self.failures)]
        self.checks.check(not late, f"{len(bad)} of {len(rows)} new connections failed, none but "
                          f"within {DETECTED_S:g} s after one of {len(self.failures)} failures of "
                          "a backend", late[:5])
        if len(self.memory) > 1:
            # Threads' heaps and what is kept of the latest events fill up first.
            first, last = self.memory[len(self.memory) // 3], self.memory[-1]
            for i, what in ((1, "control plane"), (2, "data plane")):
                self.checks.check(last[i] <= first[i] * (1 + GROWTH[0]) + GROWTH[1],
                                  f"the {what}: {first[i] / 1024:.1f} MiB resident, "
                                  f"{last[i] / 1024:.1f} MiB {last[0] - first[0]:.0f} s later")


def scenario(minutes, seed):
    def run(lab, checks):
        checks.title(f"a soak of {minutes:g} minutes, seed {seed}")
        soak = Soak(lab, checks, minutes, seed)
        soak.run()
        soak.judge()
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16))
    arguments = parser.parse_args()
    return run_scenario(lambda: Lab("soak"), scenario(arguments.minutes, arguments.seed))


if __name__ == "__main__":
    sys.exit(main())
