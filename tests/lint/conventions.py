#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The tree's conventions that no other tool checks: the licence line, #pragma once, whitespace,
no paths of somebody's machine; a file of more than 600 lines is mentioned."""

import re
import sys

import common

APACHE = "SPDX-License-Identifier: Apache-2.0"
DUAL = "SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)"
# Compiled into BPF objects as well, whose licence the kernel looks at.
BPF_HEADERS = re.compile(r"^dataplane/abi/.*\.h$")

SOURCES = (".cpp", ".hpp", ".c", ".h", ".py", ".sh", ".def")
TEXT = SOURCES + (".md", ".yaml", ".yml", ".txt", ".build", ".service", ".conf", "")
LONG = 600

# In pieces, so that this file passes.
MACHINE_PATHS = re.compile(r"(?<![\w.])(/" + "work/|/" + "root/|/" + "home/[a-z]|/tmp/"
                           + "bash_jobs|/" + "Users/)")


def licence(path, lines):
    head = "\n".join(lines[:3])
    if str(path).startswith("bpf/"):
        wanted = (DUAL,)
    elif BPF_HEADERS.match(str(path)):
        wanted = (APACHE, DUAL)
    else:
        wanted = (APACHE,)
    first = lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]
    if not any(w in first for w in wanted) and not (
            BPF_HEADERS.match(str(path)) and "SPDX-License-Identifier:" in first):
        return f"the first line shall be: {wanted[0]}" + (
            " (it is further down)" if wanted[0] in head else "")
    return None


def check(root):
    findings = []
    for path in common.files_of(root):
        name = str(path)
        if path.suffix not in TEXT or name == "LICENSE" or "/corpus/" in name:
            continue
        data = (root / path).read_bytes()
        if b"\0" in data:
            continue
        lines = data.decode("utf-8", errors="replace").split("\n")
        script = lines[0].startswith("#!")
        if path.suffix in SOURCES or script:
            wrong = licence(path, lines)
            if wrong:
                findings.append(f"{name}:1: {wrong}")
        if path.suffix == ".hpp" and "#pragma once" not in lines:
            findings.append(f"{name}:1: no #pragma once")
        for number, line in enumerate(lines, 1):
            if MACHINE_PATHS.search(line):
                findings.append(f"{name}:{number}: a path of somebody's machine")
            if path.suffix != ".md" and line != line.rstrip():
                findings.append(f"{name}:{number}: white space at the end of the line")
        if data and not data.endswith(b"\n"):
            findings.append(f"{name}:{len(lines)}: no newline at the end")
        if len(lines) > LONG and (path.suffix in SOURCES or script):
            print(f"{name}: note: {len(lines)} lines; more than {LONG} ask to be split")
    return findings


def self_test():
    head = f"// {APACHE}\n"
    return common.expect(check, [
        ("clean", {"a/x.hpp": head + "#pragma once\n", "a/y": f"#!/bin/sh\n# {APACHE}\n"}, 0),
        ("no licence", {"a/x.cpp": "int x;\n"}, 1),
        ("no licence in a script", {"a/x": "#!/bin/sh\necho\n"}, 1),
        ("the wrong licence in bpf", {"bpf/x.bpf.c": head}, 1),
        ("no pragma once", {"a/x.hpp": head}, 1),
        ("machine path", {"a/x.cpp": head + '// see /' + 'work/x\n'}, 1),
        ("trailing space", {"a/x.cpp": head + "int x; \n"}, 1),
        ("no newline", {"a/x.cpp": head + "int x;"}, 1),
    ])


if __name__ == "__main__":
    sys.exit(common.main(__doc__, check, self_test))
