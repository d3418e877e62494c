# SPDX-License-Identifier: Apache-2.0
"""What a lab has made, written down as it is made, so that anybody can remove it: the lab
itself, `--down` after `--keep`, or the next lab after one that was killed."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

STATE_DIR = Path("/run/sluice-lab")
GRACE_S = 5.0


def start_time(pid):
    """The start time of a process in clock ticks, or None: tells a process from a later one
    with the same number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name, in parentheses, may contain anything.
    fields = text.rsplit(")", 1)[1].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid, started):
    return started is not None and start_time(pid) == started


class State:
    """One lab's file. Entries are added before or right after the thing is made; removing a
    thing that is not there is no error, so that cleaning up may run twice."""

    def __init__(self, name, kind="lab", path=None):
        self.path = path or STATE_DIR / f"{name}.json"
        self.data = {"name": name, "kind": kind, "owner": os.getpid(),
                     "owner_started": start_time(os.getpid()), "kept": False,
                     "namespaces": [], "processes": [], "directories": [], "files": [],
                     "info": {}}

    @classmethod
    def load(cls, path):
        data = json.loads(path.read_text())
        state = cls(data["name"], data["kind"], path)
        state.data = data
        return state

    def save(self):
        STATE_DIR.mkdir(mode=0o700, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.data, indent=1))
        temporary.replace(self.path)

    def add(self, key, value):
        if value not in self.data[key]:
            self.data[key].append(value)
            self.save()

    def remove(self, key, value):
        if value in self.data[key]:
            self.data[key].remove(value)
            self.save()

    def owner_alive(self):
        return is_alive(self.data["owner"], self.data["owner_started"])


def end_processes(processes, grace=GRACE_S):
    """end_processes() stops what was started, as [pid, start time]: SIGTERM, a grace, SIGKILL.

    Each was made the leader of a session, so that its children (nginx's workers) end with it."""
    def signal_all(entries, number):
        for pid, started in entries:
            if is_alive(pid, started):
                try:
                    os.killpg(pid, number)
                except ProcessLookupError:
                    pass
                except PermissionError:
                    os.kill(pid, number)

    def reap(pid):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # not a child of this process

    def left():
        for pid, _ in processes:
            reap(pid)
        return [p for p in processes if is_alive(*p)]

    signal_all(processes, signal.SIGTERM)
    signal_all(processes, signal.SIGCONT)  # one that is stopped hears nothing else
    deadline = time.monotonic() + grace
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed = left()
    signal_all(killed, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    return [pid for pid, _ in killed]


def end_namespace(name):
    """end_namespace() ends what still runs in a namespace of ours, and deletes it."""
    if not Path("/run/netns", name).exists():
        return
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True,
                            check=False).stdout.split()
    stragglers = [(int(p), start_time(int(p))) for p in listed]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid, started in stragglers:
            if is_alive(pid, started):
                try:
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
        deadline = time.monotonic() + 2
        while any(is_alive(*s) for s in stragglers) and time.monotonic() < deadline:
            time.sleep(0.02)
    # The interfaces go with it, and with them the XDP programs on them.
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def tear_down(state):
    """tear_down() removes everything that a state names, then the state."""
    data = state.data
    # Backwards: what was started last depends on what came before.
    end_processes([tuple(p) for p in reversed(data["processes"])])
    for name in reversed(data["namespaces"]):
        end_namespace(name)
    for path in data["files"]:
        Path(path).unlink(missing_ok=True)
    for path in reversed(data["directories"]):
        shutil.rmtree(path, ignore_errors=True)
    state.path.unlink(missing_ok=True)
    try:
        (STATE_DIR / "lock").unlink(missing_ok=True)
        STATE_DIR.rmdir()
    except OSError:
        pass  # another lab's state is in it


@contextmanager
def locked():
    """Two labs that start together shall not clean up the same leftover."""
    while True:
        STATE_DIR.mkdir(mode=0o700, exist_ok=True)
        try:
            lock = open(STATE_DIR / "lock", "w", encoding="utf-8")
        except FileNotFoundError:
            continue  # the last lab that ended has just removed the directory
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
            return


def states(kind=None):
    found = []
    for path in sorted(STATE_DIR.glob("*.json")):
        try:
            state = State.load(path)
        except (OSError, ValueError, KeyError):
            continue
        if kind is None or state.data["kind"] == kind:
            found.append(state)
    return found


def sweep():
    """sweep() removes what labs left whose process was killed; returns their names."""
    if not STATE_DIR.exists():
        return []
    swept = []
    with locked():
        for state in states():
            if not state.data["kept"] and not state.owner_alive():
                tear_down(state)
                swept.append(state.data["name"])
    return swept
