"""`phi3batch show`: everything that is known of a batch."""

from argparse import Namespace
from collections.abc import Iterator

from phi3batch.money import money_lines
from phi3batch.printing import moment, print_columns, print_json
from phi3batch.progress import advice, describe, in_time, placed
from phi3batch.service import connected
from phi3batch.tasks import METADATA_KEY
from schemas.openai import Batch

_TIMES = ("created", "in_progress", "cancelling", "finalizing", "completed", "failed", "expired",
          "cancelled", "expires")  # fmt: skip


def run(given: Namespace) -> int:
    """Print what is known of a batch; the exit status is 0."""
    with connected() as service:
        batch = service.batch(given.id)
    if given.json:
        print_json(batch)
        return 0
    print(describe(batch))
    print_columns(_lines(batch))
    return 0


def _lines(batch: Batch) -> Iterator[tuple[str, str]]:
    yield "  input", f"{batch.phi3.filename or batch.phi3.input} ({batch.input_file_id})"
    yield "  results", batch.phi3.results
    for name, file in (("answers", batch.output_file_id), ("errors", batch.error_file_id)):
        if file is not None:
            yield f"  {name}", file
    yield "  tokens", f"{batch.usage.input_tokens:,} read, {batch.usage.output_tokens:,} written"
    yield from ((f"  {name}", told) for name, told in money_lines(batch))
    if batch.phi3.at_risk is not None:
        yield "  at risk", in_time(batch.phi3.at_risk)
    if (said := advice(batch)) is not None:
        yield "  waits", said
    for name in _TIMES:
        if (at := getattr(batch, f"{name}_at")) is not None:
            yield f"  {name}", moment(at)
    for name, value in (batch.metadata or {}).items():
        if name != METADATA_KEY:
            yield f"  {name}", value
    for error in batch.errors.data if batch.errors else ():
        yield f"  {error.code}", placed(error)
