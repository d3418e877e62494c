#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Server-sent events: what happens arrives, in order and once; a reader that comes back goes on
where it was, also at a control plane that was killed since; one that does not read is dropped, and
keeps nobody; and `sluice events`. Only the control plane runs, in a network namespace of its own,
with real listeners as backends."""

import json
import signal
import socket
import subprocess
import sys
import time

from control_stand import BACKENDS, BUILD, SERVICES, Web, check, wait_until, with_daemon

CLI = BUILD / "tools" / "cli" / "sluice"
TIERS = SERVICES.replace("10.77.0.13, weight: 50", "10.77.0.13, tier: 1, weight: 50")


class Stream:
    """One reader of /v1/events."""

    def __init__(self, d, query="", last=None):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(d.socket)
        header = f"Last-Event-ID: {last}\r\n" if last is not None else ""
        self.socket.sendall(f"GET /v1/events{query} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        self.file = self.socket.makefile("rb")
        head = b"".join(iter(self.file.readline, b"\r\n")).decode()
        self.code = int(head.split()[1])
        self.head = head
        self.text = ""
        self.heartbeats = 0

    def piece(self):
        size = int(self.file.readline().strip() or b"0", 16)
        self.text += self.file.read(size).decode()
        self.file.readline()
        return size

    def next(self):
        """next() returns the next event; fields as they were sent in _id and _event."""
        while True:
            while "\n\n" not in self.text:
                check(self.piece() > 0, "the stream goes on")
            block, self.text = self.text.split("\n\n", 1)
            if block.startswith(":"):
                self.heartbeats += 1
                continue
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            event = json.loads(fields["data"])
            check(int(fields["id"]) == event["id"] and fields["event"] == event["type"], block)
            return event

    def until(self, wanted, most=200):
        seen = []
        for _ in range(most):
            seen.append(self.next())
            if wanted(seen[-1]):
                return seen
        raise AssertionError(f"not among {most} events: {seen[-5:]}")

    def close(self):
        self.file.close()
        self.socket.close()


def is_(kind, **fields):
    return lambda e: e["type"] == kind and all(e.get(k) == v for k, v in fields.items())


def test_what_arrives(d, webs):
    stream = Stream(d)
    check(stream.code == 200 and "Content-Type: text/event-stream" in stream.head, stream.head)
    d.call("PUT", "/v1/config", TIERS, {"X-Sluice-Author": "me", "X-Sluice-Reason": "why"})
    seen = stream.until(is_("health", backend=BACKENDS[1], health="up"))
    revision = next(e for e in seen if e["type"] == "revision")
    check(revision["revision"] == 1 and revision["author"] == "me" and revision["reason"] == "why"
          and revision["changes"] > 0, revision)
    check(any(e["type"] == "publish" and e["revision"] == 1 for e in seen), "published")
    wait_until(lambda: all(b["health"] == "up" for b in
                           d.get("/v1/services/web")["backends"]), "all are up")
    # Of tier 0 one is left, which is enough; then none.
    webs[0].down()
    down = stream.until(is_("health", backend=BACKENDS[0], health="down"))[-1]
    check(down["service"] == "web" and down["text"], down)
    webs[1].down()
    tier = stream.until(is_("tier"))[-1]
    check(tier["service"] == "web" and tier["tier"] == 1 and tier["before"] == 0, tier)
    webs[2].down()
    panic = stream.until(is_("panic"))[-1]
    check(panic["panic"] is True and panic["service"] == "web", panic)
    for web in webs:
        web.up()
    stream.until(is_("panic", panic=False))
    only = Stream(d, "?type=health,panic&service=plain&after=0")
    recent = d.get("/v1/events/recent?limit=4096")
    ids = [e["id"] for e in recent["events"]]
    check(ids == list(range(ids[0], ids[0] + len(ids))) and recent["last"] == ids[-1],
          "every number once, in order")
    check(len(d.get("/v1/events/recent?limit=2&type=health")["events"]) == 2, "limit")
    page = d.get(f"/v1/events/recent?after={ids[0]}&limit=1")
    check([e["id"] for e in page["events"]] == [ids[1]] and page["last"] == ids[1], "a page")
    check(d.get("/v1/events/recent?service=plain")["events"] == [], "of one service")
    began = time.monotonic()
    only.socket.settimeout(9)
    while only.heartbeats < 2:
        only.piece()
        only.heartbeats += only.text.count(":\n\n")
        only.text = only.text.replace(":\n\n", "")
    check(only.text == "" and 4 < time.monotonic() - began < 9, "a heartbeat, and nothing else")
    only.close()
    stream.close()
    for query, key in (("?after=x", "after"), ("?type=nonsense", "type"), ("?type=", "type")):
        code, answer = d.call("GET", "/v1/events" + query)
        check(code == 400 and answer["errors"][0]["key"] == key, answer)


def test_resume(d):
    first = Stream(d)
    d.call("PATCH", f"/v1/services/web/backends/{BACKENDS[0]}", {"weight": 7})
    last = first.until(is_("revision"))[-1]["id"]
    first.close()
    d.call("PATCH", f"/v1/services/web/backends/{BACKENDS[0]}", {"weight": 8})
    again = Stream(d, last=last)
    check(again.next()["id"] == last + 1, "goes on after what it has seen")
    again.close()
    check(d.end(signal.SIGKILL) == -signal.SIGKILL, "killed")
    d.start()
    after = Stream(d, last=last)
    gap = after.next()
    check(gap["type"] == "gap" and gap["id"] > last, f"told of what it has missed: {gap}")
    check(after.next()["id"] == gap["id"] + 1, "and given what there is")
    after.close()


def test_many_and_slow(d):
    """Sixteen readers that never read, and nobody is kept from anything."""
    slow = []

    def another():
        s = Stream(d, "?after=0")
        if s.code == 200:
            slow.append(s)
        else:
            s.close()
        return len(slow) == 16
    # Those who have just left are noticed within a quarter of a second.
    wait_until(another, "sixteen streams")
    refused = Stream(d)
    check(refused.code == 503, f"the seventeenth is refused: {refused.code}")
    refused.close()
    times = []
    for i in range(40):
        began = time.monotonic()
        code, _ = d.call("PATCH", f"/v1/services/web/backends/{BACKENDS[0]}", {"weight": 20 + i},
                         {"X-Sluice-Reason": "r" * 200})
        times.append(time.monotonic() - began)
        check(code == 200, "a change beside them")
    print(f"40 changes beside 16 readers that do not read: {1000 * max(times):.0f} ms at most, "
          f"{1000 * sum(times) / len(times):.1f} ms on average")
    for s in slow:
        s.close()

    def place():
        s = Stream(d)
        s.close()
        return s.code == 200
    wait_until(place, "their places are free once they are gone")


def test_cli(d):
    d.call("PATCH", f"/v1/services/web/backends/{BACKENDS[0]}", {"weight": 77},
           {"X-Sluice-Author": "me"})
    recent = subprocess.run([CLI, "--socket", d.socket, "events", "--recent", "5", "--type",
                             "revision"], capture_output=True, text=True, timeout=20, check=False)
    check(recent.returncode == 0 and len(recent.stdout.splitlines()) == 5
          and "by me: 1 changes" in recent.stdout.splitlines()[-1], recent.stdout + recent.stderr)
    last = d.get("/v1/events/recent?limit=1")["last"]
    with subprocess.Popen([CLI, "--socket", d.socket, "events", "--after", str(last), "-o", "json"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        d.call("PATCH", f"/v1/services/web/backends/{BACKENDS[0]}", {"weight": 78})
        events = [json.loads(follower.stdout.readline()) for _ in range(2)]
        check([e["type"] for e in events] == ["revision", "publish"] and
              events[0]["id"] == last + 1, events)
        check(d.end() == 0, "the control plane ends although somebody follows")
        check(follower.wait(timeout=20) == 1 and "hung up" in follower.stderr.read(), "told so")
    d.start()
    wrong = subprocess.run([CLI, "--socket", d.socket, "events", "--type", "x"],
                           capture_output=True, text=True, timeout=20, check=False)
    check(wrong.returncode == 1 and "type: is a list of" in wrong.stderr, wrong.stderr)


def scenario(d):
    webs = [Web(a) for a in BACKENDS]
    d.start()
    test_what_arrives(d, webs)
    test_resume(d)
    test_many_and_slow(d)
    test_cli(d)


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
