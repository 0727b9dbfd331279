"""Is a cap held? The endpoint's own count of what it billed is the judge, at every call.

It bills as much as it may: up to a token for each byte of a request and all of `max_tokens`.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from schemas.budgets import NOTHING_SPENT, Allotment, JobBudget, MonthBudget, Spend, total
from schemas.deployments import Task
from schemas.jobs import JobState, parse_options
from schemas.money import MILLION, PinnedPrice, micros
from schemas.outcomes import Usage
from tests.simulation.endpoint import Call
from workers.rows.most_tokens import most_tokens
from workers.rows.reading import Request, RowRules, read_row

if TYPE_CHECKING:
    from tests.simulation.billing import Run
    from tests.simulation.scenario import Scenario
    from tests.simulation.world import World

PRICE = PinnedPrice(input=MILLION, output=2 * MILLION, currency="USD")
_UNLIMITED = 2**62


def is_capped(scenario: "Scenario") -> bool:
    options = scenario.options
    named = "max_total_tokens" in options or "max_cost" in options
    return named or scenario.month_cap is not None


def drawn(rng: Random, rows: int) -> Mapping[str, Any]:
    """A cap for a file of so many rows: some of them, all, or more."""
    each, part = 220, rng.uniform(0.05, 1.3)
    tokens = {"max_total_tokens": max(1, round(rows * each * part))}
    cost = {"max_cost": f"{max(1, round(rows * each * part)) / MILLION:.6f}"}
    chosen = rng.choice((tokens, tokens, cost, {**tokens, **cost}))
    paused = {"on_budget": "pause"} if rng.random() < 0.25 else {}
    return {"max_tokens": rng.choice((1, 20, 60)), **chosen, **paused}


def drawn_month(
    rng: Random, options: Mapping[str, Any], rows: int, files: int
) -> Mapping[str, Any]:
    """A cap for all jobs together: too little for one, or enough for more than there are."""
    named = "max_cost" in options and rng.random() < 0.5
    kept = {name: value for name, value in options.items() if named or name != "max_cost"}
    paused = {"on_budget": "pause"} if rng.random() < 0.6 else {}
    each = micros(kept["max_cost"]) if named else rows * (200 + 2 * options["max_tokens"])
    cap = max(1, round(each * rng.uniform(0.5, files + 0.5))) / MILLION
    return {"month_cap": cap, "options": {**kept, **paused}}


class Caps:
    """What the endpoint billed in a world of capped jobs: by job, and by the run that asked."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = Random(world.scenario.seed)
        self._frugal = self._rng.choice((0.05, 0.5, 1.0))
        self._billed: dict[str, Spend] = defaultdict(lambda: NOTHING_SPENT)
        self._of_run: dict[Run, Spend] = defaultdict(lambda: NOTHING_SPENT)
        cap = world.scenario.month_cap
        self._month_cap = _UNLIMITED if cap is None else round(cap * MILLION) * MILLION
        self._limits: dict[str, Spend] = {}

    def bills(self, call: Call, task: Task, body: Mapping[str, Any]) -> Usage:
        """Bill a call that has come to the endpoint; what it says of it if its answer arrives."""
        most = most_tokens(task, body)
        if most is None:
            self._world.fault_found("a capped job asked without max_tokens")
            return Usage(1, 1)
        prompt, answer = most
        usage = Usage(
            max(1, round(prompt * self._rng.uniform(0.0, self._frugal))),
            round(answer * self._rng.choice((0.1, 1.0))),
        )
        run = call.run
        if run is None or run.job is None:
            self._world.fault_found(f"a call that is nobody's: {call.prompts}")
            return usage
        cost = usage.prompt_tokens * PRICE.input + usage.completion_tokens * PRICE.output
        self._billed[run.job] = self._billed[run.job].plus(Spend(usage.total_tokens, cost))
        self._of_run[run] = self._of_run[run].plus(Spend(usage.total_tokens, cost))
        self._judge(run, run.job)
        return usage

    def _judge(self, run: "Run", job: str) -> None:
        """Billed, recorded and capped lie one within the other, whatever comes next."""
        billed, limit = self._billed[job], self._limit(job)
        if not billed.within(limit):
            self._world.fault_found(f"billed {billed}, the cap is {limit}")
        if self._world.scenario.month_cap is not None:
            self._judge_month(job)
        state = self._state(job)
        if state is None or state.budget is None:
            self._world.fault_found("a capped job has no budget")
            return
        recorded = _taken(state.budget)
        if not billed.within(recorded):
            self._world.fault_found(f"billed {billed}, of which {recorded} is recorded")
        if not recorded.within(limit):
            self._world.fault_found(f"{recorded} is recorded, the cap is {limit}")
        if run.attempt is not None and run.shard is not None:
            lot = self._lot(job, run.shard, run.attempt)
            if not self._of_run[run].within(lot):
                self._world.fault_found(
                    f"{run.process} spent {self._of_run[run]} of a lot of {lot}"
                )

    def _judge_month(self, job: str) -> None:
        billed, month = sum(each.cost for each in self._billed.values()), self._month()
        recorded = month.spent + sum(month.reserved.values())
        if not billed <= recorded <= self._month_cap:
            self._world.fault_found(
                f"billed {billed} of {recorded} in a month that may cost {self._month_cap}"
            )
        state = self._state(job)
        if job not in month.reserved and not (state is not None and state.terminal):
            self._world.fault_found(f"{job} asked, and has no part of its month")

    def _month(self) -> MonthBudget:
        [(_, raw)] = [*self._world.records.below("state", "budgets/default/")] or [("", b"{}")]
        return MonthBudget.model_validate_json(raw)

    def _limit(self, job: str) -> Spend:
        """What a job may cost: its cap, or where its month has one what its rows may cost."""
        if job not in self._limits:
            options = self._world.scenario.options
            cost = options.get("max_cost")
            most = _UNLIMITED if cost is None else micros(cost) * MILLION
            if cost is None and self._world.scenario.month_cap is not None:
                most = -(-self._may_cost(job) // MILLION) * MILLION
            self._limits[job] = Spend(options.get("max_total_tokens", _UNLIMITED), most)
        return self._limits[job]

    def _may_cost(self, job: str) -> int:
        """Of one call for each row of a job that can be asked."""
        settings, found = self._world.settings, 0
        rules = RowRules.of(
            parse_options(self._world.scenario.options),
            max_line_bytes=settings.max_line_bytes,
            default_models=settings.default_models,
        )
        for number, line in enumerate(self._world.records.file_of(job).data.splitlines(), 1):
            row = read_row(number, line, rules, 0, len(line))
            if isinstance(row, Request):
                prompt, answer = most_tokens(row.task, row.body) or (0, 0)
                found += PRICE.of(prompt, answer)
        return found

    def room_since(self, job: str) -> float | None:
        """Since when the month has had room for a job that waits for some; None: it has none.

        Room comes where a job ends, and where its part is returned.
        """
        if self._world.scenario.month_cap is None:
            return None
        records, month = self._world.records, self._month()
        ended = {name.removeprefix("done/"): name for name, _ in records.below("state", "done/")}
        others = month.reserved.keys() - ended.keys() - {job}
        taken = sum(month.reserved[other] for other in others)
        if month.spent + taken + self._limit(job).cost > self._month_cap:
            return None
        months = [name for name, _ in records.below("state", "budgets/default/")]
        return max(map(records.modified_at, (*months, *ended.values())), default=0.0)

    def _state(self, job: str) -> JobState | None:
        raw = self._world.records.of_job(job, "state.json")
        return None if raw is None else JobState.model_validate_json(raw)

    def _lot(self, job: str, shard: int, attempt: str) -> Spend:
        found = NOTHING_SPENT
        data = self._world.records.journals(job, shard).get(attempt, b"")
        for line in data.split(b"\n"):
            with contextlib.suppress(ValueError):
                found = found.most(Spend(*json.loads(line).get("lot", NOTHING_SPENT)))
        return found

    def faults(self, job: str, *, disturbed: bool) -> Iterator[str]:
        """What is wrong with the budget of a job that has ended."""
        state = self._state(job)
        if state is None or state.budget is None:
            # Of what could not be asked at all nothing was reckoned, whatever ended it.
            asked = state is None or (state.reason is None and state.shards > 0)
            if asked or self._billed[job] != NOTHING_SPENT:
                yield "a capped job has no budget"
            return
        if state.budget.allotted:
            yield f"allotments are left: {state.budget.allotted}"
        if not self._billed[job].within(state.budget.spent):
            yield f"billed {self._billed[job]}, counted {state.budget.spent}"
        if not state.budget.spent.within(self._limit(job)):
            yield f"counted {state.budget.spent}, the cap is {self._limit(job)}"
        if self._world.scenario.month_cap is not None:
            yield from self._of_month(job, state, disturbed=disturbed)
        if not disturbed and state.budget.spent != self._billed[job]:
            yield f"billed {self._billed[job]}, counted {state.budget.spent} without a mishap"

    def _of_month(self, job: str, state: JobState, *, disturbed: bool) -> Iterator[str]:
        marked = job in self._world.records.open_markers()
        # Who comes late and dies may leave it reserved: then the next job that needs it returns it.
        month = self._month()
        # Of each job it is rounded up to the millionth, as it is told.
        billed = sum(-(-each.cost // MILLION) * MILLION for each in self._billed.values())
        if not disturbed and not marked and job in month.reserved:
            yield "its part of the month was not returned"
        if not disturbed and not self._world.records.open_markers() and month.spent != billed:
            yield f"billed {billed}, of which the month counts {month.spent}"
        refused = state.reason is not None and state.reason.code == "budget_exceeded"
        asked = sum(self._limit(each).cost for each in self._world.records.jobs())
        if refused and asked <= self._month_cap:
            yield "it was refused though its month had room for all jobs"

    def had_room(self, job: str, task: Task, body: Mapping[str, Any]) -> bool:
        """Whether a call that was not made would have fitted after all."""
        state, most = self._state(job), most_tokens(task, body)
        if state is None or state.budget is None or most is None:
            return False
        need = Spend(sum(most), most[0] * PRICE.input + most[1] * PRICE.output)
        return state.budget.spent.plus(need).within(self._limit(job))


def _taken(budget: JobBudget) -> Spend:
    return budget.spent.plus(total(map(_whole, budget.allotted)))


def _whole(each: Allotment) -> Spend:
    return each.spent.plus(each.open)
