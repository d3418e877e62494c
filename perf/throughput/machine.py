# SPDX-License-Identifier: Apache-2.0
"""What the machine is, for the conditions of a figure; and how a measured process ends."""

import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

from lab.process import LabError

TESTPMD = "dpdk-testpmd"


PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def free_huge_mib():
    path = PAGES / "free_hugepages"
    return 2 * int(path.read_text()) if path.exists() else 0


@contextmanager
def huge_pages(mib):
    """huge_pages() has so much of free 2 MB pages inside the block, as far as the machine gives it;
    after it there are as many pages as before (not if a signal ends it)."""
    path = PAGES / "nr_hugepages"
    before = int(path.read_text()) if path.exists() else 0
    more = (mib - free_huge_mib() + 1) // 2
    # No more than a quarter of the memory that nobody uses.
    spare = next((int(line.split()[1]) >> 13 for line in Path("/proc/meminfo").read_text().split("\n")
                  if line.startswith("MemAvailable")), 0)
    if path.exists() and more > 0:
        path.write_text(str(before + min(more, spare)))
    try:
        yield
    finally:
        if path.exists() and more > 0:
            path.write_text(str(before))


def cpu_model():
    lines = Path("/proc/cpuinfo").read_text().split("\n")
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                "unknown")


def build_type(build):
    options = build / "meson-info" / "intro-buildoptions.json"
    if not options.exists():
        return "unknown"
    known = {o["name"]: o["value"] for o in json.loads(options.read_text())}
    return f"{known['buildtype']}, -O{known['optimization']} (what runs per packet: -O3)"


def machine(build):
    """machine() returns what every figure's conditions begin with."""
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "kernel": os.uname().release,
            "load": round(os.getloadavg()[0], 1), "build": build_type(build)}


def missing(build, *targets):
    """missing() returns how to build what is not there, or None."""
    if all((build / name).exists() for name in targets):
        return None
    return f"not all is built: ninja -C {build} {' '.join(targets)}"


def end(process):
    if process.running():
        process.signal(signal.SIGINT)
    try:
        process.wait(20)
    except LabError:
        process.kill()
