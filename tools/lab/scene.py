# SPDX-License-Identifier: Apache-2.0
"""The standard scene: a client, the balancer ("edge") and N backends.

One segment: all of them on one bridge, which nobody routes.

    client 10.77.0.100 ──┐
    edge   10.77.0.10  ──┤ bridge (10.77.0.0/24, fd77:0::/64)
    b1     10.77.0.21  ──┤
    b2 …               ──┘

Two segments: client and edge on the front one, edge and backends on the back one
(10.77.1.0/24, fd77:1::/64), and a router between them for the replies.

The client has a route to the VIPs (198.51.100.0/24, 2001:db8:100::/64) through the edge. The
backends have the VIPs on lo and answer the client directly.
"""

import ipaddress

from .nginx import Nginx
from .process import LabError

VIP_NETS = ("198.51.100.0/24", "2001:db8:100::/64")
SEGMENT_MTU = 1600  # room for a tunnel header around the client's 1500


def vip4(n):
    return f"198.51.100.{n}"


def vip6(n):
    return f"2001:db8:100::{n}"


def host_address(segment, host, ipv6=False):
    """host_address() returns it as everybody prints it: fd77::10, not fd77:0::10."""
    text = f"fd77:{segment}::{host}" if ipv6 else f"10.77.{segment}.{host}"
    return str(ipaddress.ip_address(text))


class Scene:
    """backends: how many; segments: 1 or 2; queues: of the edge's interfaces.

    Interfaces: eth0 everywhere, and in the edge up0 (front) and, with two segments, down0."""

    def __init__(self, lab, backends=3, segments=1, queues=1, client_mtu=1500):
        if segments not in (1, 2):
            raise LabError("a scene has one or two segments")
        self.lab = lab
        self.segments = segments
        self.backends = [f"b{i + 1}" for i in range(backends)]
        self.nginx = {}
        self.ports = {"up0": "up0"}
        back = segments - 1
        lab.namespace("segment0")
        lab.bridge("segment0")
        self._station("client", "eth0", 0, 100, mtu=client_mtu)
        self._station("edge", "up0", 0, 10, queues=queues)
        if segments == 2:
            lab.namespace("segment1")
            lab.bridge("segment1")
            self.ports["down0"] = "down0"
            self._plug("edge", "down0", 1, 10, queues=queues)
            self._station("router", "eth0", 0, 1,
                          sysctls={"net.ipv4.ip_forward": 1,
                                   "net.ipv6.conf.all.forwarding": 1})
            self._plug("router", "eth1", 1, 1)
            lab.ip("client", "route add 10.77.1.0/24 via 10.77.0.1",
                   "route add fd77:1::/64 via fd77:0::1")
        for i, name in enumerate(self.backends):
            self._station(name, "eth0", back, 21 + i)
            if segments == 2:
                lab.ip(name, "route add default via 10.77.1.1", "route add default via fd77:1::1")
        lab.ip("client", *(f"route add {net} via {self.edge_address(':' in net)}"
                           for net in VIP_NETS))

    def _station(self, short, interface, segment, host, mtu=SEGMENT_MTU, queues=1, sysctls=None):
        self.lab.namespace(short, sysctls)
        self._plug(short, interface, segment, host, mtu, queues)

    def _plug(self, short, interface, segment, host, mtu=SEGMENT_MTU, queues=1):
        peer = f"{short}.{interface}"[:15]
        # queues is for the edge's end; the bridge's end has as many, which it does not need.
        self.lab.link(short, interface, f"segment{segment}", peer, SEGMENT_MTU, queues)
        self.lab.ip(f"segment{segment}", f"link set {peer} master br0")
        commands = [f"address add {host_address(segment, host)}/24 dev {interface}",
                    f"address add {host_address(segment, host, True)}/64 dev {interface} nodad"]
        if mtu != SEGMENT_MTU:
            commands.append(f"link set {interface} mtu {mtu}")
        self.lab.ip(short, *commands)

    # -- addresses -----------------------------------------------------------------------

    def edge_address(self, ipv6=False, segment=0):
        return host_address(segment, 10, ipv6)

    def client_address(self, ipv6=False):
        return host_address(0, 100, ipv6)

    def address(self, backend, ipv6=False):
        """address() returns the address of a backend by name ("b1")."""
        return host_address(self.segments - 1, 21 + self.backends.index(backend), ipv6)

    def by_address(self, address):
        """by_address() returns the name of the backend that has an address, or None."""
        wanted = ipaddress.ip_address(address)
        for name in self.backends:
            if wanted in (ipaddress.ip_address(self.address(name)),
                          ipaddress.ip_address(self.address(name, True))):
                return name
        return None

    # -- what runs in it -----------------------------------------------------------------

    def add_vip(self, backend, *vips):
        self.lab.ip(backend, *(f"address add {v}/{128 if ':' in v else 32} dev lo" +
                               (" nodad" if ":" in v else "") for v in vips))

    def start_nginx(self, ports=(80,), big_rate="1m", proxy_ports=()):
        for name in self.backends:
            self.nginx[name] = Nginx(self.lab, name, ports, big_rate, proxy_ports)
            self.nginx[name].start()
        return self.nginx
