# SPDX-License-Identifier: Apache-2.0
"""The control plane alone in a network namespace of its own, and what its tests ask it with."""

import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.expect import check, held  # noqa: E402

BUILD = Path(os.environ.get("SLUICE_BUILD", Path(__file__).resolve().parents[2] / "build"))
DAEMON = BUILD / "controlplane" / "sluice-controlplane"
BACKENDS = ["10.77.0.11", "10.77.0.12", "10.77.0.13"]
PORT = 8080

SERVICES = """services:
  - name: web
    address: 198.51.100.10
    protocol: tcp
    port: 8080
    forward: ipip
    health: {type: http, path: /healthz, interval: 100ms, timeout: 90ms, rise: 2, fall: 2}
    backends:
      - {address: 10.77.0.11, weight: 100}
      - {address: 10.77.0.12, weight: 100}
      - {address: 10.77.0.13, weight: 50}
  - name: plain
    address: "2001:db8::10"
    protocol: udp
    port: any
    forward: dsr-l2
    table-size: 1021
    backends:
      - {address: "2001:db8:1::1"}
      - {address: "2001:db8:1::2", tier: 1}
"""


def wait_until(condition, text, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {text}")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


class Daemon:
    """One runtime directory, and the control plane that is started in it."""

    def __init__(self, directory, metrics_port):
        self.directory = directory
        self.socket = f"{directory}/api.sock"
        self.metrics_port = metrics_port
        self.node = f"{directory}/node.yaml"
        self.process = None
        Path(self.node).write_text(
            f"""node: {{name: test1, runtime-dir: {directory}}}
cluster: {{hash-seed: 42}}
dataplane:
  ports: [{{name: up0, device: "net_null0"}}]
  next-hop: {{up0: "02:00:00:00:00:01"}}
  encap-source: {{ipv4: 192.0.2.10, ipv6: "2001:db8::a"}}
  nat-pool: {{ipv4: [192.0.2.11]}}
controlplane:
  state: {directory}/state/state.db
  api: {{socket: {self.socket}, mode: "0600"}}
  metrics: {{listen: "127.0.0.1:{metrics_port}"}}
""",
            encoding="utf-8",
        )

    def start(self):
        with open(f"{self.directory}/log", "ab") as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen([DAEMON, "--node", self.node], stderr=log)
        wait_until(self.answers, "the control plane answers")

    def answers(self):
        check(self.process.poll() is None, "the control plane runs")
        try:
            return self.call("GET", "/v1/version")[0] == 200
        except OSError:
            return False

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(timeout=20)

    def raw(self, method, path, body=None, headers=None):
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def call(self, method, path, body=None, headers=None):
        if isinstance(body, dict):
            body = json.dumps(body)
        status, text = self.raw(method, path, body, headers)
        return status, json.loads(text)

    def get(self, path):
        status, answer = self.call("GET", path)
        check(status == 200, f"GET {path}: {status} {answer}")
        return answer

    def backend(self, address, service="web"):
        for b in self.get(f"/v1/services/{service}")["backends"]:
            if b["address"] == address:
                return b
        raise AssertionError(f"no backend {address}")

    def log(self):
        return Path(f"{self.directory}/log").read_text(encoding="utf-8")


class Web:
    """A real HTTP listener that can be taken away and brought back."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/healthz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """A prober that was killed resets its connections."""

    def __init__(self, address):
        self.address = address
        self.server = None
        self.up()

    def up(self):
        self.server = self.Server((self.address, PORT), self.Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self):
        self.server.shutdown()
        self.server.server_close()


def in_namespace(script):
    """in_namespace() starts the script anew in a network namespace of its own; False: there are
    none."""
    if "SLUICE_TEST_INSIDE" not in os.environ:
        unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
            print("network namespaces cannot be had: skipped")
            return False
        os.environ["SLUICE_TEST_INSIDE"] = "1"
        os.execvp(unshare[0], [*unshare, sys.executable, str(Path(script).resolve())])
    for command in ["link set lo up", *(f"addr add {a}/32 dev lo" for a in BACKENDS)]:
        subprocess.run(["ip", *command.split()], check=True)
    return True


def with_daemon(script, test):
    """with_daemon() runs test(daemon) in a namespace and directory that are gone afterwards;
    returns the script's exit code."""
    if not in_namespace(script):
        return 77
    directory = tempfile.mkdtemp(prefix="sluice-control-")
    daemon = Daemon(directory, 9190)
    try:
        test(daemon)
        check(daemon.end() == 0, "a clean end")
    except BaseException:
        if os.path.exists(f"{directory}/log"):
            print(daemon.log(), file=sys.stderr)
        raise
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{held()} checks held")
    return 0
