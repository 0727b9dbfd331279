"""How large an answer may be, by what is asked for."""

import json
from random import Random
from typing import Any

import pytest

from schemas.deployments import Task
from schemas.jobs import JobOptions
from workers.intake.pieces import Run, answer_weight
from workers.rows.blocks import Block
from workers.rows.fast_path import UsualRows
from workers.rows.reading import RowRules
from workers.rows.sizes import USUAL_TOKENS, answer_bytes
from workers.shards.calls import ROOM_BYTES

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400}
PROMPT: dict[str, Any] = {"prompt": "Say something", "max_tokens": 400}
WORDS = [" the", " assistance", "Hello", "!", " I", "ung", " \u00e9t\u00e9", "\n"]


def entry(rng: Random, top: int = 0) -> dict[str, Any]:
    word = rng.choice(WORDS)
    told = {"token": word, "logprob": -rng.expovariate(0.3), "bytes": list(word.encode())}
    return told | ({"top_logprobs": [entry(rng) for _ in range(top)]} if top else {})


@pytest.mark.parametrize("top", [0, 1, 5, 20])
@pytest.mark.parametrize("n", [1, 3])
def test_log_probabilities_of_a_chat_count_each_token_with_what_was_likely_there(
    top: int, n: int
) -> None:
    rng = Random(1)
    content = [[entry(rng, top) for _ in range(400)] for _ in range(n)]
    real = len(json.dumps(content, separators=(",", ":")))
    body = CHAT | {"logprobs": True, "n": n} | ({"top_logprobs": top} if top else {})
    assert real <= answer_bytes("chat", body) <= 2 * real


@pytest.mark.parametrize("top", [0, 1, 5])
def test_those_of_a_completion_are_shorter(top: int) -> None:
    rng = Random(1)
    likely = [
        {f"{rng.choice(WORDS)}{at}": -rng.expovariate(0.3) for at in range(top)} for _ in range(400)
    ]
    listed = {
        "tokens": [rng.choice(WORDS) for _ in range(400)],
        "token_logprobs": [-rng.expovariate(0.3) for _ in range(400)],
        "text_offset": list(range(0, 2000, 5)),
        "top_logprobs": likely,
    }
    real = len(json.dumps(listed, separators=(",", ":")))
    assert real <= answer_bytes("completions", PROMPT | {"logprobs": top}) <= 2 * real


@pytest.mark.parametrize(
    ("asked", "as_much_as"),
    [
        ({"max_tokens": None}, {"max_tokens": 1024}),
        ({"max_tokens": None, "max_completion_tokens": 90}, {"max_tokens": 90}),
        ({"max_tokens": 10**9}, {"max_tokens": 16 * 1024}),
        ({"logprobs": True, "top_logprobs": None}, {"logprobs": True}),
        ({"logprobs": False, "top_logprobs": 20}, {"logprobs": None}),
    ],
)
def test_what_nothing_limits_is_expected_to_be_usual(
    asked: dict[str, Any], as_much_as: dict[str, Any]
) -> None:
    body = CHAT | {"logprobs": True, "top_logprobs": 3}
    if as_much_as == {"logprobs": True}:
        as_much_as = {"top_logprobs": 0}
    assert answer_bytes("chat", body | asked) == answer_bytes("chat", body | as_much_as)


def test_how_many_calls_are_on_their_way_goes_by_usual_answers() -> None:
    """Twenty log probabilities for each of 16,000 tokens would take all the room of a process."""
    body = CHAT | {"logprobs": True, "top_logprobs": 20, "max_tokens": 16_000}
    assert answer_bytes("chat", body) > ROOM_BYTES
    assert 10 <= ROOM_BYTES // answer_bytes("chat", body, listed=USUAL_TOKENS) <= 12
    short = body | {"max_tokens": 5}
    assert answer_bytes("chat", short, listed=USUAL_TOKENS) == answer_bytes("chat", short)


@pytest.mark.parametrize("task", ["chat", "completions"])
def test_one_answer_in_words_alone_counts_nothing(task: Task) -> None:
    body = CHAT if task == "chat" else PROMPT
    for asked in ({}, {"logprobs": None}, {"logprobs": False}, {"max_tokens": None}, {"n": 1}):
        assert answer_bytes(task, body | asked) == 0


def test_a_prompt_that_is_told_again_counts_with_its_log_probabilities() -> None:
    long = PROMPT | {"prompt": "word " * 40_000, "max_tokens": 1}
    assert answer_bytes("completions", long | {"echo": True}) == 0  # within the row's own bytes
    told = answer_bytes("completions", long | {"echo": True, "logprobs": 5})
    assert told >= 40_000 * 6 * 40
    assert answer_bytes("completions", long | {"echo": True, "logprobs": 5, "n": 2}) >= 2 * told
    assert answer_bytes("completions", long | {"prompt_logprobs": 5}) >= 40_000 * 6 * 40


def test_a_prompt_of_token_ids_is_one_prompt() -> None:
    assert answer_bytes("completions", PROMPT | {"prompt": [1, 2, 3]}) == 0
    three = answer_bytes("completions", PROMPT | {"prompt": ["a", "b", "c"]})
    assert three == answer_bytes("completions", PROMPT | {"n": 3}) > 0


def test_usual_rows_weigh_the_log_probabilities_that_they_or_the_job_ask_for() -> None:
    def weight(asked: dict[str, Any] | None = None, **options: Any) -> int | None:
        row = {"url": "/v1/chat/completions", "body": CHAT | {"model": "m"} | (asked or {})}
        rules = RowRules.of(JobOptions(**options), max_line_bytes=1 << 20)
        line = json.dumps(row).encode() + b"\n"
        block = Block(line, 0, len(line))
        usual = UsualRows(rules, answer_weight).read(block, 0)
        return None if usual is None else Run(1, 0, block.starts, usual).weight(0, 1)

    listed = {"logprobs": True, "top_logprobs": 20}
    plain, heavy = weight(), weight(parameters=listed)
    assert plain is not None
    assert plain < 200
    assert heavy == answer_weight("chat", CHAT | listed)
    for asked in ({"logprobs": True}, {"n": 2}, listed | {"n": 2, "max_completion_tokens": 9}):
        assert weight(asked) == answer_weight("chat", CHAT | asked) > 200
        assert weight(asked, parameters={"n": 4, "logprobs": False}) == answer_weight(
            "chat", CHAT | {"n": 4, "logprobs": False} | asked
        )
    # What goes by its prompt is judged row by row.
    assert weight({"prompt_logprobs": 1}) is None
    assert weight(parameters={"prompt_logprobs": 1}) is None
    assert weight(parameters={"echo": True} | listed) is None
