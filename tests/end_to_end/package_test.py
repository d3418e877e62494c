#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The Debian package: built from this build directory, and installed by the real dpkg, with all its
dependencies checked, in an overlay over this system, of which nothing is changed; used, upgraded,
removed and purged, after which nothing of it is left. Between them a real systemd, process 1 of a
namespace, runs the units: ready, status, reloads, watchdogs, and what the package's scripts do. Root."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from lab.expect import check, held  # noqa: E402

BUILD = Path(os.environ.get("SLUICE_BUILD", ROOT / "build")).resolve()
# What dpkg itself, and whoever is asked for a name, leaves anywhere.
NOT_OURS = ("var/lib/dpkg", "var/log", "var/cache", "dev", "proc", "sys", "tmp", "run/lock", "root",
            "run/dpdk", "run/systemd", "run/credentials", "run/udev", "etc/.pwd.lock")


def run(*command, fine=(0,), **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False,
                          timeout=120, **more)
    check(done.returncode in fine, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}"
                                   f"{done.stderr}")
    return done.stdout


def build(directory):
    began = time.monotonic()
    package = run(ROOT / "tools" / "package", "--build", BUILD, "--no-build", "--output",
                  directory).strip().split("\n")[-1]
    took = time.monotonic() - began
    print(f"{Path(package).name}: {os.path.getsize(package) / 1e6:.1f} MB, built in {took:.1f} s")
    # The same, said to be newer.
    run("dpkg-deb", "--raw-extract", package, directory / "newer")
    control = directory / "newer" / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*", "Version: 99.0", control.read_text()))
    newer = directory / "newer.deb"
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", directory / "newer", newer)
    return package, newer


def contents(package):
    fields = run("dpkg-deb", "--field", package)
    check("librte-eal23" in fields and "librte-net-af-xdp23" in fields and "libc6" in fields, fields)
    rows = [line.split() for line in run("dpkg-deb", "--contents", package).splitlines()]
    files = {row[5].removeprefix("."): row for row in rows}
    for path in ("/usr/bin/sluice", "/usr/bin/sluice-dataplane", "/usr/bin/sluice-controlplane",
                 "/usr/sbin/sluice-backend-setup", "/usr/lib/sluice/bpf/steer.bpf.o",
                 "/usr/lib/sluice/bpf/decap.bpf.o", "/usr/lib/sluice/bpf/probe.bpf.o",
                 "/usr/lib/systemd/system/sluice-dataplane.service",
                 "/usr/lib/systemd/system/sluice-controlplane.service", "/etc/sluice/node.yaml",
                 "/usr/share/doc/sluice/copyright", "/usr/share/doc/sluice/configuration.md",
                 "/usr/share/man/man1/sluice.1.gz", "/usr/share/man/man8/sluice-dataplane.8.gz",
                 "/usr/share/man/man8/sluice-backend-setup.8.gz",
                 "/usr/share/man/man5/sluice-services.yaml.5.gz",
                 "/usr/share/bash-completion/completions/sluice",
                 "/usr/share/sluice/prometheus/alerts.yaml"):
        check(path in files, f"{path} is missing")
    for path, row in files.items():
        check(row[1] == "root/root" and row[0][5] != "w" and row[0][8] != "w", str(row))
        check(path.startswith(("/usr", "/etc")) or path == "/", path)
    if shutil.which("lintian"):
        said = run("lintian", "--tag-display-limit", "0", package, fine=(0, 1, 2))
        errors = [line for line in said.splitlines() if line.startswith("E:")]
        check(not errors, "\n".join(errors))


class Overlay:
    """This system as it is, in a mount namespace, with all changes in memory."""

    def __init__(self, base):
        self.upper, self.root = base / "memory" / "upper", base / "root"
        run("mount", "--make-rprivate", "/")
        (base / "memory").mkdir()
        run("mount", "-t", "tmpfs", "tmpfs", base / "memory")
        for directory in (self.upper, base / "memory" / "work", self.root):
            directory.mkdir()
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={self.upper},"
            f"workdir={base}/memory/work", self.root)
        run("mount", "-t", "proc", "proc", self.root / "proc")
        run("mount", "-t", "tmpfs", "tmpfs", self.root / "run")
        run("mount", "--bind", "/dev", self.root / "dev")

    def write(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def run(self, *command, **more):
        return run("chroot", self.root, *command, env={**os.environ, "LC_ALL": "C.UTF-8",
                                                       "DEBIAN_FRONTEND": "noninteractive"}, **more)

    def install(self, package):
        target = self.root / "run" / "package.deb"
        shutil.copyfile(package, target)
        self.run("dpkg", "--install", "/run/package.deb")
        target.unlink()

    def left(self):
        """left() is what has changed, beside what dpkg notes."""
        paths = [p.relative_to(self.upper) for p in self.upper.rglob("*")] + \
            [p.relative_to(self.root) for p in (self.root / "run").rglob("*")]
        return sorted(str(p) for p in paths
                      if not str(p).startswith(NOT_OURS) and "sluice" in str(p))


NODE = """dataplane:
  {workers: 1, idle: sleep, hugepages: off, memory: 64, connections: 10000,
   ports: [{name: up0, device: "net_null0,no-rx=1"}]}
controlplane: {limits: {services: 64, backends: 256, table-memory: 8}}
"""


class Systemd:
    """systemd as process 1, with nothing to start but what it is told to."""

    def __init__(self, over):
        self.over = over
        for wants in (over.root / "etc/systemd/system").glob("*.wants"):
            shutil.rmtree(wants)
        over.write("run/systemd/system/idle.target", "[Unit]\nDescription=nothing\n")
        for name in ("dataplane", "controlplane"):
            over.write(f"run/systemd/system/sluice-{name}.service.d/test.conf",
                       "[Service]\nWatchdogSec=1s\n")
        run("mount", "-t", "sysfs", "sysfs", over.root / "sys")
        run("mount", "-t", "cgroup2", "cgroup2", over.root / "sys/fs/cgroup")
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc=" + str(over.root / "proc"),
             "chroot", over.root, "/lib/systemd/systemd", "--unit=idle.target",
             "--log-target=null", "--show-status=false"], env={"container": "lxc", "PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.init = None

    def boot(self):
        """boot() is false where systemd does not come up."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        end = time.monotonic() + 40
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return False
            if self.init is None:
                self.init = (children.read_text().split() or [None])[0]
            elif self.ask("is-system-running", fine=range(256)) in ("running", "degraded"):
                return True
            time.sleep(0.2)
        return False

    def run(self, *command, **more):
        return run("nsenter", "-t", self.init, "-p", "-m", "-r", "-w", *command, **more)

    def ask(self, *words, **more):
        return self.run("systemctl", "--no-pager", *words, **more).strip()

    def show(self, unit, what):
        return self.ask("show", "--value", "-p", what, unit)

    def wait(self, unit, what, expected, seconds=20):
        end = time.monotonic() + seconds
        while (now := self.show(unit, what)) != expected:
            if time.monotonic() > end:
                log = self.run("journalctl", "--no-pager", "-n", "30", fine=range(256))
                raise AssertionError(f"{unit}: {what} is {now}, not {expected}\n{log}")
            time.sleep(0.1)

    def end(self):
        self.process.kill()
        self.process.wait()


def units(over, package):
    """units() runs them; package is installed meanwhile, and taken away."""
    both = ["sluice-dataplane.service", "sluice-controlplane.service"]
    systemd = Systemd(over)
    try:
        if not systemd.boot():
            print("systemd does not come up here: the units are not run")
            over.install(package)
            return over.run("dpkg", "--remove", "sluice")
        systemd.ask("start", *both)
        check("up0 (net_null" in systemd.show(both[0], "StatusText"), "the data plane's status")
        check("0 services" in systemd.show(both[1], "StatusText"), "the control plane's")
        check(systemd.show(both[0], "LimitMEMLOCK") == "infinity", "limits")
        systemd.ask("reload", *both)
        log = systemd.run("journalctl", "--no-pager", "-u", both[0], "-u", both[1])
        check(log.count("reloaded") == 2, log)
        # What stands still is ended by the watchdog, and started again.
        for unit in both:
            began = time.monotonic()
            os.kill(int(child_of(systemd, unit)), signal.SIGSTOP)
            systemd.wait(unit, "NRestarts", "1")
            systemd.wait(unit, "ActiveState", "active")
            print(f"{unit} stood still: running again after {time.monotonic() - began:.1f} s "
                  "(watchdog 1 s)")
        systemd.run("sluice", "status")
        pids = [systemd.show(unit, "MainPID") for unit in both]
        shutil.copyfile(package, over.root / "run" / "package.deb")
        systemd.run("dpkg", "--install", "/run/package.deb")
        check(pids == [systemd.show(unit, "MainPID") for unit in both],
              "an upgrade leaves alone what runs")
        check(systemd.ask("is-enabled", *both, fine=(1,)) == "disabled\ndisabled", "nor enables it")
        systemd.run("dpkg", "--remove", "sluice")
        check([systemd.show(unit, "ActiveState") for unit in both] == 2 * ["inactive"],
              "what is removed has ended")
        return None
    finally:
        systemd.end()
        (over.root / "run" / "package.deb").unlink(missing_ok=True)


def child_of(systemd, unit):
    """child_of() is the unit's main process as we see it."""
    inside = systemd.show(unit, "MainPID")
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            line = next(x for x in status.read_text().splitlines() if x.startswith("NSpid:"))
        except (OSError, StopIteration):
            continue
        words = line.split()
        if words[-1] == inside and len(words) == 3 and "sluice" in (status.parent / "comm").read_text():
            return words[1]
    raise AssertionError(f"{unit} has no process {inside}")


def story(base, package, newer):
    over = Overlay(base)
    over.install(package)
    for program in ("sluice", "sluice-dataplane", "sluice-controlplane"):
        said = over.run(program, "--version")
        check(said.startswith(program), said)
    check("fine" in over.run("sluice-controlplane", "--node", "/etc/sluice/node.yaml", "--check"),
          "the node.yaml it brings is fine")
    check("BTF" in run("readelf", "-S", "--wide", over.root / "usr/lib/sluice/bpf/steer.bpf.o"),
          "the BPF objects are not stripped")
    check(".debug_info" not in run("readelf", "-S", "--wide", over.root / "usr/bin/sluice"),
          "the programs are")
    check(not (over.root / "etc/systemd/system/multi-user.target.wants" /
               "sluice-dataplane.service").exists(), "nothing is enabled")
    check(not (over.root / "run/sluice").exists(), "nothing is started")

    # A conffile that was changed stays.
    node = over.root / "etc/sluice/node.yaml"
    node.write_text(node.read_text(encoding="utf-8").replace("127.0.0.1:9090", "127.0.0.1:9191") +
                    "  api: {mode: \"0600\"}\n", encoding="utf-8")
    # pylint: disable-next=consider-using-with
    daemon = subprocess.Popen(["chroot", over.root, "sluice-controlplane", "--node",
                               "/etc/sluice/node.yaml"], stderr=subprocess.PIPE, text=True)
    try:
        for line in daemon.stderr:
            if " ready:" in line:
                break
        check("revision" in over.run("sluice", "status"), "the installed CLI and daemon talk")
        over.install(newer)
        check("0600" in node.read_text(encoding="utf-8"), "a changed conffile stays")
        check(daemon.poll() is None, "an upgrade leaves alone what runs")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=20)
    check(daemon.returncode == 0 and (over.root / "var/lib/sluice/state.db").exists(), "it ended")

    node.write_text(NODE, encoding="utf-8")
    units(over, newer)
    left = over.left()
    check("etc/sluice/node.yaml" in left and "var/lib/sluice/state.db" in left, str(left))
    check(not [p for p in left if p.startswith(("usr/", "run/")) and (over.root / p).exists()],
          f"removed, but for configuration and state: {left}")
    over.run("dpkg", "--purge", "sluice")
    left = [p for p in over.left() if (over.root / p).exists()]
    check(not left, f"purged, and still there: {left}")


def main():
    if os.geteuid() != 0:
        print("skipped: needs root")
        return 77
    if "--inside" not in sys.argv:
        # A mount and a network namespace that end with this.
        return subprocess.run(["unshare", "--mount", "--net", sys.executable, __file__, "--inside"],
                              check=False).returncode
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    base = Path(tempfile.mkdtemp(prefix="sluice-package-"))
    try:
        package, newer = build(base)
        contents(package)
        story(base, package, newer)
    finally:
        subprocess.run(["umount", "--recursive", base / "root"], check=False,
                       stderr=subprocess.DEVNULL)
        subprocess.run(["umount", base / "memory"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(base, ignore_errors=True)
    print(f"{held()} checks held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
