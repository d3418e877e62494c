#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""perf/plot draws every row it is given where it belongs, and refuses files without any."""

import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET
from pathlib import Path

PLOT = Path(__file__).resolve().parent / "plot"
FACTS = {"cpu": "a <CPU> & more", "memory": "2 MB pages", "kernel": "6.1", "core_taken": 0.25,
         "io_mpps": 100.0}


def figure(name, value):
    return {"name": name, "value": value, "reference_value": 40.0, "conditions": FACTS}


def drawn(figures, *options):
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "figures.json"
        file.write_text(json.dumps(figures))
        done = subprocess.run([sys.executable, PLOT, file, "--out", directory, *options], text=True,
                              capture_output=True, check=False)
        return done, {p.stem: ET.parse(p).getroot() for p in Path(directory).glob("*.svg")}


def points_of(root):
    return [[tuple(map(float, p.split(","))) for p in e.get("points").split()]
            for e in root.iter() if e.tag.endswith("polyline")]


class Plot(unittest.TestCase):
    def test_lines(self):
        done, plots = drawn([figure("sweep.flows.1", 50.0), figure("sweep.flows.1000", 25.0),
                             figure("sweep.flows.1000000", 12.5), figure("path.ipip.v4.1M", 1.0)])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(list(plots), ["cost-flows"])
        sluice, csum, io = points_of(plots["cost-flows"])
        self.assertEqual([len(sluice), len(csum), len(io)], [3, 3, 3])
        # Logarithmic: 1, 10^3 and 10^6 are as far from each other.
        self.assertAlmostEqual(sluice[1][0] - sluice[0][0], sluice[2][0] - sluice[1][0], delta=0.2)
        # 20, 40 and 80 ns: twice as far up from 0; csum has 25 and io 10, at every x.
        bottom = 2 * sluice[0][1] - sluice[1][1]
        self.assertAlmostEqual(bottom - sluice[2][1], 4 * (bottom - sluice[0][1]), delta=0.5)
        self.assertEqual(len({y for _, y in csum}), 1)
        self.assertAlmostEqual(bottom - csum[0][1], 2.5 * (bottom - io[0][1]), delta=0.5)

    def test_new_flows_are_a_line_of_their_own(self):
        done, plots = drawn([figure(f"sweep.services.{n}{s}", 20.0) for n in (1, 64)
                             for s in ("", ".new")])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(points_of(plots["cost-services"])), 4)

    def test_nothing_to_draw(self):
        done, plots = drawn([figure("path.ipip.v4.1M", 1.0)])
        self.assertEqual((done.returncode, plots), (1, {}))
        self.assertIn("no rows of a sweep", done.stderr)


if __name__ == "__main__":
    unittest.main()
