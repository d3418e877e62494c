# SPDX-License-Identifier: Apache-2.0
"""Completions for bash and zsh out of the tree that `sluice describe` prints."""

import re

# What the words of an option are, where its type does not say them.
WORDS = {"--output": "table json yaml", "--kind": "full incremental differential",
         "--copy": "sync async", "--protocol": "tcp udp", "--client-address": "none proxy-v2 toa",
         "--forward": "ipip gue gre dsr-l2 dsr-dscp nat full-nat",
         "--scheduler": "maglev ring-hash partitioned-hash source-hash round-robin "
                        "weighted-round-robin random weighted-random least-connections "
                        "weighted-least-connections"}
POSITIONAL = {"STATE": "up down none"}
FILES = {"FILE", "PATH"}
SERVICES = {"SERVICE"}  # positional; NAME of `service set` and `get services`, too


def walk(command, path=()):
    """walk() yields (path, command) of each, the root with an empty path."""
    yield path, command
    for sub in command["commands"]:
        yield from walk(sub, (*path, sub["name"]))


def kind(option):
    """kind() is what a value is: words:..., file, dir, service, or nothing known."""
    names = [*option["names"], option["positional"]]
    for name in names:
        if name in WORDS or name in POSITIONAL:
            return "words:" + (WORDS.get(name) or POSITIONAL[name])
    braces = re.search(r"\{([^}]*)\}", option["type"])
    if braces:
        return "words:" + braces[1].replace(",", " ")
    if "--service" in names or option["positional"] in SERVICES:
        return "service"
    if option["type"] in FILES or option["positional"] == "FILE":
        return "file"
    if option["type"] == "DIR":
        return "dir"
    return ""


def tables(tree):
    """tables() collects the commands, and what each option's value is."""
    commands = {}
    values = {}
    with_value = set()
    everywhere = [o for o in tree["options"] if "--version" not in o["names"]]
    for path, command in walk(tree):
        own = command["options"] + ([] if not path else everywhere)
        options = {}
        for o in own:
            for name in o["names"]:
                options.setdefault(name, o["text"])
                if o["takes_value"]:
                    with_value.add(name)
                    if kind(o):
                        values[name] = kind(o)
        positional = next((o for o in command["options"]
                           if o["positional"]), None)
        # NAME is a service's, where there is one already.
        if positional and positional["positional"] == "NAME" and path != ("service", "add"):
            what = "service"
        else:
            what = kind(positional) if positional else ""
        commands[" ".join(path)] = {
            "commands": [(c["name"], c["text"]) for c in command["commands"]],
            "options": options, "value": what}
    return commands, values, with_value


def first_line(text):
    """first_line() is a description in one line, without its example."""
    return re.sub(r"\s*Example: .*", "", text, flags=re.DOTALL).replace("\n", " ").strip()


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


HEAD = "# SPDX-License-Identifier: Apache-2.0\n# Made of what `sluice --help` says.\n"
NAMES = "sluice --timeout 2 get services 2>/dev/null | sed '1d;s/ .*//'"


def bash(tree):
    commands, values, with_value = tables(tree)
    out = ["# bash completion for sluice", HEAD, "_sluice() {",
           "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}",
           "  local path='' word i commands='' options='' value=''",
           "  COMPREPLY=()",
           "  for ((i = 1; i < COMP_CWORD; i++)); do",
           "    word=${COMP_WORDS[i]}",
           "    case $word in",
           f"      {'|'.join(sorted(with_value))}) ((i++)) ;;",
           "      -*) ;;",
           "      *)",
           "        case \"$path $word\" in"]
    out += [f"          {quoted(' ' + p if ' ' not in p else p)}) path={quoted(p)} ;;"
            for p in commands if p]
    out += ["        esac", "        ;;", "    esac", "  done", "  case $prev in"]
    out += [f"    {name}) value={quoted(what)} ;;" for name, what in sorted(values.items())]
    rest = sorted(with_value - set(values))
    out += [f"    {'|'.join(rest)}) return ;;", "  esac",
            "  if [[ -z $value ]]; then",
            "    case $path in"]
    for path, c in commands.items():
        out.append(f"      {quoted(path)})")
        out.append(f"        commands={quoted(' '.join(n for n, _ in c['commands']))}")
        out.append(f"        options={quoted(' '.join(c['options']))}")
        if c["value"]:
            out.append(f"        value={quoted(c['value'])}")
        out.append("        ;;")
    out += ["    esac",
            "    if [[ $cur == -* ]]; then",
            "      mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")",
            "      return",
            "    elif [[ -n $commands ]]; then",
            "      mapfile -t COMPREPLY < <(compgen -W \"$commands\" -- \"$cur\")",
            "      return",
            "    fi",
            "  fi",
            "  case $value in",
            "    words:*) mapfile -t COMPREPLY < <(compgen -W \"${value#words:}\" -- \"$cur\") ;;",
            "    service)",
            f"      mapfile -t COMPREPLY < <(compgen -W \"$({NAMES})\" -- \"$cur\")",
            "      ;;",
            "    file)",
            "      compopt -o filenames 2>/dev/null",
            "      mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")",
            "      ;;",
            "    dir)",
            "      compopt -o filenames 2>/dev/null",
            "      mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")",
            "      ;;",
            "  esac",
            "}",
            "complete -F _sluice sluice", ""]
    return "\n".join(out)


def described(pairs):
    """described() writes NAME:TEXT for zsh's _describe."""
    return " ".join(quoted(f"{name.replace(':', chr(92) + ':')}:{first_line(text)}")
                    for name, text in pairs)


def zsh(tree):
    commands, values, with_value = tables(tree)
    out = ["#compdef sluice", HEAD, "_sluice() {",
           "  local cur=$words[CURRENT] prev=$words[CURRENT-1]",
           "  local path_='' word value=''",
           "  integer i",
           "  local -a commands options names",
           "  for ((i = 2; i < CURRENT; i++)); do",
           "    word=$words[i]",
           "    case $word in",
           f"      ({'|'.join(sorted(with_value))}) ((i++)) ;;",
           "      (-*) ;;",
           "      (*)",
           "        case \"$path_ $word\" in"]
    out += [f"          ({quoted(' ' + p if ' ' not in p else p)}) path_={quoted(p)} ;;"
            for p in commands if p]
    out += ["        esac", "        ;;", "    esac", "  done", "  case $prev in"]
    out += [f"    ({name}) value={quoted(what)} ;;" for name, what in sorted(values.items())]
    rest = sorted(with_value - set(values))
    out += [f"    ({'|'.join(rest)}) return 1 ;;", "  esac",
            "  if [[ -z $value ]]; then",
            "    case $path_ in"]
    for path, c in commands.items():
        out.append(f"      ({quoted(path)})")
        out.append(f"        commands=({described(c['commands'])})")
        out.append(f"        options=({described(c['options'].items())})")
        if c["value"]:
            out.append(f"        value={quoted(c['value'])}")
        out.append("        ;;")
    out += ["    esac",
            "    if [[ $cur == -* ]]; then",
            "      _describe -o option options",
            "      return",
            "    elif (( $#commands )); then",
            "      _describe command commands",
            "      return",
            "    fi",
            "  fi",
            "  case $value in",
            "    (words:*) compadd -- ${=value#words:} ;;",
            f"    (service) names=(${{(f)\"$({NAMES})\"}}); compadd -a names ;;",
            "    (file) _files ;;",
            "    (dir) _files -/ ;;",
            "  esac",
            "}",
            "_sluice \"$@\"", ""]
    return "\n".join(out)
