"""`phi3batch submit`: files and tables become batches."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from phi3batch.inputs import STANDARD_INPUT, Prepared, options_of, prepared, refuse_unbounded
from phi3batch.mistakes import Mistake
from phi3batch.printing import print_json
from phi3batch.service import BatchService, about, connected, each
from phi3batch.tasks import METADATA_KEY
from phi3batch.watching import told, watch
from schemas.jobs import MOST_METADATA, parse_options
from schemas.openai import Batch

# Characters of a value in metadata, and of its name.
_MOST: Final = 512
_MOST_OF_NAME: Final = 64


def run(given: Namespace) -> int:
    """Submit all files, or none where one is wrong.

    The exit status is 0 where all were submitted; with --watch it is that of `watch`.
    """
    with connected() as service, ExitStack() as stack:
        options_of(given)
        wanted = {name: _wanted(given, name, stack) for name in dict.fromkeys(given.files)}
        service.reach()
        ids: list[str] = []
        status = each(wanted, lambda name: ids.append(_submitted(service, given, wanted[name])))
        if not given.watch or not ids:
            return status
        watched = watch(
            service,
            ids,
            strict=given.strict,
            interval=given.interval,
            timeout=given.timeout,
            tell=print_json if given.json else told,
        )
        return watched or status


@dataclass(frozen=True, slots=True)
class _Draft:
    """A batch that can be made, as far as is known here."""

    name: str
    file: Prepared
    options: Mapping[str, Any]


def _wanted(given: Namespace, name: str, stack: ExitStack) -> _Draft:
    """Rows may ask for anything, and a bad one harms no other. Raises Mistake."""
    file = stack.enter_context(prepared(given, name))
    options: dict[str, Any] = {
        "mixed": True,
        "on_invalid": "skip",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    options |= {**given.options, **dict(given.option)}
    options["metadata"] = _metadata(given, file, options.get("metadata", {}))
    try:
        parsed = parse_options(options)
    except ValueError as error:
        raise Mistake(str(error)) from None
    refuse_unbounded(file, parsed)
    return _Draft(name, file, options)


def _metadata(given: Namespace, file: Prepared, told: Mapping[str, str]) -> dict[str, str]:
    """What was said, and how a table's rows are called; the file's name where there is room."""
    own: dict[str, str] = {**told}
    for name, value in given.meta:
        if name in own:
            raise Mistake(f"--meta {name} is given twice")
        own[name] = value
    if METADATA_KEY in own:
        raise Mistake(f"--meta {METADATA_KEY} is what `results --join` reads: name yours otherwise")
    for name, value in own.items():
        if not 1 <= len(name) <= _MOST_OF_NAME or len(value) > _MOST:
            limits = f"a name has 1 to {_MOST_OF_NAME} characters, a value at most {_MOST}"
            raise Mistake(f"--meta {name[:_MOST_OF_NAME]}: {limits}")
    named = file.naming.as_metadata() if file.naming else {}
    if len(own) + len(named) > MOST_METADATA:
        raise Mistake(f"--meta: {len(own)} are given, {MOST_METADATA - len(named)} are the most")
    room = "file" not in own and len(own) + len(named) < MOST_METADATA
    return {**({"file": file.source[:_MOST]} if room else {}), **own, **named}


def _submitted(service: BatchService, given: Namespace, wanted: _Draft) -> str:
    name = "standard input" if wanted.name == STANDARD_INPUT else wanted.name
    _tell_not_asked(name, wanted.file)
    with about(name):
        batch = _created(service, wanted)
    if not given.watch:
        if given.json:
            print_json(batch)
        else:
            print(batch.id)
    come_back = "" if given.watch else f"; follow it with: phi3batch watch {batch.id}"
    print(f"{name} is {batch.id}{come_back}", file=sys.stderr)
    return batch.id


def _created(service: BatchService, wanted: _Draft) -> Batch:
    options = dict(wanted.options)
    return service.create(
        service.upload(wanted.file.path, wanted.file.name),
        endpoint=options.pop("endpoint"),
        window=options.pop("completion_window"),
        metadata=options.pop("metadata"),
        options=options,
    )


def _tell_not_asked(name: str, file: Prepared) -> None:
    if not file.codes:
        return
    codes = ", ".join(f"{count:,} {code}" for code, count in file.codes.items())
    print(f"{name}: not everything can be asked: {codes}", file=sys.stderr)
    for task in file.not_asked:
        print(f"  {task.message}", file=sys.stderr)
