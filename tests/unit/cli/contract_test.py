#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The verbs that scripts may rely on: each is there, and its --help has an example. What they do
is in tests/end_to_end/test_cli.py and the scenarios."""

import subprocess
import sys

# As the contract writes them; a verb in parentheses has subcommands.
CONTRACT = """
status
get get.services get.backends get.nodes get.workers get.ports get.config
apply diff check
service service.add service.set service.remove
backend backend.add backend.set backend.drain backend.undrain backend.force backend.remove
stats top drops events heartbeat
connections connections.list connections.count connections.flush
explain replay capture doctor
history rollback
node node.drain node.undrain node.ready
backup backup.create backup.list backup.verify restore
import import.ipvsadm import.keepalived
"""


def main():
    cli = sys.argv[1]
    failed = []
    verbs = [word.split(".") for word in CONTRACT.split()]
    for verb in [[], *verbs]:
        got = subprocess.run([cli, *verb, "--help"], capture_output=True, text=True, check=False,
                             timeout=20)
        name = " ".join(["sluice", *verb])
        if got.returncode != 0:
            failed.append(f"{name}: is not there: {got.stderr.strip()}")
        elif f"Example: {name}" not in got.stdout:
            failed.append(f"{name} --help: no line that begins with 'Example: {name}'")
    # And nothing that is not in the list: what is there is relied on.
    for verb in [[], *(v for v in verbs if any(w[:-1] == v for w in verbs))]:
        text = subprocess.run([cli, *verb, "--help"], capture_output=True, text=True,
                              check=False).stdout
        shown = [line.split()[0] for line in text.partition("Subcommands:\n")[2].splitlines()
                 if line.startswith("  ") and not line.startswith("   ")]
        listed = [v[-1] for v in verbs if v[:-1] == verb]
        if sorted(shown) != sorted(listed):
            failed.append(f"{' '.join(['sluice', *verb])}: has {set(shown) ^ set(listed)}, which "
                          "help and contract do not agree on")
    for line in failed:
        print(f"FAIL: {line}")
    print(f"{len(verbs)} verbs")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
