#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What backends say of themselves, under load, with the figures printed: agents' weights, drain and
down; a sorry server; a bound on connections; heartbeats and their loss; and that a restart of the
control plane forgets none of it, nor what an operator has forced."""

import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.sluice import finish_load, request_log  # noqa: E402
from lab.stand import Stand, service, vip4  # noqa: E402
from story_figures import tell  # noqa: E402

BEAT_S = 0.2
MISSING = 3
SLOW_S = 8
AGENT_PORT = 9777


class Beats(threading.Thread):
    """Sends heartbeats of backends, each with its load, until they are no longer in `loads`."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.loads, self.last, self.ended = path, {}, {}, threading.Event()

    def post(self, address, load):
        more = "" if load is None else f"&load={load}"
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(2)
            s.connect(str(self.path))
            s.sendall(f"POST /v1/heartbeats?backend={address}{more} HTTP/1.1\r\nHost: x\r\n"
                      "Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: s.recv(65536), b""))
        return int(answer.split(b" ")[1])

    def run(self):
        while not self.ended.wait(BEAT_S / 2):
            for address, load in list(self.loads.items()):
                try:
                    self.post(address, load)
                    self.last[address] = time.time()
                except OSError:
                    pass  # the control plane is being restarted


class Story:
    def __init__(self, lab, checks):
        def services(scene):
            web = service(scene, "web", vip4(10))
            web["agent"] = {"port": AGENT_PORT, "interval": "100ms", "timeout": "100ms"}
            web["weights"] = {"smoothing": "0ms", "dead-band": 5, "max-step": 25,
                              "interval": "250ms"}
            web["backends"][3]["sorry"] = True
            beats = service(scene, "beats", vip4(11))
            beats["backends"] = beats["backends"][:3]
            beats["weights"] = web["weights"]
            slow = service(scene, "slow", vip4(12))
            slow["health"] = {"type": "http", "path": "/healthz", "port": 80, "timeout": "300ms",
                              "interval": f"{SLOW_S}s", "fall": 2}
            slow["backends"] = slow["backends"][:3]
            return [web, beats, slow]

        class AgentStand(Stand):
            def wait_until_healthy(self):
                pass  # the sorry server is not checked

        self.checks = checks
        self.lab = lab
        self.stand = AgentStand(lab, services, backends=4)
        self.b, self.scene = self.stand.balancer, self.stand.scene
        self.agents, self.words = {}, {}
        for name in ("b1", "b2", "b3"):
            self.words[name] = lab.path(f"agent-{name}.txt")
            self.say(name, "up ready 100%")
            self.agents[name] = lab.start(name, f"agent-{name}", [
                Path(__file__).with_name("agent_server.py"), str(AGENT_PORT), self.words[name]])
            self.agents[name].wait_for_output("ready", 10)
        self.beats = Beats(self.b.socket)
        self.b.wait_for_health("web", [self.address(n) for n in ("b1", "b2", "b3")])
        wait_until(lambda: set(self.weights()) == {"b1", "b2", "b3"}, 10, "all in use", 0.05)

    def address(self, name):
        return self.scene.address(name)

    def say(self, name, words):
        new = self.lab.path(f"agent-{name}.new")
        new.write_text(words)
        new.rename(self.words[name])
        return time.time()

    def rows(self, name="web"):
        found = self.b.ask(f"/v1/services/{name}/backends")["backends"]
        return {self.scene.by_address(row["address"]): row for row in found}

    def weights(self, name="web"):
        """weights() are those in use, by the backends' names; read back from the tables."""
        return {n: row["effective_weight"] for n, row in self.rows(name).items()
                if row["effective_weight"]}

    def wait_for(self, wanted, what, name="web", timeout=10):
        wait_until(lambda: wanted(self.rows(name)), timeout, what, 0.02)
        return time.time()

    def load(self, name, target, **options):
        options = {"connections": 10, "rate": 100, "timeout_ms": 1000,
                   "requests_per_connection": 1} | options
        load = self.b.start_load(name, target, **options)
        load.wait_for_output("every connection has been answered", 10)
        return load


def weights(s, fresh):
    s.checks.title("an agent's weight")
    at = s.say("b1", "50%")
    shown = s.wait_for(lambda rows: rows["b1"]["effective_weight"] == 53, "half the weight")
    s.checks.check(shown - at > 0.25, "in steps of 25 at most")
    tell(s.checks, "agent weight", at, shown, [fresh])
    time.sleep(0.3)
    before = s.b.ask("/v1/status")["generation"]
    for i in range(10):
        s.say("b1", f"{49 + i % 5}%")
        time.sleep(0.06)
    s.checks.check(s.b.ask("/v1/status")["generation"] == before,
                   "reports that jitter within the dead band build no table")
    rows = s.rows()
    s.checks.check(abs(rows["b1"]["share"] - 53 / 253) < 0.001, "its share follows",
                   rows["b1"]["share"])


def drain_and_down(s, fresh):
    s.checks.title("an agent says drain, then ready")
    kept = s.load("kept", vip4(10), connections=30, requests_per_connection=0)
    at = s.say("b2", "drain")
    shown = s.wait_for(lambda rows: rows["b2"]["standing"] == "draining", "draining")
    tell(s.checks, "agent drain", at, shown, [fresh], [kept], ["b2"])
    time.sleep(0.5)
    log = request_log(kept)
    stayed = [r for r in log if r["began"] > shown + 0.1 and r["backend"] == "b2"]
    s.checks.check(stayed and all(r["outcome"] == "ok" for r in log),
                   f"its connections go on ({len(stayed)} requests since)")
    s.checks.check(not [r for r in request_log(fresh)
                        if r["began"] > shown + 0.1 and r["backend"] == "b2"], "it gets no new ones")
    s.say("b2", "75%")
    time.sleep(0.3)
    s.checks.check(s.rows()["b2"]["standing"] == "draining", "a weight does not take it back")
    s.say("b2", "ready 100%")
    s.wait_for(lambda rows: rows["b2"]["effective_weight"] == 100, "ready")

    s.checks.title("an agent says down")
    at = s.say("b3", "down#disk is full")
    shown = s.wait_for(lambda rows: rows["b3"]["standing"] == "down", "down")
    row = s.rows()["b3"]
    s.checks.check(row["health"] == "down" and "disk is full" in row["health_text"],
                   "and why is shown", row)
    tell(s.checks, "agent down", at, shown, [fresh], [kept], ["b3"])
    log = request_log(kept)
    moved = {r["connection"] for r in log if r["backend"] == "b3"}
    innocent = [r for r in log if r["outcome"] != "ok" and r["connection"] not in moved]
    broken = {r["connection"] for r in log if r["outcome"] != "ok"}
    s.checks.check(not innocent, f"{len(broken)} of its {len(moved)} connections broke, nobody "
                   "else's", innocent[:3])
    s.say("b3", "100%")
    time.sleep(0.3)
    s.checks.check(s.rows()["b3"]["standing"] == "down", "a weight does not take it back")
    s.say("b3", "up")
    s.wait_for(lambda rows: rows["b3"]["effective_weight"] == 100, "up")
    finish_load(kept, stop=True)


def bound(s):
    s.checks.title("a bound on connections")
    kept = s.load("bounded", vip4(10), connections=30, requests_per_connection=0)
    # New connections begin with a request; 30 a second more, until b1 has enough.
    has = wait_until(lambda: s.rows()["b1"]["connections"], 5, "connections", 0.05)
    most = has + 10
    s.say("b1", f"100% maxconn:{most}")
    s.wait_for(lambda rows: rows["b1"]["max_connections"] == most, "the bound")
    rush = s.load("rush", vip4(10), connections=150, rate=600, requests_per_connection=0)
    shown = s.wait_for(lambda rows: rows["b1"]["standing"] == "full", "full")
    time.sleep(0.5)
    row = s.rows()["b1"]
    s.checks.figure(f"bound {most}, {row['connections']} connections in the end, while 150 more came "
                    f"to three backends")
    late = [r for r in request_log(rush) if r["began"] > shown + 0.2]
    begun = {r["connection"]: r for r in reversed(request_log(rush))}
    new = [r for r in begun.values() if r["began"] > shown + 0.2 and r["backend"] == "b1"]
    s.checks.check(row["effective_weight"] == 0 and not new, "full, it gets no new ones", new[:3])
    s.checks.check(late and all(r["outcome"] == "ok" for r in request_log(rush)) and
                   any(r["backend"] == "b1" for r in late), "and keeps those that it has")
    finish_load(rush, stop=True)
    finish_load(kept, stop=True)
    s.say("b1", "100% maxconn:0")
    s.wait_for(lambda rows: rows["b1"]["effective_weight"] == 100 and
               rows["b1"]["max_connections"] is None, "no bound any more")


def sorry(s, fresh):
    s.checks.title("nobody can serve but the sorry server")
    for name in ("b1", "b2", "b3"):
        at = s.say(name, "stopped")
    shown = s.wait_for(lambda rows: rows["b4"]["standing"] == "sorry", "the sorry server")
    tell(s.checks, "sorry server", at, shown, [fresh], gone=["b1", "b2", "b3"])
    rows = [r for r in request_log(fresh) if r["began"] > shown + 0.1]
    s.checks.check(rows and {r["backend"] for r in rows} == {"b4"}, "it answers all requests")
    now = s.b.ask("/v1/services/web")
    s.checks.check(now["sorry"] and not now["panic"] and now["quorum"], "the service says so")
    for name in ("b1", "b2", "b3"):
        s.say(name, "up 100%")
    s.wait_for(lambda rows: not rows["b4"]["effective_weight"], "the others")


def heartbeats(s):
    s.checks.title("heartbeats, and their loss")
    s.beats.start()
    addresses = [s.address(n) for n in ("b1", "b2", "b3")]
    s.checks.check(s.beats.post(addresses[0], None) == 404, "nobody expects any yet")
    s.stand.services[1]["heartbeat"] = {"interval": f"{BEAT_S * 1000:.0f}ms", "missing": MISSING}
    s.beats.loads = dict.fromkeys(addresses)
    s.b.apply(s.stand.services)
    s.wait_for(lambda rows: set(s.weights("beats")) == {"b1", "b2", "b3"} and
               all(row["heartbeat"]["state"] == "alive" for row in rows.values()), "all alive",
               "beats")
    fresh = s.load("alive", vip4(11))
    del s.beats.loads[addresses[1]]
    time.sleep(BEAT_S / 2)  # one that is under way
    at = s.beats.last[addresses[1]]
    shown = s.wait_for(lambda rows: rows["b2"]["standing"] == "down", "missing", "beats")
    tell(s.checks, f"heartbeat lost ({MISSING} x {BEAT_S * 1000:.0f} ms)", at, shown, [fresh],
         gone=["b2"])
    s.checks.check(BEAT_S * MISSING - 0.05 <= shown - at < BEAT_S * MISSING + 1.5,
                   f"{shown - at:.2f} s after the last one")
    s.beats.loads[addresses[1]] = None
    s.wait_for(lambda rows: rows["b2"]["effective_weight"] == 100, "back", "beats")
    s.beats.loads[addresses[0]] = 0.5
    s.wait_for(lambda rows: rows["b1"]["effective_weight"] == 53, "half the weight", "beats")
    s.checks.check(s.b.sluice("heartbeat", addresses[2], "--load", "2", check=False).returncode == 1,
                   "a load of 2 is refused")
    del s.beats.loads[addresses[2]]
    s.wait_for(lambda rows: rows["b3"]["standing"] == "down", "missing", "beats")
    return fresh


def restart(s, loads):
    s.checks.title("the control plane is killed and started again")
    s.say("b1", "50%")
    s.say("b2", "drain")
    s.b.sluice("backend", "force", "web", s.address("b3"), "up", "--reason", "a test")
    s.say("b3", "down#no matter")
    s.wait_for(lambda rows: rows["b1"]["effective_weight"] == 53 and
               rows["b2"]["standing"] == "draining" and rows["b3"]["agent"]["down"], "all of it")
    time.sleep(2.5)  # what is said is stored within two seconds
    for agent in s.agents.values():
        agent.stop()

    def state():
        return {name: {n: (row["standing"], row["effective_weight"], row["admin"],
                           (row["admin_set"] or {}).get("reason"))
                       for n, row in s.rows(name).items()} for name in ("web", "beats")}
    before = state()
    digests = {n: s.b.ask(f"/v1/services/{n}")["digest"] for n in ("web", "beats")}
    at = time.time()
    s.b.controlplane.kill()
    s.b.start_controlplane()
    seen = [state()]
    for _ in range(10):
        time.sleep(0.1)
        seen.append(state())
    s.checks.check(all(now == before for now in seen), "who gets what is as it was, at once and "
                   "later, without any agent", [now for now in seen if now != before][:1] + [before])
    after = {n: s.b.ask(f"/v1/services/{n}")["digest"] for n in ("web", "beats")}
    s.checks.check(after == digests, "the tables are the same")
    bad = [r for load in loads for r in request_log(load)
           if r["began"] >= at and r["outcome"] != "ok"]
    s.checks.check(not bad, "no request failed meanwhile", bad[:3])
    s.checks.check(s.rows("beats")["b3"]["heartbeat"]["state"] == "missing",
                   "who was missing is missing")


def passive(s):
    s.checks.title(f"a backend falls silent, checked each {SLOW_S} s")
    s.b.wait_for_health("slow", [s.address(n) for n in ("b1", "b2", "b3")])
    fresh = s.load("slow", vip4(12), timeout_ms=400)
    at = time.time()
    s.lab.ip("b2", "link set eth0 down")
    shown = s.wait_for(lambda rows: not rows["b2"]["effective_weight"], "b2 out of use", "slow", 20)
    s.checks.check(shown - at < SLOW_S / 2, f"found after {shown - at:.2f} s, by what the data plane "
                   "has counted")
    tell(s.checks, "passive detection", at, shown, [fresh], gone=["b2"])
    finish_load(fresh, stop=True)


def scenario(lab, checks):
    s = Story(lab, checks)
    fresh = s.load("fresh", vip4(10))
    weights(s, fresh)
    drain_and_down(s, fresh)
    bound(s)
    sorry(s, fresh)
    alive = heartbeats(s)
    restart(s, [fresh, alive])
    passive(s)
    s.beats.ended.set()
    for load in (fresh, alive):
        report = finish_load(load, stop=True)
        checks.figure(f"{load.name}: {report['requests_ok']} requests answered, "
                      f"{report['requests_failed']} failed in all")
    checks.check(s.b.dataplane.running() and s.b.controlplane.running(), "both daemons run")


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("reports"), scenario))
