"""The `az` commands of the documents, and what azure-cli knows of them.

    python -m tests.infra.az path/to/az

reads azure-cli's own help of each command in the documents and writes `az_commands.json`, so that
the tests need no azure-cli, which is larger than all else that they install.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

KNOWN = Path(__file__).with_name("az_commands.json")
DOCS = Path(__file__).parents[2] / "docs"
# Azure's own, on every command.
GLOBAL = frozenset(
    {
        "--debug",
        "--help",
        "--only-show-errors",
        "--output",
        "--query",
        "--subscription",
        "--verbose",
    }
    | {"-h", "-o"}
)
_SEPARATORS = frozenset({"&&", "||", "|", ";", "(", ")", "{", "}", "&", "do", "then"})


def documents() -> dict[str, str]:
    """The documents by their names."""
    return {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}


def commands(document: str, program: str = "az") -> Iterator[tuple[str, frozenset[str]]]:
    """Each call of a program in a document's shell blocks: its words and its flags."""
    for block in re.findall(r"```sh\n(.*?)```", document, re.DOTALL):
        yield from calls(block, program)
    for inline in re.findall(rf"`({program} [^`\n]+)`", document):
        yield from calls(inline, program)


def calls(script: str, program: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Each call of a program in a script."""
    for line in re.sub(r"\\\n\s*", " ", script).splitlines():
        if re.search(rf"\b{program} ", line):
            yield from _line(line, program)


def _line(line: str, program: str) -> Iterator[tuple[str, frozenset[str]]]:
    for inner in re.findall(rf"\$\(({program} [^()]*(?:\([^()]*\)[^()]*)*)\)", line):
        yield from _line(inner, program)
    words = re.sub(r"\$\([^()]*(?:\([^()]*\)[^()]*)*\)", "VALUE", line)
    lexer = shlex.shlex(words, posix=True, punctuation_chars="();|&{}")
    lexer.whitespace_split = True
    call: list[str] = []
    for word in [*lexer, ";"]:
        if word in _SEPARATORS:
            yield from _call(call, program)
            call = []
        else:
            call.append(word)


def _call(words: list[str], program: str) -> Iterator[tuple[str, frozenset[str]]]:
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if words[:1] != [program]:
        return
    names = []
    for word in words[1:]:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", word):
            break
        names.append(word)
    yield " ".join(names), frozenset(word for word in words if word.startswith("-"))


def helped(program: str, command: str) -> dict[str, list[str]]:
    """The flags that azure-cli's help of a command names, and those that it requires."""
    ran = subprocess.run(
        [program, *command.split(), "--help"], capture_output=True, check=True, text=True
    )
    flags = re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", ran.stdout)
    required = re.findall(r"^ +(-[-\w ]+?) +\[Required\]", ran.stdout, re.MULTILINE)
    return {"flags": sorted({*flags} - GLOBAL), "required": required}


if __name__ == "__main__":
    asked = {name for text in documents().values() for name, _ in commands(text)}
    table = {name: helped(sys.argv[1], name) for name in sorted(asked)}
    lines = (f" {json.dumps(name)}: {json.dumps(each)}" for name, each in table.items())
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
