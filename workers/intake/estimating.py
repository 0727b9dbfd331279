"""How long will the quotas need for what a file asks, and what will it cost? Reckoned: nothing has
been asked yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from schemas.deployments import Deployment, Task
from schemas.estimates import EstimatedCost, JobEstimate, TokenRange
from schemas.money import MILLION, CostRange, PinnedPrice, amount
from schemas.openai import Estimate, EstimateGroup
from schemas.tenants import MOST_MONTH
from workers.intake.pieces import MostTokens
from workers.rows.sizes import MeanSize

AskedKind = tuple[Task, str | None]
Sizes = Mapping[AskedKind, MeanSize]
Shares = Mapping[str, float]
"""The part of a deployment's quota that falls to one more job; those that are not named: all."""
ALONE: Final[Shares] = MappingProxyType({})

_VECTORS: Final = ("embeddings", "image-embeddings")
# Tokens of a byte of text, at least and at most: prose in English has about 0.25 under Phi-3's
# tokenizer, other languages, code and figures up to twice as many.
RATIO: Final = (0.2, 0.5)
# Tokens of an answer that nothing limits; one that is limited may have as few.
ANSWER: Final = (8.0, 1024.0)
# What a job needs besides its quotas: the part of them that is used, and seconds for its first
# calls, for its last answers and for its results.
USED: Final = 0.9
BESIDES_SECONDS: Final = 30.0


@dataclass(slots=True)
class _Load:
    """What some deployments, and no others, have to answer. Packed calls are not counted."""

    calls: int = 0
    tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class QuotaEstimator:
    """Reckons by the deployments of a service, its routes, and its model for each task."""

    deployments: Sequence[Deployment]
    routes: Mapping[str, Sequence[str]]
    default_models: Mapping[Task, str]

    def told(self, asked: Sequence[EstimateGroup], shares: Shares = ALONE) -> Estimate:
        """The time that the quotas need at least, and what nobody would answer."""
        loads: dict[tuple[str, ...], _Load] = {}
        unserved = []
        for group in asked:
            serving = self.serving(group.task, group.model)
            if not serving:
                unserved.append(group)
                continue
            load = loads.setdefault(serving, _Load())
            # Embeddings share calls, as many as the endpoint takes: only their tokens are certain.
            load.calls += 0 if group.task == "embeddings" else group.requests
            load.tokens += group.prompt_tokens + group.answer_tokens
        bounds = [
            bound
            for serving, load in loads.items()
            for bound in self._bounds(serving, load, shares)
        ]
        return Estimate(
            requests=sum(group.requests for group in asked),
            seconds=max(bounds, default=None),
            unserved=tuple(unserved),
            cost=self._cost([group for group in asked if group not in unserved]),
        )

    def _cost(self, groups: Sequence[EstimateGroup]) -> CostRange | None:
        """What groups cost at least and at most; None where a price is not known."""
        least, most, currency = 0, 0, ""
        for group in groups:
            serving = self.serving(group.task, group.model)
            prices = [each.price for each in self.deployments if each.name in serving]
            pinned = [None if price is None else price.pinned for price in prices]
            costs = [
                price.of(round(group.prompt_tokens), round(group.answer_tokens))
                for price in pinned
                if price is not None
            ]
            if not costs or None in pinned:
                return None
            least, most = least + min(costs), most + max(costs)
            currency = next(price.currency for price in pinned if price is not None)
        if not currency:
            return None
        low, high = (amount(-(-cost // MILLION)) for cost in (least, most))
        return CostRange(currency=currency, least=low, most=high)

    def may_cost(self, most: MostTokens, prices: Mapping[str, PinnedPrice]) -> int:
        """The most that calls can be billed for, by what they ask; in millionths of a millionth.

        Of what may answer, one may be the dearest for prompts and another for answers.
        """
        found = 0
        for kind, (prompt, answer) in most.items():
            names = prices if kind is None else self.serving(*kind)
            asked = [prices[name] for name in names if name in prices]
            found += prompt * max((price.input for price in asked), default=0)
            found += answer * max((price.output for price in asked), default=0)
        return min(found, MOST_MONTH * MILLION * MILLION)

    def serving(self, task: Task, model: str | None) -> tuple[str, ...]:
        """The names of the deployments that may answer what asks a model for a task."""
        model = model or self.default_models.get(task)
        named = self.routes.get(model) if model is not None else ()
        return tuple(
            each.name
            for each in self.deployments
            if task in each.serves
            and (each.model == model if named is None else each.name in named)
        )

    def _bounds(self, serving: tuple[str, ...], load: _Load, shares: Shares) -> Iterator[float]:
        chosen = [each for each in self.deployments if each.name in serving]
        parts = [shares.get(each.name, 1.0) for each in chosen]
        for need, quotas in (
            (load.calls, [each.batch_requests_per_minute for each in chosen]),
            (load.tokens, [each.batch_tokens_per_minute for each in chosen]),
        ):
            if need and None not in quotas:
                ours = zip(parts, quotas, strict=True)
                yield 60.0 * need / sum(part * quota for part, quota in ours if quota is not None)


def groups_of(sizes: Sizes, requests: Mapping[AskedKind, int], end: int) -> list[EstimateGroup]:
    """The requests of a file by what they ask for, with the least (0) or the most (1) tokens."""
    found = []
    for kind, count in requests.items():
        mean = sizes.get(kind)
        if mean is None or not count:
            continue
        task, model = kind
        answers = 0.0 if task in _VECTORS else _answer(mean, end)
        found.append(
            EstimateGroup(
                model=model,
                task=task,
                requests=count,
                prompt_tokens=count * (mean.text * RATIO[end] + mean.fixed),
                answer_tokens=count * answers,
            )
        )
    return found


def _answer(mean: MeanSize, end: int) -> float:
    limited = mean.output if end else min(mean.output, ANSWER[0])
    return mean.limited * limited + (1.0 - mean.limited) * ANSWER[end]


def job_estimate(
    estimator: QuotaEstimator,
    least: Sequence[EstimateGroup],
    most: Sequence[EstimateGroup],
    shares: Mapping[str, float],
) -> JobEstimate:
    """What a job is reckoned to take, by the groups with the least and the most tokens."""
    # As many rows, whose answers have as few tokens as they may: a service that counts what was
    # answered allows no less time.
    low, high = estimator.told(least), estimator.told(most, shares)
    cost = None
    if low.cost is not None and high.cost is not None:
        cost = EstimatedCost(currency=low.cost.currency, least=low.cost.least, most=high.cost.most)
    seconds = None
    if low.seconds is not None and high.seconds is not None:
        seconds = round(low.seconds, 1), round(high.seconds / USED + BESIDES_SECONDS, 1)
    ends = (least, most)
    prompt = (round(sum(group.prompt_tokens for group in end)) for end in ends)
    answers = (round(sum(group.answer_tokens for group in end)) for end in ends)
    return JobEstimate(
        rows=sum(group.requests for group in most),
        prompt_tokens=TokenRange(*prompt),
        completion_tokens=TokenRange(*answers),
        seconds=seconds,
        cost=cost,
    )
