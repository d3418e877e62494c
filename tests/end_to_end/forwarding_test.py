#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every way of forwarding, as the backend's side of the wire sees it: captured where the frame
arrives, taken apart by scapy, with every length and checksum computed again."""

import ipaddress
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab import nginx  # noqa: E402
from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.stand import ECHO_PORT, Stand, service, vip4, vip6  # noqa: E402

# name: (VIP, forward, the backends' family)
WAYS = {
    "4in4": (vip4(10), "ipip", False),
    "4in6": (vip4(11), "ipip", True),
    "6in6": (vip6(10), "ipip", True),
    "6in4": (vip6(11), "ipip", False),
    "direct4": (vip4(20), "dsr-l2", False),
    "direct6": (vip6(20), "dsr-l2", True),
}


def rebuilt(layer):
    """rebuilt() returns the bytes of a packet with its lengths and checksums made anew."""
    top = type(layer)(bytes(layer))
    each = top
    while each:
        for field in ("chksum", "len", "plen", "ihl", "dataofs"):
            if field in each.fields:
                each.delfieldval(field)
        each = each.payload
    return bytes(top)


def look(packet, vip, forward, source, backend, macs):
    """look() returns what is wrong with a frame that was sent to a backend."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    wrong = []
    if (packet.src, packet.dst) != macs:
        wrong.append(f"MAC {packet.src} > {packet.dst}, not {macs}")
    outer = packet.payload
    inner = outer
    if forward == "ipip":
        inner = outer.payload
        if (ipaddress.ip_address(outer.src), ipaddress.ip_address(outer.dst)) != (
                ipaddress.ip_address(source), ipaddress.ip_address(backend)):
            wrong.append(f"outer {outer.src} > {outer.dst}, not {source} > {backend}")
        if not isinstance(inner, (IP, IPv6)):
            return [*wrong, f"no IP inside: {inner.summary()}"]
        number = outer.proto if isinstance(outer, IP) else outer.nh
        if number != (4 if isinstance(inner, IP) else 41):
            wrong.append(f"outer protocol {number}")
    if ipaddress.ip_address(inner.dst) != ipaddress.ip_address(vip):
        wrong.append(f"inner destination {inner.dst}")
    hops = inner.ttl if isinstance(inner, IP) else inner.hlim
    # Entering a tunnel is a hop (RFC 2003, 3.1); being handed on at layer 2 is none.
    if hops != (63 if forward == "ipip" else 64):
        wrong.append(f"inner TTL {hops}; the client sent 64")
    length = outer.len if isinstance(outer, IP) else outer.plen + 40
    if length != len(outer):
        wrong.append(f"the outer header says {length} bytes, {len(outer)} are there")
    if bytes(outer) != rebuilt(outer):
        wrong.append("a length or checksum is wrong")
    return wrong


def capture(lab, scene, name, vip, act):
    """capture() returns the frames to VIP that reach any backend while act() runs."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.utils import rdpcap
    running = []
    segment = f"segment{scene.segments - 1}"
    for backend in scene.backends:
        path = lab.path(f"{name}-{backend}.pcap")
        process = lab.start(segment, f"tcpdump-{name}-{backend}",
                            ["tcpdump", "--immediate-mode", "-U", "-n", "-Z", "root", "-s", "0",
                             "-Q", "out", "-i", f"{backend}.eth0", "-w", path, "ip or ip6"])
        process.wait_for_output("listening on", 5)
        running.append((backend, process, path))
    result = act()
    time.sleep(0.3)
    frames = []
    for backend, process, path in running:
        process.signal(signal.SIGTERM)
        process.wait(5)
        for packet in rdpcap(str(path)):
            layer = packet.payload
            while isinstance(layer, (IP, IPv6)):
                if ipaddress.ip_address(layer.dst) == ipaddress.ip_address(vip):
                    frames.append((backend, packet))
                    break
                layer = layer.payload
    return result, frames


def scenario(segments):
    def run(lab, checks):
        def services(scene):
            found = []
            for name, (vip, forward, v6) in WAYS.items():
                found += [service(scene, name, vip, forward, ipv6_backends=v6),
                          service(scene, f"{name}-udp", vip, forward, "udp", ECHO_PORT,
                                  ipv6_backends=v6)]
            return found

        direct = [vip for vip, forward, _ in WAYS.values() if forward == "dsr-l2"]
        stand = Stand(lab, services, direct=direct, segments=segments, echo=True, big_rate="20m")
        b, scene = stand.balancer, stand.scene
        interface = list(scene.ports.values())[-1]

        def mac(short, name):
            return lab.run(short, ["cat", f"/sys/class/net/{name}/address"]).stdout.strip()

        edge_mac = mac("edge", interface)
        backend_mac = {n: mac(n, "eth0") for n in scene.backends}
        crc = nginx.big_crc32(lab)
        for name, (vip, forward, v6) in WAYS.items():
            checks.title(f"{name}: {vip} by {forward}")
            source = scene.edge_address(v6, segments - 1)

            def act(vip=vip):
                return (b.load(vip, 80, connections=5, requests=60, requests_per_connection=3),
                        b.load(vip, ECHO_PORT, mode="udp", connections=20, requests=60))

            reports, frames = capture(lab, scene, name, vip, act)
            for report, what in zip(reports, ("HTTP", "UDP")):
                checks.check(report["requests_ok"] == 60 and report["requests_failed"] == 0 and
                             report["backend_changes"] == 0,
                             f"60 requests over {what} answered by "
                             f"{', '.join(sorted(report['backends']))}", report)
            wrong = {}

            def look_at(backend, frame):
                return look(frame, vip, forward, source, scene.address(backend, v6),
                            (edge_mac, backend_mac[backend]))

            for backend, frame in frames:
                for text in look_at(backend, frame):
                    wrong[text] = wrong.get(text, 0) + 1
            checks.check(len(frames) > 200 and not wrong,
                         f"{len(frames)} frames right to the bit",
                         "\n".join(f"{n} times: {t}" for t, n in wrong.items()))
            # Would it be noticed? The last byte is under a checksum of the client's.
            backend, frame = frames[-1]
            spoilt = type(frame)(bytes(frame)[:-1] + bytes([bytes(frame)[-1] ^ 1]))
            checks.check(look_at(backend, spoilt), "and one bit flipped would be noticed")
            report = b.load(vip, 80, connections=0, downloads=3, download_timeout=30)
            good = [d for d in report["downloads"] if d["complete"] and d["crc32"] == crc]
            checks.check(len(good) == 3, "3 downloads of 24 MiB are intact", report["downloads"])
        drops = [d for d in b.show("drops")["drops"] if d["packets"]]
        checks.check(not drops, "nothing was dropped", drops)
    return run


if __name__ == "__main__":
    code = 0
    for segments in (1, 2):
        print(f"\n{segments} segment(s)")
        code = code or run_scenario(lambda: Lab("forwarding"), scenario(segments))
    sys.exit(code)
