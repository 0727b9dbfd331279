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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

KNOWN = Path(__file__).with_name("az_commands.json")
DOCS = Path(__file__).parents[2] / "docs"
WORKFLOWS = DOCS.parent / ".github/workflows"
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


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a program: words before the first flag, and each flag with what follows it."""

    words: tuple[str, ...]
    flags: Mapping[str, str | None]

    @property
    def command(self) -> str:
        """The words that may be a command's name."""
        return " ".join(takewhile(re.compile(r"[a-z][a-z0-9-]*").fullmatch, self.words))


def documents() -> dict[str, str]:
    """The documents by their names, and what the workflows run as if they were some."""
    found = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
    for path in sorted(WORKFLOWS.glob("*.yml")):
        jobs = YAML(typ="safe").load(path)["jobs"].values()
        runs = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
        found[path.name] = "".join(f"```sh\n{run}\n```\n" for run in runs)
    return found


def commands(document: str, program: str = "az") -> Iterator[Call]:
    """Each call of a program in a document's shell blocks: its words and its flags."""
    for block in re.findall(r"```sh\n(.*?)```", document, re.DOTALL):
        yield from calls(block, program)
    for inline in re.findall(rf"`({program} [^`\n]+)`", document):
        yield from calls(inline, program)


def calls(script: str, program: str) -> Iterator[Call]:
    """Each call of a program in a script."""
    for line in re.sub(r"\\\n\s*", " ", script).splitlines():
        if re.search(rf"\b{program} ", line):
            yield from _line(line, program)


def _line(line: str, program: str) -> Iterator[Call]:
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


def _call(words: list[str], program: str) -> Iterator[Call]:
    if program not in words:
        return
    told = words[words.index(program) + 1 :]
    before = tuple(takewhile(lambda word: not word.startswith("-"), told))
    pairs = zip(told, [*told[1:], None], strict=False)
    flags = {
        flag: None if after is None or after.startswith("-") else after
        for flag, after in pairs
        if flag.startswith("-")
    }
    yield Call(before, flags)


def helped(program: str, command: str) -> dict[str, Any]:
    """The flags that azure-cli's help of a command names, those that it requires, and the values
    that it allows.
    """
    ran = subprocess.run(
        [program, *command.split(), "--help"], capture_output=True, check=True, text=True
    )
    flags = re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", ran.stdout)
    required = re.findall(r"^ +(-[-\w ]+?) +\[Required\]", ran.stdout, re.MULTILINE)
    told = re.findall(
        r"^ +(-[-\w ]+?) +(?:\[.+?\] +)?: (.*?)(?=^ +-|^\S|\Z)",
        ran.stdout,
        re.MULTILINE | re.DOTALL,
    )
    values = {
        names: re.split(r",\s+", match[1])
        for names, text in told
        if (match := re.search(r"Allowed\s+values:\s+([^.]+?)\.", text))
    }
    return {"flags": sorted({*flags} - GLOBAL), "required": required, "values": values}


if __name__ == "__main__":
    asked = {call.command for text in documents().values() for call in commands(text)}
    table = {name: helped(sys.argv[1], name) for name in sorted(asked)}
    lines = (f" {json.dumps(name)}: {json.dumps(each)}" for name, each in table.items())
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
