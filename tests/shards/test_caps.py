"""Capped jobs through the whole service in memory: what they ask, and what they do not."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from schemas.deployments import Deployment, Task
from schemas.money import Price
from schemas.outcomes import Outcome, Usage
from tests.doubles.service import Answering, Bench, bench
from workers.adapters.endpoints.aml_score import AmlScore
from workers.ports import BlobRef
from workers.rows.most_tokens import IMAGE, most_tokens

PRICE = Price(input="1", output="2", currency="USD")


def deployment(name: str = "phi", **fields: Any) -> Deployment:
    given = {"model": "phi-3-mini", "auth": "none", "price": PRICE, **fields}
    return Deployment(name=name, kind="model-inference", url="http://127.0.0.1:1", **given)


def rows(count: int, **fields: Any) -> bytes:
    return b"".join(
        json.dumps({"prompt": f"hello {n}", **fields}).encode() + b"\n" for n in range(count)
    )


class Billing(Answering):
    """Bills as it is told to; the judge of a cap."""

    def __init__(self, *outcomes: Outcome) -> None:
        super().__init__()
        self.outcomes = list(outcomes)
        self.billed = 0
        self.most_at_once = self.now = 0

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        outcome = await super().ask(task, body)
        self.now -= 1
        if self.outcomes:
            outcome = self.outcomes.pop(0)
        bound = most_tokens(task, body)
        assert bound is not None
        if outcome.usage is not None:
            self.billed += outcome.usage.total_tokens
        elif outcome.billed:
            self.billed += sum(bound)  # nobody knows: the worst
        return outcome


async def state_of(service: Bench, job: str) -> Mapping[str, Any]:
    stored = await service.blobs.read(BlobRef("state", f"jobs/{job}/state.json"))
    return json.loads(stored.data)  # type: ignore[no-any-return]


async def test_rows_beyond_the_cap_are_not_asked_and_say_so() -> None:
    endpoint = Billing()
    async with bench(deployments=(deployment(),), endpoint=endpoint) as service:
        ended = await service.run(rows(60), options={"max_tokens": 10, "max_total_tokens": 700})
    told = ended.event["data"]["budget"]
    assert ended.counts["succeeded"] == len(endpoint.asked) > 40
    assert {row["error"]["code"] for row in ended.errors} == {"budget_exceeded"}
    # Whatever is reckoned of rows that were asked is not reckoned of them.
    assert (ended.counts["failed"], ended.counts["invalid"]) == (0, 60 - len(endpoint.asked))
    assert ended.errors[0]["error"]["message"].startswith(f"line {ended.errors[0]['line']}: ")
    kept = {name: value for name, value in ended.manifest["budget"].items() if value is not None}
    assert told == kept
    assert told["tokens_spent"] == endpoint.billed <= 700
    # Used to the full, but for less than one call can cost.
    bound = most_tokens(*endpoint.asked[-1])
    assert bound is not None
    assert 700 - endpoint.billed < sum(bound)


async def test_a_scoring_endpoint_that_tells_no_usage_is_asked_within_the_cap() -> None:
    """Judged by what is sent, for nobody else sees what it bills."""
    score = AmlScore(
        Deployment(name="a", kind="aml-score", url="http://127.0.0.1:1", model="a", auth="none")
    )
    endpoint, billed = Billing(), 0
    endpoint.outcomes = [Outcome("ok", 200, {"choices": []}, billed=True) for _ in range(40)]
    async with bench(deployments=(deployment(),), endpoint=endpoint) as service:
        options = {"max_tokens": 50, "max_total_tokens": 9000}
        ended = await service.run(rows(40, max_new_tokens=4000), options=options)
    for task, body in endpoint.asked:
        billed += 7 + score.encode(task, body)["input_data"]["parameters"]["max_new_tokens"]
    assert ended.counts["succeeded"] == len(endpoint.asked) == 2
    assert billed <= ended.event["data"]["budget"]["tokens_spent"] <= 9000


@pytest.mark.parametrize("limit", [4000.0, "4000"])
async def test_a_limit_that_servers_read_and_nobody_reckoned_is_never_sent(limit: Any) -> None:
    endpoint = Answering()
    data = rows(60, max_tokens=1, max_completion_tokens=limit) + rows(1, max_tokens=1)
    async with bench(deployments=(deployment(),), endpoint=endpoint) as service:
        ended = await service.run(data, options={"max_total_tokens": 12000, "max_cost": "0.05"})
    assert (ended.counts["succeeded"], len(endpoint.asked)) == (1, 1)
    assert {row["error"]["code"] for row in ended.errors} == {"invalid_row"}


async def test_a_row_of_unknown_cost_is_refused_before_the_first_call_and_harms_no_other() -> None:
    endpoint = Answering()
    data = rows(2, max_tokens=5) + rows(1, max_tokens=5, num_return_sequences=20)
    async with bench(deployments=(deployment(),), endpoint=endpoint) as service:
        ended = await service.run(data, options={"max_total_tokens": 12000})
    [row] = ended.errors
    assert (row["line"], row["error"]["code"]) == (3, "unknown_cost")
    assert row["error"]["message"].startswith("line 3: num_return_sequences: ")
    assert ended.counts["succeeded"] == len(endpoint.asked) == 2


async def test_a_cap_that_suffices_keeps_nothing_from_being_asked() -> None:
    async with bench(deployments=(deployment(),)) as service:
        ended = await service.run(rows(300), options={"max_tokens": 10, "max_cost": "1.5"})
    assert ended.counts["succeeded"] == 300
    assert ended.event["data"]["budget"]["cost_spent"] == ended.manifest["cost"]["counted"]


async def test_what_was_billed_and_not_told_counts_in_full() -> None:
    lost = [Outcome("transient", 500, billed=True, code="lost") for _ in range(2)]
    endpoint = Billing(*lost)
    async with bench(deployments=(deployment(),), endpoint=endpoint) as service:
        ended = await service.run(rows(40), options={"max_tokens": 10, "max_total_tokens": 900})
    assert ended.event["data"]["budget"]["tokens_spent"] == endpoint.billed <= 900


async def test_an_uncapped_job_stores_nothing_of_it() -> None:
    async with bench(deployments=(deployment(),)) as service:
        ended = await service.run(rows(3), options={"max_tokens": 10})
        job = ended.event["data"]["job"]
        state = await state_of(service, job)
        [journal] = [i async for i in service.blobs.list("state", f"jobs/{job}/journal/")]
        kept = (await service.blobs.read(journal.ref)).data
    assert "budget" not in state
    assert b'"lot"' not in kept
    assert b'"used"' not in kept


@pytest.mark.parametrize("cap", [{"max_cost": 5}, {"max_total_tokens": 5000}])
async def test_a_row_without_max_tokens_fails_the_job_before_the_first_call(
    cap: Mapping[str, Any],
) -> None:
    endpoint = Answering()
    data = rows(2, max_tokens=5) + rows(1) + rows(1, max_completion_tokens=5)
    async with bench(deployments=(deployment(),), endpoint=endpoint) as service:
        ended = await service.run(data, name="a.jsonl", options=cap)
    assert (ended.state, ended.reason["code"]) == ("failed", "max_tokens_missing")
    assert ended.reason["message"].startswith("prompts/a.jsonl, line 3: ")
    assert endpoint.asked == []


async def test_embeddings_need_no_max_tokens() -> None:
    data = b'{"input": "a text"}\n' * 5
    async with bench(deployments=(deployment(),)) as service:
        ended = await service.run(data, options={"max_total_tokens": 5000})
    assert ended.counts["succeeded"] == 5


async def test_a_model_without_a_price_fails_the_job_before_the_first_call() -> None:
    endpoint = Answering()
    free = deployment("free", model="other", price=None)
    data = rows(1, max_tokens=5) + rows(1, max_tokens=5, model="other")
    async with bench(deployments=(deployment(), free), endpoint=endpoint) as service:
        ended = await service.run(data, name="a.jsonl", options={"max_cost": 1, "model": "phi"})
    assert (ended.state, ended.reason["code"]) == ("failed", "no_price")
    assert ended.reason["message"].startswith("prompts/a.jsonl, line 2: ")
    assert {row["error"]["code"] for row in ended.errors} == {"no_price"}
    assert ended.counts["invalid"] == 2
    assert endpoint.asked == []


async def test_only_deployments_with_a_pinned_price_are_asked() -> None:
    endpoints = deployment(), deployment("free", price=None, weight=100.0)
    async with bench(deployments=endpoints) as service:
        ended = await service.run(rows(30), options={"max_tokens": 5, "max_cost": 1})
    assert set(ended.manifest["use"]) == {"phi"}
    assert ended.counts["succeeded"] == 30


async def test_a_job_that_pauses_says_why_and_goes_no_further_when_resumed() -> None:
    endpoint = Billing()
    options = {"max_tokens": 10, "max_total_tokens": 500, "on_budget": "pause"}
    async with bench(deployments=(deployment(),), endpoint=endpoint) as service:
        await service.drop(rows(60), options=options)
        await service.announce()
        await service.settle()
        told = service.events[-1]
        assert (told["type"], told["data"]["waiting"]["reason"]) == ("job.paused", "budget")
        asked = len(endpoint.asked)
        await service.ask("POST", f"/api/jobs/{told['data']['job']}/resume")
        await service.settle()
        assert service.events[-1]["type"] == "job.paused"
        assert len(endpoint.asked) == asked
        await service.ask("POST", f"/api/jobs/{told['data']['job']}/cancel")
        await service.settle()
        ended = await service.ended()
    assert ended.counts["succeeded"] == asked
    assert ended.counts["cancelled"] == 60 - asked
    assert ended.event["data"]["budget"]["tokens_spent"] == endpoint.billed <= 500


# -- the most that a call can be billed for


@pytest.mark.parametrize(
    ("task", "body", "answer"),
    [
        ("chat", {"messages": [{"role": "user", "content": "x" * 90}], "max_tokens": 7}, 7),
        (
            "chat",
            {"messages": [{"role": "user", "content": "ü" * 90}], "max_tokens": 7, "n": 3},
            21,
        ),
        ("chat", {"messages": [], "max_tokens": 7, "max_completion_tokens": 9}, 9),
        ("completions", {"prompt": ["x" * 90, "b"], "max_tokens": 7}, 14),
        ("completions", {"prompt": "x" * 90, "max_tokens": 7, "best_of": 4, "n": 2}, 28),
        ("embeddings", {"input": ["x" * 90]}, 0),
    ],
)
def test_the_most_is_the_bytes_and_max_tokens_times_n(
    task: Task, body: Mapping[str, Any], answer: int
) -> None:
    found = most_tokens(task, body)
    assert found is not None
    assert found[1] == answer
    text = sum(len(each.encode()) for each in ("x" * 90, "ü" * 90) if each in json.dumps(body))
    assert found[0] > text


def test_an_image_counts_for_the_most_that_any_does() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 200_000}}
    text = {"type": "text", "text": "what is it?"}
    body = {"messages": [{"role": "user", "content": [text, part]}], "max_tokens": 1}
    found = most_tokens("chat", body)
    assert found is not None
    assert IMAGE < found[0] < IMAGE + 500
    vectors = most_tokens("image-embeddings", {"input": [{"image": "A" * 90_000}] * 2})
    assert vectors is not None
    assert vectors[0] > 2 * IMAGE


def test_tools_are_part_of_the_prompt() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    plain, tools = most_tokens("chat", body), most_tokens("chat", {**body, "tools": ["y" * 500]})
    assert plain is not None
    assert tools is not None
    assert tools[0] - plain[0] > 500


async def test_usage_beyond_the_bound_is_counted_as_it_is() -> None:
    """Where an endpoint counts more than bytes, what it says is kept, and no more is asked."""
    endpoint = Billing(*[Outcome("ok", 200, {"choices": []}, Usage(5000, 5), billed=True)])
    async with bench(deployments=(deployment(max_concurrency=1),), endpoint=endpoint) as service:
        ended = await service.run(rows(5), options={"max_tokens": 10, "max_total_tokens": 300})
    assert ended.event["data"]["budget"]["tokens_spent"] == 5005
    assert len(endpoint.asked) == 1
