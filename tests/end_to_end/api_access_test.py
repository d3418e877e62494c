#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The API over TCP: TLS, bearer tokens, what each may do, what is refused when the node file is
checked, slow clients; and the CLI over it. Only the control plane runs, in a network namespace of
its own."""

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

from control_stand import BUILD, DAEMON, SERVICES, check, wait_until, with_daemon

CLI = BUILD / "tools" / "cli" / "sluice"
PORT = 9443
READER, ADMIN, HASHED = "reader-0123456789abcdef", "admin-0123456789abcdef", "h" * 40
BEATER = "beater-0123456789abcdef"


def run(*arguments, env=None, **more):
    plain = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=30,
                          check=False, env={**plain, **(env or {})}, **more)


def make_certificate(directory, name, host="127.0.0.1"):
    """make_certificate() makes a certificate that vouches for itself, and its key."""
    files = [f"{directory}/{name}.key", f"{directory}/{name}.crt"]
    done = run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-days", "2", "-subj", "/CN=sluice", "-addext",
               f"subjectAltName=IP:{host}", "-keyout", files[0], "-out", files[1])
    check(done.returncode == 0, done.stderr)
    os.chmod(files[0], 0o600)
    return files


def prepare(d):
    key, certificate = make_certificate(d.directory, "api")
    tokens = Path(d.directory, "tokens")
    tokens.write_text("# who may what\n"
                      f"read-only {READER}\n"
                      f"heartbeat {BEATER}  # backends\n"
                      f"admin {ADMIN}   # the operators\n"
                      f"admin sha256:{hashlib.sha256(HASHED.encode()).hexdigest()}\n",
                      encoding="utf-8")
    tokens.chmod(0o640)
    node = Path(d.node)
    plain = node.read_text(encoding="utf-8")
    listen = (f'listen: {{address: "127.0.0.1:{PORT}", certificate: {certificate}, key: {key}, '
              f"tokens: {tokens}}}")
    node.write_text(plain.replace('mode: "0600"}', f'mode: "0600",\n    {listen}}}'),
                    encoding="utf-8")


def test_refused_at_check_time(d):
    good = Path(d.node).read_text(encoding="utf-8")
    line = next(i for i, text in enumerate(good.split("\n"), 1) if "listen: {address" in text)
    where = f"wrong.yaml:{line}: controlplane.api.listen"
    wrong = Path(d.directory, "wrong.yaml")
    other_key, _ = make_certificate(d.directory, "other")
    files = {}
    for name, text, mode in (("open", f"admin {ADMIN}\n", 0o644), ("none", "# nobody\n", 0o600),
                             ("bad", f"admin {ADMIN}\nroot {READER}\nadmin short\n", 0o600),
                             ("hash", "admin sha256:12\n", 0o600)):
        files[name] = Path(d.directory, f"tokens-{name}")
        files[name].write_text(text, encoding="utf-8")
        files[name].chmod(mode)
    d_ = d.directory
    cases = [
        (f"certificate: {d_}/api.crt, ", "", f"{where}.certificate: is missing"),
        (f"{d_}/api.crt", f"{d_}/gone.crt", f"{where}.certificate: {d_}/gone.crt: cannot be used"),
        (f"{d_}/api.crt", d.node, f"{where}.certificate: {d.node}: cannot be used"),
        (f"{d_}/api.key", other_key, "key values mismatch"),
        (f"{d_}/tokens}}", f"{files['open']}}}", "others may read or change it"),
        (f"{d_}/tokens}}", f"{files['none']}}}", "holds no token"),
        (f"{d_}/tokens}}", f"{files['bad']}}}", f"{files['bad']}:2: 'root' allows nothing"),
        (f"{d_}/tokens}}", f"{files['bad']}}}", f"{files['bad']}:3: a token has 16 to 256"),
        (f"{d_}/tokens}}", f"{files['hash']}}}", "64 hexadecimal digits"),
        (f"127.0.0.1:{PORT}", "127.0.0.1", f"{where}.address: "),
        ("tokens:", "token:", "did you mean tokens?"),
    ]
    for old, new, expected in cases:
        check(old in good, old)
        wrong.write_text(good.replace(old, new), encoding="utf-8")
        for command in ([DAEMON, "--node", wrong, "--check"], [CLI, "check", "-f", wrong]):
            r = run(*command)
            check(r.returncode == 1 and expected in r.stderr.replace('"', "'"),
                  f"{command[0].name}: {expected}: {r.returncode} {r.stderr}")
            check("short" not in r.stderr.split("tokens-bad:3")[-1], "no token is repeated")
    started = run(DAEMON, "--node", wrong)
    check(started.returncode == 1, "nor does it start")
    check(run(CLI, "check", "-f", d.node).returncode == 0, "the good one is fine")
    check(run(DAEMON, "--node", d.node, "--check").returncode == 0, "to both")


def listens():
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
    except OSError:
        return False
    return True


def request(method, path, token=None, body=None, header=None):
    context = ssl.create_default_context(cafile=request.ca)
    with socket.create_connection(("127.0.0.1", PORT), timeout=20) as raw, \
            context.wrap_socket(raw, server_hostname="127.0.0.1") as s:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if header:
            head += header + "\r\n"
        data = (body or "").encode()
        s.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = b"".join(iter(lambda: s.recv(65536), b""))
    top, _, text = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), top.decode(), text.decode()


def test_who_may_what(d):
    for token, header in ((None, None), ("wrong-0123456789abcdef", None), (READER[:-1], None),
                          (None, "Authorization: Basic YTpi")):
        for method, path in (("GET", "/v1/status"), ("PUT", "/v1/config"), ("GET", "/nothing")):
            code, head, text = request(method, path, token, "{}", header)
            check(code == 401 and "WWW-Authenticate: Bearer" in head, f"{token}: {code} {head}")
            check("oken" in json.loads(text)["errors"][0]["message"].lower(), text)
    code, _, text = request("GET", "/v1/status", READER)
    check(code == 200 and json.loads(text)["node"] == "test1", text)
    for method, path in (("PUT", "/v1/config"), ("POST", "/v1/services"),
                         ("DELETE", "/v1/services/web"), ("PATCH", "/v1/services/web"),
                         ("POST", "/v1/rollback?revision=0"), ("OPTIONS", "/v1/status")):
        code, _, text = request(method, path, READER, SERVICES)
        check(code == 403 and "reading only" in text, f"{method} {path}: {code} {text}")
    check(d.get("/v1/status")["revision"] == 0, "nothing has changed")
    code, _, text = request("PUT", "/v1/config", ADMIN, SERVICES)
    check(code == 200 and json.loads(text)["revision"] == 1, text)
    code, _, text = request("DELETE", "/v1/services/plain", HASHED)
    check(code == 200 and json.loads(text)["revision"] == 2, text)
    # A large body is not taken from those who may not send it.
    code, _, _ = request("PUT", "/v1/config", READER, "#" * 60_000)
    check(code == 403, f"a body of 60 kB: {code}")


def test_tls_itself():
    context = ssl.create_default_context()
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=20) as raw, \
                context.wrap_socket(raw, server_hostname="127.0.0.1"):
            check(False, "a stranger's certificate is taken")
    except ssl.SSLCertVerificationError:
        pass
    old = ssl.create_default_context(cafile=request.ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=20) as raw, \
                old.wrap_socket(raw, server_hostname="127.0.0.1"):
            check(False, "TLS 1.1 is spoken")
    except (ssl.SSLError, OSError):
        pass
    with socket.create_connection(("127.0.0.1", PORT), timeout=20) as s:
        s.sendall(b"GET /v1/status HTTP/1.1\r\n\r\n")
        check(b"HTTP" not in s.recv(4096), "plain HTTP gets no answer")


def test_slow_clients(d):
    """More connections than threads, which say nothing or a byte at a time: others are served."""
    # One that takes its time is waited for.
    late = socket.create_connection(("127.0.0.1", PORT), timeout=20)
    time.sleep(1)
    with ssl.create_default_context(cafile=request.ca).wrap_socket(
            late, server_hostname="127.0.0.1") as s:
        time.sleep(1)
        s.sendall(f"GET /v1/version HTTP/1.1\r\nAuthorization: Bearer {READER}\r\n\r\n".encode())
        check(b"200 OK" in s.recv(4096), "a second for each step")
    silent = [socket.create_connection(("127.0.0.1", PORT), timeout=20) for _ in range(40)]
    for s in silent[:20]:
        s.sendall(b"\x16\x03\x01")
    began = time.monotonic()
    check(d.get("/v1/status")["revision"] == 4, "the socket is not concerned")
    local = time.monotonic() - began
    code, _, _ = request("GET", "/v1/status", READER)
    check(code == 200, "and the listener answers, too")
    print(f"beside 40 silent clients: the socket answered after {local:.2f} s, TLS after "
          f"{time.monotonic() - began:.1f} s (they get 2 s each)")
    hung_up = 0
    for s in silent:
        s.settimeout(5)
        hung_up += s.recv(100) == b""
        s.close()
    check(hung_up == len(silent), f"{hung_up} of them are hung up on")
    check(time.monotonic() - began > 1.5, "not before their time is over")


def test_cli(d):
    token, wrong = Path(d.directory, "token"), Path(d.directory, "wrong-token")
    token.write_text(ADMIN + "\n", encoding="utf-8")
    wrong.write_text("nobody-0123456789\n", encoding="utf-8")
    reader = Path(d.directory, "reader")
    reader.write_text(READER + "\n", encoding="utf-8")
    url = f"https://127.0.0.1:{PORT}"
    r = run(CLI, "--url", url, "--token-file", token, "--ca", request.ca, "get", "services")
    check(r.returncode == 0 and "web" in r.stdout, r.stdout + r.stderr)
    env = {"SLUICE_URL": url, "SLUICE_TOKEN_FILE": str(reader), "SLUICE_CA": request.ca}
    r = run(CLI, "status", env=env)
    check(r.returncode == 0 and "test1" in r.stdout, r.stderr)
    r = run(CLI, "backend", "drain", "web", "10.77.0.11", env=env)
    check(r.returncode == 1 and "reading only" in r.stderr, r.stderr)
    r = run(CLI, "--token-file", token, "backend", "drain", "web", "10.77.0.11", env=env)
    check(r.returncode == 0 and d.backend("10.77.0.11")["admin"] == "draining", r.stderr)
    for arguments, expected in (
            (["--token-file", wrong], "not known here"),
            (["--token-file", d.directory + "/gone"], "cannot be read"),
            (["--ca", request.other], "not trusted"),
            (["--ca", d.directory + "/gone"], "No such file"),
            (["--url", f"http://127.0.0.1:{PORT}"], "no https:// URL"),
            (["--url", "https://127.0.0.1:9"], "nobody answers")):
        r = run(CLI, *arguments, "status", env=env)
        check(r.returncode == 1 and expected in r.stderr, f"{arguments}: {r.stderr}")
    with subprocess.Popen([CLI, "--url", url, "--token-file", reader, "--ca", request.ca, "events",
                           "--after", "0", "-o", "json"], stdout=subprocess.PIPE, text=True) as p:
        first = json.loads(p.stdout.readline())
        d.call("PATCH", "/v1/services/web/backends/10.77.0.12", {"weight": 7})
        line = p.stdout.readline()
        while '"revision":4' not in line:
            line = p.stdout.readline()
        p.terminate()
    check(first["id"] < json.loads(line)["id"], "events come over TLS, too, as they happen")
    r = run(CLI, "--socket", d.socket, "status", env=env)
    check(r.returncode == 0, "--socket counts more than the environment")


def test_heartbeat_token(d):
    """It beats, on every path that there is nothing else."""
    beat = "/v1/heartbeats?backend=10.77.0.12&load=0.5"
    code, _, text = request("POST", beat, BEATER)
    check(code == 404 and "expects" in text, f"nobody expects any: {code} {text}")
    code, _, text = request("PATCH", "/v1/services/web", ADMIN,
                            json.dumps({"heartbeat": {"interval": "1h"}}))
    check(code == 200, text)
    code, _, text = request("POST", beat, BEATER)
    check(code == 200 and json.loads(text) == {"services": 1}, f"a heartbeat: {code} {text}")
    shown = d.backend("10.77.0.12")["heartbeat"]
    check(shown["state"] == "alive" and shown["load"] == 0.5, shown)
    code, _, text = request("POST", beat, READER)
    check(code == 403 and "reading only" in text, f"a reader does not: {code} {text}")
    code, _, _ = request("POST", beat)
    check(code == 401, "nor does anybody")
    revision = d.get("/v1/status")["revision"]
    tried = 0
    for path, methods in d.get("/v1/openapi.json")["paths"].items():
        path = path.replace("{service}", "web").replace("{address}", "10.77.0.12")
        path = path.replace("{revision}", "1").replace("{file}", "app.js")
        for method in {*methods, "get", "post", "put", "patch", "delete"} - {"parameters"}:
            if path.startswith("/ui") or (path, method) == ("/v1/heartbeats", "post"):
                continue
            code, _, text = request(method.upper(), path, BEATER, SERVICES)
            check(code == 403 and "heartbeats only" in text, f"{method} {path}: {code} {text}")
            tried += 1
    for path in ("/v1/heartbeats/", "/v1//heartbeats", "/v1/heartbeats/x", "/v1/config/heartbeats",
                 "//v1/config", "/v1/heartbeats/../config"):
        code, _, text = request("POST", path, BEATER, SERVICES)
        check(code in (400, 403, 404), f"{path}: {code} {text}")
        tried += 1
    check(tried > 100, tried)
    check(d.get("/v1/status")["revision"] == revision, "nothing has changed")
    token = Path(d.directory, "beater")
    token.write_text(BEATER + "\n", encoding="utf-8")
    env = {"SLUICE_URL": f"https://127.0.0.1:{PORT}", "SLUICE_TOKEN_FILE": str(token),
           "SLUICE_CA": request.ca}
    r = run(CLI, "heartbeat", "10.77.0.12", "--load", "0.25", env=env)
    check(r.returncode == 0 and d.backend("10.77.0.12")["heartbeat"]["load"] == 0.25, r.stderr)
    for words in (["status"], ["get", "config"], ["backend", "drain", "web", "10.77.0.12"]):
        r = run(CLI, *words, env=env)
        check(r.returncode == 1 and "heartbeats only" in r.stderr, f"{words}: {r.stderr}")
    print(f"a heartbeat token was refused {tried} other requests")


def scenario(d):
    d.start()
    wait_until(lambda: d.answers(), "the control plane")
    check(d.end() == 0 and str(PORT) not in d.log(), "no TCP without being asked for")
    prepare(d)
    request.ca = f"{d.directory}/api.crt"
    request.other = f"{d.directory}/other.crt"
    test_refused_at_check_time(d)
    d.start()
    wait_until(listens, "the API by TLS, which comes after the one that start() asks")
    test_who_may_what(d)
    test_tls_itself()
    test_cli(d)
    test_slow_clients(d)
    test_heartbeat_token(d)


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
