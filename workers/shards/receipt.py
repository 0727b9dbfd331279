"""Writes what a finished shard leaves: output, errors, and the receipt that names them."""

import asyncio
from collections.abc import Sequence
from typing import Final

from schemas.results import Part, Receipt
from workers.jobs.store import JobStore
from workers.rows import writing
from workers.shards.spool import Spool

LARGE_BYTES: Final = 1024 * 1024


async def write_receipt(
    store: JobStore, job: str, shard: int, attempt: str, results: Spool
) -> Receipt:
    """Write output and errors, in input order; gives the receipt that stands, whoever wrote it."""

    async def part(kind: str, rows: Sequence[int]) -> Part | None:
        if not rows:
            return None
        ref = store.ref(job, kind, f"{shard}.{attempt}")
        # Copied and hashed beside the loop where that takes more than a moment.
        large = results.size > LARGE_BYTES
        read = await asyncio.to_thread(results.part, rows) if large else results.part(rows)
        data, length, digest = read
        with data:
            await store.create_once(ref, data, content_type="application/jsonl")
        return Part(name=ref.name, length=length, rows=len(rows), sha256=digest)

    found = list(results.results())
    sums = writing.sums_of(found)
    receipt = Receipt(
        shard=shard,
        attempt=attempt,
        counts=sums.counts,
        tokens=sums.tokens,
        output=await part("output", [each.row for each in found if each.kind == "succeeded"]),
        errors=await part("errors", [each.row for each in found if each.kind != "succeeded"]),
        codes=sums.codes,
        use=sums.use,
    )
    return await store.create_receipt(job, receipt)
