"""Assembles a job's results: stages the parts in order, commits them, writes the manifest."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Literal

from schemas.estimates import JobEstimate
from schemas.history import Sample
from schemas.jobs import Job, JobState
from schemas.results import (
    NOTHING_LOST,
    CodeCount,
    DeploymentUse,
    Manifest,
    ManifestFile,
    ManifestPart,
    Part,
    Receipt,
    Use,
)
from schemas.versions import RELEASE
from workers.jobs import budget, endings, lifecycle, pace
from workers.jobs.costs import cost_so_far
from workers.jobs.events import iso
from workers.jobs.history import History
from workers.jobs.report import report
from workers.jobs.results import (
    MANIFEST,
    MARK,
    StandingManifest,
    create_manifest,
    is_ours,
    mark_of,
    names_for,
)
from workers.jobs.series import Series, samples_of
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.ports import BlobRef
from workers.ports.errors import BlobExists, StorageError, Unavailable, WorkerError, first_of
from workers.rows.writing import add_codes, add_totals, add_use, added_use

PartName = Literal["output", "errors"]

SLICE_SECONDS: Final = 240.0
_AT_ONCE: Final = 16
_BATCH: Final = 64
_NAMES: Final[dict[PartName, str]] = {"output": "output.jsonl", "errors": "errors.jsonl"}

_BUGS: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a mistake in making a report of a manifest can raise: nothing is waited for there."""

log = logging.getLogger(__name__)


class Finisher:
    """The way of a job from its last receipt to its end. Two at once do no harm: block ids
    and parts are the same, and each document stands once.
    """

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        history: History,
        *,
        clock: Callable[[], float],
        slice_seconds: float = SLICE_SECONDS,
    ) -> None:
        self._store = store
        self._blobs = store.blobs
        self._transitions = transitions
        self._history = history
        self._clock = clock
        self._slice_seconds = slice_seconds

    async def run(self, job_id: str, *, repeated: bool) -> Job | None:
        """Go on from wherever a job's finishing stands; gives the job."""
        job = await self._store.job(job_id)
        if job is not None:
            await self._run(job, repeated)
        return job

    async def _run(self, job: Job, repeated: bool) -> None:
        def finalized(state: JobState | None, repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING
            return endings.finalize(state, repeated=repeated, now=self._clock())

        state = await self._transitions.take(job, finalized, repeated=repeated)
        if state is None or state.state != "finalizing":
            return
        staged = await self._stage_slice(job, state)
        if staged < state.shards:
            await self._transitions.take(job, _staged(staged))
            return
        whole, name = await self._assemble(job, state, repeated)

        def closed(state: JobState | None, _repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING
            return endings.close(
                state,
                use=whole.totals,
                lost=whole.lost,
                manifest=None if name == MANIFEST else name,
                now=self._clock(),
            )

        await self._transitions.take(job, closed)

    async def _stage_slice(self, job: Job, state: JobState) -> int:
        """Stage parts until the soft deadline; gives how many shards are staged then."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._slice_seconds
        staged = state.staged
        while staged < state.shards and loop.time() < deadline:
            batch = range(staged, min(staged + _BATCH, state.shards))
            await self._stage(job, await self._store.receipts(job.id, batch))
            staged = batch.stop
        return staged

    async def _stage(self, job: Job, receipts: Sequence[Receipt]) -> None:
        room = asyncio.Semaphore(_AT_ONCE)

        async def stage(kind: PartName, shard: int, part: Part) -> None:
            async with room:
                source = BlobRef(self._store.state_container, part.name)
                await self._blobs.stage_from(self._target(job, kind), _block_id(shard), source)

        try:
            async with asyncio.TaskGroup() as group:
                for receipt in receipts:
                    for kind, part in _parts(receipt):
                        group.create_task(stage(kind, receipt.shard, part))
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors

    def _target(self, job: Job, kind: PartName) -> BlobRef:
        return self._store.result(job, _NAMES[kind])

    async def _receipts(self, job: Job, shards: int) -> AsyncIterator[Receipt]:
        for start in range(0, shards, _BATCH):
            batch = range(start, min(start + _BATCH, shards))
            for receipt in await self._store.receipts(job.id, batch):
                yield receipt

    async def _assemble(self, job: Job, state: JobState, repeated: bool) -> tuple["_Whole", str]:
        """Write the results and the manifest; gives what all receipts come to, and the manifest's
        name.
        """
        whole = _Whole()
        async for receipt in self._receipts(job, state.shards):
            whole.add(receipt)
        priced = not job.prices.keys().isdisjoint(whole.use)
        went = samples_of(
            whole.series, priced=priced, started=state.started, done=state.finalizing_since
        )
        await self._history.close(job.id, went)
        errors = await self._commit(job, state, "errors", whole.parts["errors"])
        output = await self._commit(job, state, "output", whole.parts["output"])
        estimate = await self._store.find(JobEstimate, self._store.ref(job.id, "estimate.json"))
        manifest = self._manifest(job, state, output, errors, whole=whole, estimate=estimate)
        stands = await create_manifest(self._store, job, manifest)
        await self._report(job, stands, went, whole.lost.crashes, repeated)
        return whole, stands.name

    async def _report(
        self,
        job: Job,
        stands: StandingManifest,
        went: Sequence[Sample],
        crashes: int,
        repeated: bool,
    ) -> None:
        """Write the report of the manifest that stands, whoever wrote it.

        Whatever is wrong with a report, it is no reason for a job not to end: where storage is out
        of reach the finishing comes once more, by Unavailable, and does without it then.
        """
        try:
            made = report(Manifest.model_validate_json(stands.data), went, crashes=crashes)
            await self._store.create_once(
                self._store.result(job, "report.html"), made, content_type="text/html"
            )
        except WorkerError as error:
            if isinstance(error, Unavailable) and not repeated:
                raise
            log.warning("[REPORT_MISSING] the report of %s is not there: %s", job.id, error)
        except _BUGS:
            log.exception("[REPORT_BUG] the report of %s could not be made", job.id)

    async def _commit(
        self, job: Job, state: JobState, kind: PartName, parts: Sequence[ManifestPart]
    ) -> ManifestFile:
        """Make a result file of its parts, as the manifest tells of it.

        Where somebody else has written a file of its name, it gets another one: the answers are
        paid for, and whoever reads the manifest finds them.
        """
        usual, *others = names_for(_NAMES[kind])
        file = _file(usual, parts)
        if await self._committed(job, state, kind, file):
            return file
        for name in others:
            file = _file(name, parts)
            await self._stage_all(job, state, kind, self._store.result(job, name))
            if await self._committed(job, state, kind, file):
                return file
        raise StorageError(f"all names for the {kind} of {job.id} are taken by others' files")

    async def _committed(
        self, job: Job, state: JobState, kind: PartName, file: ManifestFile
    ) -> bool:
        """Whether a file stands now as it has to, whoever committed it."""
        target = self._store.result(job, file.name)
        try:
            await self._commit_blocks(job, state, kind, target, file.parts)
        except BlobExists:
            return await is_ours(self._store, target, file)
        return True

    async def _commit_blocks(
        self,
        job: Job,
        state: JobState,
        kind: PartName,
        target: BlobRef,
        parts: Sequence[ManifestPart],
    ) -> None:
        """Commit blocks, staged once more where they are gone. Raises BlobExists."""
        blocks = [_block_id(part.shard) for part in parts]
        mark = {MARK: mark_of(parts)}
        try:
            await self._blobs.commit(target, blocks, metadata=mark)
        except BlobExists:
            raise
        except StorageError:
            # Uncommitted blocks are kept for a week, and another commit may discard them.
            log.warning("[BLOCKS_GONE] staged blocks of %s are gone: staging them again", job.id)
            await self._stage_all(job, state, kind, target)
            await self._blobs.commit(target, blocks, metadata=mark)

    async def _stage_all(self, job: Job, state: JobState, kind: PartName, target: BlobRef) -> None:
        async for receipt in self._receipts(job, state.shards):
            for part_kind, part in _parts(receipt):
                if part_kind == kind:
                    source = BlobRef(self._store.state_container, part.name)
                    await self._blobs.stage_from(target, _block_id(receipt.shard), source)

    def _manifest(
        self,
        job: Job,
        state: JobState,
        output: ManifestFile,
        errors: ManifestFile,
        *,
        whole: "_Whole",
        estimate: JobEstimate | None,
    ) -> Manifest:
        now, ending = self._clock(), state.ending or "completed"
        ended = state.model_copy(update={"state": ending, "use": whole.use, "lost": whole.lost})
        return Manifest(
            job=job.id,
            state=ending,
            reason=state.reason and {"code": state.reason.code, "message": state.reason.message},
            input=job.model_dump(include={"container", "name", "filename", "etag", "size"}),
            options=job.options.model_dump(mode="json", exclude_none=True),
            counts=state.counts,
            tokens=state.tokens,
            codes=whole.codes,
            least_seconds=pace.least_seconds(state, estimate, whole.use),
            closed_seconds=round(state.closed_seconds, 3),
            budget_seconds=state.budget_seconds,
            paused_seconds=state.paused_seconds,
            estimate=estimate,
            release=RELEASE,
            created=iso(job.created),
            started=None if state.started is None else iso(state.started),
            finished=iso(now),
            seconds=round(now - job.created, 3),
            use=whole.use,
            prices=job.prices,
            hourly_prices=job.hourly_prices,
            cost=cost_so_far(job, ended) if job.prices else None,
            budget=None if state.budget is None else budget.status(state.budget, job.options),
            output=output,
            errors=errors,
        )


class _Whole:
    """What all receipts come to: not the state's sums, some of which 0.1.0 knows nothing of."""

    def __init__(self) -> None:
        self.parts: dict[PartName, list[ManifestPart]] = {"output": [], "errors": []}
        self.use: dict[str, DeploymentUse] = {}
        self.lost = NOTHING_LOST
        self.codes: dict[str, CodeCount] = {}
        self.series = Series()

    @property
    def totals(self) -> dict[str, Use]:
        """The use as a state has it."""
        return added_use({}, self.use, add_totals, Use())

    def add(self, receipt: Receipt) -> None:
        """Count one more, in the order of shards."""
        for kind, part in _parts(receipt):
            before = self.parts[kind][-1:]
            self.parts[kind].append(
                ManifestPart(
                    shard=receipt.shard,
                    offset=sum(each.offset + each.length for each in before),
                    length=part.length,
                    rows=part.rows,
                    sha256=part.sha256,
                )
            )
        self.use = added_use(self.use, receipt.use, add_use, DeploymentUse())
        self.lost = self.lost.plus(receipt.lost)
        self.codes = add_codes(self.codes, receipt.codes)
        self.series.add(receipt.intervals)


def _staged(staged: int) -> Callable[[JobState | None, bool], lifecycle.Change]:
    def moved(state: JobState | None, repeated: bool) -> lifecycle.Change:
        if state is None:
            return lifecycle.NOTHING
        return endings.stage(state, staged, repeated=repeated)

    return moved


def _parts(receipt: Receipt) -> list[tuple[PartName, Part]]:
    named: tuple[tuple[PartName, Part | None], ...] = (
        ("output", receipt.output),
        ("errors", receipt.errors),
    )
    return [(kind, part) for kind, part in named if part is not None]


def _file(name: str, parts: Sequence[ManifestPart]) -> ManifestFile:
    return ManifestFile(
        name=name,
        length=sum(part.length for part in parts),
        rows=sum(part.rows for part in parts),
        parts=list(parts),
    )


def _block_id(shard: int) -> str:
    """The id of a shard's block: the same for every finisher, and of one length for all."""
    return f"{shard:08d}"
