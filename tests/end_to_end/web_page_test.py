#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The web page in headless Chromium: without a token it asks for one; with one it shows services,
backends with the history of their health, workers with their load, charts and events, and nothing
in it was refused by its own policy. The picture is kept where SLUICE_SCREENSHOT says. Both daemons
run, on a port that receives nothing, in a network namespace of their own."""

import html.parser
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from api_access_test import ADMIN, PORT, READER, prepare
from control_stand import BACKENDS, BUILD, SERVICES, Web, check, wait_until, with_daemon

URL = f"https://127.0.0.1:{PORT}/ui/"


def browse(d, url, *options, seconds=5):
    """browse() lets the page run for some seconds of its own time."""
    began = time.monotonic()
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--ignore-certificate-errors", "--no-first-run", "--disable-extensions",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={d.directory}/chromium", f"--virtual-time-budget={1000 * seconds}",
         "--enable-logging=stderr", "--v=0", *options, url],
        capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "HOME": d.directory, "XDG_RUNTIME_DIR": d.directory})
    check(done.returncode == 0, done.stderr[-2000:])
    print(f"chromium {options[0].split('=')[0]}: {time.monotonic() - began:.1f} s")
    console = [line for line in done.stderr.split("\n") if "CONSOLE" in line]
    check(not [c for c in console if "Refused" in c or "Uncaught" in c or "violates" in c],
          f"the page's console: {console}")
    return done.stdout


class Page(html.parser.HTMLParser):
    """What is on the page: rows of cells by table, elements by tag, text by id."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.count, self.text = {}, {}, {}
        self.table = self.cell = None
        self.open = []
        self.hidden = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        if "hidden" in attrs:
            self.hidden.add(attrs.get("id"))
        if tag == "table":
            self.table = attrs["id"]
        elif tag == "tr":
            self.rows.setdefault(self.table, []).append([])
        elif tag in ("td", "th"):
            self.rows[self.table][-1].append("")
            self.cell = self.rows[self.table][-1]
        elif tag == "rect" and self.cell is not None:
            self.cell[-1] += f"[{attrs.get('class')}]"
        elif "id" in attrs:
            self.open.append(attrs["id"])

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[-1] += data
        elif self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data


def test_without_token(d):
    page = Page(browse(d, URL, "--dump-dom", seconds=2))
    check("main" in page.hidden and "login" not in page.hidden, f"asks for a token: {page.text}")
    check(len(page.rows["services"]) == 1, "and shows nothing")


def test_with_token(d):
    page = Page(browse(d, f"{URL}#token={READER}", "--dump-dom"))
    check("main" not in page.hidden and "login" in page.hidden, f"shows all: {page.text}")
    services = {row[0]: row for row in page.rows["services"][1:]}
    check(set(services) == {"web", "plain"}, services)
    check(services["web"][1] == "198.51.100.10 tcp/8080" and "degraded" in services["web"][4] and
          services["web"][5] == "2/3", services["web"])
    backends = {row[1]: row for row in page.rows["backends"][1:]}
    check(set(backends) == {*BACKENDS, "2001:db8:1::1", "2001:db8:1::2"}, backends)
    dead, alive = backends[BACKENDS[2]], backends[BACKENDS[0]]
    check(dead[2] == "down" and alive[2] == "up" and dead[3] and alive[7] == "50.0%", backends)
    check("[up]" in dead[-1] and "[down]" in dead[-1], f"the history of one that fell: {dead}")
    check("[down]" not in alive[-1] and "[up]" in alive[-1], f"and of one that did not: {alive}")
    workers = page.rows["workers"][1:]
    check(len(workers) == 2 and workers[0][1] == "running" and "[back]" in workers[0][4], workers)
    events = [row[1] for row in page.rows["events"][1:]]
    check({"health", "revision", "dataplane"} <= set(events), events)
    check(page.count["figure"] == 3 and page.count["polyline"] >= 3 + 2 + 2 + 2, page.count)
    packets = services["web"][7]
    check(packets not in ("", "–"), f"rates are shown: {packets}")
    print(f"services {sorted(services)}, {len(backends)} backends, {len(workers)} workers, "
          f"{len(events)} events, {page.count['polyline']} lines drawn")
    check("test1" in page.text["node"], page.text)


def test_picture(d):
    picture = Path(d.directory, "page.png")
    browse(d, f"{URL}#token={ADMIN}", f"--screenshot={picture}", "--window-size=1400,1300",
           seconds=5)
    data = picture.read_bytes()
    check(data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 30_000, f"a picture: {len(data)} bytes")
    if keep := os.environ.get("SLUICE_SCREENSHOT"):
        shutil.copy(picture, keep)


def scenario(d):
    if shutil.which("chromium") is None:
        raise AssertionError("chromium is not there: tools/setup")
    webs = [Web(a) for a in BACKENDS]
    prepare(d)
    node = Path(d.node)
    node.write_text(node.read_text(encoding="utf-8").replace(
        "dataplane:\n", "dataplane:\n  workers: 2\n  connections: 10000\n  idle: sleep\n"
        "  hugepages: \"off\"\n  memory: 64\n").replace("net_null0", "net_null0,no-rx=1"),
                    encoding="utf-8")
    d.start()
    with open(f"{d.directory}/dataplane.log", "wb") as log, subprocess.Popen(
            [BUILD / "dataplane" / "sluice-dataplane", "--node", d.node], stdout=log, stderr=log,
            env={**os.environ, "SLUICE_BPF_DIR": str(BUILD / "bpf")}) as dataplane:
        try:
            wait_until(lambda: d.get("/v1/workers")["workers"] or dataplane.poll() is not None,
                       "a data plane", 30)
            check(dataplane.poll() is None, Path(f"{d.directory}/dataplane.log").read_text())
            code, answer = d.call("PUT", "/v1/config", SERVICES,
                                  {"X-Sluice-Author": "me", "X-Sluice-Reason": "the first ones"})
            check(code == 200, answer)
            wait_until(lambda: d.get("/v1/services/web")["state"] == "up", "backends")
            webs[2].down()
            wait_until(lambda: d.backend(BACKENDS[2])["health"] == "down", "one is down")
            test_without_token(d)
            test_with_token(d)
            test_picture(d)
        finally:
            dataplane.terminate()
            dataplane.wait(timeout=20)


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
