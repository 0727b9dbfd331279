"""The answers of the simulator are functions of seed, model and request."""

import math

from hypothesis import given
from hypothesis import strategies as st

from local.endpoint import completion, embedding
from local.endpoint.answers import LABEL, SAMPLING, count_message_tokens, count_tokens

MESSAGES = [{"role": "user", "content": "How many eggs?"}]
text = st.text(max_size=40)


def test_a_completion_says_that_it_is_simulated() -> None:
    assert completion(1, "m", MESSAGES).text.startswith("[simulated] ")
    assert completion(1, "m", MESSAGES, max_tokens=1).text == LABEL


def test_an_answer_is_the_same_each_time_and_is_pinned() -> None:
    # Recorded results are compared with these for years: a change here is a breaking change.
    assert completion(1, "m", MESSAGES, max_tokens=4).text == "[simulated] riha namu jeva"
    assert embedding(1, "m", "egg", 4) == [0.004425, -0.738084, 0.09078, -0.66856]


def test_everything_that_should_choose_another_answer_does() -> None:
    asked = [
        completion(1, "m", MESSAGES),
        completion(2, "m", MESSAGES),
        completion(1, "n", MESSAGES),
        completion(1, "m", [*MESSAGES, {"role": "assistant", "content": "Nine."}]),
        completion(1, "m", MESSAGES, index=1),
        *(completion(1, "m", MESSAGES, sampling={name: 1}) for name in sorted(SAMPLING)),
    ]
    assert len({answer.text for answer in asked}) == len(asked)


def test_what_is_not_a_sampling_parameter_does_not_matter() -> None:
    plain = completion(1, "m", MESSAGES)
    assert completion(1, "m", MESSAGES, sampling={"user": "a", "stream": True}) == plain
    assert completion(1, "m", MESSAGES, sampling={"temperature": None}) == plain


@given(text, st.integers(1, 120))
def test_max_tokens_cuts_the_same_answer_short(prompt: str, max_tokens: int) -> None:
    whole = completion(1, "m", prompt)
    cut = completion(1, "m", prompt, max_tokens=max_tokens)
    assert whole.text.startswith(cut.text)
    assert cut.tokens == min(max_tokens, whole.tokens) == len(cut.text.split())
    assert cut.finish_reason == ("length" if max_tokens < whole.tokens else "stop")


@given(text)
def test_a_stop_sequence_ends_the_text_before_it(prompt: str) -> None:
    whole = completion(1, "m", prompt)
    mark = whole.text.split()[3]
    ended = completion(1, "m", prompt, stop=["never there", mark, ""])
    assert ended.text == whole.text[: whole.text.index(mark)]
    assert ended.finish_reason == "stop"


def test_lengths_stay_around_the_mean() -> None:
    lengths = [completion(1, "m", str(i), mean_tokens=20).tokens for i in range(300)]
    assert min(lengths) >= 10
    assert max(lengths) < 30
    assert 18 < sum(lengths) / len(lengths) < 22


@given(st.one_of(text, st.lists(st.integers(0, 32_000), min_size=1)), st.integers(1, 64))
def test_an_embedding_is_a_unit_vector_of_its_content(
    content: str | list[int], dimensions: int
) -> None:
    vector = embedding(3, "m", content, dimensions)
    assert vector == embedding(3, "m", content, dimensions)
    assert len(vector) == dimensions
    assert math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-4)


def test_embeddings_of_different_texts_are_far_apart() -> None:
    first, second = embedding(3, "m", "one"), embedding(3, "m", "two")
    assert abs(sum(a * b for a, b in zip(first, second, strict=True))) < 0.3
    assert embedding(4, "m", "one") != first
    assert embedding(3, "n", "one") != first


@given(text, text)
def test_tokens_grow_with_bytes(first: str, second: str) -> None:
    size = len((first + second).encode("utf-8", "surrogatepass"))
    assert count_tokens(first + second) == math.ceil(size / 3)
    assert count_message_tokens([first, second]) == count_tokens(first) + count_tokens(second) + 8
