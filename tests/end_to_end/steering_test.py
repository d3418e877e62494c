#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two workers, two AF_XDP queues, and flows that move from one queue to the other while the
scheduler's table changes. With `steering: owner` no flow changes its backend; with `steering:
rss` some do, which shows that the scene is one in which they could."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from netns_sockets import packet_socket  # noqa: E402
from test_ports import SERVICES, Plane, frame, steer  # noqa: E402

FLOWS = range(3000, 3200)
MORE_BACKENDS = SERVICES.replace("{address: 10.0.1.12}]",
                                 "{address: 10.0.1.12}, {address: 10.0.1.13, weight: 300}]")


def ask(sock, ports):
    """ask() sends a datagram of each flow; returns {port: backend}, as many as come."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    for port in ports:
        sock.send(bytes(frame(port)))
    got, deadline = {}, time.monotonic() + 5
    while len(got) < len(ports) and time.monotonic() < deadline:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            packet = Ether(sock.recv(4096))
        except TimeoutError:
            break
        if IP in packet and packet[IP].proto == 4 and packet[IP].src == "192.0.2.10":
            got[packet[UDP].sport] = packet[IP].dst
    return got


def scene(lab, checks, steering):
    checks.title(f"steering: {steering}")
    name = f"steering-{steering}"
    peer, mine = f"{steering}-peer", f"{steering}-plane"
    lab.namespace(peer)
    lab.namespace(mine)
    lab.link(peer, "v0", mine, "v1", queues=2)
    plane = Plane(lab, name, [("up0", "af_xdp:v1")], short=mine, workers="2",
                  more=f"  steering: {steering}\n")
    plane.start()
    plane.publish()
    plane.wait_tables()
    steer(lab, mine, "v1")
    sock = packet_socket(lab, peer, "v0")
    flows = list(FLOWS)
    first = ask(sock, flows)
    checks.check(len(first) == len(flows) and len(set(first.values())) == 2,
                 f"{len(flows)} flows over two queues and two backends", plane.counters())
    checks.check(ask(sock, flows) == first, "once more: the same backends")

    plane.services.write_text(MORE_BACKENDS)
    plane.wait_tables(plane.publish("again"))
    # The sender's end now has one TX queue, so that all flows come by one of ours.
    changed = set()
    for queues in (1, 2, 1):
        lab.run(peer, ["ethtool", "-L", "v0", "tx", queues])
        before = [w["counters"]["rx_packets"] for w in plane.show()["workers"]]
        now = ask(sock, flows)
        checks.check(len(now) == len(flows), "every flow reaches a backend", plane.counters())
        after = [w["counters"]["rx_packets"] for w in plane.show()["workers"]]
        moved = [b - a for a, b in zip(before, after)]
        checks.check((0 in moved) == (queues == 1), f"{queues} queue(s) used: {moved}")
        changed |= {port for port in flows if now.get(port) != first[port]}
    fresh = ask(sock, list(range(6000, 6100)))
    checks.check("10.0.1.13" in fresh.values(), "new flows reach the new backend, too")
    counters = plane.counters()
    if steering == "owner":
        checks.check(not changed, "no flow has changed its backend", changed)
        checks.check(counters.get("handed_over", 0) > 100 and
                     counters["handed_over"] == counters["handed_to_us"] and
                     "drop_handover_full" not in counters,
                     f"{counters.get('handed_over')} packets went from worker to worker", counters)
        tracked = sum(w["tracked"] for w in plane.show()["workers"])
        checks.check(tracked == len(flows) + 100, "each flow is in one table", tracked)
    else:
        checks.check(len(changed) > 10 and "handed_over" not in counters,
                     f"{len(changed)} of {len(flows)} flows changed theirs: queues matter here")
    checks.check(plane.process.stop() == 0, "it stops", plane.process.tail())
    sock.close()


def one_queue(lab, checks):
    """A device with one queue, and a worker that has none of its own: they share the flows."""
    from scapy.layers.inet import IP, UDP
    from scapy.utils import rdpcap, wrpcap
    checks.title("one queue, two workers, steering: owner")
    source = lab.path("one", "in.pcap")
    sinks = [lab.path("one", f"out{i}.pcap") for i in range(2)]
    wrpcap(str(source), [frame(port) for _ in range(2) for port in FLOWS])
    device = f"net_pcap,rx_pcap={source},tx_pcap={sinks[0]},tx_pcap={sinks[1]}"
    plane = Plane(lab, "one", [("p0", device)], workers="2", more="  steering: owner\n")
    plane.run_dir.mkdir(parents=True)
    plane.publish()
    plane.start()
    wait_until(lambda: plane.counters().get("tx_packets", 0) == 2 * len(FLOWS), 5, "the packets")
    forwarded = [w["counters"].get("forwarded", 0) for w in plane.show()["workers"]]
    checks.check(min(forwarded) > len(FLOWS) / 2, f"both workers forward: {forwarded}")
    checks.check(plane.process.stop() == 0, "it stops", plane.process.tail())
    seen = {}
    for sink in sinks:
        for packet in rdpcap(str(sink)):
            seen.setdefault(packet[UDP].sport, []).append((sink.name, packet[IP].dst))
    checks.check(len(seen) == len(FLOWS) and
                 all(len(where) == 2 and where[0] == where[1] for where in seen.values()),
                 "each flow leaves by one worker, to one backend")


def another_port(lab, checks):
    """A start with a port more, before the others: what the XDP program knew it still knows."""
    checks.title("a port is added, and the data plane started again")
    lab.namespace("more-peer")
    lab.namespace("more")
    lab.link("more-peer", "v0", "more", "v1")
    lab.link("more-peer", "w0", "more", "w1")
    old = Plane(lab, "more", [("up1", "af_xdp:w1")], short="more")
    old.start()
    old.publish()
    steer(lab, "more", "w1")
    old.process.kill()
    plane = Plane(lab, "more", [("up0", "af_xdp:v1"), ("up1", "af_xdp:w1")], short="more")
    plane.start()
    for interface in ("w1", "v1"):
        said = steer(lab, "more", interface).stdout.strip()
        checks.check(said == "added 0 removed 0", f"{interface} had the service: {said}",
                     plane.process.tail())
    checks.check(plane.stop() == 0, "it stops", plane.process.tail())


def scenario(lab, checks):
    another_port(lab, checks)
    scene(lab, checks, "owner")
    scene(lab, checks, "rss")
    one_queue(lab, checks)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("steering"), scenario))
