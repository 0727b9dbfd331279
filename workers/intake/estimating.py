"""How long will the quotas need for what a file asks, and what will it cost?"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from schemas.deployments import Deployment, Task, names_by_model
from schemas.estimates import EstimatedCost, JobEstimate, QuotaBound
from schemas.estimating import Estimate, EstimateGroup
from schemas.hours import Hours
from schemas.money import MILLION, MOST_AMOUNT, CostRange, PinnedPrice, amount
from schemas.tenants import MOST_MONTH
from workers.intake.quota_time import USED, QuotaInHours, job_seconds, seconds_for
from workers.rows.sizes import AskedKind
from workers.rows.token_ranges import LEAST, MOST, summed


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms on which the quotas serve one more job from `now` on.

    `shares` are the parts of deployments' quotas that fall to it, all of those that are not named;
    `given_today` the requests of this day (UTC) that others have had; `hours` those to which it is
    limited, besides those of each deployment; `used` the part of each minute's quota that it uses.
    """

    now: float
    shares: Mapping[str, float] = field(default_factory=dict)
    given_today: Mapping[str, int] = field(default_factory=dict)
    hours: Hours | None = None
    used: float = 1.0


_ALONE: Final = Terms(0.0)


@dataclass(slots=True)
class _Load:
    """What some deployments, and no others, have to answer. Packed calls are not counted."""

    requests: int = 0
    calls: int = 0
    tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class QuotaEstimator:
    """An estimator by the deployments of a service, its routes, and its model for each task."""

    deployments: Sequence[Deployment]
    routes: Mapping[str, Sequence[str]]
    default_models: Mapping[Task, str]

    def told(self, asked: Sequence[EstimateGroup], terms: Terms = _ALONE) -> Estimate:
        """What groups of requests take and cost, and those that nobody would answer.

        The least is told whatever the terms: a job may begin later than now, and a service that
        counts what was answered allows no less time where answers have as few tokens as they may.
        """
        served, unserved = list[EstimateGroup](), list[EstimateGroup]()
        for each in asked:
            (served if self.serving(each.task, each.model) else unserved).append(each)
        least = max(self._bounds(served, LEAST, None), default=None)
        most = max(self._bounds(served, MOST, terms), default=None)
        late = max(self._bounds(served, MOST, replace(terms, used=USED)), default=None)
        prompts, answers = summed(asked)
        return Estimate(
            requests=sum(each.requests for each in asked),
            prompt_tokens=prompts,
            completion_tokens=answers,
            seconds=least,
            seconds_shared=None if most == inf else most,
            job_seconds=job_seconds(least, late),
            closed_seconds=self._closed(served, terms) if served else 0.0,
            unserved=tuple(unserved),
            cost=self.cost(served),
        )

    def cost(self, groups: Sequence[EstimateGroup]) -> CostRange | None:
        """What groups cost at least and at most; None where a price is not known.

        Those that nobody would answer cost nothing.
        """
        least, most, currency = 0, 0, ""
        for group in groups:
            serving = self.serving(group.task, group.model)
            if not serving:
                continue
            prices = [each.price for each in self.among(serving).deployments]
            pinned = [None if price is None else price.pinned for price in prices]
            known = [price for price in pinned if price is not None]
            if not known or None in pinned:
                return None
            least += min(price.of(*map(round, group.tokens(LEAST))) for price in known)
            most += max(price.of(*map(round, group.tokens(MOST))) for price in known)
            currency = known[0].currency
        if not currency:
            return None
        cheapest, dearest = (
            amount(min(-(-cost // MILLION), MOST_AMOUNT)) for cost in (least, most)
        )
        return CostRange(currency=currency, least=cheapest, most=dearest)

    def may_cost(
        self,
        most: Iterable[tuple[AskedKind | None, tuple[float, float]]],
        prices: Mapping[str, PinnedPrice],
    ) -> int:
        """The most that calls can be billed for, by what they ask; in millionths of a millionth.

        Of what may answer, one may be the dearest for prompts and another for answers.
        """
        found = 0
        for kind, tokens in most:
            prompt, answer = map(round, tokens)
            names = prices if kind is None else self.serving(*kind)
            asked = [prices[name] for name in names if name in prices]
            found += prompt * max((price.input for price in asked), default=0)
            found += answer * max((price.output for price in asked), default=0)
        return min(found, MOST_MONTH * MILLION * MILLION)

    def minute_bounds(self, groups: Sequence[EstimateGroup]) -> tuple[QuotaBound, ...]:
        """What the quotas of a minute need for groups at least, by what may answer them."""
        found = []
        for serving, load in self._loads(groups, LEAST).items():
            chosen = self.among(serving).deployments
            requests = [QuotaInHours(each.batch_requests_per_minute) for each in chosen]
            tokens = [QuotaInHours(each.batch_tokens_per_minute) for each in chosen]
            bounds = (seconds_for(load.calls, requests, 0.0), seconds_for(load.tokens, tokens, 0.0))
            seconds = round(max(each or 0.0 for each in bounds), 3)
            if seconds:
                told = QuotaBound(deployments=serving, requests=load.requests, seconds=seconds)
                found.append(told)
        return tuple(found)

    def serving(self, task: Task, model: str | None) -> tuple[str, ...]:
        """The names of the deployments that may answer what asks a model for a task."""
        names = names_by_model(self.deployments, self.routes).get(self.model(task, model) or "", ())
        return tuple(
            each.name for each in self.deployments if task in each.serves and each.name in names
        )

    def model(self, task: Task, model: str | None) -> str | None:
        """The model that a request for a task asks; None where it has to name one."""
        return model or self.default_models.get(task)

    def among(self, names: Container[str] | None) -> "QuotaEstimator":
        """An estimator by the deployments of these names alone, by all for None."""
        if names is None:
            return self
        return replace(self, deployments=[each for each in self.deployments if each.name in names])

    def limited(self, groups: Sequence[EstimateGroup]) -> list[str]:
        """The names of the deployments that may answer groups, and have a quota."""
        asked = {name for group in groups for name in self.serving(group.task, group.model)}
        return [each.name for each in self.deployments if each.name in asked and each.is_limited]

    def _closed(self, served: Sequence[EstimateGroup], terms: Terms) -> float | None:
        """Seconds until the first of what may answer is open; None where some group never is."""
        sets = {self.serving(group.task, group.model) for group in served}
        waits = []
        for serving in sets:
            own = [_in_hours(each, None, terms) for each in self.among(serving).deployments]
            waits.append(seconds_for(1.0, own, terms.now) or 0.0)
        return None if inf in waits else min(waits)

    def _bounds(
        self, served: Sequence[EstimateGroup], end: int, terms: Terms | None
    ) -> Iterator[float]:
        """Seconds that groups need of each quota at least, or on some terms."""
        now = 0.0 if terms is None else terms.now
        for serving, load in self._loads(served, end).items():
            chosen = self.among(serving).deployments
            for need, quotas in (
                (load.calls, [_of_requests(each, terms) for each in chosen]),
                (load.tokens, [_of_tokens(each, terms) for each in chosen]),
            ):
                bound = seconds_for(need, quotas, now) if need else None
                if bound is not None:
                    yield bound

    def _loads(self, groups: Sequence[EstimateGroup], end: int) -> Mapping[tuple[str, ...], _Load]:
        """What groups that are answered come to, by what may answer them."""
        loads: dict[tuple[str, ...], _Load] = {}
        for group in groups:
            load = loads.setdefault(self.serving(group.task, group.model), _Load())
            load.requests += group.requests
            # Embeddings share calls, as many as the endpoint takes: only their tokens are certain.
            load.calls += 0 if group.task == "embeddings" else group.requests
            prompts, answers = group.tokens(end)
            load.tokens += prompts + answers
        loads.pop((), None)
        return loads


def _of_requests(deployment: Deployment, terms: Terms | None) -> QuotaInHours:
    """The quota of requests; those of a day are used up, whatever part of a minute's is."""
    quota = _in_hours(deployment, deployment.batch_requests_per_minute, terms)
    per_day = deployment.batch_requests_per_day
    if per_day is None:
        return quota
    if terms is None:
        # A job that begins just before midnight has the lots of two days at once.
        return quota._replace(per_day=per_day, today=2.0 * per_day)
    share = terms.shares.get(deployment.name, 1.0)
    left = max(0, per_day - terms.given_today.get(deployment.name, 0))
    return quota._replace(per_day=share * per_day, today=share * left)


def _of_tokens(deployment: Deployment, terms: Terms | None) -> QuotaInHours:
    return _in_hours(deployment, deployment.batch_tokens_per_minute, terms)


def _in_hours(
    deployment: Deployment, per_minute: float | None, terms: Terms | None
) -> QuotaInHours:
    if terms is None:
        return QuotaInHours(per_minute)
    if per_minute is not None:
        per_minute *= terms.used * terms.shares.get(deployment.name, 1.0)
    hours = (deployment.open_hours, terms.hours)
    return QuotaInHours(per_minute, tuple(each for each in hours if each is not None))


def job_estimate(told: Estimate) -> JobEstimate:
    """What a job is reckoned to take, as it is kept."""
    cost = None if told.cost is None else EstimatedCost(**told.cost.model_dump())
    return JobEstimate(
        rows=told.requests,
        prompt_tokens=told.prompt_tokens,
        completion_tokens=told.completion_tokens,
        seconds=told.job_seconds,
        cost=cost,
    )
