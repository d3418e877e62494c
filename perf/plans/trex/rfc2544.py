#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""RFC 2544, section 26.1, with a TRex server that runs (t-rex-64 -i): for each frame size the
highest rate without loss, by halving, then confirmed for longer. TRex's own Python library must
be found: PYTHONPATH=…/automation/trex_control_plane/interactive.

    rfc2544.py --server 127.0.0.1 --mac 02:00:00:00:00:10
"""

import argparse
import json
import sys
from pathlib import Path

from trex.stl.api import STLClient, STLProfile

HERE = Path(__file__).resolve().parent
SIZES = [64, 128, 256, 512, 1024, 1280, 1498]


def trial(client, arguments, rate, seconds):
    """trial() sends at a percentage of the link; returns packets sent and received."""
    client.clear_stats()
    client.start(ports=[arguments.tx], mult=f"{rate}%", duration=seconds, force=True)
    client.wait_on_traffic(ports=[arguments.tx], timeout=seconds + 30, rx_delay_ms=1000)
    stats = client.get_stats()
    return stats[arguments.tx]["opackets"], stats[arguments.rx]["ipackets"]


def load(client, arguments, size, flags):
    profile = STLProfile.load_py(str(HERE / "frames64.py"), direction=0, port_id=arguments.tx,
                                 size=size, flags=flags, mac=arguments.mac, vip=arguments.vip,
                                 vips=arguments.vips, service_port=arguments.service_port)
    client.remove_all_streams(ports=[arguments.tx])
    client.add_streams(profile.get_streams(), ports=[arguments.tx])


def search(client, arguments, size, report=print):
    """search() returns the figure of a size, or None when no rate is without loss."""
    load(client, arguments, size, "S")
    trial(client, arguments, arguments.rate, arguments.warm)
    load(client, arguments, size, "A")
    trial(client, arguments, arguments.rate, 1)

    def passes(rate, seconds):
        sent, received = trial(client, arguments, rate, seconds)
        if sent == 0:
            raise RuntimeError(f"nothing was sent: is the link of port {arguments.tx} up?")
        fine = sent - received <= arguments.loss * sent
        report(f"{rate:8.2f}%  sent {sent}  received {received}  {'passed' if fine else 'lost'}")
        return fine, sent, received
    good, bad, rate = 0.0, None, arguments.rate
    while bad is None or bad - good > arguments.step:
        if passes(rate, arguments.seconds)[0]:
            good = rate
            if good >= arguments.rate:
                break
        else:
            bad = rate
        rate = (good + bad) / 2
    while good > 0:
        fine, sent, received = passes(good, arguments.confirm)
        if fine:
            return {"name": f"trex.rfc2544.{size}", "unit": "Mpps",
                    "value": round(received / arguments.confirm / 1e6, 4), "sent": sent,
                    "received": received, "rate_percent": round(good, 2)}
        good -= arguments.step
    return None


def main(command=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1")
    parser.add_argument("--tx", type=int, default=0, help="the port towards the balancer (0)")
    parser.add_argument("--rx", type=int, default=1, help="where it forwards to (1)")
    parser.add_argument("--mac", help="the balancer's (default: as in trex_cfg.yaml)")
    parser.add_argument("--vip", default="198.18.0.0")
    parser.add_argument("--vips", type=int, default=64)
    parser.add_argument("--service-port", type=int, default=80)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rate", type=float, default=100.0, help="the highest, in percent")
    parser.add_argument("--step", type=float, default=0.5, help="resolution in percent")
    parser.add_argument("--loss", type=float, default=0.0, help="share that may be lost (0)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each trial")
    parser.add_argument("--warm", type=float, default=10.0)
    parser.add_argument("--confirm", type=float, default=60.0)
    arguments = parser.parse_args(command)
    client = STLClient(server=arguments.server)
    failed = 0
    client.connect()
    try:
        client.reset(ports=[arguments.tx, arguments.rx])
        client.set_port_attr(ports=[arguments.rx], promiscuous=True)
        for size in arguments.sizes:
            figure = search(client, arguments, size)
            if figure is None:
                print(f"no rate above {arguments.step}% without loss at {size} bytes")
                failed = 1
            else:
                print("RESULT " + json.dumps(figure), flush=True)
    finally:
        client.disconnect()
    return failed


if __name__ == "__main__":
    sys.exit(main())
