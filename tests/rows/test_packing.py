"""Which requests share a call, and that each row gets back its own vectors and its share."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.outcomes import Outcome, OutcomeKind, Usage
from workers.rows.packing import Limits, Pack, Packable, blames_a_row, by_index, pack, unpack

Input = str | list[str] | list[int] | list[list[int]] | list[dict[str, str]]

texts = st.text(max_size=30)
inputs: st.SearchStrategy[Input] = st.one_of(
    texts,
    st.lists(texts, max_size=4),
    st.lists(st.integers(0, 50_000), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(0, 50_000), min_size=1, max_size=5), min_size=1, max_size=3),
    st.lists(st.fixed_dictionaries({"image": texts}), min_size=1, max_size=3),
)
parameters = st.fixed_dictionaries({}, optional={"dimensions": st.sampled_from([4, 8])})
limits = st.builds(Limits, inputs=st.integers(1, 12), size=st.integers(1, 200))


@st.composite
def requests(draw: st.DrawFn) -> list[Packable]:
    each = st.tuples(st.sampled_from(["a", "b"]), inputs, parameters)
    drawn = draw(st.lists(each, max_size=40))
    return [Packable(n, m, {"model": m, "input": i, **p}) for n, (m, i, p) in enumerate(drawn)]


def as_list(value: Any) -> list[Any]:
    bare = not isinstance(value, list) or (value and all(type(each) is int for each in value))
    return [value] if bare else value


def answer(asked: Any, prefix: str = "") -> dict[str, Any]:
    """An answer whose vectors tell whose they are."""
    data = [
        {"object": "embedding", "index": at, "embedding": [prefix + repr(each)]}
        for at, each in enumerate(as_list(asked))
    ]
    return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 1}}


@given(requests(), limits)
def test_every_row_is_in_one_pack_with_its_likes_within_the_limits(
    rows: list[Packable], limit: Limits
) -> None:
    packs = pack(rows, limit)
    packed = [request.row for each in packs for request in each.requests]
    assert sorted(packed) == list(range(len(rows)))
    for each in packs:
        assert list(each.requests) == sorted(each.requests, key=lambda request: request.row)
        assert len({(r.model, r.body.get("dimensions")) for r in each.requests}) == 1
        if len(each.requests) == 1:
            assert each.body == each.requests[0].body
            continue
        flat = each.body["input"]
        assert len(flat) <= limit.inputs
        assert len({type(value) for value in flat}) == 1
        assert flat == [one for r in each.requests for one in as_list(r.body["input"])]


@given(requests(), limits, st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_each_row_gets_its_own_vectors_and_shares_sum_to_the_usage(
    rows: list[Packable], limit: Limits, tokens: int, rng: Any
) -> None:
    for each in pack(rows, limit):
        body = answer(each.body["input"])
        rng.shuffle(body["data"])
        if len(each.requests) == 1:
            body = answer(each.body["input"])
        shares = unpack(each, body, Usage(tokens, tokens // 3))
        assert [share.row for share in shares] == [request.row for request in each.requests]
        for share, request in zip(shares, each.requests, strict=True):
            own = answer(request.body["input"])["data"]
            assert share.body["data"] == own
        usages = [share.usage or Usage() for share in shares]
        assert sum(usage.prompt_tokens for usage in usages) == tokens
        assert sum(usage.completion_tokens for usage in usages) == tokens // 3
        for share in shares[: len(shares) if len(shares) > 1 else 0]:
            assert share.usage is not None
            assert share.body["usage"]["prompt_tokens"] == share.usage.prompt_tokens


def packed(*asked: str) -> Pack:
    rows = [Packable(row, "m", {"input": text}) for row, text in enumerate(asked)]
    (only,) = pack(rows, Limits())
    return only


def test_usage_is_shared_by_size() -> None:
    shares = unpack(packed("x" * 30, "x" * 10), answer(["x" * 30, "x" * 10]), Usage(9))
    assert [share.usage for share in shares] == [Usage(7), Usage(2)]


def test_an_answer_without_usage_gives_none_to_anybody() -> None:
    shares = unpack(packed("a", "b"), answer(["a", "b"]), None)
    assert all(share.usage is None and "usage" not in share.body for share in shares)


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"index": True, "embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"index": 1}],
        [{"index": 0, "embedding": [1]}, 7],
        None,
    ],
)
def test_vectors_that_may_be_anothers_are_refused(data: Any) -> None:
    assert by_index(data, 2) is None
    with pytest.raises(ValueError, match="one embedding for each input"):
        unpack(packed("a", "b"), {"data": data}, None)


@given(st.integers(1, 96), st.integers(0, 95))
def test_halving_finds_the_bad_row_in_few_calls(rows: int, bad: int) -> None:
    bad %= rows
    calls, alone, good = 0, [], 0
    waiting = [packed(*(f"text {n}" for n in range(rows)))]
    while waiting:
        each = waiting.pop()
        calls += 1
        if all(request.row != bad for request in each.requests):
            good += len(each.requests)
        elif len(each.requests) == 1:
            alone.append(each.requests[0].row)
        else:
            waiting += each.halve()
    assert alone == [bad]
    assert good == rows - 1
    assert calls <= 2 * rows.bit_length() + 1


def test_a_pack_of_one_is_not_halved() -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        packed("a").halve()


@pytest.mark.parametrize(
    ("kind", "blamed"),
    [
        ("bad_request", True),
        ("content_filter", True),
        ("transient", True),
        ("timeout", True),
        ("throttled", False),
        ("auth", False),
        ("gone", False),
        ("ok", False),
    ],
)
def test_only_what_a_row_may_have_caused_is_halved(kind: OutcomeKind, blamed: bool) -> None:
    outcome = Outcome(kind)
    assert blames_a_row(packed("a", "b"), outcome) is blamed
    assert not blames_a_row(packed("a"), outcome)


def sizes(packs: Sequence[Pack]) -> list[int]:
    return [len(each.requests) for each in packs]


def test_short_texts_fill_their_calls() -> None:
    rows = [Packable(n, "m", {"input": "short"}) for n in range(1000)]
    assert sizes(pack(rows, Limits(inputs=96))) == [96] * 10 + [40]


def test_a_text_beyond_the_size_goes_alone_and_holds_nobody_up() -> None:
    asked = ["a" * 10, "b" * 500, "c" * 10]
    rows = [Packable(n, "m", {"input": text}) for n, text in enumerate(asked)]
    packs = pack(rows, Limits(size=100))
    assert [[r.row for r in each.requests] for each in packs] == [[0], [1], [2]]
