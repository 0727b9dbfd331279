"""`phi3batch retry`: ask again what a batch has not answered, in a batch of its own."""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from phi3batch.answers import is_not_asked
from phi3batch.fetching import fetch
from phi3batch.inputs import Prepared, options_of, refuse_unbounded
from phi3batch.mistakes import Ended, Mistake
from phi3batch.money import stands_at_cap
from phi3batch.printing import print_json
from phi3batch.progress import ENDED
from phi3batch.service import BatchService, connected
from phi3batch.statuses import NOT_DONE
from phi3batch.tasks import RETRY_OF
from phi3batch.watching import told, watch
from schemas.jobs import MOST_METADATA, JobOptions, parse_options
from schemas.openai import Batch

# Of the latest batches, for earlier retries.
_LOOKED_AT: Final = 100
_BESIDE: Final = ("endpoint", "completion_window", "metadata")
# All others are of requests, which were made with those of the first batch.
_OF_JOB: Final = frozenset(
    {*_BESIDE, "mixed", "output_expires_after", "max_cost", "max_total_tokens", "on_budget"}
    | {"priority", "on_invalid", "on_duplicate"}
)


def run(given: Namespace) -> int:
    """Submit what has no answer once more.

    The exit status is 0, also where there is nothing to retry; with --watch it is that of `watch`.
    """
    options_of(given)
    wanted = {**given.options, **dict(given.option)}
    if of_requests := sorted(each for each in wanted if each not in _OF_JOB):
        kept = "the requests that were made keep their own, where they have one"
        print(f"{', '.join(of_requests)}: {kept}", file=sys.stderr)
    with connected() as service:
        batch = service.batch(given.id)
        if batch.status not in ENDED:
            raise Ended(NOT_DONE, f"{given.id} {not_yet(batch)}")
        if batch.error_file_id is None:
            return _nothing(given, "it has no row without an answer")
        _tell_earlier(service, given.id)
        second = _batch_of_errors(service, batch, wanted)
        if second is None:
            why = "no request could be made of what has no answer: mend those rows in the table, "
            return _nothing(given, f"{why}and submit them")
        _tell_window(batch, second)
        if given.watch:
            return watch(
                service,
                [second.id],
                strict=given.strict,
                interval=given.interval,
                timeout=given.timeout,
                tell=print_json if given.json else told,
            )
    if given.json:
        print_json(second)
    else:
        print(second.id)
        joined = f"phi3batch results {given.id} {second.id}"
        print(f"once it has ended, both together: {joined} --join TABLE", file=sys.stderr)
    return 0


def not_yet(batch: Batch) -> str:
    """Why a batch cannot be retried yet, and what to do."""
    cancel = f"phi3batch cancel {batch.id}, which keeps what is done, and retry it then"
    if batch.phi3.budget is not None and stands_at_cap(batch, batch.phi3.budget):
        return f"is paused, for no further call fits its cap: {cancel}"
    if batch.phi3.paused and batch.phi3.waiting is None:
        return f"is paused: phi3batch resume {batch.id}, or {cancel}"
    return f"is {batch.status}: wait for it, or {cancel}"


def _nothing(given: Namespace, why: str) -> int:
    """Say why there is nothing to ask again; the exit status is 0."""
    if given.json:
        print_json({"id": None, "retry_of": given.id, "message": why})
    print(f"{given.id}: {why}", file=sys.stderr)
    return 0


def _tell_earlier(service: BatchService, batch_id: str) -> None:
    for each in service.batches(_LOOKED_AT):
        if (each.metadata or {}).get(RETRY_OF) == batch_id:
            print(f"{each.id} has asked these rows again already", file=sys.stderr)


def _tell_window(first: Batch, second: Batch) -> None:
    if first.status == "expired" and second.completion_window == first.completion_window:
        window = f"{second.id} has the window of {first.completion_window} that did not suffice"
        again = f"phi3batch retry {first.id} -O completion_window=..."
        print(f"{window}; for a longer one, cancel it, then: {again}", file=sys.stderr)


def _batch_of_errors(service: BatchService, batch: Batch, given: Mapping[str, Any]) -> Batch | None:
    """A batch of the errors, with the options of the first or what is `given` in their place, that
    says so in its metadata.

    The result is None where no request could be made of any of them.
    """
    with tempfile.TemporaryDirectory(prefix="phi3batch-") as name:
        folder = Path(name)
        manifest = fetch(service, batch, folder)
        errors = folder / f"{batch.id}.errors.jsonl"
        if not _askable(folder / Path(manifest.errors.name).name, errors):
            return None
        options = {**_options(manifest.options, given), **given}
        # Of those that a later service has told, it is the judge.
        known = {name: each for name, each in options.items() if name in JobOptions.model_fields}
        try:
            parsed = parse_options(known)
        except ValueError as error:
            raise Mistake(str(error)) from None
        refuse_unbounded(Prepared(errors, errors.name), parsed)
        file_id = service.upload(errors, errors.name)
    return service.create(
        file_id,
        endpoint=options.pop("endpoint", None) or batch.endpoint,
        window=options.pop("completion_window", None) or batch.completion_window,
        metadata=_metadata(batch, options.pop("metadata", {})),
        options=options,
    )


def _askable(errors: Path, target: Path) -> int:
    """Write the lines that carry a request: how many there are."""
    lines = 0
    with errors.open("rb") as file, target.open("wb") as copy:
        for line in file:
            if not is_not_asked(line):
                lines += 1
                copy.write(line)
    return lines


def _metadata(batch: Batch, given: Mapping[str, str]) -> Mapping[str, str]:
    """That of the first and what is given, and which it was, where there is room for it."""
    told = {**(batch.metadata or {}), **given}
    if len(told) >= MOST_METADATA and RETRY_OF not in told:
        full = f"the metadata of {batch.id} are full: those of the new batch do not name it"
        print(full, file=sys.stderr)
        return told
    return {**told, RETRY_OF: batch.id}


def _options(first: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the first was told. Where neither names an endpoint, rows ask for any."""
    told = {k: v for k, v in first.items() if k not in _BESIDE and v is not None}
    return told if first.get("endpoint") or given.get("endpoint") else {**told, "mixed": True}
