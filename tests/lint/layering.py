#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom. Includes are full paths from the root, so this is a grep."""

import re
import sys

import common

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')

DPDK = re.compile(r"^(rte_|dpdk)")
YAML = re.compile(r"^yaml-cpp/")
# Libraries that would make the shared layout depend on more than the language.
LIBRARIES = re.compile(
    r"^(rte_|dpdk|bpf/|xdp/|tbb/|oneapi/|hwloc|nlohmann/|CLI/|spdlog/|fmt/|httplib|sqlite3|"
    r"prometheus/|systemd/|libmnl/|curl/|gtest/|gmock/|benchmark/|yaml-cpp/)")

# (folder, the folders it may include, system headers it may not include)
# The first folder that fits counts.
RULES = [
    ("dataplane/abi/", ("dataplane/abi/",), LIBRARIES),
    # Parsing and rewriting know spans, not mbufs.
    ("dataplane/packet/", ("dataplane/packet/", "dataplane/abi/"), LIBRARIES),
    ("dataplane/connection/", ("dataplane/connection/", "dataplane/packet/", "dataplane/abi/"),
     re.compile(r"^(tbb/|oneapi/|nlohmann/|CLI/|httplib|sqlite3|prometheus/|libmnl/)")),
    ("dataplane/", ("dataplane/",),
     re.compile(r"^(tbb/|oneapi/|nlohmann/|CLI/|httplib|sqlite3|prometheus/|libmnl/)")),
    ("controlplane/", ("controlplane/", "dataplane/abi/"), DPDK),
    ("bpf/", ("bpf/", "dataplane/abi/"), re.compile(r"^(rte_|dpdk)|\.hpp$")),
    # check, diff, replay and explain run without a daemon: they bring the parser of
    # services.yaml, the table builder and the packet path, as libraries. backup and restore read
    # backups, and make state files of them. access: what check says of certificates and tokens.
    ("tools/", ("tools/", "dataplane/abi/", "dataplane/packet/", "dataplane/path/",
                "dataplane/connection/", "controlplane/model/", "controlplane/config/",
                "controlplane/decision/", "controlplane/maglev/", "controlplane/lists/",
                "controlplane/publish/", "controlplane/schedule/", "controlplane/backup/",
                "controlplane/store/", "controlplane/access/"), None),
]
# In dataplane/abi: the reader of node.yaml, which both daemons and the tools link.
YAML_ALLOWED = re.compile(r"^dataplane/abi/(node_|yaml_)")


def check_include(path, quoted, system, root):
    rule = next((r for r in RULES if path.startswith(r[0])), None)
    if quoted is not None:
        if not (root / quoted).is_file():
            return f'"{quoted}" is no path from the root of the tree'
        if rule and not quoted.startswith(rule[1]):
            return f'{rule[0]} may not include "{quoted}"; it may: {", ".join(rule[1])}'
        if path.startswith("bpf/") and not quoted.endswith(".h"):
            return f'bpf/ is C: "{quoted}" is not'
        return None
    if rule and rule[2] and rule[2].search(system):
        if YAML.search(system) and YAML_ALLOWED.search(path):
            return None
        return f"{rule[0]} may not include <{system}>"
    return None


def check(root):
    findings = []
    for path in common.files_of(root):
        if path.suffix not in common.CPP + common.C:
            continue
        for number, line in enumerate(common.lines_of(root / path), 1):
            match = INCLUDE.match(line)
            if match:
                wrong = check_include(str(path), match[1], match[2], root)
                if wrong:
                    findings.append(f"{path}:{number}: {wrong}")
    return findings


def self_test():
    abi = {"dataplane/abi/a.hpp": "#include <cstdint>\n", "dataplane/packet/p.hpp": "",
           "dataplane/worker/w.hpp": "", "controlplane/model/m.hpp": "",
           "controlplane/health/h.hpp": "", "dataplane/abi/c.h": ""}

    def with_file(name, text):
        return {**abi, name: text}

    return common.expect(check, [
        ("clean tree", abi, 0),
        ("abi includes DPDK", with_file("dataplane/abi/x.hpp", "#include <rte_mbuf.h>\n"), 1),
        ("abi includes a worker",
         with_file("dataplane/abi/x.hpp", '#include "dataplane/worker/w.hpp"\n'), 1),
        ("abi includes yaml-cpp", with_file("dataplane/abi/x.hpp", "#include <yaml-cpp/yaml.h>\n"),
         1),
        ("the node file's reader does",
         with_file("dataplane/abi/node_file.cpp", "#include <yaml-cpp/yaml.h>\n"), 0),
        ("packet includes DPDK", with_file("dataplane/packet/x.cpp", "#include <rte_ether.h>\n"),
         1),
        ("dataplane includes the control plane",
         with_file("dataplane/worker/x.cpp", '#include "controlplane/model/m.hpp"\n'), 1),
        ("controlplane includes DPDK",
         with_file("controlplane/model/x.cpp", "  #  include <rte_eal.h>\n"), 1),
        ("controlplane includes a worker",
         with_file("controlplane/model/x.cpp", '#include "dataplane/worker/w.hpp"\n'), 1),
        ("controlplane includes the interface",
         with_file("controlplane/model/x.cpp", '#include "dataplane/abi/a.hpp"\n'), 0),
        ("bpf includes C++", with_file("bpf/x.bpf.c", '#include "dataplane/abi/a.hpp"\n'), 1),
        ("bpf includes C", with_file("bpf/x.bpf.c", '#include "dataplane/abi/c.h"\n'), 0),
        ("tools include the health checks",
         with_file("tools/cli/x.cpp", '#include "controlplane/health/h.hpp"\n'), 1),
        ("tests include anything",
         with_file("tests/unit/x.cpp", '#include "controlplane/health/h.hpp"\n'), 0),
        ("a path that is not from the root",
         with_file("dataplane/abi/x.hpp", '#include "a.hpp"\n'), 1),
    ])


if __name__ == "__main__":
    sys.exit(common.main(__doc__, check, self_test))
