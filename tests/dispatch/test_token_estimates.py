"""Token estimates: what is seen of a call, and how quickly the ratio is learned."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.deployments import Task
from schemas.outcomes import Usage
from workers.dispatch.token_estimates import FIRST_RATIO, SURE_RATIO, Estimator
from workers.rows.sizes import IMAGE, PER_MESSAGE, Size, measure


@pytest.mark.parametrize(
    ("task", "body", "size"),
    [
        ("chat", {"messages": [{"content": "abc"}], "max_tokens": 5}, Size(3, PER_MESSAGE, 5, 3)),
        ("chat", {"messages": [{"content": "é"}]}, Size(2, PER_MESSAGE, None, 2)),
        (
            "chat",
            {
                "messages": [
                    {"content": [{"text": "ab"}, {"image_url": {"url": "data:..."}}]},
                    {"content": None},
                ],
                "max_completion_tokens": 7,
                "n": 3,
            },
            Size(2, 2 * PER_MESSAGE + IMAGE, 21, 2),
        ),
        ("completions", {"prompt": ["ab", "c"], "max_tokens": 2, "best_of": 2}, Size(3, 0, 4, 2)),
        ("embeddings", {"input": ["ab", "cde"]}, Size(5, 0, 0, 3)),
        (
            "image-embeddings",
            {"input": [{"image": "data:" + "x" * 9999, "text": "a"}]},
            Size(1, IMAGE, 0, 1),
        ),
        ("chat", {"messages": "wrong", "max_tokens": "many"}, Size(0, 0, None)),
        ("embeddings", {}, Size(0, 0, 0)),
    ],
)
def test_what_is_seen_of_a_call(task: Task, body: dict[str, object], size: Size) -> None:
    assert measure(task, body) == size


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_body_is_too_strange(value: object) -> None:
    for task in ("chat", "completions", "embeddings", "image-embeddings"):
        for key in ("messages", "prompt", "input", "max_tokens", "n"):
            size = measure(task, {key: value})
            assert size.text >= 0
            assert size.fixed >= 0


@pytest.mark.parametrize("ratio", [0.2, 0.36, 0.9])
def test_a_hundred_requests_are_estimated_within_four_percent(ratio: float) -> None:
    rng, estimator = Random(1), Estimator()
    guessed = counted = 0.0
    for n in range(300):
        text = rng.randint(200, 4000)
        size = Size(text, 4, 100)
        tokens = int(text * rng.gauss(ratio, 0.15 * ratio)) + 4
        reserved = estimator.total(size)
        if n >= 50:
            guessed, counted = guessed + reserved, counted + tokens + 100
        estimator.learn(size, Usage(tokens, 30), reserved)
    assert guessed == pytest.approx(counted, rel=0.04)


def test_a_limit_that_was_reserved_is_not_given_back() -> None:
    """Services judge prompt + max_tokens at admission, whatever the answer's length."""
    estimator, size = Estimator(), Size(1000, 0, 500)
    reserved = estimator.total(size)
    surplus = estimator.learn(size, Usage(300, 20), reserved)
    assert surplus == pytest.approx(300 - 1000 * FIRST_RATIO)


def test_an_answer_without_a_limit_is_learned() -> None:
    estimator, size = Estimator(), Size(1000, 0, None)
    for _ in range(30):
        estimator.learn(size, Usage(360, 40), estimator.total(size))
    assert estimator.total(size) == pytest.approx(400, rel=0.1)


def test_what_surely_does_not_fit_is_told_from_what_might() -> None:
    estimator = Estimator()
    assert estimator.least(Size(130_000, 0, 100)) > 8_000
    # Deeply indented or ruled, it may be pieces of 16 characters.
    assert estimator.least(Size(100_000, 0, 100)) < 8_000
    assert estimator.least(Size(20_000, 0, 1_000)) < 8_000
    assert estimator.least(Size(0, 4, 9_000)) > 8_000
    assert estimator.least(Size(0, 12 * IMAGE, 100)) < 8_000


def test_short_prompts_of_which_most_is_template_do_not_make_a_long_row_too_large() -> None:
    estimator = Estimator()
    for _ in range(300):
        estimator.learn(Size(4, PER_MESSAGE, 16), Usage(40, 10), 0.0)
    assert estimator.prompt(Size(8_000)) > 8_000
    assert estimator.least(Size(8_000, PER_MESSAGE, 100)) < 8_000
    assert estimator.least(Size(8_000, PER_MESSAGE, 9_000)) > 8_000


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10_000), st.integers(0, 10_000), st.none() | st.integers(0, 10_000)
        ),
        max_size=50,
    ),
    st.integers(0, 1_000_000),
    st.floats(SURE_RATIO, 4.0),
    st.integers(0, 1_000),
    st.none() | st.integers(0, 10_000),
)
def test_whatever_was_learned_a_row_that_fits_is_never_called_too_large(
    learned: list[tuple[int, int, int | None]],
    text: int,
    ratio: float,
    fixed: int,
    output: int | None,
) -> None:
    estimator = Estimator()
    for seen, tokens, limit in learned:
        size = Size(seen, PER_MESSAGE, limit)
        estimator.learn(size, Usage(tokens, 10), estimator.total(size))
    size = Size(text, fixed, output, text)
    assert estimator.least(size) <= text * ratio + (output or 0)
    assert estimator.least_read(size) <= text * ratio


def test_text_that_is_denser_than_sure_is_taken_as_it_was_seen() -> None:
    estimator = Estimator()
    estimator.learn(Size(100_000, 0, 100), Usage(2_000, 10), 0.0)
    estimator.learn(Size(1_000, 0, 100), Usage(400, 10), 0.0)
    assert estimator.least(Size(300_000, 0, 100)) <= 6_000 + 100
    assert estimator.least(Size(500_000, 0, 100)) > 8_000
