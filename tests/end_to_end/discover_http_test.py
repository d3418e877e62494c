#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Backends from Consul and from Kubernetes. Neither runs here: a small server answers in the formats
of their documentation (Consul 1.17 HTTP API, Kubernetes 1.28 discovery.k8s.io/v1), with their rules:
blocking queries whose index may go backwards or be 0, lists and watches, 410, bookmarks, tokens over
TLS, a Service's status."""

import http.server
import json
import ssl
import sys
import threading
import time
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from api_access_test import make_certificate  # noqa: E402
from discover_test import shown, warned  # noqa: E402
from control_stand import check, wait_until, with_daemon  # noqa: E402

TOKEN = "token-0123456789abcdef"


class Server(http.server.ThreadingHTTPServer):
    """calls: what was asked, in order."""

    daemon_threads = True

    def __init__(self, files=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.news = threading.Condition()
        self.calls = []
        self.failing = False
        self.token = TOKEN
        # Consul
        self.index, self.instances = 100, []
        # Kubernetes
        self.version, self.slices, self.patches = 1000, {}, []
        self.events = []  # (version, line) that watches get
        self.gone = False  # watches are answered with 410
        self.ingress = [{"ip": "198.51.100.9"}]
        if files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files[1], files[0])
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that gives up is no error."""

    @property
    def port(self):
        return self.server_address[1]

    def change(self, **values):
        with self.news:
            for name, value in values.items():
                setattr(self, name, value)
            self.news.notify_all()

    def asked(self, part):
        return [c for c in self.calls if part in c]

    # -- Kubernetes ----------------------------------------------------------------------

    def slice(self, name, endpoints, deleted=False, told=True):
        """slice() changes one, and tells the watches unless they are to miss it."""
        with self.news:
            self.version += 1
            old = self.slices.pop(name, None)
            if not deleted:
                self.slices[name] = make_slice(name, endpoints, self.version)
            event = {"type": "DELETED" if deleted else "MODIFIED" if old else "ADDED",
                     "object": old if deleted else self.slices[name]}
            event["object"]["metadata"]["resourceVersion"] = str(self.version)
            if told:
                self.tell(event)

    def tell(self, event):
        with self.news:
            self.events.append((self.version, json.dumps(event)))
            self.news.notify_all()


def make_slice(name, endpoints, version):
    return {"metadata": {"name": name, "namespace": "shop", "resourceVersion": str(version),
                         "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "nodeName": "n1",
                           "conditions": {"ready": ready, "serving": True, "terminating": not ready}}
                          for address, ready in endpoints.items()],
            "ports": [{"name": "metrics", "port": 9100, "protocol": "TCP"},
                      {"name": "http", "port": 8080, "protocol": "TCP"}]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        s = self.server
        s.calls.append(self.path)
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if s.failing:
            return self.answer(500, {"message": "no leader"})
        if url.path.startswith("/v1/"):
            return self.consul(url.path, query)
        if self.headers["Authorization"] != f"Bearer {s.token}":
            return self.answer(401, {"kind": "Status", "code": 401, "message": "Unauthorized"})
        if url.path == "/api/v1/namespaces/shop/services/web":
            return self.answer(200, {
                "kind": "Service", "apiVersion": "v1", "metadata": {"name": "web"},
                "spec": {"type": "LoadBalancer", "loadBalancerClass": "sluice.example/edge"},
                "status": {"loadBalancer": {"ingress": s.ingress}}})
        if url.path != "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices" or \
                query["labelSelector"] != "kubernetes.io/service-name=web":
            return self.answer(404, {"kind": "Status", "code": 404, "message": "not found"})
        if "watch" in query:
            return self.watch(int(query["resourceVersion"]))
        return self.answer(200, {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
                                 "metadata": {"resourceVersion": str(s.version)},
                                 "items": list(s.slices.values())})

    def do_PATCH(self):
        s = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        s.patches.append((self.path, self.headers["Content-Type"], body))
        s.ingress = body["status"]["loadBalancer"]["ingress"]
        self.answer(200, {"kind": "Service"})

    def consul(self, path, query):
        s = self.server
        if self.headers["X-Consul-Token"] != s.token:
            return self.answer(403, "Permission denied")
        with s.news:
            if "index" in query:
                # Index 0 is never waited for; what is asked for then is 1.
                s.news.wait_for(lambda: int(query["index"]) != max(s.index, 1) or s.failing,
                                timeout=60)
            index, instances = s.index, s.instances
        if path == "/v1/health/service/web":
            body = [{"Node": {"Node": "n", "Address": "10.77.0.99"},
                     "Service": {"Service": "web", "Address": address, "Port": 8080,
                                 "Weights": {"Passing": weight, "Warning": 1}}, "Checks": []}
                    for address, weight, passing in instances if passing]
        else:
            body = [{"Node": "n", "Address": "10.77.0.99", "ServiceName": "web",
                     "ServiceAddress": address, "ServicePort": 8080,
                     "ServiceWeights": {"Passing": weight, "Warning": 1}}
                    for address, weight, passing in instances]
        return self.answer(200, body, X_Consul_Index=index)

    def watch(self, version):
        s = self.server
        if s.gone:
            return self.answer(410, {"kind": "Status", "code": 410, "reason": "Expired"})
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = len([v for v, _ in s.events if v <= version])
        while True:
            with s.news:
                s.news.wait_for(lambda: len(s.events) > sent or s.failing, timeout=60)
                lines = s.events[sent:]
                sent = len(s.events)
            for _, line in lines:
                if line == '"end"':
                    return self.wfile.write(b"0\r\n\r\n")
                # In two pieces: a line need not come at once.
                for piece in (line[:20], line[20:] + "\n"):
                    self.wfile.write(f"{len(piece):x}\r\n{piece}\r\n".encode())
                    self.wfile.flush()
            if s.failing:
                return None


def service(name, last, discover):
    return {"name": name, "address": f"198.51.100.{last}", "port": 80, "forward": "nat",
            "table-size": 1021, "drain-deadline": "100ms", "backends": [], "discover": discover}


def put(d, *services):
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": services}))
    check(status == 200, str(answer))


def consul_story(d, token_file):
    s = Server()
    s.instances = [("10.77.0.21", 10, True), ("10.77.0.22", 20, False)]
    pace = {"min-interval": "200ms", "max-interval": "1s", "token-file": str(token_file)}
    common = {"type": "consul", "name": "web", "server": f"http://127.0.0.1:{s.port}", **pace}
    put(d, service("all", 10, common), service("good", 11, {**common, "passing": True, "tag": "v1"}))
    wait_until(lambda: set(shown(d, "all")) == {"21", "22"} and set(shown(d, "good")) == {"21"},
               "instances")
    check([(b["port"], b["weight"]) for b in d.get("/v1/services/all")["backends"]] ==
          [(8080, 10), (8080, 20)], "with their ports and weights")
    check(s.asked("/v1/health/service/web?wait=300s&passing=1&tag=v1"), str(s.calls))
    wait_until(lambda: len(s.asked("index=100")) == 2, "both wait for news")
    began = time.monotonic()
    s.change(index=101, instances=[*s.instances, ("10.77.0.23", 5, True)])
    wait_until(lambda: "23" in shown(d, "all") and "23" in shown(d, "good"), "a new instance")
    print(f"a new instance in Consul is in use after {time.monotonic() - began:.2f} s")
    # The index goes backwards: what is asked next does not wait.
    wait_until(lambda: len(s.asked("index=101")) == 2, "both wait again")
    before = len(s.calls)
    s.change(index=7, instances=[("10.77.0.24", 1, True)])
    wait_until(lambda: shown(d, "all").get("24") == ("discovered", "enabled"), "after a reset")
    wait_until(lambda: len(s.calls) >= before + 4, "asked again")
    check(all("index" not in c for c in s.calls[before:before + 2]), str(s.calls[before:]))
    check(all("index=7" in c for c in s.calls[before + 2:before + 4]), str(s.calls[before:]))
    # Index 0: asked with 1, which waits.
    s.change(index=0)
    wait_until(lambda: len([c for c in s.calls if c.endswith("index=1")]) >= 2, "1 in place of 0")
    before = len(s.calls)
    time.sleep(0.7)
    check(len(s.calls) == before, f"not asked again and again: {s.calls[before:]}")
    # Errors.
    s.change(failing=True)
    wait_until(lambda: warned(d, "HTTP status 500"), "a failure is said")
    check("24" in shown(d, "all"), "and all stays")
    s.change(failing=False, index=200, instances=[("10.77.0.25", 1, True)])
    wait_until(lambda: "25" in shown(d, "all"), "it answers again")
    token_file.write_text("another-0123456789abcdef\n", encoding="utf-8")
    s.change(index=201)
    wait_until(lambda: warned(d, "HTTP status 403"), "a token that is refused")
    check(TOKEN not in d.log() and "another" not in d.log(), "no token is logged")
    token_file.write_text(f"{TOKEN}\n", encoding="utf-8")
    wait_until(lambda: not warned(d, "403"), "the file is read each time")
    put(d)
    s.shutdown()
    s.server_close()


def kubernetes_story(d, token_file):
    key, certificate = make_certificate(d.directory, "kubernetes")
    s = Server((key, certificate))
    s.slice("web-abc", {"10.77.0.31": True, "10.77.0.32": True}, told=False)
    where = {"type": "kubernetes", "name": "shop/web", "server": f"https://127.0.0.1:{s.port}",
             "ca": str(certificate), "token-file": str(token_file), "port-name": "http",
             "min-interval": "200ms", "max-interval": "1s",
             "load-balancer-class": "sluice.example/edge"}
    put(d, service("shop", 20, where))
    wait_until(lambda: set(shown(d, "shop")) == {"31", "32"}, "endpoints")
    check(d.backend("10.77.0.31", "shop")["port"] == 8080, "with the port of that name")
    wait_until(lambda: s.patches, "the status is written")
    check(s.patches == [("/api/v1/namespaces/shop/services/web/status",
                         "application/merge-patch+json",
                         {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"},
                                                                  {"ip": "198.51.100.20"}]}}})],
          str(s.patches))
    wait_until(lambda: s.asked("watch=1"), "watched")
    check("resourceVersion=1001" in s.asked("watch=1")[0], s.asked("watch=1")[0])
    began = time.monotonic()
    s.slice("web-abc", {"10.77.0.31": True, "10.77.0.32": False})
    wait_until(lambda: shown(d, "shop")["32"] == ("discovered", "draining"), "one that terminates")
    print(f"an endpoint that terminates is drained after {time.monotonic() - began:.2f} s")
    s.slice("web-def", {"10.77.0.33": True})
    wait_until(lambda: "33" in shown(d, "shop"), "another slice")
    # A watch that ends goes on where it was, also by a bookmark.
    s.version = 1500
    s.tell({"type": "BOOKMARK", "object": {"kind": "EndpointSlice",
                                           "metadata": {"resourceVersion": "1500"}}})
    s.tell("end")
    wait_until(lambda: "resourceVersion=1500" in s.asked("watch=1")[-1], "from the bookmark on")
    lists = len([c for c in s.asked("endpointslices") if "watch" not in c])
    check(lists == 1, f"no other list: {s.calls}")
    # 410 within a watch: what it has missed is listed.
    s.slice("web-def", {"10.77.0.34": True}, told=False)
    s.tell({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired",
                                        "message": "too old resource version: 1 (1501)"}})
    wait_until(lambda: "34" in shown(d, "shop"), "listed again")
    check(not warned(d, "kubernetes"), "410 is no failure")
    # 410 instead of a watch.
    s.slice("web-def", {"10.77.0.35": True}, told=False)
    s.gone = True
    s.tell("end")
    wait_until(lambda: "35" in shown(d, "shop"), "listed again")
    s.gone = False
    s.slice("web-def", {}, deleted=True)
    wait_until(lambda: shown(d, "shop").get("35", ("vanished",))[0] == "vanished", "deleted")
    s.slice("web-abc", {}, deleted=True)
    wait_until(lambda: warned(d, "the answer is empty"), "none at all is not taken")
    check("31" in shown(d, "shop"), "and all stays")
    # Another token, another certificate.
    s.change(token="new-0123456789abcdef")
    s.slice("web-abc", {"10.77.0.36": True}, told=False)
    s.tell("end")
    wait_until(lambda: warned(d, "HTTP status 401"), "refused")
    token_file.write_text("new-0123456789abcdef\n", encoding="utf-8")
    wait_until(lambda: "36" in shown(d, "shop"), "the token was renewed")
    make_certificate(d.directory, "other")
    put(d, service("shop", 20, {**where, "ca": f"{d.directory}/other.crt"}))
    wait_until(lambda: warned(d, "certificate"), "a server that nobody vouches for")
    check("36" in shown(d, "shop"), "and all stays")
    put(d)
    s.shutdown()
    s.server_close()


def refused(d):
    for discover, expected in (
            ({"type": "kubernetes", "name": "web", "server": "https://10.0.0.1:6443"}, "default/web"),
            ({"type": "kubernetes", "name": "a/b"}, "is missing; for example https"),
            ({"type": "kubernetes", "name": "a/b", "server": "http://10.0.0.1", "token-file": "/t"},
             "in the clear"),
            ({"type": "consul", "name": "web", "server": "http://me:secret@10.0.0.1"}, "without a user"),
            ({"type": "consul", "name": "web", "port-name": "http"}, "only with type kubernetes"),
            ({"type": "consul", "name": "web", "records": "a"}, "only with type dns"),
            ({"type": "dns", "name": "web.test", "ca": "/x"}, "only with type consul or kubernetes")):
        status, answer = d.call("PUT", "/v1/config",
                                json.dumps({"services": [service("web", 10, discover)]}))
        check(status == 400 and expected in json.dumps(answer), f"{discover}: {status} {answer}")
        check("secret" not in json.dumps(answer), "no password is repeated")


def scenario(d):
    token_file = Path(d.directory) / "token"
    token_file.write_text(f"{TOKEN}\n", encoding="utf-8")
    d.start()
    refused(d)
    consul_story(d, token_file)
    token_file.write_text(f"{TOKEN}\n", encoding="utf-8")
    kubernetes_story(d, token_file)


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
