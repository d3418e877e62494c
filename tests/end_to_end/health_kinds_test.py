#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every kind of health check against real servers (OpenSSL, nghttpd, gRPC, dnsmasq, the kernel):
a good one is up, a bad one down, with the reason shown; one that dies is down in time."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from control_stand import check, wait_until, with_daemon  # noqa: E402

INTERVAL, TIMEOUT, FALL = 0.5, 0.4, 3
GOOD, BAD, WORSE, SILENT = "10.77.0.11", "10.77.0.12", "10.77.0.13", "10.88.0.1"
NAME = "www.example.test"

GRPC_SERVER = """
import sys, time
from concurrent import futures
import grpc

class Health(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method != "/grpc.health.v1.Health/Check":
            return None
        def answer(request, context):
            if request == b"\\x0a\\x04cart":
                return b"\\x08\\x01"
            if request == b"\\x0a\\x04till":
                return b"\\x08\\x02"
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return grpc.unary_unary_rpc_method_handler(answer)

server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Health(),))
server.add_insecure_port(sys.argv[1])
server.start()
time.sleep(600)
"""


class Servers:
    def __init__(self, directory):
        self.directory = Path(directory)
        self.processes = {}
        self.datagrams = []
        self.sockets = []

    def start(self, name, *command, **options):
        log = open(self.directory / f"{name}.log", "wb")  # pylint: disable=consider-using-with
        # pylint: disable-next=consider-using-with
        self.processes[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log,
                                                stderr=log, **options)
        log.close()

    def stop(self, name, number=signal.SIGTERM):
        process = self.processes.pop(name)
        process.send_signal(number)
        process.stdin.close()
        process.wait(timeout=10)

    def end(self):
        for name in list(self.processes):
            self.stop(name, signal.SIGKILL)
        for s in self.sockets:
            s.close()

    def certificate(self, name, *more):
        """A key, and a certificate of the authority's for NAME."""
        base = str(self.directory / name)
        subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{base}.key", "-out",
                        f"{base}.csr", "-subj", f"/CN={name}"], check=True, capture_output=True)
        Path(f"{base}.ext").write_text(f"subjectAltName=DNS:{NAME}\n", encoding="utf-8")
        subprocess.run(["openssl", "x509", "-req", "-in", f"{base}.csr", "-CA",
                        str(self.directory / "ca.pem"), "-CAkey", str(self.directory / "ca.key"),
                        "-CAcreateserial", "-extfile", f"{base}.ext", "-out", f"{base}.pem", *more],
                       check=True, capture_output=True)
        return f"{base}.pem", f"{base}.key"

    def authority(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=authority",
                        "-keyout", str(self.directory / "ca.key"), "-out",
                        str(self.directory / "ca.pem")], check=True, capture_output=True)
        return str(self.directory / "ca.pem")

    def answer_datagrams(self, address, port, answer):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((address, port))
        self.sockets.append(s)

        def serve():
            while True:
                try:
                    data, sender = s.recvfrom(2048)
                    self.datagrams.append((time.monotonic(), address, data))
                    if answer:
                        s.sendto(answer, sender)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()


def start_all(servers):
    ca = servers.authority()
    pem, key = servers.certificate("good", "-days", "2")
    old_pem, old_key = servers.certificate("old", "-days", "-1")
    for name, at, files in (("tls", GOOD, (pem, key)), ("tls-old", BAD, (old_pem, old_key))):
        servers.start(name, "openssl", "s_server", "-accept", f"{at}:8443", "-cert", files[0],
                      "-key", files[1], "-www", "-quiet")
    root = servers.directory / "root"
    root.mkdir()
    (root / "healthz").write_text("fine\n", encoding="utf-8")
    empty = servers.directory / "empty"
    empty.mkdir()
    servers.start("h2", "nghttpd", "-a", GOOD, "-d", str(root), "8444", key, pem)
    servers.start("h2-404", "nghttpd", "-a", BAD, "-d", str(empty), "8444", key, pem)
    servers.start("h2c", "nghttpd", "-a", GOOD, "--no-tls", "-d", str(root), "8081")
    # Answers by HTTP/1 whatever it is asked.
    servers.start("http1", sys.executable, "-m", "http.server", "-b", BAD, "8081")
    script = servers.directory / "grpc_server.py"
    script.write_text(GRPC_SERVER, encoding="utf-8")
    servers.start("grpc", sys.executable, str(script), f"{GOOD}:50051")
    dns = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-hosts",
           "--no-resolv", "--pid-file=", "--bind-interfaces", "--port=5353"]
    servers.start("dns", *dns, f"--listen-address={GOOD}", "--local=/test/",
                  f"--host-record={NAME},192.0.2.1")
    servers.start("dns-refused", *dns, f"--listen-address={BAD}")
    servers.answer_datagrams(GOOD, 7000, b"alive 7")
    servers.answer_datagrams(WORSE, 7000, None)
    return ca


def service(n, name, health, *backends):
    return {"name": name, "address": f"198.51.100.{n}", "port": 80, "forward": "nat",
            "table-size": 1021,
            "health": {**health, "interval": f"{int(INTERVAL * 1000)}ms",
                       "timeout": f"{int(TIMEOUT * 1000)}ms", "rise": 1, "fall": FALL},
            "backends": [{"address": b} for b in backends]}


def shown(d, name):
    return {b["address"]: (b["health"], b["health_text"])
            for b in d.get(f"/v1/services/{name}")["backends"]}


def scenario(d):
    servers = Servers(d.directory)
    try:
        story(d, servers)
    finally:
        servers.end()


def story(d, servers):
    # What is sent there is lost without a word.
    for command in ("link add quiet0 type veth peer quiet1", "link set quiet0 up",
                    "link set quiet1 up", "route add 10.88.0.0/24 dev quiet0",
                    f"neigh add {SILENT} lladdr 02:00:00:00:00:99 dev quiet0 nud permanent"):
        subprocess.run(["ip", *command.split()], check=True)
    ca = start_all(servers)
    checks = Path(d.directory) / "checks"
    checks.mkdir()
    for address, code in ((GOOD, 12), (BAD, 1), (WORSE, 0)):
        (checks / address).write_text(f"{code}\n", encoding="utf-8")
    program = checks / "load"
    program.write_text(f'#!/bin/sh\nexit $(cat "{checks}/$SLUICE_BACKEND")\n', encoding="utf-8")
    program.chmod(0o755)
    node = Path(d.node)
    node.write_text(node.read_text(encoding="utf-8") + f"  checks: {checks}\n", encoding="utf-8")
    d.start()

    tls = {"path": "/healthz", "host": NAME, "ca-file": ca}
    udp = {"type": "udp", "port": 7000, "send": "hello", "receive": "alive"}
    h2 = {"type": "http2", "path": "/healthz"}
    services = [
        service(1, "https", {"type": "https", **tls, "port": 8443}, GOOD, BAD, WORSE),
        service(2, "blind", {"type": "https", "verify": False, "port": 8443}, BAD),
        service(3, "http2", {"type": "http2", **tls, "port": 8444}, GOOD, BAD),
        service(4, "h2c", {**h2, "tls": False, "port": 8081}, GOOD, BAD),
        service(5, "grpc", {"type": "grpc", "service": "cart", "port": 50051}, GOOD, BAD),
        service(6, "grpc-till", {"type": "grpc", "service": "till", "port": 50051}, GOOD),
        service(7, "grpc-none", {"type": "grpc", "service": "none", "port": 50051}, GOOD),
        service(8, "udp", udp, GOOD, BAD, WORSE),
        service(9, "udp-too", udp, GOOD),
        service(10, "dns", {"type": "dns", "name": NAME, "port": 5353}, GOOD, BAD),
        service(11, "icmp", {"type": "icmp"}, GOOD, SILENT),
        service(12, "exec", {"type": "exec", "command": [str(program)], "weights": True},
                GOOD, BAD, WORSE)]
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": services}))
    check(status == 200, str(answer))
    silence = f"timeout after {int(TIMEOUT * 1000)} ms waiting for an "
    expected = {
        "https": {GOOD: ("up", "HTTP 200"), BAD: ("down", "certificate: certificate has expired"),
                  WORSE: ("down", "connection refused")},
        "blind": {BAD: ("up", "HTTP 200")},
        "http2": {GOOD: ("up", "HTTP/2 200"), BAD: ("down", "HTTP/2 404")},
        "h2c": {GOOD: ("up", "HTTP/2 200"),
                BAD: ("down", "not HTTP/2")},
        "grpc": {GOOD: ("up", "gRPC SERVING"), BAD: ("down", "connection refused")},
        "grpc-till": {GOOD: ("down", "gRPC NOT_SERVING")},
        "grpc-none": {GOOD: ("down", "gRPC status 5 (NOT_FOUND)")},
        "udp": {GOOD: ("up", "answered"), BAD: ("down", "port unreachable (ICMP)"),
                WORSE: ("down", silence + "answer")},
        "udp-too": {GOOD: ("up", "answered")},
        "dns": {GOOD: ("up", "DNS NOERROR"), BAD: ("down", "DNS REFUSED")},
        "icmp": {GOOD: ("up", "echo reply"), SILENT: ("down", silence + "echo reply")},
        "exec": {GOOD: ("up", "exit code 12: weight 10"), BAD: ("down", "exit code 1"),
                 WORSE: ("up", "exit code 0")}}
    for name, backends in expected.items():
        try:
            wait_until(lambda: shown(d, name) == backends, name, 15)
        except AssertionError as e:
            raise AssertionError(f"{name}: {shown(d, name)}, not {backends}") from e

    weights = {b["address"]: b["effective_weight"]
               for b in d.get("/v1/services/exec")["backends"]}
    check(weights == {GOOD: 10, BAD: 0, WORSE: 100}, f"weights as reported: {weights}")
    (checks / GOOD).write_text("52\n", encoding="utf-8")
    wait_until(lambda: d.backend(GOOD, "exec")["effective_weight"] == 50, "another weight")

    # Two services, one probe.
    begin = time.monotonic()
    time.sleep(4 * INTERVAL)
    count = sum(1 for at, address, _ in list(servers.datagrams) if at >= begin and address == GOOD)
    check(3 <= count <= 5, f"{count} datagrams in 4 intervals for two services")

    # Who dies is down in time.
    bound = INTERVAL * FALL + TIMEOUT
    for name, server, number in (("https", "tls", signal.SIGKILL), ("grpc", "grpc", signal.SIGSTOP),
                                 ("dns", "dns", signal.SIGSTOP)):
        died = time.monotonic()
        os.kill(servers.processes[server].pid, number)
        wait_until(lambda: shown(d, name)[GOOD][0] == "down", f"{name} down", 10)
        took = time.monotonic() - died
        print(f"{name}: {signal.Signals(number).name}: down after {took:.2f} s (at most "
              f"{bound:.2f} s), {shown(d, name)[GOOD][1]}")
        check(took < bound + 0.5, "in time, but for a busy machine")
    os.kill(servers.processes["grpc"].pid, signal.SIGCONT)
    wait_until(lambda: shown(d, "grpc")[GOOD] == ("up", "gRPC SERVING"), "grpc is back", 10)

    # What the node does not allow.
    services[-1]["health"]["command"] = ["/bin/true"]
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": services}))
    check(status == 400 and "expected a program there" in str(answer), str(answer))


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
