#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Backups as an operator uses them: the three kinds, what verify finds, restores of the newest,
of a revision and of a time, into the running node, another one, or a new state file; copies,
schedule and retention; what is refused. Only the control plane runs; a full disk needs root."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from history_test import Plane
from cli_stand import check


def wait_until(condition, text, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {text}")


def set_weight(plane, weight):
    return plane.cli.json("backend", "set", "web", "10.0.1.11", "--weight",
                          str(weight))["revision"]


def config(plane):
    return plane.cli.run("get", "config").stdout


def names(plane, directory):
    return [b["name"] for b in plane.cli.json("backup", "list", "--from", str(directory))["backups"]]


def create(plane, kind, directory="backups", *more):
    return plane.cli.json("backup", "create", "--kind", kind, "--to", directory, *more)


def test_kinds(plane):
    """full, then what builds on it; states of then are kept for the restores."""
    states = {}
    for kind in ("incremental", "differential"):
        err = plane.cli.run("backup", "create", "--kind", kind, "--to", "backups", code=1).stderr
        check("make a full backup first" in err, f"{kind} first: {err}")

    def remember():
        states[plane.cli.json("status")["revision"]] = config(plane)

    remember()
    made = create(plane, "full")["backup"]
    check((made["name"], made["first"], made["parent"]) == ("000001-full", 1, None), f"{made}")
    for kind, first, parent in [("incremental", 0, 1), ("incremental", 0, 2),
                                ("differential", 1, 1), ("incremental", 0, 4)]:
        before = plane.cli.json("status")["revision"]
        set_weight(plane, before + 100)
        remember()
        set_weight(plane, before + 200)
        remember()
        made = create(plane, kind)["backup"]
        check(int(made["parent"][:6]) == parent and made["last"] == before + 2
              and made["first"] == (before + 1 if first == 0 else 3), f"{kind}: {made}")
        again = create(plane, kind)
        check(not again["created"] and again["backup"] == made, f"nothing new: {again}")
    check(len(names(plane, "backups")) == 5, "five backups")
    check("nothing new since 000005-incremental" in plane.cli.run(
        "backup", "create", "--kind", "incremental", "--to", "backups").stdout, "and it says so")
    done = plane.cli.json("backup", "verify", "--from", "backups")
    check(done["ok"] and done["backups"] == 5, f"verify: {done}")
    check("every one read" in plane.cli.run("backup", "verify", "backups").stdout, "verify, text")
    check(plane.cli.run("backup", "list", "backups").stdout.count("\n") == 6, "list, text")
    return states


def test_restores(plane, states):
    """Into the running node: newest, revision, time; each is a new revision."""
    times = {r["revision"]: r["time"] for r in plane.cli.json("history")["revisions"]}
    newest = max(states)
    set_weight(plane, 9999)
    now = plane.cli.json("status")["revision"]
    lost = config(plane)
    would = plane.cli.json("restore", "--from", "backups", "--dry-run")
    check(would["revision"] == now and len(would["changes"]) == 1
          and would["restored"]["revision"] == newest, f"dry run: {would}")
    check("dry run" in plane.cli.run("restore", "--from", "backups", "--dry-run").stdout, "text")
    check(config(plane) == lost, "a dry run changes nothing")
    err = plane.cli.run("restore", "--from", "backups", "--if-revision", str(newest), code=1).stderr
    check(f"is {now} by now" in err, f"a stale restore: {err}")
    done = plane.cli.json("restore", "--from", "backups")
    check(done["revision"] == now + 1 and config(plane) == states[newest], f"newest: {done}")
    check("restored revision" in plane.cli.json("history")["revisions"][0]["reason"], "reason")
    plane.cli.run("rollback", str(now))
    check(config(plane) == lost, "what was there before is not lost")
    for revision in sorted(states):
        plane.cli.run("restore", "--from", "backups", "--revision", str(revision))
        check(config(plane) == states[revision], f"revision {revision}")
    for revision in sorted(states):
        done = plane.cli.json("restore", "--from", "backups", "--at", times[revision])
        check(done["restored"]["revision"] == revision and config(plane) == states[revision],
              f"at {times[revision]}: {done}")
    for words, word in [(["--revision", "9999"], "no backup that is whole holds revision 9999"),
                        (["--at", "2001-01-01T00:00:00Z"], "a revision of 2001-01-01"),
                        (["--revision", "0"], "no backup that is whole holds revision 0")]:
        err = plane.cli.run("restore", "--from", "backups", *words, code=1).stderr
        check(word in err, f"{words}: {err}")
    plane.cli.run("restore", "--from", "backups")


def damage(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(data)))


def flip(at):
    def change(data):
        data[at] ^= 1 << (at % 8)
        return data
    return change


def test_verify(plane):
    """A flipped bit anywhere, a file that is cut off or gone, a link that is missing or another:
    found, named, and not restored from; the running state stays."""
    before = config(plane)
    cases = [("manifest, begin", "000002-incremental.manifest", flip(3)),
             ("manifest, middle", "000002-incremental.manifest", flip(300)),
             ("manifest, checksum", "000002-incremental.manifest", flip(-3)),
             ("manifest, cut off", "000002-incremental.manifest", lambda d: d[:-1]),
             ("manifest, empty", "000002-incremental.manifest", lambda d: b""),
             ("data, magic", "000001-full.data", flip(1)),
             ("data, format", "000001-full.data", flip(8)),
             ("data, middle", "000001-full.data", flip(200)),
             ("data, end", "000001-full.data", flip(-1)),
             ("data, cut off", "000001-full.data", lambda d: d[:-10]),
             ("data, longer", "000001-full.data", lambda d: d + b"x"),
             ("data, gone", "000001-full.data", None),
             ("link gone", "000001-full.manifest", None),
             ("link gone in the middle", "000002-incremental.manifest", None)]
    for what, name, change in cases:
        copy = plane.path("damaged")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(plane.path("backups"), copy)
        if change is None:
            Path(copy, name).unlink()
        else:
            damage(Path(copy, name), change)
        err = plane.cli.run("backup", "verify", "--from", "damaged", code=1).stderr
        check("000001" in err or "000002" in err, f"{what}: names the file: {err}")
        check("/damaged/" in err and "\n\n" not in err, f"{what}: {err}")
        # Revision 5 is in 000003, which needs 000002, and in 000004; all need 000001.
        words = ["restore", "--from", "damaged", "--revision", "5"]
        if "000001" in name:
            err = plane.cli.run(*words, code=1).stderr
            check("/damaged/" in err, f"{what}: restore says why: {err}")
        else:
            plane.cli.run(*words, "--dry-run")
        check(config(plane) == before, f"{what}: the running state stays")
    # What does not build on the damage is used, and it is said that there is damage.
    done = plane.cli.run("restore", "--from", "damaged", "--revision", "7", "--dry-run")
    check(not done.stderr and "revision 7" in done.stdout, f"another chain: {done}")

    # The links of another directory do not fit.
    other = plane.path("other")
    shutil.rmtree(other, ignore_errors=True)
    create(plane, "full", "other")
    damaged = plane.path("damaged")
    shutil.rmtree(damaged)
    shutil.copytree(plane.path("backups"), damaged)
    for suffix in (".manifest", ".data"):
        shutil.copy(Path(other, f"000001-full{suffix}"), damaged)
    err = plane.cli.run("backup", "verify", "--from", "damaged", code=1).stderr
    check("is not the one it builds on" in err, f"another's link: {err}")
    err = plane.cli.run("backup", "create", "--kind", "incremental", "--to", "damaged",
                        code=1).stderr
    check("make a full backup first" in err, f"a broken chain is not made longer: {err}")

    # Another version's: said before anything else.
    text = Path(other, "000001-full.manifest").read_text(encoding="utf-8")
    Path(other, "000001-full.manifest").write_text(text.replace('"format": 1', '"format": 2'),
                                                   encoding="utf-8")
    err = plane.cli.run("restore", "--from", "other", code=1).stderr
    check("was written by a newer version (format 2" in err, f"another version: {err}")
    for words in (["backup", "verify"], ["backup", "list"], ["restore"]):
        err = plane.cli.run(*words, "--from", "none", code=1).stderr
        check("No such file or directory" in err, f"{words}: no directory: {err}")
    plane.path("empty").mkdir()
    for words in (["backup", "verify"], ["restore"]):
        err = plane.cli.run(*words, "--from", "empty", code=1).stderr
        check("there are no backups in it" in err, f"{words}: an empty directory: {err}")
    err = plane.cli.run("backup", "create", "--kind", "full", "--to", "node.yaml", code=1).stderr
    check("node.yaml" in err, f"a file for a directory: {err}")
    err = plane.cli.run("backup", "list", code=1).stderr
    check("node.yaml schedules no backups" in err, f"no directory: {err}")


def test_copies(plane):
    """A second directory: at once, or afterwards; a copy is as good as what it was copied from."""
    set_weight(plane, 301)
    done = create(plane, "incremental", "backups", "--copy-to", "copies")
    check(done["copy"] == "done", f"sync: {done}")
    check(names(plane, "copies") == names(plane, "backups"), "all are copied, the older ones too")
    set_weight(plane, 302)
    done = create(plane, "incremental", "backups", "--copy-to", "copies", "--copy", "async")
    check(done["copy"] == "queued", f"async: {done}")
    wait_until(lambda: names(plane, "copies") == names(plane, "backups"), "copied")
    plane.cli.run("backup", "verify", "--from", "copies")
    # A copy that cannot be made: an error, and the backup is there all the same.
    set_weight(plane, 303)
    plane.path("file").write_text("")
    err = plane.cli.run("backup", "create", "--kind", "incremental", "--to", "backups",
                        "--copy-to", "file", code=1).stderr
    check("the backup is in" in err and "could not be copied" in err, f"no copy: {err}")
    create(plane, "incremental", "backups", "--copy-to", "file", "--copy", "async")
    wait_until(lambda: any("backups are not copied" in w
                           for w in plane.cli.json("status")["warnings"]), "a warning")
    err = plane.cli.run("backup", "create", "--kind", "full", "--to", "backups", "--copy-to",
                        "backups", code=1).stderr
    check("is the directory of the backups itself" in err, f"onto itself: {err}")


def test_no_space(plane):
    """No room: an error, nothing half done; the next one goes well."""
    if os.getuid() != 0:
        print("a full disk: not tested without root")
        return
    full = plane.path("full")
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full], check=True)
    try:
        Path(full, "filler").write_bytes(b"x" * (60 << 10))
        before = config(plane)
        err = plane.cli.run("backup", "create", "--kind", "full", "--to", "full", code=1).stderr
        check("No space left on device" in err, f"no room: {err}")
        check([p.name for p in full.iterdir()] == ["filler"], "nothing is left behind")
        check(config(plane) == before and set_weight(plane, 304), "the node goes on")
        Path(full, "filler").unlink()
        create(plane, "full", "full")
        plane.cli.run("backup", "verify", "--from", "full")
    finally:
        subprocess.run(["umount", full], check=True)


def test_state_file(plane):
    """Without a daemon: a new state file with the whole history, in place of what is there."""
    newest = create(plane, "full")["backup"]["last"]
    at_backup = config(plane)
    history = plane.cli.json("history", "--limit", "1000")["revisions"]
    set_weight(plane, 777)
    err = plane.cli.run("restore", "--from", "backups", "--state", "state.db", code=1).stderr
    check("is in use by another process" in err, f"a running control plane: {err}")
    plane.end()
    done = plane.cli.json("restore", "--from", "backups", "--state", "state.db")
    check(done["kept"] and Path(done["kept"]).exists(), f"what was there is kept: {done}")
    plane.start()
    check(config(plane) == at_backup, "the state of the backup")
    check(plane.cli.json("history", "--limit", "1000")["revisions"] == history, "its history")
    # What was built on the revision that is gone now: a fork, which is seen.
    set_weight(plane, 778)
    made = create(plane, "incremental")
    check(made["created"] and made["backup"]["first"] == newest + 1, "the chain goes on")
    plane.end()
    plane.cli.run("restore", "--from", "backups", "--revision", str(newest), "--state", "state.db")
    plane.start()
    check(config(plane) == at_backup, "an older revision")
    check(plane.cli.json("status")["revision"] == newest + 2, "as one more")
    check("restored revision" in plane.cli.json("history")["revisions"][0]["reason"], "it says so")
    check(create(plane, "incremental")["backup"]["first"] == newest + 2, "no fork")
    plane.end()
    shutil.copy(done["kept"], plane.path("state.db"))
    plane.start()
    check(plane.cli.json("status")["revision"] == newest + 1, "the kept file is whole")
    set_weight(plane, 779)
    set_weight(plane, 780)
    set_weight(plane, 781)
    err = plane.cli.run("backup", "create", "--kind", "incremental", "--to", "backups",
                        code=1).stderr
    check("the history has forked" in err, f"a fork: {err}")
    create(plane, "full")
    plane.cli.run("backup", "verify", "--from", "backups")


def test_other_node(plane):
    """On another node: its state becomes that of the backup; its own backups go elsewhere."""
    backups = str(plane.path("backups"))
    with Plane() as other:
        text = other.path("node.yaml").read_text(encoding="utf-8")
        other.path("node.yaml").write_text(text.replace("test1", "test2"), encoding="utf-8")
        other.start()
        other.cli.run("restore", "--from", backups)
        check(config(other) == config(plane), "the other node's state")
        check(other.cli.json("status")["revision"] == 1, "as its own revision")
        err = other.cli.run("backup", "create", "--kind", "full", "--to", backups, code=1).stderr
        check("holds backups of node 'test1', and this is 'test2'" in err, f"wrong node: {err}")
        other.end()


def test_schedule(plane):
    """Every second: full at first, then incremental, a full one every third time; two chains are
    kept; copied."""
    plane.end()
    plane.write_node("  backup: {to: %s/scheduled, interval: 1s, kind: incremental, "
                     "full-every: 3, keep: 2, copy: {to: %s/second, mode: async}}\n"
                     % (plane.directory, plane.directory))
    plane.start()
    weight = 400

    def kinds():
        return [b["kind"] for b in plane.cli.json("backup", "list")["backups"]]

    wait_until(lambda: plane.path("scheduled").exists() and kinds(), "a first backup")
    end = time.monotonic() + 60
    while "000007" not in "".join(names(plane, plane.path("scheduled"))):
        check(time.monotonic() < end, f"scheduled backups: {kinds()}")
        weight += 1
        set_weight(plane, weight)
        time.sleep(0.1)
    wait_until(lambda: kinds()[:4] == ["full", "incremental", "incremental", "full"],
               "the oldest chain is gone")
    shown = json.loads(plane.cli.run("backup", "list", "-o", "json").stdout)
    check(shown["directory"].endswith("/scheduled") and not shown["problems"], f"{shown}")
    plane.cli.run("backup", "verify")
    wait_until(lambda: names(plane, plane.path("second"))[-3:]
               == names(plane, plane.path("scheduled"))[-3:], "copied")
    plane.cli.run("backup", "verify", "--from", "second")
    state = config(plane)
    wait_until(lambda: plane.cli.json("restore", "--dry-run")["changes"] == [], "up to date")
    check(config(plane) == state, "unchanged")
    # A directory that goes bad is a warning, and the next full backup heals it.
    (plane.path("scheduled") / (names(plane, plane.path("scheduled"))[-1] + ".data")).unlink()
    plane.end()
    plane.path("scheduled").rename(plane.path("moved"))
    plane.path("scheduled").write_text("")
    plane.start()
    wait_until(lambda: any("the scheduled backup failed" in w
                           for w in plane.cli.json("status")["warnings"]), "a warning")
    plane.path("scheduled").unlink()
    wait_until(lambda: not any("the scheduled backup failed" in w
                               for w in plane.cli.json("status")["warnings"]), "it goes on")


def main():
    try:
        with Plane() as plane:
            plane.start()
            plane.cli.run("apply", "-f", "services.yaml")
            plane.cli.run("backend", "set", "web", "10.0.1.12", "--weight", "51")
            states = test_kinds(plane)
            test_restores(plane, states)
            test_verify(plane)
            test_copies(plane)
            test_no_space(plane)
            test_state_file(plane)
            test_other_node(plane)
            test_schedule(plane)
            plane.end()
    except AssertionError as e:
        sys.exit(f"FAIL: {e}")


if __name__ == "__main__":
    main()
