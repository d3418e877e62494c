#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Packets made by scapy go through `replay`, and scapy says whether what comes out is right:
nothing of ours on either side. Usage: cross_check.py REPLAY_PROGRAM [PACKETS]

REPLAY_PROGRAM NODE SERVICES IN OUT, as tests/packet/replay_main.cpp."""

import ipaddress
import logging
import pathlib
import random
import re
import subprocess
import sys
import tempfile

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.layers.inet import IP, TCP, UDP, ICMP, IPOption_NOP, IPOption_RR, fragment
from scapy.layers.inet6 import (IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
                                ICMPv6EchoRequest, ICMPv6EchoReply, ICMPv6PacketTooBig, fragment6)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether, GRE
from scapy.packet import Raw
from scapy.utils import checksum, rdpcap, wrpcap

NODE = """
node: {name: cross-check}
cluster: {hash-seed: 42}
dataplane:
  workers: 1
  ports: [{name: up0, device: "net_null0"}]
  encap-source: {ipv4: 192.0.2.64/26, ipv6: "2001:db8:5::/64"}
  next-hop: {up0: "02:00:00:00:00:01"}
"""
SERVICES = """
services:
  - {name: w44, address: 198.51.100.10, protocol: tcp, port: 443, forward: ipip,
     backends: [{address: 10.0.1.1}, {address: 10.0.1.2}, {address: 10.0.1.3, weight: 50}]}
  - {name: w46, address: 198.51.100.10, protocol: tcp, port: 80, forward: ipip,
     backends: [{address: "2001:db8:1::1"}, {address: "2001:db8:1::2"}]}
  - {name: w66, address: "2001:db8:f::10", protocol: tcp, port: 443, forward: ipip,
     backends: [{address: "2001:db8:1::1"}, {address: "2001:db8:1::2"}]}
  - {name: w64, address: "2001:db8:f::10", protocol: tcp, port: 80, forward: ipip,
     backends: [{address: 10.0.1.1}, {address: 10.0.1.2}]}
  - {name: u44, address: 198.51.100.10, protocol: udp, port: "5000-5100", forward: ipip,
     backends: [{address: 10.0.1.1}]}
  - {name: d4, address: 198.51.100.11, protocol: tcp, port: any, forward: dsr-l2,
     backends: [{address: 10.0.1.1}, {address: 10.0.1.2}]}
  - {name: d6, address: "2001:db8:f::11", protocol: udp, port: 53, forward: dsr-l2,
     backends: [{address: "2001:db8:1::1"}]}
  - {name: g44, address: 198.51.100.12, protocol: tcp, port: 443, forward: gue,
     backends: [{address: 10.0.1.1}, {address: 10.0.1.2}]}
  - {name: g46, address: 198.51.100.12, protocol: tcp, port: 80, forward: gue,
     backends: [{address: "2001:db8:1::1"}]}
  - {name: g66, address: "2001:db8:f::12", protocol: tcp, port: 443, forward: gue,
     backends: [{address: "2001:db8:1::1"}]}
  - {name: r64, address: "2001:db8:f::12", protocol: tcp, port: 80, forward: gre,
     backends: [{address: 10.0.1.1}]}
  - {name: r44, address: 198.51.100.13, protocol: tcp, port: 443, forward: gre,
     backends: [{address: 10.0.1.1}, {address: 10.0.1.2}]}
  - {name: r46, address: 198.51.100.13, protocol: tcp, port: 80, forward: gre,
     backends: [{address: "2001:db8:1::1"}]}
  - {name: q4, address: 198.51.100.14, protocol: tcp, port: 443, forward: dsr-dscp,
     backends: [{address: 10.0.1.1, dscp: 11}, {address: 10.0.1.2, dscp: 11}]}
  - {name: q6, address: "2001:db8:f::14", protocol: tcp, port: 443, forward: dsr-dscp,
     backends: [{address: "2001:db8:1::1", dscp: 11}]}
  - {name: n4, address: 198.51.100.15, protocol: tcp, port: 443, forward: nat,
     backends: [{address: 10.0.1.1, port: 8443}, {address: 10.0.1.2, port: 8443}]}
  - {name: n6, address: "2001:db8:f::15", protocol: tcp, port: 443, forward: nat,
     backends: [{address: "2001:db8:1::1", port: 8443}]}
"""
BACKENDS = {"10.0.1.1", "10.0.1.2", "10.0.1.3", "2001:db8:1::1", "2001:db8:1::2"}
SOURCE4 = ipaddress.ip_network("192.0.2.64/26")
SOURCE6 = ipaddress.ip_network("2001:db8:5::/64")
NEXT_HOP = "02:00:00:00:00:01"


class Wrong(Exception):
    """An output packet is not what it should be."""


def need(condition, what):
    if not condition:
        raise Wrong(what)


def l3_offset(raw):
    """Where the IP header begins, behind any VLAN tags."""
    offset = 14
    while raw[offset - 2:offset] in (b"\x81\x00", b"\x88\xa8"):
        offset += 4
    return offset


def shape(rnd):
    """One packet, and what has to become of it: a service's name, "kernel" or a drop reason."""
    frame = Ether(dst="02:00:00:00:00:aa", src="02:00:00:00:00:bb")
    for tag in rnd.choice([[], [], [], [Dot1Q], [Dot1AD, Dot1Q], [Dot1Q, Dot1Q]]):
        frame = frame / tag(vlan=rnd.randrange(4096), prio=rnd.randrange(8))
    service, address, version, ports = rnd.choice([
        ("w44", "198.51.100.10", 4, [443]), ("w46", "198.51.100.10", 4, [80]),
        ("w66", "2001:db8:f::10", 6, [443]), ("w64", "2001:db8:f::10", 6, [80]),
        ("u44", "198.51.100.10", 4, [5000, 5050, 5100]), ("d4", "198.51.100.11", 4, [1, 22, 65535]),
        ("d6", "2001:db8:f::11", 6, [53]),
        ("g44", "198.51.100.12", 4, [443]), ("g46", "198.51.100.12", 4, [80]),
        ("g66", "2001:db8:f::12", 6, [443]), ("r64", "2001:db8:f::12", 6, [80]),
        ("r44", "198.51.100.13", 4, [443]), ("r46", "198.51.100.13", 4, [80]),
        ("q4", "198.51.100.14", 4, [443]), ("q6", "2001:db8:f::14", 6, [443]),
        ("n4", "198.51.100.15", 4, [443]), ("n6", "2001:db8:f::15", 6, [443])])
    expect = service
    ttl = rnd.choice([2, 3, 64, 128, 255])
    if version == 4:
        ip = IP(src=f"203.0.{rnd.randrange(256)}.{rnd.randrange(1, 255)}", dst=address, ttl=ttl,
                tos=rnd.randrange(256), id=rnd.randrange(65536), flags=rnd.choice([0, "DF"]))
        if rnd.random() < 0.15:
            ip.options = [IPOption_NOP()] * rnd.randrange(1, 12) + rnd.choice(
                [[], [IPOption_RR(length=11, routers=["0.0.0.0", "0.0.0.0"])]])
    else:
        ip = IPv6(src=f"2001:db8:c::{rnd.randrange(1, 65536):x}", dst=address, hlim=ttl,
                  tc=rnd.randrange(256), fl=rnd.randrange(1 << 20))
        for header in rnd.choice([[], [], [], [IPv6ExtHdrHopByHop], [IPv6ExtHdrDestOpt],
                                  [IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt]]):
            ip = ip / header()
    port = rnd.choice(ports)
    if service in ("u44", "d6"):
        l4 = UDP(sport=rnd.randrange(65536), dport=port)
    else:
        l4 = TCP(sport=rnd.randrange(1, 65536), dport=port, flags=rnd.choice(["S", "A", "PA"]),
                 options=rnd.choice([[], [("MSS", 1460), ("NOP", None)], [("Timestamp", (1, 2))]]))
    packet = frame / ip / l4 / Raw(rnd.randbytes(rnd.choice([0, 1, 5, 6, 7, 64, 500, 1000])))

    twist = rnd.random()
    if twist < 0.02:
        packet[TCP if TCP in packet else UDP].dport = 7 if service != "d4" else port
        expect = "kernel" if service != "d4" else service
    elif twist < 0.04:
        packet = frame / ARP()
        expect = "kernel"
    elif twist < 0.06:
        expect = "echo"
        packet = frame / (IP(src="203.0.113.1", dst="198.51.100.10", ttl=ttl) /
                          ICMP(id=rnd.randrange(65536), seq=port) if version == 4
                          else IPv6(src="2001:db8:c::1", dst="2001:db8:f::10", hlim=ttl) /
                          ICMPv6EchoRequest(id=rnd.randrange(65536))) / Raw(
                              rnd.randbytes(rnd.randrange(100)))
    elif twist < 0.08 and version == 4:
        packet[IP].ttl = 1
        expect = "ttl_expired"
    elif twist < 0.08:
        packet[IPv6].hlim = 1
        expect = "ttl_expired"
    elif twist < 0.10 and version == 4:
        packet[IP].chksum = 0x1234
        expect = "bad_ipv4_checksum"
    elif twist < 0.12 and version == 4:
        packet[IP].flags = "MF"  # of whole units of 8 bytes, or it is none
        expect = service if len(packet[IP].payload) % 8 == 0 else "fragment"
    elif twist < 0.12:
        packet = frame / IPv6(src="2001:db8:c::1", dst=address) / IPv6ExtHdrFragment(m=1) / l4
        expect = service if len(packet[IPv6ExtHdrFragment].payload) % 8 == 0 else "fragment"
    elif twist < 0.14:
        flags = rnd.choice([0, "DF"])
        packet = frame / (IP(src="203.0.113.1", dst="198.51.100.10", flags=flags)
                          if version == 4 else
                          IPv6(src="2001:db8:c::1", dst="2001:db8:f::10")) / TCP(
                              dport=443, sport=999) / Raw(b"x" * 1461)
        expect = "too_big" if version == 4 and flags == 0 else "too_big, told"

    raw = bytes(packet)
    if expect in ("w44", "w66", "kernel") and rnd.random() < 0.2:
        raw += b"\0" * max(0, 60 - len(raw))
    elif 0.14 <= twist < 0.17:
        # Cut off somewhere behind the addresses: what was announced is not all there.
        start = l3_offset(raw)
        first = start + (20 if version == 4 else 40)
        raw = raw[:rnd.randrange(first, len(raw))]
        expect = "truncated"
    return raw, expect


def address_in(text, network):
    a = ipaddress.ip_address(text)
    return a in network and a != network.network_address


def check_readdressed(raw, was, service, backend, sent):
    """dsr-dscp and nat: scapy makes the packet that is wanted, with checksums of its own."""
    offset = l3_offset(raw)
    length = was.len if was.version == 4 else was.plen + 40
    wanted = was.__class__(raw[offset:offset + length])
    wanted.dst = backend
    if wanted.version == 4:
        wanted.ttl -= 1
        wanted.chksum = None
        if service[0] == "q":
            wanted.tos = wanted.tos & 3 | 11 << 2
    else:
        wanted.hlim -= 1
        if service[0] == "q":
            wanted.tc = wanted.tc & 3 | 11 << 2
    wanted[TCP].chksum = None
    if service[0] == "n":
        wanted[TCP].dport = 8443
    need(sent[12:offset] == raw[12:offset], "VLAN tags, type")
    need(sent[offset:offset + length] == bytes(wanted), "readdressed packet")
    need(sent[offset + length:] == raw[offset + length:], "padding")


def check_forwarded(raw, service, backend, sent):
    """What was sent, as scapy reads it, against what came in."""
    was, now = Ether(raw), Ether(sent)
    need(now.dst == NEXT_HOP, "destination MAC")
    need(now.src == "02:00:00:00:01:00", "source MAC")
    inner_was = was[IP] if IP in was else was[IPv6]
    if service.startswith("d"):
        need(sent[12:] == raw[12:], "dsr-l2 changed more than MAC addresses")
        return
    if service[0] in "qn":
        check_readdressed(raw, inner_was, service, backend, sent)
        return
    offset = l3_offset(raw)
    need(sent[12:offset - 2] == raw[12:offset - 2], "VLAN tags")
    outer = IP(sent[offset:]) if sent[offset] >> 4 == 4 else IPv6(sent[offset:])
    need(ipaddress.ip_address(outer.dst) == ipaddress.ip_address(backend), "outer destination")
    length = inner_was.len if inner_was.version == 4 else inner_was.plen + 40
    shim = {"g": 8, "r": 4}.get(service[0], 0)
    protocol = {"g": 17, "r": 47}.get(service[0], 4 if inner_was.version == 4 else 41)
    if outer.version == 4:
        need(sent[offset - 2:offset] == b"\x08\x00", "type")
        need(checksum(sent[offset:offset + 20]) == 0, "outer checksum")
        need(outer.len == length + shim + 20 == len(sent) - offset, "outer total length")
        need(outer.ihl == 5 and outer.ttl == 64 and outer.id == 0, "IHL, TTL, id")
        need(str(outer.flags) == "DF" and outer.frag == 0, "DF")
        need(address_in(outer.src, SOURCE4), "outer source")
        need(outer.src != str(SOURCE4.broadcast_address), "outer source is a broadcast address")
        need(outer.proto == protocol, "outer protocol")
        outer_tos = outer.tos
        between, inner = sent[offset + 20:offset + 20 + shim], sent[offset + 20 + shim:]
    else:
        need(sent[offset - 2:offset] == b"\x86\xdd", "type")
        need(outer.plen == length + shim == len(sent) - offset - 40, "outer payload length")
        need(outer.hlim == 64 and outer.fl != 0, "hop limit, flow label")
        need(address_in(outer.src, SOURCE6), "outer source")
        need(outer.nh == protocol, "outer next header")
        outer_tos = outer.tc
        between, inner = sent[offset + 40:offset + 40 + shim], sent[offset + 40 + shim:]
    need(outer_tos == (inner_was.tos if inner_was.version == 4 else inner_was.tc), "DSCP and ECN")
    if service[0] == "g":
        udp = UDP(between)
        need(udp.dport == 6080 and udp.sport >= 49152 and udp.len == length + 8 and
             udp.chksum == 0, "UDP header of gue")
    elif service[0] == "r":
        gre = GRE(between)
        need(between[:2] == b"\0\0" and
             gre.proto == (0x0800 if inner_was.version == 4 else 0x86dd), "GRE header")
    # scapy makes the inner packet one hop on, with a checksum of its own.
    expected = bytearray(bytes(inner_was)[:length])
    if inner_was.version == 4:
        expected[8] -= 1
        expected[10:12] = b"\0\0"
        header = (expected[0] & 15) * 4
        expected[10:12] = checksum(bytes(expected[:header])).to_bytes(2, "big")
        read = IP(inner)
        need(checksum(inner[:header]) == 0, "inner checksum")
    else:
        expected[7] -= 1
        read = IPv6(inner)
    need(inner == bytes(expected), "inner packet")
    # The transport checksum covers nothing that changed.
    l4 = TCP if TCP in read else UDP
    old = read[l4].chksum
    del read[l4].chksum
    fresh = read.__class__(bytes(read))
    need(fresh[l4].chksum == old, "transport checksum")


def check_answer(raw, sent):
    """An answer of ours: an echo reply, or what a sender is told whose packet is too big."""
    was, now = Ether(raw), Ether(sent)
    need(now.dst == was.src, "answer to another MAC")
    offset = l3_offset(raw)
    need(sent[12:offset] == raw[12:offset], "VLAN tags and type")
    first, answer = (x[IP] if IP in x else x[IPv6] for x in (was, now))
    need(answer.src == first.dst and answer.dst == first.src, "addresses of the answer")
    again = type(answer)(bytes(answer))
    for layer in (again, again.payload):
        for field in ("chksum", "cksum", "len", "plen"):
            if field in layer.fields:
                layer.delfieldval(field)
    need(bytes(again) == bytes(answer), "length or checksum of the answer")
    if TCP in was:
        quoted, most = (bytes(answer)[28:], 576) if answer.version == 4 else (
            bytes(answer)[48:], 1280)
        need(bytes(first).startswith(quoted), "quote")
        need(len(answer) == most, "length of the error")
        if answer.version == 4:
            need((answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu) == (3, 4, 1480),
                 "fragmentation needed")
        else:
            need(answer[ICMPv6PacketTooBig].mtu == 1460, "packet too big")
        return
    need((answer.ttl if answer.version == 4 else answer.hlim) == 64, "TTL")
    if answer.version == 4:
        need((answer[ICMP].type, answer[ICMP].id, answer[ICMP].seq) ==
             (0, first[ICMP].id, first[ICMP].seq), "echo reply")
        need(bytes(answer[ICMP].payload) == bytes(first[ICMP].payload), "echoed data")
    else:
        need(answer[ICMPv6EchoReply].id == first[ICMPv6EchoRequest].id, "echo reply")
        need(bytes(answer)[48:] == bytes(first)[48:], "echoed data")


def check_refusals(program, folder):
    """What replay must refuse, with exit code 1 and a line that names the file."""
    whole = (folder / "in.pcap").read_bytes()
    (folder / "cut.pcap").write_bytes(whole[:200])
    (folder / "cooked.pcap").write_bytes(whole[:20] + (113).to_bytes(4, "little") + whole[24:])
    (folder / "bad.yaml").write_text("services: [{name: x, address: 1.2.3}]\n", encoding="utf-8")
    for arguments, words in [
            (("node.yaml", "services.yaml", "cut.pcap", "x.pcap"), "cut.pcap: after packet"),
            (("node.yaml", "services.yaml", "cooked.pcap", "x.pcap"), "is not Ethernet"),
            (("node.yaml", "services.yaml", "node.yaml", "x.pcap"), "node.yaml: unknown file format"),
            (("node.yaml", "services.yaml", "none.pcap", "x.pcap"), "none.pcap: No such file"),
            (("node.yaml", "services.yaml", "in.pcap", "in.pcap"), "name another file"),
            (("node.yaml", "services.yaml", "in.pcap", "no/x.pcap"), "no/x.pcap: No such file"),
            (("node.yaml", "services.yaml", "in.pcap", "/dev/full"), "cannot write"),
            (("node.yaml", "bad.yaml", "in.pcap", "x.pcap"), "bad.yaml:1: services[0].address"),
            (("none.yaml", "services.yaml", "in.pcap", "x.pcap"), "none.yaml")]:
        run = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True,
                             check=False)
        if run.returncode != 1 or words not in run.stderr:
            sys.exit(f"{arguments}: exit code {run.returncode}, stderr {run.stderr!r}; "
                     f"expected 1 and {words!r}")
    if (folder / "in.pcap").read_bytes() != whole:
        sys.exit("the capture to read was changed")


def check_fragments(program, folder, rnd):
    """Datagrams cut up by scapy, their pieces shuffled: each datagram whole at one backend, and
    a piece whose datagram's beginning never comes dropped."""
    ether = Ether(dst="02:00:00:00:00:aa", src="02:00:00:00:00:bb")
    whole, pieces = {}, []
    for i in range(40):
        data = rnd.randbytes(rnd.randrange(2000, 5000))
        if i % 2 == 0:
            packet = IP(src="203.0.113.5", dst="198.51.100.10", id=i) / UDP(
                sport=1000 + i, dport=5050, chksum=0) / Raw(data)
            cut = fragment(packet, 8 * rnd.randrange(50, 150))
        else:
            packet = IPv6(src="2001:db8:c::5", dst="2001:db8:f::11") / IPv6ExtHdrFragment(
                id=i) / UDP(sport=1000 + i, dport=53) / Raw(data)
            cut = fragment6(packet, 8 * rnd.randrange(60, 150))
        whole[i] = data
        pieces += [(i, ether / piece) for piece in cut]
    orphan = ether / IP(src="203.0.113.6", dst="198.51.100.10", id=99, frag=7, proto=17) / Raw(
        b"x" * 64)
    rnd.shuffle(pieces)
    pieces.insert(len(pieces) // 2, (99, orphan))
    for n, (_, piece) in enumerate(pieces):
        piece.time = 1000 + n / 1000
    wrpcap(str(folder / "pieces.pcap"), [piece for _, piece in pieces])
    run = subprocess.run([program, "node.yaml", "services.yaml", "pieces.pcap", "whole.pcap"],
                         cwd=folder, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    if len(lines) != len(pieces):
        sys.exit(f"{len(pieces)} fragments in, {len(lines)} verdicts")
    backends = {}
    for number, ((i, _), line) in enumerate(zip(pieces, lines), 1):
        if i == 99:
            if not line.startswith(f"{number}: dropped: fragment ("):
                sys.exit(f"a fragment without its datagram: {line}")
            continue
        match = re.match(rf"{number}: forwarded to (\S+) ", line)
        if not match:
            sys.exit(f"not forwarded: {line}")
        backends.setdefault(i, set()).add(match[1])
    if any(len(b) != 1 for b in backends.values()):
        sys.exit(f"a datagram at two backends: {backends}")
    found = {i: {} for i in whole}
    for frame in rdpcap(str(folder / "whole.pcap")):
        raw = bytes(frame)
        if raw[12:14] == b"\x08\x00":
            inner = IP(raw[34:])
            part = bytes(inner)[20:inner.len]
            found[inner.id][inner.frag * 8] = part
        else:
            header = Ether(raw)[IPv6ExtHdrFragment]
            found[header.id][header.offset * 8] = bytes(header.payload)
    for i, data in whole.items():
        joined = b""
        while len(joined) in found[i]:
            joined += found[i][len(joined)]
        if joined[8:] != data:
            sys.exit(f"datagram {i} is not whole: {len(joined) - 8} of {len(data)} bytes")
    return len(pieces)


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    rnd = random.Random(20260101)
    made = [shape(rnd) for _ in range(count)]
    with tempfile.TemporaryDirectory(prefix="sluice-cross-check-") as d:
        folder = pathlib.Path(d)
        (folder / "node.yaml").write_text(NODE, encoding="utf-8")
        (folder / "services.yaml").write_text(SERVICES, encoding="utf-8")
        wrpcap(str(folder / "in.pcap"), [Raw(raw) for raw, _ in made], linktype=1)
        run = subprocess.run([program, "node.yaml", "services.yaml", "in.pcap", "out.pcap"],
                             cwd=folder, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"replay failed ({run.returncode}): {run.stderr}")
        check_refusals(program, folder)
        fragments = check_fragments(program, folder, rnd)
        # A second run gives the same.
        again = subprocess.run([program, "node.yaml", "services.yaml", "in.pcap", "out2.pcap"],
                               cwd=folder, capture_output=True, text=True, check=True)
        if again.stdout != run.stdout or ((folder / "out.pcap").read_bytes()
                                          != (folder / "out2.pcap").read_bytes()):
            sys.exit("two runs differ")
        out = [bytes(p) for p in rdpcap(str(folder / "out.pcap"))]
        stamps_in = [p.time for p in rdpcap(str(folder / "in.pcap"))]
        stamps_out = [p.time for p in rdpcap(str(folder / "out.pcap"))]
        # Not "malformed": the payload is noise, and the dissectors above TCP and UDP say so.
        tshark = subprocess.run(
            ["tshark", "-r", str(folder / "out.pcap"), "-o", "ip.check_checksum:TRUE",
             "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-Y",
             # What errors quote is cut off; scapy has looked at those.
             "(ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 || "
             "ip.bogus_ip_length || ip.bogus_header_length) && "
             "!(icmp.type == 3 || icmpv6.type == 2)"],
            capture_output=True, text=True, check=False)

    lines = run.stdout.splitlines()
    if len(lines) != len(made):
        sys.exit(f"{len(made)} packets in, {len(lines)} verdicts")
    seen, position = {}, 0
    for number, ((raw, expect), line) in enumerate(zip(made, lines), 1):
        match = re.fullmatch(
            rf"{number}: (?:forwarded to (\S+) \(service (\S+), via (\S+) on up0, next hop (\S+)\)"
            r"|(left to the kernel) \([^()]+\)|dropped: (\w+) \(.*\)"
            r"|(answered with ICMP) on up0(?:; dropped: (\w+) \(.*\))?)", line)
        if not match:
            sys.exit(f"not a verdict: {line}")
        got = match[2] or (match[5] and "kernel") or match[6] or (
            match[8] and f"{match[8]}, told") or "echo"
        seen[got] = seen.get(got, 0) + 1
        try:
            need(got == expect, f"expected {expect}")
            if match[7]:
                check_answer(raw, out[position])
            if match[2]:
                need(match[1] in BACKENDS, "backend")
                need(stamps_out[position] == stamps_in[number - 1], "timestamp")
                check_forwarded(raw, match[2], match[1], out[position])
        except Wrong as e:
            detail = out[position].hex() if match[2] and position < len(out) else ""
            sys.exit(f"{line}: wrong: {e}\n  in:  {raw.hex()}\n  out: {detail}")
        position += bool(match[2] or match[7])
    if position != len(out):
        sys.exit(f"{position} forwarded, {len(out)} packets written")
    if tshark.returncode != 0 or tshark.stdout:
        sys.exit(f"tshark objects:\n{tshark.stdout}{tshark.stderr}")
    missing = {"w44", "w46", "w66", "w64", "u44", "d4", "d6", "g44", "g46", "g66", "r44", "r46",
               "r64", "q4", "q6", "n4", "n6", "kernel", "ttl_expired",
               "bad_ipv4_checksum", "fragment", "too_big", "too_big, told", "echo", "truncated"} - set(seen)
    if missing:
        sys.exit(f"never seen: {sorted(missing)}; more packets?")
    print(f"{fragments} fragments, {len(made)} packets, {len(out)} sent, all right:",
          ", ".join(f"{k} {v}" for k, v in sorted(seen.items())))


if __name__ == "__main__":
    main()
