# SPDX-License-Identifier: Apache-2.0
"""Checks of a scenario: each is told as it is made, and counted."""

import sys
import time
import traceback

from .process import LabError

SKIPPED = 77


class Checks:
    def __init__(self, out=sys.stdout):
        self.out = out
        self.passed = 0
        self.failures = []
        self.began = time.monotonic()
        self.colour = out.isatty()

    def say(self, text=""):
        print(text, file=self.out, flush=True)

    def title(self, text):
        self.say()
        self.say(f"\033[1m{text}\033[0m" if self.colour else text)

    def figure(self, text):
        self.say(f"       {text}")

    def check(self, held, what, detail=""):
        """check() says PASS or FAIL and what; detail is shown where it failed. Returns held."""
        held = bool(held)
        word = "PASS" if held else "FAIL"
        if self.colour:
            word = f"\033[3{2 if held else 1}m{word}\033[0m"
        self.say(f"  {word} {what}")
        if held:
            self.passed += 1
        else:
            self.failures.append(what)
            for line in str(detail).rstrip().split("\n") if detail else ():
                self.say(f"       {line}")
        return held

    def error(self, text):
        self.check(False, text)

    def seconds(self):
        return time.monotonic() - self.began

    def exit_code(self):
        return 0 if self.passed and not self.failures else 1


def run_scenario(make_lab, scenario):
    """run_scenario() runs scenario(lab, checks) in a new lab; returns the exit code.

    Whatever fails, the logs' ends are shown and the lab is removed."""
    checks = Checks()
    try:
        lab = make_lab()
    except LabError as error:
        print(f"skipped: {error}")
        return SKIPPED
    with lab:
        try:
            scenario(lab, checks)
        except LabError as error:
            checks.error(str(error))
        except Exception:
            checks.error("the scenario itself went wrong:\n" + traceback.format_exc())
        if checks.failures:
            lab.show_logs()
    checks.say(f"{checks.passed} checks passed, {len(checks.failures)} failed, "
               f"{checks.seconds():.1f} s")
    return checks.exit_code()
