#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The sessions of nat and full-nat services survive the data plane: killed with -9, and stopped
with SIGTERM, under 120 TCP connections with traffic all the time, and away for a second. Nobody
translates meanwhile, so they wait; none is reset, and all go on with the data plane that comes
next. Sessions in a file that is damaged are refused, and SIGINT leaves none."""

import selectors
import signal
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.scene import Scene, vip4, vip6  # noqa: E402
from lab.sluice import Balancer  # noqa: E402
from nat_test import HEALTH, POOL, PORT  # noqa: E402
from netns_sockets import EchoServer, family, new_socket  # noqa: E402

AWAY_S = 1.0
PAUSE_S = 0.05  # between an answer and the next message
# name: (forward, client-address, connections over IPv4, and as many over IPv6)
KINDS = {"nat": ("nat", None, 25), "full": ("full-nat", None, 25),
         "proxy": ("full-nat", "proxy-v2", 10)}
ALL = 2 * sum(n for _, _, n in KINDS.values())
PROXY_HEADER = {False: 28, True: 52}  # bytes; the backend echoes it as well
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Talk:
    """A connection that sends numbers and waits for each to come back."""

    def __init__(self, lab, kind, vip):
        self.kind = kind
        self.sock = new_socket(lab, "client", family(vip), socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect((vip, PORT))
        self.sock.setblocking(False)
        self.header = PROXY_HEADER[":" in vip] if kind == "proxy" else 0
        self.answered = 0
        self.waiting = None
        self.received = b""
        self.due = 0.0
        self.broken = None

    def say(self, now):
        if self.broken or self.waiting or now < self.due:
            return
        self.waiting = b"%012d\n" % self.answered
        try:
            self.sock.sendall(self.waiting)
        except OSError as error:
            self.broken = f"send: {error}"

    def hear(self):
        try:
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.broken = f"receive: {error}"
            return
        self.received += data
        if not data:
            self.broken = "closed by the other end"
        if len(self.received) < self.header + len(self.waiting or b""):
            return
        if self.header and not self.received.startswith(PROXY_SIGNATURE):
            self.broken = f"no PROXY header: {self.received[:self.header]!r}"
        if self.received[self.header:] != self.waiting:
            self.broken = f"sent {self.waiting!r}, got {self.received!r}"
        self.header, self.received, self.waiting = 0, b"", None
        self.answered += 1
        self.due = time.monotonic() + PAUSE_S


class Talks:
    """All of them, in a thread."""

    def __init__(self, lab):
        self.all = [Talk(lab, kind, vip(kind, v6))
                    for kind, (_, _, n) in KINDS.items() for v6 in (False, True)
                    for _ in range(n)]
        self.running = True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with selectors.DefaultSelector() as selector:
            for talk in self.all:
                selector.register(talk.sock, selectors.EVENT_READ, talk)
            while self.running:
                for talk in self.all:
                    talk.say(time.monotonic())
                for key, _ in selector.select(0.01):
                    key.data.hear()
                    if key.data.broken:
                        selector.unregister(key.fileobj)

    def stop(self):
        self.running = False
        self.thread.join()
        for talk in self.all:
            talk.sock.close()

    def broken(self, *kinds):
        return [f"{t.kind}: {t.broken}" for t in self.all
                if t.broken and (not kinds or t.kind in kinds)]

    def answered(self):
        return [t.answered for t in self.all]

    def go_on(self, since, kinds=tuple(KINDS), more=5):
        """go_on() tells whether every one has had that many answers since, or is broken."""
        return all(t.broken or t.answered >= n + more
                   for t, n in zip(self.all, since, strict=True) if t.kind in kinds)


def vip(kind, v6):
    return (vip6 if v6 else vip4)(60 + list(KINDS).index(kind))


def build(lab):
    scene = Scene(lab, backends=2, segments=2)
    for name in scene.backends:
        for v6 in (False, True):
            # What a backend answers from its own address goes back through the balancer.
            lab.ip(name, f"route replace default via {scene.edge_address(v6, 1)}",
                   f"route add {'fd77::/64' if v6 else '10.77.0.0/24'} via "
                   f"{scene.edge_address(v6, 1)}")
            EchoServer(lab, name, scene.address(name, v6), PORT)
    lab.ip("edge", f"address add {POOL[False]}/32 dev down0",
           f"address add {POOL[True]}/128 dev down0 nodad preferred_lft 0")
    balancer = Balancer(scene, dataplane={
        "nat-pool": {"ipv4": [POOL[False]], "ipv6": [POOL[True]]}})
    balancer.start()
    services = [{"name": f"{kind}-{'6' if v6 else '4'}", "address": vip(kind, v6),
                 "protocol": "tcp", "port": PORT, "forward": forward, "health": HEALTH,
                 **({"client-address": client} if client else {}),
                 "backends": [{"address": scene.address(b, v6)} for b in scene.backends]}
                for kind, (forward, client, _) in KINDS.items() for v6 in (False, True)]
    balancer.apply(services)
    balancer.wait_until_usable(services)
    return balancer


def nat_files(balancer):
    return sorted(balancer.run_directory.glob("*.nat.*"))


def restart(balancer, number, meanwhile=lambda: None):
    """restart() has the data plane away for a while; returns what the next one says."""
    balancer.dataplane.signal(number)
    balancer.dataplane.wait(10)
    time.sleep(AWAY_S)
    meanwhile()
    balancer.start_dataplane()
    return [line for line in balancer.dataplane.output().split("\n") if "NAT sessions" in line]


def survive(balancer, checks, talks, name, number):
    checks.title(f"{name}, away for {AWAY_S:.0f} s, under {ALL} connections")
    since = talks.answered()
    wait_until(lambda: talks.go_on(since), 20, "traffic on every connection")
    checks.check(not talks.broken(), "all of them work", talks.broken())
    at_rest = []

    def look():
        at_rest.append(talks.answered())
        time.sleep(0.2)
        at_rest.append(talks.answered())

    said = restart(balancer, number, look)
    began = time.monotonic()
    checks.check(at_rest[0] == at_rest[1], "nobody translated meanwhile")
    checks.check(any(f"taken over {ALL} from" in line for line in said),
                 f"the next one has taken over {ALL} sessions", said)
    wait_until(lambda: talks.go_on(at_rest[1]), 30, "every connection to go on, or break")
    checks.figure(f"all have gone on {time.monotonic() - began:.1f} s later")
    checks.check(not talks.broken(), f"{len(talks.broken())} of {ALL} were reset or closed",
                 talks.broken())
    now = balancer.counters()
    checks.check(now["nat_sessions_opened"] - now["nat_sessions_closed"] == ALL,
                 "and are counted as open sessions", {k: v for k, v in now.items() if "nat" in k})


def scenario(lab, checks):
    balancer = build(lab)
    checks.check(len(nat_files(balancer)) == 1, "the sessions are in a file", nat_files(balancer))
    talks = Talks(lab)
    survive(balancer, checks, talks, "kill -9", signal.SIGKILL)
    survive(balancer, checks, talks, "SIGTERM", signal.SIGTERM)

    checks.title("kill -9, and the file is damaged")

    def damage():
        with open(nat_files(balancer)[0], "r+b") as file:
            file.seek(24)  # how many sessions there are
            file.write(b"\x01")

    since = talks.answered()
    said = restart(balancer, signal.SIGKILL, damage)
    checks.check(any("start empty" in line and "checksum" in line for line in said),
                 "the next one says that it has not taken them over, and why", said)
    wait_until(lambda: talks.go_on(since, ("nat",)), 30, "what nat can take up again")
    wait_until(lambda: len(talks.broken("full", "proxy")) > ALL / 4, 30,
               "full-nat connections to break, as without a file")
    talks.stop()
    balancer.dataplane.signal(signal.SIGINT)
    checks.check(balancer.dataplane.wait(10) == 0, "SIGINT ends it")
    checks.check(not nat_files(balancer), "and leaves no sessions", nat_files(balancer))


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("natre"), scenario))
