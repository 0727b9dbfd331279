"""The least time that quotas allow: of models that rows ask, and of rows that were asked."""

import json
from typing import Any

import pytest

from schemas.deployments import Deployment
from schemas.estimates import JobEstimate, QuotaBound, TokenRange
from schemas.estimating import EstimateGroup
from schemas.jobs import JobState
from schemas.results import Counts, DeploymentUse, Manifest
from tests.doubles.service import DEPLOYMENT, bench
from tests.simulation.virtual_time import run
from workers.intake.estimating import QuotaEstimator
from workers.jobs import pace
from workers.rows.sizes import AskedKind, MeanSize
from workers.rows.token_ranges import groups_of, reserved

MINI = DEPLOYMENT.model_copy(update={"name": "mini", "model": "mini", "requests_per_minute": 600.0})
SMALL = MINI.model_copy(update={"name": "small", "model": "small"})


def deployment(name: str, **quota: Any) -> Deployment:
    return Deployment(
        name=name, kind="openai", url="http://127.0.0.1:1", model=name[:3], auth="none", **quota
    )


def chats(count: int, **more: Any) -> bytes:
    row = {"messages": [{"role": "user", "content": "x"}], **more}
    return (json.dumps(row).encode() + b"\n") * count


def least(deployments: list[Deployment], *groups: EstimateGroup) -> list[float]:
    made = QuotaEstimator(deployments, {}, {"chat": "phi"})
    return [each.seconds for each in made.minute_bounds(groups)]


def group(model: str | None, requests: int = 1000, tokens: float = 0.0) -> EstimateGroup:
    return EstimateGroup(
        model=model, task="chat", requests=requests, prompt_tokens=0.0, answer_tokens=tokens
    )


@pytest.mark.parametrize(
    ("model", "tokens", "seconds"),
    [
        ("phi", 0.0, [60.0]),
        ("phi", 100_000.0, [120.0]),
        ("big", 100_000.0, []),
        (None, 10_000.0, [60.0]),
        ("unknown", 10.0, []),
    ],
)
def test_a_bound_is_that_of_the_deployments_that_may_serve(
    model: str | None, tokens: float, seconds: list[float]
) -> None:
    deployments = [
        deployment("phi-1", requests_per_minute=600, tokens_per_minute=30_000),
        deployment("phi-2", requests_per_minute=400, tokens_per_minute=20_000),
        deployment("big"),
        deployment("vec", requests_per_minute=2000, tasks=("embeddings",)),
    ]
    assert least(deployments, group(model, tokens=tokens)) == seconds


def test_what_is_left_to_others_takes_time() -> None:
    assert least([deployment("phi-1", requests_per_minute=600)], group("phi")) == [100.0]
    less = [deployment("phi-1", requests_per_minute=600, reserve=0.5)]
    assert least(less, group("phi")) == [200.0]


def test_answers_are_charged_what_they_may_have_and_unlimited_ones_the_fewest() -> None:
    kind: AskedKind = ("chat", "phi")
    sizes = {kind: MeanSize(text=0.0, fixed=0.0, output=100.0, limited=0.5)}
    [charged] = reserved(groups_of(sizes, {kind: 10}), sizes)
    assert charged.tokens(0)[1] == 5 * 100.0 + 5 * 8.0


async def ended(data: bytes, *deployments: Deployment, **options: Any) -> Manifest:
    async with bench(deployments=deployments) as service:
        done = await service.run(data, options=options)
        return Manifest.model_validate(done.manifest)


def test_rows_of_two_models_take_as_long_as_the_longer_of_both() -> None:
    data = chats(100, model="mini") + chats(100, model="small")
    manifest = run(lambda _: ended(data, MINI, SMALL))
    assert manifest.counts.succeeded == 200
    assert manifest.least_seconds == 10.0
    assert manifest.estimate is not None
    assert [each.seconds for each in manifest.estimate.bounds] == [10.0, 10.0]


def test_the_max_tokens_that_rows_name_count_and_not_those_of_the_job() -> None:
    phi = MINI.model_copy(update={"tokens_per_minute": 6000.0})
    manifest = run(lambda _: ended(chats(50, max_tokens=10), phi, model="mini", max_tokens=4096))
    assert manifest.least_seconds is not None
    assert 5.0 <= manifest.least_seconds < 10.0


def test_where_nothing_was_asked_there_is_no_least() -> None:
    manifest = run(lambda _: ended(chats(100) + b"{}\n", MINI, on_invalid="fail"))
    assert (manifest.state, manifest.counts.asked) == ("failed", 0)
    assert manifest.least_seconds is None


def test_rows_for_which_a_cap_left_no_room_need_no_time() -> None:
    manifest = run(lambda _: ended(chats(100, max_tokens=8), MINI, max_total_tokens=1000))
    asked = manifest.counts.asked
    assert 0 < asked < 100
    assert manifest.least_seconds == pytest.approx(asked / 10.0)


def estimate(*bounds: QuotaBound, seconds: tuple[float, float] = (150.0, 300.0)) -> JobEstimate:
    return JobEstimate(
        rows=200,
        prompt_tokens=TokenRange(0, 0),
        completion_tokens=TokenRange(0, 0),
        seconds=seconds,
        bounds=bounds,
    )


SLOW = QuotaBound(deployments=("slow",), requests=150, seconds=150.0)
FAST = QuotaBound(deployments=("fast", "faster"), requests=50, seconds=0.5)


def stopped(asked: int) -> JobState:
    counts = Counts(total=200, succeeded=asked, invalid=200 - asked)
    return JobState(revision=1, state="finalizing", counts=counts, least_seconds=150.0)


def test_of_rows_that_were_not_asked_those_are_left_out_that_took_the_time() -> None:
    used = {
        "fast": DeploymentUse(calls=30, outcomes={"ok": 20, "throttled": 10}),
        "faster": DeploymentUse(calls=5, outcomes={"ok": 5}),
    }
    assert pace.least_seconds(stopped(25), estimate(SLOW, FAST), used) == 0.25
    slow = {"slow": DeploymentUse(calls=30, outcomes={"ok": 30})}
    assert pace.least_seconds(stopped(55), estimate(SLOW, FAST), used | slow) == 30.0
    assert pace.least_seconds(stopped(200), estimate(SLOW, FAST), used | slow) == 150.0


def test_of_rows_that_were_not_asked_no_day_is_known() -> None:
    daily = estimate(seconds=(86_405.0, 90_000.0))
    used = {"slow": DeploymentUse(calls=30)}
    assert pace.least_seconds(stopped(30), daily, used) is None
    assert pace.least_seconds(stopped(30), None, used) is None, "the release before reckoned none"
