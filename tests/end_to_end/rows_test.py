#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The rows of tests/packet through a running data plane: over AF_XDP ports, packet by packet,
and over pcap ports, all in one stream. What arrives is compared bit for bit, and each packet is
counted under the verdict of its row. docs/testing.md says which rows. Root."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from test_ports import BUILD, Plane  # noqa: E402

TOOL = BUILD / "tests" / "end_to_end" / "rows_tool"
MTU = 2600  # tests/packet/live_rows.hpp
MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02"]  # what the rows expect of ports 0 and 1
LEAST = 150  # rows over a kind of port


def judge(checks, what, report):
    """judge() checks a report of rows_tool."""
    kinds = report["kinds"]
    checks.check(not report["wrong"],
                 f"{what}: {report['rows']} rows ({kinds['sent']} sent on, {kinds['counted']} "
                 f"dropped, {kinds['kernel']} left to the kernel)", "\n".join(report["wrong"]))
    checks.check(report["rows"] >= LEAST, f"{what}: at least {LEAST} rows", report["rows"])


def over_af_xdp(lab, checks):
    checks.title("AF_XDP ports")
    silent = {"net.ipv6.conf.all.disable_ipv6": 1, "net.ipv6.conf.default.disable_ipv6": 1}
    for short in ("peer", "plane"):
        lab.namespace(short, silent)
    for port, mac in enumerate(MACS):
        lab.link("peer", f"peer{port}", "plane", f"port{port}", mtu=MTU)
        lab.ip("plane", f"link set port{port} address {mac}")
    plane = Plane(lab, "wire", [(f"p{i}", f"af_xdp:port{i}") for i in (0, 1)], short="plane",
                  next_hop=False)
    plane.run_dir.mkdir(parents=True)
    lab.run(None, [TOOL, "publish", plane.node])
    plane.start()
    plane.wait_tables()
    lab.run("plane", [TOOL, "steer", plane.node, "port0", "port1"])
    report = lab.run("peer", [TOOL, "wire", plane.node, lab.namespaces["plane"], "peer0", "peer1",
                              "port0", "port1"], timeout=60)
    judge(checks, "over AF_XDP", json.loads(report.stdout))
    checks.check(plane.stop() == 0, "it stops", plane.process.tail())


def over_pcap(lab, checks):
    checks.title("pcap ports")
    folder = lab.path("files", "in0.pcap").parent
    plane = Plane(lab, "files", [
        (f"p{i}", f"net_pcap{i},rx_pcap={folder}/in{i}.pcap,tx_pcap={folder}/out{i}.pcap")
        for i in (0, 1)], next_hop=False)
    plane.run_dir.mkdir(parents=True)
    lab.run(None, [TOOL, "publish", plane.node])
    lab.run(None, [TOOL, "captures", plane.node, folder])
    plane.start()
    report = json.loads(lab.run(None, [TOOL, "counted", plane.node]).stdout)
    judge(checks, "over pcap, counters", report)
    macs = [port["mac"] for port in plane.show()["ports"]]
    checks.check(plane.stop() == 0, "it stops", plane.process.tail())
    report = json.loads(lab.run(None, [TOOL, "received", plane.node, folder, *macs]).stdout)
    judge(checks, "over pcap, frames", report)


def scenario(lab, checks):
    over_af_xdp(lab, checks)
    over_pcap(lab, checks)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("rows"), scenario))
