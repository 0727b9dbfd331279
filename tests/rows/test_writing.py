"""A row's line: what it says, what it adds to the sums, and that no journal or spool changes it."""

import functools
import hashlib
import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.jobs import Reason
from schemas.money import PinnedPrice
from schemas.outcomes import Outcome, Usage
from schemas.results import (
    CallRecord,
    CodeCount,
    Counts,
    DeploymentUse,
    ErrorRow,
    OutputRow,
    Tokens,
    WaitReason,
)
from schemas.sketches import sketch_of
from tests.doubles import MemoryBlobs
from workers.ports import BlobRef
from workers.rows import reasons, writing
from workers.rows.reading import Refusal, Request
from workers.rows.writing import RowResult
from workers.shards.journal import (
    Journal,
    JournalLine,
    attempt_name,
    from_journal,
    journal_line,
    read_journals,
)
from workers.shards.spool import Spool

REQUEST = Request(12, "row-12", "chat", "phi", {"messages": [{"role": "user", "content": "Hé?"}]})
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Ja."}}]}
FOLDER = BlobRef("state", "jobs/j/journal/0/")


def attempt(
    kind: Any = "ok", *, tokens: int = 12, waited: float = 0.0, waited_for: WaitReason | None = None
) -> CallRecord:
    return CallRecord("phi", kind, 200, waited, waited_for, 0.25, tokens, True)


def answered(outcome: Outcome, *attempts: CallRecord) -> RowResult:
    return writing.answered("j", 3, REQUEST, outcome, attempts=attempts, use=attempts)


def test_an_answer_is_a_row_of_openai_batch_output() -> None:
    outcome = Outcome("ok", 200, ANSWER, Usage(7, 5), request_id="r-1", billed=True)
    result = answered(outcome, attempt())
    assert (result.row, result.kind, result.usage) == (3, "succeeded", Usage(7, 5))
    row = OutputRow.model_validate_json(result.text, strict=True)
    assert json.loads(result.text) == {
        "id": "j-12",
        "custom_id": "row-12",
        "line": 12,
        "response": {"status_code": 200, "request_id": "r-1", "body": ANSWER},
        "error": None,
        "attempts": [
            {
                "deployment": "phi",
                "kind": "ok",
                "status": 200,
                "waited": 0.0,
                "waited_for": None,
                "seconds": 0.25,
                "tokens": 12,
                "billed": True,
                "counted": False,
            }
        ],
    }
    assert row.model_dump(mode="json") == json.loads(result.text)


def test_a_line_tells_of_the_last_calls_and_the_sums_of_all() -> None:
    calls = [attempt("throttled", tokens=number) for number in range(1_000)]
    result = answered(Outcome("ok", 200, ANSWER, Usage(7, 5)), *calls)
    reason = Reason(code="job_expired", message="too late")
    expired = writing.not_done(
        "j", 3, 12, REQUEST, first_line=1, kind="expired", reason=reason, attempts=calls
    )
    for each in (result, expired):
        told = json.loads(each.text)["attempts"]
        assert [call["tokens"] for call in told] == list(range(968, 1_000))
        assert writing.sums_of([each]).use["phi"].calls == 1_000


@pytest.mark.parametrize(
    "kind",
    ["throttled", "transient", "timeout", "content_filter", "bad_request", "auth", "gone"],
)
def test_a_failure_says_what_to_do_and_can_be_asked_again(kind: Any) -> None:
    result = answered(Outcome(kind, None), attempt(kind))
    assert result.kind == "failed"
    row = ErrorRow.model_validate_json(result.text)
    assert row.line == 12
    assert row.error.code == kind
    assert row.error.message.startswith("line 12: ")
    assert len(row.error.message) > len("line 12: ") + 20
    assert row.response is None
    assert row.request == REQUEST.as_batch_row()
    assert "raw" not in json.loads(result.text)


def test_the_words_of_an_endpoint_come_first() -> None:
    outcome = Outcome("bad_request", 400, {"e": 1}, code="context_length", message="too long")
    row = ErrorRow.model_validate_json(answered(outcome).text)
    assert (row.error.code, row.error.message) == ("context_length", "line 12: too long")
    assert row.response is not None
    assert row.response.body == {"e": 1}


@pytest.mark.parametrize("levels", [10, 200, 5000])
def test_an_answer_that_cannot_be_written_fails_its_row_alone(levels: int) -> None:
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    result = answered(Outcome("ok", 200, {"deep": deep}, Usage(7, 5)), attempt())
    assert result.kind == ("succeeded" if levels < 250 else "failed")
    assert result.usage == Usage(7, 5)
    torn = answered(Outcome("ok", 200, {"content": "\ud800"}, Usage(7, 5)), attempt())
    row = ErrorRow.model_validate_json(torn.text)
    assert row.error.code == "unwritable_answer"
    assert row.request == REQUEST.as_batch_row()


def test_a_refusal_keeps_the_line_or_the_request() -> None:
    raw = Refusal(4, None, "invalid_json", "line 4: not JSON", raw="{")
    row = ErrorRow.model_validate_json(writing.refused("j", 0, raw).text)
    assert (row.raw, row.request, row.custom_id, row.line) == ("{", None, None, 4)
    known = Refusal(4, "x", "unknown_model", "line 4: none", request={"url": "/u"})
    result = writing.refused("j", 0, known)
    row = ErrorRow.model_validate_json(result.text)
    assert (row.raw, row.request, row.custom_id) == (None, {"url": "/u"}, "x")
    assert (result.kind, result.usage, result.use) == ("invalid", Usage(), ())


@pytest.mark.parametrize("ending", ["cancelled", "expired", "failed"])
def test_what_was_not_done_says_why(ending: Any) -> None:
    reason = reasons.default_reason(ending)
    known = writing.not_done("j", 3, 12, REQUEST, first_line=9, kind=ending, reason=reason)
    row = ErrorRow.model_validate_json(known.text)
    assert known.kind == ending
    assert (row.id, row.line, row.custom_id) == ("j-12", 12, "row-12")
    assert row.error.model_dump() == reason.model_dump()
    assert row.request == REQUEST.as_batch_row()
    unread = writing.not_done("j", 3, None, None, first_line=9, kind=ending, reason=reason)
    row = ErrorRow.model_validate_json(unread.text)
    assert (row.id, row.line, row.request) == ("j-9+3", None, None)


ATTEMPTS = st.builds(
    CallRecord,
    deployment=st.sampled_from(["phi", "other"]),
    kind=st.sampled_from(["ok", "throttled", "timeout"]),
    status=st.none() | st.integers(100, 599),
    waited=st.floats(0, 1e4),
    waited_for=st.none() | st.sampled_from(["quota", "outage"]),
    seconds=st.floats(0, 1e3),
    tokens=st.integers(0, 1 << 40),
    billed=st.booleans(),
)
TEXTS = st.dictionaries(
    st.text(max_size=5),
    st.text(max_size=9) | st.integers(-(2**63), 2**64 - 1) | st.none(),
    max_size=4,
).map(lambda fields: json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())
NO_CODES: dict[str, CodeCount] = {}
ERRORS = st.none() | st.tuples(
    st.sampled_from(["timeout", "invalid_json"]) | st.text(max_size=3),
    st.none() | st.integers(1, 1 << 40),
)


def result_of(error: tuple[str, int | None] | None, text: bytes, **fields: Any) -> RowResult:
    """A result whose line says what is wrong with it."""
    line = json.loads(text) | {
        "line": error[1] if error else 7,
        "error": {"code": error[0]} if error else None,
    }
    text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()
    return RowResult(text=text, error=error, **fields)


RESULTS = st.builds(
    result_of,
    ERRORS,
    row=st.integers(0, 30),
    kind=st.sampled_from(["succeeded", "failed", "invalid", "cancelled", "expired"]),
    usage=st.builds(Usage, st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
    text=TEXTS,
    use=st.lists(ATTEMPTS, max_size=3).map(tuple),
)


def alike(one: RowResult, other: RowResult) -> bool:
    return one._replace(text=b"") == other._replace(text=b"") and json.loads(
        one.text
    ) == json.loads(other.text)


@given(RESULTS)
@settings(max_examples=150, deadline=None)
def test_a_journal_gives_back_what_it_was_given(result: RowResult) -> None:
    line = b"".join(journal_line(result))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    parsed = msgspec.json.decode(line, type=JournalLine)
    assert alike(from_journal(result.row, parsed), result)


@given(st.lists(RESULTS, max_size=8))
@settings(max_examples=100, deadline=None)
def test_sums_add_up_however_they_are_parted(results: list[RowResult]) -> None:
    whole = writing.sums_of(results)
    parts = [writing.sums_of([result]) for result in results]
    counts, tokens, use = Counts(), Tokens(), dict[str, DeploymentUse]()
    for part in parts:
        counts, tokens = counts.plus(part.counts), tokens.plus(part.tokens)
        for name, used in part.use.items():
            use[name] = writing.add_use(use[name], used) if name in use else used
    assert whole.counts == counts
    assert whole.counts.done == len(results)
    assert whole.tokens == tokens
    assert sum(each.calls for each in whole.use.values()) == sum(len(r.use) for r in results)
    for name, used in whole.use.items():
        assert used.outcomes == use[name].outcomes
        assert used.tokens == use[name].tokens
        assert (used.latency, used.waits) == (use[name].latency, use[name].waits)
        assert used.call_seconds == pytest.approx(use[name].call_seconds, abs=1e-4)
        assert sum(used.outcomes.values()) == used.calls
    codes = functools.reduce(writing.add_codes, [part.codes for part in parts], NO_CODES)
    assert whole.codes == codes
    wrong = [result.error for result in results if result.error]
    assert sum(count.rows for count in codes.values()) == len(wrong)
    for code, count in codes.items():
        lines = [line for each, line in wrong if each == code and line is not None]
        assert count.line == min(lines, default=None)


def test_the_rarest_of_many_codes_are_counted_together() -> None:
    many = {f"c{number}": CodeCount(rows=number, line=number) for number in range(1, 40)}
    codes = functools.reduce(writing.add_codes, [{k: v} for k, v in many.items()], NO_CODES)
    assert len(codes) == writing.MOST_CODES
    assert sum(count.rows for count in codes.values()) == sum(range(1, 40))
    assert codes["c39"] == CodeCount(rows=39, line=39)
    assert codes[writing.OTHER].line == 1


def test_waits_are_summed_by_what_was_waited_for() -> None:
    waits = [
        attempt(waited=2.0, waited_for="quota"),
        attempt("throttled", waited=0.5, waited_for="throttled"),
        attempt(waited=1.0, waited_for="quota"),
        attempt(),
    ]
    result = answered(Outcome("ok", 200, ANSWER, Usage(1, 1)), *waits)
    assert writing.sums_of([result]).use["phi"] == DeploymentUse(
        calls=4,
        outcomes={"ok": 3, "throttled": 1},
        tokens=48,
        call_seconds=1.0,
        row_seconds_waited={"quota": 3.0, "throttled": 0.5},
        prompt_tokens=47,
        completion_tokens=1,
        latency=sketch_of([0.25] * 3),
        waits=sketch_of([2.0, 0.5, 1.0, 0.0]),
    )


def test_tokens_of_an_answer_count_where_it_came_from() -> None:
    tried = replace(attempt("timeout", tokens=0), deployment="other")
    probed = replace(attempt("probe", tokens=3), deployment="other")
    result = answered(Outcome("ok", 200, ANSWER, Usage(7, 5)), tried, attempt(), probed)
    use = writing.sums_of([result]).use
    assert (use["phi"].prompt_tokens, use["phi"].completion_tokens) == (7, 5)
    assert (use["other"].prompt_tokens, use["other"].completion_tokens) == (3, 0)
    assert (use["phi"].unmetered_calls, use["other"].unmetered_calls) == (0, 1)
    prices = {
        "phi": PinnedPrice(input=2, output=11, currency="USD"),
        "other": PinnedPrice(input=100, output=1000, currency="USD"),
    }
    assert writing.cost_of(result, prices) == 7 * 2 + 5 * 11 + 3 * 100
    assert writing.cost_of(result, {"phi": prices["phi"]}) == 7 * 2 + 5 * 11


def test_the_rows_of_a_packed_call_count_its_tokens_once() -> None:
    rows = [
        writing.answered(
            "j", row, REQUEST, Outcome("ok", 200, {}, Usage(6, 0)), attempts=(), use=use
        )
        for row, use in enumerate(((attempt(),), ()))
    ]
    sums = writing.sums_of(rows)
    assert sums.tokens == Tokens(prompt=12)
    assert (sums.use["phi"].prompt_tokens, sums.use["phi"].completion_tokens) == (12, 0)


def test_a_long_code_is_cut() -> None:
    outcome = Outcome("bad_request", 400, code="x" * 1000)
    [code] = writing.sums_of([answered(outcome, attempt("bad_request"))]).codes
    assert code == "x" * writing.LONGEST_CODE


# -- journals in storage


def result(row: int, size: int = 10) -> RowResult:
    text = json.dumps({"row": row, "x": "y" * size}, separators=(",", ":")).encode()
    return RowResult(row, "succeeded", Usage(row, 1), text)


def storage(append_blocks: int = 50_000) -> MemoryBlobs:
    return MemoryBlobs(lambda: 0.0, append_blocks=append_blocks)


def name(ordinal: int) -> str:
    return attempt_name(ordinal, f"00000000-0000-4000-8000-{ordinal:012d}")


async def write(journal: Journal, results: Sequence[RowResult]) -> None:
    for result in results:
        journal.add(*journal_line(result))
    await journal.flush()


async def back(blobs: MemoryBlobs) -> tuple[Any, list[RowResult]]:
    infos = [info async for info in blobs.list(FOLDER.container, FOLDER.name)]
    spool = Spool()
    past = await read_journals(blobs, infos, spool)
    texts = [spool.part([found.row])[0].read() for found in spool.results()]
    kept = [r._replace(text=t) for r, t in zip(spool.results(), texts, strict=True)]
    spool.close()
    return past, kept


async def test_whatever_a_crash_tears_off_a_journal_the_whole_lines_count() -> None:
    blobs = storage()
    journal = Journal(blobs, FOLDER, name(0))
    await journal.open()
    await write(journal, [result(row) for row in range(4)])
    ref = next(iter(blobs.blobs))
    whole = bytes(blobs.blobs[ref].data)
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        blobs.blobs[ref].data = bytearray(whole[:cut])
        past, kept = await back(blobs)
        complete = sum(end < cut for end in ends[1:])
        assert [each.row for each in kept] == list(range(complete))
        assert past.suspicion.crashes == 1


async def test_a_torn_line_does_not_spoil_what_is_appended_after_it() -> None:
    blobs = storage()
    journal = Journal(blobs, FOLDER, name(0))
    await journal.open()
    await write(journal, [result(0)])
    ref = next(iter(blobs.blobs))
    data = blobs.blobs[ref].data
    assert isinstance(data, bytearray)
    data += b'{"row": 7, "kind": "succ\n\x00\xff\n[]\n3\n'
    await write(journal, [result(1)])
    await journal.end()
    past, kept = await back(blobs)
    assert [each.row for each in kept] == [0, 1]
    assert past.suspicion.crashes == 0


async def test_a_line_larger_than_an_append_comes_back_whole() -> None:
    blobs = storage()
    journal = Journal(blobs, FOLDER, name(0))
    await journal.open()
    results = [result(0), result(1, size=9_000_000), result(2)]
    await write(journal, results)
    await journal.end()
    past, kept = await back(blobs)
    assert [(each.row, len(each.text)) for each in kept] == [
        (each.row, len(each.text) + 1) for each in results
    ]
    assert past.suspicion.crashes == 0


async def test_a_full_journal_rolls_over_and_is_judged_by_its_last_blob() -> None:
    blobs = storage(append_blocks=3)
    journal = Journal(blobs, FOLDER, name(0))
    await journal.open()
    for row in range(7):
        await write(journal, [result(row)])
    past, kept = await back(blobs)
    assert len(blobs.blobs) > 1
    assert [each.row for each in kept] == list(range(7))
    assert past.suspicion.crashes == 1
    await journal.end()
    assert (await back(blobs))[0].suspicion.crashes == 0


async def test_the_first_result_of_a_row_counts() -> None:
    blobs = storage()
    for ordinal, usage in ((0, 5), (1, 9)):
        journal = Journal(blobs, FOLDER, name(ordinal))
        await journal.open()
        await write(journal, [result(3)._replace(usage=Usage(usage, 0))])
    past, kept = await back(blobs)
    assert [each.usage.prompt_tokens for each in kept] == [5]
    assert past.suspicion.crashes == 2
    assert past.suspicion.suspect


# -- the spool


@pytest.mark.parametrize("memory", [10, 1 << 20])
def test_a_spool_gives_lines_back_in_order_from_memory_or_disk(memory: int) -> None:
    spool = Spool(memory_bytes=memory)
    for row in (4, 0, 2, 3, 1):
        spool.add(result(row, size=50 * row))
    spool.add(result(2)._replace(text=b"another"))
    assert len(spool) == 5
    assert 3 in spool
    assert 5 not in spool
    assert [each.row for each in spool.results()] == [0, 1, 2, 3, 4]
    expected = b"".join(result(row, size=50 * row).text + b"\n" for row in (0, 2, 3))
    data, length, digest = spool.part([0, 2, 3])
    with data:
        assert data.read() == expected
        for place in (0, 1, 40, len(expected) - 1, len(expected)):
            data.seek(place)
            assert data.read(110) == expected[place : place + 110]
        assert data.seek(0, 2) == data.tell() == length
        with pytest.raises(OSError, match="fileno"):
            data.fileno()
    assert length == len(expected)
    assert digest == hashlib.sha256(expected).hexdigest()
    spool.close()


async def test_a_line_of_vectors_is_read_without_its_numbers() -> None:
    blobs = storage()
    vectors = [[at + 0.123456789] * 1536 for at in range(400)]
    text = json.dumps({"line": 1, "error": None, "response": {"body": {"data": vectors}}}).encode()
    del vectors
    journal = Journal(blobs, FOLDER, name(0))
    await write(journal, [RowResult(0, "succeeded", Usage(1, 0), text)])
    tracemalloc.start()
    try:
        _, [kept] = await back(blobs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.text.rstrip(b"\n") == text
    assert peak < 4 * len(text)
