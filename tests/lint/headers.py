#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every header of the interface and of the packet path compiles alone."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import common

FOLDERS = ("dataplane/abi/", "dataplane/packet/", "dataplane/connection/", "dataplane/path/")


def flags(root):
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra",
               "-Werror", f"-I{root}", "-x", "c++", "-"]
    # DPDK's as system headers, as meson.build has it.
    result = subprocess.run(["pkg-config", "--cflags", "libdpdk"], capture_output=True, text=True,
                            check=False)
    if result.returncode == 0:
        command += [f.replace("-I", "-isystem") for f in result.stdout.split()]
    return command


def check(root):
    paths = [p for p in common.files_of(root)
             if p.suffix in (".hpp", ".h") and str(p).startswith(FOLDERS)]
    command = flags(root)

    def compile_alone(path):
        result = subprocess.run(command, input=f'#include "{path}"\n', capture_output=True,
                                text=True, check=False)
        if result.returncode == 0:
            return None
        return f"{path}:1: does not compile alone:\n" + result.stderr[:2000]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for finding in pool.map(compile_alone, paths) if finding]


def self_test():
    return common.expect(check, [
        ("clean", {"dataplane/abi/x.hpp": "#include <cstdint>\nstd::uint8_t f();\n"}, 0),
        ("needs what it does not include", {"dataplane/abi/x.hpp": "std::uint8_t f();\n"}, 1),
    ])


if __name__ == "__main__":
    sys.exit(common.main(__doc__, check, self_test))
