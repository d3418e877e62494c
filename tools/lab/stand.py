# SPDX-License-Identifier: Apache-2.0
"""The stand that most scenarios begin with: the scene, backends that serve HTTP and echo lines,
the balancer with its services applied and every backend healthy."""

from .scene import Scene, vip4, vip6
from .sluice import Balancer, Binaries, set_up_backend

ECHO_PORT = 7
# Quick, so that a scenario need not wait long.
HTTP_HEALTH = {"type": "http", "path": "/healthz", "port": 80, "interval": "300ms",
               "timeout": "200ms", "rise": 2, "fall": 2}
TCP_HEALTH = {"type": "tcp", "port": ECHO_PORT, "interval": "300ms", "timeout": "200ms",
              "rise": 2, "fall": 2}


def service(scene, name, vip, forward="ipip", protocol="tcp", port=80, health=None,
            weights=None, ipv6_backends=None):
    """service() returns a service as in services.yaml over all backends of the scene.

    ipv6_backends: which addresses they are reached at; by default of the VIP's family."""
    if ipv6_backends is None:
        ipv6_backends = ":" in vip
    weights = weights or {}
    return {"name": name, "address": vip, "protocol": protocol, "port": port,
            "scheduler": "maglev", "forward": forward,
            "health": health or (HTTP_HEALTH if port == 80 else TCP_HEALTH),
            "backends": [{"address": scene.address(b, ipv6_backends),
                          "weight": weights.get(b, 100)} for b in scene.backends]}


class Stand:
    """services(scene) returns the services; direct: the VIPs that arrive without a tunnel."""

    def __init__(self, lab, services, direct=(), backends=3, segments=1, echo=False,
                 big_rate="1m", **balancer):
        self.lab = lab
        self.binaries = Binaries()
        self.scene = Scene(lab, backends=backends, segments=segments)
        self.services = services(self.scene)
        self.balancer = Balancer(self.scene, self.binaries, **balancer)
        vips = list(dict.fromkeys(s["address"] for s in self.services))
        self.scene.start_nginx(big_rate=big_rate)
        self.echo = {}
        for name in self.scene.backends:
            set_up_backend(self.scene, name, self.binaries,
                           tunnel=[v for v in vips if v not in direct],
                           direct=[v for v in vips if v in direct])
            if echo:
                self.start_echo(name)
        self.balancer.start()
        self.balancer.apply(self.services)
        self.wait_until_healthy()

    def start_echo(self, name):
        self.echo[name] = self.lab.start(
            name, f"echo-{name}", [self.binaries.flowgen, "serve", "--name", name, "--listen",
                                   f"0.0.0.0:{ECHO_PORT}", "--listen", f"[::]:{ECHO_PORT}"])
        self.echo[name].wait_for_output("ready", 5)

    def let_standin_be_heard(self):
        """What XDP sends by a veth is taken only if the other end has an XDP program, too. This
        one passes everything, as it is told of no tunnel."""
        self.lab.ip("segment0", f"link set dev edge.up0 xdpdrv obj "
                                f"{self.binaries.bpf / 'decap.bpf.o'} sec xdp")

    def wait_until_healthy(self):
        self.balancer.wait_until_usable(self.services)


__all__ = ["ECHO_PORT", "HTTP_HEALTH", "TCP_HEALTH", "Stand", "service", "vip4", "vip6"]
