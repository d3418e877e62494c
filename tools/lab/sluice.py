# SPDX-License-Identifier: Apache-2.0
"""Sluice's own programs in a lab: the two daemons, the CLI, the load generator."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import yaml

from .process import LabError, wait_until

ROOT = Path(__file__).resolve().parents[2]


def fnv1a(text):
    """fnv1a() is the hash that names files by the runtime directory (dataplane/process)."""
    value = 0xcbf29ce484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001b3 % (1 << 64)
    return f"{value:x}"


class Binaries:
    """Where the build is: $SLUICE_BUILD, or build/."""

    def __init__(self, build=None):
        self.build = Path(build or os.environ.get("SLUICE_BUILD") or ROOT / "build").resolve()
        self.dataplane = self.build / "dataplane" / "sluice-dataplane"
        self.controlplane = self.build / "controlplane" / "sluice-controlplane"
        self.cli = self.build / "tools" / "cli" / "sluice"
        self.flowgen = self.build / "tests" / "end_to_end" / "flowgen"
        self.bpf = self.build / "bpf"
        self.backend_setup = ROOT / "tools" / "backend-setup"

    def missing(self):
        return [str(p) for p in (self.dataplane, self.controlplane, self.cli, self.flowgen)
                if not p.exists()]


def set_up_backend(scene, name, binaries, tunnel=(), direct=()):
    """set_up_backend() makes a backend of the scene one, with the operators' own command:
    the VIPs of tunnel arrive encapsulated, those of direct do not."""
    lab = scene.lab
    common = [binaries.backend_setup, "up", "--interface", "eth0", "--object",
              binaries.bpf / "decap.bpf.o"]
    # Its records are kept per lab and backend: the namespaces share /run.
    environment = {"SLUICE_RUN_DIR": str(lab.path(f"backend-{name}", "x").parent)}
    if tunnel:
        lab.run(name, [*common,
                       *(word for vip in tunnel for word in ("--vip", vip)),
                       "--source", f"{scene.edge_address(segment=scene.segments - 1)}/32",
                       "--source", f"{scene.edge_address(True, scene.segments - 1)}/128"],
                env=environment)
    if direct:
        lab.run(name, [*common, "--mode", "dsr-l2",
                       *(word for vip in direct for word in ("--vip", vip))], env=environment)


class Balancer:
    """Both daemons in the scene's edge namespace, or in that of another node of it."""

    def __init__(self, scene, binaries=None, workers=1, idle="sleep", hugepages="auto",
                 connections=100000, dataplane=None, controlplane=None, at="edge"):
        self.scene = scene
        self.lab = scene.lab
        self.binaries = binaries or Binaries()
        if missing := self.binaries.missing():
            raise LabError(f"not built: {', '.join(missing)}")
        self.at = at
        self.suffix = "" if at == "edge" else f"-{at}"
        self.run_directory = self.lab.path(f"run{self.suffix}", "x").parent
        self.socket = self.run_directory / "api.sock"
        self.node_file = self.lab.path(f"node{self.suffix}.yaml")
        self.metrics = "127.0.0.1:9090"  # in the edge's namespace
        self.node = {
            "node": {"name": "edge1" if at == "edge" else at, "runtime-dir": str(self.run_directory)},
            "cluster": {"hash-seed": 42},
            "dataplane": {
                "workers": workers,
                "ports": [{"name": port, "device": f"af_xdp:{interface}"}
                          for port, interface in scene.ports.items()],
                "encap-source": {"ipv4": scene.edge_address(segment=scene.segments - 1),
                                 "ipv6": scene.edge_address(True, scene.segments - 1)},
                "connections": connections,
                "idle": idle,
                "hugepages": hugepages,
                "memory": 128,
                **(dataplane or {}),
            },
            "controlplane": {
                "state": str(self.lab.path(f"state{self.suffix}", "state.db")),
                "api": {"socket": str(self.socket)},
                "metrics": {"listen": self.metrics},
                **(controlplane or {}),
            },
        }
        # The connection tables and NAT sessions outlive the data plane; the lab they do not.
        for place in ("/dev/hugepages", self.run_directory):
            for worker in range(8):
                for what in ("connections", "nat"):
                    self.lab.state.add("files", f"{place}/sluice-{fnv1a(str(self.run_directory))}"
                                                f".{what}.{worker}")
        self.node_file.write_text(yaml.safe_dump(self.node, sort_keys=False))
        self.dataplane = None
        self.controlplane = None

    # -- daemons -------------------------------------------------------------------------

    def environment(self):
        return {"SLUICE_SOCKET": str(self.socket), "SLUICE_BPF_DIR": str(self.binaries.bpf)}

    def start_dataplane(self, timeout=30, wait=True):
        self.dataplane = self.lab.start(
            self.at, f"dataplane{self.suffix}", [self.binaries.dataplane, "--node", self.node_file],
            env=self.environment())
        if wait:
            self.dataplane.wait_for_output("ready", timeout)

    def start_controlplane(self, timeout=20, wait=True):
        self.controlplane = self.lab.start(
            self.at, f"controlplane{self.suffix}", [self.binaries.controlplane, "--node", self.node_file],
            env=self.environment())
        if wait:
            self.controlplane.wait_for_output("ready", timeout)

    def start(self):
        self.start_controlplane(wait=False)
        self.start_dataplane()
        self.controlplane.wait_for_output("ready", 20)

    def stop(self):
        """stop() ends both; returns their exit codes."""
        return self.controlplane.stop(), self.dataplane.stop()

    def restart_controlplane(self, number=signal.SIGTERM):
        self.controlplane.signal(number)
        self.controlplane.wait(10)
        self.start_controlplane()

    # -- the CLI -------------------------------------------------------------------------

    def sluice(self, *arguments, check=True, timeout=20, input=None):
        """sluice() runs the CLI; returns the CompletedProcess."""
        return self.lab.run(self.at, [self.binaries.cli, *arguments], check=check,
                            timeout=timeout, env=self.environment(), input=input)

    def show(self, *arguments):
        """show() runs the CLI with -o json; returns the object."""
        result = self.sluice(*arguments, "-o", "json")
        try:
            return json.loads(result.stdout)
        except ValueError:
            raise LabError(f"sluice {' '.join(map(str, arguments))} -o json printed no JSON: "
                           f"{result.stdout[:300]!r}") from None

    def apply(self, services):
        """apply() makes services (a list as in services.yaml) the desired state."""
        path = self.lab.path(f"services{self.suffix}.yaml")
        path.write_text(yaml.safe_dump({"services": services}, sort_keys=False))
        return self.sluice("apply", "-f", path)

    def backends(self, service):
        """backends() returns the backends of a service by address."""
        found = self.show("get", "backends", service)
        rows = found["backends"] if isinstance(found, dict) else found
        return {row["address"]: row for row in rows if row.get("service", service) == service}

    def wait_for_health(self, service, up, timeout=15):
        """wait_for_health() waits until exactly the backends up (addresses) are up."""
        def as_wanted():
            rows = self.backends(service)
            return {a for a, row in rows.items() if row["health"] == "up"} == set(up)
        try:
            return wait_until(as_wanted, timeout, "", 0.1)
        except LabError:
            rows = {a: row["health"] for a, row in self.backends(service).items()}
            raise LabError(f"{service}: waited {timeout} s for {sorted(up)} to be up, the others "
                           f"down; there is {rows}") from None

    def wait_until_usable(self, services):
        """wait_until_usable() waits until every backend of services (as in services.yaml) is up
        and its next hop is known."""
        for s in services:
            self.wait_for_health(s["name"], [b["address"] for b in s["backends"]])

        def resolved():
            return all(row.get("next_hop", {}).get("state") in ("static", "resolved")
                       for s in services for row in self.backends(s["name"]).values())
        wait_until(resolved, 10, "every backend's next hop", 0.1)

    # -- what is counted -----------------------------------------------------------------

    def ask(self, path):
        """ask() is a GET of the API, without a process for it; returns the object."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self.socket))
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: s.recv(65536), b""))
        return json.loads(answer.split(b"\r\n\r\n", 1)[1])

    def counters(self):
        """counters() returns every counter of the data plane, drops as drop_REASON."""
        return {c["name"]: c["value"] for c in self.ask("/v1/counters")["counters"]}

    def metric(self, name, **labels):
        """metric() returns the sum of a Prometheus metric over all rows that have the labels;
        None where there is no such row."""
        text = self.lab.run(self.at, ["curl", "-s", f"http://{self.metrics}/metrics"]).stdout
        rows = [(dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")), float(found[2]))
                for found in re.finditer(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.M)]
        values = [value for has, value in rows if labels.items() <= has.items()]
        return sum(values) if values else None

    # -- load ----------------------------------------------------------------------------

    def load_command(self, target, port=80, **options):
        """load_command() is flowgen's command line; options as its own, with _ for -."""
        text = f"[{target}]:{port}" if ":" in target else f"{target}:{port}"
        command = [self.binaries.flowgen, "load", "--target", text]
        for key, value in options.items():
            command += [f"--{key.replace('_', '-')}", str(value)]
        return command

    def load(self, target, port=80, timeout=120, **options):
        """load() runs flowgen in the client's namespace to its end; returns its report."""
        result = self.lab.run("client", self.load_command(target, port, **options),
                              timeout=timeout)
        return json.loads(result.stdout)

    def start_load(self, name, target, port=80, **options):
        """start_load() starts flowgen in the background; finish_load() returns the report."""
        output = self.lab.path(f"{name}.json")
        log = self.lab.path(f"{name}.tsv")
        process = self.lab.start("client", name,
                                 self.load_command(target, port, output=output, log=log,
                                                   **options))
        process.report_file, process.request_log = output, log
        return process


def finish_load(process, timeout=60, stop=False):
    """finish_load() waits for a load (stop: asks it to end) and returns its report."""
    if stop:
        process.signal(signal.SIGTERM)
    code = process.wait(timeout)
    if code != 0:
        raise LabError(f"{process.name} ended with {code}:\n{process.tail()}")
    return json.loads(process.report_file.read_text())


def request_log(process):
    """request_log() returns what a load has logged so far: a dict per request."""
    rows = []
    for line in process.request_log.read_text().split("\n")[:-1]:
        began, ended, outcome, local, backend, connection = line.split("\t")
        rows.append({"began": float(began), "ended": float(ended), "outcome": outcome,
                     "local": local, "backend": backend, "connection": int(connection)})
    return rows
