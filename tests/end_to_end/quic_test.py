#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""QUIC through a running data plane on AF_XDP: clients that change their address and port stay
on their backend by the server id in their connection id (QUIC-LB, plaintext); what has no known
id goes by its addresses and ports. The packets have QUIC version 1's headers (RFC 9000, section
17); what they carry is not encrypted, as only its first bytes matter here."""

import contextlib
import itertools
import random
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab.checks import run_scenario  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.process import LabError, wait_until  # noqa: E402
from lab.stand import HTTP_HEALTH, Stand, service, vip4, vip6  # noqa: E402
from netns_sockets import Recorders, family, inside  # noqa: E402

PORT = 443
VIPS = (vip4(10), vip6(10))
PLAIN = vip4(11)  # a service that knows nothing of QUIC
IDS = {"b1": "0a01", "b2": "0a02", "b3": "ff17"}
CLIENTS, MOVES = 40, 5
INITIAL, HANDSHAKE = 0, 2
CID_BYTES = 8
# Rotation bits 0, and the length of what follows (draft-ietf-quic-load-balancers, section 3).
FIRST_OCTET = CID_BYTES - 1
UNROUTABLE = 0xe0 | FIRST_OCTET


def connection_id(rnd, server_id, first=FIRST_OCTET):
    nonce = rnd.randbytes(CID_BYTES - 1 - len(server_id) // 2)
    return bytes([first]) + bytes.fromhex(server_id) + nonce


def long_header(kind, destination, source, payload):
    return (bytes([0xc0 | kind << 4]) + (1).to_bytes(4, "big") + bytes([len(destination)]) +
            destination + bytes([len(source)]) + source + payload)


def short_header(destination, payload):
    return bytes([0x40]) + destination + payload


class World:
    """Clients at addresses of their own, servers that say who they are."""

    def __init__(self, lab, checks):
        self.lab, self.checks = lab, checks
        self.rnd = random.Random(11)
        self.serial = itertools.count()

        def services(scene):
            found = []
            for name, vip in (*((f"quic{i}", vip) for i, vip in enumerate(VIPS)),
                              ("plain", PLAIN)):
                s = service(scene, name, vip, protocol="udp", port=PORT, health=HTTP_HEALTH)
                if name != "plain":
                    s["quic"] = {"server-id-length": 2}
                    for backend in s["backends"]:
                        backend["quic-id"] = IDS[scene.by_address(backend["address"])]
                found.append(s)
            return found

        self.stand = Stand(lab, services)
        self.b, self.scene = self.stand.balancer, self.stand.scene
        self.servers = Recorders(lab, {n: [(v, PORT) for v in (*VIPS, PLAIN)]
                                       for n in self.scene.backends})
        self.addresses = {False: [f"10.78.0.{n}" for n in range(1, 11)],
                          True: [f"fd78::{n}" for n in range(1, 11)]}
        lab.ip("client", *(f"address add {a}/32 dev lo" for a in self.addresses[False]),
               *(f"address add {a}/128 dev lo nodad" for a in self.addresses[True]))

    def new_place(self, vip):
        """new_place() is a socket at an address and port where no client was before."""
        with inside(self.lab, "client"):
            sock = socket.socket(family(vip), socket.SOCK_DGRAM)
        sock.bind((self.rnd.choice(self.addresses[":" in vip]), 0))
        return sock

    def where(self, vip, packets):
        """where() sends (socket, packet) each and returns the backends that they arrive at, in
        order; the packet's end is made unique."""
        marked = []
        for sock, packet in packets:
            marked.append(packet + b" packet %08d" % next(self.serial))
            sock.sendto(marked[-1], (vip, PORT))

        def found():
            return {s[3]: s[0] for s in list(self.servers.seen)}
        with contextlib.suppress(LabError):
            wait_until(lambda: found().keys() >= set(marked), 5, "")
        seen = found()
        return [seen.get(m) for m in marked]

    def by_id(self):
        return self.b.counters()["quic_by_id"]


def migrate(w, vip, name, id_of, stays):
    """migrate() has clients open connections and move; returns their sockets and ids."""
    clients = [w.new_place(vip) for _ in range(CLIENTS)]
    # The client chooses the first id; some choose one that looks like a server's.
    chosen = [w.rnd.randbytes(CID_BYTES) if i % 2 else connection_id(w.rnd, IDS["b1"])
              for i in range(CLIENTS)]
    source = w.rnd.randbytes(4)
    before = w.by_id()
    owners = w.where(vip, [(c, long_header(INITIAL, d, source, b"hello"))
                           for c, d in zip(clients, chosen)])
    w.checks.check(None not in owners and len(set(owners)) == 3 and w.by_id() == before,
                   f"{name}: {CLIENTS} Initials arrive by their tuples: "
                   f"{', '.join(f'{owners.count(n)} at {n}' for n in sorted(IDS))}", owners)
    ids = [connection_id(w.rnd, id_of(owner)) for owner in owners]
    places = w.where(vip, [(c, long_header(HANDSHAKE, d, source, b"shake"))
                           for c, d in zip(clients, ids)])
    w.checks.check(places == owners, f"{name}: Handshake packets follow them", places)
    moved_elsewhere, of = 0, 0
    for _ in range(MOVES):
        clients = [w.new_place(vip) for _ in range(CLIENTS)]
        twice = [w.where(vip, [(c, short_header(d, b"data")) for c, d in zip(clients, ids)])
                 for _ in range(2)]
        w.checks.check(None not in twice[0] and twice[0] == twice[1],
                       f"{name}: moved, each client's packets arrive at one backend", twice)
        of += CLIENTS
        moved_elsewhere += sum(a != o for a, o in zip(twice[0], owners))
    if stays:
        w.checks.check(moved_elsewhere == 0 and w.by_id() - before >= 2 * of,
                       f"{name}: {of} moves to another address and port, none to another backend; "
                       f"{w.by_id() - before} packets counted as quic_by_id", moved_elsewhere)
    else:
        w.checks.check(moved_elsewhere > of / 3 and w.by_id() == before,
                       f"{name}: {moved_elsewhere} of {of} moves end at another backend: by the "
                       "tuple", w.by_id() - before)
    return clients, ids, owners


def scenario(lab, checks):
    w = World(lab, checks)
    for vip in VIPS:
        checks.title(f"QUIC to {vip}")
        clients, ids, owners = migrate(w, vip, "known id", IDS.get, True)
        # Everybody takes the place of the next one: its entry in the table is another's.
        others = clients[1:] + clients[:1]
        places = w.where(vip, [(c, short_header(d, b"data")) for c, d in zip(others, ids)])
        checks.check(places == owners, "at a place that was another's: still by the id", places)
        migrate(w, vip, "unknown id", lambda owner: "0bad", False)
    checks.title("Ids that say nothing")
    vip = VIPS[0]
    sock = w.new_place(vip)
    home, = w.where(vip, [(sock, short_header(connection_id(w.rnd, "0bad"), b"data"))])
    away = next(n for n in IDS if n != home)
    before = w.by_id()
    for what, packet in (
            ("which is marked as unroutable", short_header(connection_id(
                w.rnd, IDS[away], UNROUTABLE), b"data")),
            ("in an Initial", long_header(INITIAL, connection_id(w.rnd, IDS[away]), b"", b"x")),
            ("in an unknown version", bytes([0xe0]) + b"\x0a\x0a\x0a\x0a" + bytes([CID_BYTES]) +
             connection_id(w.rnd, IDS[away]) + b"\0")):
        checks.check(w.where(vip, [(sock, packet)]) == [home] and w.by_id() == before,
                     f"an id {what}: by the tuple")
    checks.check(w.where(vip, [(sock, short_header(connection_id(w.rnd, IDS[away]), b"data"))]) ==
                 [away], "the same id where it counts: by the id")
    migrate(w, PLAIN, "a service without quic", IDS.get, False)

    checks.title("Backends that go")
    clients, ids, owners = migrate(w, vip, "before", IDS.get, True)
    s = next(s for s in w.stand.services if s["address"] == vip)
    for x in s["backends"]:
        if x["address"] == w.scene.address("b1"):
            x["admin"] = "draining"
    w.b.apply(w.stand.services)
    clients = [w.new_place(vip) for _ in clients]
    packets = [(c, short_header(d, b"data")) for c, d in zip(clients, ids)]
    places = w.where(vip, packets)
    checks.check("b1" in owners and places == owners,
                 "b1 is drained: its clients keep it, also those that move", places)
    fresh = w.where(vip, [(w.new_place(vip), long_header(INITIAL, w.rnd.randbytes(8), b"", b"x"))
                          for _ in range(CLIENTS)])
    checks.check(set(fresh) == {"b2", "b3"}, "and new ones do not get it", fresh)
    s["backends"] = [x for x in s["backends"] if x["address"] != w.scene.address("b1")]
    w.b.apply(w.stand.services)
    places = w.where(vip, packets)
    checks.check(all(p == o if o != "b1" else p in ("b2", "b3") for p, o in zip(places, owners)),
                 "b1 is removed: its clients go by the tuple, the others stay", places)
    drops = [d for d in w.b.show("drops")["drops"] if d["packets"]]
    checks.check(not drops, "nothing was dropped", drops)
    w.servers.stop()


if __name__ == "__main__":
    sys.exit(run_scenario(lambda: Lab("quic"), scenario))
