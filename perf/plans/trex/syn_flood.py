# SPDX-License-Identifier: Apache-2.0
"""64-byte SYNs that hardly ever repeat: 2^24 addresses, 64,512 ports."""

import plan


class Profile:
    def get_streams(self, direction=0, port_id=0, **tunables):
        if direction:  # the odd ports of a pair only receive
            return []
        known = plan.settings(tunables)
        packet = plan.padded(plan.headers(known, plan.tcp(known, "S")), 64)
        return [plan.stream(packet, plan.random_flows(known, "TCP", 1 << 24))]


def register():
    return Profile()
