# SPDX-License-Identifier: Apache-2.0
"""64-byte frames of 1,024 TCP flows. flags="S" first, some seconds, so that the balancer opens
them; then flags="A", the default, and what is measured are hits."""

import plan


class Profile:
    def get_streams(self, direction=0, port_id=0, size=64, flags="A", **tunables):
        if direction:  # the odd ports of a pair only receive
            return []
        known = plan.settings(tunables)
        packet = plan.padded(plan.headers(known, plan.tcp(known, flags)), int(size))
        return [plan.stream(packet, plan.cycle_of_flows(known, "TCP", 1024, 1))]


def register():
    return Profile()
