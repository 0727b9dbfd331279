"""One try at a shard: the rows it reads, the results it has, the receipt it writes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.jobs import Ending, Job, PlannedShard, Reason
from schemas.results import CallRecord, Part, Receipt
from workers.dispatch.admission import Gate
from workers.jobs.store import JobStore
from workers.rows import writing
from workers.rows.reading import Refusal, Request
from workers.rows.writing import RowResult
from workers.shards.input import Row
from workers.shards.journal import Journal, Past
from workers.shards.lease import Lease
from workers.shards.spool import Spool


@dataclass(slots=True)
class Attempt:
    """What an attempt knows and has. `rows` is empty where the input is not what was planned."""

    job: Job
    planned: PlannedShard
    gate: Gate
    lease: Lease
    journal: Journal
    past: Past
    results: Spool
    ending: Ending | None = None
    reason: Reason | None = None
    rows: Sequence[Row] = ()
    pending: list[bytes] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every row has its result."""
        return len(self.results) == self.planned.rows

    def collect(self, result: RowResult) -> None:
        """A row is done; the next journal interval makes it durable."""
        if result.row not in self.results:
            self.results.add(result)
            self.pending.append(writing.journal_line(result))

    def spend(self, row: int, attempts: tuple[CallRecord, ...]) -> None:
        """Calls were made for a row that has to wait; its line will tell of them."""
        self.past.spent[row] = (*self.past.spent.get(row, ()), *attempts)
        self.pending.append(writing.spent_line(row, attempts))

    def left(self) -> list[tuple[int, Request]]:
        """The rows that are still to be asked."""
        return [
            (row, read)
            for row, read in enumerate(self.rows)
            if isinstance(read, Request) and row not in self.results
        ]

    def settle_unaskable(self) -> None:
        """Give their results to rows that cannot be asked, or that crashed three workers."""
        for row, read in enumerate(self.rows):
            if isinstance(read, Refusal):
                self.collect(writing.refused(self.job.id, row, read))
            elif row in self.past.given_up:
                self.collect(self._not_done(row, "failed", writing.CRASHED))

    def write_off(self, ending: Ending) -> None:
        """Give every row that was not answered the ending's reason."""
        reason = self.reason or writing.default_reason(ending)
        for row in range(self.planned.rows):
            if row not in self.results:
                self.results.add(self._not_done(row, ending, reason))

    def _not_done(self, row: int, kind: writing.ResultKind, reason: Reason) -> RowResult:
        read = self.rows[row] if row < len(self.rows) else None
        line = read.line if read else None
        if line is None and not self.planned.gaps:
            line = self.planned.line + row
        return writing.not_done(
            self.job.id,
            row,
            line,
            read if isinstance(read, Request) else None,
            first_line=self.planned.line,
            kind=kind,
            reason=reason,
            attempts=self.past.spent.get(row, ()),
        )

    async def flush(self, *, end: bool = False) -> None:
        """Make what is pending durable; `end` says that this attempt did not crash."""
        pending, self.pending = self.pending, []
        try:
            await self.journal.write(pending)
            if end:
                await self.journal.end()
        except BaseException:
            self.pending = pending + self.pending
            raise

    async def write(self, store: JobStore) -> Receipt:
        """Write output and errors, in input order; gives the receipt that names them."""
        results = list(self.results.results())
        sums = writing.sums_of(results)
        good = [result.row for result in results if result.kind == "succeeded"]
        bad = [result.row for result in results if result.kind != "succeeded"]
        return Receipt(
            shard=self.planned.shard,
            attempt=self.lease.attempt,
            counts=sums.counts,
            tokens=sums.tokens,
            output=await self._write_part(store, "output", good),
            errors=await self._write_part(store, "errors", bad),
            use=sums.use,
        )

    async def _write_part(self, store: JobStore, kind: str, rows: Sequence[int]) -> Part | None:
        if not rows:
            return None
        ref = store.ref(self.job.id, kind, f"{self.planned.shard}.{self.lease.attempt}")
        data, length, digest = self.results.part(rows)
        with data:
            await store.create_once(ref, data, content_type="application/jsonl")
        return Part(name=ref.name, length=length, rows=len(rows), sha256=digest)
