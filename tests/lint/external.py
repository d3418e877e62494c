#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The lints that are other projects' programs, each over the files it is for:

  format    clang-format --dry-run (with --fix: formats)
  shell     shellcheck
  python    compiles
  spelling  codespell (words it should leave alone: tests/lint/words.txt)
  tidy      clang-tidy, over the compilation database of build/ (slow)
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import common

SKIPPED = 77


def is_script(root, path, word):
    with open(root / path, "rb") as file:
        first = file.readline(80)
    return first.startswith(b"#!") and word in first


def shell_files(root, files):
    return [p for p in files if p.suffix == ".sh" or
            (p.suffix == "" and (is_script(root, p, b"/sh") or is_script(root, p, b"bash")))]


def python_files(root, files):
    return [p for p in files if p.suffix == ".py" or
            (p.suffix == "" and is_script(root, p, b"python"))]


def c_files(files):
    return [p for p in files if p.suffix in common.CPP + common.C]


def need(program):
    if shutil.which(program) is None:
        print(f"{program} is not installed (tools/setup installs it)")
        sys.exit(SKIPPED)


def run(command, files, root):
    if not files:
        print("no file to look at")
        return 1
    # In lots, so that the command line never gets too long.
    code = 0
    for start in range(0, len(files), 200):
        lot = [str(f) for f in files[start:start + 200]]
        code |= subprocess.run([*command, *lot], cwd=root, stdin=subprocess.DEVNULL,
                               check=False).returncode
    return 1 if code else 0


def lint_format(root, files, fix):
    need("clang-format")
    mode = ["-i"] if fix else ["--dry-run", "-Werror"]
    return run(["clang-format", "--style=file", *mode], c_files(files), root)


def lint_shell(root, files, _fix):
    need("shellcheck")
    return run(["shellcheck", "--external-sources"], shell_files(root, files), root)


def lint_python(root, files, _fix):
    code = 0
    for path in python_files(root, files):
        try:
            compile((root / path).read_text(encoding="utf-8"), str(path), "exec")
        except SyntaxError as error:
            print(f"{path}:{error.lineno}: {error.msg}")
            code = 1
    return code


def lint_spelling(root, files, _fix):
    need("codespell")
    text = [p for p in files if p.name != "LICENSE" and "/corpus/" not in str(p)
            and p.suffix not in (".pcap", ".bin", ".png", ".svg")]
    return run(["codespell", "--ignore-words", str(root / "tests/lint/words.txt")], text, root)


def lint_tidy(root, files, _fix):
    need("clang-tidy")
    build = root / "build"
    if not (build / "compile_commands.json").exists():
        print("build/compile_commands.json is missing: run tools/test or meson setup build")
        return 1
    sources = [p for p in files if p.suffix == ".cpp" and p.parts[0] != "tests"]
    commands = (build / "compile_commands.json").read_text()
    sources = [p for p in sources if re.search(r"\b" + re.escape(str(p)) + r"\b", commands)]
    jobs = os.cpu_count() or 1
    code = 0
    lots = [sources[i::jobs] for i in range(jobs)]
    running = [subprocess.Popen(["clang-tidy", "--quiet", "-p", str(build), *map(str, lot)],
                                cwd=root, stdin=subprocess.DEVNULL) for lot in lots if lot]
    for process in running:
        code |= process.wait()
    return 1 if code else 0


LINTS = {"format": lint_format, "shell": lint_shell, "python": lint_python,
         "spelling": lint_spelling, "tidy": lint_tidy}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lint", choices=LINTS)
    parser.add_argument("--fix", action="store_true")
    parser.add_argument("--root", type=Path, default=common.REPOSITORY)
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    code = LINTS[arguments.lint](root, common.files_of(root), arguments.fix)
    print(f"{arguments.lint}: " + ("see above" if code else "clean"))
    return code


if __name__ == "__main__":
    sys.exit(main())
