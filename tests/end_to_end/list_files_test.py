#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What there is no room for. Files of allow and deny lists that grow too large, or vanish: what the
data plane has been given stays, and everything else goes on being published. Ranges of ports that
the XDP program's map cannot hold: refused."""

import json
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from control_stand import check, wait_until, with_daemon  # noqa: E402

VIP = "198.51.100.10"


def scenario(d):
    node = Path(d.node)
    node.write_text(node.read_text(encoding="utf-8").replace(
        "controlplane:\n", "controlplane:\n  limits: {table-memory: 2}\n"), encoding="utf-8")
    allowed, denied = Path(d.directory) / "allowed", Path(d.directory) / "denied"
    allowed.write_text("203.0.113.0/24\n2001:db8::/32\n", encoding="utf-8")
    denied.write_text("203.0.113.128/25\n", encoding="utf-8")
    d.start()
    service = {"name": "web", "address": VIP, "port": 80, "forward": "ipip", "table-size": 1021,
               "allow-file": str(allowed), "deny-file": str(denied),
               "backends": [{"address": "10.77.0.11"}, {"address": "10.77.0.12"}]}
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": [service]}))
    check(status == 200, str(answer))

    def verdicts():
        return [d.get(f"/v1/explain?protocol=tcp&source=203.0.{host}:1&destination={VIP}:80")
                ["verdict"] for host in ("113.7", "113.129", "114.7")]

    def warned(text):
        return any(text in w for w in d.get("/v1/status")["warnings"])

    before = ["forwarded", "dropped", "dropped"]
    check(verdicts() == before, str(verdicts()))

    # More than there is room for: 8 MB of 6.
    denied.write_text("".join(f"2001:db8:{i >> 8:x}:{i & 255:x}00::/64\n" for i in range(250000)),
                      encoding="utf-8")
    wait_until(lambda: warned("denied: the lookup tables and lists need"), "too much: a warning")
    check(verdicts() == before and d.get("/v1/status")["published"], "the list stays")
    generation = d.get("/v1/status")["generation"]
    status, answer = d.call("PATCH", "/v1/services/web/backends/10.77.0.12",
                            json.dumps({"weight": 50}))
    check(status == 200, str(answer))
    wait_until(lambda: d.get("/v1/status")["generation"] > generation, "changes are published")
    check(not warned("not published"), "and nothing waits")
    denied.write_text("203.0.113.128/25\n", encoding="utf-8")
    wait_until(lambda: not warned("denied"), "a file that fits again")

    # Gone, while the control plane runs, and while it does not.
    allowed.unlink()
    denied.unlink()
    wait_until(lambda: warned(f"{allowed}") and warned(f"{denied}"), "gone: a warning")
    check(verdicts() == before, "the lists stay")
    check(d.end(signal.SIGKILL) == -signal.SIGKILL, "killed")
    d.start()
    check(warned(f"{allowed}") and warned("stays as it was"), "still gone")
    check(verdicts() == before, f"the lists stay over a restart: {verdicts()}")
    allowed.write_text("203.0.114.0/24\n", encoding="utf-8")
    denied.write_text("\n", encoding="utf-8")
    wait_until(lambda: verdicts() == ["dropped", "dropped", "forwarded"], "they are back")
    wait_until(lambda: not warned(d.directory), "no warning is left")

    # 10 of 18 ranges have no room in an entry, and need one for each port.
    node.write_text(node.read_text(encoding="utf-8").replace('"net_null0"', '"af_xdp:none0"'),
                    encoding="utf-8")
    check(d.end() == 0, "a clean end")
    d.start()
    services = [{"name": f"s{a}-{i}", "address": f"198.51.100.{a}", "forward": "ipip",
                 "port": f"{i * 3600 + 1}-{i * 3600 + 3599}", "table-size": 251}
                for a in (1, 2) for i in range(18)]
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": services[:18]}))
    check(status == 200, str(answer))
    status, answer = d.call("PUT", "/v1/config", json.dumps({"services": services}))
    check(status == 400 and "entries in the steering program's map" in str(answer), str(answer))


if __name__ == "__main__":
    sys.exit(with_daemon(__file__, scenario))
