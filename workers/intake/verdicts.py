"""Can a job be run, though its file can be read? What rows and deployments say before it begins."""

from typing import Protocol

from schemas.deployments import Task
from schemas.jobs import Job, Reason
from workers.intake.scanning import Planned
from workers.rows.reading import NO_MODEL
from workers.rows.writing import DUPLICATE


class Preflight(Protocol):
    """What intake asks of the dispatcher before a job is planned."""

    def cannot(self, task: Task, model: str) -> str | None:
        """Why no deployment serves a model's task; None where one does."""

    async def preflight(self, task: Task, model: str) -> str | None:
        """Why the deployments themselves say that they cannot; None where one can."""


async def judged(job: Job, planned: Planned, routes: Preflight) -> Reason | None:
    """Why the whole job has to fail; None where it can be run."""
    if planned.foreign is not None:
        return Reason(code="not_jsonl", message=f"{planned.foreign}, and drop it again")
    asked = planned.survey.asked
    if job.options.on_invalid == "fail" and (bad := _invalid(job, planned, routes)) is not None:
        return Reason(code="invalid_rows", message=f"on_invalid is fail, and {bad}")
    if not asked:
        return None
    refused = [await _unserved(task, model, routes) for task, model in asked]
    if all(refused):
        return Reason(code="no_deployment", message="; ".join(dict.fromkeys(filter(None, refused))))
    return None


def _invalid(job: Job, planned: Planned, routes: Preflight) -> str | None:
    """What is wrong with a row that cannot be asked; None where all can."""
    survey = planned.survey
    if survey.first_invalid is not None:
        # Not the row's own message: this one goes into events, and templates hold prompts.
        bad = survey.first_invalid
        return f"line {bad.line} is wrong: {bad.code}; errors.jsonl says more"
    if planned.first_repeated is not None and job.options.on_duplicate == "refuse":
        return f"line {planned.first_repeated}: {DUPLICATE}"
    for task, model in survey.asked:
        cannot = NO_MODEL if model is None else routes.cannot(task, model)
        if cannot is not None:
            return cannot
    return None


async def _unserved(task: Task, model: str | None, routes: Preflight) -> str | None:
    """What deployments say of themselves against a task; an unknown model is its row's error."""
    if model is None or routes.cannot(task, model) is not None:
        return None
    return await routes.preflight(task, model)
