"""Every bad input gets a row in errors.jsonl or a job that fails for one clear reason.

And nothing else is harmed: rows beside it are answered, jobs beside it complete.
"""

import base64
import json
from typing import Any

import pytest

from tests.doubles import MemoryBlobs
from tests.doubles.bus import Delivery
from tests.doubles.service import MODEL, Bench, Ended, bench
from workers.jobs.outbox import SHARDS
from workers.ports import BlobRef

GOOD = b'{"prompt": "a good one"}'
PROMPTS = "prompts"


def chat(number: int, **more: Any) -> bytes:
    return json.dumps({"custom_id": f"c{number}", "prompt": f"prompt {number}", **more}).encode()


async def run(data: bytes, options: object = None, **settings: Any) -> Ended:
    async with bench(**settings) as service:
        return await service.run(data, options=options)


DEEP = b'{"messages": ' + b"[" * 900 + b"]" * 900 + b"}"
BAD_ROWS: list[tuple[str, bytes, str, str]] = [
    ("invalid JSON", b'{"prompt": "p"', "invalid_json", "not JSON"),
    ("not an object", b'["prompt"]', "invalid_row", "JSON object"),
    ("two objects on a line", GOOD + b" " + GOOD, "invalid_json", "not JSON"),
    ("invalid UTF-8", b'{"prompt": "\xc3\x28"}', "invalid_json", "save the file as UTF-8"),
    ("NaN", b'{"prompt": "p", "temperature": NaN}', "invalid_json", "not JSON"),
    ("infinity", b'{"prompt": "p", "temperature": -Infinity}', "invalid_json", "not JSON"),
    ("deep nesting", DEEP, "invalid_json", "nested deeper"),
    ("deeper than a parser goes", b"[" * 100_000, "invalid_json", "not JSON"),
    ("a missing field", b'{"url": "/v1/chat/completions"}', "invalid_row", "body"),
    ("an ill-typed field", b'{"prompt": "p", "max_tokens": "many"}', "invalid_row", "max_tokens"),
    ("an empty conversation", b'{"messages": []}', "invalid_row", "messages"),
    ("an unknown url", b'{"url": "/v1/audio", "body": {}}', "unknown_url", "/v1/embeddings"),
    ("an absolute url", b'{"url": "http://e/v1/embeddings", "body": {}}', "unknown_url", "known"),
    ("an unknown model", b'{"prompt": "p", "model": "gpt-7"}', "unknown_model", MODEL),
    ("a row of no dialect", b'{"question": "q"}', "unknown_row", "template"),
    ("an empty custom_id", b'{"custom_id": "", "prompt": "p"}', "invalid_row", "custom_id"),
    ("a control character", b'{"prompt": "\x00"}', "invalid_json", "not JSON"),
    ("half a surrogate pair", b'{"prompt": "\\ud83d"}', "invalid_json", "not JSON"),
    ("an error row without a request", b'{"error": {}, "raw": null}', "invalid_row", "request"),
]


@pytest.mark.parametrize(
    ("line", "code", "words"), [bad[1:] for bad in BAD_ROWS], ids=[bad[0] for bad in BAD_ROWS]
)
async def test_a_bad_row_gets_its_error_and_harms_no_other(
    line: bytes, code: str, words: str
) -> None:
    ended = await run(b"\n".join([chat(1), line, chat(3)]))
    assert ended.state == "completed"
    assert [row["custom_id"] for row in ended.output] == ["c1", "c3"]
    assert ended.lines() == [1, 2, 3]
    error = ended.error(2)
    assert error["error"]["code"] == code
    assert error["error"]["message"].startswith("line 2: ")
    assert words in error["error"]["message"]


async def test_all_bad_rows_in_one_file() -> None:
    lines = [part for bad in BAD_ROWS for part in (bad[1], GOOD)]
    ended = await run(b"\r\n".join(lines))
    assert ended.counts["succeeded"] == ended.counts["invalid"] == len(BAD_ROWS)
    assert [ended.code(2 * at + 1) for at in range(len(BAD_ROWS))] == [bad[2] for bad in BAD_ROWS]


@pytest.mark.parametrize("extra", [1, 70_000, 9_000_000])
async def test_a_line_over_the_limit(extra: int) -> None:
    long = b'{"prompt": "' + b"x" * (4096 + extra) + b'"}'
    ended = await run(b"\n".join([chat(1), long, chat(3)]), max_line_bytes=4096)
    assert ended.code(2) == "line_too_long"
    error = ended.error(2)
    assert "MAX_LINE_BYTES" in error["error"]["message"]
    assert (error["offset"], error["length"]) == (len(chat(1)) + 1, len(long))
    assert "raw" not in error
    assert len(ended.output) == 2


async def test_blanks_do_not_hide_a_line_over_the_limit() -> None:
    """Where the beginning is all that is read, everybody has to see the same row."""
    long = b" " * 9_000_000 + GOOD
    ended = await run(b"\n".join([chat(1), long, chat(3), b" " * 9_000_000]), max_line_bytes=4096)
    assert (ended.code(2), ended.code(4)) == ("line_too_long", "line_too_long")
    assert len(ended.output) == 2


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"id,prompt\n" + b"1,a\n" * 300_000, "this is a CSV"),
        (b'[{"prompt": "p"},\n{"prompt": "q"}]', "this is one JSON array"),
        ((GOOD + b"\n").decode().encode("utf-16"), "this is UTF-16"),
    ],
    ids=["CSV", "array", "UTF-16"],
)
async def test_a_file_that_is_no_json_lines_fails_as_a_whole(data: bytes, word: str) -> None:
    ended = await run(data)
    assert (ended.state, ended.reason["code"]) == ("failed", "not_jsonl")
    assert ended.reason["message"].startswith(word)
    assert ended.counts["total"] == 0


async def test_a_file_over_the_limit() -> None:
    ended = await run(GOOD * 100, max_file_bytes=1000)
    assert (ended.state, ended.reason["code"]) == ("failed", "file_too_large")
    assert "MAX_FILE_BYTES" in ended.reason["message"]
    assert ended.counts["total"] == 0


async def test_duplicate_custom_ids_answer_the_first() -> None:
    ended = await run(b"\n".join([chat(1), chat(2), chat(1), chat(4), chat(1)]))
    assert [row["custom_id"] for row in ended.output] == ["c1", "c2", "c4"]
    assert [ended.code(line) for line in (3, 5)] == ["duplicate_custom_id"] * 2
    assert [ended.error(line)["custom_id"] for line in (3, 5)] == ["c1", "c1"]


async def test_a_rerun_of_duplicates_answers_all_of_them() -> None:
    async with bench() as service:
        first = await service.run(b"\n".join([chat(1), chat(1), chat(2), chat(1)]))
        again = await service.run(first.errors_file, "again.jsonl")
    assert not again.errors
    assert [row["custom_id"] for row in again.output] == ["c1#2", "c1#4"]


async def test_duplicates_can_be_numbered() -> None:
    data = b"\n".join([chat(1), chat(1), chat(2), chat(1)])
    ended = await run(data, {"on_duplicate": "number", "on_invalid": "fail"})
    assert (ended.state, ended.errors) == ("completed", [])
    assert [row["custom_id"] for row in ended.output] == ["c1", "c1#2", "c2", "c1#4"]
    assert [row["line"] for row in ended.output] == [1, 2, 3, 4]


async def test_a_numbered_id_never_takes_a_custom_id_that_is_given() -> None:
    ids = ["7", "7", "8", "7#2", "7"]
    data = b"\n".join(b'{"custom_id": "%s", "prompt": "p"}' % each.encode() for each in ids)
    ended = await run(data, {"on_duplicate": "number"})
    assert not ended.errors
    own = f"{ended.output[0]['id'].removesuffix('-1')}-2"
    assert [row["custom_id"] for row in ended.output] == ["7", own, "8", "7#2", "7#5"]


async def test_a_rerun_of_a_duplicate_never_takes_a_custom_id_that_is_given() -> None:
    ids = ["a", "a", "a#2"]
    data = b"\n".join(b'{"custom_id": "%s", "prompt": "p"}' % each.encode() for each in ids)
    async with bench() as service:
        first = await service.run(data)
        again = await service.run(first.errors_file, "again.jsonl")
    assert [row["custom_id"] for row in first.output] == ["a", "a#2"]
    assert [row["custom_id"] for row in again.output] == [f"{first.folder.split('/')[-1]}-2"]


@pytest.mark.parametrize("on_invalid", ["skip", "fail"])
async def test_a_lines_number_never_takes_a_custom_id_that_is_given(on_invalid: str) -> None:
    unnamed = b'{"prompt": "p"}'
    named = b'{"custom_id": "1", "prompt": "q"}'
    ended = await run(b"\n".join([unnamed, named, unnamed]), {"on_invalid": on_invalid})
    assert not ended.errors
    ids = [row["custom_id"] for row in ended.output]
    assert ids == [ended.output[0]["id"], "1", "3"]


async def test_duplicates_are_found_across_shards() -> None:
    ids = [number % 130 if number % 3 else 1000 + number for number in range(400)]
    ended = await run(b"\n".join(chat(number) for number in ids))
    twice = [line for line, number in enumerate(ids, 1) if number in ids[: line - 1]]
    assert len(twice) > 100
    assert len(ended.manifest["errors"]["parts"]) > 1
    assert [row["line"] for row in ended.errors] == twice
    assert {row["error"]["code"] for row in ended.errors} == {"duplicate_custom_id"}


async def test_a_row_that_lacks_a_field_of_the_template() -> None:
    template = {"messages": [{"role": "user", "content": "{question}"}]}
    data = b'{"question": "q"}\n{"answer": "a"}\n{"question": "r"}'
    ended = await run(data, {"template": template})
    assert ended.code(2) == "template_field"
    assert "'question'" in ended.error(2)["error"]["message"]
    assert len(ended.output) == 2


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD + b"\n", [1, 2]),
        (GOOD + b"\r\n" + GOOD + b"\r\n", [1, 2]),
        (b"\n\n" + GOOD + b"\n \t\r\n\n" + GOOD + b"\n\n\n", [3, 6]),
        (GOOD + b"\n" + GOOD, [1, 2]),
        (b"\xef\xbb\xbf\r\n" + GOOD, [2]),
    ],
    ids=["BOM", "CRLF", "blank lines", "no final newline", "BOM alone on its line"],
)
async def test_odd_files_are_read(data: bytes, lines: list[int]) -> None:
    ended = await run(data)
    assert ended.state == "completed"
    assert ended.lines() == lines
    assert not ended.errors


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n \t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\n"])
async def test_an_empty_file(data: bytes) -> None:
    ended = await run(data)
    assert (ended.state, ended.reason["code"]) == ("failed", "empty_file")
    assert ended.counts["total"] == 0


async def test_a_file_of_only_bad_rows_completes_with_an_error_for_each() -> None:
    ended = await run(b"{}\n" * 700)
    assert ended.state == "completed"
    assert ended.counts["invalid"] == ended.counts["total"] == 700
    assert not ended.output


async def test_a_file_that_is_no_text_at_all() -> None:
    ended = await run(GOOD + b"\n" + bytes(range(256)) * 40)
    assert ended.counts["total"] == ended.counts["invalid"] + 1 > 30
    ended = await run(bytes(range(256)) * 40)
    assert (ended.state, ended.reason["code"]) == ("failed", "not_jsonl")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"{", "line 2 is wrong: invalid_json"),
        (chat(1), "line 2: its custom_id stood earlier"),
        (chat(2, model="gpt-7"), "no deployment serves the model 'gpt-7'"),
    ],
)
async def test_on_invalid_fail_asks_nothing(bad: bytes, words: str) -> None:
    async with bench() as service:
        data = b"\n".join([chat(1), bad])
        ended = await service.run(data, options={"on_invalid": "fail"})
        assert not service.endpoint.asked
    assert (ended.state, ended.reason["code"]) == ("failed", "invalid_rows")
    assert words in ended.reason["message"]
    assert ended.counts["total"] == 2
    assert ended.error(1)["request"]["custom_id"] == "c1"


# -- options


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("%%%", "base64url"),
        ("é", "base64url"),
        ("e30", None),
        (base64.urlsafe_b64encode(b"nonsense").decode(), "not JSON"),
        (base64.urlsafe_b64encode(b"\xff\xfe").decode(), "not JSON"),
        (base64.urlsafe_b64encode(b"[1]").decode(), "JSON object"),
        (base64.urlsafe_b64encode(b'{"max_tokns": 5}').decode(), "'max_tokens'"),
        (base64.urlsafe_b64encode(b'{"template": {"prompt": "{"}}').decode(), "template.prompt"),
        (
            base64.urlsafe_b64encode(b'{"template":' + b"[" * 900 + b"]" * 900 + b"}").decode(),
            "deep",
        ),
    ],
)
async def test_options_in_metadata(metadata: str, words: str | None) -> None:
    async with bench() as service:
        ended = await service.run(GOOD, metadata={"Options": metadata})
        if words is None:
            assert ended.state == "completed"
            return
        assert (ended.state, ended.reason["code"]) == ("failed", "invalid_options")
        assert words in ended.reason["message"]
        other = await service.run(GOOD, "other.jsonl")
        assert other.state == "completed"


@pytest.mark.parametrize(
    ("beside", "code"),
    [
        (b'{"max_tokens": 5}', None),
        (b'\xef\xbb\xbf{"max_tokens": 5}', None),
        (b"{", "invalid_options"),
        (b"", "invalid_options"),
        (b'{"max_tokens": 5}' + b" " * 70_000, "invalid_options"),
    ],
)
async def test_options_beside_the_file(beside: bytes, code: str | None) -> None:
    async with bench() as service:
        await service.drop(beside, "in.options.json")
        await service.announce("in.options.json")
        ended = await service.run(GOOD)
        assert ended.reason.get("code") == code
        if code is None:
            assert service.endpoint.asked[0][1]["max_tokens"] == 5
        assert not [event for event in service.events if event["type"] == "job.rejected"]


# -- files that change


async def test_a_file_overwritten_before_it_is_planned_is_the_new_files_job() -> None:
    async with bench() as service:
        old = await service.drop(chat(1))
        await service.drop(chat(2))
        await service.doors.dropped(PROMPTS, "in.jsonl", etag=old, repeated=False)
        await service.settle()
        assert not service.events
        await service.announce()
        await service.settle()
        ended = await service.ended()
        assert [row["custom_id"] for row in ended.output] == ["c2"]


async def test_a_file_deleted_before_it_is_planned_is_no_job() -> None:
    async with bench() as service:
        await service.drop(GOOD)
        await service.blobs.delete(BlobRef(PROMPTS, "in.jsonl"))
        await service.announce()
        await service.settle()
        assert not service.events


class ChangedWhilePlanned(MemoryBlobs):
    """The file is another one as soon as its job is pinned."""

    async def create(self, ref: BlobRef, data: Any, **how: Any) -> str:
        etag = await super().create(ref, data, **how)
        if ref.name.endswith("job.json"):
            changed = BlobRef(PROMPTS, "in.jsonl")
            await self.delete(changed)
            await super().create(changed, GOOD)
        return etag


async def test_a_file_overwritten_while_it_is_planned_fails_its_job() -> None:
    async with bench(blobs=ChangedWhilePlanned(lambda: 0.0)) as service:
        ended = await service.run(chat(1))
    assert (ended.state, ended.reason["code"]) == ("failed", "input_changed")
    assert ended.counts["total"] == 0


@pytest.mark.parametrize("how", ["overwritten", "deleted"])
@pytest.mark.parametrize("gap", [b"", b"\n\n"])
async def test_a_file_that_is_gone_between_two_shards(how: str, gap: bytes) -> None:
    data = b"\n".join(chat(number) for number in range(1, 121)) + b"\n" + gap + chat(200)
    shards = 0

    def second_shard(delivery: Delivery) -> bool:
        nonlocal shards
        shards += delivery.queue == SHARDS
        return shards == 2

    async with bench() as service:
        await service.drop(data)
        await service.announce()
        await service.settle(second_shard)
        await service.blobs.delete(BlobRef(PROMPTS, "in.jsonl"))
        if how == "overwritten":
            await service.drop(GOOD)
        await service.settle()
        ended = await service.ended()
        other = await service.run(GOOD, "other.jsonl")
    assert (ended.state, ended.reason["code"]) == ("failed", "input_changed")
    assert ended.counts["total"] == 121
    assert 0 < ended.counts["succeeded"] < 121
    # Nothing was asked in vain.
    assert ended.counts["invalid"] == 121 - ended.counts["succeeded"]
    assert {row["error"]["code"] for row in ended.errors} == {"input_changed"}
    assert all(row["request"] is None for row in ended.errors)
    assert len({row["id"] for row in ended.errors}) == len(ended.errors)
    if not gap:
        done = ended.counts["succeeded"]
        assert [row["line"] for row in ended.errors] == list(range(done + 1, 122))
    assert other.state == "completed"


# -- messages


MESSAGES: list[tuple[str, bytes | object, str]] = [
    ("nothing", b"", "invalid_message"),
    ("not JSON", b"run it please", "invalid_message"),
    ("not UTF-8", b"\xff\xfe", "invalid_message"),
    ("not an object", ["prompts", "in.jsonl"], "invalid_message"),
    ("no file", {"container": PROMPTS}, "invalid_message"),
    ("an unknown field", {"container": PROMPTS, "name": "in.jsonl", "x": 1}, "invalid_message"),
    ("an unknown type", {"type": "x" * 100_000}, "invalid_message"),
    ("a type that is none", {"type": ["request"]}, "invalid_message"),
    ("deep nesting", b'{"options": ' + b"[" * 900 + b"]" * 900 + b"}", "invalid_message"),
    ("a name beyond measure", {"container": PROMPTS, "name": "x" * 200_000}, "invalid_message"),
    ("a file that is not there", {"container": PROMPTS, "name": "no.jsonl"}, "file_not_found"),
    ("the results", {"container": "results", "name": "in.jsonl"}, "wrong_container"),
    ("the service's own state", {"container": "state", "name": "in.jsonl"}, "wrong_container"),
    ("another container", {"container": "secrets", "name": "in.jsonl"}, "wrong_container"),
    ("an empty name", {"container": PROMPTS, "name": ""}, "invalid_name"),
    (
        "another ETag",
        {"container": PROMPTS, "name": "in.jsonl", "etag": "0xDEAD"},
        "file_changed",
    ),
    (
        "unknown options",
        {"container": PROMPTS, "name": "in.jsonl", "options": {"max_tokns": 3}},
        "invalid_options",
    ),
    (
        "an event without a url",
        {"type": "Microsoft.Storage.BlobCreated", "data": {"api": "PutBlob"}},
        "invalid_message",
    ),
    (
        "an event whose url is none",
        {
            "eventType": "Microsoft.Storage.BlobCreated",
            "data": {"api": "PutBlob", "url": "http://["},
        },
        "invalid_message",
    ),
    (
        "an event of another container",
        {
            "eventType": "Microsoft.Storage.BlobCreated",
            "data": {"api": "PutBlob", "url": "https://a.blob.core.windows.net/other/in.jsonl"},
        },
        "wrong_container",
    ),
]


@pytest.mark.parametrize(
    ("message", "code"), [bad[1:] for bad in MESSAGES], ids=[bad[0] for bad in MESSAGES]
)
async def test_a_message_that_yields_no_job_is_rejected_for_one_reason(
    message: bytes | object, code: str
) -> None:
    async with bench() as service:
        await service.drop(GOOD)
        await service.say(message, team="blue")
        await service.settle()
        (event,) = service.events
        assert event["type"] == "job.rejected"
        assert event["data"]["reason"]["code"] == code
        if code != "wrong_container":  # which an event's may be, and nobody asked for those
            assert event["data"]["metadata"] == {"team": "blue"}
        assert await markers(service) == []
        assert (await service.run(GOOD)).state == "completed"


async def test_a_message_of_a_newer_version_is_kept_and_told() -> None:
    async with bench() as service:
        body = {"schema_version": 99, "type": "request", "container": PROMPTS, "name": "in.jsonl"}
        await service.say(body)
        await service.settle()
        (event,) = service.events
        assert (event["type"], event["data"]["reason"]["code"]) == ("job.refused", "newer_version")
        (kept,) = [info async for info in service.blobs.list("state", "refused/")]
        assert json.loads((await service.blobs.read(kept.ref)).data) == body


@pytest.mark.parametrize("name", ["notes.txt", "in.json", "in.jsonl.gz", "jsonl", "x" * 900])
async def test_a_dropped_file_that_is_no_jsonl_is_rejected(name: str) -> None:
    async with bench() as service:
        await service.drop(GOOD, name)
        await service.announce(name)
        (event,) = service.events
        assert (event["type"], event["data"]["reason"]["code"]) == ("job.rejected", "not_jsonl")
        (message,) = service.bus.published["job-status"]  # type: ignore[attr-defined]
        assert len(message.message_id) <= 128


async def test_properties_of_a_message_are_bounded_before_they_travel_on() -> None:
    async with bench() as service:
        await service.drop(GOOD)
        properties = {f"p{n}": "x" * 3000 for n in range(30)} | {"y" * 999: "z", "tries": "²"}
        await service.say({"container": PROMPTS, "name": "in.jsonl"}, **properties)
        await service.settle()
        ended = await service.ended()
        metadata = ended.event["data"]["metadata"]
        assert len(metadata) == 16
        assert {len(value) for value in metadata.values()} == {512}


async def test_nothing_in_the_nightly_container_keeps_others_from_running() -> None:
    async with bench() as service:
        for name in ("a\nb.jsonl", "../c.jsonl", "d.txt", "e.jsonl"):
            await service.drop(GOOD, name, container="nightly")
        assert await service.service.nightly.run() == 3
        await service.settle()
        told = [(event["type"], event["data"].get("input")) for event in service.events]
        for name in ("a\nb.jsonl", "../c.jsonl"):
            assert told.count(("job.rejected", f"nightly/{name}")) == 1
        assert ("job.completed", "nightly/e.jsonl") in told


# -- again


async def test_errors_dropped_again_rerun_just_those_rows() -> None:
    bad = {3: b"{", 5: b'{"prompt": "p", "model": "gpt-7"}', 8: b'{"question": "q", "id": "q8"}'}
    data = b"\n".join(bad.get(number) or chat(number) for number in range(1, 11))
    async with bench() as service:
        first = await service.run(data)
        assert first.counts["succeeded"] == 7
        asked = len(service.endpoint.asked)
        again = await service.run(first.errors_file, "errors.jsonl")
        assert again.counts["total"] == again.counts["invalid"] == 3
        assert [row["error"]["code"] for row in again.errors] == [
            row["error"]["code"] for row in first.errors
        ]
        assert len(service.endpoint.asked) == asked

        # Mended: the model exists by now, and a template makes a request of the third.
        mended = first.errors_file.replace(b"gpt-7", MODEL.encode())
        template = {"messages": [{"role": "user", "content": "{question}"}]}
        third = await service.run(mended, "mended.jsonl", options={"template": template})
        assert (third.counts["succeeded"], third.counts["invalid"]) == (2, 1)
        assert [row["custom_id"] for row in third.output] == ["5", "q8"]
        assert service.endpoint.prompts[-2:] == ["p", "q"]


async def markers(service: Bench) -> list[str]:
    return [job async for job, _ in service.store.open_jobs()]
