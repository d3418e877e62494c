# SPDX-License-Identifier: Apache-2.0
"""Sockets of this process in the namespaces of a lab: a socket stays in the namespace that
it was made in."""

import contextlib
import ctypes
import os
import select
import socket
import threading

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(lab, short):
    """The calling thread is in the namespace for the block."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{lab.namespaces[short]}", os.O_RDONLY)
    try:
        if _libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            _libc.setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
        os.close(there)


def new_socket(lab, short, *arguments):
    with inside(lab, short):
        return socket.socket(*arguments)


def packet_socket(lab, short, interface):
    """Every frame that arrives at an interface; sends whole frames out of it."""
    with inside(lab, short):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        sock.bind((interface, 0))
    return sock


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class EchoServer:
    """TCP and UDP echo on one address and port; remembers who asked."""

    def __init__(self, lab, short, address, port):
        self.peers = []
        kind = family(address)
        self.tcp = new_socket(lab, short, kind, socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.udp = new_socket(lab, short, kind, socket.SOCK_DGRAM)
        for sock in (self.tcp, self.udp):
            sock.bind((address, port))
        self.tcp.listen(16)
        for target in (self._serve_tcp, self._serve_udp):
            threading.Thread(target=target, daemon=True).start()

    def _serve_tcp(self):
        while True:
            connection, peer = self.tcp.accept()
            self.peers.append(peer[0])
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection):
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def _serve_udp(self):
        while True:
            data, peer = self.udp.recvfrom(65536)
            self.peers.append(peer[0])
            self.udp.sendto(data, peer)


def tcp_echo(lab, short, address, port, data, timeout=5.0):
    """Sends data, returns what came back by the end."""
    with new_socket(lab, short, family(address), socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address, port))

        def send():
            with contextlib.suppress(OSError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        received = bytearray()
        while part := sock.recv(65536):
            received += part
        sender.join()
        return bytes(received)


def udp_echo(lab, short, address, port, data, timeout=2.0):
    with new_socket(lab, short, family(address), socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.sendto(data, (address, port))
        return sock.recv(65536)


class Recorders:
    """UDP servers at the backends, in one thread: each answers with its name and keeps what
    came. where: {backend: [(address, port)]}; seen: (backend, port, peer, data)."""

    def __init__(self, lab, where):
        self.seen = []
        self.sockets = {}
        for name, places in where.items():
            with inside(lab, name):
                for address, port in places:
                    sock = socket.socket(family(address), socket.SOCK_DGRAM)
                    sock.bind((address, port))
                    self.sockets[sock] = (name, port)
        self.running = True
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while self.running:
            for sock in select.select(list(self.sockets), [], [], 0.1)[0]:
                # The client may have no way back: some of the sources do not exist.
                with contextlib.suppress(OSError):
                    data, peer = sock.recvfrom(65535)
                    self.seen.append((*self.sockets[sock], peer[0], data))
                    sock.sendto(self.sockets[sock][0].encode(), peer)

    def stop(self):
        self.running = False
        self.thread.join()
        for sock in self.sockets:
            sock.close()


class Flows:
    """UDP flows from the client's namespace, one socket each. sources: [(address, how many)]"""

    def __init__(self, lab, vip, port, sources):
        self.target = (vip, port)
        self.sockets = []
        with inside(lab, "client"):
            for source, many in sources:
                for _ in range(many):
                    sock = socket.socket(family(vip), socket.SOCK_DGRAM)
                    sock.bind((source, 0))
                    self.sockets.append(sock)

    def send(self, text, only=None):
        """send() has each flow (only: those) send "TEXT NUMBER"; returns what was sent."""
        sent = []
        for i in range(len(self.sockets)) if only is None else only:
            sent.append(f"{text} {i}".encode())
            self.sockets[i].sendto(sent[-1], self.target)
        return sent

    def close(self):
        for sock in self.sockets:
            sock.close()
