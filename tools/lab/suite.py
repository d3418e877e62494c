#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Builds Sluice and runs its tests: what tools/test does once the packages are there.

Three phases, each with a build directory of its own:

  build   everything (build/); every test of every suite
  asan    AddressSanitizer, UBSan and libFuzzer, clang (build-asan/); suite unit, and suite
          fuzz with a short run each
  tsan    ThreadSanitizer (build-tsan/); suite tsan

The last line is "N passed, N failed[, N skipped]". What is counted is cases: a GoogleTest
binary counts with its cases, any other test as one.

While the plain build's tests run, which mostly wait, the sanitized builds are compiled with what
they leave of the machine.
"""

import argparse
import fcntl
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TAIL_LINES = 60
HEARTBEAT_S = 60

SANITIZER_ENV = {
    # UBSan only reports unless told to stop, and a report nobody counts is no test.
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class Phase:
    def __init__(self, name, directory, options, suites=None, env=None, compiler=None,
                 timeout_factor=1, fixed_layout=False):
        self.name = name
        self.directory = ROOT / directory
        self.options = options
        self.suites = suites  # None: all
        self.env = env or {}
        self.compiler = compiler
        self.timeout_factor = timeout_factor
        # The sanitizers' shadow memory and address randomization with many bits do not go
        # together (gcc 12: "unexpected memory mapping").
        self.fixed_layout = fixed_layout


# Compiles in half the time of -O1, and nothing of the code is gone before it is checked. What
# runs per packet has a level of its own.
SANITIZED = {"b_lundef": "false", "optimization": "0"}

PHASES = [
    # Twice the time: a machine for CI can be a slow one.
    Phase("build", "build", {}, timeout_factor=2),
    # clang compiles sanitized code in a third of gcc's time, and unity builds halve that again:
    # this phase is rebuilt as a whole most of the time anyway.
    Phase("asan", "build-asan",
          {"b_sanitize": "address,undefined", "fuzz": "true", "unity": "on", "unity_size": "12",
           **SANITIZED},
          suites={"unit", "fuzz"}, env=SANITIZER_ENV, compiler="clang++", timeout_factor=4,
          fixed_layout=True),
    Phase("tsan", "build-tsan", {"b_sanitize": "thread", **SANITIZED},
          suites={"tsan"}, env=SANITIZER_ENV, timeout_factor=6, fixed_layout=True),
]


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def fail(self, what):
        self.failed += 1
        self.failures.append(what)

    def line(self):
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


START = time.monotonic()
child = None  # the process that runs now, for the signal handler
ahead = None  # what is built meanwhile


def say(text):
    print(f"[{time.monotonic() - START:6.0f} s] {text}", flush=True)


def tail(text, lines=TAIL_LINES):
    rows = text.rstrip("\n").split("\n")
    cut = len(rows) - lines
    shown = "\n".join("    " + row for row in rows[-lines:])
    return (f"    ... {cut} lines before\n" if cut > 0 else "") + shown


def tool(name):
    # Debian's, also where another one is in front of it in PATH.
    path = Path("/usr/bin") / name
    return str(path) if path.exists() else (shutil.which(name) or name)


def run(command, log, env=None, on_line=None, pending=None):
    """run() executes command, its output into log; returns the exit code.

    on_line gets every line; pending() returns what to name when nothing has come for long."""
    global child
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = queue.Queue()
    began = time.monotonic()
    with open(log, "w", encoding="utf-8", errors="replace") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, cwd=ROOT, text=True,
                                 errors="replace", env={**os.environ, **(env or {})})

        def read():
            for line in child.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=HEARTBEAT_S)
            except queue.Empty:
                what = pending() if pending else ""
                say(f"  ... {time.monotonic() - began:.0f} s, still at it{what}")
                continue
            if line is None:
                break
            out.write(line)
            if on_line:
                on_line(line.rstrip("\n"))
        code = child.wait()
        child = None
    return code


def introspect(directory, what):
    result = subprocess.run([tool("meson"), "introspect", str(directory), f"--{what}"],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def configure(phase, werror, execute=run):
    """configure() sets the phase's build directory up, or returns an error text."""
    directory, options = phase.directory, dict(phase.options)
    if werror:
        options["werror"] = "true"
    flags = [f"-D{key}={value}" for key, value in options.items()]
    log = directory / "suite-logs" / "configure.log"
    env = {"CXX": phase.compiler} if phase.compiler else {}
    if (directory / "meson-private" / "coredata.dat").exists():
        def text(value):
            if isinstance(value, list):
                return ",".join(value)
            return str(value).lower() if isinstance(value, bool) else str(value)
        try:
            present = {o["name"]: text(o["value"]) for o in introspect(directory, "buildoptions")}
        except (subprocess.CalledProcessError, json.JSONDecodeError):
            present = {}
        if any(present.get(key) != value for key, value in options.items()):
            if execute([tool("meson"), "configure", str(directory), *flags], log) != 0:
                return tail(log.read_text())
        if (directory / "build.ninja").exists():
            return None
    command = [tool("meson"), "setup", str(directory), *flags]
    if execute(command, log, env=env) != 0:
        # A directory of another version of meson, or half made: start over, once.
        if execute([*command, "--wipe"], log, env=env) != 0:
            return tail(log.read_text())
    return None


def regenerate(phase, execute=run):
    """regenerate() makes what introspection says agree with the meson.build files of now."""
    log = phase.directory / "suite-logs" / "regenerate.log"
    if execute([tool("ninja"), "-C", str(phase.directory), "build.ninja"], log) != 0:
        return tail(log.read_text())
    return None


def suite_of(test):
    # "sluice:unit" -> "unit"
    return {s.split(":", 1)[-1] for s in test["suite"]}


class Ahead:
    """Ahead builds phases beside the tests, on time that nothing else wants."""

    def __init__(self, phases, werror):
        self.phases, self.werror = phases, werror
        self.process = None
        self.lock = threading.Lock()
        self.stopped = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        if phases:
            self.thread.start()

    def work(self):
        for phase in self.phases:
            if self.stopped or configure(phase, self.werror, self.run) or \
                    regenerate(phase, self.run):
                return  # what is wrong is said when it is the phase's turn
            try:
                _, files = choose(phase, [])
            except subprocess.CalledProcessError:
                return
            jobs = os.environ.get("SLUICE_JOBS", str(os.cpu_count() or 1))
            began = time.monotonic()
            if self.run([tool("ninja"), "-C", str(phase.directory), "-j", jobs, *files],
                        phase.directory / "suite-logs" / "ahead.log") != 0:
                return
            say(f"{phase.name}: built ahead, in {time.monotonic() - began:.0f} s")

    def run(self, command, log, env=None):
        def idle():
            try:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            except OSError:
                os.nice(19)

        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as out:
            with self.lock:
                if self.stopped:
                    return 1
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT,
                    env={**os.environ, **(env or {})}, preexec_fn=idle, start_new_session=True)
            return self.process.wait()

    def stop(self):
        """stop() leaves what is not built to the phase itself."""
        with self.lock:
            self.stopped = True
            if self.process is not None and self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGTERM)
        if self.thread.ident is not None:
            self.thread.join()


def choose(phase, names):
    """choose() returns the tests to run and the files to build for them (none: all)."""
    tests = introspect(phase.directory, "tests")
    # meson runs tests by name: of two with one name, both would be run.
    all_names = [t["name"] for t in tests]
    if twice := sorted({n for n in all_names if all_names.count(n) > 1}):
        raise SystemExit(f"tools/test: two tests have one name: {', '.join(twice)}")
    chosen = [t for t in tests if phase.suites is None or suite_of(t) & phase.suites]
    if names:
        # "unit:maglev" is a name, too.
        chosen = [t for t in chosen
                  if any(n in t["name"] or any(n in f"{s}:{t['name']}" for s in suite_of(t))
                         for n in names)]
    if phase.suites is None and not names:
        return chosen, []
    wanted = {d for t in chosen for d in t["depends"]}
    files = []
    for target in introspect(phase.directory, "targets"):
        if target["id"] in wanted:
            files += [os.path.relpath(f, phase.directory) for f in target["filename"]]
    return chosen, files


def product_files(phase):
    """product_files() returns what a demonstration needs built: all but tests and benchmarks."""
    files = []
    for target in introspect(phase.directory, "targets"):
        for name in target["filename"]:
            path = os.path.relpath(name, phase.directory)
            if target["build_by_default"] and (not path.startswith(("tests/", "perf/")) or
                                               path == "tests/end_to_end/flowgen"):
                files.append(path)
    return files


def build(phase, files):
    log = phase.directory / "suite-logs" / "build.log"
    progress = {"at": "", "shown": time.monotonic()}

    def on_line(line):
        match = re.match(r"\[(\d+)/(\d+)\]", line)
        if match:
            progress["at"] = f"{match[1]} of {match[2]} steps"
        if progress["at"] and time.monotonic() - progress["shown"] > HEARTBEAT_S / 2:
            say(f"  ... {progress['at']}")
            progress["shown"] = time.monotonic()

    jobs = os.environ.get("SLUICE_JOBS", str(os.cpu_count() or 1))
    code = run([tool("ninja"), "-C", str(phase.directory), "-j", jobs, "-k", "20", *files],
               log, on_line=on_line)
    if code == 0:
        return None
    text = log.read_text()
    # The errors, rather than the progress lines around them.
    errors = [line for line in text.split("\n") if not re.match(r"\[\d+/\d+\]", line)]
    return tail("\n".join(errors))


def count_gtest(output):
    """count_gtest() returns (passed, failed names, skipped {name: reason}), or None."""
    if "[==========] Running " not in output:
        return None
    passed = len(re.findall(r"^\[       OK \] .* \(\d+ ms\)", output, re.M))
    failed = re.findall(r"^\[  FAILED  \] (\S+?),? .*?\(\d+ ms\)", output, re.M)
    skipped = {}
    for name in re.findall(r"^\[  SKIPPED \] (\S+) \(\d+ ms\)", output, re.M):
        between = re.search(r"\[ RUN      \] " + re.escape(name) + r"\n(.*?)\[  SKIPPED \] ",
                            output, re.S)
        reason = re.sub(r"^\S+:\d+: Skipped\s*", "", between[1].strip()) if between else ""
        skipped[name] = " ".join(reason.split()) or "no reason given"
    return passed, failed, skipped


def judge(phase, entry, tally):
    """judge() counts one line of meson's testlog.json."""
    name = f"{phase.name}: {entry['name'].split(' / ', 1)[-1]}"
    stdout, stderr = entry.get("stdout", ""), entry.get("stderr", "")
    result = entry["result"]
    cases = count_gtest(stdout)
    good = result in ("OK", "EXPECTEDFAIL")
    if cases:
        passed, failed, skipped = cases
        tally.passed += passed
        tally.skipped += len(skipped)
        for case, reason in skipped.items():
            say(f"  skipped: {name}: {case}: {reason}")
        for case in failed:
            tally.fail(f"{name}: {case}")
        if good and passed + len(skipped) == 0:
            good = False
            result = "ran no case"
        if not good and not failed:
            tally.fail(f"{name} ({result})")
    elif result == "SKIP":
        tally.skipped += 1
        lines = (stdout + stderr).strip().split("\n")
        say(f"  skipped: {name}: {lines[-1] or 'no reason given'}")
    elif good:
        tally.passed += 1
    else:
        tally.fail(f"{name} ({result})")
    if not good and result != "SKIP":
        text = stdout + ("\n--- stderr\n" + stderr if stderr.strip() else "")
        say(f"FAILED: {name}: {result}, exit code {entry.get('returncode')}, "
            f"{entry.get('duration', 0):.1f} s; the end of its output:")
        print(tail(text or "(no output)"), flush=True)


AGAIN_AT_MOST = 6  # tests; when more fail, it is not chance


def run_tests(phase, label, tests, tally, processes):
    """run_tests() runs tests, and those that failed once more, alone: real daemons under real load
    miss a moment where a machine stands still. What passes then is named, with what it said."""
    names = [t["name"] for t in tests]
    entries = run_once(phase, label, names, tally, processes)
    failed = [e for e in entries if e["result"] in ("FAIL", "TIMEOUT")]
    # Not where sanitizers look: what they find now and then is there.
    if phase.name == "build" and 0 < len(failed) <= AGAIN_AT_MOST:
        say(f"{phase.name}: run {len(failed)} that failed once more")
        again = {e["name"]: e for e in run_once(phase, f"{label}-again",
                                                [short_name(e) for e in failed], tally, 1)}
        for first in failed:
            if again.get(first["name"], first)["result"] == "OK":
                say(f"UNSTEADY: {phase.name}: {short_name(first)} failed, and passed when it was "
                    "run again; the first time:")
                print(tail(first.get("stdout", "")), flush=True)
        entries = [again[e["name"]] if e in failed and e["name"] in again else e for e in entries]
    for entry in entries:
        judge(phase, entry, tally)


def short_name(entry):
    return entry["name"].split(" / ", 1)[-1]


def run_once(phase, label, names, tally, processes):
    """run_once() returns what meson noted of each test."""
    logbase = f"suite-{label}"
    logfile = phase.directory / "meson-logs" / f"{logbase}.json"
    logfile.unlink(missing_ok=True)
    command = [tool("meson"), "test", "-C", str(phase.directory), "--no-rebuild",
               "--logbase", logbase, "--num-processes", str(processes),
               "--timeout-multiplier", str(phase.timeout_factor)]
    if phase.fixed_layout:
        plain = ["setarch", os.uname().machine, "-R"]
        try:
            if subprocess.run([*plain, "true"], capture_output=True).returncode == 0:
                command = [*plain, *command]
        except FileNotFoundError:
            pass
    waiting = set(names)

    def on_line(line):
        match = re.match(r"\s*\d+/\d+\s+(.*?)\s+(OK|FAIL|SKIP|TIMEOUT|ERROR|EXPECTEDFAIL|"
                         r"UNEXPECTEDPASS|INTERRUPT)\s+([\d.]+)s", line)
        if match:
            waiting.discard(match[1].split(" / ", 1)[-1])
            say(f"  {match[2]:7} {match[1].removeprefix('sluice:')} ({match[3]} s)")

    def pending():
        return f": {', '.join(sorted(waiting))}" if len(waiting) <= 4 else ""

    code = run([*command, *names], phase.directory / "suite-logs" / f"test-{label}.log",
               env=phase.env, on_line=on_line, pending=pending)
    entries = []
    if logfile.exists():
        with open(logfile, encoding="utf-8", errors="replace") as lines:
            entries = [json.loads(line) for line in lines if line.strip()]
    if len(entries) < len(names):
        say(f"FAILED: {phase.name}: {len(names) - len(entries)} of {len(names)} tests left no "
            f"result (meson test: exit code {code}):")
        print(tail((phase.directory / "suite-logs" / f"test-{label}.log").read_text()), flush=True)
        tally.fail(f"{phase.name}: tests without a result")
    return entries


def run_phase(phase, names, werror, tally, later=()):
    global ahead
    if ahead is not None:
        ahead.stop()
        ahead = None
    began = time.monotonic()
    say(f"{phase.name}: configure {phase.directory.name}/")
    error = configure(phase, werror) or regenerate(phase)
    if error:
        say(f"FAILED: {phase.name}: meson cannot configure:")
        print(error, flush=True)
        tally.fail(f"{phase.name}: configure")
        return
    tests, files = choose(phase, names)
    if not tests and phase.name != "build":
        say(f"{phase.name}: no test is in suite {'/'.join(sorted(phase.suites))}"
            + (" with such a name" if names else ""))
        if not names:  # a phase that has lost its tests must not look like one that passed
            tally.fail(f"{phase.name}: no tests")
        return
    say(f"{phase.name}: build " + (f"{len(files)} targets" if files else "everything"))
    if files or not names:
        error = build(phase, files)
        if error:
            say(f"FAILED: {phase.name}: the build failed:")
            print(error, flush=True)
            tally.fail(f"{phase.name}: build")
            return
    say(f"{phase.name}: built after {time.monotonic() - began:.0f} s")
    ahead = Ahead(later, werror)
    # Scenarios in network namespaces measure gaps and rates: one at a time, with the
    # machine to themselves.
    alone = [t for t in tests if "end_to_end" in suite_of(t)]
    rest = [t for t in tests if "end_to_end" not in suite_of(t)]
    for label, group, processes in (("tests", rest, os.cpu_count() or 1),
                                    ("end_to_end", alone, 1)):
        if group:
            say(f"{phase.name}: run {len(group)} tests" +
                (" end to end" if label == "end_to_end" else ""))
            run_tests(phase, label, group, tally, processes)
    say(f"{phase.name}: done in {time.monotonic() - began:.0f} s; so far {tally.line()}")


@contextmanager
def tree_lock():
    """Two runs in one tree would build into the same directories."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    with open(ROOT / ".cache" / "suite.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another tools/test or tools/quickstart builds in this tree; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def on_signal(number, _frame):
    if ahead is not None:
        ahead.stop()
    if child is not None and child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
    print(f"tools/test: stopped by signal {number}", flush=True)
    os._exit(128 + number)


def main():
    parser = argparse.ArgumentParser(
        prog="tools/test", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="run only tests whose name (or suite:name) contains NAME, in build/")
    parser.add_argument("--phases", default="",
                        help="only these, e.g. asan,tsan (default: all; with NAME: build)")
    parser.add_argument("--werror", action="store_true",
                        help="warnings are errors (always so where CI=true)")
    arguments = parser.parse_args()
    known = [p.name for p in PHASES]
    wanted = [p for p in arguments.phases.split(",") if p] or \
        (["build"] if arguments.names else known)
    if unknown := [p for p in wanted if p not in known]:
        parser.error(f"unknown phase: {', '.join(unknown)}; there are: {', '.join(known)}")
    werror = arguments.werror or os.environ.get("CI") == "true"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)

    tally = Tally()
    with tree_lock():
        phases = [p for p in PHASES if p.name in wanted]
        for i, phase in enumerate(phases):
            later = phases[i + 1:] if phase.name == "build" and not arguments.names else []
            run_phase(phase, arguments.names, werror, tally, later)
        if ahead is not None:
            ahead.stop()
    if tally.passed + tally.failed == 0:
        say("nothing ran" + (f": no test's name contains {' or '.join(arguments.names)}"
                             if arguments.names else ""))
    for failure in tally.failures:
        say(f"failed: {failure}")
    say(f"all done in {time.monotonic() - START:.0f} s")
    print(tally.line(), flush=True)
    return 1 if tally.failed or tally.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
