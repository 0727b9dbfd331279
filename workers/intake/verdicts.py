"""Can a job be run, though its file can be read? What rows and deployments say before it begins."""

from collections.abc import Container, Iterable
from typing import Protocol

from schemas.deployments import Task
from schemas.jobs import Job, Reason
from schemas.plans import LineError, Verdict
from workers.intake.planning import MOST_WRONG, too_many_shards
from workers.intake.scanning import Planned
from workers.rows.reading import NO_MODEL
from workers.rows.reasons import DUPLICATE
from workers.rows.sizes import AskedKind


class Preflight(Protocol):
    """What intake asks of the dispatcher before a job is planned."""

    def cannot(self, task: Task, model: str, among: Container[str] | None = None) -> str | None:
        """Why no deployment (of those `among` names) serves a model's task; None where one does."""

    async def preflight(self, task: Task, model: str) -> str | None:
        """Why the deployments themselves say that they cannot; None where one can."""


async def judged(job: Job, planned: Planned, routes: Preflight) -> Reason | None:
    """Why the whole job has to fail; None where it can be run."""
    if planned.foreign is not None:
        return Reason(code="not_jsonl", message=f"{planned.foreign}, and drop it again")
    if planned.beyond is not None:
        return Reason(code="file_too_large", message=too_many_shards(planned.beyond))
    asked = planned.survey.asked
    if (uncappable := _uncappable(job, planned, routes)) is not None:
        return uncappable
    if job.options.on_invalid == "fail" and (wrong := _wrong(job, planned, routes)):
        message = f"on_invalid is fail, and {_told(wrong[0])}"
        return Verdict(code="invalid_rows", message=message, lines=tuple(wrong))
    if not asked:
        return None
    refused = [await _unserved(task, model, routes) for task, model in asked]
    if all(refused):
        return Reason(code="no_deployment", message="; ".join(dict.fromkeys(filter(None, refused))))
    return None


def _uncappable(job: Job, planned: Planned, routes: Preflight) -> Reason | None:
    """Why nothing would bound what the job's calls may cost; None where something does."""
    if (row := planned.survey.unbounded) is not None:
        message = f"{job.filename or job.input}, {row.message}"
        return Verdict(code=row.code, message=message, lines=(row,))
    first = planned.survey.first
    if job.askable is None or (kind := without_price(first, job.askable, routes)) is None:
        return None
    named, line = job.options.max_cost is not None, first[kind]
    who = "max_cost" if named else f"tenant {job.tenant!r} has a cap by month, which"
    message = f"line {line}: {who} {needs_price(kind)}"
    wrong = LineError(code="no_price", message=message, line=line)
    return Verdict(
        code=wrong.code, message=f"{job.filename or job.input}, {wrong.message}", lines=(wrong,)
    )


def without_price(
    kinds: Iterable[AskedKind], priced: Container[str], routes: Preflight
) -> AskedKind | None:
    """The first of what is asked that deployments serve, and none with a price; None without one.

    Where a cap holds, only those that are `priced` may be asked.
    """
    for kind in kinds:
        task, model = kind
        if model is None or routes.cannot(task, model) is not None:
            continue
        if routes.cannot(task, model, priced) is not None:
            return kind
    return None


def needs_price(kind: AskedKind) -> str:
    """What a cap needs for what is asked, as told of the cap."""
    return f"needs a price of input and output in DEPLOYMENTS for {kind[1]!r}"


def _wrong(job: Job, planned: Planned, routes: Preflight) -> list[LineError]:
    """The first lines that cannot be asked, in the order of the file."""
    survey = planned.survey
    wrong = list(survey.wrong)
    if job.options.on_duplicate == "refuse":
        wrong += [_duplicate(line) for line in planned.repeated]
    for (task, model), line in survey.first.items():
        code = "no_model" if model is None else "unknown_model"
        cannot = NO_MODEL if model is None else routes.cannot(task, model)
        if cannot is not None:
            wrong.append(LineError(code=code, message=f"line {line}: {cannot}", line=line))
    return sorted(wrong, key=lambda each: each.line or 0)[:MOST_WRONG]


def _told(wrong: LineError) -> str:
    # A message about what stands in a row may quote it, and this one goes into events.
    if wrong.code in ("duplicate_custom_id", "no_model", "unknown_model"):
        return wrong.message
    return f"line {wrong.line} is wrong: {wrong.code}; errors.jsonl says more"


def _duplicate(line: int) -> LineError:
    return LineError(code="duplicate_custom_id", message=f"line {line}: {DUPLICATE}", line=line)


async def _unserved(task: Task, model: str | None, routes: Preflight) -> str | None:
    """What deployments say of themselves against a task; an unknown model is its row's error."""
    if model is None or routes.cannot(task, model) is not None:
        return None
    return await routes.preflight(task, model)
