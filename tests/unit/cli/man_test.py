#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The man pages without a warning of man's, and with every verb and key in them; the completions
in a real bash and a real zsh."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
failed = []


def check(condition, text):
    if not condition:
        failed.append(text)


def run(command, **more):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **more)


def test_page(path, words):
    environment = {"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"}
    got = run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path], env=environment)
    check(got.returncode == 0 and not got.stderr, f"{path.name}: {got.stderr}")
    check(run(["lexgrog", path]).returncode == 0, f"{path.name}: no NAME that whatis would find")
    text = run(["man", "-E", "UTF-8", "-l", path], env={**environment, "MANWIDTH": "1000"}).stdout
    for word in words:
        check(word in text, f"{path.name}: nothing of {word!r}")


def yaml_keys(section):
    """yaml_keys() are the keys of the tables of one section of docs/configuration.md."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    body = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"(?m)^\| `([a-z][a-z.-]*)`", body)


def complete_bash(script, words):
    code = f"""source {script}
COMP_WORDS=({" ".join(f"'{w}'" for w in words)})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_sluice
printf '%s\\n' "${{COMPREPLY[@]}}" """
    got = run(["bash", "--norc", "-c", code])
    check(not got.stderr, f"bash: {words}: {got.stderr}")
    return got.stdout.split()


def complete_zsh(script, words):
    code = f"""_describe() {{ shift $(( $# - 1 )); print -l -- ${{(P)1%%:*}}; }}
_files() {{ print FILES; }}
compadd() {{ shift; print -l -- $@; }}
words=({" ".join(f"'{w}'" for w in words)})
CURRENT=$#words
source {script}"""
    got = run(["zsh", "-f", "-c", code])
    check(not got.stderr, f"zsh: {words}: {got.stderr}")
    return [line.partition(":")[0] for line in got.stdout.splitlines()]


def test_completion(bash, zsh):
    for shell, complete, script in (("bash", complete_bash, bash), ("zsh", complete_zsh, zsh)):
        for words, wanted, unwanted in (
                (["sluice", ""], ["status", "apply", "backup", "top"], ["--socket", "create"]),
                (["sluice", "get", ""], ["services", "config"], ["status"]),
                (["sluice", "--socket", "/x", "get", ""], ["services"], ["status"]),
                (["sluice", "backup", "create", "-"], ["--kind", "--to", "--timeout"], ["--at"]),
                (["sluice", "backup", "create", "--kind", ""],
                 ["full", "incremental", "differential"], ["--to"]),
                (["sluice", "status", "-o", ""], ["table", "json", "yaml"], []),
                (["sluice", "explain", "--protocol", ""], ["tcp", "udp"], [])):
            found = complete(script, words)
            check(set(wanted) <= set(found) and not set(unwanted) & set(found),
                  f"{shell}: {words}: {found}")
    check(complete_bash(bash, ["sluice", "sta"]) == ["status", "stats"], "bash: sta")
    with tempfile.TemporaryDirectory(prefix="sluice-test-man-") as d:
        Path(d, "services.yaml").touch()
        check(complete_bash(bash, ["sluice", "apply", "-f", f"{d}/serv"]) == [f"{d}/services.yaml"],
              "bash: a file")
        # Names come from a control plane: here from a sluice that knows one.
        fake = Path(d, "sluice")
        fake.write_text("#!/bin/sh\necho NAME ADDRESS\necho web 198.51.100.10\n", encoding="utf-8")
        fake.chmod(0o755)
        got = run(["bash", "--norc", "-c",
                   f"PATH={d}:$PATH; source {bash}; COMP_WORDS=(sluice stats --service ''); "
                   "COMP_CWORD=3; _sluice; echo ${COMPREPLY[@]}"])
        check(got.stdout.split() == ["web"] and not got.stderr, f"bash: services: {got}")


def main():
    missing = [p for p in ("man", "lexgrog", "zsh") if not shutil.which(p)]
    if missing:
        print(f"skipped: {', '.join(missing)} is not there")
        sys.exit(77)
    built = Path(sys.argv[1])
    help_text = run([sys.argv[2], "--help"]).stdout
    verbs = [line.split()[0] for line in help_text.partition("Subcommands:\n")[2].splitlines()
             if re.match(r"  \S", line)]
    check(len(verbs) > 20, f"verbs: {verbs}")
    test_page(built / "sluice.1", [*verbs, "sluice backup create --kind full --to",
                                   "SLUICE_SOCKET", "--if-revision"])
    for daemon in ("dataplane", "controlplane"):
        test_page(built / f"sluice-{daemon}.8", ["--node FILE", "--log-level LEVEL", "--check"])
    test_page(built / "sluice-backend-setup.8", ["sluice-backend-setup check", "--gateway ADDRESS",
                                                 "where tunnels end"])
    for name in ("node", "services"):
        keys = yaml_keys(f"{name}.yaml")
        check(len(keys) > 20, f"{name}.yaml: {keys}")
        test_page(built / f"sluice-{name}.yaml.5", [*keys, "default: "])
    test_completion(built / "sluice", built / "_sluice")
    for line in failed:
        print(f"FAIL: {line}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
