#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""perf/backup_costs.py: what backups of each kind cost, and restores from them, over a history of
10,000 revisions (100 services of 10 backends; each revision changes one backend). Prints the table
of docs/backup.md. Runs a control plane of its own in a directory under $TMPDIR; needs a build.

usage: perf/backup_costs.py [--revisions N] [--repeat N]"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = Path(os.environ.get("SLUICE_BUILD", Path(__file__).resolve().parents[1] / "build"))
CLI = BUILD / "tools" / "cli" / "sluice"
DAEMON = BUILD / "controlplane" / "sluice-controlplane"
SERVICES = 100
BACKENDS = 10
STEPS = 10  # backups after the full one
NODE = """node: {{name: perf1, runtime-dir: {d}}}
dataplane:
  ports: [{{name: up0, device: "net_null0"}}]
  next-hop: {{up0: "02:00:00:00:00:01"}}
  encap-source: {{ipv4: 192.0.2.10}}
controlplane: {{state: {d}/state.db, history: {{revisions: all}}}}
"""


def services():
    return {"services": [
        {"name": f"s{s}", "address": f"198.51.100.{s + 1}", "protocol": "tcp", "port": 443,
         "forward": "ipip", "table-size": 1021,
         "backends": [{"address": f"10.0.{s}.{b + 1}", "weight": 100} for b in range(BACKENDS)]}
        for s in range(SERVICES)]}


class Api:
    """One connection to the control plane, kept as long as it lets us."""

    def __init__(self, path):
        self.path = path
        self.connection = None

    def call(self, method, path, body=None):
        if self.connection is None:
            self.connection = http.client.HTTPConnection("localhost", timeout=60)
            self.connection.sock = socket.socket(socket.AF_UNIX)
            self.connection.sock.connect(self.path)
        self.connection.request(method, path, body and json.dumps(body))
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
        if answer.will_close or answer.headers.get("Connection") == "close":
            self.connection.close()
            self.connection = None
        return json.loads(text)


class Node:
    def __init__(self, directory):
        self.directory = directory
        self.socket = f"{directory}/api.sock"
        Path(directory, "node.yaml").write_text(NODE.format(d=directory), encoding="utf-8")
        with open(f"{directory}/log", "wb") as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen([DAEMON, "--node", f"{directory}/node.yaml"],
                                            stdout=log, stderr=log)
        end = time.monotonic() + 60
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(Path(directory, "log").read_text(encoding="utf-8"))
            time.sleep(0.05)
        self.api = Api(self.socket)
        self.rng = random.Random(1)

    def change(self, times):
        """change() makes revisions; returns the seconds of each."""
        took = []
        for _ in range(times):
            s, b = self.rng.randrange(SERVICES), self.rng.randrange(BACKENDS)
            start = time.perf_counter()
            answer = self.api.call("PATCH", f"/v1/services/s{s}/backends/10.0.{s}.{b + 1}",
                                   {"weight": self.rng.randrange(1, 60000)})
            took.append(time.perf_counter() - start)
            if not answer["changes"]:
                self.change(1)
        return took

    def cli(self, *words):
        """cli() returns the seconds that a command took, and its answer."""
        start = time.perf_counter()
        result = subprocess.run([CLI, "--socket", self.socket, "--timeout", "600", *words, "-o",
                                 "json"], capture_output=True, text=True, check=False)
        took = time.perf_counter() - start
        if result.returncode != 0:
            sys.exit(f"sluice {' '.join(words)}: {result.stderr}")
        return took, json.loads(result.stdout)

    def end(self):
        self.process.terminate()
        self.process.wait()


def seconds(values):
    median = statistics.median(values)
    return f"{median * 1000:.0f} ms" if median < 10 else f"{median:.1f} s"


def size(n):
    return f"{n / 1000:.1f} kB" if n < 1_000_000 else f"{n / 1e6:.2f} MB"


def measure(directory, revisions, repeat):
    node = Node(directory)
    try:
        node.api.call("PUT", "/v1/config", services())
        text = len(subprocess.run([CLI, "--socket", node.socket, "get", "config"],
                                  capture_output=True, check=True).stdout)
        tail = revisions // 10
        commits = node.change(revisions - 1 - tail)
        d = {k: f"{directory}/{k}" for k in ("full", "incremental", "differential")}
        for kind in ("incremental", "differential"):
            node.cli("backup", "create", "--kind", "full", "--to", d[kind])
        cost = {"full": [], "incremental": [], "differential": []}
        sizes = {"full": [], "incremental": [], "differential": []}
        for _ in range(STEPS):
            commits += node.change(tail // STEPS)
            for kind in ("incremental", "differential"):
                took, answer = node.cli("backup", "create", "--kind", kind, "--to", d[kind])
                cost[kind].append(took)
                sizes[kind].append(answer["backup"]["bytes"])
        for _ in range(repeat):
            took, answer = node.cli("backup", "create", "--kind", "full", "--to", d["full"])
            cost["full"].append(took)
            sizes["full"].append(answer["backup"]["bytes"])
        last = answer["backup"]["last"]
        print(f"{last} revisions of {text} bytes; a change through the API takes "
              f"{statistics.median(commits) * 1000:.1f} ms (median), "
              f"{sorted(commits)[len(commits) * 99 // 100] * 1000:.1f} ms (p99)\n")
        print("| kind | time to make | size | files read to restore the newest | "
              "restore, dry run | state file made anew | verify (backups) |")
        print("|---|---|---|---|---|---|---|")
        for kind, where in d.items():
            restore = [node.cli("restore", "--from", where, "--dry-run") for _ in range(repeat)]
            rebuilt = []
            for i in range(repeat):
                took, answer = node.cli("restore", "--from", where, "--state",
                                        f"{directory}/{kind}-{i}.db")
                rebuilt.append(took)
            verified = [node.cli("backup", "verify", "--from", where) for _ in range(repeat)]
            of = f"{size(sizes[kind][0])} to {size(sizes[kind][-1])}" \
                if len(set(sizes[kind])) > 1 else size(sizes[kind][0])
            print(f"| {kind} | {seconds(cost[kind])} | {of} | "
                  f"{answer['restored']['backups_read']} | {seconds([t for t, _ in restore])} | "
                  f"{seconds(rebuilt)} | {seconds([t for t, _ in verified])} "
                  f"({verified[0][1]['backups']}) |")
        middle = [node.cli("restore", "--from", d["full"], "--revision", str(last // 2),
                           "--dry-run")[0] for _ in range(repeat)]
        print(f"\nrestore --revision {last // 2} --dry-run: {seconds(middle)}; "
              f"list: {seconds([node.cli('backup', 'list', d['full'])[0] for _ in range(repeat)])}")
        node.end()
        print(f"state file: {size(os.path.getsize(directory + '/state.db'))}; the whole text of "
              f"each revision would be {size(text * last)}")
    finally:
        node.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--revisions", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    directory = tempfile.mkdtemp(prefix="sluice-backup-costs-")
    try:
        measure(directory, options.revisions, options.repeat)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
