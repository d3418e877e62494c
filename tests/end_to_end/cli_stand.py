# SPDX-License-Identifier: Apache-2.0
"""Both daemons (a port that receives nothing, no hugepages, a runtime directory of its own) and the
CLI, for the tests of what it says."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.expect import check  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SLUICE_BUILD", ROOT / "build"))
CLI = BUILD / "tools" / "cli" / "sluice"
DAEMONS = {"dataplane": BUILD / "dataplane" / "sluice-dataplane",
           "controlplane": BUILD / "controlplane" / "sluice-controlplane"}

NODE = """node: {{name: test1, runtime-dir: {d}}}
cluster: {{hash-seed: 42}}
dataplane:
  workers: 1
  ports: [{{name: up0, device: "net_null0,no-rx=1"}}]
  encap-source: {{ipv4: 192.0.2.10}}
  next-hop: {{up0: "02:00:00:00:00:01"}}
  connections: 10000
  idle: sleep
  hugepages: "off"
  memory: 64
controlplane:
  state: {d}/state.db
  api: {{mode: "0600"}}
"""
SERVICES = """services:
  - name: web
    address: 198.51.100.10
    protocol: tcp
    port: 443
    forward: ipip
    backends:
      - {address: 10.0.1.11, weight: 100}
      - {address: 10.0.1.12, weight: 50}
  - name: plain
    address: "2001:db8:f::10"
    protocol: udp
    port: "5000-5100"
    forward: dsr-l2
    backends:
      - {address: "2001:db8:1::11"}
"""


class Cli:
    def __init__(self, directory):
        self.directory = directory
        self.environment = {k: v for k, v in os.environ.items() if k != "SLUICE_SOCKET"}
        self.socket = f"{directory}/api.sock"

    def run(self, *arguments, code=0, text=None, socket=True, pass_on=None):
        """run() runs it; a code that is not the expected one ends the test."""
        environment = dict(self.environment)
        if socket:
            environment["SLUICE_SOCKET"] = self.socket
        result = subprocess.run([*(pass_on or []), CLI, *arguments], input=text, text=True,
                                capture_output=True, timeout=60, check=False, env=environment,
                                cwd=self.directory)
        check(result.returncode == code, f"sluice {' '.join(arguments)}: exit code "
              f"{result.returncode}, not {code}\n{result.stdout}{result.stderr}")
        if code:
            check(result.stderr.strip(), f"sluice {' '.join(arguments)}: no word on stderr")
            check(not result.stdout, f"sluice {' '.join(arguments)}: failed, yet prints "
                  f"{result.stdout!r}")
        return result

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "-o", "json").stdout)


def start(directory):
    """start() starts both daemons and waits until both are ready."""
    processes = []
    for name, program in DAEMONS.items():
        with open(f"{directory}/{name}.log", "wb") as log:
            # pylint: disable-next=consider-using-with
            processes.append(subprocess.Popen([program, "--node", f"{directory}/node.yaml"],
                                              stdout=log, stderr=log))
    cli = Cli(directory)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process, name in zip(processes, DAEMONS):
            check(process.poll() is None, f"{name} ended:\n"
                  + Path(directory, f"{name}.log").read_text(encoding="utf-8"))
        if os.path.exists(cli.socket):
            status = json.loads(cli.run("status", "-o", "json").stdout)
            if status["dataplane"]["state"] == "running":
                return processes
        time.sleep(0.1)
    raise AssertionError("not ready after 60 s:\n"
                         + "".join(p.read_text() for p in Path(directory).glob("*.log")))
