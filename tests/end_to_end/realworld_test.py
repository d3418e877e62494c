#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a real edge sees besides whole TCP and UDP packets, through a running data plane on
AF_XDP: pings, datagrams in fragments (in order and not), packets that are too big for the way
to the backend, ICMP errors about connections and about our own tunnels, and the MSS."""

import contextlib
import random
import select
import socket
import sys
import threading
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.stand import HTTP_HEALTH, Stand, service, vip4, vip6  # noqa: E402
from netns_sockets import family, new_socket, packet_socket  # noqa: E402

UDP_PORT = 5000
TCP_PORT = 5001


class Servers:
    """A UDP server at every backend, in one thread: answers with the CRC of what came.

    seen: (backend, length, CRC, source port)"""

    def __init__(self, lab, scene, vips):
        self.seen = []
        self.sockets = {}
        for name in scene.backends:
            for vip in vips:
                sock = new_socket(lab, name, family(vip), socket.SOCK_DGRAM)
                sock.bind((vip, UDP_PORT))
                self.sockets[sock] = name
        self.running = True
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while self.running:
            for sock in select.select(list(self.sockets), [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    data, peer = sock.recvfrom(65535)
                    self.seen.append((self.sockets[sock], len(data), zlib.crc32(data), peer[1]))
                    sock.sendto(zlib.crc32(data).to_bytes(4, "big"), peer)

    def stop(self):
        self.running = False
        self.thread.join()
        for sock in self.sockets:
            sock.close()


class Sinks:
    """A TCP sink at every backend: says the CRC of what it was sent; keeps each MSS."""

    def __init__(self, lab, scene, vips):
        self.mss = []
        self.listeners = []
        for name in scene.backends:
            for vip in vips:
                sock = new_socket(lab, name, family(vip), socket.SOCK_STREAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((vip, TCP_PORT))
                sock.listen(16)
                self.listeners.append(sock)
                threading.Thread(target=self.accept, args=(sock,), daemon=True).start()

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=self.drain, args=(sock,), daemon=True).start()

    def drain(self, sock):
        with contextlib.suppress(OSError), sock:
            self.mss.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
            crc = 0
            while data := sock.recv(65536):
                crc = zlib.crc32(data, crc)
            sock.sendall(crc.to_bytes(4, "big"))

    def stop(self):
        for sock in self.listeners:
            sock.close()


def send_all(lab, vip, data):
    """send_all() sends data to the sink of a VIP; returns whether all of it arrived."""
    with new_socket(lab, "client", family(vip), socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        try:
            sock.connect((vip, TCP_PORT))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(4) == zlib.crc32(data).to_bytes(4, "big")
        except OSError as error:
            return error


def scenario(lab, checks):
    # Imported here: it takes a second, which a lab that is skipped need not spend.
    from scapy.layers.inet import ICMP, IP, UDP, fragment
    from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6,
                                    IPv6ExtHdrFragment, fragment6)
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    vips = (vip4(10), vip6(10))
    clamped = vip4(11)

    def services(scene):
        found = []
        for v, vip in enumerate(vips):
            found += [service(scene, f"udp{v}", vip, protocol="udp", port=UDP_PORT,
                              health=HTTP_HEALTH),
                      service(scene, f"tcp{v}", vip, port=TCP_PORT, health=HTTP_HEALTH)]
        found.append({**service(scene, "clamped", clamped, port=TCP_PORT, health=HTTP_HEALTH),
                      "mss-clamp": 1200})
        return found

    stand = Stand(lab, services)
    b, scene = stand.balancer, stand.scene
    servers = Servers(lab, scene, vips)
    sinks = Sinks(lab, scene, (*vips, clamped))
    client = {v6: scene.client_address(v6) for v6 in (False, True)}
    edge_mac = lab.run("edge", ["cat", "/sys/class/net/up0/address"]).stdout.strip()
    wire = packet_socket(lab, "client", "eth0")
    client_mac = lab.run("client", ["cat", "/sys/class/net/eth0/address"]).stdout.strip()
    ether = Ether(src=client_mac, dst=edge_mac)

    def counter(name):
        if name.startswith("drop_"):
            return b.metric("sluice_worker_dropped_packets_total", reason=name[5:]) or 0
        return b.metric(f"sluice_worker_{name}_total") or 0

    def reaches(name, least, what):
        with contextlib.suppress(Exception):
            wait_until(lambda: counter(name) >= least, 3, what, 0.1)
        checks.check(counter(name) >= least, f"{what} ({name} {counter(name):.0f})")

    def answer_to(packet, wanted, seconds=3):
        """answer_to() sends a packet and returns the first frame that reaches the client and for
        which wanted(frame) holds."""
        # A socket of its own: what has come to `wire` meanwhile fills its buffer.
        with packet_socket(lab, "client", "eth0") as ear:
            wire.send(bytes(ether / packet))
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                ear.settimeout(left)
                try:
                    frame = Ether(ear.recv(65535))
                except TimeoutError:
                    break
                if frame.src != client_mac and wanted(frame):
                    return frame
        return None

    checks.title("pings")
    for vip in vips:
        for size in (56, 1400):
            run = lab.run("client", ["ping", "-n", "-c", "5", "-i", "0.05", "-W", "1", "-s", size,
                                     vip], check=False)
            checks.check(" 5 received" in run.stdout and "ttl=64" in run.stdout,
                         f"{vip} answers five pings of {size} bytes", run.stdout + run.stderr)
    reaches("icmp_echo_answered", 20, "the data plane answered them")

    checks.title("datagrams of 8000 bytes, in fragments")
    rnd = random.Random(1)
    for vip in vips:
        whole = 0
        for _ in range(30):
            with new_socket(lab, "client", family(vip), socket.SOCK_DGRAM) as sock:
                sock.settimeout(0.5)
                data = rnd.randbytes(8000)
                sock.sendto(data, (vip, UDP_PORT))
                with contextlib.suppress(OSError):
                    whole += sock.recv(65535) == zlib.crc32(data).to_bytes(4, "big")
        names = {name for name, length, *_ in servers.seen if length == 8000}
        checks.check(whole == 30 and len(names) > 1,
                     f"{vip}: {whole} of 30 arrived whole, at {len(names)} backends")
    reaches("fragments_followed", 2 * 30 * 5, "later fragments followed their first")

    def shuffled(vip, port, order):
        data = rnd.randbytes(6000)
        if ":" in vip:
            packet = IPv6(src=client[True], dst=vip) / IPv6ExtHdrFragment(
                id=rnd.randrange(1 << 32)) / UDP(sport=port, dport=UDP_PORT) / Raw(data)
            pieces = fragment6(packet, 1400)
        else:
            packet = IP(src=client[False], dst=vip, id=rnd.randrange(65536)) / UDP(
                sport=port, dport=UDP_PORT) / Raw(data)
            pieces = fragment(packet, 1376)
        order(pieces)
        for piece in pieces:
            wire.send(bytes(ether / piece))
        return (6000, zlib.crc32(data), port)

    for what, order in (("the last one first", list.reverse), ("shuffled", rnd.shuffle)):
        for vip in vips:
            wanted = {shuffled(vip, 20000 + i, order) for i in range(20)}
            with contextlib.suppress(Exception):
                wait_until(lambda: wanted <= {s[1:] for s in list(servers.seen)}, 3, what, 0.05)
            got = wanted & {s[1:] for s in servers.seen}
            checks.check(got == wanted, f"{vip}: fragments {what}: {len(got)} of 20 datagrams "
                         "arrived whole")
    reaches("fragments_waited", 100, "early ones waited")
    lost = IP(src=client[False], dst=vips[0], id=7, frag=10, proto=17) / Raw(b"x" * 64)
    before = counter("drop_fragment")
    wire.send(bytes(ether / lost))
    reaches("drop_fragment", before + 1, "one whose first never came was dropped")

    checks.title("too big for the tunnel")
    # The client's link now takes what is too big once it is in a tunnel: it must learn.
    lab.ip("client", "link set eth0 mtu 1600")
    data = rnd.randbytes(3_000_000)
    for vip, mtu in zip(vips, (1580, 1560)):
        told = counter("icmp_too_big_sent")
        outcome = send_all(lab, vip, data)
        checks.check(outcome is True, f"{vip}: 3 MB over TCP arrived", outcome)
        reaches("icmp_too_big_sent", told + 1, "the client was told")
        route = lab.run("client", ["ip", "route", "get", vip]).stdout
        checks.check(f"mtu {mtu}" in route, f"and knows the way's MTU, {mtu}", route)
    lab.ip("client", "link set eth0 mtu 1500")
    checks.check(send_all(lab, clamped, data[:100_000]) is True and sinks.mss[-1] <= 1200 <
                 min(sinks.mss[:-1]), f"a SYN's MSS is lowered: the backends saw {sinks.mss}")

    checks.title("ICMP errors")
    for vip in vips:
        v6 = ":" in vip
        arrived = 0
        for port in range(30000, 30010):
            with new_socket(lab, "client", family(vip), socket.SOCK_DGRAM) as sock:
                sock.settimeout(2)
                sock.bind((client[v6], port))
                sock.sendto(b"hello", (vip, UDP_PORT))
                sock.recv(100)
                owner = next(s[0] for s in reversed(servers.seen) if s[3] == port)
            inner = UDP(sport=UDP_PORT, dport=port) / Raw(b"lost")
            if v6:
                error = IPv6(src="fd77::99", dst=vip) / ICMPv6DestUnreach(code=3) / IPv6(
                    src=vip, dst=client[True]) / inner
            else:
                error = IP(src="10.77.0.99", dst=vip) / ICMP(type=3, code=1) / IP(
                    src=vip, dst=client[False]) / inner
            message = bytes(error)[40:] if v6 else bytes(error)[20:]
            tap = packet_socket(lab, owner, "eth0")
            wire.send(bytes(ether / error))
            deadline = time.monotonic() + 2
            while (left := deadline - time.monotonic()) > 0:
                tap.settimeout(left)
                try:
                    # Taken off the tunnel or not yet, as the backend's XDP runs before or after.
                    if message in tap.recv(65535):
                        arrived += 1
                        break
                except TimeoutError:
                    break
            tap.close()
        checks.check(arrived == 10, f"{vip}: {arrived} of 10 errors reached the backend of the "
                     "connection that they quote")
    reaches("icmp_errors_steered", 20, "all steered")

    # A router between us and a backend says that our tunnel packet was too big.
    for vip in vips:
        v6 = ":" in vip
        port = 31000
        with new_socket(lab, "client", family(vip), socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.bind((client[v6], port))
            sock.sendto(b"hello", (vip, UDP_PORT))
            sock.recv(100)
        owner = next(s[0] for s in reversed(servers.seen) if s[3] == port)
        inner = UDP(sport=port, dport=UDP_PORT) / Raw(b"x" * 1300)
        if v6:
            tunnel = IPv6(src=scene.edge_address(True), dst=scene.address(owner, True)) / IPv6(
                src=client[True], dst=vip) / inner
            error = IPv6(src="fd77::98", dst=scene.edge_address(True)) / ICMPv6PacketTooBig(
                mtu=1340) / Raw(bytes(tunnel)[:1200])
        else:
            tunnel = IP(src=scene.edge_address(), dst=scene.address(owner), flags="DF") / IP(
                src=client[False], dst=vip, flags="DF") / inner
            error = IP(src="10.77.0.98", dst=scene.edge_address()) / ICMP(
                type=3, code=4, nexthopmtu=1320) / Raw(bytes(tunnel)[:500])

        def translated(frame, vip=vip, v6=v6):
            if v6:
                return ICMPv6PacketTooBig in frame and frame[IPv6].src == vip
            return ICMP in frame and frame[ICMP].type == 3 and frame[IP].src == vip
        frame = answer_to(error, translated)
        mtu = frame and (frame[ICMPv6PacketTooBig].mtu if v6 else frame[ICMP].nexthopmtu)
        checks.check(mtu == 1300, f"{vip}: an error about the tunnel (MTU {1340 if v6 else 1320}) "
                     f"is one to the client from the VIP, MTU {mtu}",
                     frame.show(dump=True) if frame else "nothing came")
    reaches("icmp_errors_translated", 2, "both translated")
    checks.check(b.dataplane.running(), "and the data plane is still there")
    servers.stop()
    sinks.stop()


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("realworld"), scenario))
