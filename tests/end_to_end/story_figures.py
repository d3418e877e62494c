# SPDX-License-Identifier: Apache-2.0
"""The figures of a story (docs/failover.md): what clients notice of something that happened to some
backends at a moment."""

from lab.process import wait_until
from lab.sluice import request_log


def tell(checks, story, at, shown, fresh, kept=(), gone=()):
    """tell() prints the figures, and returns the log of the fresh loads since `at`.

    shown: when the tables showed what followed; fresh: loads whose every request is a connection of
    its own; kept: loads with long connections; gone: backends that new connections should avoid."""
    # The log is written in pieces.
    wait_until(lambda: all(any(r["began"] >= shown + 0.1 for r in request_log(load))
                           for load in fresh), 10, "the log", 0.1)
    rows = [r for load in fresh for r in request_log(load) if r["began"] >= at]
    bad = [r for r in rows if r["outcome"] != "ok"]
    wrong = [r["began"] for r in rows if r["outcome"] != "ok" or r["backend"] in gone]
    last = f"{(max(wrong) - at) * 1000:.0f} ms" if wrong else "none"
    text = (f"{story}: in the tables after {(shown - at) * 1000:.0f} ms; last misdirected request "
            f"begun after {last}; {len(bad)} of {len(rows)} new connections failed")
    if kept:
        logs = [r for load in kept for r in request_log(load)]
        there = {(r["connection"], r["local"]) for r in logs if r["backend"] in gone}
        broken = {(r["connection"], r["local"]) for r in logs
                  if r["began"] >= at and r["outcome"] != "ok"}
        text += f"; {len(broken)} connections broken ({len(there)} were there)"
    checks.figure(text)
    return rows
