"""What happens to one request? Door, quota, model, answer: the order in which a service judges."""

import random
import time
from asyncio import CancelledError, sleep
from collections.abc import Callable, Sequence
from math import log
from typing import Any

import orjson
from aiohttp import web

from . import delivery, refusals
from .bodies import Answer, Body, Voice, answer, filtered, info, models, stream_chunks
from .contracts import Ask, RequestError, Route, Task, route
from .counts import Counts, row_keys
from .faults import AT_THE_DOOR, UNBILLED, FaultPlan, Rule
from .limits import Limits, Quota
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
        self._clock = clock
        self._models = {model.name: model for model in settings.models}
        self._voice = Voice(settings.seed, settings.dimensions, settings.mean_tokens)
        self._rules: Sequence[Rule] = settings.faults
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
        where = route(request.path)
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
        if self._plan.on_arrival(ordinal, self.elapsed):
            counts.fault("reset_before")
            return delivery.reset(request)
        raw = await request.read()
        try:
            ask = parse(where, task, request.headers, raw)
        except RequestError as error:
            refused = refusals.bad_request(profile, where.contract, error)
            return self._refuse(refused, "bad_request")
        refusal = self._settle_model(ask)
        if refusal is not None:
            return self._refuse(refusal, "model")
        rows = row_keys(ask, request.headers)
        rule = self._plan.decide(ordinal, self.elapsed, ask, rows[0])
        if rule is not None:
            counts.fault(rule.fault)
            if rule.fault in AT_THE_DOOR:
                return self._turn_away(request, rule)
        return await self._admit(request, _Call(ask, rows, rule, ordinal))

    async def _admit(self, request: web.BaseRequest, call: "_Call") -> web.StreamResponse:
        ask, counts, elapsed = call.ask, self.counts, self.elapsed
        quota = self._quotas.get(ask.model)
        if quota is None:
            quota = self._quotas[ask.model] = Quota(self.limits)
        exceeded = quota.admit(elapsed, ask.tokens)
        if exceeded is not None:
            judge = refusals.too_large if exceeded.cause == "size" else refusals.throttled
            return self._refuse(judge(self.settings.profile, ask, exceeded), exceeded.cause)
        counts.admit(elapsed, ask)
        left = refusals.remaining_headers(self.settings.profile, quota.remaining(elapsed))
        call.headers = self._headers(call.ordinal) | left
        try:
            return await self._serve(request, call, counts)
        except (CancelledError, ConnectionResetError):
            counts.abandon()
            raise
        finally:
            quota.release()
            counts.leave()

    async def _serve(
        self, request: web.BaseRequest, call: "_Call", counts: Counts
    ) -> web.StreamResponse:
        ask, rule = call.ask, call.rule
        if rule is not None and rule.fault in UNBILLED:
            await sleep(rule.seconds or 0)
            return self._respond(_fail(self.settings.profile, rule), call.headers)
        given = answer(ask, self._voice)
        counts.bill(call.rows, given.prompt_tokens + given.completion_tokens)
        in_time = await self._think(ask, given)
        if not in_time or (rule is not None and rule.fault == "http_408"):
            return self._respond(refusals.plain(self.settings.profile, 408), call.headers)
        if rule is not None:
            spoiled = await self._spoil(request, call, given, rule)
            if spoiled is not None:
                return spoiled
        if delivery.is_gone(request):
            raise ConnectionResetError
        body = _changed(ask, given.body, rule)
        if ask.stream:
            sent = await delivery.stream(
                request,
                self._events(call, given, body),
                call.headers,
                self.settings.latency_per_token * given.completion_tokens,
            )
            counts.answer(call.rows)
            return sent
        counts.answer(call.rows)
        return delivery.whole(orjson.dumps(body), call.headers)

    async def _think(self, ask: Ask, given: Answer) -> bool:
        """Take the time that a model takes; False if the service's own time-out came first."""
        settings = self.settings
        wait = settings.latency
        if wait and settings.latency_sigma:
            mu = log(wait) - settings.latency_sigma**2 / 2
            wait = self._latencies.lognormvariate(mu, settings.latency_sigma)
        if not ask.stream:
            wait += settings.latency_per_token * given.completion_tokens
        timeout = settings.timeout
        in_time = not timeout or wait <= timeout
        if wait:
            await sleep(wait if in_time else timeout)
        return in_time

    async def _spoil(
        self, request: web.BaseRequest, call: "_Call", given: Answer, rule: Rule
    ) -> web.StreamResponse | None:
        """The faults of the way back; None where the answer still goes out in the usual way."""
        ask, fault = call.ask, rule.fault
        body = orjson.dumps(given.body)
        if fault == "reset_after":
            return delivery.reset(request)
        if fault == "content_filter_400":
            refusal = refusals.content_filter(self.settings.profile, ask.contract)
            return self._respond(refusal, call.headers)
        if fault == "hang":
            await delivery.hang(rule.seconds)
        elif fault == "drip":
            parts = self._events(call, given, given.body) if ask.stream else [body]
            return await delivery.drip(request, parts, call.headers, rule.seconds)
        elif fault == "stream_error":
            return await self._break_stream(request, call, given)
        elif fault in ("truncated_body", "truncated_stream"):
            if not ask.stream:
                return await delivery.cut_body(request, body, call.headers)
            events = self._events(call, given, given.body)
            if fault == "truncated_body":
                return await delivery.cut_stream(request, events, call.headers)
            # A clean end without [DONE]: nothing but the missing mark tells.
            return await delivery.stream(request, events[: len(events) // 2], call.headers, 0)
        return None

    async def _break_stream(
        self, request: web.BaseRequest, call: "_Call", given: Answer
    ) -> web.StreamResponse:
        error = orjson.dumps({"error": {"code": "500", "message": "The simulated model failed."}})
        if not call.ask.stream:
            return delivery.whole(error, call.headers)
        events = self._events(call, given, given.body)
        events = [*events[: len(events) // 2], delivery.event(error)]
        return await delivery.stream(request, events, call.headers, 0)

    def _events(self, call: "_Call", given: Answer, body: Body) -> list[bytes]:
        """A body as server-sent events; what was taken from the body is missing here too."""
        if not body.get("choices") or body["choices"] != given.body["choices"]:
            chunks = iter([body])
        else:
            usage = call.ask.include_usage and "usage" in body
            chunks = stream_chunks(call.ask, given, usage)
        return [*(delivery.event(orjson.dumps(chunk)) for chunk in chunks), delivery.DONE]

    def _turn_away(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        profile = self.settings.profile
        self.counts.reject(self.elapsed, "fault")
        if rule.fault == "reset_before":
            return delivery.reset(request)
        if rule.fault == "html_200":
            page = b"<!doctype html><title>simulated gateway</title><p>Sign in to continue."
            return delivery.whole(page, self._headers(self.counts.received), 200, "text/html")
        if rule.fault == "http_429":
            seconds = 1.0 if rule.seconds is None else rule.seconds
            refusal = refusals.hinted(profile, rule.hint or "retry-after", seconds, time.time())
        else:
            refusal = refusals.plain(profile, int(rule.fault.removeprefix("http_")))
        return self._respond(refusal, self._headers(self.counts.received))

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

    def _describe(self, where: Route) -> web.Response:
        headers = self._headers(self.counts.received)
        if where.task == "models":
            names = [where.model] if where.model else list(self._models)
            return delivery.whole(orjson.dumps(models(names)), headers)
        name = where.model or next(iter(self._models))
        if name not in self._models:
            refusal = refusals.unknown_model(self.settings.profile, where.contract, name)
            return self._refuse(refusal, "model")
        return delivery.whole(orjson.dumps(info(name, self._models[name].tasks)), headers)

    def _is_authorised(self, request: web.BaseRequest) -> bool:
        key = self.settings.key
        if key is None:
            return True
        headers = request.headers
        return headers.get("authorization") == f"Bearer {key}" or headers.get("api-key") == key

    def _refuse(self, refusal: Refusal, cause: str) -> web.Response:
        self.counts.reject(self.elapsed, cause)
        return self._respond(refusal, self._headers(self.counts.received))

    def _respond(self, refusal: Refusal, headers: dict[str, str]) -> web.Response:
        sent = {**headers, **refusal.headers}
        return delivery.whole(refusal.body, sent, refusal.status, refusal.content_type)

    def _headers(self, ordinal: int) -> dict[str, str]:
        name = "apim-request-id" if self.settings.profile == "azure-openai" else "x-request-id"
        return {**_LABEL, name: f"simulated-{ordinal}"}


class _Call:
    """One admitted request on its way."""

    __slots__ = ("ask", "headers", "ordinal", "rows", "rule")

    def __init__(self, ask: Ask, rows: list[str], rule: Rule | None, ordinal: int) -> None:
        self.ask = ask
        self.rows = rows
        self.rule = rule
        self.ordinal = ordinal
        self.headers: dict[str, str] = {}


def _fail(profile: Any, rule: Rule) -> Refusal:
    if rule.fault == "http_424":
        return refusals.model_error(rule.inner_status, "The simulated container failed.")
    return refusals.plain(profile, int(rule.fault.removeprefix("http_")))


def _changed(ask: Ask, body: Body, rule: Rule | None) -> Body:
    """The body of a 200 that is not what was asked for."""
    fault = rule.fault if rule is not None else None
    if fault == "content_filter_200":
        return filtered(ask, body)
    if fault == "empty_choices":
        return {k: [] if k in ("choices", "data") else v for k, v in body.items() if k != "output"}
    if fault == "missing_usage":
        return {k: v for k, v in body.items() if k != "usage"}
    if fault == "short_embeddings" and "data" in body:
        return body | {"data": body["data"][:-1]}
    if fault == "shuffled_embeddings" and "data" in body:
        return body | {"data": body["data"][::-1]}
    return body
