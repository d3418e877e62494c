#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""sluice-controlplane over its socket: apply, refuse, show, restart, health of real listeners.
No data plane: what it would read is read back through the API. Runs in a network namespace of its
own, which is gone when it ends."""

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from control_stand import (BACKENDS, DAEMON, SERVICES, UnixConnection, Web, check, wait_until,
                           with_daemon)


def errors_of(answer):
    return [(e["file"], e["line"], e["key"]) for e in answer["errors"]]


def test_apply_and_refuse(d):
    status = d.get("/v1/status")
    check(status["revision"] == 0 and status["dataplane"]["state"] == "absent", "an empty node")
    code, answer = d.call("PUT", "/v1/config?dry_run=1", SERVICES)
    check(code == 200 and answer["revision"] == 0 and len(answer["changes"]) >= 2, "dry run")
    check(d.get("/v1/config")["services"] == [], "a dry run changes nothing")
    code, answer = d.call("PUT", "/v1/config?file=services.yaml", SERVICES,
                          {"X-Sluice-Author": "me", "X-Sluice-Reason": "first"})
    check(code == 200 and answer["revision"] == 1, f"apply: {answer}")
    code, answer = d.call("PUT", "/v1/config", SERVICES)
    check(code == 200 and answer == {"revision": 1, "changes": []}, "the same again is no revision")

    before = d.get("/v1/config")
    generation = d.get("/v1/status")["generation"]
    bad = {
        "unknown key": (SERVICES.replace("weight: 50", "wieght: 50"), "wieght"),
        "port": (SERVICES.replace("port: 8080", "port: 80800"), "port"),
        "type": (SERVICES.replace("weight: 50", "weight: heavy"), "weight"),
        "syntax": (SERVICES.replace("services:", "services: ["), ""),
        "backend is a VIP": (SERVICES.replace("10.77.0.13", "198.51.100.10"), "address"),
        "duplicate": (SERVICES + SERVICES[SERVICES.index("  - name: plain"):], ""),
    }
    for what, (text, key) in bad.items():
        code, answer = d.call("PUT", "/v1/config?file=services.yaml", text)
        check(code == 400 and answer["errors"], f"{what}: {code} {answer}")
        check(all(f == "services.yaml" and n > 0 for f, n, _ in errors_of(answer)), f"{what}: {answer}")
        check(any(key in k for _, _, k in errors_of(answer)), f"{what}: key in {answer}")
    check(d.get("/v1/config") == before, "refusals leave the desired state")
    check(d.get("/v1/status")["revision"] == 1, "refusals are no revision")
    check(generation > 0, "generations are counted")
    wait_until(lambda: d.get("/v1/status")["published"], "published")


def test_calls(d):
    for method, path, body, expected in [
        ("GET", "/", None, 404),
        ("GET", "/v2/status", None, 404),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/services/none", None, 404),
        ("DELETE", "/v1/services/none", None, 404),
        ("DELETE", "/v1/status", None, 405),
        ("PUT", "/v1/services", "{}", 405),
        ("POST", "/v1/services", "{name: web}", 400),
        ("POST", "/v1/services", "{name: web, address: 198.51.100.9, protocol: tcp, port: 1,"
                                 " forward: dsr-l2, backends: []}", 409),
        ("POST", "/v1/services/web/backends", "{address: 10.77.0.11}", 409),
        ("POST", "/v1/services/web/backends", "{address: nonsense}", 400),
        ("PATCH", "/v1/services/web/backends/10.77.0.99", "{weight: 1}", 404),
        ("PATCH", "/v1/services/web/backends/x", "{weight: 1}", 400),
        ("PATCH", "/v1/services/web", "{name: other}", 400),
        ("PATCH", "/v1/services/web", "{backends: []}", 400),
        ("GET", "/v1/connections?limit=0", None, 400),
        ("GET", "/v1/connections?service=none", None, 404),
        ("GET", "/v1/stats?service=none", None, 404),
        ("GET", "/v1/history/x", None, 400),
        ("GET", "/v1/history/0", None, 404),
        ("GET", "/v1/history/99", None, 404),
        ("GET", "/v1/history/18446744073709551615", None, 404),
        ("GET", "/v1/history/1/2", None, 404),
        ("DELETE", "/v1/history/1", None, 405),
        ("GET", "/v1/diff", None, 400),
        ("GET", "/v1/diff?from=1&to=99", None, 404),
        ("GET", "/v1/config?revision=99", None, 404),
        ("GET", "/v1/rollback?revision=1", None, 405),
        ("POST", "/v1/rollback", None, 400),
        ("POST", "/v1/rollback?revision=-1", None, 400),
        ("POST", "/v1/rollback?revision=99", None, 404),
        ("GET", "/v1/explain?protocol=icmp", None, 400),
        ("GET", "/v1/explain?protocol=tcp&source=1.2.3.4:5&destination=%5B::1%5D:6", None, 400),
        ("PUT", "/v1/config", "x" * (17 << 20), 413),
    ]:
        try:
            code, answer = d.call(method, path, body)
        except (BrokenPipeError, ConnectionResetError):
            check(expected == 413, f"{method} {path}: connection lost")
            continue
        check(code == expected, f"{method} {path}: {code}, not {expected}: {answer}")
        check(answer["errors"][0]["message"], f"{method} {path}: says why")
    for path in ["services", "backends", "workers", "ports", "nodes", "drops", "counters",
                 "connections", "history", "history/1", "diff?from=0&to=1"]:
        check(len(d.get(f"/v1/{path}")) >= 1, path)
    check(d.get("/v1/connections/count")["total"] == 0, "no connections")
    check(d.get("/v1/history")["revisions"][0]["author"] == "me", "author")
    check({x["reason"] for x in d.get("/v1/drops")["drops"]} >= {"no_backend", "truncated"}, "drops")
    # A form as curl -d sends it, longer than httplib takes for forms.
    code, answer = d.call("PUT", "/v1/config", SERVICES + "#" * 10000 + "\n",
                          {"Content-Type": "application/x-www-form-urlencoded"})
    check(code == 200 and answer["changes"] == [], f"a form: {answer}")
    code, text = d.raw("GET", "/v1/config?format=yaml")
    check(code == 200 and d.call("PUT", "/v1/config", text)[1]["changes"] == [], "YAML comes back")
    check(os.stat(d.socket).st_mode & 0o777 == 0o600, "mode of the socket")


def test_changes(d):
    revision = d.get("/v1/status")["revision"]

    def change(method, path, body=None):
        nonlocal revision
        code, answer = d.call(method, path, body)
        check(code == 200 and answer["revision"] == revision + 1, f"{method} {path}: {answer}")
        revision += 1
        return answer["changes"]

    changes = change("POST", "/v1/services/web/backends", "{address: 10.77.0.14, weight: 10}")
    check(changes[0]["kind"] == "added" and changes[0]["backend"] == "10.77.0.14", "added")
    changes = change("PATCH", "/v1/services/web/backends/10.77.0.14", "{weight: 20}")
    check(changes[0]["kind"] == "changed" and "10 -> 20" in changes[0]["text"], str(changes))
    change("DELETE", "/v1/services/web/backends/10.77.0.14")
    change("POST", "/v1/services", "{name: extra, address: 198.51.100.11, protocol: tcp, port: 80,"
                                   " forward: ipip, backends: [{address: 10.77.1.1}]}")
    check(d.get("/v1/services/extra")["port"] == "80", "added service")
    change("PATCH", "/v1/services/extra", "{port: 81}")
    check(d.get("/v1/services/extra")["port"] == "81", "patched service")
    change("DELETE", "/v1/services/extra")
    check([s["name"] for s in d.get("/v1/services")["services"]] == ["plain", "web"], "names")

    # What was made for another revision is refused, whatever the call.
    text = d.raw("GET", "/v1/config?format=yaml")[1]
    for method, path, body in [
        ("PUT", "/v1/config", SERVICES),
        ("POST", "/v1/services/web/backends", "{address: 10.77.0.15}"),
        ("PATCH", "/v1/services/web", "{port: 8081}"),
        ("DELETE", "/v1/services/web", None),
        ("POST", "/v1/services/web/backends/10.77.0.11/drain", None),
        ("POST", "/v1/rollback?revision=1", None),
    ]:
        for stale in (f'"{revision - 1}"', f"{revision + 1}", "0"):
            code, answer = d.call(method, path, body, {"If-Match": stale})
            check(code == 409 and f"is {revision} by now" in answer["errors"][0]["message"],
                  f"{method} {path} for revision {stale}: {code} {answer}")
        code, answer = d.call(method, path, body, {"If-Match": '"x"'})
        check(code == 400 and answer["errors"][0]["key"] == "If-Match", f"{method} {path}: {answer}")
    check(d.raw("GET", "/v1/config?format=yaml")[1] == text, "refused changes change nothing")
    connection = UnixConnection(d.socket)
    connection.request("GET", "/v1/config")
    etag = connection.getresponse().headers["ETag"]
    connection.close()
    check(etag == f'"{revision}"', f"the ETag is the revision: {etag}")
    for condition in (etag, "*"):
        weight = 30 if condition == "*" else 50
        code, answer = d.call("PATCH", "/v1/services/web/backends/10.77.0.13",
                              {"weight": weight - 1}, {"If-Match": condition})
        check(code == 200 and answer["revision"] == revision + 1, f"{condition}: {answer}")
        revision += 1
    change("PATCH", "/v1/services/web/backends/10.77.0.13", {"weight": 50})


def shares(d):
    return {a: d.backend(a)["share"] for a in BACKENDS}


def test_health(d, webs):
    wait_until(lambda: all(d.backend(a)["health"] == "up" for a in BACKENDS), "all are up")
    wait_until(lambda: d.get("/v1/status")["published"], "published")
    s = shares(d)
    for address, share in zip(BACKENDS, [0.4, 0.4, 0.2]):
        check(abs(s[address] - share) < 0.0001, f"share of {address}: {s}")
    check(d.get("/v1/services/web")["state"] == "up", "service is up")

    start = time.monotonic()
    webs[1].down()
    wait_until(lambda: d.backend(BACKENDS[1])["share"] == 0, "a dead listener loses its share")
    print(f"a listener that is gone is out of the table after {time.monotonic() - start:.2f} s")
    b = d.backend(BACKENDS[1])
    check(b["health"] == "down" and b["effective_weight"] == 0 and "refused" in b["health_text"],
          str(b))
    s = shares(d)
    check(abs(s[BACKENDS[0]] - 2 / 3) < 0.0001, f"the others share: {s}")
    check(d.get("/v1/services/web")["state"] == "degraded", "degraded")

    for w in (webs[0], webs[2]):
        w.down()
    wait_until(lambda: d.get("/v1/services/web")["state"] == "down", "all are down")
    wait_until(lambda: abs(shares(d)[BACKENDS[0]] - 0.4) < 0.0001, "panic: health is ignored")
    check(any("health is ignored" in w for w in d.get("/v1/status")["warnings"]), "it is said")
    for w in webs:
        w.up()
    wait_until(lambda: all(d.backend(a)["health"] == "up" for a in BACKENDS), "all are back")
    check(d.call("POST", f"/v1/services/web/backends/{BACKENDS[2]}/drain")[0] == 200, "drain")
    b = d.backend(BACKENDS[2])
    check(b["admin"] == "draining" and b["share"] == 0 and b["health"] == "up", str(b))
    check(d.call("POST", f"/v1/services/web/backends/{BACKENDS[2]}/undrain")[0] == 200, "undrain")
    wait_until(lambda: abs(d.backend(BACKENDS[2])["share"] - 0.2) < 0.0001, "undrained")


def test_explain(d):
    e = d.get("/v1/explain?protocol=tcp&source=203.0.113.5:1234&destination=198.51.100.10:8080")
    check(e["verdict"] == "forwarded" and e["service"] == "web" and e["rule"] == "maglev", str(e))
    check(e["backend"] in BACKENDS and e["forward"] == "ipip" and e["outer_source"] == "192.0.2.10"
          and e["next_hop"]["mac"] == "02:00:00:00:00:01" and e["next_hop"]["port"] == "up0", str(e))
    again = d.get("/v1/explain?protocol=tcp&source=203.0.113.5:1234&destination=198.51.100.10:8080")
    check(again == e, "the same flow, the same answer")
    e = d.get("/v1/explain?protocol=udp&source=%5B2001:db8:9::1%5D:5&destination=%5B2001:db8::10%5D:99")
    check(e["backend"] == "2001:db8:1::1" and e["forward"] == "dsr-l2", str(e))
    e = d.get("/v1/explain?protocol=tcp&source=203.0.113.5:1&destination=198.51.100.10:9")
    check(e["verdict"] == "dropped" and e["reason"] == "no_service_port", str(e))
    e = d.get("/v1/explain?protocol=tcp&source=203.0.113.5:1&destination=198.51.100.99:9")
    check(e["verdict"] == "dropped" and e["reason"] == "not_for_us", str(e))
    e = d.get("/v1/explain?protocol=tcp&source=127.0.0.1:1&destination=198.51.100.10:8080")
    check(e["reason"] == "bad_source", str(e))


def test_schedulers_lists_and_modes(d):
    """What explain says of each scheduler, list and mode, and that a list follows its file."""
    before = d.raw("GET", "/v1/config?format=yaml")[1]
    good = Path(d.directory) / "good.txt"
    good.write_text("203.0.113.0/24  # ours\n\n2001:db8:9::/48\n", encoding="utf-8")
    kinds = ["maglev", "ring-hash", "partitioned-hash", "source-hash", "round-robin",
             "weighted-round-robin", "random", "weighted-random", "least-connections",
             "weighted-least-connections"]
    modes = {"ipip": 1480, "gue": 1472, "gre": 1476, "nat": 1500, "full-nat": 1500}
    services = [{"name": k, "address": f"198.51.101.{i + 1}", "port": 80, "scheduler": k,
                 "backends": [{"address": a} for a in BACKENDS]} for i, k in enumerate(kinds)]
    services += [{"name": m, "address": f"198.51.102.{i + 1}", "port": 80, "forward": m,
                  "mss-clamp": "auto", "backends": [{"address": BACKENDS[0]}]}
                 for i, m in enumerate(modes)]
    services[0].update({"allow-file": str(good), "deny": ["203.0.113.7/32"],
                        "limits": {"new-connections": 100, "per-source": {"new-connections": 5}}})
    services[1].update({"persistence": {"timeout": "5m", "ipv4-prefix": 24}})
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": services}))
    check(status == 200, str(answer))

    def explain(n, source="203.0.113.5:1234", block=101):
        return d.get(f"/v1/explain?protocol=tcp&source={source}&destination=198.51.{block}.{n}:80")

    for i, kind in enumerate(kinds):
        e = explain(i + 1)
        check(e["verdict"] == "forwarded" and e["scheduler"] == kind, str(e))
        check(e["rule"] == ("persistence" if i == 1 else kind), str(e))
        check((e["backend"] in BACKENDS) == (i < 4) and (e["slot"] is None) == (i >= 4), str(e))
        shown = d.get(f"/v1/services/{kind}")
        check(shown["table_size"] == (3 if 4 <= i < 8 else 65537), str(shown))
    # All ports and a whole /24 of a source go by the source alone where they should.
    for n in (2, 4):
        check(len({explain(n, f"203.0.113.5:{port}")["backend"] for port in range(1, 40)}) == 1,
              f"service {n}")
    check(len({explain(2, f"203.0.113.{i}:1")["backend"] for i in range(1, 40)}) == 1, "prefix")
    check(len({explain(4, f"203.0.113.{i}:1")["backend"] for i in range(1, 40)}) == 3, "sources")
    for i, (mode, room) in enumerate(modes.items()):
        e = explain(i + 1, block=102)
        check(e["verdict"] == "forwarded" and e["forward"] == mode and e["room"] == room, str(e))
        shown = d.get(f"/v1/services/{mode}")
        check(shown["mss_clamp"] == room - 40 and shown["options"]["mss-clamp"] == "auto",
              str(shown))

    e = explain(1)
    check("203.0.113.5 is in the service's allow list" in e["steps"], str(e))
    check(any("(source_rate)" in s for s in e["steps"]), str(e))
    check(explain(1, "203.0.113.7:1")["reason"] == "denied", "denied")
    check(explain(1, "203.0.114.1:1")["reason"] == "denied", "not allowed")
    good.write_text("203.0.114.0/24\n", encoding="utf-8")
    wait_until(lambda: explain(1, "203.0.114.1:1")["verdict"] == "forwarded", "the list is reread")
    check(explain(1)["reason"] == "denied", "who is no longer in it")
    # A file that has become wrong leaves the list, and is told of.
    good.write_text("203.0.114.0/24\n203.0.113.0/33\n", encoding="utf-8")
    wait_until(lambda: any(f"{good}:2: " in w for w in d.get("/v1/status")["warnings"]), "warned")
    check(explain(1, "203.0.114.1:1")["verdict"] == "forwarded", "the list stays")
    bad = Path(d.directory) / "bad.txt"
    bad.write_text("192.0.2.0/24\n192.0.2.1/24\n", encoding="utf-8")
    status, answer = d.call("PATCH", "/v1/services/ipip", json.dumps({"deny-file": str(bad)}))
    check(status == 400 and answer["errors"][0]["file"] == str(bad)
          and answer["errors"][0]["line"] == 2, str(answer))
    check(d.call("PUT", "/v1/config", before)[0] == 200, "as it was")
    wait_until(lambda: all(d.backend(a)["health"] == "up" for a in BACKENDS), "all are up again")


def test_metrics(d):
    connection = http.client.HTTPConnection("127.0.0.1", d.metrics_port, timeout=10)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    check(answer.status == 200, "metrics")
    values = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    check(values['sluice_backend_up{service="web",backend="10.77.0.11"}'] == 1, "backend up")
    check(values['sluice_backend_weight{service="web",backend="10.77.0.13"}'] == 50, "weight")
    check(values["sluice_dataplane_up"] == 0, "no data plane")
    check(values['sluice_health_probes_total{outcome="success"}'] > 0, "probes")
    check(values["sluice_publish_total"] > 3, "published")
    digest = d.get("/v1/status")["digest"]
    check(values[f'sluice_tables_info{{digest="{digest}"}}'] == 1, "digest")
    count = values["sluice_publish_verdict_seconds_count"]
    check(count > 3, "verdicts are measured")
    under = values['sluice_publish_verdict_seconds_bucket{le="0.01"}']
    print(f"from a verdict to the tables: {under:.0f} of {count:.0f} within 10 ms, mean "
          f"{1000 * values['sluice_publish_verdict_seconds_sum'] / count:.2f} ms")
    types = {line.split()[2]: line.split()[3] for line in text.splitlines()
             if line.startswith("# TYPE")}
    for name, kind in types.items():
        check((kind == "counter") == name.endswith("_total"), f"{name} is a {kind}")


def state_of(d):
    status = d.get("/v1/status")
    return {
        "config": d.get("/v1/config"),
        "digest": status["digest"],
        "backends": [(b["address"], b["effective_weight"], b["share"], b["health"])
                     for b in d.get("/v1/backends")["backends"]],
    }


def test_restart(d, webs):
    webs[0].down()
    wait_until(lambda: d.backend(BACKENDS[0])["share"] == 0, "one is down")
    before = state_of(d)
    generation = d.get("/v1/status")["generation"]
    segment = os.stat(f"{d.directory}/config.shm").st_ino

    check(d.end(signal.SIGKILL) == -signal.SIGKILL, "killed")
    d.start()  # over the stale socket
    check(state_of(d) == before, "a killed control plane comes back as it was")
    check(d.get("/v1/status")["generation"] > generation, "generations go on")
    check(os.stat(f"{d.directory}/config.shm").st_ino == segment, "in the same segment")

    second = subprocess.run([DAEMON, "--node", d.node], capture_output=True, text=True,
                            timeout=20, check=False)
    check(second.returncode == 1 and "another control plane" in second.stderr, second.stderr)

    check(d.end() == 0, "SIGTERM: exit code 0")
    check(not os.path.exists(d.socket), "its socket is gone")
    d.start()
    check(state_of(d) == before, "a stopped control plane comes back as it was")

    # Without the segment, the state file alone: the verdicts are in it.
    time.sleep(1.5)
    check(d.end() == 0, "stopped")
    os.unlink(f"{d.directory}/config.shm")
    d.start()
    after = state_of(d)
    check(after["config"] == before["config"] and after["digest"] == before["digest"], "from the file")

    # A damaged segment is replaced.
    check(d.end() == 0, "stopped")
    with open(f"{d.directory}/config.shm", "r+b") as f:
        f.seek(4096)
        f.write(b"\xff" * 100_000)
    d.start()
    check(state_of(d)["digest"] == before["digest"], "damage is repaired")
    check("replaced by new tables" in d.log(), "and said")
    webs[0].up()
    wait_until(lambda: d.backend(BACKENDS[0])["health"] == "up", "back")


def test_many_at_once(d):
    """Readers and writers at the same time: every answer is whole, every change is one revision."""
    revision = d.get("/v1/status")["revision"]
    rounds = 12

    def write(i):
        return d.call("PATCH", f"/v1/services/web/backends/{BACKENDS[i % 3]}",
                      {"weight": 10 + i})[1]["revision"]

    def read(_):
        s = d.get("/v1/services/web")
        total = sum(b["share"] for b in s["backends"])
        check(abs(total - 1) < 1e-9, f"shares add up to {total}")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        writes = [pool.submit(write, i) for i in range(rounds)]
        reads = [pool.submit(read, i) for i in range(60)]
        seen = sorted(w.result() for w in writes)
        for r in reads:
            r.result()
    check(seen == list(range(revision + 1, revision + rounds + 1)), f"revisions {seen}")


def test_usage(directory):
    def run(*arguments):
        return subprocess.run([DAEMON, *arguments], capture_output=True, text=True, timeout=20,
                              check=False)

    check(run("--version").stdout.startswith("sluice-controlplane "), "--version")
    check(run("--help").returncode == 0, "--help")
    check(run().returncode == 2 and run("--nonsense").returncode == 2, "wrong usage")
    wrong = Path(directory) / "wrong.yaml"
    wrong.write_text("node:\n  title: x\n", encoding="utf-8")
    r = run("--node", str(wrong), "--check")
    check(r.returncode == 1 and f"{wrong}:2: node.title" in r.stderr, r.stderr)
    r = run("--node", f"{directory}/none.yaml")
    check(r.returncode == 1 and "none.yaml" in r.stderr, r.stderr)
    wrong.write_text(f"node: {{runtime-dir: {directory}/rt}}\n"
                     "controlplane: {state: /proc/nowhere/state.db}\n", encoding="utf-8")
    check(run("--node", str(wrong)).returncode == 1, "a state file that cannot be")


def scenario(daemon):
    test_usage(daemon.directory)
    webs = [Web(a) for a in BACKENDS]
    daemon.start()
    test_apply_and_refuse(daemon)
    test_calls(daemon)
    test_changes(daemon)
    test_health(daemon, webs)
    test_explain(daemon)
    test_schedulers_lists_and_modes(daemon)
    test_metrics(daemon)
    test_restart(daemon, webs)
    test_many_at_once(daemon)


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
