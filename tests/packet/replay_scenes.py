#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`sluice replay` over what real edges see: every forwarding mode with the client's and, for nat,
the backend's packets; fragments in odd order; ICMP errors with quotes; pings; what is too big; tags;
QUIC connections that migrate; lists, limits and persistence. Verdict by verdict, and scapy reads
what is sent. Usage: replay_scenes.py SLUICE"""

import collections
import logging
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest,
                                ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, fragment6)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import rdpcap, wrpcap

NODE = """
node: {name: replay-scenes}
cluster: {hash-seed: 42}
dataplane:
  workers: 2
  ports: [{name: up0, device: "net_null0"}, {name: up1, device: "net_null1"}]
  encap-source: {ipv4: 192.0.2.10, ipv6: "2001:db8:5::10"}
  nat-pool: {ipv4: [192.0.2.200], ipv6: ["2001:db8:99::1"]}
  next-hop: {up1: "02:00:00:00:00:01"}
"""
NEXT_HOP = "02:00:00:00:00:01"
CLIENT_MAC, OUR_MAC, BACKEND_MAC = "02:00:00:00:00:bb", "02:00:00:00:00:aa", "02:00:00:00:00:cc"
V4, V6 = ["10.0.1.1", "10.0.1.2", "10.0.1.3"], ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3"]
CLIENT = {4: "203.0.113.7", 6: "2001:db8:c::7"}
POOL = {4: "192.0.2.200", 6: "2001:db8:99::1"}

# Service: family of the client, family of the backends, how it forwards. A VIP each, port 443.
WAYS = {f"{mode}-{client}{backend}": (client, backend, mode)
        for mode in ("ipip", "gue", "gre") for client in (4, 6) for backend in (4, 6)}
WAYS |= {f"{mode}-{family}": (family, family, mode) for family in (4, 6)
         for mode in ("dsr-l2", "dsr-dscp", "nat", "full-nat")}
WAYS |= {f"{how}-{family}": (family, family, "full-nat") for how in ("toa", "proxy-v2")
         for family in (4, 6)}
OTHERS = """
  - {name: range, address: 198.51.100.200, port: "8000-8100", forward: dsr-l2,
     backends: [{address: 10.0.1.1}]}
  - {name: any, address: 198.51.100.200, port: any, forward: dsr-l2, backends: [{address: 10.0.1.2}]}
  - {name: lists, address: 198.51.100.201, port: 80, allow: [203.0.113.0/24], deny: [203.0.113.9/32],
     deny-file: "@DIRECTORY@/deny.txt", backends: [{address: 10.0.1.1}]}
  - {name: rate, address: 198.51.100.202, port: 80, limits: {new-connections: 5},
     backends: [{address: 10.0.1.1}]}
  - {name: source-rate, address: 198.51.100.203, port: 80,
     limits: {per-source: {new-connections: 2, ipv4-prefix: 24}}, backends: [{address: 10.0.1.1}]}
  - {name: packets, address: 198.51.100.204, protocol: udp, port: 53, limits: {packets: 4},
     backends: [{address: 10.0.1.1}]}
  - {name: flood, address: 198.51.100.205, port: 80, limits: {syn-flood: 10},
     backends: [{address: 10.0.1.1}, {address: 10.0.1.2}]}
  - {name: sticky, address: 198.51.100.206, port: 80, scheduler: round-robin,
     persistence: {timeout: 10s}, backends: [{address: 10.0.1.1}, {address: 10.0.1.2}]}
  - {name: turns, address: 198.51.100.207, port: 80, scheduler: round-robin,
     backends: [{address: 10.0.1.1}, {address: 10.0.1.2}]}
  - {name: quic, address: 198.51.100.208, protocol: udp, port: 443, forward: dsr-l2,
     quic: {server-id-length: 2}, backends: [{address: 10.0.1.1, quic-id: "0a01"},
     {address: 10.0.1.2, quic-id: "0a02"}, {address: 10.0.1.3, quic-id: "0a03"}]}
  - {name: clamp, address: 198.51.100.209, port: 80, mss-clamp: auto, backends: [{address: 10.0.1.1}]}
  - {name: udp-4, address: 198.51.100.210, protocol: udp, port: 53, forward: gue,
     backends: [{address: 10.0.1.1}, {address: 10.0.1.2}]}
  - {name: udp-6, address: "2001:db8:f::210", protocol: udp, port: 53, forward: gre,
     backends: [{address: "2001:db8:1::1"}, {address: "2001:db8:1::2"}]}
  - {name: quiet, address: 198.51.100.211, port: 80, echo: false, backends: [{address: 10.0.1.1}]}
"""
LINE = re.compile(
    r"(\d+): (?:forwarded to (?P<to>\S+) \(service (?P<service>\S+), "
    r"(?:via (?P<mode>\S+)|a reply of (?P<of>\S+)) on (?P<port>up\d), next hop (?P<hop>\S+)\)"
    r"|(?P<kernel>left to the kernel) \(.*\)|dropped: (?P<dropped>\w+) \(.*\)"
    r"|(?P<answered>answered with ICMP) on up0(?:; dropped: (?P<told>\w+) \(.*\))?)")


def vip(name):
    number = list(WAYS).index(name) + 1
    return f"198.51.100.{number}" if WAYS[name][0] == 4 else f"2001:db8:f::{number:x}"


def services():
    text = "services:"
    for name, (_, backend, mode) in WAYS.items():
        more = ", dscp: 11" if mode == "dsr-dscp" else ", port: 8443" if "nat" in mode else ""
        addresses = V4 if backend == 4 else V6
        client = name.rsplit("-", 1)[0] if name.startswith(("toa", "proxy")) else "none"
        text += (f"\n  - {{name: {name}, address: \"{vip(name)}\", port: 443, forward: {mode}, "
                 + (f"client-address: {client}, " if client != "none" else "")
                 + "backends: [" + ", ".join(f'{{address: "{a}"{more}}}' for a in addresses) + "]}")
    return text + OTHERS


def need(held, what, *detail):
    if not held:
        sys.exit("\n  ".join([f"wrong: {what}", *map(str, detail)]))


def of(packet):
    """The outermost IP layer of a frame."""
    while not isinstance(packet, (IP, IPv6)):
        packet = packet.payload
    return packet


def ip_layer(family, **fields):
    return IP(**fields) if family == 4 else IPv6(**fields)


def from_client(family, address, layer, source=None, tags=(), **fields):
    frame = Ether(dst=OUR_MAC, src=CLIENT_MAC)
    for tag in tags:
        frame = frame / tag
    return frame / ip_layer(family, src=source or CLIENT[family], dst=address, **fields) / layer


def whole(packet):
    """whole() tells whether every checksum and length of an IP packet is right."""
    again = type(packet)(bytes(packet))
    layer = again
    while layer:
        for field in ("chksum", "cksum", "len", "plen"):
            if field in layer.fields and not (isinstance(layer, UDP) and layer.chksum == 0):
                layer.delfieldval(field)
        layer = layer.payload
    return bytes(again) == bytes(packet)


class Replay:
    """Runs captures in a directory of its own; each has one verdict per packet."""

    def __init__(self, program, directory):
        self.program, self.directory, self.packets = program, pathlib.Path(directory), 0
        (self.directory / "node.yaml").write_text(NODE, encoding="utf-8")
        (self.directory / "services.yaml").write_text(
            services().replace("@DIRECTORY@", directory), encoding="utf-8")
        (self.directory / "deny.txt").write_text("# theirs\n203.0.113.16/28\n", encoding="utf-8")

    def run(self, packets, step=0.001):
        """run() returns (verdicts, frames sent). packets: frames, or (time, frame)."""
        frames = []
        for n, packet in enumerate(packets):
            time, packet = packet if isinstance(packet, tuple) else (n * step, packet)
            frame = Ether(bytes(packet))
            frame.time = 1_700_000_000 + time
            frames.append(frame)
        wrpcap(str(self.directory / "in.pcap"), frames)
        done = subprocess.run(
            [self.program, "replay", "--node", "node.yaml", "--services", "services.yaml", "--in",
             "in.pcap", "--out", "out.pcap"], cwd=self.directory, capture_output=True, text=True,
            check=False)
        need(done.returncode == 0 and not done.stderr, "replay", done)
        lines = done.stdout.splitlines()
        need(len(lines) == len(frames), f"{len(frames)} packets, {len(lines)} lines", done.stdout)
        verdicts = []
        for number, line in enumerate(lines, 1):
            match = LINE.fullmatch(line)
            need(match and int(match[1]) == number, "not a verdict", line)
            verdicts.append({k: v for k, v in match.groupdict().items() if v} | {"line": line})
        out = [Ether(bytes(p)) for p in rdpcap(str(self.directory / "out.pcap"))]
        sent = sum("to" in v or "answered" in v for v in verdicts)
        need(len(out) == sent, f"{sent} sent, {len(out)} in the capture", done.stdout)
        self.packets += len(frames)
        return verdicts, out


def inner_of(frame, mode):
    """What a backend has after decapsulation; None: it is not encapsulated as the mode says."""
    outer = of(frame)
    raw = bytes(outer)[20 if outer.version == 4 else 40:]
    protocol = outer.proto if outer.version == 4 else outer.nh
    if mode == "gue":
        if protocol != 17 or struct.unpack("!H", raw[2:4])[0] != 6080:
            return None
        raw = raw[8:]
    elif mode == "gre":
        if protocol != 47 or raw[:4] not in (b"\0\0\x08\x00", b"\0\0\x86\xdd"):
            return None
        raw = raw[4:]
    elif protocol not in (4, 41):
        return None
    return IP(raw) if raw[0] >> 4 == 4 else IPv6(raw)


def check_way(name, packet, verdict, frame):
    """One packet of a client to its backend, by every mode."""
    _, _, mode = WAYS[name]
    need(verdict.get("service") == name and verdict.get("mode") == mode and
         verdict["port"] == "up1" and verdict["hop"] == NEXT_HOP == frame.dst, name, verdict)
    was, backend = of(packet), verdict["to"]
    need([layer for layer in (Dot1AD, Dot1Q) if layer in packet] ==
         [layer for layer in (Dot1AD, Dot1Q) if layer in frame], f"{name}: tags stay", frame)
    if mode == "dsr-l2":
        need(bytes(frame)[12:] == bytes(packet)[12:], f"{name}: only MAC addresses change")
        return
    now = of(frame)
    need(now.dst == backend, f"{name}: destination", verdict, now)
    if mode in ("ipip", "gue", "gre"):
        now = inner_of(frame, mode)
        need(now and now.dst == was.dst, f"{name}: encapsulation", frame)
    elif mode == "dsr-dscp":
        need((now.tos if now.version == 4 else now.tc) >> 2 == 11, f"{name}: DSCP", now)
    else:
        need(now[TCP].dport == 8443, f"{name}: port", now)
        need((now.src == POOL[now.version]) == (mode == "full-nat"), f"{name}: source", now)
    hops = (lambda p: p.ttl if p.version == 4 else p.hlim)
    need(hops(now) == hops(was) - 1, f"{name}: TTL", now)
    need(whole(now), f"{name}: lengths and checksums", now)
    if not name.startswith(("toa", "proxy")):
        need(bytes(now[TCP].payload) == bytes(was[TCP].payload), f"{name}: data")


def modes(replay):
    """A SYN and data of every mode: untagged, VLAN, QinQ. One flow has one backend."""
    kinds = [(), (Dot1Q(vlan=7),), (Dot1AD(vlan=3), Dot1Q(vlan=4))]
    packets, names = [], []
    for name, (family, _, _) in WAYS.items():
        for n, tags in enumerate(kinds):
            for flags, data in (("S", b""), ("A", b""), ("PA", b"x" * (100 + n))):
                packets.append(from_client(family, vip(name), TCP(
                    sport=1000 + n, dport=443, flags=flags, seq=5) / Raw(data), tags=tags))
                names.append((name, n))
    verdicts, out = replay.run(packets)
    backends = collections.defaultdict(set)
    for name, packet, verdict, frame in zip(names, packets, verdicts, out):
        check_way(name[0], packet, verdict, frame)
        backends[name].add(verdict["to"])
    need(all(len(b) == 1 for b in backends.values()), "a flow's backend", backends)


def conversation(replay, name):
    """Handshake, data both ways and end of a nat or full-nat connection. What the backend sends
    depends on what it was sent: the capture grows, and the same input gives the same output."""
    family, _, mode = WAYS[name]
    packets, out = [], []

    def step(packet):
        packets.append(packet)
        verdicts, frames = replay.run(packets)
        need([bytes(f) for f in frames[:-1]] == [bytes(f) for f in out],
             f"{name}: another run", *(v["line"] for v in verdicts))
        out.append(frames[-1])
        return verdicts[-1], frames[-1]

    def client(flags, seq, ack, data=b"", options=()):
        packet = from_client(family, vip(name), TCP(sport=1234, dport=443, flags=flags, seq=seq,
                                                    ack=ack, options=list(options)) / Raw(data))
        verdict, frame = step(packet)
        check_way(name, packet, verdict, frame)
        return of(frame)

    def backend(to, flags, seq, ack, data=b""):
        packet = Ether(dst=OUR_MAC, src=BACKEND_MAC) / ip_layer(family, src=to.dst, dst=to.src) / \
            TCP(sport=8443, dport=to[TCP].sport, flags=flags, seq=seq, ack=ack,
                options=[("MSS", 1460)] if "S" in flags else []) / Raw(data)
        verdict, frame = step(packet)
        need(verdict.get("of") == to.dst and verdict["to"] == CLIENT[family] and
             verdict["service"] == name and verdict["hop"] == CLIENT_MAC == frame.dst,
             f"{name}: a reply", verdict)
        now = of(frame)
        need((now.src, now.dst, now[TCP].sport, now[TCP].dport) ==
             (vip(name), CLIENT[family], 443, 1234), f"{name}: a reply's ends", now)
        need(bytes(now[TCP].payload) == data and whole(now), f"{name}: a reply's data", now)
        return now

    syn = client("S", 100, 0, options=[("MSS", 1460)])
    need(mode == "nat" or syn[TCP].sport >= 1024, f"{name}: source port", syn)
    header, shift = b"", 0
    ends = struct.pack("!HH", 1234, 443)
    packed = bytes(ip_layer(family, src=CLIENT[family], dst=vip(name)))
    addresses = packed[12:20] if family == 4 else packed[8:40]
    if name.startswith("proxy"):
        header = b"\r\n\r\n\0\r\nQUIT\n\x21" + (b"\x11\0\x0c" if family == 4 else b"\x21\0\x24") \
            + addresses + ends
        shift = len(header)
    first = backend(syn, "SA", 900, 101)
    need(first[TCP].ack == 101, f"{name}: what is acknowledged", first)
    added = shift or ((8 if family == 4 else 20) if name.startswith("toa") else 0)
    need(dict(first[TCP].options)["MSS"] == 1460 - added, f"{name}: MSS", first)
    ack = client("A", 101, 901)
    need(bytes(ack[TCP].payload) == header, f"{name}: handshake", ack)
    if name.startswith("toa"):
        wanted = ends[:2] + addresses[:len(addresses) // 2]
        need((254, wanted) in ack[TCP].options, f"{name}: the option", ack)
    backend(ack, "A", 901, 101 + shift)
    data = client("PA", 101, 901, b"GET /")
    need(data[TCP].seq == 101 + shift and bytes(data[TCP].payload) == b"GET /",
         f"{name}: data", data)
    reply = backend(data, "PA", 901, 106 + shift, b"200 OK")
    need(reply[TCP].ack == 106, f"{name}: what is acknowledged later", reply)
    backend(client("FA", 106, 907), "FA", 907, 107 + shift)
    client("A", 107, 908)
    # A stranger's packets to the pool or from a backend belong to nothing.
    if mode == "full-nat":
        packets.append(Ether(dst=OUR_MAC) / ip_layer(family, src=syn.dst, dst=syn.src) /
                       TCP(sport=8443, dport=(syn[TCP].sport + 1) % 60000 + 2000, flags="A"))
        verdicts, _ = replay.run(packets)
        need(verdicts[-1].get("dropped") == "nat_unmatched", f"{name}: a stranger", verdicts[-1])


def fragments(replay):
    """Datagrams in pieces, backwards, through tunnels; and pieces whose beginning never comes."""
    data = bytes(range(256)) * 16
    packets, wanted = [], []
    for i in range(6):
        family, name = (4, "udp-4") if i % 2 == 0 else (6, "udp-6")
        udp = UDP(sport=2000 + i, dport=53, chksum=0 if family == 4 else None) / Raw(data)
        address = "198.51.100.210" if family == 4 else "2001:db8:f::210"
        if family == 4:
            pieces = fragment(IP(src=CLIENT[4], dst=address, id=i) / udp, 1000)
        else:
            pieces = fragment6(IPv6(src=CLIENT[6], dst=address) / IPv6ExtHdrFragment(id=i) / udp,
                               1200)
        # Backwards; the beginning first, the rest backwards; as they are.
        pieces = [pieces[::-1], pieces[:1] + pieces[:0:-1], pieces][i // 2]
        packets += [Ether(dst=OUR_MAC, src=CLIENT_MAC) / piece for piece in pieces]
        wanted += [(i, name)] * len(pieces)
    orphan = Ether(dst=OUR_MAC) / IP(src="203.0.113.99", dst="198.51.100.210", id=99, frag=9,
                                     proto=17) / Raw(b"z" * 64)
    late = from_client(4, vip("ipip-44"), TCP(sport=9, dport=443, flags="S"))
    nat = Ether(dst=OUR_MAC) / IP(src=CLIENT[4], dst=vip("nat-4"), flags="MF") / TCP(
        sport=5, dport=443) / Raw(b"y" * 4)
    verdicts, out = replay.run([orphan, nat, *packets, (5.0, late)], step=0.0001)
    need(verdicts[0].get("dropped") == "fragment", "a piece without its beginning", verdicts[0])
    need(verdicts[1].get("service") == "nat-4", "a first fragment through nat", verdicts[1])
    translated = out[0][IP]
    need(translated.dst == verdicts[1]["to"] and translated.flags == "MF" and
         bytes(translated[TCP].payload) == b"y" * 4, "a fragment translated", out[0])
    need(verdicts[-1].get("service") == "ipip-44", "what comes later", verdicts[-1])
    backends, found = collections.defaultdict(set), collections.defaultdict(dict)
    for (i, name), verdict in zip(wanted, verdicts[2:-1]):
        need(verdict.get("service") == name, "a piece", verdict)
        backends[i].add(verdict["to"])
    need(all(len(b) == 1 for b in backends.values()), "a datagram's backend", backends)
    for frame in out[1:-1]:
        if IPv6 in frame:
            inner = inner_of(frame, "gre")
            header = inner[IPv6ExtHdrFragment]
            found[header.id][header.offset * 8] = bytes(header.payload)
        else:
            inner = inner_of(frame, "gue")
            found[inner.id][inner.frag * 8] = bytes(inner)[20:inner.len]
        need(of(frame).dst in backends[header.id if IPv6 in frame else inner.id], "at the backend")
    for i in range(6):
        joined = b"".join(part for _, part in sorted(found[i].items()))
        need(joined[8:] == data, f"datagram {i} arrives whole")


def icmp(replay):
    """Errors that quote what a backend sent to a client, errors about our own tunnels, pings."""
    names = [n for n, (_, _, mode) in WAYS.items() if "nat" not in mode]
    opening = [from_client(WAYS[n][0], vip(n), TCP(sport=4321, dport=443, flags="S")) for n in names]
    errors = []
    for n in names:
        family = WAYS[n][0]
        quote = ip_layer(family, src=vip(n), dst=CLIENT[family]) / TCP(sport=443, dport=4321,
                                                                       flags="A", seq=1)
        router = "192.0.2.99" if family == 4 else "2001:db8:e::1"
        error = ICMP(type=3, code=4, nexthopmtu=1280) if family == 4 else ICMPv6PacketTooBig(mtu=1280)
        errors.append(from_client(family, vip(n), error / quote, source=router))
    foreign = IP(src=vip("ipip-44"), dst=CLIENT[4]) / TCP(sport=444, dport=1)
    broken = from_client(4, vip("ipip-44"), ICMP(type=3, code=1, chksum=1) / foreign)
    unmatched = from_client(4, vip("ipip-44"), ICMP(type=3, code=1) / foreign)
    other = from_client(6, vip("ipip-66"), ICMPv6DestUnreach() / IPv6(
        src=vip("ipip-66"), dst=CLIENT[6]) / TCP(sport=443, dport=4321))
    verdicts, out = replay.run([*opening, *errors, other, broken, unmatched])
    for n, error, begun, verdict, frame in zip(names, errors, verdicts, verdicts[len(names):],
                                               out[len(names):]):
        need(verdict.get("service") == n and verdict["to"] == begun["to"],
             f"an error follows its connection: {n}", begun, verdict)
        mode = WAYS[n][2]
        now = inner_of(frame, mode) if mode in ("ipip", "gue", "gre") else of(frame)
        need(whole(now) and bytes(error).endswith(bytes(now.payload)[40:]), "the error", now)
    need(verdicts[-3].get("service") == "ipip-66", "destination unreachable", verdicts[-3])
    need(verdicts[-2].get("dropped") == "bad_icmp" and "kernel" in verdicts[-1],
         "an error with a wrong checksum; one that is the host's", verdicts[-2:])

    # What a router says of the packets that we have sent.
    tunnels = [n for n in names if WAYS[n][2] in ("ipip", "gue", "gre")]
    opening = [from_client(WAYS[n][0], vip(n), TCP(sport=4321, dport=443, flags="A") / Raw(b"x" * 1000),
                           **({"flags": "DF"} if WAYS[n][0] == 4 else {})) for n in tunnels]
    _, sent = replay.run(opening)
    complaints = []
    for n, frame in zip(tunnels, sent):
        outer = of(frame)
        quote = Raw(bytes(outer)[:500])
        complaints.append(
            from_client(4, outer.src, ICMP(type=3, code=4, nexthopmtu=1400) / quote,
                        source="10.0.1.254") if outer.version == 4 else
            from_client(6, outer.src, ICMPv6PacketTooBig(mtu=1400) / quote, source="2001:db8:1::fe"))
    verdicts, out = replay.run([*opening, *complaints])
    for n, verdict, frame in zip(tunnels, verdicts[len(tunnels):], out[len(tunnels):]):
        family, backend, mode = WAYS[n]
        need("answered" in verdict, f"an error about our tunnel: {n}", verdict)
        now = of(frame)
        room = 1400 - (20 if backend == 4 else 40) - {"ipip": 0, "gue": 8, "gre": 4}[mode]
        told = now[ICMP].nexthopmtu if family == 4 else now[ICMPv6PacketTooBig].mtu
        need((now.src, now.dst, told) == (vip(n), CLIENT[family], room), f"what {n} is told", now)
        need(frame.dst == CLIENT_MAC, "to where it came from", frame)


def echo_and_too_big(replay):
    ping4 = from_client(4, vip("nat-4"), ICMP(id=7, seq=9) / Raw(b"abc"), tags=(Dot1Q(vlan=5),))
    ping6 = from_client(6, vip("gre-64"), ICMPv6EchoRequest(id=7, seq=9, data=b"abcd"))
    quiet = from_client(4, "198.51.100.211", ICMP())
    long4 = from_client(4, vip("ipip-44"), TCP(sport=1, dport=443) / Raw(b"x" * 1441), flags="DF")
    free4 = from_client(4, vip("ipip-44"), TCP(sport=1, dport=443) / Raw(b"x" * 1441))
    long6 = from_client(6, vip("gue-66"), TCP(sport=1, dport=443) / Raw(b"x" * 1400))
    verdicts, out = replay.run([ping4, ping6, quiet, long4, free4, long6])
    need(["answered" in v for v in verdicts] == [True, True, False, True, False, True], "answers",
         *(v["line"] for v in verdicts))
    need("kernel" in verdicts[2] and verdicts[3].get("told") == verdicts[5].get("told") ==
         verdicts[4].get("dropped") == "too_big", "verdicts", *(v["line"] for v in verdicts))
    reply = out[0][IP]
    need((reply.src, reply.dst, reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) ==
         (vip("nat-4"), CLIENT[4], 0, 7, 9) and out[0][Dot1Q].vlan == 5 and whole(reply), "pong", reply)
    need(out[1][ICMPv6EchoReply].data == b"abcd" and whole(out[1][IPv6]), "pong over IPv6", out[1])
    need(out[2][ICMP].nexthopmtu == 1480 and out[3][ICMPv6PacketTooBig].mtu == 1452, "what fits",
         *out[2:])


def quic(replay):
    """Handshake and short-header packets name their server; a client may come from anywhere."""
    def at(source, sport, payload):
        return from_client(4, "198.51.100.208", UDP(sport=sport, dport=443) / Raw(payload), source)

    packets, wanted = [], []
    for n in range(30):
        backend = n % 3
        cid = bytes([0x07, 0x0a, backend + 1]) + bytes(5)
        initial = b"\xc0\0\0\0\x01\x08" + bytes(range(n, n + 8)) + bytes(40)
        hand = b"\xe0\0\0\0\x01\x08" + cid + bytes(40)
        packets += [at(CLIENT[4], 3000 + n, initial), at(CLIENT[4], 3000 + n, hand),
                    at(CLIENT[4], 3000 + n, b"\x40" + cid + bytes(30)),
                    at(f"192.0.2.{n + 1}", 7000 + n, b"\x40" + cid + bytes(30))]
        wanted += [None] + [V4[backend]] * 3
    verdicts, _ = replay.run(packets)
    for n, (expected, verdict) in enumerate(zip(wanted, verdicts)):
        need(verdict.get("service") == "quic" and expected in (None, verdict["to"]),
             f"QUIC packet {n}", verdict, expected)


def lists_and_limits(replay):
    """Who is kept out, and when; a second later there is room again."""
    def syn(last, sport, source=CLIENT[4], flags="S"):
        return from_client(4, f"198.51.100.{last}", TCP(sport=sport, dport=80, flags=flags), source)

    def ends(packets):
        return [v.get("dropped", v.get("service")) for v in replay.run(packets)[0]]

    sources = ["203.0.113.7", "203.0.113.9", "203.0.113.17", "203.0.113.32", "192.0.2.5"]
    need(ends([syn(201, 1000 + i, s) for i, s in enumerate(sources)]) ==
         ["lists", "denied", "denied", "lists", "denied"], "allow, deny and a file")
    burst = [(0.0001 * i, syn(202, 1000 + i)) for i in range(8)]
    again = [(1.5 + 0.0001 * i, syn(202, 2000 + i)) for i in range(8)]
    middle = [(0.01, syn(202, 1000, flags="A"))]
    need(ends(burst + middle + again) == ["rate"] * 5 + ["connection_rate"] * 3 + ["rate"] +
         ["rate"] * 5 + ["connection_rate"] * 3, "new connections")
    # A fifth of a second gives one of five back: the capture's time counts within the second.
    spread = [(0.0001 * i, syn(202, 1000 + i)) for i in range(6)] + [
        (0.21, syn(202, 1100)), (0.22, syn(202, 1101)), (0.41, syn(202, 1102))]
    need(ends(spread) == ["rate"] * 5 + ["connection_rate"] + ["rate", "connection_rate", "rate"],
         "a token comes back")
    need(ends([syn(203, 1000 + i, s) for i, s in enumerate(
        ["203.0.113.1", "203.0.113.2", "203.0.113.3", "192.0.2.1", "192.0.2.2", "192.0.2.3"])]) ==
         (["source-rate"] * 2 + ["source_rate"]) * 2, "new connections of a source")
    dns = [from_client(4, "198.51.100.204", UDP(sport=1, dport=53) / Raw(b"q")) for _ in range(6)]
    need(ends(dns) == ["packets"] * 4 + ["packet_rate"] * 2, "packets")
    flood = [(0.00001 * i, syn(205, 1000 + i)) for i in range(200)]
    acks = [(0.1 + 0.00001 * i, syn(205, 1000 + i, flags="A")) for i in range(200)]
    verdicts, _ = replay.run(flood + acks)
    need(all(v.get("service") == "flood" for v in verdicts), "a SYN flood is forwarded")
    need([v["to"] for v in verdicts[:200]] == [v["to"] for v in verdicts[200:]],
         "those that shake hands stay where their SYN went")


def choices(replay):
    """Persistence over a scheduler that takes turns; port ranges; MSS."""
    def to(last, sport, dport=80, source=CLIENT[4], **fields):
        return from_client(4, f"198.51.100.{last}", TCP(sport=sport, dport=dport, flags="S", **fields),
                           source)

    verdicts, _ = replay.run([to(207, 1000 + i) for i in range(6)])
    need([v["to"] for v in verdicts] in ([V4[0], V4[1]] * 3, [V4[1], V4[0]] * 3), "turns", verdicts)
    many = [(i * 0.5, to(206, 1000 + i, source=f"203.0.113.{s}")) for i in range(12) for s in range(1, 9)]
    verdicts, _ = replay.run(many)
    places = collections.defaultdict(set)
    for (_, packet), verdict in zip(many, verdicts):
        places[packet[IP].src].add(verdict["to"])
    need(all(len(p) == 1 for p in places.values()) and len(set.union(*places.values())) == 2,
         "persistence", places)
    verdicts, _ = replay.run([to(200, 1, port) for port in (7999, 8000, 8100, 8101, 65535)])
    need([v["service"] for v in verdicts] == ["any", "range", "range", "any", "any"], "ports", verdicts)
    _, out = replay.run([to(209, 1, options=[("NOP", None), ("MSS", 1460)])])
    inner = inner_of(out[0], "ipip")
    need(dict(inner[TCP].options)["MSS"] == 1440 and whole(inner), "MSS", inner)


def main():
    with tempfile.TemporaryDirectory(prefix="sluice-replay-") as directory:
        replay = Replay(str(pathlib.Path(sys.argv[1]).resolve()), directory)
        modes(replay)
        for name, (_, _, mode) in WAYS.items():
            if "nat" in mode:
                conversation(replay, name)
        for scene in (fragments, icmp, echo_and_too_big, quic, lists_and_limits, choices):
            scene(replay)
        print(f"{replay.packets} packets, all right")


if __name__ == "__main__":
    main()
