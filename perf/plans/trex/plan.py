# SPDX-License-Identifier: Apache-2.0
"""What the TRex profiles (stateless, Python) share: the flows, and a stream of them.

Tunables, all of them text or numbers as TRex's console gives them (start -f … -t vip=…,vips=64):
vip and vips (the first and how many), client (the first of their addresses), service_port, mac
(the balancer's). Sizes are of frames with their FCS, which TRex's packets are without.
Give t-rex-64 a power of two of cores (-c): it divides addresses and VIPs among them, and a client
keeps to its VIP only where that comes out even.
"""

import ipaddress

from trex.stl.api import (
    TCP,
    UDP,
    IP,
    CTRexVmInsFixHwCs,
    Ether,
    STLPktBuilder,
    STLScVmRaw,
    STLStream,
    STLTXCont,
    STLVmFixChecksumHw,
    STLVmFixIpv4,
    STLVmFlowVar,
    STLVmTupleGen,
    STLVmWrFlowVar,
)

FCS = 4
DEFAULTS = {"vip": "198.18.0.0", "vips": 64, "client": "10.0.0.0", "service_port": 80,
            "mac": None}


def settings(given):
    """settings() takes the tunables that are for the flows; what TRex adds is left alone."""
    known = {**DEFAULTS, **{k: v for k, v in given.items() if k in DEFAULTS}}
    known["vips"], known["service_port"] = int(known["vips"]), int(known["service_port"])
    for name in ("vip", "client"):
        ipaddress.IPv4Address(known[name])  # or scapy would look up a name
    if not 1 <= known["vips"] <= 65536:
        raise ValueError(f"vips: 1 to 65536, not {known['vips']}")
    return known


def later(address, more):
    return str(ipaddress.IPv4Address(address) + more)


def headers(known, l4):
    ether = Ether(dst=known["mac"]) if known["mac"] else Ether()
    return ether / IP(src=known["client"], dst=known["vip"]) / l4


def padded(packet, size):
    """padded() fills a packet up to a frame of size bytes, FCS included."""
    return packet / ("x" * max(0, size - FCS - len(packet)))


def cycle_of_flows(known, l4, clients, ports):
    """cycle_of_flows() goes through clients x ports flows in turn. A tuple generator makes them
    as it goes: address by address, then the next port. The VIPs go in turn beside it, so that a
    client keeps to one where their number divides that of the clients."""
    if clients % known["vips"]:
        raise ValueError(f"vips must divide {clients}, the number of clients")
    return [
        STLVmTupleGen(name="flow", ip_min=known["client"],
                      ip_max=later(known["client"], clients - 1), port_min=1024,
                      port_max=1024 + ports - 1, limit_flows=clients * ports),
        STLVmFlowVar(name="vip", min_value=known["vip"],
                     max_value=later(known["vip"], known["vips"] - 1), size=4, op="inc"),
        STLVmWrFlowVar(fv_name="flow.ip", pkt_offset="IP.src"),
        STLVmWrFlowVar(fv_name="vip", pkt_offset="IP.dst"),
        STLVmWrFlowVar(fv_name="flow.port", pkt_offset=f"{l4}.sport"),
        *checksums(l4),
    ]


def random_flows(known, l4, clients):
    """random_flows() draws address, port and VIP anew for every packet."""
    return [
        STLVmFlowVar(name="client", min_value=known["client"],
                     max_value=later(known["client"], clients - 1), size=4, op="random"),
        STLVmFlowVar(name="port", min_value=1024, max_value=65535, size=2, op="random"),
        STLVmFlowVar(name="vip", min_value=known["vip"],
                     max_value=later(known["vip"], known["vips"] - 1), size=4, op="random"),
        STLVmWrFlowVar(fv_name="client", pkt_offset="IP.src"),
        STLVmWrFlowVar(fv_name="vip", pkt_offset="IP.dst"),
        STLVmWrFlowVar(fv_name="port", pkt_offset=f"{l4}.sport"),
        *checksums(l4),
    ]


def checksums(l4, hardware=True):
    """checksums() come last. The NIC computes both where it can; the balancer only looks at
    IPv4's, and STLVmFixIpv4 writes that one in software (a NIC without the offload)."""
    if not hardware:
        return [STLVmFixIpv4(offset="IP")]
    kind = CTRexVmInsFixHwCs.L4_TYPE_TCP if l4 == "TCP" else CTRexVmInsFixHwCs.L4_TYPE_UDP
    return [STLVmFixChecksumHw(l3_offset="IP", l4_offset=l4, l4_type=kind)]


def stream(packet, commands, packets_per_second=1.0, gap_us=0.0):
    """stream() without end. Rates of a profile's streams are shares: the console's -m (or
    start(mult=…)) sets how much they make together."""
    return STLStream(packet=STLPktBuilder(pkt=packet, vm=STLScVmRaw(commands)),
                     mode=STLTXCont(pps=packets_per_second), isg=gap_us)


def tcp(known, flags):
    return TCP(sport=1024, dport=known["service_port"], flags=flags)


def udp(known):
    return UDP(sport=1024, dport=known["service_port"])
