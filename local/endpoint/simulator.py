"""What happens to one request? Door, quota, model, answer: the order in which a service judges."""

import itertools
import random
import time
from asyncio import CancelledError, sleep
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log

import orjson
from aiohttp import web

from . import delivery, mishaps, refusals, throttles
from .bodies import Answer, Voice, answer, info, models, spoiled
from .contracts import Ask, Contract, RequestError, Route, Task, route
from .counts import Counts, row_keys
from .faults import AT_THE_DOOR, UNBILLED, FaultPlan, Rule
from .limits import Limits, Quota
from .profiles import ProfileName
from .reading import parse
from .refusals import Refusal
from .settings import Settings

Clock = Callable[[], float]

_LABEL = {"server": "phi3-endpoint-simulator", "x-simulated": "true"}


class Simulator:
    """One simulated service: its models, their quotas, its faults and what it has served."""

    def __init__(self, settings: Settings, clock: Clock = time.monotonic) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.key = settings.key
        self._clock = clock
        self._models = {model.name: model for model in settings.models}
        self._voice = Voice(settings.seed, settings.dimensions, settings.mean_tokens)
        self._rules: Sequence[Rule] = settings.faults
        self._numbers = itertools.count(1)
        self.reset()

    def reset(self) -> None:
        """Begin again: empty windows, zero counters, every rule unfired, time at zero."""
        self.counts = Counts()
        self._began = self._clock()
        self._quotas: dict[str, Quota] = {}
        self._latencies = random.Random(self.settings.seed)
        self._plan = FaultPlan(self.settings.seed, self._rules)

    def set_faults(self, rules: Sequence[Rule]) -> None:
        """Replace the rules; those that come begin unfired."""
        self._rules = rules
        self._plan = FaultPlan(self.settings.seed, rules)

    def set_limits(self, limits: Limits) -> None:
        """Judge by other limits from now on."""
        self.limits = limits
        for quota in self._quotas.values():
            quota.change(limits)

    @property
    def elapsed(self) -> float:
        """Seconds since the simulator began or was reset: the time of windows and of rules."""
        return self._clock() - self._began

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request to any of the contracts."""
        where = route(request.rel_url.raw_path)
        if where is None:
            return self._refuse(refusals.no_such_path(self.settings.profile), "path")
        if not self._is_authorised(request):
            return self._refuse(refusals.unauthorized(self.settings.profile), "auth")
        task = where.task
        if task == "info" or task == "models":  # noqa: PLR1714 - mypy narrows only this form
            return self._describe(where)
        if where.contract == "azure-openai" and "api-version" not in request.query:
            return self._refuse(refusals.no_such_path(self.settings.profile), "path")
        if request.method != "POST":
            return self._refuse(refusals.plain(self.settings.profile, 405), "method")
        return await self._ask(request, where, task)

    async def _ask(self, request: web.BaseRequest, where: Route, task: Task) -> web.StreamResponse:
        counts, profile = self.counts, self.settings.profile
        ordinal = counts.arrive()
        reset = self._plan.on_arrival(ordinal, self.elapsed)
        if reset is not None:
            return self._turn_away(request, where.contract, reset, "")
        raw = await request.read()
        try:
            ask = parse(where, task, request.headers, raw)
        except RequestError as error:
            refused = refusals.bad_request(profile, where.contract, error)
            return self._refuse(refused, "bad_request")
        refusal = self._settle_model(ask)
        if refusal is not None:
            return self._refuse(refusal, "model")
        overflow = self._overflow(ask)
        if overflow is not None:
            return self._refuse(overflow, "context")
        rows = row_keys(ask, request.headers)
        rule = self._plan.decide(ordinal, self.elapsed, ask, rows[0])
        if rule is not None and rule.fault in AT_THE_DOOR:
            return self._turn_away(request, where.contract, rule, rows[0])
        return await self._admit(request, _Call(ask, rows, rule))

    async def _admit(self, request: web.BaseRequest, call: "_Call") -> web.StreamResponse:
        ask, counts, elapsed = call.ask, self.counts, self.elapsed
        quota = self._quotas.get(ask.model)
        if quota is None:
            quota = self._quotas[ask.model] = Quota(self.limits)
        exceeded = quota.admit(elapsed, ask.tokens)
        if exceeded is not None:
            judge = refusals.too_large if exceeded.cause == "size" else throttles.throttled
            return self._refuse(judge(self.settings.profile, ask, exceeded), exceeded.cause)
        counts.admit(elapsed, ask, request.headers.get("user-agent", ""))
        self._plan.settle(call.rule, call.rows[0])
        if call.rule is not None:
            counts.fault(call.rule.fault)
        left = refusals.remaining_headers(self.settings.profile, quota.remaining(elapsed))
        call.headers = self._headers() | left
        try:
            return await self._serve(request, call, counts)
        except CancelledError:
            counts.abandon()
            raise
        except ConnectionResetError:
            counts.abandon()
            return web.Response()
        finally:
            quota.release()
            counts.leave()

    async def _serve(
        self, request: web.BaseRequest, call: "_Call", counts: Counts
    ) -> web.StreamResponse:
        ask, rule = call.ask, call.rule
        if rule is not None and rule.fault in UNBILLED:
            await sleep(rule.delay)
            return self._respond(_fail(self.settings.profile, ask.contract, rule), call.headers)
        given = answer(ask, self._voice)
        counts.bill(call.rows, given.prompt_tokens + given.completion_tokens)
        in_time = await self._think(ask, given)
        if not in_time:
            return self._respond(refusals.plain(self.settings.profile, 408), call.headers)
        body = given.body
        if rule is not None:
            if rule.fault in ("http_408", "content_filter_400"):
                return self._respond(_fail(self.settings.profile, ask.contract, rule), call.headers)
            sent = await mishaps.spoil(request, ask, body, call.headers, rule)
            if sent is not None:
                if rule.fault == "drip":
                    counts.answer(call.rows)
                return sent
            body = spoiled(ask, body, rule.fault)
        if delivery.is_gone(request):
            counts.abandon()
            return web.Response()
        if ask.stream:
            seconds = self.settings.latency_per_token * given.completion_tokens
            events = mishaps.stream_events(ask, body)
            sent = await delivery.stream(request, events, call.headers, seconds)
        else:
            sent = delivery.whole(orjson.dumps(body), call.headers)
        counts.answer(call.rows)
        return sent

    async def _think(self, ask: Ask, given: Answer) -> bool:
        """Take the time that a model takes; gives whether the service's time-out allows it."""
        settings = self.settings
        wait = draw_latency(settings.latency, settings.latency_sigma, self._latencies)
        if not ask.stream:
            wait += settings.latency_per_token * given.completion_tokens
        timeout = settings.timeout
        in_time = not timeout or wait <= timeout
        if wait:
            await sleep(wait if in_time else timeout)
        return in_time

    def _turn_away(
        self, request: web.BaseRequest, contract: Contract, rule: Rule, row: str
    ) -> web.StreamResponse:
        profile = self.settings.profile
        self._plan.settle(rule, row)
        self.counts.fault(rule.fault)
        self.counts.reject(self.elapsed, "fault")
        if rule.fault == "reset_before":
            return delivery.reset(request)
        if rule.fault == "html_200":
            page = b"<!doctype html><title>simulated gateway</title><p>Sign in to continue."
            return delivery.whole(page, self._headers(), 200, "text/html")
        return self._respond(_fail(profile, contract, rule), self._headers())

    def _settle_model(self, ask: Ask) -> Refusal | None:
        """Give the request its model, or the refusal of one that is not there or cannot."""
        profile = self.settings.profile
        if not ask.model:
            able = (model for model in self._models.values() if ask.task in model.tasks)
            model = next(able, next(iter(self._models.values())))
            ask.model = model.name
        elif ask.model in self._models:
            model = self._models[ask.model]
        else:
            return refusals.unknown_model(profile, ask.contract, ask.model)
        return None if ask.task in model.tasks else refusals.unsupported_task(profile, ask)

    def _overflow(self, ask: Ask) -> Refusal | None:
        """The refusal of a request that the model's context cannot hold."""
        own, given = self._models[ask.model].context, self.settings.context
        context = own if given is None else given
        if not context or ask.longest_prompt + (ask.max_tokens or 0) <= context:
            return None
        return refusals.too_long(self.settings.profile, ask, context)

    def _describe(self, where: Route) -> web.Response:
        headers = self._headers()
        if where.task == "models":
            names = [where.model] if where.model else list(self._models)
            return delivery.whole(orjson.dumps(models(names)), headers)
        name = where.model or next(iter(self._models))
        if name not in self._models:
            refusal = refusals.unknown_model(self.settings.profile, where.contract, name)
            return self._refuse(refusal, "model")
        return delivery.whole(orjson.dumps(info(name, self._models[name].tasks)), headers)

    def _is_authorised(self, request: web.BaseRequest) -> bool:
        key = self.key
        if key is None:
            return True
        headers = request.headers
        return headers.get("authorization") == f"Bearer {key}" or headers.get("api-key") == key

    def _refuse(self, refusal: Refusal, cause: str) -> web.Response:
        self.counts.reject(self.elapsed, cause)
        return self._respond(refusal, self._headers())

    def _respond(self, refusal: Refusal, headers: dict[str, str]) -> web.Response:
        sent = {**headers, **refusal.headers}
        return delivery.whole(refusal.body, sent, refusal.status, refusal.content_type)

    def _headers(self) -> dict[str, str]:
        name = "apim-request-id" if self.settings.profile == "azure-openai" else "x-request-id"
        return {**_LABEL, name: f"simulated-{next(self._numbers)}"}


def draw_latency(mean: float, sigma: float, rng: random.Random) -> float:
    """Seconds until a model begins to answer: lognormal around `mean`, constant without sigma."""
    if not (mean and sigma):
        return mean
    return rng.lognormvariate(log(mean) - sigma**2 / 2, sigma)


class _Call:
    """One admitted request on its way."""

    __slots__ = ("ask", "headers", "rows", "rule")

    def __init__(self, ask: Ask, rows: list[str], rule: Rule | None) -> None:
        self.ask = ask
        self.rows = rows
        self.rule = rule
        self.headers: dict[str, str] = {}


def _fail(profile: ProfileName, contract: Contract, rule: Rule) -> Refusal:
    """The refusal that a rule asks for by its status."""
    now = time.time()
    if rule.fault == "http_429":
        return throttles.hinted(profile, rule.hint or "retry-after", rule.seconds, now)
    if rule.fault == "content_filter_400":
        refusal = refusals.content_filter(profile, contract)
    elif rule.fault == "http_424":
        refusal = refusals.model_error(rule.inner_status, "The simulated container failed.")
    else:
        refusal = refusals.plain(profile, int(rule.fault.removeprefix("http_")))
    if rule.hint is None:
        return refusal
    hints = throttles.hint_headers(rule.hint, rule.seconds, now)
    return replace(refusal, headers={**refusal.headers, **hints})
