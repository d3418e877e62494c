# SPDX-License-Identifier: Apache-2.0
"""A lab: network namespaces, links and processes, made for a test and removed after it.

    with Lab("smoke") as lab:
        lab.namespace("client")
        lab.namespace("server")
        lab.link("client", "eth0", "server", "eth0")
        lab.ip("client", "address add 10.0.0.1/24 dev eth0")
        lab.run("client", ["curl", "-s", "http://10.0.0.2/"])

Names contain the process id: any number of labs run side by side. Everything is removed at
the end of the block, at exit, and on SIGINT, SIGTERM and SIGHUP; what a lab that was killed
has left is removed by the next one. Root only.
"""

import atexit
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import state
from .process import LabError, Process

# What a client or server of these tests has no use for, or what would delay it.
SYSCTLS = {
    "net.ipv4.conf.all.rp_filter": 0,      # replies of direct return come another way
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.all.arp_ignore": 1,     # nobody answers for a VIP on lo
    "net.ipv4.conf.all.arp_announce": 2,
    "net.ipv4.conf.all.accept_redirects": 0,
    "net.ipv4.conf.default.accept_redirects": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
    "net.ipv6.conf.all.accept_dad": 0,     # an address is usable at once
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.default.dad_transmits": 0,
    "net.ipv6.conf.all.accept_ra": 0,
    "net.ipv6.conf.default.accept_ra": 0,
    "net.ipv6.conf.default.router_solicitations": 0,
    "net.ipv6.conf.all.accept_redirects": 0,
    "net.ipv6.conf.default.accept_redirects": 0,
    # A bridge is to be a wire: with br_netfilter it drops what has a bad IP header.
    "net.bridge.bridge-nf-call-iptables": 0,
    "net.bridge.bridge-nf-call-ip6tables": 0,
    "net.bridge.bridge-nf-call-arptables": 0,
    "net.ipv4.ip_local_port_range": "10000 65000",
    "net.ipv4.tcp_tw_reuse": 1,
}
OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro")


class Lab:
    def __init__(self, kind="lab"):
        if os.geteuid() != 0:
            raise LabError("network namespaces need root")
        self.kind = kind
        self.name = f"sl{os.getpid()}"
        self.keep = False
        self.failed = False
        self.down_done = False
        self.namespaces = {}
        self.processes = []
        for swept in state.sweep():
            print(f"lab: removed what {swept}, which was killed, had left", flush=True)
        self.state = state.State(self.name, kind)
        self.directory = Path(tempfile.mkdtemp(prefix=f"sluice-{self.name}-"))
        # nginx's workers run as nobody and read below it.
        self.directory.chmod(0o755)
        with state.locked():
            self.state.add("directories", str(self.directory))
        self.owner = os.getpid()
        atexit.register(self.down)
        self.handlers = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.handlers[number] = signal.signal(number, self._on_signal)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, _traceback):
        if kind is not None:
            self.failed = True
        self.down()

    def _on_signal(self, number, _frame):
        # Not twice: a second Ctrl-C shall not stop the cleaning up half way.
        for each in self.handlers:
            signal.signal(each, signal.SIG_IGN)
        print(f"\nlab: signal {number}: removing what was made", file=sys.stderr, flush=True)
        self.keep = False
        self.down()
        os._exit(128 + number)

    # -- namespaces and links ------------------------------------------------------------

    def namespace(self, short, sysctls=None):
        """namespace() makes the namespace NAME-short with lo up; returns its full name."""
        full = f"{self.name}-{short}"
        self.state.add("namespaces", full)
        _call(["ip", "netns", "add", full])
        self.namespaces[short] = full
        wanted = {**SYSCTLS, **(sysctls or {})}
        script = "".join(f"{k} = {v}\n" for k, v in wanted.items())
        # Not every kernel has every knob (-e).
        subprocess.run(["ip", "netns", "exec", full, "sysctl", "-q", "-e", "-p", "-"],
                       input=script, text=True, capture_output=True, check=False)
        self.ip(short, "link set lo up")
        return full

    def ip(self, short, *commands):
        """ip() runs `ip` commands in a namespace, all in one batch."""
        result = subprocess.run(["ip", "-n", self.namespaces[short], "-batch", "-"],
                                input="\n".join(commands) + "\n", text=True, capture_output=True,
                                check=False)
        if result.returncode != 0:
            raise LabError(f"in {short}: {'; '.join(commands)}: {result.stderr.strip()}")
        return result.stdout

    def link(self, one, one_name, other, other_name, mtu=1500, queues=1, offloads=False):
        """link() connects two namespaces with a veth pair, up, with checksum and segmentation
        offloads off: AF_XDP sees frames as they would be on a wire."""
        queue_text = f"numrxqueues {queues} numtxqueues {queues}"
        self.ip(one, f"link add {one_name} mtu {mtu} {queue_text} type veth peer name {other_name} "
                     f"mtu {mtu} netns {self.namespaces[other]} {queue_text}")
        for short, name in ((one, one_name), (other, other_name)):
            if not offloads:
                self.ethtool(short, "-K", name, *(w for o in OFFLOADS for w in (o, "off")))
            self.ip(short, f"link set {name} up")

    def ethtool(self, short, *arguments):
        # It complains about what it cannot change; what matters is checked by the traffic.
        subprocess.run(["ip", "netns", "exec", self.namespaces[short], "ethtool", *arguments],
                       capture_output=True, check=False)

    def bridge(self, short, name="br0"):
        self.ip(short, f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link set {name} up")

    # -- processes -----------------------------------------------------------------------

    def start(self, short, name, command, **options):
        """start() starts a process in a namespace (None: the host's); see Process."""
        process = Process(self, name, command,
                          namespace=self.namespaces[short] if short else None, **options)
        self.processes.append(process)
        return process

    def run(self, short, command, timeout=30, check=True, env=None, input=None):
        """run() runs a command to its end; returns the CompletedProcess with text output."""
        full = (["ip", "netns", "exec", self.namespaces[short]] if short else []) + \
            [str(c) for c in command]
        try:
            result = subprocess.run(full, capture_output=True, text=True, errors="replace",
                                    timeout=timeout, check=False, input=input or "",
                                    env={**os.environ, **(env or {})})
        except subprocess.TimeoutExpired:
            raise LabError(f"{shlex.join(map(str, command))}: not done after {timeout} s") from None
        if check and result.returncode != 0:
            raise LabError(f"{shlex.join(map(str, command))}: exit code {result.returncode}: "
                           f"{(result.stderr or result.stdout).strip()}")
        return result

    def path(self, *parts):
        """path() returns a path in the lab's directory, whose folder exists."""
        path = self.directory.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # -- the end -------------------------------------------------------------------------

    def keep_running(self, info):
        """keep_running() leaves everything for `--down`; info is shown to whoever asks."""
        self.state.data["kept"] = True
        self.state.data["info"] = info
        self.state.save()
        self.keep = True

    def show_logs(self, lines=15):
        # A process that is started again goes on with the log of the one before.
        for process in {p.name: p for p in self.processes}.values():
            if "tcpdump" in process.name:
                continue  # says only how many packets there were
            text = process.output().strip()
            if text:
                print(f"--- the end of {process.name}'s log:\n{process.tail(lines)}", flush=True)

    def down(self):
        """down() removes everything, once."""
        if self.down_done or self.keep or os.getpid() != self.owner:
            return
        self.down_done = True
        logs = os.environ.get("SLUICE_LAB_LOGS")
        if logs:
            target = Path(logs) / f"{self.kind}-{self.name}"
            shutil.copytree(self.directory, target, dirs_exist_ok=True,
                            ignore=lambda d, names: [n for n in names if not (
                                Path(d, n).is_file() or Path(d, n).is_dir()) or n == "big"])
            print(f"lab: logs copied to {target}", flush=True)
        state.tear_down(self.state)
        atexit.unregister(self.down)


def _call(command):
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LabError(f"{shlex.join(command)}: {result.stderr.strip()}")
