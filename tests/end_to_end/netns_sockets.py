# SPDX-License-Identifier: Apache-2.0
"""Sockets of this process in the namespaces of a lab: a socket stays in the namespace that
it was made in."""

import contextlib
import ctypes
import os
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
