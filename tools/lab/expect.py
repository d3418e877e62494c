# SPDX-License-Identifier: Apache-2.0
"""check() for tests that end at the first thing that does not hold; those that go on and tell each
have lab.checks."""

_held = 0


def check(condition, text):
    """check() ends the test with what does not hold."""
    global _held
    if not condition:
        raise AssertionError(text)
    _held += 1


def held():
    """held() is how many checks held so far."""
    return _held
