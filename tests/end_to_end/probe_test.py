#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Health checks through the data path, with real backends (nginx, dnsmasq, the kernel's answers
to pings): encapsulated and addressed to the VIP as traffic is. A backend without the VIP on lo, or without decapsulation, is found dead,
and alive again with it; one that direct checks would call healthy all the time. The VIP may be
an address of the balancer, too."""

import json
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import wait_until  # noqa: E402
from lab.scene import Scene, vip4, vip6  # noqa: E402
from lab.sluice import Balancer, Binaries, set_up_backend  # noqa: E402
from lab.stand import ECHO_PORT, HTTP_HEALTH, TCP_HEALTH, service  # noqa: E402

DSCP = 13
# name: (VIP, forward, are the backends' addresses IPv6)
WAYS = {
    "ipip-4in4": (vip4(40), "ipip", False),
    "ipip-6in6": (vip6(40), "ipip", True),
    "ipip-4in6": (vip4(41), "ipip", True),
    "gue-6in4": (vip6(42), "gue", False),
    "gre-4in4": (vip4(43), "gre", False),
    "direct-4": (vip4(44), "dsr-l2", False),
    "direct-6": (vip6(44), "dsr-l2", True),
    "dscp-4": (vip4(45), "dsr-dscp", False),
    "dscp-6": (vip6(45), "dsr-dscp", True),
    "udp-4in4": (vip4(50), "ipip", False),
    "udp-direct-6": (vip6(50), "dsr-l2", True),
    "udp-dscp-4": (vip4(45), "dsr-dscp", False),
    "dns-gue-6in4": (vip6(51), "gue", False),
    "dns-4in6": (vip4(52), "ipip", True),
    "icmp-gre-6in6": (vip6(53), "gre", True),
    "icmp-4in6": (vip4(53), "ipip", True),
    "icmp-direct-4": (vip4(54), "dsr-l2", False),
}
RHYTHM = {key: TCP_HEALTH[key] for key in ("interval", "timeout", "rise", "fall")}
# By the first word of a way's name; nginx listens on 80, TCP alone is checked for some.
KINDS = {
    "udp": {"type": "udp", "port": ECHO_PORT, "send": "probe 7", "receive": "probe 7", **RHYTHM},
    "dns": {"type": "dns", "port": 53, "name": "www.example.test", **RHYTHM},
    "icmp": {"type": "icmp", **RHYTHM},
    "gre": {**TCP_HEALTH, "port": 80},
}
VIPS = list(dict.fromkeys(vip for vip, _, _ in WAYS.values()))
# Nobody listens there: an ICMP error says so. Seldom, as the kernel sends few of them.
REFUSED = {"refused-4": vip4(50), "refused-6": vip6(51)}
TUNNELS = [n for n, (_, forward, _) in WAYS.items() if forward in ("ipip", "gue", "gre")]
NEED_PROGRAM = [n for n, (_, forward, _) in WAYS.items() if forward != "dsr-l2"]
# Its checks are of its own kind: to the backend's address, as the operator says.
STRAIGHT = "straight"


def services(scene):
    found = []
    for name, (vip, forward, v6) in WAYS.items():
        kind = "gre" if name == "direct-6" else name.split("-", maxsplit=1)[0]
        datagrams = kind in ("udp", "dns")
        one = service(scene, name, vip, forward, health=KINDS.get(kind, HTTP_HEALTH),
                      ipv6_backends=v6, protocol="udp" if datagrams else "tcp",
                      port=53 if datagrams else 80)
        if forward == "dsr-dscp":
            for backend in one["backends"]:
                backend["dscp"] = DSCP
        found.append(one)
    found.append(service(scene, STRAIGHT, vip4(46), "ipip",
                         health={**HTTP_HEALTH, "via": "direct"}))
    for name, vip in REFUSED.items():
        found.append(service(scene, name, vip, "ipip" if vip == vip4(50) else "gue", port=9,
                             protocol="udp", ipv6_backends=False,
                             health={"type": "udp", "receive": "none", "interval": "3s",
                                     "timeout": "300ms", "rise": 3, "fall": 1}))
    return found


def environment(lab, name):
    return {"SLUICE_RUN_DIR": str(lab.path(f"backend-{name}", "x").parent)}


def build(lab):
    """build() makes the scene: two segments, so that the backends do not answer the balancer by
    the way that their answers to clients take."""
    scene = Scene(lab, backends=3, segments=2)
    binaries = Binaries()
    scene.start_nginx()
    for name in scene.backends:
        lab.start(name, f"echo-{name}", [binaries.flowgen, "serve", "--name", name, "--listen",
                                         f"0.0.0.0:{ECHO_PORT}", "--listen", f"[::]:{ECHO_PORT}"])
        lab.start(name, f"dns-{name}",
                  ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root",
                   "--no-hosts", "--no-resolv", "--pid-file=", "--local=/test/",
                   "--host-record=www.example.test,192.0.2.1"])
        set_up_backend(scene, name, binaries,
                       tunnel=[WAYS[w][0] for w in TUNNELS] + [vip4(46)],
                       direct=[vip for vip, forward, _ in WAYS.values() if forward == "dsr-l2"])
        lab.run(name, [binaries.backend_setup, "up", "--interface", "eth0", "--mode", "dsr-dscp",
                       "--dscp", DSCP, "--object", binaries.bpf / "decap.bpf.o",
                       *(word for w in WAYS if w.startswith("dscp")
                         for word in ("--vip", WAYS[w][0]))], env=environment(lab, name))
    # Strict, as hardened hosts have it.
    lab.run("edge", ["sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=1"])
    balancer = Balancer(scene, binaries)
    balancer.start()
    balancer.apply(services(scene))
    return scene, balancer


def wait_for(scene, balancer, up):
    """wait_for() waits until of each service (all but STRAIGHT) the backends up(name) are up."""
    for name, (_, _, v6) in WAYS.items():
        balancer.wait_for_health(name, [scene.address(b, v6) for b in up(name)])


def links(lab):
    shown = json.loads(lab.run("edge", ["ip", "-json", "link", "show"]).stdout)
    return {row["ifname"] for row in shown if row["ifname"].startswith(("slp-", "slq-"))}


def filters(lab, interface="down0"):
    return lab.run("edge", ["tc", "filter", "show", "dev", interface, "ingress"]).stdout


def direct_checks(scene, balancer):
    rows = balancer.backends(STRAIGHT)
    return {a for a, row in rows.items() if row["health"] == "up" and row["probe"] == "direct"} == {
        scene.address(b) for b in scene.backends}


def found_dead(lab, checks, scene, balancer):
    everybody = list(scene.backends)
    wait_for(scene, balancer, lambda name: everybody)
    checks.check(all(row["probe"] == "data-path" for name in WAYS
                     for row in balancer.backends(name).values()),
                 f"{len(WAYS)} services of 3 backends are healthy, by the data path")
    for name in REFUSED:
        rows = balancer.backends(name).values()
        checks.check({(r["health"], r["probe"], r["health_text"]) for r in rows} ==
                     {("down", "data-path", "port unreachable (ICMP)")},
                     f"{name}: an ICMP error comes back by the data path", list(rows))
    wait_until(lambda: direct_checks(scene, balancer), 10, "the direct checks")
    for name in ("ipip-6in6", "direct-4", "dscp-4"):
        report = balancer.load(WAYS[name][0], 80, connections=3, requests=6)
        checks.check(report["requests_ok"] == 6, f"{name}: clients are served as well", report)

    checks.title("b1 loses its VIPs, b2 its decapsulation")
    for vip in VIPS:
        lab.ip("b1", f"address del {vip}/{128 if ':' in vip else 32} dev lo")
    wait_for(scene, balancer, lambda name: ["b2", "b3"])
    checks.check(True, "b1 without the VIPs is found dead for all services")
    lab.ip("b2", "link set dev eth0 xdp off")
    wait_for(scene, balancer, lambda name: ["b3"] if name in NEED_PROGRAM else ["b2", "b3"])
    checks.check(True, "b2 without the program is found dead where it needs it, and only there")
    checks.check(direct_checks(scene, balancer), "the direct checks have noticed nothing of it")

    checks.title("b1 is mended")
    scene.add_vip("b1", *VIPS)
    wait_for(scene, balancer,
             lambda name: ["b1", "b3"] if name in NEED_PROGRAM else everybody)
    checks.check(True, "b1 with the VIPs is healthy again")


def vip_on_the_balancer(lab, checks, scene, balancer):
    checks.title("the VIPs are the balancer's own addresses, too")
    before = {name: balancer.backends(name) for name in WAYS}
    lab.ip("edge", *(f"address add {vip}/{128 if ':' in vip else 32} dev lo" +
                     (" nodad" if ":" in vip else "") for vip in VIPS))
    # A new state: every target is probed anew, none keeps what was known.
    changed = services(scene)
    for s in changed:
        s["name"] = f"{s['name']}-2"
    balancer.apply(changed)
    for name in WAYS:
        up = [a for a, row in before[name].items() if row["health"] == "up"]
        balancer.wait_for_health(f"{name}-2", up)
    checks.check(True, "health is seen as before")
    balancer.apply(services(scene))
    wait_for(scene, balancer, lambda name: ["b1", "b3"] if name in NEED_PROGRAM
             else scene.backends)


def pair_of(lab):
    return {name: Path(f"/sys/class/net/{name}") for name in sorted(links(lab))}


def shown(lab, path):
    return lab.run("edge", ["cat", path], check=False).stdout.strip()


def meddling(lab, checks, scene, balancer):
    checks.title("somebody meddles with the pair")
    near, far = sorted(links(lab))
    checks.check({shown(lab, p / "addr_assign_type") for p in pair_of(lab).values()} == {"3"},
                 "its MAC addresses are set: nobody else chooses others")
    index = Path(f"/sys/class/net/{near}/ifindex")
    for what, command in (("another MAC address", f"link set {near} address 02:00:00:00:00:77"),
                          ("down", f"link set {near} down"),
                          ("far end down", f"link set {far} down"),
                          ("no addresses", f"address flush dev {near}")):
        before = shown(lab, index)
        lab.ip("edge", command)
        wait_until(lambda b=before: shown(lab, index) not in ("", b), 15, f"a new pair: {what}")
    lab.run("edge", ["tc", "qdisc", "del", "dev", far, "clsact"])
    wait_until(lambda: "sluice_probe_tx" in filters(lab, far), 15, "the filter of the far end")
    wait_for(scene, balancer, lambda name: ["b1", "b3"] if name in NEED_PROGRAM
             else scene.backends)
    checks.check(True, "it is made anew each time, and health is seen as before")


def refused(checks, scene, balancer):
    one = service(scene, "bad", vip4(47), "nat", health={**HTTP_HEALTH, "via": "data-path"})
    path = balancer.lab.path("bad.yaml")
    path.write_text(json.dumps({"services": [one]}))
    for verb in ("check", "apply"):
        result = balancer.sluice(verb, "-f", path, check=False)
        checks.check(result.returncode == 1 and "health.via: data-path is impossible with "
                     "forward: nat" in result.stderr, f"{verb} refuses data-path with nat",
                     result.stderr)


def restarts(lab, checks, scene, balancer):
    checks.title("restarts")
    # Somebody else's filter on the same qdisc.
    lab.run("edge", ["tc", "filter", "add", "dev", "down0", "ingress", "pref", "77", "protocol",
                     "all", "bpf", "bytecode", "1,6 0 0 0", "flowid", "1:1"])
    pair = links(lab)
    checks.check(len(pair) == 2 and "sluice_probe_rx" in filters(lab),
                 "one pair of interfaces, a filter on the uplink", filters(lab))
    balancer.restart_controlplane(signal.SIGKILL)
    balancer.apply(services(scene)[:1] + services(scene)[5:7])
    for name in ("ipip-4in4", "direct-4"):
        v6 = WAYS[name][2]
        balancer.wait_for_health(name, [scene.address(b, v6) for b in (
            ("b1", "b3") if name in NEED_PROGRAM else scene.backends)])
    lab.ip("b3", f"address del {WAYS['direct-4'][0]}/32 dev lo")
    balancer.wait_for_health("direct-4", [scene.address(b) for b in ("b1", "b2")])
    checks.check(links(lab) == pair and filters(lab).count(":[") == 1,
                 "after kill -9: the same names, one filter, and b3 without the VIP is found dead",
                 filters(lab))
    codes = balancer.stop()
    left = filters(lab)
    checks.check(codes == (0, 0) and not links(lab) and "sluice_probe_rx" not in left
                 and "pref 77 " in left, "at the end nothing of ours is left, all of others is",
                 left)


def without_rights(lab, checks, scene, balancer):
    checks.title("a control plane that may not")
    process = lab.start("edge", "unprivileged", [
        "setpriv", "--bounding-set=-net_admin,-bpf,-sys_admin,-perfmon",
        balancer.binaries.controlplane, "--node", balancer.node_file], env=balancer.environment())
    process.wait_for_output("ready", 20)
    wanted = services(scene)[:1]
    balancer.apply(wanted)
    balancer.wait_for_health("ipip-4in4", [scene.address(b) for b in scene.backends])
    shown = {row["probe"] for row in balancer.backends("ipip-4in4").values()}
    told = process.log.read_text().count("health checks go straight to the backends")
    checks.check(shown == {"direct"} and told == 1, "its checks are direct, and it says so once",
                 f"{shown}, {told} times")
    wanted[0]["health"] = {**wanted[0]["health"], "via": "data-path"}
    path = lab.path("insist.yaml")
    path.write_text(json.dumps({"services": wanted}))
    result = balancer.sluice("apply", "-f", path, check=False)
    checks.check(result.returncode == 1 and "services[ipip-4in4].health.via: data-path is "
                 "impossible: " in result.stderr, "data-path is refused", result.stderr)
    process.stop()


def few_rights(lab, checks, scene, balancer):
    checks.title("a control plane with the rights it needs and no more")
    process = lab.start("edge", "few-rights", [
        "setpriv", "--bounding-set=-sys_admin", balancer.binaries.controlplane,
        "--node", balancer.node_file], env=balancer.environment())
    process.wait_for_output("ready", 20)
    balancer.apply(services(scene)[:1])
    wait_until(lambda: "sluice_probe_rx" in filters(lab) and {
        row["probe"] for row in balancer.backends("ipip-4in4").values()} == {"data-path"},
        15, "checks by the data path")
    process.stop()
    checks.check("sluice_probe_rx" not in filters(lab) and not links(lab),
                 "it leaves nothing either", filters(lab))


def scenario(lab, checks):
    scene, balancer = build(lab)
    found_dead(lab, checks, scene, balancer)
    vip_on_the_balancer(lab, checks, scene, balancer)
    meddling(lab, checks, scene, balancer)
    refused(checks, scene, balancer)
    restarts(lab, checks, scene, balancer)
    without_rights(lab, checks, scene, balancer)
    few_rights(lab, checks, scene, balancer)


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("probe"), scenario))
