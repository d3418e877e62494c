# SPDX-License-Identifier: Apache-2.0
"""Man pages: roff out of the command tree, of a --help, and of Markdown."""

import re

import completion


def escape(text):
    """escape() makes text safe in roff: no escapes, no requests, plain hyphens and quotes."""
    text = text.replace("\\", "\\[rs]").replace("-", "\\-").replace("'", "\\[aq]")
    text = text.replace("`", "\\[ga]").replace("^", "\\[ha]").replace("~", "\\[ti]")
    return re.sub(r"(?m)^\.", r"\\&.", text)


def bold(text):
    return f"\\fB{escape(text)}\\fR"


def literal(lines):
    return [".PP", ".RS 4", ".nf", *(escape(line) or "\\&" for line in lines), ".fi", ".RE"]


def inline(text):
    """inline() does a line of Markdown: `code`, **strong**, *emphasis*, [text](link)."""
    out = ""
    pattern = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\([^)]*\)")
    at = 0
    for match in pattern.finditer(text):
        out += escape(text[at:match.start()])
        code, strong, emphasis, link = match.groups()
        if link is not None:
            out += inline(link)
        else:
            out += (f"\\fI{escape(emphasis)}\\fR" if emphasis is not None
                    else bold(code if code is not None else strong))
        at = match.end()
    out += escape(text[at:])
    # A long list without blanks may be broken behind a comma.
    return re.sub(r",(?=[^\s,])", ",\\:", out)


def title(name, section, version, manual):
    source = f"Sluice {version}".strip()
    return [f".TH {name.upper()} {section} \"\" \"{source}\" \"{manual}\"", ".nh", ".ad l"]


def cells(line):
    return [c.replace("\\|", "|").strip()
            for c in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def table(rows):
    """table() writes one entry for each row: its key, the other columns in front of the text."""
    out = []
    heads = cells(rows[0])
    for row in rows[2:]:
        columns = cells(row)
        out += [".TP", inline(columns[0])]
        extras = []
        for head, text in list(zip(heads, columns))[1:-1]:
            if text:
                extras.append(f"{escape(head)}: {inline(text)}")
        text = inline(columns[-1]) if len(columns) > 1 else ""
        out.append("; ".join(extras) if extras else text or "\\&")
        if extras and text:
            out += [".br", text]
    return out


def markdown(lines):
    """markdown() does what docs/configuration.md uses of it."""
    out = []
    paragraph = []

    def flush():
        if paragraph:
            out.extend([".PP", inline(" ".join(paragraph))])
            paragraph.clear()

    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("```"):
            flush()
            end = next(i for i in range(at + 1, len(lines)) if lines[i].startswith("```"))
            out += literal(lines[at + 1:end])
            at = end + 1
            continue
        if line.startswith("    ") and not paragraph:
            end = at
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            out += literal([each[4:] for each in lines[at:end]])
            at = end
            continue
        if line.startswith("|"):
            flush()
            end = at
            while end < len(lines) and lines[end].startswith("|"):
                end += 1
            out += table(lines[at:end])
            at = end
            continue
        if line.startswith("#"):
            flush()
            out.append(".SS " + inline(line.lstrip("# ")))
        elif re.match(r"[-*] ", line):
            flush()
            item = [line[2:]]
            while at + 1 < len(lines) and lines[at + 1].startswith("  "):
                at += 1
                item.append(lines[at].strip())
            out += [".IP \\(bu 2", inline(" ".join(item))]
        elif not line.strip():
            flush()
        else:
            paragraph.append(line.strip())
        at += 1
    flush()
    return out


def finish(lines):
    return "\n".join([".\\\" SPDX-License-Identifier: Apache-2.0",
                      ".\\\" Made when Sluice is built; see tools/man.", *lines, ""])


def text_and_example(text):
    """text_and_example() parts a description as --help shows it."""
    body, _, example = text.partition("Example: ")
    return " ".join(body.split()), " ".join(example.split())


def kind_of(option):
    """kind_of() is the type without what a check of it adds."""
    return re.sub(r":(\{|INT|UINT|FLOAT|DIR|FILE).*| in \[.*", "", option["type"])


def option_lines(options):
    out = []
    for o in options:
        names = ", ".join(bold(n) for n in o["names"]) or f"\\fI{escape(o['positional'])}\\fR"
        kind = kind_of(o)
        if o["positional"] and o["names"]:
            names = f"\\fI{escape(o['positional'])}\\fR, {names}"
        if o["names"] and o["takes_value"]:
            names += f" \\fI{escape(kind or 'TEXT')}\\fR"
        text = inline(o["text"] or "")
        words = completion.kind(o)
        if words.startswith("words:") and "{" in o["type"]:
            text += " (" + escape(words[6:].replace(" ", ", ")) + ")"
        if o["default"]:
            text += f" (default: {escape(o['default'])})"
        out += [".TP", names, text or "\\&"]
    return out


def synopsis(command, path):
    words = [bold(w) for w in path]
    for o in command["options"]:
        if o["names"] and not o["required"] and not o["positional"]:
            continue
        if o["names"] and not o["positional"]:
            words.append(f"{bold(o['names'][0])} \\fI{escape(kind_of(o))}\\fR")
        else:
            word = f"\\fI{escape(o['positional'])}\\fR"
            words.append(word if o["required"] else f"[{word}]")
    return " ".join([*words, "[options]"])


def command_page(tree, version):
    text, example = text_and_example(tree["text"])
    out = title("sluice", 1, version, "Sluice")
    out += [".SH NAME", "sluice \\- the command of the layer\\-4 load balancer Sluice",
            ".SH SYNOPSIS", f"{bold('sluice')} \\fIcommand\\fR [options]",
            ".SH DESCRIPTION", inline(text)]
    out += literal([example])
    out += [".SH OPTIONS", "These may stand before or after the command.",
            *option_lines(tree["options"]), ".SH COMMANDS"]
    for path, command in completion.walk(tree):
        if not path or command["commands"]:
            continue
        text, example = text_and_example(command["text"])
        out += [f".SS {' '.join(path)}", synopsis(command, ["sluice", *path]), ".PP", inline(text)]
        own = [o for o in command["options"] if "--help" not in o["names"]]
        out += [*option_lines(own), *literal([example])]
    out += [".SH EXIT STATUS", ".TP", "0", "done, or in order", ".TP", "1",
            "refused or failed; why is on standard error, as FILE:LINE: key: message where there "
            "is a file", ".TP", "2", "wrong usage",
            ".SH ENVIRONMENT", ".TP", bold("SLUICE_SOCKET"), "as " + bold("--socket"),
            ".TP", bold("SLUICE_URL"), "as " + bold("--url"),
            ".TP", bold("SLUICE_TOKEN_FILE"), "as " + bold("--token-file"),
            ".TP", bold("SLUICE_CA"), "as " + bold("--ca"),
            ".SH SEE ALSO", see("sluice-dataplane(8)", "sluice-controlplane(8)",
                                "sluice-node.yaml(5)", "sluice-services.yaml(5)")]
    return finish(out)


def see(*pages):
    return ", ".join(f"{bold(p[:-3])}{p[-3:]}" for p in pages)


SHORT = {"sluice-dataplane": "forwards packets by the tables of the control plane",
         "sluice-controlplane": "keeps the desired state, checks backends, builds the tables"}


def daemon_page(name, usage, version):
    head, _, options = usage.partition("\n  --")
    first, _, text = head.partition("\n")
    out = title(name, 8, version, "Sluice")
    out += [".SH NAME", f"{name} \\- {SHORT[name]}".replace(name, escape(name), 1),
            ".SH SYNOPSIS", bold(name) + escape(first.removeprefix(f"usage: {name}")),
            ".SH DESCRIPTION"]
    for paragraph in text.strip().split("\n\n"):
        out += [".PP", inline(" ".join(paragraph.split()))]
    out.append(".SH OPTIONS")
    for line in ("--" + options).splitlines():
        match = re.match(r"(--\S+(?: [A-Z]+)?)\s{2,}(\S.*)", line.strip())
        if match:
            word, _, value = match[1].partition(" ")
            out += [".TP", bold(word) + (f" \\fI{value}\\fR" if value else ""), inline(match[2])]
        elif line.strip():
            out.append(inline(line.strip()))
    out += [".SH EXIT STATUS", ".TP", "0", "ended as it was asked to, or in order", ".TP", "1",
            "refused or failed", ".TP", "2", "wrong usage",
            ".SH SEE ALSO", see("sluice(1)", *(f"{n}(8)" for n in SHORT if n != name),
                                "sluice-node.yaml(5)")]
    return finish(out)


def script_page(name, usage, details):
    """script_page() is one of a script's --help by argparse: its words as they stand, then the
    options of one of its commands."""
    paragraphs = usage.strip().split("\n\n")
    out = title(name, 8, "", "Sluice")
    out += [".SH NAME", f"{escape(name)} \\- makes a host a backend of Sluice",
            ".SH SYNOPSIS", bold(name) + escape(" {up|down|status|check} [OPTION]..."),
            ".SH DESCRIPTION"]
    for paragraph in paragraphs[1:]:
        if paragraph.startswith(("positional arguments:", "options:")):
            continue
        if paragraph.startswith("  "):
            out += literal(paragraph.splitlines())
        else:
            out += [".PP", inline(" ".join(paragraph.split()))]
    out.append(".SH OPTIONS OF UP")
    for line in details.partition("\noptions:\n")[2].splitlines():
        match = re.match(r"  (-\S.*?)(?:\s{2,}(\S.*))?$", line)
        if match:
            out += [".TP", bold(match[1]), inline(match[2] or "")]
        elif line.strip():
            out.append(inline(line.strip()))
    out += [".SH SEE ALSO", see("sluice(1)", *(f"{n}(8)" for n in SHORT), "ip(8)")]
    return finish([line for line in out if line])


def file_page(name, section, page):
    """file_page() takes the page's introduction and the section of that name."""
    parts = re.split(r"(?m)^## ", page)
    intro = parts[0].partition("\n")[2]
    body = next((p for p in parts[1:] if p.partition("\n")[0].strip() == section), None)
    if body is None:
        raise SystemExit(f"there is no section {section}")
    short = {"node.yaml": "what a host offers Sluice", "services.yaml": "what Sluice shall do"}
    out = title(name, 5, "", "Sluice")
    out += [".SH NAME", f"{escape(name)} \\- {short[section]}", ".SH DESCRIPTION",
            *markdown(intro.splitlines()), f".SH {escape(section.upper())}",
            *markdown(body.partition("\n")[2].splitlines()),
            ".SH SEE ALSO", see("sluice(1)", "sluice-dataplane(8)", "sluice-controlplane(8)")]
    return finish(out)
