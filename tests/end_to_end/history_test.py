#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The history as an operator uses it: history, diff, rollback, changes that are refused because
somebody was faster; a control plane that is killed while it commits; old revisions are forgotten.
Only the control plane runs. Needs no root."""

import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from cli_stand import DAEMONS, NODE, SERVICES, Cli, check

KILLS = 15
KEEP = 120


class Plane:
    """A control plane with a directory of its own, and the CLI for it."""

    def __init__(self, extra=""):
        self.directory = tempfile.mkdtemp(prefix="sluice-test-history-")
        self.cli = Cli(self.directory)
        self.process = None
        self.write_node(extra)
        self.path("services.yaml").write_text(SERVICES, encoding="utf-8")

    def path(self, name):
        return Path(self.directory, name)

    def write_node(self, extra=""):
        self.path("node.yaml").write_text(NODE.format(d=self.directory) + extra, encoding="utf-8")

    def answers(self):
        if not self.path("api.sock").exists():
            return False
        result = subprocess.run([self.cli_path(), "--socket", self.cli.socket, "status"],
                                capture_output=True, check=False)
        return result.returncode == 0

    @staticmethod
    def cli_path():
        return DAEMONS["controlplane"].parents[1] / "tools" / "cli" / "sluice"

    def start(self):
        with open(self.path("log"), "ab") as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                [DAEMONS["controlplane"], "--node", self.path("node.yaml")], stdout=log, stderr=log)
        end = time.monotonic() + 60
        while not self.answers():
            check(self.process.poll() is None, f"the control plane ended:\n{self.log()}")
            check(time.monotonic() < end, f"not ready after 60 s:\n{self.log()}")
            time.sleep(0.02)

    def log(self):
        return self.path("log").read_text(encoding="utf-8")

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            check(self.process.wait(20) == 0, f"a clean end:\n{self.log()}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def test_revisions(cli):
    """Revisions: what each changed, what lies between two, back to an old one and back again; a
    change that was meant for another revision is refused."""
    start = cli.json("status")["revision"]
    before = cli.run("get", "config").stdout
    cli.run("backend", "set", "web", "10.0.1.11", "--weight", "7", "--reason", "less for 11")
    cli.run("backend", "add", "web", "10.0.1.14")
    after = cli.run("get", "config").stdout
    newest = cli.json("history", "--limit", "2")["revisions"]
    check([(r["revision"], r["changes"], r["reason"]) for r in newest]
          == [(start + 2, 1, ""), (start + 1, 1, "less for 11")], f"history: {newest}")
    one = cli.json("history", str(start + 1))
    check(one["author"] and one["time"] and [c["backend"] for c in one["changes"]] == ["10.0.1.11"],
          f"one revision: {one}")
    check("weight" in cli.run("history", str(start + 1)).stdout, "one revision, as text")
    check(len(cli.json("diff", str(start))["changes"]) == 2, "since a revision")
    check(len(cli.json("diff", str(start), str(start + 1))["changes"]) == 1, "between two")
    check(cli.run("diff", str(start + 2)).stdout == "no difference\n", "since the newest")
    check([c["kind"] for c in cli.json("diff", str(start + 2), str(start + 1))["changes"]]
          == ["removed"], "backwards")
    check(cli.run("get", "config", "--revision", str(start)).stdout == before, "as it was")

    would = cli.json("rollback", str(start), "--dry-run")
    check(would["revision"] == start + 2 and len(would["changes"]) == 2, f"dry run: {would}")
    check(cli.run("get", "config").stdout == after, "a dry run changes nothing")
    err = cli.run("rollback", str(start), "--if-revision", str(start + 1), code=1).stderr
    check(f"revision: is {start + 2} by now, not {start + 1}" in err, f"a stale rollback: {err}")
    Path(cli.directory, "mine.yaml").write_text(before, encoding="utf-8")
    err = cli.run("apply", "-f", "mine.yaml", "--if-revision", str(start), code=1).stderr
    check(f"is {start + 2} by now" in err, f"a stale apply: {err}")
    check(cli.run("get", "config").stdout == after, "stale changes change nothing")

    done = cli.json("rollback", str(start), "--if-revision", str(start + 2))
    check(done["revision"] == start + 3 and done["changes"] == would["changes"], f"back: {done}")
    check(cli.run("get", "config").stdout == before, "the old state is back")
    check(cli.json("history")["revisions"][0]["reason"] == f"rollback to revision {start}",
          "the history says so")
    cli.run("rollback", str(start + 2), "--reason", "and forward")
    check(cli.run("get", "config").stdout == after, "and the other way round")
    cli.run("rollback", str(start))
    check(cli.json("rollback", str(start))["changes"] == [], "is so already")
    for words in [["rollback", "99999"], ["history", "99999"], ["diff", "99999"],
                  ["diff", "1", "99999"], ["get", "config", "--revision", "99999"]]:
        check("there is no revision 99999" in cli.run(*words, code=1).stderr, f"{words}")
    check("there is no revision 0" in cli.run("rollback", "0", code=1).stderr, "rollback 0")


def test_killed(plane):
    """Changes are made as fast as one client can; the daemon is killed. Each time what comes back
    is what was acknowledged last, or the one change that was on its way."""
    rng = random.Random()
    last = 0
    for number in range(1, KILLS + 1):
        base = number * 1000
        acknowledged = []

        def change(base=base, acknowledged=acknowledged):
            for weight in range(base, base + 1000):
                result = subprocess.run(
                    [plane.cli_path(), "--socket", plane.cli.socket, "backend", "set", "web",
                     "10.0.1.11", "--weight", str(weight)], capture_output=True, check=False)
                if result.returncode != 0:
                    return
                acknowledged.append(weight)

        thread = threading.Thread(target=change)
        thread.start()
        end = time.monotonic() + 30
        while not acknowledged:
            check(time.monotonic() < end, "changes are taken")
            time.sleep(0.001)
        time.sleep(rng.random() * 0.05)
        plane.kill()
        thread.join()
        plane.start()
        services = {s["name"]: s for s in plane.cli.json("get", "config")["services"]}
        weight = services["web"]["backends"][0]["weight"]
        check(weight in (acknowledged[-1], acknowledged[-1] + 1),
              f"kill {number}: {weight}, and {acknowledged[-1]} was acknowledged")
        newest = plane.cli.json("history", "--limit", "1")["revisions"][0]["revision"]
        check(newest >= last + len(acknowledged), f"kill {number}: revisions are missing")
        last = newest
    whole = plane.cli.json("history", "--limit", "100000")["revisions"]
    check([r["revision"] for r in whole] == list(range(last, 0, -1)), "no gaps")
    print(f"{KILLS} kills over {last} revisions")


def test_forgotten(plane):
    """Old revisions are forgotten; what is kept is whole."""
    plane.end()
    plane.write_node(f"  history: {{revisions: {KEEP}}}\n")
    plane.start()
    first = plane.cli.json("status")["revision"]
    # One keyframe after another: the group that is too old goes.
    for number in range(2 * KEEP):
        plane.cli.run("backend", "set", "web", "10.0.1.12", "--weight", str(1 + number % 2),
                      "--if-revision", str(first + number))
    kept = plane.cli.json("history", "--limit", "100000")["revisions"]
    check(KEEP <= len(kept) <= KEEP + 100, f"{len(kept)} revisions are kept")
    oldest = kept[-1]["revision"]
    check(plane.cli.json("history", str(oldest))["changes"] is None, "nothing to compare with")
    check("no longer kept" in plane.cli.run("history", str(oldest)).stdout, "and it says so")
    check(f"there is no revision {oldest - 1}" in plane.cli.run("rollback", str(oldest - 1),
                                                                code=1).stderr, "forgotten")
    plane.cli.run("rollback", str(oldest + 1))
    plane.end()
    plane.start()
    check(plane.cli.json("diff", str(oldest + 1))["changes"] == [], "whole after a restart")


def main():
    try:
        with Plane() as plane:
            plane.start()
            plane.cli.run("apply", "-f", "services.yaml")
            plane.cli.run("backend", "set", "web", "10.0.1.12", "--weight", "51")
            test_revisions(plane.cli)
            test_killed(plane)
            test_forgotten(plane)
            plane.end()
    except AssertionError as e:
        sys.exit(f"FAIL: {e}")


if __name__ == "__main__":
    main()
