#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The plans for Pktgen-DPDK and TRex parse, call only what those have, and describe the flows
that their names say. The generators are played by stub_pktgen.lua and stub_trex.py: neither is a
package of Debian's, so what they really make of the calls is not tested here."""

import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import stub_trex  # noqa: E402

LUA = shutil.which("lua5.4") or shutil.which("lua5.3")
LUAC = shutil.which("luac5.4") or shutil.which("luac5.3")
SCRIPTS = sorted((HERE / "lua").glob("*.lua"))
PLANS = [s for s in SCRIPTS if s.name != "plan.lua"]
PROFILES = sorted((HERE / "trex").glob("*.py"))
BUFFERS = 16384  # of a TX queue of Pktgen's, each written once by the range


def lua(script, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLUICE_", "STUB_"))}
    return subprocess.run([LUA, HERE / "stub_pktgen.lua", script], env=clean | environment,
                          capture_output=True, text=True, timeout=30, check=False)


def address(text):
    a, b, c, d = map(int, text.split("."))
    return (a << 24) + (b << 16) + (c << 8) + d


def range_of(line):
    """range_of() reads the fields of a SEND line: name to (lowest, highest, step)."""
    return {name: tuple(address(v) if "." in v else int(v) for v in values.split(","))
            for name, values in re.findall(r"(\w+)=([\d.]+,[\d.]+,[\d.]+)", line)}


def step(value, low, high, by):
    """step() is what the range does to a field from packet to packet."""
    if by == 0:
        return low
    value += by
    return high if value < low else low if value > high else value


def written(fields, start, packets):
    """written() is the set of (source, destination) and the state that the next start finds."""
    seen, (source, destination) = set(), start
    for _ in range(packets):
        source = step(source, *fields["src_ip"])
        destination = step(destination, *fields["dst_ip"])
        seen.add((source, destination))
    return seen, (source, destination)


class Pktgen(unittest.TestCase):
    def run_plan(self, name, **environment):
        ran = lua(HERE / "lua" / f"{name}.lua", **environment)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertNotIn("FAILED", ran.stdout)
        return ran.stdout.splitlines()

    def results(self, lines):
        return [json.loads(line[7:]) for line in lines if line.startswith("RESULT ")]

    def test_all_parse(self):
        self.assertEqual(len(PLANS), 5)
        for script in [*SCRIPTS, HERE / "stub_pktgen.lua"]:
            subprocess.run([LUAC, "-p", script], check=True, timeout=30)

    def test_the_stub_refuses(self):
        for body, word in (("pktgen.frobnicate(1) pktgen.quit()", "no function pktgen.frobnicate"),
                           ("pktgen.range.on('0')", "no function pktgen.on"),
                           ("pktgen.start()", "wrong number of arguments"),
                           ("pktgen.set('0', 'rate', 'fast')", "argument 3"),
                           ("pktgen.set_range('0', 'on') pktgen.start('0')", "is not set"),
                           ("pktgen.screen('off')", "without pktgen.quit")):
            with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
                file.write(body)
                file.flush()
                ran = lua(file.name)
            self.assertNotEqual(ran.returncode, 0, body)
            self.assertIn(word, ran.stderr, body)

    def test_each_plan_reports(self):
        for script in PLANS:
            lines = self.run_plan(script.stem, STUB_CAPACITY="40")
            for result in self.results(lines):
                self.assertTrue(result["name"].startswith("pktgen."))
                self.assertAlmostEqual(result["value"], result["received"] /
                                       result["seconds"] / 1e6, places=3)
            self.assertEqual(len(self.results(lines)), 7 if script.stem == "rfc2544" else 1)

    def test_newer_portstats(self):
        self.assertEqual(len(self.results(self.run_plan("frames64", STUB_PORTSTATS="one"))), 1)

    def test_result_file(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "result"
            self.run_plan("frames64", SLUICE_RESULT=str(path))
            self.run_plan("imix", SLUICE_RESULT=str(path))
            names = [json.loads(line)["name"] for line in path.read_text().splitlines()]
            self.assertEqual(names, ["pktgen.64", "pktgen.imix"])

    def test_flows_stay_the_same_when_sending_starts_again(self):
        for name, clients in (("frames64", 1024), ("flows_1m", 4096), ("syn_flood", 4096)):
            lines = self.run_plan(name)
            fields = range_of([line for line in lines if line.startswith("SEND")][-1])
            self.assertEqual(fields["dst_port"], (80, 80, 0))
            self.assertEqual(fields["pkt_size"], (64, 64, 0))
            state, all_seen = (0, address("255.0.0.1")), set()  # whatever was there before
            for queues in (1, 3, 1):
                seen, state = written(fields, state, queues * BUFFERS)
                all_seen |= seen
            # What came before may be outside of both ranges: one packet differs.
            self.assertIn(len(all_seen) - clients, (0, 1), name)

    def test_random_bits_leave_the_service_alone(self):
        for name, random_bits in (("flows_1m", 8), ("syn_flood", 15), ("imix", 5)):
            call = [c for c in self.run_plan(name) if c.startswith("CALL rnd ")]
            self.assertEqual(len(call), 1)
            _, _, port, index, offset, mask = call[0].split()
            self.assertEqual((port, index, offset, len(mask)), ("0", "0", "34", 16))
            self.assertEqual(mask.count("X"), random_bits)
            self.assertGreaterEqual(int(mask.replace("X", "0"), 2), 1024)

    def test_hits_are_opened_first(self):
        for name in ("frames64", "flows_1m", "rfc2544"):
            flags = [line.split()[-1] for line in self.run_plan(name) if "flag set" in line]
            self.assertEqual(flags[:2], ["syn", "ack"])
            self.assertEqual(flags[-1], "ack")
        self.assertEqual([line.split()[-1] for line in self.run_plan("syn_flood")
                          if "flag set" in line], ["syn"])

    def test_imix_is_seven_four_one(self):
        sizes = [int(m) for line in self.run_plan("imix")
                 for m in re.findall(r"CALL seqTable.*pktSize=(\d+)", line)]
        self.assertEqual([sizes.count(s) for s in (64, 594, 1498)], [7, 4, 1])

    def test_rfc2544_finds_the_rate(self):
        for capacity in ("100", "73.2", "8.1"):
            results = self.results(self.run_plan("rfc2544", STUB_CAPACITY=capacity,
                                                 SLUICE_SIZES="64 1498"))
            self.assertEqual([r["name"] for r in results],
                             ["pktgen.rfc2544.64", "pktgen.rfc2544.1498"])
            for r in results:
                self.assertLessEqual(r["rate_percent"], float(capacity) + 0.005)
                self.assertGreaterEqual(r["rate_percent"], float(capacity) - 0.5)
                self.assertEqual((r["loss"], r["seconds"]), (0, 60))

    def test_bad_settings_are_refused(self):
        for name, environment, word in (
                ("frames64", {"SLUICE_SECONDS": "soon"}, "SLUICE_SECONDS"),
                ("frames64", {"SLUICE_CLIENTS": "9999"}, "SLUICE_CLIENTS"),
                ("frames64", {"SLUICE_VIP_LAST": "198.18.0.99"}, "must divide"),
                ("frames64", {"SLUICE_VIP": "here"}, "not an IPv4 address"),
                ("rfc2544", {"SLUICE_SIZES": "64 9000"}, "SLUICE_SIZES"),
                ("rfc2544", {"STUB_CAPACITY": "0"}, "without loss")):
            ran = lua(HERE / "lua" / f"{name}.lua", **environment)
            self.assertIn(word, ran.stdout + ran.stderr)
            self.assertNotIn("RESULT", ran.stdout)


class Trex(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stub_trex.install()

    def streams(self, name, **tunables):
        return stub_trex.STLProfile.load_py(HERE / "trex" / f"{name}.py", **tunables).get_streams()

    def test_all_compile(self):
        self.assertEqual(len(PROFILES), 6)
        with tempfile.TemporaryDirectory() as directory:
            for profile in PROFILES:
                py_compile.compile(str(profile), cfile=f"{directory}/out", doraise=True)

    def test_flows(self):
        for name, flows in (("frames64", 1024), ("flows_1m", 1 << 20)):
            (stream,) = self.streams(name)
            self.assertEqual(len(stream.packet.pkt), 60)
            self.assertEqual(str(stream.packet.pkt["TCP"].flags), "A")
            seen = set(stream.tuples(flows + 2048))
            self.assertEqual(len(seen), flows)
            self.assertEqual(len({t[1] for t in seen}), 64)
            (syn,) = self.streams(name, flags="S", vips="16", mac="02:00:00:00:00:10")
            self.assertEqual(str(syn.packet.pkt["TCP"].flags), "S")
            self.assertEqual(syn.packet.pkt.dst, "02:00:00:00:00:10")

    def test_syn_flood_hardly_repeats(self):
        (stream,) = self.streams("syn_flood")
        self.assertEqual(str(stream.packet.pkt["TCP"].flags), "S")
        self.assertGreater(len(set(stream.tuples(20000))), 19990)

    def test_imix(self):
        streams = self.streams("imix")
        self.assertEqual([(len(s.packet.pkt) + 4, s.mode.pps) for s in streams],
                         [(64, 7), (594, 4), (1498, 1)])
        self.assertTrue(all(s.packet.pkt.haslayer("UDP") for s in streams))

    def test_the_other_port_sends_nothing(self):
        for name in ("frames64", "flows_1m", "syn_flood", "imix"):
            self.assertEqual(self.streams(name, direction=1), [])

    def test_bad_tunables_are_refused(self):
        for tunables in ({"vips": 100}, {"vips": 0}, {"client": "here"}):
            with self.assertRaises(ValueError):
                self.streams("frames64", **tunables)

    def test_rfc2544_finds_the_rate(self):
        stub_trex.STLProfile.load_py(HERE / "trex" / "frames64.py")  # its folder is on the path
        import rfc2544
        for capacity in (100.0, 61.7):
            stub_trex.STLClient.capacity = capacity
            stub_trex.STLClient.calls = []
            with tempfile.TemporaryFile("w+") as out:
                kept, sys.stdout = sys.stdout, out
                try:
                    self.assertEqual(rfc2544.main(["--sizes", "64", "1498"]), 0)
                finally:
                    sys.stdout = kept
                out.seek(0)
                results = [json.loads(line[7:]) for line in out if line.startswith("RESULT ")]
            self.assertEqual(len(results), 2)
            for r in results:
                self.assertTrue(capacity - 0.5 <= r["rate_percent"] <= capacity + 0.005, r)
            starts = [c for c in stub_trex.STLClient.calls if c[0] == "start"]
            self.assertEqual({c[1] for c in starts}, {60, 1494})
            self.assertEqual([c[2] for c in starts][:2], ["S", "A"])
            self.assertEqual(starts[-1][4], 60)


if __name__ == "__main__":
    if LUA is None or LUAC is None:
        print("no lua5.4 (tools/setup installs it)")
        sys.exit(77)
    unittest.main()
