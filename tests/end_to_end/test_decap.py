#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tools/backend-setup and the decapsulation program with the kernel's own TCP and UDP.

    client --req--> balancer --(encapsulated)--> backend
    client <------------------rep-------------- backend        replies go directly

The balancer is a few lines of Python here; the real one is tested with the real data plane."""

import hashlib
import ipaddress
import json
import os
import struct
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.sluice import Binaries  # noqa: E402
from netns_sockets import EchoServer, packet_socket, tcp_echo, udp_echo  # noqa: E402

VIPS = {4: "198.51.100.10", 6: "2001:db8::10"}
DSR_VIPS = {4: "198.51.100.20", 6: "2001:db8::20"}
CLIENT = {4: "192.0.2.7", 6: "2001:db8:1::7"}
BACKEND = {4: "10.0.1.11", 6: "fd00:1::11"}
BALANCER = {4: "10.0.1.1", 6: "fd00:1::1"}
SPOOFED = {4: "10.0.9.1", 6: "fd00:9::1"}
PORT = 8080


def checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def encapsulate(inner, outer, source, destination):
    """encapsulate() puts an IP packet into an outer IPv4 or IPv6 header, as the wire has it."""
    protocol = 4 if inner[0] >> 4 == 4 else 41
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if outer == 4:
        front = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(inner), 0, 0x4000, 64, protocol)
        value = checksum(front + b"\0\0" + addresses)
        return front + struct.pack("!H", value) + addresses + inner
    return struct.pack("!IHBB", 6 << 28, len(inner), protocol, 64) + addresses + inner


class Forwarder:
    """What arrives for a VIP goes on to the backend: in a tunnel, or with a new MAC address."""

    def __init__(self, lab, macs):
        self.outer = 4  # 4, 6, or None: dsr-l2
        self.macs = macs
        self.arriving = packet_socket(lab, "balancer", "req")
        self.leaving = packet_socket(lab, "balancer", "tun")
        self.vips = {ipaddress.ip_address(a).packed for a in (*VIPS.values(), *DSR_VIPS.values())}
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, packet, version=None):
        version = version or packet[0] >> 4
        kind = b"\x08\x00" if version == 4 else b"\x86\xdd"
        self.leaving.send(self.macs["backend"] + self.macs["balancer"] + kind + packet)

    def tunnel(self, inner, outer, source=None):
        self.send(encapsulate(inner, outer, source or BALANCER[outer], BACKEND[outer]))

    def _run(self):
        while True:
            try:
                frame, address = self.arriving.recvfrom(65536)
            except OSError:  # the lab is being removed
                return
            if address[2] == 4:  # PACKET_OUTGOING
                continue
            kind, packet = frame[12:14], frame[14:]
            if kind == b"\x08\x00" and packet[16:20] in self.vips:
                packet = packet[:struct.unpack_from("!H", packet, 2)[0]]
            elif not (kind == b"\x86\xdd" and packet[24:40] in self.vips):
                continue
            if self.outer:
                self.tunnel(packet, self.outer)
            else:
                self.send(packet)


class Backend:
    def __init__(self, lab):
        self.lab = lab
        binaries = Binaries()
        self.command = binaries.backend_setup
        self.env = {"SLUICE_BPF_DIR": str(binaries.bpf), "SLUICE_RUN_DIR": str(lab.path("run"))}

    def setup(self, *arguments, check=True):
        return self.lab.run("backend", [self.command, *arguments], check=check, env=self.env)

    def counters(self):
        return json.loads(self.setup("status", "--json").stdout)[0]["counters"]

    def snapshot(self):
        """Everything that backend-setup may touch."""
        shown = self.lab.run("backend", ["ip", "-d", "-j", "addr", "show"]).stdout
        links = json.loads(shown)
        for link in links:
            for each in link.get("addr_info", []):
                each.pop("valid_life_time", None), each.pop("preferred_life_time", None)
        values = self.lab.run("backend", ["sysctl", "-a", "-r", "^net[.]ipv[46][.]conf"]).stdout
        rules = "".join(self.lab.run("backend", ["ip", v, *words]).stdout for v in ("-4", "-6")
                        for words in (["rule", "show"], ["route", "show", "table", "all"]))
        return json.dumps(links, indent=1) + values + rules


def build(lab):
    for short in ("client", "balancer", "backend"):
        # Strict filtering on the backend: its way back is not where tunnels come from.
        lab.namespace(short, {"net.ipv4.conf.all.rp_filter": 0, "net.ipv4.conf.all.arp_ignore": 0,
                              "net.ipv4.conf.all.arp_announce": 0,
                              "net.ipv4.conf.default.rp_filter": int(short == "backend")})
    lab.link("client", "req", "balancer", "req")
    lab.link("balancer", "tun", "backend", "tun", mtu=1600)
    lab.link("client", "rep", "backend", "rep")
    lab.ip("client", "addr add 192.0.2.7/24 dev rep", "addr add 2001:db8:1::7/64 dev rep nodad")
    lab.ip("backend", "addr add 192.0.2.1/24 dev rep", "addr add 2001:db8:1::1/64 dev rep nodad",
           "addr add 10.0.1.11/24 dev tun", "addr add fd00:1::11/64 dev tun nodad")
    lab.ip("balancer", "addr add 10.0.1.1/24 dev tun", "addr add fd00:1::1/64 dev tun nodad")
    macs = {}
    for short, interface, name in (("balancer", "req", "req"), ("balancer", "tun", "balancer"),
                                   ("backend", "tun", "backend")):
        link = json.loads(lab.run(short, ["ip", "-j", "link", "show", interface]).stdout)[0]
        macs[name] = bytes.fromhex(link["address"].replace(":", ""))
    gateway = macs["req"].hex(":")
    for vips in (VIPS, DSR_VIPS):
        lab.ip("client", f"route add {vips[4]} dev req src {CLIENT[4]}",
               f"route add {vips[6]} dev req src {CLIENT[6]}",
               f"neigh add {vips[4]} lladdr {gateway} dev req",
               f"neigh add {vips[6]} lladdr {gateway} dev req")
    return Forwarder(lab, macs)


def udp_packet(version, source, destination, payload=b"forged"):
    """A UDP packet to a VIP's server; the checksum is right, so that a receiver would take it."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    length = 8 + len(payload)
    pseudo = addresses + struct.pack("!HH", 17, length)
    udp = struct.pack("!HHH", 4000, PORT, length)
    padding = b"\0" * (len(payload) % 2)
    udp += struct.pack("!H", checksum(pseudo + udp + b"\0\0" + payload + padding)) + payload
    if version == 4:
        front = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 0, 0, 64, 17)
        return front + struct.pack("!H", checksum(front + b"\0\0" + addresses)) + addresses + udp
    return struct.pack("!IHBB", 6 << 28, length, 17, 64) + addresses + udp


def all_combinations(lab, checks, forwarder, backend, servers, mode):
    data = os.urandom(200_000)
    for outer in (4, 6):
        for inner in (4, 6):
            name = f"{inner}in{outer}"
            forwarder.outer = outer
            before = backend.counters()
            servers[VIPS[inner]].peers.clear()
            received = tcp_echo(lab, "client", VIPS[inner], PORT, data)
            same = hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
            echoed = udp_echo(lab, "client", VIPS[inner], PORT, b"datagram" * 100)
            after = backend.counters()
            checks.check(same and echoed == b"datagram" * 100,
                         f"{mode} {name}: 200 kB through TCP and a datagram, there and back",
                         f"{len(received)} bytes came back")
            grown = {k for k in after if after[k] > before[k]} - {"passed"}
            checks.check(grown == {name}, f"{mode} {name}: counted as that only", after)
            checks.check(set(servers[VIPS[inner]].peers) == {CLIENT[inner]},
                         f"{mode} {name}: the server sees the client's own address",
                         servers[VIPS[inner]].peers)


def refusals(checks, forwarder, backend, servers):
    """What must not reach a server, and is counted under its reason."""
    servers[VIPS[4]].peers.clear()
    servers[VIPS[6]].peers.clear()
    whole = {v: udp_packet(v, CLIENT[v], VIPS[v]) for v in (4, 6)}
    shorter = {v: encapsulate(whole[v], 4, BALANCER[4], BACKEND[4]) for v in (4, 6)}
    broken_sum = bytearray(shorter[4])
    broken_sum[10] ^= 0x40
    too_long = bytearray(whole[4])
    too_long[2:4] = struct.pack("!H", 600)
    cases = [
        ("spoofed IPv4 tunnel source", "bad-source",
         lambda: forwarder.tunnel(whole[4], 4, SPOOFED[4])),
        ("spoofed IPv6 tunnel source", "bad-source",
         lambda: forwarder.tunnel(whole[6], 6, SPOOFED[6])),
        ("an inner address that is no VIP", "bad-vip",
         lambda: forwarder.tunnel(udp_packet(4, CLIENT[4], BACKEND[4]), 4)),
        ("an inner IPv6 address that is no VIP", "bad-vip",
         lambda: forwarder.tunnel(udp_packet(6, CLIENT[6], BACKEND[6]), 4)),
        ("a wrong outer checksum", "malformed", lambda: forwarder.send(bytes(broken_sum))),
        ("an inner length beyond the outer", "malformed",
         lambda: forwarder.tunnel(bytes(too_long), 6)),
    ]
    for cut in range(20, len(shorter[4])):
        cases.append((f"cut to {cut} bytes", "malformed",
                      lambda cut=cut: forwarder.send(shorter[4][:cut], 4)))
    for counter in ("bad-source", "bad-vip", "malformed"):
        chosen = [(what, send) for what, reason, send in cases if reason == counter]
        before = backend.counters()
        for _, send in chosen:
            send()
        wanted = before[counter] + len(chosen)
        wait_until(lambda: backend.counters()[counter] >= wanted, 3, f"drops as {counter}")
        after = backend.counters()
        grown = {k for k in after if after[k] > before[k]} - {"passed"}
        checks.check(after[counter] == wanted and grown == {counter},
                     f"{len(chosen)} packets dropped as {counter}: "
                     f"{', '.join(what for what, _ in chosen[:3])}", after)
    peers = servers[VIPS[4]].peers + servers[VIPS[6]].peers
    checks.check(not peers, "none of them has reached a server", peers)
    forwarder.tunnel(whole[4], 4)
    wait_until(lambda: servers[VIPS[4]].peers, 3, "the same packet, unharmed, at the server")
    checks.check(True, "the same packet, unharmed and from an allowed source, has")


def set_up_and_take_down(checks, backend, up, word="attach"):
    before = backend.snapshot()
    dry = backend.setup(*up, "--dry-run").stdout
    checks.check(backend.snapshot() == before and word in dry, "--dry-run tells, changes nothing")
    first = backend.setup(*up).stdout
    checks.check(first == dry, "what it does is what --dry-run has told", f"{dry}---\n{first}")
    after = backend.snapshot()
    again = backend.setup(*up).stdout
    checks.check(again == "" and backend.snapshot() == after, "the second time there is nothing to do",
                 again)
    checks.check(backend.setup("check", check=False).returncode == 0, "check is content")
    return before


def scenario(lab, checks):
    forwarder = build(lab)
    backend = Backend(lab)
    up = ["up", "--interface", "tun", "--source", "10.0.1.0/29", "--source", "fd00:1::/64"]
    for version in (4, 6):
        up += ["--vip", VIPS[version]]

    checks.title("Set-up")
    checks.check(backend.setup("check", check=False).returncode == 1, "check says when nothing is there")
    before = set_up_and_take_down(checks, backend, up)
    servers = {v: EchoServer(lab, "backend", v, PORT) for v in VIPS.values()}

    checks.title("Native XDP")
    all_combinations(lab, checks, forwarder, backend, servers, "native")
    own = EchoServer(lab, "backend", "192.0.2.1", 2222)
    checks.check(tcp_echo(lab, "client", "192.0.2.1", 2222, b"hello") == b"hello" and own.peers,
                 "the backend's own services go on")

    checks.title("Refused")
    refusals(checks, forwarder, backend, servers)

    checks.title("Taken down and set up again, generic XDP, then dsr-l2 beside it")
    lab.ip("backend", f"addr del {VIPS[6]}/128 dev lo")
    checks.check(backend.setup("check", check=False).returncode == 1, "check sees a lost VIP")
    backend.setup("down")
    checks.check(backend.snapshot() == before, "down has taken back exactly what up did",
                 difference(before, backend.snapshot()))
    checks.check("nothing" in backend.setup("down").stdout, "down a second time has nothing to do")
    backend.setup(*up, "--xdp-mode", "generic")
    all_combinations(lab, checks, forwarder, backend, servers, "generic")

    backend.setup("up", "--interface", "tun", "--mode", "dsr-l2", "--vip", DSR_VIPS[4],
                  "--vip", DSR_VIPS[6])
    forwarder.outer = None
    for version, vip in DSR_VIPS.items():
        server = EchoServer(lab, "backend", vip, PORT)
        checks.check(tcp_echo(lab, "client", vip, PORT, b"x" * 50_000) == b"x" * 50_000 and
                     server.peers == [CLIENT[version]], f"dsr-l2: 50 kB to {vip} and back")
    lab.run("balancer", ["ip", "route", "add", f"{DSR_VIPS[4]}/32", "dev", "tun"])
    answer = arp_request(lab, DSR_VIPS[4])
    checks.check(not answer, "the backend does not claim the VIP by ARP", answer)
    checks.check(arp_request(lab, BACKEND[4]), "but does answer for its own address")
    backend.setup("down", "--vip", VIPS[4], "--vip", VIPS[6])
    attached = lab.run("backend", ["ip", "link", "show", "tun"]).stdout
    checks.check("xdp" not in attached, "without tunnelled VIPs no program stays", attached)
    backend.setup("down")
    checks.check(backend.snapshot() == before, "down has taken back exactly what up did",
                 difference(before, backend.snapshot()))

    checks.title("nat and full-nat")
    gateways = ["--gateway", BALANCER[4], "--gateway", BALANCER[6]]
    nat = ["up", "--interface", "tun", "--mode", "nat", *gateways]
    set_up_and_take_down(checks, backend, nat, "rule add")
    for version in (4, 6):
        far = {4: "203.0.113.9", 6: "2001:db8:9::9"}[version]
        found = {to: lab.run("backend", ["ip", f"-{version}", "route", "get", to, "from",
                                         BACKEND[version]], check=False).stdout
                 for to in (far, BALANCER[version])}
        checks.check(f"via {BALANCER[version]} " in found[far] and
                     " via " not in found[BALANCER[version]],
                     f"answers to {far} go through the balancer, those on the segment do not", found)
    lab.run("backend", ["ip", "rule", "del", "pref", "6081"])
    checks.check(backend.setup("check", check=False).returncode == 1, "check sees a lost rule")
    backend.setup("down")
    checks.check(backend.snapshot() == before, "down has taken back exactly what up did",
                 difference(before, backend.snapshot()))
    done = backend.setup("up", "--interface", "tun", "--mode", "full-nat")
    checks.check("nothing to set up" in done.stdout and backend.snapshot() == before, "full-nat")

    checks.title("Wrong use")
    for what, code, arguments in (
            ("an unknown interface", 1, ["up", "--interface", "nonesuch", "--vip", VIPS[4]]),
            ("a VIP that is a loopback address", 2, ["up", "--interface", "tun", "--vip", "127.0.0.1"]),
            ("a prefix with host bits", 2, [*up, "--source", "10.0.1.1/24"]),
            ("nat without a gateway", 2, ["up", "--interface", "tun", "--mode", "nat"]),
            ("nat with a VIP", 2, [*nat, "--vip", VIPS[4]]),
            ("a tunnel without a VIP", 2, ["up", "--interface", "tun"]),
            ("--source with dsr-l2", 2, [*up, "--mode", "dsr-l2"]),
            ("an object that is not there", 1, [*up, "--object", "/nonexistent"])):
        done = backend.setup(*arguments, check=False)
        checks.check(done.returncode == code and done.stderr and "Traceback" not in done.stderr,
                     f"{what}: exit code {code}, and told why", done.stderr)
    backend.setup("down")


def difference(before, after):
    old, new = before.split("\n"), after.split("\n")
    return "\n".join([f"- {line}" for line in old if line not in new][:10] +
                     [f"+ {line}" for line in new if line not in old][:10])


def arp_request(lab, address):
    """arp_request() returns the answer to an ARP request from the balancer, or None."""
    sock = packet_socket(lab, "balancer", "tun")
    link = json.loads(lab.run("balancer", ["ip", "-j", "link", "show", "tun"]).stdout)[0]
    mac = bytes.fromhex(link["address"].replace(":", ""))
    ask = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + \
        ipaddress.ip_address(BALANCER[4]).packed + bytes(6) + ipaddress.ip_address(address).packed
    sock.send(b"\xff" * 6 + mac + b"\x08\x06" + ask)
    sock.settimeout(0.5)
    try:
        while True:
            frame, source = sock.recvfrom(2048)
            if source[2] != 4 and frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x02" and \
                    frame[28:32] == ipaddress.ip_address(address).packed:
                return frame[22:28].hex(":")
    except TimeoutError:
        return None


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("decap"), scenario))
