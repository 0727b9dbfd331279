"""How long will the quotas need for what a file asks? Reckoned: nothing has been asked yet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.deployments import Deployment, Task
from schemas.money import MILLION, CostRange, amount
from schemas.openai import Estimate, EstimateCreate, EstimateGroup


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

    def estimate(self, asked: EstimateCreate) -> Estimate:
        """The time that the quotas need at least, and what nobody would answer."""
        loads: dict[tuple[str, ...], _Load] = {}
        unserved = []
        for group in asked.requests:
            serving = self._serving(group)
            if not serving:
                unserved.append(group)
                continue
            load = loads.setdefault(serving, _Load())
            # Embeddings share calls, as many as the endpoint takes: only their tokens are certain.
            load.calls += 0 if group.task == "embeddings" else group.requests
            load.tokens += group.prompt_tokens + group.answer_tokens
        bounds = [bound for serving, load in loads.items() for bound in self._bounds(serving, load)]
        return Estimate(
            requests=sum(group.requests for group in asked.requests),
            seconds=max(bounds, default=None),
            unserved=tuple(unserved),
            cost=self._cost([group for group in asked.requests if group not in unserved]),
        )

    def _cost(self, groups: Sequence[EstimateGroup]) -> CostRange | None:
        """What groups cost at least and at most; None where a price is not known."""
        least, most, currency = 0, 0, ""
        for group in groups:
            serving = self._serving(group)
            prices = [each.price for each in self.deployments if each.name in serving]
            pinned = [None if price is None else price.pinned for price in prices]
            costs = [
                round(group.prompt_tokens) * price.input + round(group.answer_tokens) * price.output
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

    def _serving(self, group: EstimateGroup) -> tuple[str, ...]:
        """The names of the deployments that may answer a group."""
        model = group.model or self.default_models.get(group.task)
        named = self.routes.get(model) if model is not None else ()
        return tuple(
            each.name
            for each in self.deployments
            if group.task in each.serves
            and (each.model == model if named is None else each.name in named)
        )

    def _bounds(self, serving: tuple[str, ...], load: _Load) -> Iterator[float]:
        chosen = [each for each in self.deployments if each.name in serving]
        for need, quotas in (
            (load.calls, [each.batch_requests_per_minute for each in chosen]),
            (load.tokens, [each.batch_tokens_per_minute for each in chosen]),
        ):
            if need and None not in quotas:
                yield 60.0 * need / sum(quota for quota in quotas if quota is not None)
