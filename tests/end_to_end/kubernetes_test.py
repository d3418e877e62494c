#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Services of Kubernetes of type LoadBalancer become services: VIPs, backends, status, packets. The
API server is a stand-in that answers in the formats of the documentation (kubernetes_server.py)."""

import json
import socket
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from kubernetes_server import Cluster, load_balancer, slice_of  # noqa: E402
from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.scene import Scene  # noqa: E402
from lab.sluice import Balancer  # noqa: E402
from netns_sockets import EchoServer, new_socket, udp_echo  # noqa: E402

RBAC = Path(__file__).resolve().parents[2] / "packaging" / "kubernetes" / "rbac.yaml"
TOKEN = "token-0123456789abcdef"
NAT = "10.77.0.200"
PORTS = {"http": (80, "TCP"), "dns": (53, "UDP")}
TARGETS = {"http": (8080, "TCP"), "dns": (5353, "UDP")}
OWN = {"name": "own", "address": "198.51.100.40", "port": 80, "forward": "full-nat",
       "table-size": 1021, "backends": []}


class Stage:
    """The network, the cluster, and what the control plane says of it."""

    def __init__(self, lab):
        self.lab = lab
        self.scene = Scene(lab, backends=2)
        sock = new_socket(lab, "edge", socket.AF_INET)
        sock.bind(("127.0.0.1", 0))
        self.cluster = Cluster(sock, TOKEN)
        token = lab.path("token")
        token.write_text(f"{TOKEN}\n")
        common = lab.path("common.yaml")
        common.write_text("table-size: 1021\ndrain-deadline: 200ms\n"
                          "health: {type: tcp, interval: 300ms, timeout: 200ms, rise: 1, fall: 2}\n")
        self.balancer = Balancer(self.scene, dataplane={"nat-pool": {"ipv4": [NAT]}}, controlplane={
            "kubernetes": {"server": f"http://127.0.0.1:{sock.getsockname()[1]}",
                           "token-file": str(token), "service-file": str(common),
                           "pool": ["198.51.100.20-198.51.100.23"],
                           "on-request": ["198.51.100.40/31"]}})
        lab.ip("edge", f"address add {NAT}/32 dev up0")
        self.scene.start_nginx(ports=(8080,))
        for name in self.scene.backends:
            EchoServer(lab, name, self.scene.address(name), 5353)

    def slice(self, space, service, **ready):
        self.cluster.put("endpointslices",
                         slice_of(space, service, {self.scene.address(b): up
                                                   for b, up in ready.items()}, TARGETS))

    def services(self):
        return {s["name"]: s for s in self.balancer.ask("/v1/services")["services"]}

    def vip(self, name):
        return self.services()[name]["address"]

    def backends(self, name):
        rows = self.balancer.ask(f"/v1/services/{name}")["backends"]
        return {self.scene.by_address(b["address"]): b for b in rows}

    def warnings(self):
        return self.balancer.ask("/v1/status")["warnings"]

    def warned(self, text):
        return any(text in w for w in self.warnings())

    def history(self):
        return self.balancer.ask("/v1/history")["revisions"]

    def answers(self, vip, times=6, seconds="2"):
        """answers() is who answers over HTTP, to a connection each time."""
        return {self.lab.run("client", ["curl", "-s", "-m", seconds, f"http://{vip}/"],
                             check=False).stdout.strip() for _ in range(times)}


def first_things(stage, checks):
    c = stage.cluster
    c.put("services", load_balancer("shop", "web", PORTS))
    stage.slice("shop", "web", b1=True, b2=True)
    c.put("services", load_balancer("shop", "other", PORTS, loadBalancerClass="example.net/x"))
    c.put("services", load_balancer("shop", "inside", PORTS, type="ClusterIP"))
    fixed = load_balancer("blog", "fixed", {"": (443, "TCP")}, sessionAffinity="ClientIP",
                          loadBalancerSourceRanges=["10.0.0.0/8"],
                          annotations={"sluice.io/scheduler": "source-hash",
                                       "sluice.io/health": "{type: none}"})
    fixed["status"]["loadBalancer"]["ingress"] = [{"ip": "198.51.100.22"}]
    c.put("services", fixed)
    stage.balancer.start()
    stage.balancer.apply([OWN])
    c.put("services", load_balancer("blog", "thief", {"": (80, "TCP")},
                                    loadBalancerIP="198.51.100.40"))
    c.put("services", load_balancer("blog", "sctp", {"": (80, "SCTP")}))
    wait_until(lambda: len(stage.services()) >= 4, 10, "services", 0.05)
    names = {name: s["owner"] for name, s in stage.services().items()}
    checks.check(names == {"own": "operators", "shop.web.80-tcp": "kubernetes",
                           "shop.web.53-udp": "kubernetes", "blog.fixed.443-tcp": "kubernetes"},
                 "a service for each port of each Service that is for us", names)
    web = stage.vip("shop.web.80-tcp")
    checks.check(web == stage.vip("shop.web.53-udp") and
                 web in [f"198.51.100.{n}" for n in (20, 21, 23)], f"on a VIP of the pool: {web}")
    checks.check(stage.vip("blog.fixed.443-tcp") == "198.51.100.22", "the VIP in its status stays")
    fixed = stage.services()["blog.fixed.443-tcp"]
    checks.check(fixed["scheduler"] == "source-hash" and fixed["health"]["type"] == "none" and
                 fixed["options"]["persistence"]["timeout"] == "3h" and
                 fixed["options"]["allow"] == 1, "affinity, source ranges, annotations", fixed)
    wait_until(lambda: c.ingress("shop", "web") == [web], 5, "the status of shop/web", 0.05)
    checks.check(c.patches == [("shop/web", [web])], "and no other status is written", c.patches)
    wait_until(lambda: len(c.events) >= 2, 5, "Events", 0.05)
    checks.check(stage.warned("blog/thief: 198.51.100.40 is the address of a service that is not") and
                 stage.warned("blog/sctp: port 80/SCTP"), "what cannot be is told by status",
                 stage.warnings())
    checks.check({e["involvedObject"]["name"] for e in c.events} == {"thief", "sctp"} and
                 all(e["reason"] == "LoadBalancerRefused" for e in c.events), "and by Events")
    authors = {r["author"] for r in stage.history() if "Service" in r["reason"]}
    checks.check(authors == {"kubernetes"}, "revisions by kubernetes", stage.history())
    return web


def packets(stage, checks, web):
    def usable():
        rows = stage.backends("shop.web.80-tcp")
        return {"b1", "b2"} == {n for n, b in rows.items() if b["health"] == "up"}
    wait_until(usable, 10, "healthy backends", 0.05)
    rows = stage.backends("shop.web.80-tcp")
    checks.check({b["port"] for b in rows.values()} == {8080}, "targetPort by its name")
    checks.check(stage.answers(web) == {"b1", "b2"}, "HTTP through the VIP, from both pods")
    answered = udp_echo(stage.lab, "client", web, 53, b"question")
    checks.check(answered == b"question", "a datagram, to another targetPort", answered)


def operators(stage, checks):
    """What operators do leaves them alone; what they try on them is refused."""
    b = stage.balancer
    revision = len(stage.history())
    b.apply([OWN])
    checks.check(len(stage.services()) == 4 and len(stage.history()) == revision,
                 "apply does not take them away")
    everything = b.sluice("get", "config", "-o", "yaml").stdout
    path = stage.lab.path("all.yaml")
    path.write_text(everything)
    checks.check("owner: kubernetes" in everything and
                 b.sluice("diff", "-f", path).stdout.strip() in ("", "no difference",
                                                                 "no differences"),
                 "what get config says can be applied", b.sluice("diff", "-f", path).stdout)
    for verb in (("service", "remove", "shop.web.80-tcp"),
                 ("service", "set", "shop.web.80-tcp", "--scheduler", "random"),
                 ("backend", "add", "shop.web.80-tcp", "10.77.0.99")):
        done = b.sluice(*verb, check=False)
        checks.check(done.returncode == 1 and "Service shop/web" in done.stderr,
                     f"{' '.join(verb[:2])} is refused", done.stderr)
    done = b.sluice("service", "add", "thief", "--address", stage.vip("shop.web.80-tcp"),
                    "--port", "80", "--forward", "full-nat", check=False)
    checks.check(done.returncode == 1, "its VIP and port are taken", done.stderr)
    b1 = stage.scene.address("b1")
    b.sluice("backend", "drain", "shop.web.80-tcp", b1)
    wait_until(lambda: stage.backends("shop.web.80-tcp")["b1"]["admin"] == "draining", 5, "", 0.05)
    stage.cluster.put("services", load_balancer(
        "shop", "web", PORTS, annotations={"sluice.io/scheduler": "round-robin"}))
    wait_until(lambda: stage.services()["shop.web.80-tcp"]["scheduler"] == "round-robin", 5, "", 0.05)
    checks.check(stage.backends("shop.web.80-tcp")["b1"]["admin"] == "draining",
                 "a backend can be drained, and stays so when its Service changes")
    b.sluice("backend", "undrain", "shop.web.80-tcp", b1)
    b.sluice("rollback", "1")
    checks.check(stage.services().keys() >= {"shop.web.80-tcp"}, "a rollback leaves them")
    b.apply([OWN])


def watching(stage, checks, web):
    c = stage.cluster
    wait_until(lambda: c.ingress("shop", "web") == [web], 5, "the status again", 0.05)
    revisions = len(stage.history())
    stage.slice("shop", "web", b1=True, b2=False)
    wait_until(lambda: stage.backends("shop.web.80-tcp")["b2"]["admin"] == "draining", 5, "", 0.05)
    stage.slice("shop", "web", b1=True)
    wait_until(lambda: list(stage.backends("shop.web.80-tcp")) == ["b1"], 5, "", 0.05)
    checks.check(stage.answers(web) == {"b1"}, "a pod that is taken away is drained, then gone")
    checks.check(len(stage.history()) == revisions, "endpoints make no revisions")
    # From a bookmark on.
    lists = len([p for p in c.calls if p.startswith("/api/v1/services?") and "watch" not in p])
    c.bookmark(5000)
    wait_until(lambda: any("resourceVersion=5000" in p for p in c.calls if "/services" in p), 5,
               "watched from the bookmark on", 0.05)
    # 410: what was missed is listed.
    c.put("services", load_balancer("shop", "new", {"": (81, "TCP")}), told=False)
    c.remove("services", "blog", "sctp", told=False)
    c.oldest = c.version
    c.end_watches()
    wait_until(lambda: "shop.new.81-tcp" in stage.services(), 5, "after 410", 0.05)
    now = len([p for p in c.calls if p.startswith("/api/v1/services?") and "watch" not in p])
    checks.check(now > lists and not stage.warned("sctp"), "410: listed again, what is gone is gone")
    checks.check(any("continue=" in p for p in c.calls), "lists come in pages")
    # The pool has four: web, fixed, new, and one more.
    c.put("services", load_balancer("shop", "one", {"": (82, "TCP")}))
    c.put("services", load_balancer("shop", "two", {"": (83, "TCP")}))
    wait_until(lambda: stage.warned("shop/two: no VIP of its family is free"), 5, "exhausted", 0.05)
    checks.check("shop.one.82-tcp" in stage.services(), "an exhausted pool does not hurt others")
    c.remove("services", "shop", "new")
    wait_until(lambda: "shop.two.83-tcp" in stage.services(), 5, "a VIP is free again", 0.05)
    checks.check("shop.new.81-tcp" not in stage.services() and not stage.warned("shop/two"),
                 "a VIP that is given back is given to another")
    # A status that somebody else writes.
    other = json.loads(json.dumps(c.service("shop", "web")))
    other["status"]["loadBalancer"] = {"ingress": [{"ip": "203.0.113.9"}]}
    c.put("services", other)
    wait_until(lambda: c.ingress("shop", "web") == [web], 5, "corrected", 0.05)


def restart(stage, checks, web):
    c = stage.cluster
    before = {name: s["address"] for name, s in stage.services().items()}
    c.failing = True
    c.end_watches()
    stage.balancer.restart_controlplane()
    after = {name: s["address"] for name, s in stage.services().items()}
    checks.check(before == after, "a restart without the API server keeps them all", (before, after))
    checks.check(stage.answers(web) == {"b1"}, "and the backends")
    wait_until(lambda: stage.warned("Services of all namespaces: HTTP status 500"), 5, "told", 0.05)
    c.failing = False
    c.put("services", load_balancer("blog", "asks", {"": (80, "TCP")},
                                    annotations={"sluice.io/address": "198.51.100.41"}))
    wait_until(lambda: "blog.asks.80-tcp" in stage.services(), 10, "after the restart", 0.05)
    checks.check(stage.vip("blog.asks.80-tcp") == "198.51.100.41" and not stage.warned("Services of all"),
                 "an address on request")
    checks.check({n: stage.vip(n) for n in before} == before, "the others are where they were")
    up = stage.balancer.metric("sluice_discover_up", type="kubernetes-services")
    checks.check(up == 1, "metrics", up)
    # Given back: by deletion, and by another type.
    c.remove("services", "blog", "asks")
    inside = json.loads(json.dumps(c.service("shop", "web")))
    inside["spec"]["type"] = "ClusterIP"
    c.put("services", inside)
    wait_until(lambda: not {"blog.asks.80-tcp", "shop.web.80-tcp"} & stage.services().keys(), 5,
               "gone", 0.05)
    wait_until(lambda: c.ingress("shop", "web") == [], 5, "the status is empty", 0.05)
    checks.check(stage.answers(web, 1, "0.5") == {""}, "nobody answers there any more")
    log = Path(stage.lab.path("x")).parent
    checks.check(all(TOKEN not in p.read_text(errors="replace") for p in log.glob("*controlplane*")
                     if p.is_file()), "no token is logged")


def switched_off(stage, checks):
    """Without the key in node.yaml, the next start takes them away."""
    b = stage.balancer
    slices = [p for p in stage.cluster.calls if "endpointslices" in p]
    checks.check(all(p.startswith("/apis/discovery.k8s.io/v1/endpointslices?") for p in slices),
                 "the slices of all Services are watched together", slices)
    b.node["controlplane"]["kubernetes"] = "off"
    b.node_file.write_text(yaml.safe_dump(b.node, sort_keys=False))
    b.restart_controlplane()
    checks.check(list(stage.services()) == ["own"] and
                 stage.history()[0]["author"] == "kubernetes", "kubernetes: off", stage.services())


def allowed(stage, checks):
    """What was asked for is what the role in packaging/ lets its account do."""
    roles = [d for d in yaml.safe_load_all(RBAC.read_text()) if d["kind"] == "ClusterRole"]
    may = {(verb, group, resource) for rule in roles[0]["rules"] for verb in rule["verbs"]
           for group in rule["apiGroups"] for resource in rule["resources"]}
    used = stage.cluster.used
    checks.check(used == may, "the role in packaging/kubernetes is what is needed", (used, may))


def scenario(lab, checks):
    stage = Stage(lab)
    web = first_things(stage, checks)
    packets(stage, checks, web)
    operators(stage, checks)
    watching(stage, checks, web)
    restart(stage, checks, web)
    allowed(stage, checks)
    switched_off(stage, checks)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("kubernetes"), scenario))
