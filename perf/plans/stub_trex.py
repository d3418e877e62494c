# SPDX-License-Identifier: Apache-2.0
"""A stand-in for TRex's Python interface (trex.stl.api), for the test of the profiles: TRex is no
package of Debian's. It has the names that the profiles may use, with their parameters; checks
what TRex checks when it compiles a field engine; and can play what a stream sends, packet by
packet, on one core. Its client plays a link of 14.88 Mpps and a balancer that forwards a share of
it. It says nothing of what the real one makes of the calls.
"""

import importlib.util
import ipaddress
import random
import sys
import types
from pathlib import Path

from scapy.all import IP, TCP, UDP, Ether

LINE_RATE = 14.88e6


class TRexError(Exception):
    pass


def number(value):
    return value if isinstance(value, int) else int(ipaddress.IPv4Address(value))


class STLVmFlowVar:
    def __init__(self, name, init_value=None, min_value=0, max_value=255, size=4, step=1, op="inc"):
        if op not in ("inc", "dec", "random") or size not in (1, 2, 4, 8) or init_value is not None:
            raise TRexError(f"flow variable {name}: {op}, {size}")
        self.names = [name]
        self.low, self.high = number(min_value), number(max_value)
        if self.low > self.high or self.high >= 1 << (8 * size):
            raise TRexError(f"flow variable {name}: {self.low} to {self.high} in {size} bytes")
        self.op, self.step = op, step

    def values(self, n, source):
        if self.op == "random":
            return {self.names[0]: source.randint(self.low, self.high)}
        return {self.names[0]: self.low + n * self.step % (self.high - self.low + 1)}


class STLVmTupleGen:
    def __init__(self, name, ip_min="0.0.0.1", ip_max="0.0.0.10", port_min=1025, port_max=65535,
                 limit_flows=100000, flags=0):
        for value in (port_min, port_max, limit_flows, flags):
            if not isinstance(value, int):
                raise TRexError(f"{name}: {value!r}")
        if not 0 < port_min <= port_max <= 65535:
            raise TRexError(f"{name}: ports {port_min} to {port_max}")
        self.names = [f"{name}.ip", f"{name}.port"]
        self.low, self.clients = number(ip_min), number(ip_max) - number(ip_min) + 1
        self.port, self.ports, self.limit = port_min, port_max - port_min + 1, limit_flows

    def values(self, n, _source):
        n %= min(self.limit, self.clients * self.ports)
        return {self.names[0]: self.low + n % self.clients,
                self.names[1]: self.port + n // self.clients}


class STLVmWrFlowVar:
    def __init__(self, fv_name, pkt_offset, offset_fixup=0, add_val=0, is_big=True):
        layer, _, field = pkt_offset.partition(".")
        if layer not in ("IP", "TCP", "UDP") or not field or offset_fixup or add_val or not is_big:
            raise TRexError(f"write to {pkt_offset}")
        self.name, self.layer, self.field = fv_name, layer, field


class STLVmFixIpv4:
    def __init__(self, offset):
        self.layers = [offset]


class CTRexVmInsFixHwCs:
    L4_TYPE_UDP = 11
    L4_TYPE_TCP = 13


class STLVmFixChecksumHw:
    def __init__(self, l3_offset, l4_offset, l4_type):
        if (l4_offset, l4_type) not in (("TCP", 13), ("UDP", 11)):
            raise TRexError(f"checksum of {l4_offset}, {l4_type}")
        self.layers = [l3_offset, l4_offset]


class STLScVmRaw:
    def __init__(self, list_of_commands=None, split_by_field=None, cache_size=None):
        self.commands, self.cache_size = list_of_commands or [], cache_size


class STLPktBuilder:
    def __init__(self, pkt=None, vm=None):
        if not isinstance(pkt, Ether) or not isinstance(vm, STLScVmRaw):
            raise TRexError(f"{pkt!r}, {vm!r}")
        self.pkt, self.commands = pkt, vm.commands
        known, fixed = set(), False
        for c in self.commands:
            if fixed:
                raise TRexError("a command after the checksums")
            if names := getattr(c, "names", None):
                if known & set(names):
                    raise TRexError(f"defined twice: {names}")
                known |= set(names)
            elif isinstance(c, STLVmWrFlowVar):
                if not pkt.haslayer(c.layer) or not hasattr(pkt[c.layer], c.field):
                    raise TRexError(f"no {c.layer}.{c.field}")
                if c.name not in known:
                    raise TRexError(f"variable {c.name} does not exist")
            else:
                fixed = True
                if not all(pkt.haslayer(layer) for layer in c.layers):
                    raise TRexError(f"checksum of a layer that is not there: {c.layers}")
        if not fixed:
            raise TRexError("no checksum is corrected")


class STLTXCont:
    def __init__(self, pps=1):
        if pps <= 0:
            raise TRexError(f"pps {pps}")
        self.pps = pps


class STLStream:
    def __init__(self, packet=None, mode=None, isg=0.0):
        if not isinstance(packet, STLPktBuilder) or not isinstance(mode, STLTXCont):
            raise TRexError("a stream is a packet builder and a mode")
        self.packet, self.mode, self.isg = packet, mode, isg

    def tuples(self, count):
        """tuples() are (source, destination, source port, destination port) of count packets."""
        source, pkt = random.Random(1), self.packet.pkt
        l4 = "TCP" if pkt.haslayer("TCP") else "UDP"
        fixed = {("IP", "src"): number(pkt["IP"].src), ("IP", "dst"): number(pkt["IP"].dst),
                 (l4, "sport"): pkt[l4].sport, (l4, "dport"): pkt[l4].dport}
        for n in range(count):
            values, fields = {}, dict(fixed)
            for c in self.packet.commands:
                if hasattr(c, "names"):
                    values.update(c.values(n, source))
                elif isinstance(c, STLVmWrFlowVar):
                    fields[c.layer, c.field] = values[c.name]
            yield tuple(fields.values())


class STLProfile:
    def __init__(self, streams):
        self.streams = streams

    def get_streams(self):
        return self.streams

    @staticmethod
    def load_py(python_file, direction=0, port_id=0, **kwargs):
        path = Path(python_file)
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        profile = module.register()
        code, defaults = profile.get_streams.__code__, profile.get_streams.__defaults__
        if len(defaults or ()) != code.co_argcount - 1:  # as TRex does
            raise TRexError("defaults are wanted for all arguments of get_streams()")
        return STLProfile(profile.get_streams(direction=direction, port_id=port_id, **kwargs))


class STLClient:
    capacity = 100.0  # percent of the link that comes back
    calls: list = []

    def __init__(self, server="localhost"):
        self.server, self.connected, self.streams, self.stats = server, False, {}, {}

    def connect(self):
        self.connected = True

    def disconnect(self):
        self.connected = False

    def reset(self, ports=None):
        self.streams = {p: [] for p in ports}

    def set_port_attr(self, ports=None, promiscuous=None, link_up=None, led_on=None,
                      flow_ctrl=None):
        self.calls.append(("promiscuous", ports, promiscuous))

    def remove_all_streams(self, ports=None):
        for p in ports:
            self.streams[p] = []

    def add_streams(self, streams, ports=None):
        if not streams:
            raise TRexError("no streams")
        for p in ports:
            self.streams[p] += streams

    def clear_stats(self, ports=None):
        self.stats = {p: {"opackets": 0, "ipackets": 0} for p in self.streams}

    def start(self, ports=None, mult="1", force=False, duration=-1, total=False):
        if not self.connected or not mult.endswith("%") or duration <= 0:
            raise TRexError(f"start {mult} {duration}")
        rate = float(mult[:-1])
        for p in ports:
            if not self.streams[p]:
                raise TRexError(f"port {p} has no streams")
            flags = str(self.streams[p][0].packet.pkt["TCP"].flags)
            self.calls.append(("start", len(self.streams[p][0].packet.pkt), flags, rate, duration))
            self.stats[p]["opackets"] += int(LINE_RATE * rate / 100 * duration)
            share = min(rate, self.capacity) / 100
            self.stats[p ^ 1]["ipackets"] += int(LINE_RATE * share * duration)

    def wait_on_traffic(self, ports=None, timeout=None, rx_delay_ms=None):
        pass

    def get_stats(self, ports=None):
        return self.stats


def install():
    """install() makes `from trex.stl.api import …` find this."""
    api = types.ModuleType("trex.stl.api")
    for name in ("STLVmFlowVar", "STLVmTupleGen", "STLVmWrFlowVar", "STLVmFixIpv4",
                 "CTRexVmInsFixHwCs", "STLVmFixChecksumHw", "STLScVmRaw", "STLPktBuilder",
                 "STLTXCont", "STLStream", "STLProfile", "STLClient"):
        setattr(api, name, globals()[name])
    api.Ether, api.IP, api.TCP, api.UDP = Ether, IP, TCP, UDP
    sys.modules.update({"trex": types.ModuleType("trex"), "trex.stl": types.ModuleType("trex.stl"),
                        "trex.stl.api": api})
