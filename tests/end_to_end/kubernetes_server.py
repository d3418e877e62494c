# SPDX-License-Identifier: Apache-2.0
"""What the API server of a Kubernetes cluster does for us, after its documentation (1.28): lists in
pages, watches with bookmarks, 410, merge patches of a Service's status that mind resourceVersion,
Events. No real one is to be had where this is tested."""

import http.server
import json
import threading
import urllib.parse

KINDS = {"services": ("v1", "ServiceList"),
         "endpointslices": ("discovery.k8s.io/v1", "EndpointSliceList")}


def load_balancer(space, name, ports, **spec):
    """load_balancer() is a Service; ports: {port name: (port, protocol)}."""
    return {"kind": "Service", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": space, "uid": f"uid-{name}",
                         "annotations": spec.pop("annotations", {})},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "sluice.io/sluice",
                     "ipFamilies": ["IPv4"], "externalTrafficPolicy": "Cluster",
                     "ports": [{"name": port, "port": number, "protocol": protocol,
                                "targetPort": port} for port, (number, protocol) in ports.items()],
                     **spec},
            "status": {"loadBalancer": {}}}


def slice_of(space, service, addresses, ports):
    """slice_of() is an EndpointSlice; addresses: {address: ready}, ports: {name: (port, protocol)}."""
    return {"metadata": {"name": f"{service}-abc", "namespace": space,
                         "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv6" if any(":" in a for a in addresses) else "IPv4",
            "endpoints": [{"addresses": [address],
                           "conditions": {"ready": ready, "serving": True, "terminating": not ready}}
                          for address, ready in addresses.items()],
            "ports": [{"name": name, "port": port, "protocol": protocol}
                      for name, (port, protocol) in ports.items()]}


def selector_of(text):
    """selector_of() is what a label selector says of labels: NAME, NAME=VALUE or NAME in (A,B)."""
    name, _, rest = (text or "").replace("=", " = ").partition(" ")
    rest = rest.removeprefix("in").removeprefix("=").strip()
    words = rest.strip("()").split(",") if rest else None
    return lambda labels: not name or (name in labels and (words is None or labels[name] in words))


class Cluster(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, sock, token):
        super().__init__(sock.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock
        sock.listen(64)
        self.news = threading.Condition(threading.RLock())
        self.token = token
        self.version = 100
        self.objects = {kind: {} for kind in KINDS}
        self.log = []  # (version, kind, object with its namespace, line)
        self.calls, self.patches, self.events = [], [], []
        self.used = set()  # (verb, API group, resource)
        self.oldest = 0  # watches from before are answered with 410
        self.broken = 0  # counts up to end all watches
        self.failing = False
        self.page = 3  # objects; small, so that there are several
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that gives up is no error."""

    def put(self, kind, thing, told=True):
        """put() adds or changes an object, and tells the watches unless they are to miss it."""
        with self.news:
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            key = (thing["metadata"]["namespace"], thing["metadata"]["name"])
            what = "MODIFIED" if key in self.objects[kind] else "ADDED"
            self.objects[kind][key] = thing
            if told:
                self.tell(what, kind, thing)

    def remove(self, kind, space, name, told=True):
        with self.news:
            self.version += 1
            thing = self.objects[kind].pop((space, name))
            thing["metadata"]["resourceVersion"] = str(self.version)
            if told:
                self.tell("DELETED", kind, thing)

    def tell(self, what, kind, thing):
        with self.news:
            self.log.append((self.version, kind, thing["metadata"].get("namespace"),
                             thing["metadata"].get("labels", {}),
                             json.dumps({"type": what, "object": thing})))
            self.news.notify_all()

    def bookmark(self, version):
        """bookmark() has all watches go on from there, and end."""
        with self.news:
            self.version = version
            for kind in KINDS:
                self.tell("BOOKMARK", kind, {"metadata": {"resourceVersion": str(version)}})
            self.end_watches()

    def end_watches(self):
        with self.news:
            self.broken += 1
            self.news.notify_all()

    def service(self, space, name):
        return self.objects["services"][(space, name)]

    def ingress(self, space, name):
        found = self.service(space, name)["status"]["loadBalancer"].get("ingress") or []
        return [i.get("ip") for i in found]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, code, message):
        self.answer(code, {"kind": "Status", "code": code, "message": message})

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def refused(self):
        self.server.calls.append(self.path)
        if self.server.failing:
            self.refuse(500, "etcd is away")
        elif self.headers["Authorization"] != f"Bearer {self.server.token}":
            self.refuse(401, "Unauthorized")
        else:
            return False
        return True

    def do_GET(self):
        if self.refused():
            return None
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = url.path.strip("/").split("/")
        space = parts[parts.index("namespaces") + 1] if "namespaces" in parts else None
        kind = parts[-1]
        if kind not in KINDS:
            return self.refuse(404, "not found")
        self.server.used.add(("watch" if "watch" in query else "list",
                              parts[1] if parts[0] == "apis" else "", kind))
        label = selector_of(query.get("labelSelector"))
        wanted = (kind, space, label)
        if "watch" in query:
            return self.watch(int(query["resourceVersion"]), *wanted)
        s = self.server
        with s.news:
            things = [t for (where, _), t in sorted(s.objects[kind].items())
                      if space in (None, where) and label(t["metadata"].get("labels", {}))]
            first = int(query.get("continue", 0))
            limit = min(int(query.get("limit", 500)), self.server.page)
            meta = {"resourceVersion": str(s.version)}
            if first + limit < len(things):
                meta["continue"] = str(first + limit)
            version, name = KINDS[kind]
            return self.answer(200, {"kind": name, "apiVersion": version, "metadata": meta,
                                     "items": things[first:first + limit]})

    def watch(self, version, kind, space, label):
        s = self.server
        if version < s.oldest:
            return self.refuse(410, "too old resource version")
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with s.news:
            sent = len([v for v, *_ in s.log if v <= version])
            broken = s.broken
        while True:
            with s.news:
                s.news.wait_for(lambda: len(s.log) > sent or s.failing or s.broken != broken,
                                timeout=60)
                lines = [line for _, k, where, labels, line in s.log[sent:]
                         if k == kind and (where is None or
                                           (space in (None, where) and label(labels)))]
                sent = len(s.log)
                over = s.failing or s.broken != broken
            for line in lines:
                # In two pieces: a line need not come at once.
                for piece in (line[:20], line[20:] + "\n"):
                    self.wfile.write(f"{len(piece.encode()):x}\r\n{piece}\r\n".encode())
                    self.wfile.flush()
            if over:
                return self.wfile.write(b"0\r\n\r\n")

    def do_PATCH(self):
        body = self.body()
        if self.refused():
            return None
        s = self.server
        parts = self.path.strip("/").split("/")
        if self.headers["Content-Type"] != "application/merge-patch+json" or \
                [parts[i] for i in (0, 1, 2, 4, 6)] != ["api", "v1", "namespaces", "services",
                                                         "status"]:
            return self.refuse(415, "not what is expected")
        s.used.add(("patch", "", "services/status"))
        with s.news:
            thing = s.objects["services"].get((parts[3], parts[5]))
            if thing is None:
                return self.refuse(404, "not found")
            if body["metadata"]["resourceVersion"] != thing["metadata"]["resourceVersion"]:
                return self.refuse(409, "the object has been modified")
            ingress = body["status"]["loadBalancer"]["ingress"]
            s.patches.append((f"{parts[3]}/{parts[5]}", [i["ip"] for i in ingress or []]))
            changed = json.loads(json.dumps(thing))
            changed["status"]["loadBalancer"] = {"ingress": ingress} if ingress else {}
            s.put("services", changed)
            return self.answer(200, changed)

    def do_POST(self):
        body = self.body()
        if self.refused():
            return None
        self.server.used.add(("create", "", "events"))
        self.server.events.append(body)
        return self.answer(201, body)
