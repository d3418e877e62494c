#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every verb of the CLI with both daemons running (a port that receives nothing, no hugepages, a
runtime directory of its own): what it prints, its exit code, what it refuses. Needs no root; as
root, replay runs as nobody."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from cli_stand import ROOT, CLI, NODE, SERVICES, Cli, check, start
from lab.expect import held
from pty_screen import Terminal

# What is done when a file is refused: description, file, line, key, a word of the message.
# Every file is refused as a whole.
REFUSED = [
    ("bad YAML", "services:\n  - name: web\n   address: [\n", 3, None, ""),
    ("not a map", "- web\n", 1, None, "map"),
    ("empty", "", 1, None, "empty"),
    ("wrong type", SERVICES.replace("weight: 50", "weight: [50]"), 9,
     "services[0].backends[1].weight", "number"),
    ("number for text", SERVICES.replace("port: 443", "port: {a: 1}"), 5, "services[0].port", ""),
    ("unknown key", SERVICES.replace("weight: 50", "wieght: 50"), 9,
     "services[0].backends[1].wieght", "did you mean weight"),
    ("key twice", SERVICES.replace("    port: 443\n", "    port: 443\n    port: 444\n"), 6,
     "services[0].port", ""),
    ("VIP twice", SERVICES.replace('"2001:db8:f::10"', "198.51.100.10").replace("udp", "tcp")
     .replace('"5000-5100"', "400-500").replace('"2001:db8:1::11"', "10.0.1.13"), 11,
     "services[1].address", "overlaps"),
    ("name twice", SERVICES.replace("name: plain", "name: web"), 10, "services[1].name", "web"),
    ("port 0", SERVICES.replace("port: 443", "port: 0"), 5, "services[0].port", "1 to 65535"),
    ("port 65536", SERVICES.replace("port: 443", "port: 65536"), 5, "services[0].port",
     "1 to 65535"),
    ("range upside down", SERVICES.replace('"5000-5100"', '"5100-5000"'), 13, "services[1].port",
     ""),
    ("backend is a VIP", SERVICES.replace("10.0.1.12", "198.51.100.10"), 9,
     "services[0].backends[1].address", "is the address of service"),
    ("no source for the tunnel", SERVICES.replace("10.0.1.12", '"2001:db8:1::12"'), 6,
     "services[0].forward", "encap-source.ipv6"),
    ("no address", SERVICES.replace("10.0.1.12", "backend.example.net"), 9,
     "services[0].backends[1].address", "address"),
    ("weight out of range", SERVICES.replace("weight: 50", "weight: 65536"), 9,
     "services[0].backends[1].weight", "65535"),
    ("unknown word", SERVICES.replace("forward: ipip", "forward: ipp"), 6, "services[0].forward",
     "ipip"),
]

EXPLAIN = ["explain", "--protocol", "tcp", "--source", "192.0.2.7:40000", "--destination",
           "198.51.100.10:443"]
SHOWN = [["status"], ["get", "services"], ["get", "services", "web"], ["get", "backends"],
         ["get", "backends", "web"], ["get", "nodes"], ["get", "workers"], ["get", "ports"],
         ["get", "config"], ["history"], ["history", "1"], ["diff", "0"], ["diff", "0", "1"],
         ["stats"], ["stats", "--service", "web"], ["drops"],
         ["drops", "--all"], ["connections", "count"], ["connections", "count", "--service", "web"],
         ["connections", "list"], ["connections", "list", "--service", "web", "--limit", "5"],
         EXPLAIN]
WRONG_USAGE = [[], ["no-such"], ["get"], ["get", "no-such"], ["status", "-o", "xml"],
               ["status", "extra"], ["apply"], ["check"], ["diff", "--no-such"], ["diff"],
               ["diff", "x"],
               ["diff", "1", "-f", "services.yaml"], ["rollback"], ["rollback", "x"],
               ["backup"], ["backup", "create", "--to", "b"], ["restore", "--at", "yesterday"],
               ["backup", "create", "--kind", "full"], ["restore", "--at", "2026-11-21T23:45:00"],
               ["backup", "create", "--kind", "half", "--to", "b"], ["restore", "--revision", "x"],
               ["backup", "create", "--kind", "full", "--to", "b", "--copy", "sync"],
               ["restore", "--revision", "1", "--at", "2026-11-21T23:45:00Z"],
               ["history", "x"], ["apply", "-f", "services.yaml", "--if-revision", "x"],
               ["service", "add"],
               ["service", "set", "web"], ["service", "remove", ""], ["backend", "set", "web",
                                                                      "10.0.1.11"],
               ["backend", "add", "web", ""], ["backend", "add", "web", "10.0.1.9", "--weight", "x"],
               ["explain", "--protocol", "icmp", "--source", "a", "--destination", "b"],
               ["connections"], ["connections", "list", "--limit", "0"], ["import"],
               ["import", "haproxy", "x"], ["node"], ["node", "remove"], ["import", "keepalived"], ["doctor", "--root", "no-such"], ["replay", "--in", "x"],
               ["service", "set", "web", "--health", "http"], ["stats", "--interval", "0"]]


def test_version(cli):
    check("0.1" in cli.run("--version").stdout, "--version")


def test_wrong_usage(cli):
    for words in WRONG_USAGE:
        cli.run(*words, code=2)
    check('no command "no-such"' in cli.run("no-such", code=2).stderr, "names the wrong command")
    check('get: there is no command "x"' in cli.run("get", "x", code=2).stderr,
          "names the wrong subcommand")


def test_without_daemon(cli):
    """Nobody listens: what needs a daemon says so; what does not works."""
    for words in [*SHOWN, ["apply", "-f", "services.yaml"], ["service", "remove", "web"],
                  ["connections", "flush"], ["node", "drain"],
                  ["backend", "drain", "web", "10.0.1.11"], ["diff", "-f", "services.yaml"],
                  ["rollback", "1"]]:
        check("is sluice-controlplane running" in cli.run(*words, code=1).stderr,
              f"{words}: says what is missing")
    checked = json.loads(cli.run("check", "-f", "services.yaml", "-o", "json").stdout)
    check({k: checked[k] for k in ("ok", "kind", "services", "backends")}
          == {"ok": True, "kind": "services", "services": 2, "backends": 3}, "check")
    check([r["mtu"] for r in checked["room"]] == [1500] * 3, f"check: {checked}")
    cli.run("check", "-f", "services.yaml", "--node", "node.yaml")
    check("node test1" in cli.run("check", "-f", "node.yaml").stdout, "check of a node file")
    Path(cli.directory, "bad-node.yaml").write_text(
        NODE.format(d=cli.directory).replace("idle: sleep", "idle: slep"), encoding="utf-8")
    check(cli.run("check", "-f", "bad-node.yaml", code=1).stderr.startswith(
        "bad-node.yaml:9: dataplane.idle: "), "check of a bad node file")
    # No socket named, and none at the usual place (a machine that runs Sluice has one).
    if not os.path.exists("/run/sluice/api.sock"):
        result = cli.run("diff", "-f", "services.yaml", "-o", "json", socket=False)
        check("compared with no services" in result.stderr, "diff says what it compared with")
        changes = json.loads(result.stdout)["changes"]
        check([c["kind"] for c in changes] == ["added", "added"], f"diff with nothing: {changes}")
    Path(cli.directory, "new.yaml").write_text(
        SERVICES.replace("weight: 50", "weight: 75"), encoding="utf-8")
    changes = cli.json("diff", "-f", "new.yaml", "--against", "services.yaml")["changes"]
    check(len(changes) == 1 and changes[0]["kind"] == "changed"
          and changes[0]["backend"] == "10.0.1.12", f"diff of two files: {changes}")
    check(cli.run("diff", "-f", "new.yaml", "--against", "new.yaml").stdout == "no difference\n",
          "no difference")


def test_import(cli):
    """What import prints, check takes; what it leaves out it says with file and line."""
    path = Path(cli.directory, "old.ipvs")
    path.write_text("-A -t 198.51.100.10:80 -s wrr\n-a -t 198.51.100.10:80 -r 10.0.1.11 -i -w 3\n"
                    "-A -f 7 -s rr\n", encoding="utf-8")
    result = cli.run("import", "ipvsadm", "old.ipvs", socket=False)
    check(result.stderr.startswith("old.ipvs:3: -A -f 7 -s rr: not carried over: "),
          f"import: {result.stderr}")
    Path(cli.directory, "imported.yaml").write_text(result.stdout, encoding="utf-8")
    checked = cli.json("check", "-f", "imported.yaml")
    check(checked["services"] == 1 and checked["backends"] == 1, f"import: {checked}")
    again = cli.run("import", "ipvsadm", "-", "-o", "json", text=path.read_text(encoding="utf-8"))
    check(json.loads(again.stdout)["services"][0]["backends"] ==
          [{"address": "10.0.1.11", "weight": 3}], "import: as JSON")
    path.write_text("virtual_server 198.51.100.10 80 {\n", encoding="utf-8")
    check(cli.run("import", "keepalived", "old.ipvs", code=1).stderr.startswith("old.ipvs:1: "),
          "import: a block that does not end")
    path.write_text("include parts/*.conf\n", encoding="utf-8")
    parts = Path(cli.directory, "parts")
    parts.mkdir()
    part = parts / "web.conf"
    part.write_text("virtual_server 198.51.100.10 80 {\n lb_kind DR\n ops\n real_server 10.0.1.11 80 "
                    "{\n }\n}\n", encoding="utf-8")
    result = cli.run("import", "keepalived", "old.ipvs", socket=False)
    check("198.51.100.10" in result.stdout and result.stderr.startswith("parts/web.conf:3: "),
          f"import: an included file: {result.stderr}")
    part.write_text("include web.conf\n", encoding="utf-8")
    check(cli.run("import", "keepalived", "old.ipvs", code=1).stderr.startswith("parts/web.conf:1: "),
          "import: a file that includes itself")
    cli.run("import", "keepalived", "no-such", code=1)


def test_doctor(cli):
    """doctor looks at this machine; what it says is in tests/unit/doctor."""
    report = cli.json("doctor", "--node", "node.yaml", "--services", "services.yaml")
    found = {(f["check"], f["subject"]): f for f in report["findings"]}
    check(report["ok"] and found["driver", "up0"]["seen"] == "net_null0"
          and ("kernel", None) in found and found["hugepages", None]["level"] == "ok"
          and ("vip", "198.51.100.10") in found, f"doctor: {report}")
    check(all(f["right"] or f["level"] == "ok" for f in report["findings"]),
          "doctor: says what would be right")
    text = cli.run("doctor", "--node", "node.yaml").stdout
    check(re.search(r"(?m)^ok    driver up0: net_null0$", text) and "0 in the way" in text,
          f"doctor: {text}")
    Path(cli.directory, "bad-port.yaml").write_text(
        NODE.format(d=cli.directory).replace("net_null0,no-rx=1", "af_xdp:no-such0"),
        encoding="utf-8")
    broken = subprocess.run([CLI, "doctor", "--node", "bad-port.yaml"], capture_output=True,
                            text=True, check=False, cwd=cli.directory)
    check(broken.returncode == 1 and "fail  driver up0: there is no interface no-such0"
          in broken.stdout, f"doctor: {broken}")


def test_examples(cli):
    """The files that the documentation shows are right, as are the errors it shows."""
    found = {"node": 0, "services": 0}
    for name in ("README.md", "docs/configuration.md"):
        for text in re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text(), re.DOTALL):
            if not text.startswith(("node:", "services:")):
                continue
            Path(cli.directory, "example.yaml").write_text(text, encoding="utf-8")
            found[cli.json("check", "-f", "example.yaml")["kind"]] += 1
    check(found == {"node": 2, "services": 2}, f"examples: {found}")


def test_refused(cli, live):
    """Files with one mistake: named by file, line and key; nothing changes."""
    before = cli.run("get", "config").stdout if live else None
    revision = cli.json("status")["revision"] if live else None
    for what, text, line, key, word in REFUSED:
        path = Path(cli.directory, "refused.yaml")
        path.write_text(text, encoding="utf-8")
        verbs = [["check", "--node", "node.yaml"]]
        if live:
            verbs = [["apply"], ["apply", "--dry-run"], ["diff"]]
        for verb in verbs:
            lines = cli.run(*verb, "-f", "refused.yaml", code=1).stderr.splitlines()
            start = f"refused.yaml:{line}: {key + ': ' if key else ''}"
            check(any(each.startswith(start) and word in each for each in lines),
                  f"{' '.join(verb)}: {what}: no line {start!r} ... {word!r} in {lines}")
    if live:
        check(cli.run("get", "config").stdout == before, "refused files change nothing")
        check(cli.json("status")["revision"] == revision, "refused files make no revision")


def test_shown(cli):
    for words in SHOWN:
        as_json = cli.json(*words)
        as_yaml = yaml.safe_load(cli.run(*words, "-o", "yaml").stdout)
        check(isinstance(as_json, dict) and isinstance(as_yaml, dict), f"{words}: an object")
        if words != ["get", "config"]:  # whose YAML is what apply takes
            check(set(as_json) == set(as_yaml), f"{words}: YAML and JSON have the same keys")
        check(cli.run("-o", "json", *words).stdout.startswith("{"), f"-o before {words}")
        check(cli.run(*words).stdout.strip(), f"{words}: prints a table")
    status = cli.json("status")
    check(status["dataplane"]["state"] == "running" and status["published"]
          and status["services"]["up"] == 2, f"status: {status}")
    check([s["name"] for s in cli.json("get", "services")["services"]] == ["plain", "web"],
          "services")
    rows = {b["address"]: b for b in cli.json("get", "backends", "web")["backends"]}
    check(abs(rows["10.0.1.11"]["share"] - 2 / 3) < 0.01 and rows["10.0.1.12"]["weight"] == 50,
          f"backends: {rows}")
    check(rows["10.0.1.11"]["next_hop"]["mac"] == "02:00:00:00:00:01", "next hop")
    workers = cli.json("get", "workers")["workers"]
    check(len(workers) == 1 and workers[0]["state"] == "running"
          and workers[0]["ports"] == ["up0"], f"workers: {workers}")
    ports = cli.json("get", "ports")["ports"]
    check(len(ports) == 1 and ports[0]["driver"] == "net_null", f"ports: {ports}")
    node = cli.json("get", "nodes")["nodes"][0]
    check(node["name"] == "test1" and node["digest"] == status["digest"], f"node: {node}")
    check(cli.json("connections", "count")["by_service"] == {"plain": 0, "web": 0}, "count")
    check(cli.json("connections", "list")["connections"] == [], "no connections")
    check(cli.run("connections", "count").stdout.splitlines()[1].split() == ["total", "0"],
          "connections count, as a table")
    check(cli.json("connections", "flush") == {"services": ["plain", "web"]}, "flush")
    check(cli.run("connections", "flush", "--service", "web").stdout == "web: flushed\n", "flush")
    cli.run("connections", "flush", "--service", "x", code=1)
    for _ in range(6):
        cli.run("connections", "flush", "--service", "web")
    check("within 25 s" in cli.run("connections", "flush", code=1).stderr, "flushed too often")
    stats = cli.json("stats", "--service", "web")
    check([s["name"] for s in stats["services"]] == ["web"], f"stats: {stats}")
    drops = cli.json("drops")["drops"]
    check(all(d["packets"] == 0 and d["text"] for d in drops) and len(drops) > 5, "drops")
    check("nothing was dropped" in cli.run("drops").stdout, "drops, as a table")
    told = cli.json(*EXPLAIN)
    check(told["verdict"] == "forwarded" and told["service"] == "web" and told["rule"] == "maglev"
          and told["backend"] in rows, f"explain: {told}")
    told = cli.json(*EXPLAIN[:-1], "198.51.100.10:444")
    check(told["verdict"] != "forwarded" and told["backend"] is None, f"explain: {told}")
    for words in [["get", "services", "x"], ["get", "backends", "x"], ["stats", "--service", "x"],
                  ["connections", "list", "--service", "x"],
                  ["connections", "count", "--service", "x"]]:
        check("there is no service 'x'" in cli.run(*words, code=1).stderr, f"{words}")
    piped = subprocess.run(["bash", "-c", f"'{CLI}' get backends | head -1; "
                            "echo ${PIPESTATUS[0]}"], capture_output=True, text=True, check=True,
                           env={**cli.environment, "SLUICE_SOCKET": cli.socket})
    check(not piped.stderr and piped.stdout.split()[-1] in ("0", "141"), f"| head: {piped}")

    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run([CLI, "get", "config"], stdout=full, stderr=subprocess.PIPE,
                                text=True, check=False,
                                env={**cli.environment, "SLUICE_SOCKET": cli.socket})
    check(result.returncode == 1 and "cannot be written" in result.stderr,
          f"a full disk: {result}")


def test_watch(cli):
    """--watch prints again and again, ends with Ctrl-C and exit code 0, or quietly with its
    reader."""
    for verb in ("stats", "drops"):
        command = [CLI, verb, "--watch", "--interval", "0.1"]
        environment = {**cli.environment, "SLUICE_SOCKET": cli.socket}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=environment) as process:
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        check(process.returncode == 0 and not err, f"{verb} --watch: {process.returncode} {err}")
        looks = out.count("RX") if verb == "stats" else out.count("nothing was dropped")
        check(looks >= 2, f"{verb} --watch printed {looks} times")
        if verb == "stats":
            check("OPENED/S" in out, "rates from the second look on")
        words = " ".join(f"'{w}'" for w in command)
        piped = subprocess.run(["bash", "-c", f"{words} | head -1"], capture_output=True, text=True,
                               check=True, env=environment, timeout=20)
        check(not piped.stderr, f"{verb} --watch | head: {piped.stderr}")


def test_top(cli):
    """top at 80x24: all that matters is there, nothing is wider; keys, other sizes, Ctrl-C."""
    environment = {**cli.environment, "SLUICE_SOCKET": cli.socket}
    screen = Terminal([CLI, "top", "--interval", "0.2"], env=environment)
    try:
        check(screen.wait_for(lambda t: "0.0%" in t or "PKT/S" in t), f"top:\n{screen.text()}")
        # Rates are known from the second look on.
        check(screen.wait_for(lambda t: re.search(r"(?m)^web .* 2/2 .* 0 +0 +0 +0$", t)),
              f"top: web\n{screen.text()}")
        text = screen.text()
        for pattern in (r"^sluice test1  revision \d+  generation \d+  data plane running, 1 workers",
                        r"^packets/s  in 0  forwarded 0  to kernel 0  dropped 0  by stand-in 0$",
                        r"^services 2 \(0 down\)  backends 3 \(0 down, 0 draining\)",
                        r"^drops/s    none$", r"^workers    0:\d+\.\d% *$",
                        r"^SERVICE / BACKEND +STATE +UP/WGT +SHARE +CONN +PKT/S +BYTE/S +NEW/S$",
                        r"^  10\.0\.1\.11 +in use +100 +66\.\d% +0 ",
                        r"^plain +up +1/1 ", r"^  2001:db8:1::11 +in use +100 +100\.0% ",
                        r"^q quit  1 services"):
            check(re.search(pattern, text, re.MULTILINE), f"top: no {pattern} in\n{text}")
        screen.press("b")
        check(screen.wait_for(lambda t: "10.0.1.11" not in t and "\nweb " in t), "top: folded")
        screen.press("2")
        check(screen.wait_for(lambda t: re.search(r"(?m)^WORKER .*\n0 up0 +running ", t)),
              f"top: workers\n{screen.text()}")
        screen.press("3")
        check(screen.wait_for(lambda t: "nothing was dropped" in t), "top: drops")
        screen.press("1b")
        # Too small for all of it: it scrolls.
        screen.resize(60, 10)
        check(screen.wait_for(lambda t: "1-2 of 5" in t or "1-2 of" in t), f"top:\n{screen.text()}")
        screen.press("jjj")
        check(screen.wait_for(lambda t: "10.0.1.12" in t), f"top: scrolled\n{screen.text()}")
        screen.resize(20, 4)
        screen.resize(132, 43)
        check(screen.wait_for(lambda t: re.search(r"(?m)^web .* 2/2 ", t)), "top: large again")
        screen.press("q")
        check(screen.wait() == 0, "top: q ends it")
    finally:
        screen.close()
    screen = Terminal([CLI, "top"], env=environment)
    try:
        check(screen.wait_for(lambda t: "PKT/S" in t), "top")
        screen.press("\x03")
        check(screen.wait() == 0, "top: Ctrl-C ends it")
    finally:
        screen.close()
    check("wants a terminal" in cli.run("top", code=1).stderr, "top without a terminal")


def test_changes(cli):
    """Every verb that changes something: one revision each, shown afterwards."""
    revision = cli.json("status")["revision"]

    def change(*words):
        nonlocal revision
        answer = cli.json(*words)
        revision += 1
        check(answer["revision"] == revision and answer["changes"], f"{words}: {answer}")
        return answer["changes"]

    def backend(address="10.0.1.13"):
        rows = {b["address"]: b for b in cli.json("get", "backends", "web")["backends"]}
        return rows.get(address)

    change("backend", "add", "web", "10.0.1.13", "--weight", "50", "--reason", "more room")
    check(cli.json("history")["revisions"][0]["reason"] == "more room", "the reason is kept")
    check(backend()["weight"] == 50, "added")
    change("backend", "set", "web", "10.0.1.13", "--weight", "60")
    check(backend()["weight"] == 60, "set")
    change("backend", "drain", "web", "10.0.1.13")
    check(backend()["admin"] == "draining" and backend()["share"] == 0, "drained")
    check(cli.json("backend", "drain", "web", "10.0.1.13") == {"revision": revision, "changes": []},
          "drained already")
    change("backend", "undrain", "web", "10.0.1.13")
    check(backend()["admin"] == "enabled" and backend()["share"] > 0, "undrained")
    change("backend", "force", "web", "10.0.1.13", "down", "--reason", "disk is full")
    row = backend()
    check(row["admin"] == "down" and row["standing"] == "forced down" and row["share"] == 0
          and row["admin_set"]["revision"] == revision and row["admin_set"]["author"]
          and row["admin_set"]["reason"] == "disk is full" and row["admin_set"]["time"],
          f"forced down: {row}")
    check(f"down ({row['admin_set']['author']}, {row['admin_set']['time']})"
          in cli.run("get", "backends", "web").stdout, "who forced it, and when, is shown")
    change("backend", "force", "web", "10.0.1.13", "up")
    check(backend()["admin"] == "up" and backend()["share"] > 0, "forced up")
    change("backend", "force", "web", "10.0.1.13", "none")
    check(backend()["admin"] == "enabled" and backend()["admin_set"] is None, "no longer forced")
    change("backend", "remove", "web", "10.0.1.13")
    check(backend() is None, "removed")
    change("service", "add", "dns", "--address", "198.51.100.53", "--protocol", "udp", "--port",
           "53", "--forward", "dsr-l2", "--health", "type=tcp,interval=1h", "--backend",
           "10.0.1.21,weight=3", "--backend", "10.0.1.22")
    dns = cli.json("get", "services", "dns")
    check([b["weight"] for b in dns["backends"]] == [3, 100] and dns["health"]["type"] == "tcp",
          f"service: {dns}")
    change("service", "set", "dns", "--port", "5353")
    check(cli.json("get", "services", "dns")["port"] == "5353", "service set")
    change("service", "remove", "dns")
    # Of the node itself: no revision.
    check(cli.run("node", "ready").stdout == "ready\n", "node ready: it is")
    told = cli.json("node", "drain", "--reason", "new kernel")
    check(told["node"] == "test1" and told["state"] == "drained" and told["reason"] == "new kernel"
          and told["author"] and told["time"], f"node drain: {told}")
    check(cli.json("node", "drain", "--reason", "again") == told, "drained already")
    check(cli.json("status")["drained"] == {k: told[k] for k in ("time", "author", "reason")}
          and f"test1 (drained by {told['author']}, {told['time']}: new kernel)"
          in cli.run("status").stdout, "status says who drained it, when and why")
    check(cli.json("get", "nodes")["nodes"][0]["state"] == "drained", "get nodes")
    told = cli.run("node", "ready", code=1).stderr
    check("not ready: the node is drained by " in told, told)
    check("'nobody'" in cli.run("node", "ready", "nobody", code=1).stderr, "node ready: what service")
    check("this node is drained" in cli.run("events", "--recent", "1", "--type", "node").stdout,
          "events")
    check(cli.run("node", "undrain").stdout == "test1: up\n"
          and cli.json("status")["drained"] is None, "node undrain")
    for words, key in [
            (["backend", "add", "web", "10.0.1.11"], "has a backend 10.0.1.11 already"),
            (["backend", "add", "x", "10.0.1.11"], "there is no service 'x'"),
            (["backend", "add", "web", "198.51.100.10"], "is the address of service 'web'"),
            (["backend", "add", "web", "10.0.1.9", "--weight", "65536"], "weight: "),
            (["backend", "drain", "web", "10.0.1.99"], "has no backend 10.0.1.99"),
            (["backend", "remove", "web", "10.0.1.99"], "has no backend 10.0.1.99"),
            (["service", "add", "web", "--address", "198.51.100.99", "--port", "1"], "web"),
            (["service", "add", "n", "--address", "198.51.100.10", "--port", "443"], "overlaps"),
            (["service", "add", "n", "--address", "198.51.100.10", "--port", "65536"], "port: "),
            (["service", "set", "web", "--table-size", "1000"], "table-size: "),
            (["service", "set", "x", "--port", "1"], "there is no service 'x'"),
            (["service", "remove", "x"], "there is no service 'x'")]:
        check(key in (err := cli.run(*words, code=1).stderr), f"{words}: no {key!r} in {err!r}")
    check(cli.json("status")["revision"] == revision, "what was refused made no revision")

    # The desired state goes out and comes back the same; also from standard input.
    text = cli.run("get", "config").stdout
    again = json.loads(cli.run("apply", "-f", "-", "-o", "json", text=text).stdout)
    check(again == {"revision": revision, "changes": []}, f"the same again: {again}")
    Path(cli.directory, "new.yaml").write_text(text.replace("weight: 50", "weight: 75"),
                                               encoding="utf-8")
    check(len(cli.json("diff", "-f", "new.yaml")["changes"]) == 1, "diff with the daemon")
    check(len(cli.json("apply", "-f", "new.yaml", "--dry-run")["changes"]) == 1, "dry run")
    check(cli.json("status")["revision"] == revision, "a dry run makes no revision")
    change("apply", "-f", "new.yaml", "--reason", "test")
    check(backend("10.0.1.12")["weight"] == 75, "applied")


def test_replay(cli):
    """replay as an operator without rights: a verdict for each packet, a capture that tshark
    finds in order."""
    # pylint: disable=import-outside-toplevel
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import ARP, Dot1Q, Ether
    from scapy.packet import Raw
    from scapy.utils import rdpcap, wrpcap
    ether = Ether(dst="02:00:00:00:00:aa", src="02:00:00:00:00:bb")
    web = {"src": "192.0.2.7", "dst": "198.51.100.10"}
    plain = {"src": "2001:db8:c::1", "dst": "2001:db8:f::10"}
    syn = bytes(ether / IP(**web) / TCP(sport=4000, dport=443))
    rows = [
        (syn, "forwarded"),
        (ether / Dot1Q(vlan=7) / IP(**web, options=[IPOption_NOP()] * 4)
         / TCP(sport=4001, dport=443), "forwarded"),
        (ether / IPv6(**plain) / UDP(sport=99, dport=5000) / Raw(b"x" * 33), "forwarded"),
        (ether / IP(**web, flags="MF") / TCP(sport=4000, dport=443) / Raw(b"y" * 16), "dropped"),
        (ether / IP(**web, frag=3, proto=6) / Raw(b"y" * 16), "dropped"),
        (ether / IP(src="192.0.2.7", dst="203.0.113.5") / TCP(dport=443), "left"),
        (ether / IP(**web) / ICMP(), "answered"),
        (ether / IP(**web) / TCP(dport=22), "left"),
        (ether / ARP(pdst="198.51.100.10"), "left"),
        *((syn[:n], "dropped") for n in (0, 1, 13, 14, 20, 33, 34, 40, 53)),
        (syn, "forwarded"),
    ]
    with tempfile.TemporaryDirectory(prefix="sluice-replay-") as d:
        os.chmod(d, 0o755)
        out = Path(d, "out")
        out.mkdir()
        wrpcap(f"{d}/in.pcap", [Raw(bytes(p)) for p, _ in rows], linktype=1)
        for name in ("node.yaml", "services.yaml"):
            shutil.copy(Path(cli.directory, name), d)
        shutil.copy(CLI, Path(d, "sluice"))  # the build may be where nobody else may look
        command = [f"{d}/sluice", "replay", "--node", "node.yaml", "--services", "services.yaml",
                   "--in", "in.pcap", "--out", "out/out.pcap"]
        if os.getuid() == 0:
            os.chmod(out, 0o777)
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=d,
                                timeout=60)
        check(result.returncode == 0 and not result.stderr, f"replay: {result}")
        lines = result.stdout.splitlines()
        check(len(lines) == len(rows), f"{len(rows)} packets, {len(lines)} verdicts")
        for number, (line, (_, verdict)) in enumerate(zip(lines, rows), 1):
            check(re.match(rf"{number}: {verdict}:? .+", line), f"not {number}: {verdict}: {line}")
        sent = rdpcap(f"{d}/out/out.pcap")
        check(len(sent) == sum(v in ("forwarded", "answered") for _, v in rows),
              "what is sent is written")
        check(bytes(sent[0][IP].payload)[:1] == b"\x45" and sent[0][IP].src == "192.0.2.10",
              "encapsulated")
        tshark = subprocess.run(
            ["tshark", "-r", f"{d}/out/out.pcap", "-o", "ip.check_checksum:TRUE", "-o",
             "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-Y",
             "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || "
             "udp.checksum.status == 0 || _ws.expert.severity == error"],
            capture_output=True, text=True, check=True)
        check(not tshark.stdout, f"tshark: {tshark.stdout}")
    cli.run("replay", "--node", "node.yaml", "--services", "node.yaml", "--in", "node.yaml",
            "--out", "out.pcap", code=1)
    check(not Path(cli.directory, "out.pcap").exists(), "nothing is written when refused")


def main():
    directory = tempfile.mkdtemp(prefix="sluice-test-cli-")
    processes = []
    try:
        cli = Cli(directory)
        Path(directory, "node.yaml").write_text(NODE.format(d=directory), encoding="utf-8")
        Path(directory, "services.yaml").write_text(SERVICES, encoding="utf-8")
        test_version(cli)
        test_wrong_usage(cli)
        test_without_daemon(cli)
        test_import(cli)
        test_doctor(cli)
        test_examples(cli)
        test_refused(cli, live=False)
        test_replay(cli)
        processes = start(directory)
        answer = cli.json("apply", "-f", "services.yaml")
        check(answer["revision"] == 1 and len(answer["changes"]) == 2, f"apply: {answer}")
        test_shown(cli)
        test_refused(cli, live=True)
        test_top(cli)
        test_changes(cli)
        test_watch(cli)
        for process in processes:
            process.terminate()
            check(process.wait(20) == 0, f"{process.args[0]} ends with 0")
    except AssertionError as e:
        sys.exit(f"FAIL: {e}")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{held()} checks passed")


if __name__ == "__main__":
    main()
