#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What may not be in the folders that run for every packet: allocation, locks, exceptions,
logging, virtual calls.

Code there that does not run per packet is marked: "// lint: cold" on the line or alone on the
line before, "// lint: cold begin" and "// lint: cold end" around several, or "// lint: cold
file" in a file of which nothing does."""

import re
import sys

import common

HOT = ("dataplane/packet/", "dataplane/connection/", "dataplane/path/")

TOKENS = [
    (re.compile(r"\bnew\b"), "allocates"),
    (re.compile(r"\b(malloc|calloc|realloc|free|aligned_alloc|mmap)\s*\("), "allocates"),
    (re.compile(r"\bstd::(make_unique|make_shared)\b"), "allocates"),
    (re.compile(r"\bstd::(mutex|shared_mutex|recursive_mutex|lock_guard|unique_lock|scoped_lock|"
                r"condition_variable)\b"), "locks"),
    (re.compile(r"\bthrow\b"), "throws"),
    (re.compile(r"\b(spdlog::|fmt::print|std::(cout|cerr|clog|print)\b|"
                r"v?[fd]?printf\s*\(|syslog\s*\()"), "logs"),
    (re.compile(r"\bvirtual\b"), "is a virtual call"),
    (re.compile(r"\bdynamic_cast\b"), "needs RTTI"),
    (re.compile(r"(?<!asm )(?<!asm__ )\bvolatile\b"), "is no way to share memory"),
]
# A source file may have a set-up function beside the hot ones; a header's type is used by
# both, so that what it contains is in the hot path.
HEADER_TOKENS = [
    (re.compile(r"\bstd::(vector|string|deque|list|map|set|unordered_map|unordered_set|function|"
                r"shared_ptr|any)\b"), "allocates"),
]

MARK = re.compile(r"//\s*lint: cold(?:\s+(begin|end|file))?\b")


def check(root):
    findings = []
    for path in common.files_of(root):
        if not str(path).startswith(HOT) or path.suffix not in common.CPP + common.C:
            continue
        tokens = TOKENS + (HEADER_TOKENS if path.suffix == ".hpp" else [])
        lines = common.lines_of(root / path)
        cold = any((m := MARK.search(line)) and m[1] == "file" for line in lines)
        cold_next = False
        begun = 0
        for number, (line, code) in enumerate(zip(lines, common.strip_comments(lines)), 1):
            mark = MARK.search(line)
            if mark and mark[1] == "begin":
                cold, begun = True, number
            elif mark and mark[1] == "end":
                cold, begun = False, 0
            skip = cold or cold_next or bool(mark)
            cold_next = bool(mark) and not mark[1] and not code.strip()
            if skip or code.lstrip().startswith("#include"):
                continue
            for pattern, why in tokens:
                match = pattern.search(code)
                if match:
                    findings.append(f"{path}:{number}: {match[0].strip()} {why}; where it does "
                                    "not run per packet, mark it: // lint: cold")
        if cold and begun:
            findings.append(f"{path}:{begun}: 'lint: cold begin' without an end")
    return findings


def self_test():
    def tree(text, name="dataplane/packet/x.hpp"):
        return {name: text}

    return common.expect(check, [
        ("clean", tree("inline int f() { return 1'000; }  // a new one, malloc(3)\n"), 0),
        ("new", tree("int* p = new int;\n"), 1),
        ("malloc", tree("void* p = malloc(4);\n"), 1),
        ("vector in a header", tree("std::vector<int> v;\n"), 1),
        ("vector in a source", tree("std::vector<int> v;\n", "dataplane/path/x.cpp"), 0),
        ("mutex", tree("std::mutex m;\n"), 1),
        ("throw", tree("if (x) throw 1;\n"), 1),
        ("log", tree('spdlog::info("x");\n'), 1),
        ("printf", tree('std::printf("x");\n'), 1),
        ("virtual", tree("virtual void f();\n"), 1),
        ("in a literal", tree('auto t = "throw new";\n'), 0),
        ("in a block comment", tree("/* throw\n new */ int x;\n"), 0),
        ("marked", tree("int* p = new int;  // lint: cold: once at start\n"), 0),
        ("marked before", tree("// lint: cold\nint* p = new int;\nint* q = new int;\n"), 1),
        ("region", tree("// lint: cold begin\nthrow 1;\nthrow 2;\n// lint: cold end\nthrow 3;\n"),
         1),
        ("region without end", tree("// lint: cold begin\nthrow 1;\n"), 1),
        ("cold file", tree("throw 1;\n// lint: cold file: set-up\nthrow 2;\n"), 0),
        ("not hot", tree("throw 1;\n", "dataplane/port/x.cpp"), 0),
    ])


if __name__ == "__main__":
    sys.exit(common.main(__doc__, check, self_test))
