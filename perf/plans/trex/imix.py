# SPDX-License-Identifier: Apache-2.0
"""Simple IMIX: 64, 594 and 1498 bytes at 7 : 4 : 1, UDP, 1,024 flows of each size. 1498 and not
1518: an ipip tunnel adds 20 bytes, and the link to the backends has an MTU of 1500."""

import plan


class Profile:
    def get_streams(self, direction=0, port_id=0, **tunables):
        if direction:  # the odd ports of a pair only receive
            return []
        known = plan.settings(tunables)
        streams = []
        for size, share, gap in ((64, 7, 0.0), (594, 4, 0.1), (1498, 1, 0.2)):
            packet = plan.padded(plan.headers(known, plan.udp(known)), size)
            commands = plan.cycle_of_flows(known, "UDP", 1024, 1)
            streams.append(plan.stream(packet, commands, share, gap))
        return streams


def register():
    return Profile()
