"""From a dropped file to its results: real hosts, Azurite, the broker, the simulated endpoint."""

import argparse
import fnmatch
import json
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

import orjson
import pytest
import pytest_asyncio

from local.endpoint import Rule, When, completion, embedding, image_content, row_key
from local.stack import PROJECT
from tests.integration.processes import (
    CHAT_MODEL,
    CONTAINERS,
    EMBED_MODEL,
    in_one_task,
    processes,
    usual_deployments,
)
from tests.integration.results import Results
from tests.integration.user import User, chats, jsonl, user_of
from tests.test_readme import section

pytestmark = pytest.mark.asyncio(loop_scope="module")

GSM8K = PROJECT / "samples/gsm8k-test.jsonl"
EVERY_DIALECT = PROJECT / "samples/every-dialect.jsonl"
ROWS = 1_319
FEWER = 400
TEMPLATE = {"messages": [{"role": "user", "content": "{question}"}]}
OPTIONS = {"template": TEMPLATE, "max_tokens": 32, "model": CHAT_MODEL}
SCORING_MODEL, AZURE_MODEL, OPENAI_MODEL = (
    "Phi-3-small-8k-instruct",
    "Phi-3-medium-4k-instruct",
    "Phi-3-mini-128k-instruct",
)
# By rows a second: few enough that the quota decides how long a big job takes, also on a machine
# that is busy.
PACED_MODELS = {50: "Phi-3-medium-128k-instruct", 100: "Phi-3-small-128k-instruct"}
PACED_SECONDS = 20


def deployments(url: str) -> list[dict[str, Any]]:
    """A deployment of each kind, and two with a quota."""
    chat_only = {"tasks": ["chat"]}
    return [
        *usual_deployments(url),
        {"name": "score", "kind": "aml-score", "model": SCORING_MODEL}
        | {"url": f"{url}/endpoints/{SCORING_MODEL}/score"},
        chat_only | {"name": "azure", "kind": "azure-openai", "model": AZURE_MODEL, "url": url},
        chat_only | {"name": "openai", "kind": "openai", "model": OPENAI_MODEL, "url": f"{url}/v1"},
        *(
            chat_only
            | {"name": f"paced-{rate}", "kind": "openai", "model": model, "url": f"{url}/v1"}
            | {"requests_per_minute": 60 * rate}
            for rate, model in PACED_MODELS.items()
        ),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def user(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[User]:
    context = processes(tmp_path_factory.mktemp("processes"), deployments=deployments)
    async with in_one_task(user_of(context)) as made:
        yield made


def questions() -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in GSM8K.read_bytes().splitlines()]


def answer(prompt: object, model: str = CHAT_MODEL, **parameters: Any) -> str:
    """What the simulated model answers."""
    most = parameters.pop("max_tokens", None)
    return completion(0, model, prompt, max_tokens=most, sampling=parameters).text


def said(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def without_ids_and_times(results: Results) -> list[dict[str, Any]]:
    """Output rows as two runs of one file have them in common."""
    lines = []
    for line in results.output:
        body = {k: v for k, v in line["response"]["body"].items() if k not in ("id", "created")}
        response = {"status_code": line["response"]["status_code"], "body": body}
        lines.append({"custom_id": line["custom_id"], "error": line["error"], "response": response})
    return lines


# First, as it reads all that storage holds.
async def test_what_the_runbook_deletes_of_a_person_is_gone(user: User) -> None:
    name, canary = "of [one]/person?.v2.jsonl", "kestrel-4711"
    rows = [{"prompt": f"{canary} is my name"}, {"prompt": canary, "temperature": canary}]
    status, results = await user.run(name, jsonl(rows), {"model": CHAT_MODEL})
    assert (len(results.output), len(results.errors)) == (1, 1)
    assert await holding(user, canary) != []

    chapter = section((PROJECT / "docs/runbook.md").read_text("utf-8"), "Delete a person's data")
    (block,) = re.findall(r"```sh\n(.*?)```", chapter, re.DOTALL)
    for what, value in {"ID": status.job, "INPUT": status.input, "RESULTS": status.results}.items():
        block, times = re.subn(rf"(?m)^{what}=.*$", f"{what}={shlex.quote(str(value))}", block)
        assert times == 1
    assert [each for call in az_calls(block) async for each in performed(user, call)] == []
    assert await holding(user, canary) == []


async def holding(user: User, canary: str) -> list[str]:
    """Where a text stands in storage."""
    return [
        f"{container}/{blob.name}"
        for container in CONTAINERS
        async for blob in user.storage.get_container_client(container).list_blobs()
        if canary.encode() in await read(user, container, blob.name)
    ]


async def read(user: User, container: str, name: str) -> bytes:
    return await (await user.storage.get_blob_client(container, name).download_blob()).readall()


def az_calls(block: str) -> list[argparse.Namespace]:
    """What a script would have azure-cli do, told by a stand-in for it."""
    stand_in = "az() { printf '%s\\0' \"$@\" ''; }"
    ran = subprocess.run(
        ["bash", "-euc", f"{stand_in}\n{block}"],
        capture_output=True,
        check=True,
        env={"STORAGE": "of-azurite"},
    )
    calls = [each.split("\0") for each in ran.stdout.decode().removesuffix("\0\0").split("\0\0")]
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("command", nargs="+")
    for flags in ("--container-name -c", "--name -n", "--source -s", "--pattern", "--prefix"):
        parser.add_argument(*flags.split())
    for told in ("--account-name", "--auth-mode", "--query", "-o"):
        parser.add_argument(told)
    return [parser.parse_args(call) for call in calls]


async def performed(user: User, call: argparse.Namespace) -> AsyncIterator[str]:
    """Do on Azurite what a call of `az storage blob` does; gives what it prints."""
    container = user.storage.get_container_client(call.container_name or call.source)
    if call.command[-1] == "delete":
        await container.delete_blob(call.name)
    elif call.command[-1] == "delete-batch":
        async for blob in container.list_blobs():
            if fnmatch.fnmatch(blob.name, call.pattern):
                await container.delete_blob(blob.name)
    else:
        assert call.command[-1] == "list"
        async for blob in container.list_blobs(name_starts_with=call.prefix):
            yield str(blob.name)


@pytest.mark.parametrize("rows", [FEWER, pytest.param(ROWS, marks=pytest.mark.long)])
async def test_gsm8k_gives_the_same_results_with_one_and_with_three_workers(
    user: User, rows: int
) -> None:
    data, asked = b"".join(GSM8K.read_bytes().splitlines(keepends=True)[:rows]), questions()[:rows]
    before = user.processes.billed()
    status, alone = await user.run(f"alone/gsm8k-{rows}.jsonl", data, OPTIONS)
    assert status.state == "completed"
    async with user.processes.more_workers(1) as second, user.processes.more_workers(1) as third:
        status, together = await user.run(f"together/gsm8k-{rows}.jsonl", data, OPTIONS)
    # How many a worker gets is the machine's affair: whoever is free first has the next.
    for log in (second, third):
        assert any("Executed 'Functions.shards' (Succ" in line for line in log)
    assert status.state == "completed"

    for results in (alone, together):
        results.check(rows)
        assert results.errors == []
        assert [line["custom_id"] for line in results.output] == [
            str(number) for number in range(1, rows + 1)
        ]
    assert without_ids_and_times(alone) == without_ids_and_times(together)
    assert list(alone.answers().values()) == [
        answer(said(row["question"]), max_tokens=32) for row in asked
    ]
    billed = user.processes.billed()
    keys = [row_key(row["question"]) for row in asked]
    assert [billed[key] - before.get(key, 0) for key in keys] == [2] * rows


async def test_an_errors_file_dropped_again_reruns_just_what_failed(user: User) -> None:
    lines = GSM8K.read_bytes().splitlines()[:FEWER]
    filtered, failing = (orjson.loads(lines[at])["question"] for at in (250, 350))
    lines[3] = b'{"question": "cut off'
    lines[200] = b'{"query": "another field than the template has"}'
    user.processes.endpoint.set_faults(
        Rule(fault="content_filter_400", when=When(contains=filtered)),
        Rule(fault="http_500", when=When(contains=failing)),
    )
    status, first = await user.run("failing/gsm8k.jsonl", b"\n".join(lines), OPTIONS)
    user.processes.endpoint.set_faults()
    assert status.state == "completed"
    first.check(FEWER)
    assert first.codes() | {351: "any"} == {
        4: "invalid_json",
        201: "template_field",
        251: "content_filter",
        351: "any",
    }
    assert (first.manifest.counts.invalid, first.manifest.counts.failed) == (2, 2)

    before = user.processes.endpoint.stats()["admitted"]
    status, again = await user.run("again/errors.jsonl", first.errors_raw, OPTIONS)
    assert user.processes.endpoint.stats()["admitted"] - before == 2
    again.check(4)
    assert again.answers() == {
        "251": answer(said(filtered), max_tokens=32),
        "351": answer(said(failing), max_tokens=32),
    }
    assert list(again.codes().values()) == ["invalid_json", "template_field"]

    mended = [json.loads(line) for line in again.errors_raw.splitlines()]
    mended[0]["raw"] = '{"question": "cut off, and mended"}'
    mended[1]["raw"] = '{"question": "with the field of the template"}'
    status, last = await user.run("mended/errors.jsonl", jsonl(mended), OPTIONS)
    last.check(2)
    assert list(last.answers().values()) == [
        answer(said("cut off, and mended"), max_tokens=32),
        answer(said("with the field of the template"), max_tokens=32),
    ]


def expected_of_every_dialect(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The right answers to samples/every-dialect.jsonl, by custom_id."""
    by_id = {row.get("custom_id") or row.get("prompt_id") or row.get("id"): row for row in rows}
    images = by_id["image-embedding"]["body"]["input"]

    def vectors(*texts: str) -> list[list[float]]:
        return [embedding(0, EMBED_MODEL, text) for text in texts]

    def body(name: str) -> Mapping[str, Any]:
        given: Mapping[str, Any] = by_id[name].get("body", by_id[name])
        return given

    return {
        "batch-chat": answer(body("batch-chat")["messages"], max_tokens=60),
        "azure-batch-chat": answer(body("azure-batch-chat")["messages"], temperature=0),
        "multi-turn": answer(body("multi-turn")["messages"], max_tokens=40),
        "content-parts": answer(body("content-parts")["messages"]),
        "ultrachat-1": answer(said("Write a haiku about a lighthouse.")),
        "prompt-1": answer(said("Translate into French: good morning"), max_tokens=20),
        "completion": answer("Once upon a time", max_tokens=30),
        "azure-completion": answer("The capital of France is", max_tokens=5),
        "embedding": vectors("A sentence to be found again."),
        "azure-embeddings": vectors("first", "second", "third"),
        "input-1": vectors("One text to embed."),
        "input-2": vectors("Two texts", "to embed"),
        "image-embedding": vectors(
            *(image_content(image["image"], image.get("text")) for image in images)
        ),
        "scoring": answer(said("What is 12 times 12?"), max_tokens=30, temperature=0.1),
        "15": answer(said("This row has no id: its line number is its custom_id.")),
        "asked-again": answer(said("Asked a second time.")),
    }


async def test_a_file_of_every_dialect_comes_back_complete(user: User) -> None:
    rows = [orjson.loads(line) for line in EVERY_DIALECT.read_bytes().splitlines()]
    through = {"score": SCORING_MODEL, "azure": AZURE_MODEL, "openai": OPENAI_MODEL}
    asked = [
        {"custom_id": name, "model": model, "messages": said(f"Through {name}?"), "max_tokens": 9}
        for name, model in through.items()
    ]
    # Each row of the sample goes where its task is done, the three added ones where they say.
    model = {"model": CHAT_MODEL}
    named = [
        row
        if "input" in row or "embedding" in str(row.get("url"))
        else row | {"body": model | row["body"]}
        if "body" in row
        else row | {"request": row["request"] | {"body": model | row["request"]["body"]}}
        if "request" in row
        else model | row
        for row in rows
    ]
    status, results = await user.run("every-dialect.jsonl", jsonl(named + asked), {})
    assert status.state == "completed"
    results.check(len(rows) + len(asked))
    assert results.errors == []
    assert results.answers() == expected_of_every_dialect(rows) | {
        name: answer(said(f"Through {name}?"), model, max_tokens=9)
        for name, model in through.items()
    }
    assert {*results.manifest.use} == {"chat", "embed", *through}


@pytest.mark.parametrize("rate", [50, pytest.param(100, marks=pytest.mark.long)])
async def test_a_small_job_is_done_long_before_a_big_one_dropped_with_it(
    user: User, rate: int
) -> None:
    rows = rate * PACED_SECONDS
    options = {"model": PACED_MODELS[rate], "max_tokens": 8}
    await user.drop(f"big-{rate}.jsonl", jsonl(chats(rows, "big")), options)
    await user.drop(f"small-{rate}.jsonl", jsonl(chats(20, "small")), options)
    small = (await user.job(f"prompts/small-{rate}.jsonl")).status
    of_big = [told for told in user.told if told.status.input == f"prompts/big-{rate}.jsonl"]
    unfinished = of_big[-1]
    big = (await user.job(f"prompts/big-{rate}.jsonl", seconds=180)).status

    assert (small.state, big.state) == ("completed", "completed")
    (await user.results(small)).check(20)
    (await user.results(big)).check(rows)
    assert seconds(small) < seconds(big) / 3
    counts = unfinished.status.counts
    assert counts is not None
    assert counts.done < rows / 2


def seconds(status: Any) -> float:
    """From a job's creation to its end."""
    created, ended = (datetime.fromisoformat(each) for each in (status.created, status.ended))
    return (ended - created).total_seconds()
