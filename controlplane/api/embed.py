#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""embed.py OUT FILE...: a C++ source that holds the files, for embedded.hpp. YAML becomes JSON."""

import json
import sys
from pathlib import Path

import yaml

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".json": "application/json"}


def literal(data):
    """literal() writes bytes as adjacent string literals: compilers limit the length of one."""
    lines = []
    for at in range(0, len(data), 80):
        text = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}"
                       for b in data[at:at + 80])
        lines.append(f'     "{text}"')
    return "\n".join(lines)


def main():
    out, *files = map(Path, sys.argv[1:])
    entries = []
    for file in files:
        name, data = file.name, file.read_bytes()
        if file.suffix == ".yaml":
            name = file.stem + ".json"
            data = json.dumps(yaml.safe_load(data), separators=(",", ":")).encode() + b"\n"
        kind = TYPES[Path(name).suffix]
        entries.append(f'    {{"{name}", "{kind}",\n     {{\n{literal(data)},\n     {len(data)}}}}},')
    text = "\n".join(entries)
    out.write_text(f"""// Made by embed.py.
#include "controlplane/api/embedded.hpp"

namespace sluice::api {{

std::span<const embedded_file> embedded_files() noexcept {{
  static constexpr embedded_file files[] = {{
{text}
  }};
  return files;
}}

}}  // namespace sluice::api
""", encoding="utf-8")


if __name__ == "__main__":
    main()
