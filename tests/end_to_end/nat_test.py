#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""nat and full-nat beyond whole TCP and UDP packets: datagrams in fragments both ways, and narrow
links on either side, where the kernel's TCP has to learn the path's MTU through the balancer. And
what only these modes see: a backend that resets its connections is checked at once.

    home ── isp ══ isp2 ──┐                         ┌── b1
                  client ─┴─ segment0 ─ edge ─ segment1 ── inner ══ inner2 ── deep

══ has an MTU of 1300, all else 1500."""

import random
import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.scene import VIP_NETS, Scene, host_address, vip4, vip6  # noqa: E402
from lab.sluice import Balancer, Binaries  # noqa: E402
from netns_sockets import EchoServer, new_socket, tcp_echo, udp_echo  # noqa: E402

PORT = 5000
RESETS_VIP, RESETS_PORT, RESETS_INTERVAL = vip4(60), 8000, 30
NARROW = 1300
POOL = {False: "10.77.1.200", True: "fd77:1::200"}
HEALTH = {"type": "tcp", "port": PORT, "interval": "300ms", "timeout": "200ms", "rise": 2,
          "fall": 2}
ROUTER = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
DEEP = {False: "10.88.0.2", True: "fd88::2"}
# name: (forward, does it lie behind the narrow link)
KINDS = {"nat": ("nat", False), "full": ("full-nat", False), "deep-nat": ("nat", True),
         "deep-full": ("full-nat", True)}


def vip(kind, v6):
    return (vip6 if v6 else vip4)(40 + list(KINDS).index(kind))


def plug(lab, short, interface, segment, host):
    """plug() puts a namespace on a segment."""
    peer = f"{short}.{interface}"
    lab.link(short, interface, f"segment{segment}", peer)
    lab.ip(f"segment{segment}", f"link set {peer} master br0")
    lab.ip(short, f"address add {host_address(segment, host)}/24 dev {interface}",
           f"address add {host_address(segment, host, True)}/64 dev {interface} nodad")


def behind_narrow_link(lab, outer, inner, end, net, segment):
    """behind_narrow_link() makes end (NET.0.2) ── inner ══ outer, which is on a segment as .50."""
    for name in (outer, inner):
        lab.namespace(name, ROUTER)
    lab.namespace(end)
    plug(lab, outer, "eth0", segment, 50)
    lab.link(outer, "eth1", inner, "eth0", mtu=NARROW)
    lab.link(inner, "eth1", end, "eth0")
    lab.ip(outer, f"address add 10.{net}.1.1/24 dev eth1",
           f"address add fd{net}:1::1/64 dev eth1 nodad",
           f"route add 10.{net}.0.0/24 via 10.{net}.1.2", f"route add fd{net}::/64 via fd{net}:1::2")
    lab.ip(inner, f"address add 10.{net}.1.2/24 dev eth0",
           f"address add fd{net}:1::2/64 dev eth0 nodad", f"address add 10.{net}.0.1/24 dev eth1",
           f"address add fd{net}::1/64 dev eth1 nodad", f"route add default via 10.{net}.1.1",
           f"route add default via fd{net}:1::1")
    lab.ip(end, f"address add 10.{net}.0.2/24 dev eth0",
           f"address add fd{net}::2/64 dev eth0 nodad", f"route add default via 10.{net}.0.1",
           f"route add default via fd{net}::1")


class MoodyServer:
    """An HTTP server that resets what it has accepted while it is angry."""

    def __init__(self, lab, short, address, port):
        self.angry = False
        self.listener = new_socket(lab, short, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen(64)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                if self.angry:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                          struct.pack("ii", 1, 0))
                    continue
                connection.settimeout(2)
                try:
                    connection.recv(2048)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nfine\n")
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(2048):
                        pass
                except OSError:
                    pass


def ask(lab, address):
    """ask() is what a client gets."""
    with new_socket(lab, "client", socket.AF_INET, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        try:
            s.connect((address, RESETS_PORT))
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            parts = []
            while part := s.recv(2048):
                parts.append(part)
            return b"".join(parts)
        except OSError as error:
            return error


def resets(lab, checks, balancer, server):
    checks.title(f"a backend that resets its connections; checks are {RESETS_INTERVAL} s apart")

    def row():
        return next(s for s in balancer.show("stats")["services"]
                    if s["name"] == "resets")["backends"][0]

    def health():
        return {b["health"] for b in balancer.backends("resets").values()}

    good = sum(b"200 OK" in answer for answer in (ask(lab, RESETS_VIP) for _ in range(10))
               if isinstance(answer, bytes))
    checks.check(good == 10 and row()["resets"] == 0, "10 requests answered, no resets", row())
    server.angry = True
    for _ in range(2):
        ask(lab, RESETS_VIP)
    server.angry = False
    time.sleep(0.7)
    checks.check(row()["resets"] == 2 and health() == {"up"}, "two resets are no news", row())
    server.angry = True
    since = time.monotonic()
    asked = 0
    while health() == {"up"} and time.monotonic() - since < RESETS_INTERVAL / 2:
        for _ in range(4):
            ask(lab, RESETS_VIP)
            asked += 1
            time.sleep(0.03)
    took = time.monotonic() - since
    counted = row()["resets"]
    checks.check(health() == {"down"} and took < 5,
                 f"found unhealthy after {took:.1f} s and {asked} connections, of which {counted - 2} "
                 "were seen to be reset", balancer.backends("resets"))
    checks.check(counted - 2 >= 4 and "RESETS" in balancer.sluice("stats").stdout,
                 "resets are counted, and shown", row())


def build(lab):
    scene = Scene(lab, backends=1, segments=2)
    behind_narrow_link(lab, "inner", "inner2", "deep", 88, 1)
    behind_narrow_link(lab, "isp2", "isp", "home", 89, 0)
    for v6 in (False, True):
        gate = scene.edge_address(v6, 1)
        lab.ip("isp2", f"route add {VIP_NETS[v6]} via {scene.edge_address(v6)}")
        lab.ip("inner", f"route add default via {gate}")
        lab.ip("edge", f"route add {'fd88::/64' if v6 else '10.88.0.0/24'} via "
                       f"{host_address(1, 50, v6)}")
    # What b1 answers goes back through the balancer.
    set_up = [Binaries().backend_setup, "up", "--interface", "eth0", "--mode", "nat",
              *(word for v6 in (False, True)
                for word in ("--gateway", scene.edge_address(v6, 1)))]
    lab.run("b1", set_up, env={"SLUICE_RUN_DIR": str(lab.path("backend-b1", "x").parent)})
    lab.ip("b1", "link set eth0 mtu 1500")
    lab.ip("edge", f"address add {POOL[False]}/32 dev down0",
           f"address add {POOL[True]}/128 dev down0 nodad preferred_lft 0")
    balancer = Balancer(scene, dataplane={
        "nat-pool": {"ipv4": [POOL[False]], "ipv6": [POOL[True]]}})
    balancer.start()
    services = []
    for kind, (forward, deep) in KINDS.items():
        for v6 in (False, True):
            address = DEEP[v6] if deep else scene.address("b1", v6)
            services += [
                {"name": f"{kind}-{'6' if v6 else '4'}-{protocol}", "address": vip(kind, v6),
                 "protocol": protocol, "port": PORT, "forward": forward, "health": HEALTH,
                 "backends": [{"address": address}]}
                for protocol in ("tcp", "udp")]
    for v6 in (False, True):
        EchoServer(lab, "b1", scene.address("b1", v6), PORT)
        EchoServer(lab, "deep", DEEP[v6], PORT)
    server = MoodyServer(lab, "b1", scene.address("b1"), RESETS_PORT)
    services.append({"name": "resets", "address": RESETS_VIP, "port": RESETS_PORT,
                     "forward": "nat", "backends": [{"address": scene.address("b1")}],
                     "health": {"type": "http", "interval": f"{RESETS_INTERVAL}s",
                                "timeout": "500ms", "fast-interval": "300ms", "rise": 1,
                                "fall": 2}})
    balancer.apply(services)
    balancer.wait_until_usable(services)
    return balancer, server


def attempt(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except OSError as error:
        return error


def scenario(lab, checks):
    balancer, server = build(lab)
    rnd = random.Random(5)

    def counted(name, before, least, what):
        now = balancer.counters()[name] - before
        checks.check(now >= least, f"{what} ({name}: {now})")

    checks.title("datagrams of 8000 bytes, echoed in fragments")
    before = balancer.counters()["fragments_followed"]
    for kind in ("nat", "full"):
        for v6 in (False, True):
            whole = 0
            for _ in range(20):
                data = rnd.randbytes(8000)
                whole += attempt(udp_echo, lab, "client", vip(kind, v6), PORT, data) == data
            checks.check(whole == 20, f"{kind} to {vip(kind, v6)}: {whole} of 20 came back")
    counted("fragments_followed", before, 4 * 20 * 10, "later fragments followed, both ways")

    data = rnd.randbytes(300000)
    for client, kinds, counter, what in (
            ("client", ("deep-nat", "deep-full"), "nat_errors_to_client", "before the backend"),
            ("home", ("nat", "full"), "nat_errors_to_backend", "before the client")):
        checks.title(f"a narrow link {what}: 300 kB there and back")
        for kind in kinds:
            for v6 in (False, True):
                before = balancer.counters()[counter]
                back = attempt(tcp_echo, lab, client, vip(kind, v6), PORT, data, timeout=15)
                checks.check(back == data, f"{kind} to {vip(kind, v6)}: all came back",
                             back if isinstance(back, OSError) else len(back))
                counted(counter, before, 1, "the sender was told the MTU through us")
    drops = [d for d in balancer.show("drops")["drops"] if d["packets"]]
    checks.check(not drops, "nothing was dropped", drops)
    resets(lab, checks, balancer, server)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("nat"), scenario))
