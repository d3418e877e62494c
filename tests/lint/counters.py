#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""docs/counters.md has every counter and drop reason of dataplane/abi/counters.def, and the
stand-in's drop reasons of dataplane/abi/standin_drops.def, in their order and with their words. The last column of the drops, what to do, is written by hand there; --write
makes the rest anew and keeps it."""

import re
import sys

import common

DEFINITIONS = "dataplane/abi/counters.def"
STANDIN = "dataplane/abi/standin_drops.def"
PAGE = "docs/counters.md"
ENTRY = re.compile(r'^SLUICE_(COUNTER|DROP|STANDIN_DROP)\((?:[A-Z_]+,\s*)?(\w+),\s*((?:"(?:[^"\\]|\\.)*"\s*)+)\)', re.MULTILINE)
BEGIN, END = "<!-- {}: made by tests/lint/counters.py --write -->", "<!-- end -->"
HEADS = {"counters": ("counter", "what it counts"), "drops": ("reason", "what happened", "what to do")}


def entries(root):
    """entries() returns [(name, text)] of the counters, and of the drops."""
    found = {"COUNTER": [], "DROP": [], "STANDIN_DROP": []}
    for definitions in (DEFINITIONS, STANDIN):
        if not (root / definitions).exists():
            continue
        for kind, name, literals in ENTRY.findall((root / definitions).read_text()):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals)).replace('\\"', '"')
            found[kind].append((name, text.replace("|", "\\|")))
    return found["COUNTER"], found["DROP"] + found["STANDIN_DROP"]


def remedies(page):
    """remedies() returns {name: text of the third column} of the page's table of drops."""
    table = page.partition(BEGIN.format("drops"))[2].partition(END)[0]
    found = {}
    for line in table.splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)]
        if len(cells) == 5 and (name := re.fullmatch(r"`(\w+)`", cells[1])):
            found[name[1]] = cells[3]
    return found


def table(which, rows):
    head = HEADS[which]
    lines = [BEGIN.format(which), "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join((f"`{row[0]}`", *row[1:])).rstrip() + " |" for row in rows]
    return "\n".join([*lines, END])


def renewed(root, page):
    """renewed() returns the page with its tables made from the list."""
    counters, drops = entries(root)
    known = remedies(page)
    tables = {"counters": counters,
              "drops": [(name, text, known.get(name, "")) for name, text in drops]}
    for which, rows in tables.items():
        before, begin, rest = page.partition(BEGIN.format(which))
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"no table of {which} between its two comments")
        page = before + table(which, rows) + after
    return page


def check(root):
    page_file = root / PAGE
    if not page_file.exists():
        return [f"{PAGE}: is not there"]
    page = page_file.read_text()
    try:
        fresh = renewed(root, page)
    except ValueError as error:
        return [f"{PAGE}: {error}"]
    counters, drops = entries(root)
    if not counters or not drops:
        return [f"{DEFINITIONS}: nothing found in it"]
    findings = []
    if fresh != page:
        at = next(i for i, (a, b) in enumerate(zip(page + "\0", fresh + "\0"), 0) if a != b)
        findings.append(f"{PAGE}:{page.count(chr(10), 0, at) + 1}: differs from {DEFINITIONS}; "
                        "run tests/lint/counters.py --write")
    known = remedies(fresh)
    findings += [f"{PAGE}: {name}: what to do is missing" for name, _ in drops
                 if not known.get(name)]
    return findings


def self_test():
    definitions = 'SLUICE_COUNTER(rx, "received")\nSLUICE_DROP(bad, "a | b")\n'
    page = "# x\n\n" + table("counters", [("rx", "received")]) + "\n\ny\n\n" + \
        table("drops", [("bad", "a \\| b", "look")]) + "\n"

    def case(defs, text):
        return {DEFINITIONS: defs, PAGE: text}
    wrong = common.expect(check, [
        ("clean", case(definitions, page), 0),
        ("a page that is not there", {DEFINITIONS: definitions}, 1),
        ("no remedy", case(definitions, page.replace("look", "")), 2),
        ("another text", case(definitions.replace("received", "got"), page), 1),
        ("a new counter", case(definitions + 'SLUICE_COUNTER(tx, "sent")\n', page), 1),
        ("a new drop", case(definitions + 'SLUICE_DROP(worse, "c")\n', page), 2),
        ("one that is gone", case('SLUICE_COUNTER(rx, "received")\nSLUICE_DROP(z, "z")\n', page), 2),
        ("no table", case(definitions, "# x\n"), 1),
        ("an empty list", case("", page), 1),
        ("a new drop of the stand-in", {
            **case(definitions, page), STANDIN: 'SLUICE_STANDIN_DROP(X, standin_x, "a "\n "b")\n'},
         2),
    ])
    if remedies(page) != {"bad": "look"}:
        wrong.append("remedies are not read")
    return wrong


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        target = common.REPOSITORY / PAGE
        target.write_text(renewed(common.REPOSITORY, target.read_text()))
        sys.exit(0)
    sys.exit(common.main(__doc__, check, self_test))
