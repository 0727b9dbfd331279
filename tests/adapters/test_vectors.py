"""Vectors are carried from the answer to the results without ever being numbers."""

import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.outcomes import Outcome, Usage
from tests.adapters.clients import written
from workers.adapters.endpoints.answers import answer
from workers.adapters.endpoints.vectors import parsed_vectors
from workers.rows import writing
from workers.rows.reading import Request
from workers.shards.journal import journal_line
from workers.shards.spool import Spool

NUMBERS = st.one_of(st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False))
ENTRY = st.fixed_dictionaries(
    {"index": st.integers(0, 9), "embedding": st.lists(NUMBERS)},
    optional={"object": st.just("embedding"), "note": st.text()},
)


@given(st.lists(ENTRY), st.dictionaries(st.text(), NUMBERS))
def test_what_is_carried_is_what_came(data: list[Any], others: dict[str, Any]) -> None:
    answer = {**others, "data": data, "usage": {"prompt_tokens": 3}}
    assert written(parsed_vectors(orjson.dumps(answer))) == answer


@pytest.mark.parametrize(
    "vector",
    [
        b'"AAAAPwAAAD4="',
        b'{"float": [0.5]}',
        b'["a", 0.5]',
        b'["\\ud800"]',
        '["\u00e9"]'.encode(),
    ],
)
def test_other_vectors_are_parsed_as_ever(vector: bytes) -> None:
    raw = b'{"data": [{"index": 0, "embedding": %s}]}' % vector
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError:
        told = None
    assert parsed_vectors(raw) == told


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"<html>", b'{"data": 5}', b'{"data": [5]}', b'{"data": [{"embedding": [0.5]}]']
    + [b'{"data": [{"embedding": %s}]}' % each for each in (b"[NaN]", b"[1.2.3]", b"[,]", b"[01]")]
    + [b'{"data": [{"embedding": ["\xff"]}]}', b'{"data": %s' % (b"[" * 100_000)],
)
def test_what_is_no_such_answer_is_none(raw: bytes) -> None:
    assert parsed_vectors(raw) is None


async def test_a_large_answer_is_not_copied_on_the_way_to_its_line() -> None:
    vector = [-0.012345678901 - number / 1e6 for number in range(1536)]
    data = [{"object": "embedding", "index": at, "embedding": vector} for at in range(400)]
    usage = {"prompt_tokens": 400, "total_tokens": 400}
    raw = orjson.dumps({"object": "list", "data": data, "model": "m", "usage": usage})
    del data
    request = Request(1, "a", "embeddings", "m", {"input": ["x"] * 400})
    tracemalloc.start()
    try:
        outcome: Outcome = answer("embeddings", 200, {}, parsed_vectors(raw), 400)
        result = writing.answered("j", 0, request, outcome, attempts=(), use=())
        pieces = list(journal_line(result))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.usage == Usage(400, 0)
    assert peak < len(raw) / 2
    assert sum(map(len, pieces)) < len(raw) + 1000
    line = orjson.loads(b"".join(pieces))
    assert line["text"]["response"]["body"] == orjson.loads(raw)
    spool = Spool()
    spool.add(result)
    await spool.written()
    lines, length, _ = spool.part([0])
    assert orjson.loads(lines.read()) == line["text"]
    assert length == spool.size + 1
    spool.close()
