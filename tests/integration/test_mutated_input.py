"""Ten thousand mutated files, rows, messages and options: no crash, no hang, a clear error each.

Every good row is answered all the same. Seeded, so that a failure comes again; `SEED` and the
numbers are what to turn for more.
"""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import JsonValue

from local.azurite import Azurite
from schemas.jobs import JobOptions, parse_options
from tests.doubles.service import MODEL, Bench, Ended, bench
from workers.adapters.blobs import connect_blobs
from workers.ports import BlobRef
from workers.rows.lines import lines_of
from workers.rows.reading import Refusal, Request, RowRules, read_row

SEED = 20_240_613
FILES, ROWS, MESSAGES, OPTIONS = 800, 6_500, 2_000, 1_500
AT_ONCE = 8
FILES_THROUGH_AZURITE, MESSAGES_THROUGH_AZURITE = 64, 136
FEW_FILES, FEW_MESSAGES = 16, 32
HANG = 30.0

SAMPLES = Path(__file__).parent.parent.parent / "samples"
TEMPLATE: dict[str, JsonValue] = {"messages": [{"role": "user", "content": "{question}"}]}
MIXED = {"template": TEMPLATE, "template_for": "other_rows"}
GOOD = [f'{{"custom_id": "good-{n}", "prompt": "good prompt {n}"}}'.encode() for n in range(4)]

# Bytes that mean something to a parser of lines, of JSON, of text.
SPICE = [b"\n", b"\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}", b"[", b"]"]
SPICE += [b",", b":", b"\\u0000", b"\\ud800", b"NaN", b"1e999", b"-", b"null", b"true", b" " * 5000]
SPICE += [b"[" * 300, b'{"a":' * 300, b"9" * 400, "é\u2028".encode(), b"{question}", b"{{"]
SPICE += [b'"error":{},', b'"raw":"{",', b'"custom_id":"",', b'"url":"/v1/chat/completions",']
VALUES: list[Any] = [None, True, False, 0, -1, 1.5, 2**63, "", "x", [], {}, [[]], {"a": None}]
VALUES += ["\x00", "x" * 600, "../..", "http://e/", [None], [{}], {"role": "user"}, float(10**30)]


def mutated(data: bytes, rng: Random) -> bytes:
    """A few small accidents: bytes flipped, cut out, doubled, moved, or spice let in."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(made) + 1)
        end = min(len(made), at + rng.choice((1, 2, 10, 200)))
        match rng.randrange(6):
            case 0 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 1:
                del made[at:end]
            case 2:
                made[at:at] = made[at:end]
            case 3:
                made[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
            case 4:
                del made[at:]
            case _:
                made[at:at] = rng.choice(SPICE)
    return bytes(made)


def warped(value: Any, rng: Random) -> Any:
    """The same JSON with a field lost, doubled under another name, or of another type."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        made = dict(value)
        match rng.randrange(5):
            case 0:
                del made[name]
            case 1:
                made[name] = rng.choice(VALUES)
            case 2:
                made[rng.choice(["", "x", name.upper(), name + "s", "x" * 500])] = made[name]
            case _:
                made[name] = warped(made[name], rng)
        return made
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], warped(value[at], rng), *value[at + rng.randrange(2) :]]
    return rng.choice(VALUES)


def sample_lines() -> list[bytes]:
    lines = (SAMPLES / "every-dialect.jsonl").read_bytes().splitlines()
    lines += (SAMPLES / "gsm8k-500.jsonl").read_bytes().splitlines()[:40]
    assert len(lines) > 40
    return lines


LINES = sample_lines()


def mutated_file(rng: Random) -> tuple[bytes, list[bytes]]:
    """A mutated piece of a real file between rows that nobody touched."""
    lines = rng.sample(LINES, rng.randrange(1, 7))
    piece = mutated(rng.choice((b"\n", b"\r\n")).join(lines), rng)
    good = rng.sample(GOOD, rng.randrange(1, 4))
    # What comes before the first newline and after the last may touch no good row.
    return b"\n".join([good[0], piece, *good[1:]]), good


async def mutated_job(service: Bench, number: int, rng: Random) -> None:
    data, good = mutated_file(rng)
    options = {**MIXED, "metadata": {"n": str(number)}}
    async with asyncio.timeout(HANG):
        ended = await service.run(data, f"mutated-{number}.jsonl", options=options)
    check(ended, data, good)


def check(ended: Ended, data: bytes, good: list[bytes]) -> None:
    """One line for each row, every good row answered, every other with its error."""
    assert ended.state == "completed"
    assert ended.lines() == [line.number for line in lines_of(data, 4 << 20)]
    answered = {row["custom_id"] for row in ended.output}
    assert answered >= {json.loads(row)["custom_id"] for row in good}
    for row in ended.errors:
        assert row["error"]["code"]
        assert row["error"]["message"].startswith(f"line {row['line']}: ")
        assert (row["request"] is None) != ("raw" not in row)


async def test_mutated_files_in_memory() -> None:
    rng = Random(SEED)
    for start in range(0, FILES, 100):
        async with bench() as service:
            for number in range(start, start + 100):
                await mutated_job(service, number, rng)


@pytest.mark.parametrize(
    ("files", "messages"),
    [
        (FEW_FILES, FEW_MESSAGES),
        pytest.param(FILES_THROUGH_AZURITE, MESSAGES_THROUGH_AZURITE, marks=pytest.mark.long),
    ],
)
async def test_mutated_files_and_messages_through_azurite(
    azurite: Azurite, files: int, messages: int
) -> None:
    async with connect_blobs(azurite.connection_string, None, None) as blobs:
        state, results, prompts = (
            f"fuzz-{name}-{files}" for name in ("state", "results", "prompts")
        )
        await blobs.ensure_containers([state, results, prompts])
        await blobs.create(BlobRef(prompts, "in.jsonl"), GOOD[0])

        async def some(turn: int) -> None:
            rng = Random(SEED + 100 + turn)
            async with bench(
                blobs=blobs,
                input_containers=(prompts,),
                state_container=state,
                results_container=results,
            ) as service:
                for number in range(messages // AT_ONCE):
                    seed = rng.choice(MESSAGE_SEEDS)
                    await _mutated_message(service, seed, number, rng, prompts)
                for number in range(files // AT_ONCE):
                    data, good = mutated_file(rng)
                    async with asyncio.timeout(HANG):
                        ended = await service.run(
                            data,
                            f"mutated-{turn}-{number}.jsonl",
                            container=prompts,
                            options=MIXED,
                        )
                    check(ended, data, good)

        async with asyncio.TaskGroup() as group:
            for turn in range(AT_ONCE):
                group.create_task(some(turn))


def test_mutated_rows() -> None:
    rng = Random(SEED + 2)
    rules = RowRules.of(
        JobOptions(
            template=TEMPLATE, template_for="other_rows", system_prompt="Be brief.", max_tokens=9
        ),
        max_line_bytes=4 << 20,
        default_models={"chat": MODEL},
    )
    kinds = {Request: 0, Refusal: 0}
    for number in range(ROWS):
        line = rng.choice(LINES)
        row = (
            mutated(line, rng) if number % 2 else json.dumps(warped(json.loads(line), rng)).encode()
        )
        for at, *_, content in lines_of(row, 4 << 20):
            result = read_row(at, content, rules)
            kinds[type(result)] += 1
            if isinstance(result, Refusal):
                assert result.code
                assert result.message.startswith(f"line {at}: ")
                assert len(result.message) < 1000
    assert min(kinds.values()) > ROWS / 10


BLOB_EVENT = {
    "type": "Microsoft.Storage.BlobCreated",
    "source": "/subscriptions/s/storageAccounts/a",
    "id": "1",
    "specversion": "1.0",
    "subject": "/blobServices/default/containers/prompts/blobs/in.jsonl",
    "data": {
        "api": "PutBlob",
        "url": "https://a.blob.core.windows.net/prompts/in.jsonl",
        "eTag": "0x1",
        "contentLength": 10,
    },
}
GRID_EVENT = {"eventType": BLOB_EVENT["type"], "subject": "", "data": BLOB_EVENT["data"], "id": "2"}
REQUEST = {
    "container": "prompts",
    "name": "in.jsonl",
    "options": {"max_tokens": 5, "template": TEMPLATE, "metadata": {"a": "b"}},
}
ANNOUNCEMENT = {
    "type": "announce",
    "schema_version": 1,
    "job": "20240101T000000Z-abc",
    "door": "drop",
    "container": "prompts",
    "name": "in.jsonl",
    "etag": "0x1",
    "size": 10,
    "options": {"max_tokens": 5},
    "asked": {"message_id": "m", "metadata": {"a": "b"}},
}
STEPS = [{"type": "finish", "job": "j-1"}, {"type": "expire", "job": "j-1"}]
MESSAGE_SEEDS: list[Any] = [REQUEST, REQUEST, ANNOUNCEMENT, BLOB_EVENT, GRID_EVENT, [GRID_EVENT]]
MESSAGE_SEEDS += STEPS
SHARD = {"type": "shard", "job": "j-1", "shard": 0, "gen": 0}


async def test_mutated_messages() -> None:
    rng = Random(SEED + 3)
    for start in range(0, MESSAGES, 250):
        async with bench() as service:
            await service.drop(GOOD[0])
            for number in range(start, start + 250):
                await _mutated_message(service, rng.choice(MESSAGE_SEEDS), number, rng)
            for event in service.events:
                if event["type"] in ("job.rejected", "job.refused"):
                    assert event["data"]["reason"]["code"]
                    assert event["data"]["reason"]["message"]
            assert (await service.run(GOOD[1], "after.jsonl")).state == "completed"


async def _mutated_message(
    service: Bench, seed: Any, number: int, rng: Random, container: str = "prompts"
) -> None:
    text = json.dumps(warped(seed, rng) if number % 2 else seed)
    body = text.replace('"prompts"', f'"{container}"').encode()
    if number % 2 == 0:
        body = mutated(body, rng)
    async with asyncio.timeout(HANG):
        await service.say(body)
        await service.settle()
        shard = json.dumps(warped(SHARD, rng)).encode()
        await service.deliver("shards", shard if number % 2 else mutated(shard, rng))


def _as_metadata(options: bytes) -> str:
    return base64.urlsafe_b64encode(options).decode().rstrip("=")


def _garbled(options: bytes, rng: Random) -> str:
    return mutated(_as_metadata(options).encode(), rng).decode("latin-1")


ALL_OPTIONS = {
    "model": MODEL,
    "system_prompt": "Be brief.",
    "template": TEMPLATE,
    "completion_window": "2h",
    "on_invalid": "skip",
    "priority": "high",
    "metadata": {"team": "blue"},
    "max_tokens": 5,
    "temperature": 0.5,
    "stop": ["\n"],
    "parameters": {"top_k": 3},
}


@pytest.mark.parametrize(
    "encode",
    [lambda options, rng: _as_metadata(options), _garbled],
    ids=["warped", "garbled"],
)
async def test_mutated_options(encode: Callable[[bytes, Random], str]) -> None:
    rng = Random(SEED + 4)
    states = dict.fromkeys(("completed", "failed"), 0)
    for start in range(0, OPTIONS // 10, 50):
        async with bench() as service:
            for number in range(start, start + 50):
                options = json.dumps(warped(ALL_OPTIONS, rng)).encode()
                async with asyncio.timeout(HANG):
                    ended = await service.run(
                        GOOD[0],
                        f"options-{number}.jsonl",
                        metadata={"options": encode(options, rng)},
                    )
                states[ended.state] += 1
                if ended.state == "failed":
                    assert ended.reason["code"] == "invalid_options"
                    assert (
                        "option" in ended.reason["message"] or "template" in ended.reason["message"]
                    )
                else:
                    assert ended.counts["total"] == 1
    assert states["failed"] > 20


def test_more_mutated_options() -> None:
    rng = Random(SEED + 5)
    told = [_refusal(warped(ALL_OPTIONS, rng)) for _ in range(OPTIONS)]
    assert sum(words is not None for words in told) > OPTIONS / 4
    assert all(0 < len(words) < 2000 for words in told if words is not None)


def _refusal(options: object) -> str | None:
    try:
        RowRules.of(parse_options(options), max_line_bytes=1024)
    except ValueError as error:
        return str(error)
    return None


def test_there_are_ten_thousand() -> None:
    assert FILES + ROWS + MESSAGES + OPTIONS + 2 * OPTIONS // 10 >= 10_000
    assert FILES_THROUGH_AZURITE + MESSAGES_THROUGH_AZURITE >= 200
