#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every counter that the CLI shows is exported, with the value that it shows; every metric that the
alert rules and the dashboard name is exported; promtool finds nothing wrong with either, and each
rule has a test that fails without it. Both daemons run (on a port that receives nothing), in a
network namespace of their own."""

import json
import os
import re
import socketserver
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

import yaml

from control_stand import BACKENDS, BUILD, SERVICES, Web, check, wait_until, with_daemon

ROOT = Path(__file__).resolve().parents[2]
CLI = BUILD / "tools" / "cli" / "sluice"
RULES = ROOT / "packaging" / "prometheus"
# What is shown and is no counter; the rest must be exported.
NO_COUNTERS = {
    "workers": {"id", "state", "cpu", "numa_node", "placement", "ports", "queue"},
    "ports": {"name", "device", "driver", "kernel_name", "mac", "mtu", "rx_queues", "tx_queues",
              "numa_node", "rest_to_kernel", "note"},
    "stats": {"name", "address", "backends", "time"},
}
WORKER = {"generation": "generation", "heartbeat_age_ms": "heartbeat_age_seconds",
          "busy": "busy_ratio", "connections": "connections", "capacity": "connections_capacity",
          "adopted": "connections_adopted_total", "rx_packets": "rx_packets_total",
          "tx_packets": "tx_packets_total"}
# Rows are there only where an XDP program is; the family is always.
PORT = {"link": "sluice_port_up", "standin_forwarded": "sluice_standin_forwarded_packets_total",
        "standin_dropped": "sluice_standin_dropped_packets_total"}
TOTAL = {"dropped": "sluice_worker_dropped_packets_total",
         "standin_forwarded": "sluice_standin_forwarded_packets_total",
         "standin_dropped": "sluice_standin_dropped_packets_total"}

AGENT_PORT = 9777
# Its first backend has an agent and sends heartbeats, the second is silent.
TOLD = f"""  - name: told
    address: 198.51.100.11
    protocol: tcp
    port: 8080
    forward: ipip
    agent: {{port: {AGENT_PORT}, interval: 100ms, timeout: 90ms}}
    heartbeat: {{interval: 400ms, missing: 2}}
    backends: [{{address: {BACKENDS[0]}, weight: 100}}, {{address: {BACKENDS[1]}}}]
"""


class Agent(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"drain 40%\n")


class Metrics:
    def __init__(self, d):
        with urllib.request.urlopen(f"http://127.0.0.1:{d.metrics_port}/metrics", timeout=10) as r:
            text = r.read().decode()
        self.families = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
        self.names = set(self.families)
        self.rows = []
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.M):
            self.names.add(name)
            self.rows.append((name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))

    def value(self, name, **labels):
        """value() is the sum over the rows with the labels; None where there is no row."""
        found = [v for n, has, v in self.rows if n == name and labels.items() <= has.items()]
        return sum(found) if found else None


def show(d, *words):
    done = subprocess.run([CLI, "--socket", d.socket, *words, "-o", "json"], capture_output=True,
                          text=True, timeout=20, check=False)
    check(done.returncode == 0, done.stderr)
    return json.loads(done.stdout)


def rows_of(shown):
    return shown if isinstance(shown, list) else next(iter(shown.values()))


def test_exported(d):
    compared = 0

    def same(what, shown, exported):
        nonlocal compared
        check(exported is not None, f"{what} is not exported")
        check(shown == exported, f"{what}: shown {shown}, exported {exported}")
        compared += 1

    # Nothing is received: what is counted stands still, but for the workers' turns.
    before = d.get("/v1/counters")["counters"]
    m = Metrics(d)
    for c, later in zip(before, d.get("/v1/counters")["counters"]):
        name = c["name"]
        if not name.startswith("drop_"):
            value = m.value(f"sluice_worker_{name}_total")
            check(value is not None, f"{name} is not exported")
            check(c["value"] <= value <= later["value"], f"{name}: {c} {value} {later}")
            compared += 1
    drops = rows_of(show(d, "drops", "--all"))
    check(len(drops) > 20, drops)
    standin = 0
    for drop in drops:
        value = m.value("sluice_worker_dropped_packets_total", reason=drop["reason"])
        if value is None and drop["reason"].startswith("standin"):
            standin += 1
            check("sluice_standin_dropped_packets_total" in m.families, drop)
        else:
            same(drop["reason"], drop["packets"], value)
    for worker in rows_of(show(d, "get", "workers")):
        for key in set(worker) - NO_COUNTERS["workers"]:
            check(key in WORKER, f"worker's {key}: not known to be exported")
            value = m.value(f"sluice_worker_{WORKER[key]}", worker=str(worker["id"]))
            if key in ("heartbeat_age_ms", "busy"):
                check(value is not None and value >= 0, f"worker's {key}")
            else:
                same(f"worker's {key}", worker[key], value)
    for port in rows_of(show(d, "get", "ports")):
        for key in set(port) - NO_COUNTERS["ports"]:
            name = PORT.get(key, f"sluice_port_{key}_total")
            if port[key] is None:
                check(name in m.families, f"port's {key}")
            else:
                shown = {"up": 1, "down": 0}.get(port[key], port[key])
                same(f"port's {key}", shown, m.value(name, port=port["name"]))
    stats = show(d, "stats")
    for key, value in stats["total"].items():
        name = TOTAL.get(key, f"sluice_worker_{key}_total")
        if name.startswith("sluice_standin"):
            check(name in m.families, name)
        else:
            same(f"total {key}", value, m.value(name))
    for s in stats["services"]:
        for key in set(s) - NO_COUNTERS["stats"]:
            name = {"connections": "connections", "dropped": "dropped_packets_total"}.get(
                key, f"{key}_total")
            same(f"service's {key}", s[key], m.value(f"sluice_service_{name}", service=s["name"]))
        for b in s["backends"]:
            for key in set(b) - NO_COUNTERS["stats"]:
                name = key if key == "connections" else f"{key}_total"
                same(f"backend's {key}", b[key], m.value(f"sluice_backend_{name}",
                                                         service=s["name"], backend=b["address"]))
    for b in d.get("/v1/backends")["backends"]:
        labels = {"service": b["service"], "backend": b["address"]}
        check(abs(m.value("sluice_backend_share_ratio", **labels) - b["share"]) < 1e-5, b)
        same("weight", b["effective_weight"], m.value("sluice_backend_weight", **labels))
        same("health", int(b["health"] in ("up", "unchecked")),
             m.value("sluice_backend_up", **labels))
    same("panic", 0, m.value("sluice_service_panic", service="web"))
    same("tier", 0, m.value("sluice_service_tier", service="web"))
    print(f"{compared} values that the CLI shows are exported; of the stand-in's {standin} reasons "
          "the family, as no port has an XDP program")


def test_reports(d):
    """What backends say of themselves, as API and CLI have it."""
    told = {"service": "told", "backend": BACKENDS[0]}
    silent = {"service": "told", "backend": BACKENDS[1]}
    code, answer = d.call("POST", f"/v1/heartbeats?backend={BACKENDS[0]}&load=0.25")
    check(code == 200, answer)
    wait_until(lambda: Metrics(d).value("sluice_backend_agent_failures_total", **silent),
               "a silent agent counts")
    m = Metrics(d)
    for labels, name, expected in [
            (told, "agent_up", 1), (silent, "agent_up", 0), (silent, "agent_answers_total", 0),
            (told, "agent_failures_total", 0), (silent, "heartbeats_total", 0),
            (told, "heartbeats_total", 1), (told, "heartbeat_missing", 0), (told, "load_ratio", 0.25),
            (silent, "load_ratio", None), (silent, "heartbeat_age_seconds", None),
            (silent, "agent_age_seconds", None), (silent, "agent_state", None),
            (told, "asked_weight_ratio", 0.4)]:
        value = m.value(f"sluice_backend_{name}", **labels)
        check(value == expected, f"{name} {labels}: {value}, expected {expected}")
    states = {w: m.value("sluice_backend_agent_state", state=w, **told)
              for w in ("ready", "drain", "maint", "down")}
    check(states == {"ready": 0, "drain": 1, "maint": 0, "down": 0}, states)
    check(m.value("sluice_backend_agent_answers_total", **told) > 0, "answers")
    check(0 <= m.value("sluice_backend_agent_age_seconds", **told) < 5, "the answer's age")
    check(0 <= m.value("sluice_backend_heartbeat_age_seconds", **told) < 5, "the heartbeat's age")
    check(m.value("sluice_backend_used_weight_ratio", **told) is not None, "weight in use")
    check(m.value("sluice_service_health_hints_total", service="web") == 0, "hints")
    shown = {b["address"]: b for b in d.get("/v1/backends?service=told")["backends"]}
    a = shown[BACKENDS[0]]["agent"]
    check(a["line"] == "drain 40%" and a["age_ms"] < 5000 and a["answers"] > 0 and
          a["failures"] == 0, a)
    a = shown[BACKENDS[1]]["agent"]
    check("refused" in a["problem"] and a["age_ms"] is None and a["failures"] > 0, a)
    table = subprocess.run([CLI, "--socket", d.socket, "get", "backends", "told"],
                           capture_output=True, text=True, timeout=20, check=True).stdout
    check(re.search(r"agent drain 40% \d+\.\ds ago; beat (alive|missing) load 0.25 \d+\.\ds ago",
                    table), table)
    check(re.search(r"agent \(.*refused.*\); beat awaited", table), table)
    wait_until(lambda: Metrics(d).value("sluice_backend_heartbeat_missing", **told) == 1,
               "the heartbeat is missed")
    check(d.get("/v1/backends?service=told")["backends"][0]["heartbeat"]["state"] == "missing",
          "shown as missing")


def metrics_in(expression):
    text = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\bsluice_\w+", text))


def test_named(d):
    m = Metrics(d)
    dashboard = json.loads((RULES / "dashboard.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((RULES / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    expressions = [(f"alert {r['alert']}", r["expr"]) for r in rules]
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expressions.append((f"panel {panel['title']}", target["expr"]))
    for variable in dashboard["templating"]["list"][1:]:
        expressions.append((f"variable {variable['name']}", variable["query"]["query"]))
    named = set()
    for where, expression in expressions:
        check(metrics_in(expression) or expression.startswith("up{"), f"{where}: {expression}")
        for name in metrics_in(expression):
            check(name in m.names, f"{where}: {name} is not exported")
            named.add(name)
    ids = [p["id"] for p in dashboard["panels"]]
    check(len(set(ids)) == len(ids), "panels have ids of their own")
    areas = [p["gridPos"] for p in dashboard["panels"]]
    for i, a in enumerate(areas):
        for b in areas[i + 1:]:
            check(a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or
                  a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], f"{a} and {b} overlap")
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for rule in rules:
        check(f"| {rule['alert']} |" in page, f"{rule['alert']} is in docs/metrics.md")
    print(f"{len(rules)} alerts and {len(areas)} panels name {len(named)} metrics: all are exported")
    return rules, [e for where, e in expressions if where.startswith("panel")]


def promtool(*words):
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60,
                          check=False)
    return done.returncode, done.stdout + done.stderr


def test_rules(rules, panels):
    code, said = promtool("check", "rules", str(RULES / "alerts.yaml"))
    check(code == 0, said)
    code, said = promtool("test", "rules", str(RULES / "alerts_test.yaml"))
    check(code == 0, said)
    with tempfile.TemporaryDirectory(prefix="sluice-metrics-") as directory:
        # The dashboard's expressions are PromQL.
        records = [{"record": f"panel:{i}", "expr": e.replace("$__rate_interval", "1m")}
                   for i, e in enumerate(panels)]
        path = Path(directory, "panels.yaml")
        path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}),
                        encoding="utf-8")
        code, said = promtool("check", "rules", str(path))
        check(code == 0, said)
        # With rules that never fire, each of them is missed by a test.
        Path(directory, "alerts_test.yaml").write_text(
            (RULES / "alerts_test.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        silent = [{**r, "expr": "vector(0) > 1"} for r in rules]
        Path(directory, "alerts.yaml").write_text(
            yaml.safe_dump({"groups": [{"name": "sluice", "rules": silent}]}), encoding="utf-8")
        code, said = promtool("test", "rules", f"{directory}/alerts_test.yaml")
        check(code != 0, said)
        for rule in rules:
            check(re.search(rf"alertname: ?{rule['alert']},", said), f"no test needs {rule['alert']}")


def scenario(d):
    for address in BACKENDS:
        Web(address)
    agent = socketserver.TCPServer((BACKENDS[0], AGENT_PORT), Agent)
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    d.start()
    node = Path(d.node)
    node.write_text(node.read_text(encoding="utf-8").replace(
        "dataplane:\n", "dataplane:\n  workers: 2\n  connections: 10000\n  idle: sleep\n"
        "  hugepages: \"off\"\n  memory: 64\n").replace("net_null0", "net_null0,no-rx=1"),
                    encoding="utf-8")
    with open(f"{d.directory}/dataplane.log", "wb") as log, subprocess.Popen(
            [BUILD / "dataplane" / "sluice-dataplane", "--node", d.node], stdout=log, stderr=log,
            env={**os.environ, "SLUICE_BPF_DIR": str(BUILD / "bpf")}) as dataplane:
        try:
            wait_until(lambda: d.get("/v1/workers")["workers"] or dataplane.poll() is not None,
                       "a data plane", 30)
            check(dataplane.poll() is None, Path(f"{d.directory}/dataplane.log").read_text())
            code, answer = d.call("PUT", "/v1/config", SERVICES + TOLD)
            check(code == 200, answer)
            wait_until(lambda: d.get("/v1/services/web")["state"] == "up", "backends")
            wait_until(lambda: all(w["generation"] == d.get("/v1/status")["generation"]
                                   for w in d.get("/v1/workers")["workers"]), "the workers follow")
            test_exported(d)
            test_reports(d)
            test_rules(*test_named(d))
        finally:
            dataplane.terminate()
            dataplane.wait(timeout=20)


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
