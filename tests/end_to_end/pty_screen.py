# SPDX-License-Identifier: Apache-2.0
"""A program in a terminal of a given size, and what is on its screen."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

import pyte


class Terminal:
    """The program runs until close(), at the latest."""

    def __init__(self, command, columns=80, rows=24, env=None, cwd=None):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.code = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                if cwd:
                    os.chdir(cwd)
                os.execvpe(str(command[0]), [str(word) for word in command],
                           {**(env or os.environ), "TERM": "xterm"})
            finally:
                os._exit(127)
        self.resize(columns, rows)

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def lines(self):
        return [line.rstrip() for line in self.screen.display]

    def text(self):
        return "\n".join(self.lines())

    def _read(self, seconds):
        """Takes in what comes; False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            piece = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the other side any more
            return False
        self.stream.feed(piece)
        return bool(piece)

    def wait_for(self, condition, seconds=10):
        """wait_for() reads until condition(text) holds; False: it did not in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition(self.text()):
                return True
            if not self._read(0.05):
                return condition(self.text())
        return False

    def wait(self, seconds=10):
        """wait() returns the exit code, None if it goes on."""
        end = time.monotonic() + seconds
        while self.code is None and time.monotonic() < end:
            self._read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.code = -signal.SIGKILL
        os.close(self.fd)
