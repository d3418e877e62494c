#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The kernel beside a port that DPDK has taken whole. The edge's addresses are on the twin, and
on nothing else; ping, a TCP transfer and a BGP session go through it while the same port
balances. The client knows the way to the VIPs by that BGP session only."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.scene import VIP_NETS, Scene  # noqa: E402
from lab.sluice import Balancer, Binaries, finish_load, set_up_backend  # noqa: E402
from lab.stand import service, vip4, vip6  # noqa: E402

TWIN = "sl-up0"
VIPS = (vip4(10), vip6(10))

# Reads the whole of what it is sent, answers with its digest and sends as much back.
SERVER = r'''
import hashlib, socket, sys
s = socket.create_server((sys.argv[1], 2222), family=socket.AF_INET6 if ":" in sys.argv[1]
                         else socket.AF_INET)
print("listening", flush=True)
while True:
    c, _ = s.accept()
    size, h, back = int.from_bytes(c.recv(8, socket.MSG_WAITALL), "big"), hashlib.sha256(), []
    while size:
        data = c.recv(min(size, 1 << 16))
        if not data: sys.exit("cut short")
        size -= len(data); h.update(data); back.append(data)
    c.sendall(h.digest())
    c.sendall(b"".join(back)); c.close()
'''
CLIENT = r'''
import hashlib, os, socket, sys
data = os.urandom(int(sys.argv[2]))
c = socket.create_connection((sys.argv[1], 2222), timeout=20)
c.sendall(len(data).to_bytes(8, "big")); c.sendall(data)
f = c.makefile("rb")
digest, back = f.read(32), f.read(len(data))
print("same" if digest == hashlib.sha256(data).digest() and back == data else "different")
'''


def bird(lab, short, config):
    """bird() starts bird in a namespace; returns a function that asks it."""
    path, sock = lab.path(f"bird-{short}.conf"), lab.path(f"bird-{short}.ctl")
    path.write_text(config)
    lab.start(short, f"bird-{short}", ["bird", "-f", "-c", path, "-s", sock,
                                       "-P", lab.path(f"bird-{short}.pid")])
    wait_until(sock.exists, 5, f"bird in {short}")
    return lambda *words: lab.run(short, ["birdc", "-s", sock, *words], check=False).stdout


def bgp_configuration(scene):
    edge, client = scene.edge_address(), scene.client_address()
    edge6, client6 = scene.edge_address(True), scene.client_address(True)
    net4, net6 = VIP_NETS
    common = "protocol device {}\n"
    session = "protocol bgp bgp{family} {{ local {me} as {mine}; neighbor {other} as {its};\n" \
              "  connect delay time 1; connect retry time 1; hold time 9;\n" \
              "  check link no;\n  {channel} }}\n"
    edge_file = f"router id {edge};\n" + common + \
        f"protocol static {{ ipv4; route {net4} blackhole; }}\n" \
        f"protocol static {{ ipv6; route {net6} blackhole; }}\n"
    client_file = f"router id {client};\n" + common + \
        "protocol kernel { ipv4 { import none; export all; }; }\n" \
        "protocol kernel { ipv6 { import none; export all; }; }\n"
    for family, one, other in (("4", edge, client), ("6", edge6, client6)):
        edge_file += session.format(
            family=family, me=one, mine=65001, other=other, its=65002,
            channel=f"ipv{family} {{ import none; export all; next hop self; }};")
        client_file += session.format(
            family=family, me=other, mine=65002, other=one, its=65001,
            channel=f"ipv{family} {{ import all; export none; }};")
    return edge_file, client_file


def pump_ticks(pid):
    """pump_ticks() is the CPU time of the thread that moves the twins' packets."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        if name == "sluice-twin":
            return sum(map(int, rest.split()[11:13]))
    return 0


def scenario(lab, checks):
    binaries, scene = Binaries(), Scene(lab)
    services = [service(scene, "web", VIPS[0]), service(scene, "web6", VIPS[1])]
    scene.start_nginx()
    for name in scene.backends:
        set_up_backend(scene, name, binaries, tunnel=VIPS)
    # The interface itself has no address and speaks no IPv6: whatever the edge answers came
    # through the twin. Nor does the client know the way to the VIPs.
    lab.ip("edge", "address flush dev up0")
    lab.run("edge", ["sysctl", "-q", "-w", "net.ipv6.conf.up0.disable_ipv6=1"])
    lab.ip("client", *(f"route del {net}" for net in VIP_NETS))
    b = Balancer(scene, binaries, workers=2, dataplane={"ports": [
        {"name": "up0", "device": "net_af_packet,iface=up0,qpairs=2", "twin": True}]})
    b.start()
    lab.ip("edge", f"address add {scene.edge_address()}/24 dev {TWIN}",
           f"address add {scene.edge_address(True)}/64 dev {TWIN} nodad")

    checks.title("What it looks like")
    mac = lab.run("edge", ["cat", "/sys/class/net/up0/address"]).stdout.strip()
    twin = json.loads(lab.run("edge", ["ip", "-j", "-s", "link", "show", TWIN]).stdout)[0]
    checks.check(twin["address"] == mac and twin["mtu"] == 1600 and "UP" in twin["flags"],
                 f"{TWIN} is up, with the port's MAC and MTU", twin)
    # The control plane looks for a data plane now and then.
    wait_until(lambda: b.show("get", "ports")["ports"][0]["rest_to_kernel"], 5,
               "the control plane to see the port", 0.2)
    port = b.show("get", "ports")["ports"][0]
    checks.check(port["kernel_name"] == TWIN, "sluice get ports names it", port)

    checks.title("Neighbours and health checks by the twin")
    b.apply(services)
    for s in services:
        b.wait_for_health(s["name"], [row["address"] for row in s["backends"]])

    def hops():
        rows = [row for s in services for row in b.backends(s["name"]).values()]
        return all(r["next_hop"]["state"] == "resolved" and r["next_hop"]["port"] == "up0"
                   for r in rows) and rows
    checks.check(wait_until(hops, 10, "the next hops"),
                 "the kernel's neighbours on the twin are next hops through the port")

    checks.title("BGP, ping and TCP beside balanced traffic")
    edge_file, client_file = bgp_configuration(scene)
    ask_edge = bird(lab, "edge", edge_file)
    ask_client = bird(lab, "client", client_file)

    def sessions():
        return all(ask("show", "protocols").count("Established") == 2
                   for ask in (ask_edge, ask_client))
    began = time.monotonic()
    wait_until(sessions, 20, "the BGP sessions", 0.2)
    checks.check(True, f"both BGP sessions established after {time.monotonic() - began:.1f} s")

    def routes():
        return all("proto bird" in lab.run("client", ["ip", family, "route", "show", net]).stdout
                   for family, net in zip(("-4", "-6"), VIP_NETS))
    wait_until(routes, 5, "the routes")
    loads = [b.start_load(f"load{i}", vip, 80, connections=10, rate=300, duration=6,
                          requests_per_connection=10) for i, vip in enumerate(VIPS)]
    time.sleep(0.5)
    for target in (scene.edge_address(), scene.edge_address(True)):
        text = lab.run("client", ["ping", "-q", "-c", "100", "-i", "0.01", "-s", "1200", target],
                       check=False).stdout
        checks.check(" 0% packet loss" in text, f"100 pings to {target}", text)
        text = lab.run("edge", ["ping", "-q", "-c", "20", "-i", "0.01",
                                scene.client_address(":" in target)], check=False).stdout
        checks.check(" 0% packet loss" in text, "and 20 from the edge", text)
        server = lab.start("edge", "server", ["python3", "-uc", SERVER, target])
        server.wait_for_output("listening", 5)
        size = 8 << 20
        began = time.monotonic()
        text = lab.run("client", ["python3", "-c", CLIENT, target, size], check=False)
        took = time.monotonic() - began
        checks.check(text.stdout.strip() == "same",
                     f"8 MiB of TCP there and back, intact, in {took:.1f} s",
                     text.stdout + text.stderr)
        server.stop()
    for load in loads:
        report = finish_load(load)
        checks.check(report["requests_failed"] == 0 and report["requests_ok"] > 500 and
                     len(report["backends"]) == 3,
                     f"{report['requests_ok']} requests to VIPs meanwhile, none failed", report)
    checks.check(sessions(), "the BGP sessions are still there")

    checks.title("What was counted")
    answer = lab.run("edge", ["curl", "-s", "--unix-socket", b.socket,
                              "http://localhost/v1/counters"]).stdout
    counters = {row["name"]: row["value"] for row in json.loads(answer)["counters"]}
    checks.check(counters["to_twin"] > 6000 and counters["to_twin"] == counters["to_kernel"] and
                 counters["from_twin"] > 6000,
                 f"{counters['to_twin']} packets to the twin, {counters['from_twin']} from it",
                 counters)
    drops = {d["reason"]: d["packets"] for d in b.show("drops")["drops"] if d["packets"]}
    checks.check(not drops, "nothing was dropped", drops)

    checks.title("kill -9 and a new start")

    def since():
        """When each session began, in seconds of the day."""
        times = [line.split()[4].split(":") for ask in (ask_edge, ask_client)
                 for line in ask("show", "protocols").splitlines() if " BGP " in line]
        return [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in times]

    def same(now):  # bird reckons the time anew each time, to a millisecond or so
        return len(now) == len(before) == 4 and all(
            abs(a - b) < 0.1 for a, b in zip(now, before))
    before = since()
    b.dataplane.kill()
    gone = lab.run("client", ["ping", "-c", "1", "-W", "1", scene.edge_address()], check=False)
    link = lab.ip("edge", f"link show {TWIN}")
    checks.check(gone.returncode != 0 and "NO-CARRIER" in link,
                 "without the data plane nobody answers: it was the twin that did", gone.stdout)
    b.start_dataplane()
    checks.check(lab.run("client", ["ping", "-c", "3", "-i", "0.1", scene.edge_address()],
                         check=False).returncode == 0,
                 "the new one has the twin with its addresses: pings are answered")
    report = b.load(VIPS[0], 80, connections=5, requests=50)
    checks.check(report["requests_failed"] == 0, "and VIPs served", report)
    time.sleep(3)  # BGP would have noticed by now: a keepalive each 3 s
    checks.check(sessions() and same(since()), "the BGP sessions have lived through it",
                 (before, since()))
    checks.title("Somebody deletes it")
    lab.ip("edge", f"link delete {TWIN}")
    wait_until(lambda: "its interface is gone" in b.dataplane.output(), 5, "a word about it")
    began = pump_ticks(b.dataplane.pid)
    time.sleep(1)
    ticks = pump_ticks(b.dataplane.pid) - began
    checks.check(ticks < 50, f"its thread does not spin: {ticks} of 100 ticks", ticks)
    codes = b.stop()
    checks.check(codes == (0, 0), "both daemons end with 0", codes)
    lab.ip("edge", f"link add {TWIN} type veth peer name other0")
    b.start_dataplane(wait=False)
    code = b.dataplane.wait(10)
    checks.check(code == 1 and "the kernel has an interface of that name already, which is no TAP"
                 in b.dataplane.output(),
                 "an interface of that name is somebody else's: refused", b.dataplane.tail())


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("twin"), scenario))
