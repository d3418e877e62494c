# SPDX-License-Identifier: Apache-2.0
"""Processes of a lab: started in a namespace, logged to a file, waited for with a timeout."""

import os
import signal
import subprocess
import time
from pathlib import Path

from . import state


class LabError(Exception):
    """What went wrong, for the reader of the test's output."""


def wait_until(condition, timeout, what, interval=0.05):
    """wait_until() returns condition()'s first true value; LabError after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:g} s for {what}")
        time.sleep(interval)


class Process:
    """A process of the lab. Its standard output and error are in .log."""

    def __init__(self, lab, name, command, namespace=None, env=None, cpu=None, stdin=None):
        self.lab = lab
        self.name = name
        self.log = lab.directory / "log" / f"{name}.log"
        self.log.parent.mkdir(exist_ok=True)
        self.command = [str(c) for c in command]
        full = (["ip", "netns", "exec", namespace] if namespace else []) + self.command
        if cpu is not None:
            full = ["taskset", "-c", str(cpu), *full]
        with open(self.log, "ab") as out:
            self.offset = out.tell()  # a process started again appends
            # A session of its own: it can be ended with its children, and Ctrl-C at the
            # terminal reaches only the lab, which ends things in order.
            self.popen = subprocess.Popen(full, stdin=stdin or subprocess.DEVNULL, stdout=out,
                                          stderr=subprocess.STDOUT, start_new_session=True,
                                          env={**os.environ, **(env or {})})
        self.pid = self.popen.pid
        self.started = state.start_time(self.pid)
        lab.state.add("processes", [self.pid, self.started])

    def running(self):
        return self.popen.poll() is None

    def output(self):
        """What this process, not one before it under the same name, has printed."""
        with open(self.log, "rb") as log:
            log.seek(self.offset)
            return log.read().decode(errors="replace")

    def tail(self, lines=30):
        rows = self.output().rstrip("\n").split("\n")
        return "\n".join(f"    {self.name}: {row}" for row in rows[-lines:])

    def wait_for_output(self, text, timeout):
        """wait_for_output() waits for a line with text in it; ends early if the process does."""
        def there():
            if text in self.output():
                return True
            if not self.running():
                raise LabError(f"{self.name} ended with {self.popen.returncode} before it said "
                               f"'{text}':\n{self.tail()}")
            return False
        try:
            return wait_until(there, timeout, f"'{text}' from {self.name}")
        except LabError as error:
            if "\n" in str(error):
                raise
            raise LabError(f"{error}:\n{self.tail()}") from None

    def signal(self, number):
        if self.running():
            os.kill(self.pid, number)

    def wait(self, timeout=30):
        """wait() returns the exit code; LabError when it has not ended by then."""
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} did not end within {timeout} s:\n{self.tail()}") from None
        self.lab.state.remove("processes", [self.pid, self.started])
        return code

    def kill(self):
        """kill() ends it at once and without warning, its children too."""
        if self.running():
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait(10)

    def stop(self, grace=10.0):
        """stop() asks it to end, and returns its exit code; LabError when it has to be killed."""
        if self.running():
            os.killpg(self.pid, signal.SIGTERM)
            os.killpg(self.pid, signal.SIGCONT)  # one that is stopped hears nothing else
        try:
            return self.wait(grace)
        except LabError:
            self.kill()
            raise
