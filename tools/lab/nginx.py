# SPDX-License-Identifier: Apache-2.0
"""Real nginx servers as backends. Each answers with its name, so that a client knows where it
has been, and logs what it served, so that the server can be asked as well."""

import zlib

from .process import LabError, wait_until

BIG_BYTES = 24 * 1024 * 1024

CONFIG = """\
daemon off;
worker_processes 1;
pid {base}/nginx.pid;
error_log {base}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  log_format lab '$msec $remote_addr $remote_port $server_addr $server_port $status '
                 '$connection $request_method $request_uri $body_bytes_sent '
                 '$proxy_protocol_addr';
  access_log {base}/access.log lab;
  client_body_temp_path {base}/tmp-body;
  proxy_temp_path {base}/tmp-proxy;
  fastcgi_temp_path {base}/tmp-fastcgi;
  uwsgi_temp_path {base}/tmp-uwsgi;
  scgi_temp_path {base}/tmp-scgi;
  default_type text/plain;
  keepalive_timeout 300s;
  keepalive_requests 10000000;
  tcp_nodelay on;
  server {{
{listens}
    server_name _;
    add_header X-Backend {name} always;
    location = / {{ return 200 "{name}\\n"; }}
    location = /healthz {{ access_log off; return 200 "ok\\n"; }}
    location = /big {{ alias {big}; limit_rate {rate}; }}
  }}
}}
"""


class Nginx:
    """nginx in a namespace. big_rate: bytes per second of /big, so that a download lasts;
    proxy_ports: where it wants a PROXY protocol header before the request."""

    def __init__(self, lab, short, ports=(80,), big_rate="1m", proxy_ports=()):
        self.lab = lab
        self.short = short
        self.base = lab.path(f"nginx-{short}", "x").parent
        self.access_log = self.base / "access.log"
        self.config = self.base / "nginx.conf"
        listens = "\n".join(f"    listen 0.0.0.0:{p} backlog=4096;\n"
                            f"    listen [::]:{p} ipv6only=on backlog=4096;" for p in ports)
        listens += "".join(f"\n    listen {a}:{p} proxy_protocol;" for p in proxy_ports
                           for a in ("0.0.0.0", "[::]"))
        self.config.write_text(CONFIG.format(base=self.base, name=short, listens=listens,
                                             rate=big_rate, big=big_file(lab)))
        self.ports = ports
        self.process = None

    def start(self):
        self.process = self.lab.start(
            self.short, f"nginx-{self.short}",
            ["nginx", "-c", self.config, "-p", self.base, "-e", self.base / "error.log"])

        def answers():
            if not self.process.running():
                raise LabError(f"nginx in {self.short} ended:\n{self.process.tail()}")
            return self.lab.run(self.short, ["curl", "-s", "-m", "1", "-o", "/dev/null",
                                             f"http://127.0.0.1:{self.ports[0]}/healthz"],
                                check=False).returncode == 0
        wait_until(answers, 10, f"nginx in {self.short}")

    def stop(self):
        self.process.stop()

    def kill(self):
        self.process.kill()

    def requests(self, path="/"):
        """requests() returns what the access log says of a path, oldest first, as dicts."""
        keys = ("time", "client", "client_port", "server", "server_port", "status", "connection",
                "method", "path", "bytes", "proxied")
        if not self.access_log.exists():
            return []
        rows = [dict(zip(keys, line.split())) for line in self.access_log.read_text().split("\n")
                if line]
        return [row for row in rows if path is None or row.get("path") == path]


def big_file(lab, size=BIG_BYTES):
    """big_file() makes the file that /big serves: the same everywhere, and no two blocks of it
    alike, so that its checksum notices a block lost, doubled or out of order."""
    path = lab.path("big")
    if not path.exists():
        with open(path, "wb") as out:
            for block in range(size // 4096):
                out.write((f"{block:015d}\n" * 256).encode())
    return path


def big_crc32(lab):
    return zlib.crc32(big_file(lab).read_bytes())
