# SPDX-License-Identifier: Apache-2.0
"""What the lints share: which files there are, and how a finding is told."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

CPP = (".cpp", ".hpp")
C = (".c", ".h")


def files_of(root):
    """The files of the tree as paths relative to root: git's, and those that it does not ignore; or
    all, where git knows none."""
    result = subprocess.run(
        ["git", "-c", f"safe.directory={root}", "-C", str(root), "ls-files", "-z",
         "--cached", "--others", "--exclude-standard"],  # what will be added counts, too
        capture_output=True, check=False)
    if result.returncode == 0 and result.stdout:
        names = result.stdout.decode().split("\0")
        return sorted(Path(n) for n in names if n and (root / n).is_file())
    found = []
    for directory, folders, files in os.walk(root):
        folders[:] = [f for f in folders
                      if not f.startswith((".git", "build")) and f != "__pycache__"]
        found += [(Path(directory) / f).relative_to(root) for f in files]
    return sorted(found)


def lines_of(path):
    return path.read_text(encoding="utf-8", errors="replace").split("\n")


def strip_comments(lines):
    """The lines with comments and the contents of literals blanked; columns are lost."""
    in_block = False
    stripped = []
    for line in lines:
        out, i = [], 0
        while i < len(line):
            two = line[i:i + 2]
            if in_block:
                if two == "*/":
                    in_block = False
                    i += 1
            elif two == "//":
                break
            elif two == "/*":
                in_block = True
                i += 1
            elif line[i] == '"' or (line[i] == "'" and not (i and line[i - 1].isalnum())):
                # A quote after a digit is a separator: 1'000'000.
                quote, i = line[i], i + 1
                while i < len(line) and line[i] != quote:
                    i += 2 if line[i] == "\\" else 1
                out.append(quote * 2)
            else:
                out.append(line[i])
            i += 1
        stripped.append("".join(out))
    return stripped


def main(description, check, self_test):
    """The command line of a lint: check(root) and self_test() return lists of findings."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, default=REPOSITORY)
    parser.add_argument("--self-test", action="store_true",
                        help="check that the lint finds what it is there to find")
    arguments = parser.parse_args()
    findings = self_test() if arguments.self_test else check(arguments.root.resolve())
    for finding in findings:
        print(finding)
    name = Path(sys.argv[0]).stem
    print(f"{name}: {len(findings)} finding(s)" if findings else f"{name}: clean")
    return 1 if findings else 0


def expect(check, cases):
    """expect() runs check on trees of one or more files each and compares.

    cases: (title, {path: text}, number of findings wanted). Returns what is wrong."""
    wrong = []
    for title, files, wanted in cases:
        with tempfile.TemporaryDirectory(prefix="sluice-lint-") as directory:
            root = Path(directory)
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            found = check(root)
            if len(found) != wanted:
                wrong.append(f"{title}: {wanted} finding(s) wanted, {len(found)} there: {found}")
    return wrong
