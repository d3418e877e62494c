#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Backends that are discovered: by a real dnsmasq whose records change, vanish and are wrong, and
by a file. What is known stays when there is no answer, also over kill -9; what an operator asks of
a discovered backend holds; what vanishes is drained first; none of it makes a revision."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from control_stand import check, wait_until, with_daemon  # noqa: E402


class Dns:
    """dnsmasq on the loopback of this test's namespace."""

    def __init__(self, directory):
        self.hosts = Path(directory) / "hosts"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = None

    def start(self, *more):
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-hosts",
             "--no-resolv", "--local=/test/", "--local-ttl=1", "--pid-file=", "--log-facility=-",
             "--listen-address=127.0.0.1", "--bind-interfaces", f"--port={self.port}",
             f"--addn-hosts={self.hosts}", *more],
            stderr=subprocess.DEVNULL)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=10)
            self.process = None

    def records(self, *addresses):
        self.hosts.write_text("".join(f"{a} web.test\n" for a in addresses), encoding="utf-8")
        if self.process:
            self.process.send_signal(signal.SIGHUP)


def scenario(d):
    dns = Dns(d.directory)
    try:
        story(d, dns)
        file_story(d)
    finally:
        dns.stop()


def shown(d, name):
    return {b["address"].removeprefix("10.77.0."): (b["source"], b["admin"])
            for b in d.get(f"/v1/services/{name}")["backends"]}


def warned(d, text):
    return any(text in w for w in d.get("/v1/status")["warnings"])


def metric(d, name):
    page = subprocess.run(["curl", "-s", f"http://127.0.0.1:{d.metrics_port}/metrics"], check=True,
                          capture_output=True, text=True).stdout
    return {line.split(" ")[0]: float(line.split(" ")[1]) for line in page.splitlines()
            if line.startswith(name + "{")}


def story(d, dns):
    dns.records("10.77.0.11", "10.77.0.12")
    dns.start()
    d.start()
    by_dns = {"type": "dns", "name": "web.test", "server": f"127.0.0.1:{dns.port}",
              "min-interval": "200ms", "max-interval": "1s"}
    web = {"name": "web", "address": "198.51.100.10", "port": 80, "forward": "ipip",
           "table-size": 1021, "drain-deadline": "2s", "discover": by_dns,
           "backends": [{"address": "10.77.0.50", "weight": 10}]}
    other = {**web, "name": "other", "address": "198.51.100.11", "backends": [],
             "discover": {**by_dns, "weight": 7, "max-backends": 2}}
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": [web, other]}))
    check(status == 200, str(answer))
    new, configured = ("discovered", "enabled"), ("configured", "enabled")
    wait_until(lambda: shown(d, "web") == {"11": new, "12": new, "50": configured}, "found")
    wait_until(lambda: set(shown(d, "other")) == {"11", "12"}, "found for the other service, too")
    check(d.backend("10.77.0.11", "other")["weight"] == 7, "each service gives its own weight")
    check(len(metric(d, "sluice_discover_answers_total")) == 1, "one source for two services")
    check("10.77.0.11" not in json.dumps(d.get("/v1/config")), "not in the desired state")

    began = time.monotonic()
    dns.records("10.77.0.12", "10.77.0.13")
    wait_until(lambda: "13" in shown(d, "web"), "a record that is new")
    print(f"a changed record is in use after {time.monotonic() - began:.1f} s (TTL 1 s)")
    check(shown(d, "web")["11"] == ("vanished", "draining"), f"drained: {shown(d, 'web')}")
    check(d.get("/v1/status")["revision"] == 1, "no revision")
    wait_until(lambda: "11" not in shown(d, "web"), "gone after drain-deadline")

    # What an operator asks of one of them.
    path = "/v1/services/web/backends/10.77.0.12"
    status, answer = d.call("POST", f"{path}/drain", "{}", {"X-Sluice-Author": "me"})
    check(status == 200 and answer["revision"] == 2, str(answer))
    check(shown(d, "web")["12"] == ("discovered", "draining"), "drained by an operator")
    check(d.backend("10.77.0.12")["admin_set"]["author"] == "me", "and it says by whom")
    check(shown(d, "other")["12"] == new, "in this service only")
    status, answer = d.call("PATCH", path, json.dumps({"weight": 5}))
    check(status == 400 and "is discovered" in str(answer), str(answer))
    status, answer = d.call("DELETE", path)
    check(status == 409 and "is discovered" in str(answer), str(answer))

    # Too many for one of the services; the other one takes them.
    dns.records("10.77.0.12", "10.77.0.13", "10.77.0.14")
    wait_until(lambda: "14" in shown(d, "web"), "three of them")
    wait_until(lambda: warned(d, "expected at most 2"), "too many: a warning")
    check("14" not in shown(d, "other"), "and the service stays as it was")
    # What cannot be a backend.
    dns.records("10.77.0.12", "127.0.0.1")
    wait_until(lambda: warned(d, "127.0.0.1 is a loopback address"), "a bad address: a warning")
    check({"12", "13", "14"} <= set(shown(d, "web")), "all is refused")
    # NXDOMAIN, then nobody who answers, and a start in the meantime.
    dns.records()
    wait_until(lambda: warned(d, "NXDOMAIN"), "no such name: a warning")
    check(sum(metric(d, "sluice_discover_errors_total").values()) > 0, "and a metric")
    dns.stop()
    before = shown(d, "web")
    time.sleep(1.2)  # what is known is on disk a second later
    check(d.end(signal.SIGKILL) == -signal.SIGKILL, "killed")
    d.start()
    check(shown(d, "web") == before and before["12"] == ("discovered", "draining"),
          f"known after a restart: {shown(d, 'web')}, before: {before}")
    wait_until(lambda: warned(d, "discover dns web.test"), "nobody answers: a warning", 20)
    check(shown(d, "web") == before, "and all stays")

    # SRV: priorities are tiers, weights weights, ports ports where the mode can change them.
    dns.hosts.write_text("10.77.0.21 t1.test\n10.77.0.22 t2.test\n10.77.0.12 web.test\n",
                         encoding="utf-8")
    dns.start("--srv-host=_web._tcp.test,t1.test,8081,10,30",
              "--srv-host=_web._tcp.test,t2.test,8082,20,0")
    srv = {**web, "name": "srv", "address": "198.51.100.12", "forward": "nat", "backends": [],
           "discover": {**by_dns, "name": "_web._tcp.test", "records": "srv"}}
    status, answer = d.call("POST", "/v1/services", json.dumps(srv))
    check(status == 200, str(answer))
    wait_until(lambda: len(shown(d, "srv")) == 2, "SRV records")
    got = [(b["port"], b["tier"], b["weight"]) for b in d.get("/v1/services/srv")["backends"]]
    check(got == [(8081, 0, 30), (8082, 1, 100)], str(got))
    wait_until(lambda: shown(d, "web").get("13", ("vanished",))[0] == "vanished" and
               not d.get("/v1/status")["warnings"][1:], "all is well again")
    status, answer = d.call("POST", f"{path}/undrain", "{}")
    check(status == 200 and shown(d, "web")["12"] == new, f"undrained: {answer}")


def file_story(d):
    path = Path(d.directory) / "backends.yaml"
    service = {"name": "listed", "address": "198.51.100.13", "port": 80, "forward": "ipip",
               "table-size": 1021, "discover": {"type": "file", "path": str(path)}}
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": [service]}))
    check(status == 200, str(answer))
    wait_until(lambda: warned(d, str(path)), "no such file: a warning")

    def write(text):
        beside = path.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)

    write("backends:\n  - {address: 10.77.0.31, weight: 5}\n")
    wait_until(lambda: set(shown(d, "listed")) == {"31"}, "read")
    check(d.backend("10.77.0.31", "listed")["weight"] == 5, "with its weight")
    began = time.monotonic()
    write("backends:\n  - {address: 10.77.0.31, weight: 6}\n  - {address: 10.77.0.32}\n")
    wait_until(lambda: set(shown(d, "listed")) == {"31", "32"}, "read again")
    print(f"a changed file is in use after {time.monotonic() - began:.2f} s")
    write("backends:\n  - {address: 10.77.0.31}\n  - {address: 10.77.0.3x}\n")
    wait_until(lambda: warned(d, f"{path}:3"), "what is wrong, by file and line")
    check(set(shown(d, "listed")) == {"31", "32"}, "and all stays")
    write("backends: []\n")
    wait_until(lambda: warned(d, "the answer is empty"), "an empty one is not taken")
    check(set(shown(d, "listed")) == {"31", "32"}, "and all stays")


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
