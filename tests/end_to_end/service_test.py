#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Both daemons under a service manager, which is a socket here that hears what they tell it: ready,
status, reloads, the watchdog, whose pings end when a worker or the event loop stands still; reloads
of node.yaml; and the units, as systemd itself reads them."""

import ctypes
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import api_access_test as access  # noqa: E402
from control_stand import BUILD, DAEMON, check, wait_until, with_daemon  # noqa: E402

DATAPLANE = BUILD / "dataplane" / "sluice-dataplane"
WATCHDOG = 0.6  # seconds
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207


class Manager:
    """What systemd is to a service: the other end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.heard = []  # (when, what)

    def environment(self):
        return {**os.environ, "NOTIFY_SOCKET": self.path,
                "WATCHDOG_USEC": str(int(WATCHDOG * 1e6)), "SLUICE_BPF_DIR": str(BUILD / "bpf")}

    def listen(self, seconds, until=None):
        """listen() takes what comes for so long, or until a line begins with this; the lines."""
        end = time.monotonic() + seconds
        new = []
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                text = self.socket.recv(65536).decode()
            except TimeoutError:
                break
            new += text.split("\n")
            self.heard += [(time.monotonic(), line) for line in text.split("\n")]
            if until and any(line.startswith(until) for line in text.split("\n")):
                return new
        check(until is None, f"not told within {seconds} s: {until}; told: {new}")
        return new

    def pings(self, seconds):
        return self.listen(seconds).count("WATCHDOG=1")


class Held:
    """One thread of a process, which stands still until the end of the block."""

    def __init__(self, task):
        self.task = task
        self.libc = ctypes.CDLL(None, use_errno=True)

    def trace(self, what):
        done = self.libc.ptrace(ctypes.c_long(what), ctypes.c_long(self.task), None, None)
        check(done == 0, f"ptrace {what:#x}: {os.strerror(ctypes.get_errno())}")

    def __enter__(self):
        self.trace(PTRACE_SEIZE)
        self.trace(PTRACE_INTERRUPT)
        os.waitpid(self.task, 0x40000000)  # __WALL
        return self

    def __exit__(self, *_):
        self.trace(PTRACE_DETACH)


def start(d, manager, program, log):
    with open(f"{d.directory}/{log}", "ab") as out:
        # pylint: disable-next=consider-using-with
        return subprocess.Popen([program, "--node", d.node], stderr=out, env=manager.environment())


def in_step(manager, seconds=1.2):
    count = manager.pings(seconds)
    # Twice in each interval; a machine that is busy may be late.
    check(seconds / WATCHDOG <= count <= 2 * seconds / WATCHDOG + 2,
          f"{count} pings in {seconds} s for a watchdog of {WATCHDOG} s")


def edit(d, old, new):
    text = Path(d.node).read_text(encoding="utf-8")
    check(old in text, old)
    Path(d.node).write_text(text.replace(old, new), encoding="utf-8")


def control_plane(d, manager):
    access.prepare(d)
    access.request.ca = f"{d.directory}/api.crt"
    process = d.process = start(d, manager, DAEMON, "log")
    manager.listen(20, "READY=1")
    status = manager.listen(5, "STATUS=")[-1]
    check(re.fullmatch(r"STATUS=revision 0: 0 services, 0 of 0 backends up; data plane absent",
                       status), status)
    in_step(manager)
    # The loop's is the main thread.
    with Held(process.pid):
        manager.listen(WATCHDOG)
        check(manager.pings(2 * WATCHDOG) == 0, "an event loop that hangs is not said to be well")
    in_step(manager)
    reloads(d, manager, process)
    process.terminate()
    manager.listen(10, "STOPPING=1")
    check(process.wait(timeout=20) == 0, "ends")


def certificate():
    """certificate() is what the API shows, in PEM."""
    return ssl.get_server_certificate(("127.0.0.1", access.PORT))


def reload(d, manager, process, number=signal.SIGHUP, log="log"):
    size = os.path.getsize(f"{d.directory}/{log}")
    process.send_signal(number)
    told = manager.listen(10, "RELOADING=1")
    if "READY=1" not in told:
        manager.listen(10, "READY=1")
    with open(f"{d.directory}/{log}", encoding="utf-8") as text:
        text.seek(size)
        return text.read()


def reloads(d, manager, process):
    before = certificate()
    check(access.request("GET", "/v1/version", access.READER)[0] == 200, "the first token")
    said = reload(d, manager, process)
    check("reloaded" in said and "restart" not in said, said)
    # Another certificate and other tokens, in the same files.
    access.make_certificate(d.directory, "api")
    Path(d.directory, "tokens").write_text("read-only another-0123456789abcdef\n", encoding="utf-8")
    edit(d, "{name: test1", "{name: test1, log-level: debug")
    edit(d, "hash-seed: 42", "hash-seed: 43")
    said = reload(d, manager, process)
    check("not taken over before a restart: cluster.hash-seed\n" in said, said)
    check(certificate() != before, "the new certificate is shown")
    check(access.request("GET", "/v1/version", access.READER)[0] == 401, "the old token is void")
    check(access.request("GET", "/v1/version", "another-0123456789abcdef")[0] == 200, "the new one")
    check("0123456789abcdef" not in d.log(), "no token is logged")
    size = len(d.log())
    d.call("PUT", "/v1/config", "services: []")
    d.call("POST", "/v1/services", '{"name": "a", "address": "198.51.100.1", "port": 1}')
    wait_until(lambda: " debug " in d.log()[size:], "it logs more")
    # What is wrong changes nothing.
    edit(d, "log-level: debug", "log-level: loud")
    said = reload(d, manager, process)
    check("node.yaml:1: node.log-level: 'loud'" in said.replace('"', "'") and "not reloaded" in said,
          said)
    edit(d, "log-level: loud", "log-level: error")
    Path(d.directory, "tokens").write_text("admin short\n", encoding="utf-8")
    said = reload(d, manager, process)
    check("not reloaded" in said and "16 to 256" in said and "short\n" not in said, said)
    check(access.request("GET", "/v1/version", "another-0123456789abcdef")[0] == 200, "all stays")
    Path(d.directory, "tokens").write_text("admin " + 20 * "x" + "\n", encoding="utf-8")
    check(reload(d, manager, process) == "", "and with log-level: error it says nothing")


def data_plane(d, manager):
    edit(d, "log-level: error", "log-level: info")
    edit(d, 'device: "net_null0"', 'device: "net_null0,no-rx=1"')
    edit(d, "dataplane:\n", "dataplane:\n  workers: 2\n  idle: sleep\n  hugepages: off\n"
                            "  memory: 64\n  connections: 10000\n")
    process = start(d, manager, DATAPLANE, "dataplane.log")
    try:
        status = [x for x in manager.listen(60, "READY=1") if x.startswith("STATUS=ports")]
        check(len(status) == 1 and "up0 (net_null" in status[0], str(status))
        in_step(manager)
        workers = [int(p.name) for p in Path(f"/proc/{process.pid}/task").iterdir()
                   if re.match(r"(lcore|rte|dpdk)-worker", (p / "comm").read_text())]
        check(len(workers) == 2, f"two workers: {workers}")
        began = time.monotonic()
        with Held(workers[1]):
            manager.listen(10, "STATUS=worker 1 does not report")
            print(f"a worker that stands still is noticed after {time.monotonic() - began:.1f} s")
            check(manager.pings(2 * WATCHDOG) == 0, "and the watchdog is not pinged")
        told = manager.listen(10, "STATUS=ports:")
        check(told, "it reports again")
        in_step(manager)
        # SIGUSR1 is what the unit's ExecReload sends.
        edit(d, "log-level: info", "log-level: warning")
        edit(d, "connections: 10000", "connections: 20000")
        said = reload(d, manager, process, signal.SIGUSR1, "dataplane.log")
        check("not taken over before a restart: dataplane\n" in said, said)
        edit(d, "log-level: warning", "log-level: off")
        said = reload(d, manager, process, signal.SIGUSR1, "dataplane.log")
        check("not reloaded" in said, said)
        in_step(manager)
        process.send_signal(signal.SIGINT)
        manager.listen(10, "STOPPING=1")
        check(process.wait(timeout=20) == 0, "ends")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def units(d):
    """The units as they are installed, but for where the programs are."""
    paths = []
    for name, program in (("dataplane", DATAPLANE), ("controlplane", DAEMON)):
        text = (BUILD / "packaging" / f"sluice-{name}.service").read_text(encoding="utf-8")
        text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={program}", text)
        check(not re.search(r"@\w+@", text), text)
        paths.append(Path(d.directory, f"sluice-{name}.service"))
        paths[-1].write_text(text, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, paths)], check=False,
                          capture_output=True, text=True, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "sluice" in line]
    check(done.returncode == 0 and not said, done.stderr)
    for path in paths:
        done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=60",
                               "--no-pager", str(path)], check=False, capture_output=True, text=True,
                              timeout=60)
        last = [line for line in done.stdout.splitlines() if "exposure" in line][-1:]
        print(f"{path.name}: {' '.join(last[0].split()[1:]) if last else done.stderr}")
        check(done.returncode == 0, done.stdout[-500:] + done.stderr)


def usage(d):
    for program in (DAEMON, DATAPLANE):
        done = subprocess.run([program, "--node", d.node, "--log-level", "loud"], check=False,
                              capture_output=True, text=True, timeout=20)
        check(done.returncode == 2 and "debug, info, warning or error" in done.stderr, done.stderr)


def scenario(d):
    manager = Manager(f"{d.directory}/notify")
    usage(d)
    control_plane(d, manager)
    data_plane(d, manager)
    units(d)


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
