#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes man pages and completions from what the programs say of themselves: `sluice describe`,
the daemons' --help, and docs/configuration.md.

  generate.py bash|zsh|sluice.1 OUT SLUICE
  generate.py sluice-dataplane.8|sluice-controlplane.8 OUT PROGRAM
  generate.py sluice-backend-setup.8 OUT tools/backend-setup
  generate.py sluice-node.yaml.5|sluice-services.yaml.5 OUT docs/configuration.md
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree is not for that

import completion  # noqa: E402
import roff  # noqa: E402


def output_of(command):
    # The programs may be sanitized ones, and this is not a test of them.
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0",
                               "COLUMNS": "100"}).stdout


def version_of(program):
    return output_of([program, "--version"]).split()[-1]


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    what, out, source = sys.argv[1:]
    if what in ("bash", "zsh"):
        tree = json.loads(output_of([source, "describe"]))
        text = completion.bash(tree) if what == "bash" else completion.zsh(tree)
    elif what == "sluice.1":
        text = roff.command_page(json.loads(output_of([source, "describe"])), version_of(source))
    elif what == "sluice-backend-setup.8":
        help_of = [sys.executable, "-B", source]
        text = roff.script_page(what[:-2], output_of([*help_of, "--help"]).replace(
            "backend-setup", "sluice-backend-setup").replace("/sluice-backend", "/backend"),
                                output_of([*help_of, "up", "--help"]))
    elif what.endswith(".8"):
        text = roff.daemon_page(what[:-2], output_of([source, "--help"]), version_of(source))
    elif what.endswith(".5"):
        name = what[:-2]  # sluice-node.yaml
        section = re.sub(r"^sluice-", "", name)
        text = roff.file_page(name, section, Path(source).read_text(encoding="utf-8"))
    else:
        sys.exit(__doc__)
    Path(out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
