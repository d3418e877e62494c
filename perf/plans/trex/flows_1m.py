# SPDX-License-Identifier: Apache-2.0
"""64-byte frames of 2^20 TCP flows, 4,096 clients with 256 ports each, in turn. flags="S" first,
long enough for each to be sent once, then flags="A", the default."""

import plan


class Profile:
    def get_streams(self, direction=0, port_id=0, size=64, flags="A", **tunables):
        if direction:  # the odd ports of a pair only receive
            return []
        known = plan.settings(tunables)
        packet = plan.padded(plan.headers(known, plan.tcp(known, flags)), int(size))
        return [plan.stream(packet, plan.cycle_of_flows(known, "TCP", 4096, 256))]


def register():
    return Profile()
