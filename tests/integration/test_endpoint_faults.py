"""What a whole job makes of faults: an endpoint's, storage's, and a worker's that has to stop."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from local.endpoint import (
    Rule,
    Settings,
    When,
    completion,
    embedding,
    read_rules,
    row_key,
)
from tests.integration.processes import (
    CHAT_MODEL,
    EMBED_MODEL,
    in_one_task,
    processes,
    usual_deployments,
)
from tests.integration.results import journaled
from tests.integration.user import User, chat, chats, jsonl, user_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST_TOKENS = 4_096
CALL_TIMEOUT = 3.0
MOST_BYTES = 64 * 1024
PACED_MODEL = "Phi-3-small-8k-instruct"
AT_ONCE = 8
LATENCY = 0.1
BOASTING_MODEL = "Phi-3-small-128k-instruct"


def deployments(url: str) -> list[dict[str, Any]]:
    """One with a limit for each request, one that takes few calls at once, and one that boasts."""
    chat_model, embed = usual_deployments(url)
    paced = {"name": "paced", "kind": "openai", "model": PACED_MODEL, "url": f"{url}/v1"}
    boasting = {"name": "boasting", "kind": "model-inference", "model": BOASTING_MODEL}
    return [
        chat_model | {"max_tokens_per_request": MOST_TOKENS, "timeout": CALL_TIMEOUT},
        embed,
        paced | {"max_concurrency": AT_ONCE},
        # It says of itself that it chats, whatever the setting claims.
        boasting | {"url": f"{url}/endpoints/{BOASTING_MODEL}", "tasks": ["chat", "embeddings"]},
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def user(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[User]:
    context = processes(
        tmp_path_factory.mktemp("processes"),
        simulator=Settings(profile="openai", latency=LATENCY, mean_tokens=8),
        deployments=deployments,
        settings={"MAX_LINE_BYTES": str(MOST_BYTES), "JOURNAL_SECONDS": "1"},
    )
    async with in_one_task(user_of(context)) as made:
        yield made


@pytest.fixture(autouse=True)
def mended(user: User) -> Iterator[None]:
    """No test leaves its faults to the next."""
    yield
    user.processes.endpoint.set_faults()


def question(row: dict[str, Any]) -> str:
    content: str = row["messages"][-1]["content"]
    return content


def expected(row: dict[str, Any], model: str = CHAT_MODEL) -> str:
    return completion(
        0, model, row["messages"], max_tokens=row.get("max_tokens"), mean_tokens=8
    ).text


def large(count: int) -> Any:
    """The size of a job that `make test-long` runs."""
    return pytest.param(count, marks=pytest.mark.long)


@pytest.mark.parametrize("count", [400, large(1_000)])
async def test_bad_rows_among_hundreds_of_good_ones_cost_nobody_else_anything(
    user: User, count: int
) -> None:
    good = chats(count, f"good of {count}", model=CHAT_MODEL, max_tokens=16)
    tenth = count // 10
    refused = 9 * tenth + 1
    bad = {
        tenth + 1: ("content_filter", chat("filtered", "something forbidden")),
        3 * tenth + 1: ("request_too_large", chat("oversize", "too long", max_tokens=9_000)),
        5 * tenth + 1: ("line_too_long", chat("overlong", "x" * MOST_BYTES)),
        7 * tenth + 1: ("invalid_row", chat("ill-typed", "hot?", temperature="hot")),
        8 * tenth + 1: (
            "no_deployment",
            {"custom_id": "disowned", "input": "?", "model": BOASTING_MODEL},
        ),
        refused: ("http_422", chat("refused", "a bad request to the endpoint")),
    }
    rows = list(good)
    for line, (_, row) in bad.items():
        rows.insert(line - 1, {"model": CHAT_MODEL, **row})
    user.processes.endpoint.set_faults(
        Rule(fault="content_filter_400", when=When(contains="forbidden")),
        Rule(fault="http_422", when=When(contains="a bad request to")),
    )
    began = user.processes.endpoint.stats()
    status, results = await user.run(f"few-bad-of-{count}.jsonl", jsonl(rows), {})
    ended = user.processes.endpoint.stats()

    assert status.state == "completed"
    results.check(len(rows))
    codes = results.codes()
    assert {line: codes[line] for line in bad if line != refused} == {
        line: code for line, (code, _) in bad.items() if line != refused
    }
    assert sorted(codes) == sorted(bad)
    assert results.answers() == {row["custom_id"]: expected(row) for row in good}
    # Nobody was asked twice, waited for another's fault, or was refused with it.
    billed = user.processes.billed()
    assert all(billed[row_key(question(row))] == 1 for row in good)
    assert {len(line["attempts"]) for line in results.output} == {1}
    assert {line["attempts"][0]["waited_for"] for line in results.output} <= {None, "concurrency"}
    assert ended["received"] - began["received"] == len(good) + 2


# What strikes each row's first call: the outcome of that call, and the row's error if it is final.
STRUCK: dict[str, tuple[str, str | None]] = {
    "http_400": ("bad_request", "bad_request"),
    "http_408": ("transient", None),
    "http_413": ("bad_request", "request_too_large"),
    "http_422": ("bad_request", "unprocessable"),
    "http_424": ("transient", None),
    "http_429": ("throttled", None),
    "http_500": ("transient", None),
    "http_502": ("transient", None),
    "http_503": ("transient", None),
    "http_504": ("transient", None),
    "html_200": ("transient", None),
    "reset_before": ("transient", None),
    "reset_after": ("transient", None),
    "truncated_body": ("transient", None),
    "truncated_stream": ("transient", None),
    "stream_error": ("transient", None),
    "empty_choices": ("transient", None),
    "content_filter_400": ("content_filter", "content_filter"),
    "content_filter_200": ("content_filter", "content_filter"),
    "drip": ("timeout", None),
    "hang": ("timeout", None),
}
HARMLESS = ("missing_usage",)


async def test_each_fault_strikes_its_own_row_only_and_most_are_mended(user: User) -> None:
    good = chats(345, "unharmed", model=CHAT_MODEL, max_tokens=16)
    struck = [
        chat(fault, f"struck by <{fault}>", model=CHAT_MODEL, max_tokens=16)
        | ({"stream": True} if "stream" in fault else {})
        for fault in (*STRUCK, *HARMLESS)
    ]
    rows = list(good)
    for place, row in enumerate(struck):
        rows.insert(15 * (place + 1), row)
    user.processes.endpoint.set_faults(
        *read_rules(
            [
                {"fault": row["custom_id"], "times_per_row": 1, "lasts": 30}
                | {"when": {"contains": f"<{row['custom_id']}>"}}
                for row in struck
            ]
        )
    )
    status, results = await user.run("every-fault.jsonl", jsonl(rows), {}, seconds=60)
    user.processes.endpoint.set_faults()
    assert status.state == "completed"
    results.check(len(rows))

    final = {fault: code for fault, (_, code) in STRUCK.items() if code is not None}
    assert {line["custom_id"]: line["error"]["code"] for line in results.errors} == final
    assert results.answers() == {
        row["custom_id"]: expected(row) for row in rows if row["custom_id"] not in final
    }
    lines = {line["custom_id"]: line for line in (*results.output, *results.errors)}
    made = {name: [each["kind"] for each in line["attempts"]] for name, line in lines.items()}
    # A failure that a row can cause, and that nothing explains, has the worker ask for a token.
    assert sum(each.count("probe") for each in made.values()) <= 1
    kinds = {name: [kind for kind in each if kind != "probe"] for name, each in made.items()}
    assert {fault: kinds[fault] for fault in STRUCK} == {
        fault: [kind] if fault in final else [kind, "ok"] for fault, (kind, _) in STRUCK.items()
    }
    assert all(kinds[row["custom_id"]] == ["ok"] for row in good)
    assert kinds["missing_usage"] == ["ok"]


@pytest.mark.parametrize("count", [400, large(600)])
async def test_an_outage_in_mid_job_fails_no_row(user: User, count: int) -> None:
    rows = chats(count, f"outage of {count}", model=PACED_MODEL, max_tokens=16)
    before = user.processes.endpoint.stats()
    await user.drop(f"outage-{count}.jsonl", jsonl(rows), {})
    await user.until(
        lambda: user.processes.endpoint.stats()["answered"] > before["answered"] + 100, "first rows"
    )
    user.processes.endpoint.set_faults(Rule(fault="http_503"))
    struck = before["faults"].get("http_503", 0)
    await user.until(
        lambda: user.processes.endpoint.stats()["faults"].get("http_503", 0) >= struck + AT_ONCE,
        "the outage is felt",
    )
    await user.quiet()  # the breaker is open: nobody's attempts are burnt meanwhile
    assert user.processes.endpoint.stats()["faults"]["http_503"] - struck < len(rows) / 4
    user.processes.endpoint.set_faults()
    ended = await user.job(f"prompts/outage-{count}.jsonl", seconds=60)
    results = await user.results(ended.status)
    results.check(len(rows))
    assert results.errors == []
    assert results.answers() == {row["custom_id"]: expected(row, PACED_MODEL) for row in rows}
    billed = user.processes.billed()
    assert Counter(billed[row_key(question(row))] for row in rows) == {1: len(rows)}


@pytest.mark.parametrize("count", [1_000, large(3_000)])
async def test_short_embedding_inputs_share_calls_and_keep_their_vectors(
    user: User, count: int
) -> None:
    rows = [{"custom_id": f"e{number}", "input": f"input {number}"} for number in range(count)]
    before = user.processes.endpoint.stats()["calls"].get("embeddings", 0)
    _, results = await user.run(f"embeddings-{count}.jsonl", jsonl(rows), {"model": EMBED_MODEL})
    calls = user.processes.endpoint.stats()["calls"]["embeddings"] - before
    results.check(len(rows))
    assert calls * 5 <= len(rows)
    assert results.answers() == {
        row["custom_id"]: [embedding(0, EMBED_MODEL, row["input"])] for row in rows
    }
    assert sum(use.calls for use in results.manifest.use.values()) == calls


async def test_a_worker_told_to_stop_journals_at_once_and_nothing_of_it_is_asked_again(
    user: User,
) -> None:
    rows = chats(300, "stopped", model=PACED_MODEL, max_tokens=16)
    lines = {row["custom_id"]: row_key(question(row)) for row in rows}
    await user.drop("stopped.jsonl", jsonl(rows), {})
    job = (await user.job("prompts/stopped.jsonl", "job.in_progress")).status.job
    assert job is not None
    await user.until(
        lambda: len(user.processes.billed().keys() & lines.values()) > 60,
        "rows of the job are done",
    )

    async def handed_back() -> bool:
        journals = await journaled(user.storage, job)
        return bool(journals) and all(each[-1:] == [{"end": True}] for each in journals.values())

    assert not await handed_back()
    process = user.processes.hosts.processes[1]
    process.send_signal(signal.SIGTERM)
    stopped = time.monotonic()
    await user.until(handed_back, "every journal has its end mark", 10)
    took = time.monotonic() - stopped
    # The next worker takes seconds to come up: what is billed and kept by now is the first one's.
    billed = user.processes.billed().keys() & lines.values()
    kept = {
        lines[line["text"]["custom_id"]]
        for journal in (await journaled(user.storage, job)).values()
        for line in journal
        if "row" in line
    }
    async with asyncio.timeout(10):
        await process.wait()
    assert took < 2.0
    assert len(kept) > 60 - AT_ONCE
    assert len(billed - kept) <= AT_ONCE

    ended = await user.job("prompts/stopped.jsonl", seconds=60)
    results = await user.results(ended.status)
    results.check(len(rows))
    assert results.answers() == {row["custom_id"]: expected(row, PACED_MODEL) for row in rows}
    times = user.processes.billed()
    assert {times[key] for key in kept} == {1}
    assert {key for key in lines.values() if times[key] > 1} <= billed - kept


async def test_what_is_answered_while_storage_is_away_is_not_asked_again(user: User) -> None:
    rows = chats(250, "away", model=PACED_MODEL, max_tokens=16)
    before = user.processes.endpoint.stats()["answered"]
    await user.drop("away.jsonl", jsonl(rows), {})
    await user.until(
        lambda: user.processes.endpoint.stats()["answered"] > before + 50, "first rows"
    )
    await user.processes.azurite.stop()
    await user.until(
        lambda: user.processes.endpoint.stats()["answered"] >= before + len(rows),
        "all rows are asked",
    )
    await user.processes.azurite.start()
    ended = await user.job("prompts/away.jsonl", seconds=60)
    results = await user.results(ended.status)
    results.check(len(rows))
    assert results.answers() == {row["custom_id"]: expected(row, PACED_MODEL) for row in rows}
    billed = user.processes.billed()
    assert Counter(billed[row_key(question(row))] for row in rows) == {1: len(rows)}
