"""What a job is reckoned to take when its file is planned, and as its quotas are shared then."""

import asyncio
import json
from collections.abc import Mapping
from io import BytesIO
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3batch.checking import Checker, rules_for
from schemas.deployments import Deployment, Task
from schemas.estimates import JobEstimate
from schemas.estimating import EstimateGroup
from schemas.hours import Hours
from schemas.jobs import JobOptions
from schemas.money import Price
from schemas.results import Manifest
from schemas.tenants import Tenant
from tests.doubles.service import DEPLOYMENT, bench
from tests.simulation.virtual_time import run
from workers.intake.estimating import QuotaEstimator, Terms, job_estimate
from workers.intake.pieces import Scanner
from workers.ports import BlobRef
from workers.quota.book import Book, Day, Holder
from workers.quota.shares import part_of_one_more
from workers.rows.reading import RowRules
from workers.rows.sizes import PER_MESSAGE, Size, measure
from workers.rows.token_ranges import RATIO, groups_of, pledged, summed

QUOTA = DEPLOYMENT.model_copy(
    update={"requests_per_minute": 60.0, "tokens_per_minute": 6000.0, "name": "phi"}
)


def chat(words: str, **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": words}], **more}).encode() + b"\n"


async def planned_and_ended(data: bytes, deployment: Deployment, **options: Any) -> Manifest:
    async with bench(deployments=(deployment,)) as service:
        ended = await service.run(data, options=options)
        return Manifest.model_validate(ended.manifest)


def test_the_estimate_of_a_job_stands_in_its_manifest() -> None:
    data = chat("x" * 100) * 3 + b"no JSON\n"
    manifest = run(lambda _: planned_and_ended(data, QUOTA, max_tokens=40))
    told = manifest.estimate
    assert told is not None
    assert told.rows == 3
    assert told.prompt_tokens == (3 * (20 + PER_MESSAGE), 3 * (50 + PER_MESSAGE))
    assert told.completion_tokens == (3 * 8, 3 * 40)
    assert told.cost is None, "no price is known"
    assert told.seconds is not None
    # Three requests at one a second; the most has what is lost and what comes beside it.
    assert told.seconds[0] == 3.0
    assert told.seconds[1] == pytest.approx(3 / 0.9 + 30, abs=0.1)


def test_quotas_bound_a_job_by_what_its_rows_name_whatever_other_deployments_have() -> None:
    other = DEPLOYMENT.model_copy(update={"name": "vllm", "model": "other"})

    async def ended(name: str) -> Manifest:
        async with bench(deployments=(QUOTA, other)) as service:
            done = await service.run(chat("x", model=name) * 3)
            return Manifest.model_validate(done.manifest)

    assert run(lambda _: ended(QUOTA.model)).least_seconds == 3.0
    assert run(lambda _: ended("other")).least_seconds is None


@pytest.mark.parametrize("limit", [10**15 + 1, 2**53, 2**63])
def test_a_job_is_planned_whatever_its_rows_ask_for(limit: int) -> None:
    price = Price(input="1", output="99999999", currency="VND")
    phi = DEPLOYMENT.model_copy(update={"price": price})
    data = chat("x", max_tokens=limit) + chat("y", max_tokens=9)
    manifest = run(lambda _: planned_and_ended(data, phi))
    assert (manifest.state, manifest.counts.total) == ("completed", 2)
    assert manifest.estimate is not None
    assert manifest.estimate.completion_tokens == (16, 10**15)
    assert manifest.estimate.cost is not None
    assert manifest.estimate.cost.most == "999999999999999.999999"


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("body", "too_little"),
    [
        ({"messages": [{"role": "user", "content": "x" * 1000}], "max_tokens": 10}, 700),
        ({"messages": [{"role": "user", "content": [IMAGE]}], "max_tokens": 10}, 40_000),
        ({"messages": [{"role": "user", "content": "\n\x01"}] * 9, "max_tokens": 10}, 600),
        ({"prompt": "x", "max_tokens": 1}, 80),
    ],
)
def test_what_is_said_to_fit_its_cap_is_asked(body: dict[str, Any], too_little: int) -> None:
    row, (group,) = row_and_groups(body)
    most = sum(tokens.most for tokens in summed(pledged([group])))
    assert run(lambda _: fits_and_answered(row, group, most)) == ("yes", 1)
    assert run(lambda _: fits_and_answered(row, group, too_little)) == ("perhaps", 0)


TOOL = {"type": "function", "function": {"name": "f", "description": "x" * 1000}}


def completion(**body: Any) -> dict[str, Any]:
    made = {"model": DEPLOYMENT.model, "max_tokens": 10, **body}
    return {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": made}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "x" * 1000}], "max_tokens": 10},
        {"messages": [{"role": "user", "content": "\n\x01"}] * 9, "max_tokens": 10},
        {"messages": [{"role": "user", "content": [IMAGE]}], "max_tokens": 10},
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 10, "tools": [TOOL]},
        completion(prompt=["x" * 100, "y"]),
        completion(prompt="x" * 100, echo=True, n=3),
    ],
)
def test_a_file_that_was_read_fits_what_its_calls_are_pledged_for_and_no_less(
    row: dict[str, Any],
) -> None:
    data = json.dumps({"model": DEPLOYMENT.model, **row}).encode() + b"\n"
    checker = Checker(rules_for(JobOptions()), pledging=True)
    assert not list(checker.refusals(BytesIO(data)))
    (group,) = checker.report.groups
    assert group.pledged_tokens is not None
    most = sum(group.pledged_tokens)
    assert run(lambda _: fits_and_answered(data, group, most)) == ("yes", 1)
    assert run(lambda _: fits_and_answered(data, group, most - 1)) == ("perhaps", 0)


@pytest.mark.parametrize(("more", "word", "state"), [(0, "yes", "completed"), (-1, "no", "failed")])
def test_what_a_job_reserves_in_its_month_is_known_of_a_file_that_was_read(
    more: int, word: str, state: str
) -> None:
    phi = DEPLOYMENT.model_copy(update={"price": Price(input="1", output="2", currency="USD")})
    bodies = [("x" * 1000, 10), ("y", 1000)]
    data = b"".join(chat(words, model=phi.model, max_tokens=most) for words, most in bodies)
    checker = Checker(rules_for(JobOptions()), pledging=True)
    assert not list(checker.refusals(BytesIO(data)))
    (group,) = checker.report.groups
    prompts, answers = group.pledged_tokens or (0, 0)
    tenants = {"default": Tenant(max_cost_per_month=(prompts + 2 * answers + more) / 1e6)}

    async def told_and_ended(_: Random) -> tuple[str, str]:
        async with bench(deployments=(phi,), tenants=tenants) as service:
            asked = {"requests": [group.model_dump(exclude_defaults=True)]}
            told = (await service.ask("POST", "/api/estimate", asked)).body["caps"]
            ended = await service.run(data)
            return told[0]["fits"], ended.state

    assert run(told_and_ended) == (word, state)


PHI_4K = DEPLOYMENT.model_copy(
    update={
        "model": "Phi-3-mini-4k-instruct",
        "price": Price(input="1", output="2", currency="USD"),
    }
)


def groups_read(data: bytes) -> list[dict[str, Any]]:
    """A file as `phi3batch estimate` tells of it."""
    checker = Checker(rules_for(JobOptions()), pledging=True)
    assert not list(checker.refusals(BytesIO(data)))
    return [each.model_dump(exclude_defaults=True) for each in checker.report.groups]


@pytest.mark.parametrize(("rows_with_room", "word", "answered"), [(2, "yes", 2), (1, "no", 1)])
def test_rows_too_long_by_their_models_name_count_for_the_service_asks_them(
    rows_with_room: int, word: str, answered: int
) -> None:
    rows = [chat(words, model=PHI_4K.model, max_tokens=5) for words in ("hi", "word " * 40_000)]
    (group,), (room,) = (groups_read(b"".join(rows[:count])) for count in (2, rows_with_room))
    cap = sum(room["pledged_tokens"])

    async def told_and_ended(_: Random) -> tuple[str, int]:
        async with bench(deployments=(PHI_4K,)) as service:
            asked = {"requests": [group], "max_total_tokens": cap}
            (told,) = (await service.ask("POST", "/api/estimate", asked)).body["caps"]
            ended = await service.run(b"".join(rows), options={"max_total_tokens": cap})
            return told["fits"], ended.counts["succeeded"]

    assert run(told_and_ended) == (word, answered)


@pytest.mark.parametrize("more", [{"web_search_options": {}}, {"max_tokens": None}])
def test_a_month_is_not_said_to_have_room_for_rows_that_its_cap_refuses(
    more: dict[str, Any],
) -> None:
    rows = [{"max_tokens": 5}, {"max_tokens": 5, **more}]
    data = b"".join(chat("hi", model=PHI_4K.model, **each) for each in rows)
    tenants = {"default": Tenant(max_cost_per_month=1)}

    async def told_and_ended(_: Random) -> tuple[str, str]:
        async with bench(deployments=(PHI_4K,), tenants=tenants) as service:
            asked = {"requests": groups_read(data)}
            (told,) = (await service.ask("POST", "/api/estimate", asked)).body["caps"]
            ended = await service.run(data, options={"on_invalid": "fail"})
            return told["fits"], ended.state

    assert run(told_and_ended) == ("perhaps", "failed")


@pytest.mark.parametrize(("max_cost", "words"), [(None, ["perhaps"]), (1, ["perhaps", "yes"])])
def test_what_many_kinds_are_pledged_for_is_not_known(
    max_cost: float | None, words: list[str]
) -> None:
    dear = Price(input="1000", output="1000", currency="USD")
    deployments = (PHI_4K, PHI_4K.model_copy(update={"name": "o", "model": "o", "price": dear}))
    models = [PHI_4K.model, *(f"m{number}" for number in range(199)), "o"]
    data = b"".join(
        chat("x", model=each, max_tokens=50_000 if each == "o" else 5) for each in models
    )
    tenants = {"default": Tenant(max_cost_per_month=1)}
    cap = {} if max_cost is None else {"max_cost": max_cost}

    async def told_and_ended(_: Random) -> tuple[list[str], str, int]:
        async with bench(deployments=deployments, tenants=tenants) as service:
            asked = {"requests": groups_read(data), **cap}
            told = (await service.ask("POST", "/api/estimate", asked)).body["caps"]
            ended = await service.run(data, options=cap)
            return [each["fits"] for each in told], ended.state, ended.counts["succeeded"]

    fits, state, answered = run(told_and_ended)
    assert fits == words
    assert (state, answered) == (("failed", 0) if max_cost is None else ("completed", 1))


@pytest.mark.parametrize("limit", [10**15, 2**53])
def test_as_many_tokens_as_can_be_told_fit_no_cap_for_sure(limit: int) -> None:
    data = chat("hi", model=PHI_4K.model, max_tokens=limit)
    caps = {"max_total_tokens": 2 * 10**15, "max_cost": 1_000_000}
    free = PHI_4K.model_copy(update={"price": Price(input="0", output="0.000001", currency="USD")})
    tenants = {"default": Tenant(max_cost_per_month=2_000)}

    async def told(_: Random) -> list[list[str]]:
        async with bench(deployments=(free,), tenants=tenants) as service:
            own = {"requests": groups_read(data), **caps}
            asked = [own, {"requests": groups_read(data)}]
            found = [await service.ask("POST", "/api/estimate", each) for each in asked]
            return [[cap["fits"] for cap in each.body["caps"]] for each in found]

    own, (month,) = run(told)
    assert own[:2] == ["perhaps", "perhaps"]
    assert month == "perhaps"


def test_calls_are_pledged_at_the_dearest_for_each_of_them() -> None:
    group = {"task": "chat", "requests": 1, "prompt_tokens": 1e6, "answer_tokens": 1e6}
    pledged_for = {**group, "pledged_tokens": [1_000_000, 1_000_000], "model": DEPLOYMENT.model}
    pair = [
        DEPLOYMENT.model_copy(update={"name": name, "price": price})
        for name, price in (
            ("reads", Price(input="9", output="1", currency="USD")),
            ("writes", Price(input="1", output="9", currency="USD")),
        )
    ]

    async def told(_: Random) -> list[str]:
        async with bench(deployments=tuple(pair)) as service:
            asked = [{"requests": [pledged_for], "max_cost": cap} for cap in (17.9, 18)]
            found = [await service.ask("POST", "/api/estimate", each) for each in asked]
            return [each.body["caps"][0]["fits"] for each in found]

    assert run(told) == ["perhaps", "yes"]


def row_and_groups(body: dict[str, Any]) -> tuple[bytes, list[EstimateGroup]]:
    row = json.dumps({"model": DEPLOYMENT.model, **body}).encode() + b"\n"
    means = scanned([row]).sizes.means
    return row, groups_of(means, dict.fromkeys(means, 1))


async def fits_and_answered(row: bytes, group: EstimateGroup, cap: int) -> tuple[str, int]:
    asked = {"requests": [group.model_dump(exclude_defaults=True)], "max_total_tokens": cap}
    async with bench(deployments=(DEPLOYMENT,)) as service:
        told = (await service.ask("POST", "/api/estimate", asked)).body["caps"][0]["fits"]
        ended = await service.run(row, options={"max_total_tokens": cap})
        return told, ended.counts["succeeded"]


def test_a_job_that_cannot_run_is_not_reckoned() -> None:
    manifest = run(lambda _: planned_and_ended(b"no JSON\n", QUOTA))
    assert manifest.state == "failed"
    assert manifest.estimate is None


def scanned(lines: list[bytes]) -> Scanner:
    scanner = Scanner(RowRules.of(JobOptions(), max_line_bytes=10_000))
    for _ in scanner.feed(b"".join(lines)):
        pass
    return scanner


@pytest.mark.slow
@given(st.integers(1, 4000), st.integers(0, 2**32))
def test_few_rows_tell_of_all(count: int, seed: int) -> None:
    rng = Random(seed)
    words = ["x" * rng.randint(1, 300) for _ in range(count)]
    made = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    body = [{"model": "m", "messages": [{"role": "user", "content": each}]} for each in words]
    lines = [json.dumps({**made, "body": each}).encode() + b"\n" for each in body]
    (mean,) = scanned(lines).sizes.means.values()
    true = sum(measure("chat", each).text for each in body) / count
    assert mean.text == pytest.approx(true, rel=0.15)
    assert mean.fixed == PER_MESSAGE
    assert mean.limited == 0.0
    if count < 1000:
        assert mean.text == pytest.approx(true), "all of a small file are measured"


def test_of_a_large_file_few_rows_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = 0

    def counted(task: Task, body: Mapping[str, Any]) -> Size:
        nonlocal measured
        measured += 1
        return measure(task, body)

    monkeypatch.setattr("workers.rows.sizes.measure", counted)
    scanned([chat("hello", model="m")] * 100_000)
    assert 1_000 < measured < 3_600


@pytest.mark.parametrize(("max_cost", "seconds"), [(None, 1.5), (1, 3.0)])
def test_a_plan_reckons_by_what_a_capped_job_may_ask(
    max_cost: float | None, seconds: float
) -> None:
    priced = QUOTA.model_copy(update={"price": Price(input="1", output="1", currency="USD")})
    other = QUOTA.model_copy(update={"name": "other"})

    async def ended(_: Random) -> Manifest:
        async with bench(deployments=(priced, other)) as service:
            options = {"max_tokens": 8, "max_cost": max_cost}
            return Manifest.model_validate(
                (await service.run(chat("x") * 3, options=options)).manifest
            )

    told = run(ended).estimate
    assert told is not None
    assert told.seconds is not None
    assert told.seconds[0] == seconds
    assert (told.cost is None) is (max_cost is None)


def test_those_who_share_a_quota_have_it_later() -> None:
    estimator = QuotaEstimator((QUOTA,), {}, {"chat": QUOTA.model})
    sizes = scanned([chat("hello", model=QUOTA.model)] * 100).sizes.means
    groups = groups_of(sizes, {("chat", QUOTA.model): 100})
    alone = job_estimate(estimator.told(groups, Terms(0.0)))
    shared = job_estimate(estimator.told(groups, Terms(0.0, {QUOTA.name: 0.25})))
    assert alone.seconds is not None
    assert shared.seconds is not None
    assert shared.seconds[0] == alone.seconds[0]
    assert shared.seconds[1] - 30 == pytest.approx(4 * (alone.seconds[1] - 30), rel=0.01)
    assert isinstance(shared, JobEstimate)
    assert RATIO[0] < RATIO[1]


@pytest.mark.parametrize("whose", ["deployment", "priority"])
def test_the_most_of_a_job_waits_for_its_hours_and_its_pace_does_not(whose: str) -> None:
    # The doubles' time begins at 08:00 UTC.
    later = Hours(hours="10:00-11:00", time_zone="UTC")
    # Another that serves chat without a quota: the job's least follows from its estimate.
    other = DEPLOYMENT.model_copy(update={"name": "vllm", "model": "other"})
    limited, priorities = QUOTA, {"low": later}
    if whose == "deployment":
        limited, priorities = QUOTA.model_copy(update=later.model_dump()), {}
    options = {"priority": "low", "max_tokens": 40}

    async def ended(_: Random) -> tuple[Manifest, float]:
        async with bench(deployments=(limited, other), priority_hours=priorities) as service:
            begun = service.clock()
            await service.drop(chat("x" * 100, model=QUOTA.model) * 3, options=options)
            await service.announce()
            while not any(event["data"].get("ended") for event in service.events):
                await service.settle()
                await asyncio.sleep(1.0)
            done = await service.ended()
            return Manifest.model_validate(done.manifest), service.clock() - begun

    manifest, took = run(ended)
    told = manifest.estimate
    assert manifest.counts.succeeded == 3
    assert told is not None
    assert told.seconds is not None
    assert told.seconds[0] == manifest.least_seconds == 3.0
    assert told.seconds[1] == pytest.approx(7_200.0 + 3 / 0.9 + 30.0, abs=1.0)
    assert 7_200.0 < took < told.seconds[1]


def test_what_a_day_has_bounds_a_job() -> None:
    # 60 a minute, 10 a day: at 08:00 UTC 10 rows, at two midnights 10 and 5.
    limited = QUOTA.model_copy(update={"requests_per_day": 10})
    options = {"max_tokens": 8, "completion_window": "7d"}

    async def ended(_: Random) -> tuple[Manifest, float]:
        async with bench(deployments=(limited,)) as service:
            begun = service.clock()
            await service.drop(chat("x") * 25, options=options)
            await service.announce()
            while not any(event["data"].get("ended") for event in service.events):
                await service.settle()
                await asyncio.sleep(60.0)
            done = await service.ended()
            return Manifest.model_validate(done.manifest), service.clock() - begun

    manifest, took = run(ended)
    assert manifest.counts.succeeded == 25
    assert manifest.estimate is not None
    assert manifest.estimate.seconds is not None
    least, most = manifest.estimate.seconds
    # One that begins just before midnight has the requests of two days at once.
    assert least == manifest.least_seconds == 86_400.0 + 5.0
    assert most == pytest.approx(40 * 3600.0 + 5 / 0.9 + 30.0, abs=1.0)
    assert least < took < most + 60.0


@given(
    st.integers(1, 3000),
    st.integers(1, 500),
    st.one_of(st.none(), st.floats(0.01, 1e3)),
    st.floats(0, 200 * 86_400),
)
def test_no_job_takes_less_than_the_least_whenever_its_day_begins(
    requests: int, per_day: int, per_minute: float | None, now: float
) -> None:
    quota = {"requests_per_day": per_day, "requests_per_minute": per_minute}
    phi = DEPLOYMENT.model_copy(update=quota)
    group = EstimateGroup(
        model=phi.model, task="chat", requests=requests, prompt_tokens=0.0, answer_tokens=0.0
    )
    told = QuotaEstimator((phi,), {}, {}).told([group], Terms(now))
    assert (told.seconds or 0.0) <= (told.seconds_shared or 0.0) + 0.001
    if per_minute is not None:
        assert told.seconds is not None
        assert told.seconds >= 60.0 * requests / per_minute - 0.001
    if requests > 3 * per_day:
        assert told.seconds is not None
        assert told.seconds >= 86_400.0


@pytest.mark.parametrize(
    ("days_ago", "seconds"),
    [
        # From 08:00 to midnight, UTC.
        (0, pytest.approx(16 * 3600.0, abs=1.0)),
        (1, None),
    ],
)
def test_the_door_knows_what_of_the_day_is_left(days_ago: int, seconds: float | None) -> None:
    group = {"task": "chat", "requests": 100, "prompt_tokens": 0.0, "answer_tokens": 0.0}
    limited = DEPLOYMENT.model_copy(update={"name": "phi", "requests_per_day": 100})

    async def asked(_: Random) -> Any:
        async with bench(deployments=(limited,)) as service:
            given = Day(int(service.clock() // 86_400) - days_ago, 1)
            await service.blobs.create(BlobRef("state", "quota/phi.json"), Book(day=given).dump())
            return (await service.ask("POST", "/api/estimate", {"requests": [group]})).body

    told = run(asked)
    assert (told["seconds"], told["seconds_shared"]) == (None, seconds)


def holder(jobs: dict[str, float], expires: float = 10.0, tenant: str = "default") -> Holder:
    tenants = {} if tenant == "default" else dict.fromkeys(jobs, (tenant, 1.0))
    return Holder(sum(jobs.values()), 1.0, 0.5, 0.0, expires, jobs=jobs, tenants=tenants)


DEFAULT = ("default", 1.0)


def test_one_more_job_gets_its_part() -> None:
    asking = {"a": holder({"one": 1.0}), "b": holder({"one": 1.0, "two": 2.0})}
    assert part_of_one_more({}, 1.0, DEFAULT, 0.0) == 1.0
    assert part_of_one_more(asking, 1.0, DEFAULT, 0.0) == pytest.approx(1 / 4)
    assert part_of_one_more(asking, 1.0, DEFAULT, 11.0) == 1.0, "they have gone"
    others = {"a": holder({"one": 1.0, "two": 1.0, "three": 1.0})}
    assert part_of_one_more(others, 1.0, ("blue", 1.0), 0.0) == pytest.approx(1 / 2)


def test_the_door_tells_how_quotas_are_shared_now() -> None:
    group = {"task": "chat", "requests": 60, "prompt_tokens": 0.0, "answer_tokens": 0.0}

    async def asked(_: Random) -> Any:
        async with bench(deployments=(QUOTA,)) as service:
            alone = await service.ask("POST", "/api/estimate", {"requests": [group]})
            busy = Book({"a": holder({"one": 1.0, "two": 2.0}, expires=service.clock() + 60)})
            await service.blobs.create(BlobRef("state", "quota/phi.json"), busy.dump())
            shared = await service.ask("POST", "/api/estimate", {"requests": [group]})
            return alone.body, shared.body

    alone, shared = run(asked)
    assert (alone["seconds"], alone["seconds_shared"]) == (60.0, 60.0)
    assert (shared["seconds"], shared["seconds_shared"]) == (60.0, 240.0)


def test_the_door_reckons_for_the_tenant_that_is_named() -> None:
    group = {"task": "chat", "requests": 60, "prompt_tokens": 0.0, "answer_tokens": 0.0}
    tenants = {"default": Tenant(), "blue": Tenant(weight=3.0)}

    async def asked(_: Random) -> Any:
        async with bench(deployments=(QUOTA,), tenants=tenants) as service:
            busy = Book({"a": holder({"one": 1.0}, expires=service.clock() + 60)})
            await service.blobs.create(BlobRef("state", "quota/phi.json"), busy.dump())
            body = {"requests": [group]}
            mine = await service.ask("POST", "/api/estimate", body)
            blue = await service.ask("POST", "/api/estimate", body, tenant="blue")
            nobody = await service.ask("POST", "/api/estimate", body, tenant="nobody")
            return mine.body["seconds_shared"], blue.body["seconds_shared"], nobody

    mine, blue, nobody = run(asked)
    assert (mine, blue) == (120.0, 80.0)
    assert (nobody.code, nobody.body["error"]["code"]) == (400, "unknown_tenant")
