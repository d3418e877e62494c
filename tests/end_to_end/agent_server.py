#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An agent as HAProxy's agent-check asks for: answers each connection with the words that are in a
file at that moment. agent_server.py PORT FILE"""

import socketserver
import sys
from pathlib import Path


class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(Path(sys.argv[2]).read_bytes() + b"\n")


if __name__ == "__main__":
    socketserver.TCPServer.allow_reuse_address = True
    with socketserver.TCPServer(("0.0.0.0", int(sys.argv[1])), Answer) as server:
        print("ready", flush=True)
        server.serve_forever()
