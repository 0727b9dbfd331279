"""Which request a rule spoils."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from local.endpoint import Rule, When, read_rules
from local.endpoint.contracts import Ask
from local.endpoint.faults import FaultPlan


def ask(content: str = "hello", model: str = "m") -> Ask:
    return Ask(
        contract="openai",
        task="chat",
        model=model,
        body={},
        prompt=[{"role": "user", "content": content}],
        inputs=[content],
        prompt_tokens=1,
    )


def fired(plan: FaultPlan, rows: list[str]) -> list[str | None]:
    found: list[str | None] = []
    for ordinal, row in enumerate(rows, start=1):
        rule = plan.decide(ordinal, 0, ask(row), row)
        plan.settle(rule, row)
        found.append(rule.fault if rule else None)
    return found


def test_the_first_rule_that_applies_decides() -> None:
    plan = FaultPlan(
        0,
        [
            Rule(fault="http_503", when=When(contains="bad"), times=1),
            Rule(fault="http_500", when=When(contains="bad")),
        ],
    )
    assert fired(plan, ["good", "bad", "so bad"]) == [None, "http_503", "http_500"]


def test_a_rule_looks_into_every_turn_and_every_packed_input() -> None:
    rule = Rule(fault="http_400", when=When(contains="needle"))
    turns = ask()
    turns.prompt = [
        {"role": "system", "content": [{"type": "text", "text": "a needle"}]},
        {"role": "user", "content": "hello"},
    ]
    packed = ask()
    packed.inputs = ["one", "two with a needle"]
    assert FaultPlan(0, [rule]).decide(1, 0, turns, "row") == rule
    assert FaultPlan(0, [rule]).decide(1, 0, packed, "row") == rule
    assert FaultPlan(0, [rule]).decide(1, 0, ask(), "row") is None


def test_equal_rules_are_counted_apart() -> None:
    once = Rule(fault="http_502", times=1)
    assert fired(FaultPlan(0, [once, once]), list("abc")) == ["http_502", "http_502", None]


def test_a_look_changes_nothing() -> None:
    plan = FaultPlan(0, [Rule(fault="http_502", times=1)])
    assert [plan.decide(1, 0, ask(), "a") is not None for _ in range(3)] == [True] * 3


def test_times_per_row_fails_each_row_once() -> None:
    plan = FaultPlan(0, [Rule(fault="http_502", times_per_row=1)])
    assert fired(plan, ["a", "b", "a", "a"]) == ["http_502", "http_502", None, None]


def test_an_outage_lasts_from_one_second_to_another() -> None:
    plan = FaultPlan(0, [Rule(fault="http_503", when=When(from_seconds=2, until_seconds=5))])
    found = [plan.decide(1, second, ask(), "row") is not None for second in range(7)]
    assert found == [False, False, True, True, True, False, False]


def test_ordinals_and_every_nth() -> None:
    chosen = FaultPlan(0, [Rule(fault="hang", when=When(ordinals=frozenset({2, 3})))])
    assert fired(chosen, list("abcd")) == [None, "hang", "hang", None]
    nth = FaultPlan(0, [Rule(fault="hang", when=When(every=2))])
    assert fired(nth, list("abcd")) == [None, "hang", None, "hang"]


def test_task_model_and_stream_narrow_a_rule() -> None:
    for when in (When(task="embeddings"), When(model="other"), When(stream=True)):
        assert FaultPlan(0, [Rule(fault="hang", when=when)]).decide(1, 0, ask(), "r") is None
    exact = When(task="chat", model="m", stream=False)
    assert FaultPlan(0, [Rule(fault="hang", when=exact)]).decide(1, 0, ask(), "r") is not None


@given(st.randoms(use_true_random=False))
def test_a_rate_spoils_the_same_rows_in_any_order(random: Any) -> None:
    rows = [str(i) for i in range(200)] * 2
    shuffled = rows.copy()
    random.shuffle(shuffled)

    def spoiled(order: list[str]) -> list[tuple[str, int]]:
        plan = FaultPlan(7, [Rule(fault="http_500", when=When(rate=0.2))])
        seen: dict[str, int] = {}
        hits = []
        for row in order:
            seen[row] = seen.get(row, 0) + 1
            rule = plan.decide(1, 0, ask(), row)
            plan.settle(rule, row)
            if rule is not None:
                hits.append((row, seen[row]))
        return sorted(hits)

    assert spoiled(rows) == spoiled(shuffled)


def test_a_rate_is_met_and_follows_the_seed() -> None:
    rows = [str(i) for i in range(5_000)]
    rule = Rule(fault="http_500", when=When(rate=0.1))
    hits = [[f is not None for f in fired(FaultPlan(seed, [rule]), rows)] for seed in (1, 2)]
    assert all(400 < sum(hit) < 600 for hit in hits)
    assert hits[0] != hits[1]


def test_a_reset_is_decided_before_reading_only_where_it_can_be() -> None:
    early = Rule(fault="reset_before", when=When(ordinals=frozenset({1})))
    assert FaultPlan(0, [early]).on_arrival(1, 0) == early
    assert FaultPlan(0, [early]).on_arrival(2, 0) is None
    for late in (
        Rule(fault="reset_before", when=When(contains="x")),
        Rule(fault="reset_before", times_per_row=1),
        Rule(fault="reset_after"),
    ):
        assert FaultPlan(0, [late]).on_arrival(1, 0) is None


def test_the_three_forms_of_a_script() -> None:
    listed = [{"fault": "http_503", "when": {"contains": "x"}, "times": 2}]
    assert read_rules(listed) == read_rules({"rules": listed})
    assert read_rules(listed)[0].when.contains == "x"
    assert read_rules({"http_500": 0.25}) == (Rule(fault="http_500", when=When(rate=0.25)),)
    assert read_rules([]) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        [{"fault": "http_599"}],
        [{"fault": "hang", "whenn": {}}],
        [{"fault": "hang", "when": {"rate": 2}}],
        {"http_500": 1.5},
        "hang",
    ],
)
def test_a_script_with_a_mistake_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        read_rules(wrong)
