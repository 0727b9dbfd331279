"""What goes in must come out: what has to hold of a world in which nothing moves any more."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.jobs import JobState
from schemas.requests import TASK_OF_URL
from schemas.results import Manifest, ManifestFile
from tests.simulation.attempts import ALONE_DEATHS
from tests.simulation.observers import RANK
from tests.simulation.scenario import Row
from tests.simulation.world import World

# What an endpoint's answer may make of a row; all other errors need a reason of the job's.
GIVEN_UP = "worker_crashed"
ENDINGS = {"cancelled": "cancelled", "expired": "expired", "failed": "failed"}


def check(world: World) -> list[str]:
    """Everything that is wrong, in words that name the rule; empty where all holds."""
    found = [*world.found, *check_all(world, world.records.jobs())]
    if not world.scenario.endless:
        found += _leftovers(world)
        found += _unanswered(world)
    return found


def check_all(world: World, jobs: Sequence[str]) -> list[str]:
    """What is wrong with these jobs, and with what was asked for them."""
    found = [f"{fault} ({job})" for job in jobs for fault in _Job(world, job).faults()]
    return [*found, *world.billing.faults(), *world.attempts.faults()]


def _leftovers(world: World) -> Iterator[str]:
    for ref in world.blobs.blobs:
        if ref.name.startswith("open/"):
            yield f"an open marker is left: {ref.name}"
    for queue in world.host.queues:
        if waiting := world.bus.waiting(queue):
            yield f"messages are left in {queue}: {[m.message_id for m in waiting]}"


def _copied(world: World) -> bool:
    """Whether a request may have lain on the queue twice, or been handled by two at once."""
    sent = "send jobs request f#.jsonl"
    return any(name.startswith("request ") for name in world.host.lost_locks) or any(
        world.faults.struck[sent, fault] for fault in ("repeat", "late", "lose after", "double")
    )


def _unanswered(world: World) -> Iterator[str]:
    """Each file that was announced and not touched since is a job; rejections have a cause."""
    made = {
        json.loads(world.records.of_job(j, "job.json") or b"")["etag"] for j in world.records.jobs()
    }
    events = list(_events(world))
    rejected = {event["data"].get("input") for event in events if event["type"] == "job.rejected"}
    misnamed = {f"prompts/{name}" for name in world.users.misnamed}
    for name in sorted(misnamed - rejected):
        yield f"nobody was told that there is no {name}"
    rejected -= misnamed
    refused = [event for event in events if event["type"] == "job.refused"]
    if refused:
        yield f"messages were refused: {refused}"
    for name, etag in world.records.current.items():
        told = f"prompts/{name}" in rejected or (world.scenario.queued and rejected)
        if etag not in made and not told:
            yield f"an announced file became no job, and nobody was told: {name}"
        # Whoever asks again may be given what was refused before; so may a message's second copy.
        once = world.users.announced[name] == 1 and not _copied(world)
        if etag in made and f"prompts/{name}" in rejected and once:
            yield f"rejected although it is a job: {name}"


def _events(world: World) -> Iterator[dict[str, Any]]:
    for events in world.told.values():
        yield from events


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a result file: the line number of its row, and what it holds."""

    line: int
    held: Mapping[str, Any]
    good: bool


class _Job:
    """One accepted job and what became of it."""

    def __init__(self, world: World, job: str) -> None:
        self.world = world
        self.job = job
        self.about = json.loads(world.records.of_job(job, "job.json") or b"{}")
        raw = world.records.of_job(job, "state.json")
        self.state = None if raw is None else JobState.model_validate_json(raw)
        self.plan = [
            json.loads(line)
            for line in (world.records.of_job(job, "plan.jsonl") or b"").splitlines()
        ]
        self.rows: tuple[Row, ...] = world.records.file_of(job).rows if self.plan else ()

    def faults(self) -> Iterator[str]:
        """What is wrong with it."""
        if self.state is None or not self.state.terminal:
            if not self.world.scenario.endless:
                yield f"the job did not end: {self.state}"
            return
        yield from self._told(self.state)
        if self.world.scenario.webhooks and not self.world.scenario.endless:
            yield from self.world.receiver.faults(self.job, self.state.state)
        manifest = self._result(self.state.manifest or "manifest.json")
        if manifest is None:
            yield "the manifest is missing"
            return
        # They have other names where somebody else's files have theirs.
        told = Manifest.model_validate_json(manifest)
        if told.job != self.job:
            yield f"somebody else's manifest is taken for the job's: {told.job}"
        output, errors = self._result(told.output.name), self._result(told.errors.name)
        if output is None or errors is None:
            yield "results are missing"
            return
        good = [_Line(self._line_of(held), held, good=True) for held in _parsed(output)]
        bad = [_Line(self._line_of(held), held, good=False) for held in _parsed(errors)]
        yield from self._rows(good, bad)
        yield from self._reconciled(self.state, told, good, bad)
        if self.job not in self.world.records.open_markers():
            if self.world.records.stored("state", f"done/{self.job}") is None:
                yield "nobody remembers that it has ended"
            yield from self.world.observers.faults(self.job, output, json.loads(manifest))
            yield from self.world.watching.faults(self.job, json.loads(manifest))
        yield from _file(told.output, output)
        yield from _file(told.errors, errors)
        for line in good:
            yield from self._answer(line)
        for line in bad:
            yield from self._error(line, self.state)
        yield from self._asked_for(self.state)

    def _result(self, name: str) -> bytes | None:
        return self.world.records.stored("results", f"{self.about['results']}/{name}")

    def _line_of(self, held: Mapping[str, Any]) -> int:
        """Which row a line is of, by its id: its line, or its place in a shard with blank lines."""
        first, _, place = held["id"].rsplit("-", 1)[1].partition("+")
        if not place:
            return int(first)
        shard = next(planned["shard"] for planned in self.plan if planned["line"] == int(first))
        return self.world.records.rows_of(self.job, shard)[int(place)].line

    def _rows(self, good: Sequence[_Line], bad: Sequence[_Line]) -> Iterator[str]:
        seen = Counter(line.line for line in (*good, *bad))
        expected = {row.line for row in self.rows}
        if lost := sorted(expected - set(seen)):
            yield f"rows lost: {lost}"
        if unexpected := sorted(set(seen) - expected):
            yield f"rows that nobody sent: {unexpected}"
        if doubled := sorted(line for line, times in seen.items() if times > 1):
            yield f"rows doubled: {doubled}"
        for lines in (good, bad):
            order = [line.line for line in lines]
            if order != sorted(order):
                yield f"rows out of order: {order}"

    def _reconciled(
        self, state: JobState, manifest: Manifest, good: Sequence[_Line], bad: Sequence[_Line]
    ) -> Iterator[str]:
        counts = manifest.counts
        if (counts.succeeded, counts.errors) != (len(good), len(bad)):
            yield f"the manifest counts {counts}, the files hold {len(good)} and {len(bad)}"
        if counts.total != counts.done or counts.total != len(self.rows):
            yield f"{len(self.rows)} rows went in, the manifest has {counts}"
        if state.counts != counts or state.tokens != manifest.tokens:
            yield f"the state has {state.counts}, the manifest {counts}"
        if state.out or state.next != len(self.plan) or state.state != manifest.state:
            yield f"the state does not fit the end: {state}"
        if state.state != (state.ending or "completed"):
            yield f"ending {state.ending}, but {state.state}"
        if self.world.caps is not None:
            disturbed = not _undisturbed(self.world)
            yield from self.world.caps.faults(self.job, disturbed=disturbed)
            return
        prompt = sum(line.held["response"] is not None for line in good)
        if manifest.tokens.completion > prompt or manifest.tokens.prompt != prompt:
            yield f"tokens {manifest.tokens} for {prompt} answers"

    def _answer(self, line: _Line) -> Iterator[str]:
        row = self._row(line)
        if row is None:
            return
        body = line.held["response"]["body"]
        answered = (
            body["data"][0]["of"] if "data" in body else body["choices"][0]["message"]["content"]
        )
        if answered != row.prompt or line.held["custom_id"] != row.custom_id:
            yield f"row {line.line} got the answer to {answered}"
        if not row.asked:
            yield f"row {line.line} was asked although it is {row.kind}"

    def _error(self, line: _Line, state: JobState) -> Iterator[str]:
        row, code = self._row(line), line.held["error"]["code"]
        if row is None:
            return
        due = _CODES.get(row.kind)
        if due is not None and code == due:
            return
        if state.ending is not None and code in (f"job_{state.ending}", "input_changed"):
            yield from self._written_off(row, line.line)
            return
        if state.ending is not None and state.reason is not None and code == state.reason.code:
            return
        if code == "budget_exceeded" and self.world.caps is not None:
            yield from self._over_budget(line)
            return
        if code == GIVEN_UP:
            if not self._crashed(row):
                yield f"row {line.line} was given up without evidence"
            return
        attempts = line.held.get("attempts") or []
        if attempts and all(each["kind"] not in ("ok", "throttled") for each in attempts):
            return
        yield f"row {line.line} ({row.kind}) failed for no reason: {line.held['error']}"

    def _over_budget(self, line: _Line) -> Iterator[str]:
        """A row is not asked for its cost only where the cap has no room for it."""
        caps, request = self.world.caps, line.held["request"]
        assert caps is not None
        if self.world.scenario.options.get("on_budget") == "pause":
            yield f"row {line.line} ended for the cap, and the job was to pause"
        task = TASK_OF_URL[request["url"]]
        if _undisturbed(self.world) and caps.had_room(self.job, task, request["body"]):
            yield f"row {line.line} was not asked though the cap had room"

    def _written_off(self, row: Row, line: int) -> Iterator[str]:
        """A row that a journal had when its receipt's writer began has its answer."""
        shard, _ = self._place(row)
        receipt = json.loads(self.world.records.of_job(self.job, f"receipts/{shard}") or b"{}")
        for run in self.world.billing.runs:
            if run.attempt == receipt["attempt"] and row.prompt in run.known:
                yield f"row {line} is reported as not done although a journal had it"

    def _crashed(self, row: Row) -> bool:
        """Whether a row was seen to kill whoever asks it."""
        shard, at = self._place(row)
        return self.world.attempts.deaths_over(self.job, shard, at) >= ALONE_DEATHS

    def _place(self, row: Row) -> tuple[int, int]:
        """A row's shard, and its place there."""
        for shard in range(len(self.plan)):
            rows = self.world.records.rows_of(self.job, shard)
            if row in rows:
                return shard, rows.index(row)
        raise LookupError(row)

    def _row(self, line: _Line) -> Row | None:
        return next((row for row in self.rows if row.line == line.line), None)

    def _told(self, state: JobState) -> Iterator[str]:
        """Consumers keep the highest sequence: they learn the end, and never go back."""
        story: dict[int, dict[str, Any]] = {}
        for event in self.world.told.get(self.job, []):
            told, sequence = event["data"], int(event["sequence"])
            earlier = story.setdefault(sequence, told)
            if any(earlier.get(what) != told.get(what) for what in ("state", "counts")):
                yield f"two stories with sequence {sequence}: {earlier} and {told}"
        order = [story[sequence] for sequence in sorted(story)]
        told_all = order and max(story) == state.revision and order[-1]["state"] == state.state
        if not told_all and self.job not in self.world.records.open_markers():
            yield f"nobody was told the end: {order[-1] if order else None}"
        ranks = [RANK.get(told["state"], 1) for told in order]
        done = [told["counts"]["succeeded"] for told in order if "counts" in told]
        if ranks != sorted(ranks) or done != sorted(done):
            yield "the story goes backwards"

    def _asked_for(self, state: JobState) -> Iterator[str]:
        """What users were told to be accepted has happened."""
        unfit = any(row.kind == "invalid" for row in self.rows)
        strict = self.world.scenario.options.get("on_invalid") == "fail"
        if strict and unfit and state.state == "completed":
            yield "a bad row was to fail the job, and did not"
        if (self.job, "cancel") in self.world.users.accepted and state.state != "cancelled":
            yield f"a cancel was accepted, but the job {state.state}"
        if state.state == "expired" and (state.ended or 0.0) < self.about["expires"] - 250.0:
            yield f"expired {self.about['expires'] - (state.ended or 0.0)} s before its window ends"
        scenario = self.world.scenario
        paused = any(doing.act == "pause" for doing in scenario.doings)
        paused = paused or scenario.options.get("on_budget") == "pause"
        if state.state == "expired" and scenario.completion_window == "24h" and not paused:
            yield "a whole day was not enough"
        if _undisturbed(self.world) and state.gen > (state.ending is not None):
            yield "the sweeper had to help where nothing went wrong"


def _undisturbed(world: World) -> bool:
    """Whether nothing went wrong, and nobody had a job wait."""
    scenario = world.scenario
    outages = (scenario.outages, scenario.storage_out, scenario.bus_out, scenario.no_runs)
    cut_off = (*outages, scenario.partitions, scenario.throttles, scenario.storms)
    poisoned = any(row.kind == "poison" for file in scenario.files for row in file.rows)
    slow = scenario.requests_per_minute is not None
    disturbing = ("kill", "drain", "pause", "resume")
    done = any(doing.act in disturbing for doing in scenario.doings)
    mishaps = world.host.kills or world.faults.mishaps or any(cut_off) or scenario.script
    return not (mishaps or poisoned or slow or done)


_CODES = {
    "invalid": "invalid_json",
    "duplicate": "duplicate_custom_id",
    "unknown": "unknown_model",
    "refused": "bad_request",
    "filtered": "content_filter",
}


def _parsed(data: bytes) -> list[dict[str, Any]]:
    parsed = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            parsed.append(json.loads(line))
    return parsed


def _file(told: ManifestFile, data: bytes) -> Iterator[str]:
    """The manifest's file and parts describe these bytes."""
    if told.length != len(data) or told.rows != data.count(b"\n"):
        yield f"{told.name} has {len(data)} bytes, the manifest tells {told.length}"
    at = 0
    for part in told.parts:
        piece = data[part.offset : part.offset + part.length]
        whole = part.offset == at and piece.count(b"\n") == part.rows
        if not whole or hashlib.sha256(piece).hexdigest() != part.sha256:
            yield f"part {part.shard} of {told.name} is not what the manifest tells"
        at += part.length
