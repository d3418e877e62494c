#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""docs/openapi.yaml against the server, both ways: every call in it answers as its schema says and
with nothing that the schema does not know; and wrong input of every kind gets the documented error,
never a 5xx. Both daemons run (on a port that receives nothing), in a network namespace of their
own; that every call of the server is in the document is tests/unit/control/routes_test.cpp."""

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import jsonschema
import yaml

import control_stand
from control_stand import BACKENDS, BUILD, Web, check, wait_until, with_daemon

ROOT = Path(__file__).resolve().parents[2]
SERVICES = control_stand.SERVICES.replace("table-size: 1021\n", "table-size: 1021\n"
                                         "    heartbeat: {interval: 1h}\n")
METHODS = ("get", "put", "post", "patch", "delete")
# Calls that change something, in an order in which each finds what it needs.
ORDER = ["putConfig", "flushConnections", "addService", "changeService", "addBackend",
         "changeBackend", "drainBackend", "undrainBackend", "postHeartbeat", "removeBackend",
         "removeService", "drainNode", "undrainNode", "rollback", "makeBackup"]


def strict(schema):
    """strict() makes JSON Schema of OpenAPI's: null where nullable says so, and no keys that are
    not in the document."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: strict(v) for k, v in schema.items() if k not in ("nullable", "example")}
    if out.get("type") == "object" and "properties" in out:
        out.setdefault("additionalProperties", False)
    if schema.get("nullable"):
        out["type"] = [out["type"], "null"]
    if "$ref" in out:
        out["$ref"] = out["$ref"].replace("#/components/schemas/", "#/$defs/")
    return out


class Document:
    def __init__(self, served):
        written = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8"))
        check(written == served, "what is served is what is written")
        self.paths = served["paths"]
        self.schemas = strict(served["components"]["schemas"])
        self.calls = []
        for path, item in self.paths.items():
            for method in METHODS:
                if method in item:
                    call = dict(item[method], method=method.upper(), path=path)
                    call["parameters"] = item.get("parameters", []) + call.get("parameters", [])
                    self.calls.append(call)
        ids = [c["operationId"] for c in self.calls]
        check(len(set(ids)) == len(ids), "operationIds are unique")
        used = json.dumps(served)
        for name in self.schemas:
            check(f'"#/components/schemas/{name}"' in used, f"schema {name} is used")
            jsonschema.Draft202012Validator.check_schema(self.schemas[name])

    def validate(self, schema, value, what):
        whole = {**strict(schema), "$defs": self.schemas}
        errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}"
                  for e in jsonschema.Draft202012Validator(whole).iter_errors(value)]
        check(not errors, f"{what}: {errors[:5]}\n{json.dumps(value)[:2000]}")

    def check_answer(self, call, status, kind, text):
        """check_answer() returns the body of an answer that is as the document says."""
        what = f"{call['method']} {call['path']}: {status}"
        responses = call["responses"]
        response = responses.get(str(status)) or responses.get(f"{status // 100}XX")
        check(response is not None, f"{what} is not documented: {text[:300]}")
        if "$ref" in response:
            response = {"content": {"application/json": {"schema": {
                "$ref": "#/components/schemas/Errors"}}}}
        kind = kind.split(";")[0]
        check(kind in response["content"], f"{what}: {kind} is not documented")
        if kind != "application/json":
            return text
        body = json.loads(text)
        self.validate(response["content"][kind]["schema"], body, what)
        return body


def fill(call, path_values=None, query=None):
    """fill() returns path and headers of a call, with the examples of the document."""
    path, headers, pairs = call["path"], {}, []
    for p in call["parameters"]:
        value = p.get("example")
        if p["in"] == "path":
            value = (path_values or {}).get(p["name"], quote(str(value), safe=""))
            path = path.replace("{" + p["name"] + "}", value)
        elif p["in"] == "query":
            value = (query or {}).get(p["name"], None if value is None else quote(str(value)))
            if value is not None:
                pairs.append(f"{p['name']}={value}")
        elif value is not None:
            headers[p["name"]] = value
    return path + ("?" + "&".join(pairs) if pairs else ""), headers


class Caller:
    """One connection after the other, as long as the server keeps them."""

    def __init__(self, d):
        self.d = d
        self.connection = None
        self.count = 0

    def __call__(self, method, path, headers=None, body=None):
        self.count += 1
        for attempt in (0, 1):
            if self.connection is None:
                self.connection = http.client.HTTPConnection("x", timeout=20)
                self.connection.sock = socket.socket(socket.AF_UNIX)
                self.connection.sock.settimeout(20)
                self.connection.sock.connect(self.d.socket)
            try:
                self.connection.putrequest(method, path, skip_accept_encoding=True)
                for name, value in {"Content-Length": str(len(body or b"")),
                                    **(headers or {})}.items():
                    self.connection.putheader(name, value)
                self.connection.endheaders(body or None)
                answer = self.connection.getresponse()
                if answer.getheader("Content-Type") == "text/event-stream":
                    text = answer.readline().decode()
                    answer.close()
                    self.drop()
                else:
                    text = answer.read().decode()
                    if answer.will_close:
                        self.drop()
                return answer.status, answer.getheader("Content-Type", ""), text
            except (http.client.HTTPException, OSError):
                self.drop()
                if attempt == 1:
                    raise
        return None

    def drop(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def test_as_documented(document, ask, backup_dir):
    changing = {c["operationId"]: c for c in document.calls if c["method"] != "GET"}
    check(sorted(changing) == sorted(ORDER), "every call that changes something is tried")

    def run(call, **more):
        path, headers = fill(call, **more)
        body = None
        if "requestBody" in call:
            example = call["requestBody"]["content"]["application/json"]["example"]
            document.validate(call["requestBody"]["content"]["application/json"]["schema"],
                              example, f"the example of {call['operationId']}")
            body = json.dumps(example).encode()
        status, kind, text = ask(call["method"], path, headers, body)
        check(status == 200, f"{call['method']} {path}: {status} {text[:500]}")
        return document.check_answer(call, status, kind, text)

    reading = [c for c in document.calls if c["method"] == "GET"]
    found = {}
    for call in reading:
        found[call["operationId"]] = run(call)
    # Not empty, so that the schemas of what is in the lists are looked at.
    for operation, key in (("listServices", "services"), ("listBackends", "backends"),
                           ("listWorkers", "workers"), ("listPorts", "ports"),
                           ("listRevisions", "revisions"), ("listDrops", "drops"),
                           ("listCounters", "counters"), ("listEvents", "events"),
                           ("diffRevisions", "changes")):
        check(found[operation][key], f"{operation} shows something")
    check(found["explain"]["verdict"] == "forwarded", found["explain"])
    for operation in ORDER[1:-2] + ["putConfig"] + ORDER[-2:]:
        run(changing[operation], query={"to": backup_dir} if operation == "makeBackup" else None)
    for call in reading:
        run(call)
    yaml_config = next(c for c in reading if c["operationId"] == "getConfig")
    check("services:" in run(yaml_config, query={"format": "yaml"}), "YAML")
    document.validate({"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
                      json.loads(ask("GET", "/v1/events/recent?limit=4096")[2])["events"], "events")


def wrong_values(parameter):
    """wrong_values() yields percent-encoded values that a parameter may not have."""
    schema = parameter["schema"]
    if schema["type"] == "integer":
        yield from ("x", "-1", "1.5", "99999999999999999999999", "%20", "1%00", "0x10")
        if "maximum" in schema:
            yield str(schema["maximum"] + 1)
    elif "enum" in schema or "pattern" in schema:
        yield from ("nonsense", "%00", "%ff%fe", "%F0%9F%92%A9", "a" * 3000)


ODD_SEGMENTS = ["no-such", "%00", "%ff%fe", "%zz", "%", "%2e%2e%2fweb", "a" * 3000, "web%20", "..",
                "%F0%9F%92%A9", "-1", "18446744073709551616", "%22%3E%3Cscript%3E"]
ODD_BODIES = [b"", b"null", b"[]", b"7", b'"text"', b"{", b"\xff\xfe", b"{\"a\": [[[[" + b"[" * 500,
              b"\0", b"a: &x [*x]", b"{}" * 100, b"? [1]: 2", b"services: {}", b'{"nme": "x"}']


def test_wrong_input(document, ask):
    before = json.loads(ask("GET", "/v1/config")[2])

    def refused(call, path, headers=None, body=None, accepted=()):
        body = None if call["method"] == "GET" else body
        status, kind, text = ask(call["method"], path, headers, body)
        check(400 <= status < 500 or status in accepted,
              f"{call['method']} {path[:200]} {(body or b'')[:80]!r}: {status} {text[:300]}")
        document.check_answer(call, status, kind, text)
        return status

    for call in document.calls:
        path, headers = fill(call)
        names = [p["name"] for p in call["parameters"] if p["in"] == "path"]
        for name in names:
            for odd in ODD_SEGMENTS:
                # One that is removed or drained twice is no error for the second one.
                refused(call, fill(call, {name: odd})[0], headers, b"{}",
                        accepted=(301, 302) if odd == ".." else ())
        for p in call["parameters"]:
            if p["in"] == "query":
                for value in wrong_values(p):
                    code = refused(call, fill(call, query={p["name"]: value})[0], headers, b"{}")
                    check(code in (400, 404), f"{call['operationId']}: {p['name']}={value}: {code}")
                if p.get("required"):
                    refused(call, path.split("?")[0], headers, b"{}")
            elif p["name"] == "If-Match":
                check(refused(call, path, {**headers, "If-Match": '"999999"'}, b"{}") in
                      (400, 404, 409), "an old revision")
                check(refused(call, path, {**headers, "If-Match": "x"}, b"{}") in (400, 404), "x")
        if "requestBody" in call:
            for body in ODD_BODIES:
                # An empty PATCH changes nothing.
                refused(call, path, headers, body,
                        accepted=(200,) if call["method"] == "PATCH" and body == b"" else ())
            example = call["requestBody"]["content"]["application/json"]["example"]
            for key in example:
                for value in (None, [], {}, -1, 1e300, "", "\0", True, [[[]]], "x" * 5000):
                    if value == example[key] or (key, value) in (("services", []), ("name", True),
                                                                 ("backends", [])):
                        continue
                    wrong = {**example, key: value}
                    check(refused(call, path, headers, json.dumps(wrong).encode()) in (400, 404, 409),
                          f"{call['operationId']}: {key}: {value!r:.40}")
            wrong = json.dumps({**example, "no-such-key": 1}).encode()
            check(refused(call, path, headers, wrong) == 400, "an unknown key")
    after = json.loads(ask("GET", "/v1/config")[2])
    check(after == before, f"nothing of this has changed anything: {before} {after}")


def test_methods_and_sizes(document, ask, d):
    possible = {}
    for call in document.calls:
        possible.setdefault(call["path"], set()).add(call["method"])
    for path, methods in possible.items():
        call = next(c for c in document.calls if c["path"] == path)
        concrete = fill(call)[0].split("?")[0]
        for method in ("GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
                       "PROPFIND"):
            if method in methods:
                continue
            status, kind, text = ask(method, concrete)
            check(status == 405, f"{method} {concrete}: {status} {text[:200]}")
            document.check_answer(call, status, kind, text)
            if method in ("OPTIONS", "TRACE", "BREW", "PROPFIND"):
                ask.drop()  # what the server could not read leaves the connection in no state
    for path in ("/", "/v1", "/v2/status", "/v1/nothing", "/v1/status/x", "/etc/passwd",
                 "/ui/../v1/nothing", "/v1//" + "x" * 9000):
        status, kind, text = ask("GET", path)
        check(status in (404, 414), f"GET {path[:40]}: {status}")
        document.check_answer(document.calls[0], status, kind, text)
    # What follows the head of a GET is no request, whatever it looks like.
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(d.socket)
        inner = "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"
        s.sendall(f"GET /v1/drops HTTP/1.1\r\nHost: x\r\nContent-Length: {len(inner)}\r\n\r\n"
                  f"{inner}".encode())
        answer = b"".join(iter(lambda: s.recv(65536), b""))
        check(answer.count(b"HTTP/1.1 ") == 1 and b"200 OK" in answer, answer[:300])
    # Too large a body, told before or while it is sent.
    for method, path in (("PUT", "/v1/config"), ("POST", "/v1/services"),
                         ("PATCH", "/v1/services/web")):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(d.socket)
            s.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: "
                      f"{17 << 20}\r\n\r\n".encode())
            answer = b""
            try:
                for _ in range(17):
                    s.sendall(b"#" * (1 << 20))
            except OSError:
                pass  # it need not read it all
            try:
                answer = b"".join(iter(lambda c=s: c.recv(65536), b""))
            except OSError:
                pass
            if answer:
                check(b" 413 " in answer.split(b"\r\n")[0] and b'"errors"' in answer,
                      f"{method} {path}: {answer[:300]}")
            print(f"{method} {path} with 17 MiB: {answer[:40] or 'hung up on'}")


def scenario(d):
    webs = [Web(a) for a in BACKENDS]
    d.start()
    node = Path(d.node)
    node.write_text(node.read_text(encoding="utf-8").replace(
        "dataplane:\n", "dataplane:\n  workers: 1\n  connections: 10000\n  idle: sleep\n"
        "  hugepages: \"off\"\n  memory: 64\n"), encoding="utf-8")
    with open(f"{d.directory}/dataplane.log", "wb") as log, subprocess.Popen(
            [BUILD / "dataplane" / "sluice-dataplane", "--node", d.node], stdout=log, stderr=log,
            env={**os.environ, "SLUICE_BPF_DIR": str(BUILD / "bpf")}) as dataplane:
        try:
            ask = Caller(d)
            wait_until(lambda: d.get("/v1/workers")["workers"] or dataplane.poll() is not None,
                       "a data plane", 30)
            check(dataplane.poll() is None, Path(f"{d.directory}/dataplane.log").read_text())
            code, answer = d.call("PUT", "/v1/config", SERVICES)
            check(code == 200, answer)
            wait_until(lambda: d.get("/v1/services/web")["state"] == "up", "backends")
            webs[2].down()
            wait_until(lambda: d.backend(BACKENDS[2])["health"] == "down", "one is down")
            document = Document(json.loads(ask("GET", "/v1/openapi.json")[2]))
            test_as_documented(document, ask, f"{d.directory}/backups")
            d.call("PUT", "/v1/config", SERVICES)
            test_wrong_input(document, ask)
            test_methods_and_sizes(document, ask, d)
            ask.drop()
        finally:
            dataplane.terminate()
            dataplane.wait(timeout=20)
    check("internal error" not in d.log(), "nothing went wrong inside")
    print(f"{len(document.calls)} calls, {ask.count} requests")


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
