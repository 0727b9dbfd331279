"""Who is asked when, and what a watch ends with: decisions without a service."""

from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3batch.commands import show
from phi3batch.commands.retry import not_yet
from phi3batch.money import money_lines
from phi3batch.progress import Display, describe, in_time
from phi3batch.watching import Patience, come_back, followed, growing, status_of
from schemas.openai import Batch
from schemas.status import AtRisk

IDS = ("batch_a", "batch_b", "batch_c")
UNREACHED = openai.APIConnectionError(request=None)  # type: ignore[arg-type]


def batch(batch_id: str = "batch_a", status: str = "in_progress", **fields: Any) -> Batch:
    more = {"door": "http", "input": "files/x", "results": "results/x", **fields.pop("phi3", {})}
    return Batch.model_validate(
        {
            "id": batch_id,
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-1",
            "completion_window": "24h",
            "status": status,
            "created_at": 0,
            "expires_at": 86400,
            "phi3": more,
            **fields,
        }
    )


def counts(total: int, completed: int, failed: int) -> dict[str, int]:
    return {"total": total, "completed": completed, "failed": failed}


@given(looks=st.lists(st.integers(1, 5), min_size=3, max_size=3), patience=st.integers(0, 8))
def test_each_batch_is_read_until_it_has_ended_and_no_longer(
    looks: list[int], patience: int
) -> None:
    left = dict(zip(IDS, looks, strict=True))
    waits = 0

    def read(batch_id: str) -> Batch:
        left[batch_id] -= 1
        assert left[batch_id] >= 0, "it has ended already"
        return batch(batch_id, "in_progress" if left[batch_id] else "completed")

    def wait() -> bool:
        nonlocal waits
        waits += 1
        return waits <= patience

    found = list(followed([*IDS, IDS[0]], read, wait))
    ended = {each.id for each in found if each.status == "completed"}
    assert ended == {each for each in IDS if left[each] == 0}
    assert (ended == set(IDS)) == (max(looks) <= patience + 1)


def test_an_outage_is_waited_out_and_told_once() -> None:
    now, said = [0.0], list[str]()
    answers: list[Callable[[], Batch]] = []

    def read(_: str) -> Batch:
        now[0] += 10
        return answers.pop(0)()

    def fails() -> Batch:
        raise UNREACHED

    patient = Patience(read, said.append, 25, lambda: now[0])
    answers += [fails, fails, batch, fails, fails, fails, fails]
    assert [patient.read("batch_a") is None for _ in range(6)] == [True, True, False] + [True] * 3
    with pytest.raises(openai.APIConnectionError):
        patient.read("batch_a")
    assert len(said) == 2


@pytest.mark.parametrize(
    ("status", "found", "strict", "expected"),
    [
        ("completed", counts(2, 2, 0), True, 0),
        ("completed", counts(0, 0, 0), False, 0),
        ("completed", counts(2, 1, 1), False, 0),
        ("completed", counts(2, 1, 1), True, 3),
        ("completed", counts(2, 0, 2), False, 3),
        ("cancelled", counts(2, 2, 0), False, 1),
        ("expired", counts(2, 1, 0), False, 1),
        ("failed", counts(0, 0, 0), False, 1),
    ],
)
def test_the_status_says_what_came_of_it(
    status: str, found: dict[str, int], strict: bool, expected: int
) -> None:
    assert status_of(batch(status=status, request_counts=found), strict=strict) == expected


@pytest.mark.parametrize(
    ("needed", "told"),
    [
        ({"needed_rate": None}, "none of its hours is left before that"),
        ({"needed_rate": 16.66}, "16.7 rows/s would do"),
        (
            {"needed_rate": 16.66, "needed_quota": 0.63},
            "16.7 rows/s would do, which take 63% of its quotas",
        ),
        (
            {"needed_rate": 16.66, "needed_quota": 1.2},
            "16.7 rows/s would do, but its quotas do not suffice: raise them, or give it more time",
        ),
    ],
)
def test_what_will_be_late_says_by_how_much_and_what_would_do(
    needed: dict[str, Any], told: str
) -> None:
    risk = AtRisk.model_validate({"late_seconds": 90.0, **needed})
    assert in_time(risk) == f"it will miss the end of its window by 0:01:30: {told}"


PAUSED = {"paused": True}


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ([], "they go on without you; come back with: phi3batch watch batch_a batch_b"),
        (
            [batch("batch_a", phi3=PAUSED), batch("batch_b")],
            "they go on without you; come back with: phi3batch watch batch_a batch_b",
        ),
        (
            [batch("batch_a", phi3=PAUSED), batch("batch_b", phi3=PAUSED)],
            "they are paused; come back with: phi3batch watch batch_a batch_b",
        ),
        (
            [batch("batch_a", phi3=PAUSED), batch("batch_b", "completed")],
            "it is paused; come back with: phi3batch watch batch_a",
        ),
        (
            [batch("batch_a", "failed"), batch("batch_b", "completed")],
            "all have ended; see: phi3batch watch batch_a batch_b",
        ),
    ],
)
def test_who_stops_watching_is_told_how_to_come_back(last: list[Batch], told: str) -> None:
    assert come_back(IDS[:2], {each.id: each for each in last}) == told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "wait for it, or phi3batch cancel batch_a"),
        ({"paused": True}, "is paused: phi3batch resume batch_a, or phi3batch cancel batch_a"),
        (
            {
                "paused": True,
                "waiting": {"reason": "budget"},
                "budget": {"max_total_tokens": 9, "tokens_spent": 8, "tokens_reserved": 0},
            },
            "no further call fits its cap: phi3batch cancel batch_a",
        ),
        (
            {
                "paused": True,
                "waiting": {"reason": "budget"},
                "budget": {"max_cost": "1", "tokens_spent": 0, "tokens_reserved": 0},
            },
            "wait for it, or phi3batch cancel batch_a",
        ),
    ],
)
def test_what_has_not_ended_is_not_retried_and_says_what_to_do(
    more: dict[str, Any], told: str
) -> None:
    assert told in not_yet(batch(phi3=more))


def test_looks_become_rarer_up_to_the_interval() -> None:
    pauses = list(islice(growing(2.0), 10))
    assert pauses[0] == 0.25
    assert pauses == sorted(pauses)
    assert pauses[-1] == 2.0
    assert set(islice(growing(0.1), 3)) == {0.1}


def test_a_line_tells_rate_time_left_and_what_is_waited_for() -> None:
    running = batch(
        request_counts=counts(1000, 400, 10),
        usage={"total_tokens": 12345},
        phi3={
            "rate": 16.7,
            "seconds_left": 35.2,
            "basis": "quota",
            "running": 90,
            "waiting": {"reason": "quota", "deployment": "phi"},
        },
    )
    assert describe(running) == (
        "batch_a in_progress · 500 of 1,000 rows · 400 succeeded · 10 failed · "
        "16.7 rows/s allowed · 0:00:35 left · 12,345 tokens · waiting for quota of phi"
    )
    late = batch(phi3={"at_risk": {"late_seconds": 3725.4, "needed_rate": 20.0}})
    assert describe(late) == "batch_a in_progress · 1:02:05 too late"
    paused = batch(phi3={"paused": True})
    assert describe(paused) == "batch_a paused"
    error = {"code": "invalid_json", "message": "not JSON", "line": 3}
    failed = batch(status="failed", errors={"object": "list", "data": [error]})
    assert describe(failed) == "batch_a failed · invalid_json: line 3: not JSON"
    error["message"] = "line 3: not JSON"
    told = batch(status="failed", errors={"object": "list", "data": [error]})
    assert describe(told) == describe(failed)


@pytest.mark.parametrize(
    ("at_most", "told"),
    [
        ("0.250000", "batch_a in_progress · 0.250000 USD"),
        ("0.300000", "batch_a in_progress · 0.250000 to 0.300000 USD"),
        (None, "batch_a in_progress · at least 0.250000 USD"),
    ],
)
def test_a_line_tells_the_cost_so_far(at_most: str | None, told: str) -> None:
    cost = {"currency": "USD", "counted": "0.250000", "at_most": at_most}
    assert describe(batch(phi3={"cost": cost})) == told


def test_a_line_tells_that_a_price_is_missing() -> None:
    cost = {"currency": "USD", "counted": "0.25", "at_most": None, "unpriced_calls": 1}
    told = "batch_a in_progress · at least 0.25 USD and calls without a price"
    assert describe(batch(phi3={"cost": cost})) == told


@pytest.mark.parametrize(
    ("status", "cost", "told"),
    [
        (
            "in_progress",
            {"unpriced_calls": 1},
            " for the 140 rows that are done, and more: "
            "some calls were to deployments without a price",
        ),
        (
            "completed",
            {"unpriced_calls": 9},
            ", and more: 9 calls were to deployments without a price",
        ),
        (
            "completed",
            {"unmetered_calls": 2, "crashes": 3},
            ", and more: 2 calls may have been billed and told no tokens; 3 attempts at shards "
            "ended with their worker, and what they asked last is not known",
        ),
        (
            "completed",
            {"unmetered_calls": 2},
            ", and more: 2 calls may have been billed and told no tokens; max_tokens in each row "
            "bounds them as a rule, max_cost always",
        ),
        ("completed", {"at_most": "0.5"}, ", at most 0.5 for all calls"),
        (
            "completed",
            {"at_most": "0.5", "unmetered_calls": 2},
            ", at most 0.5 for all calls: 2 calls may have been billed and told no tokens",
        ),
        (
            "in_progress",
            {},
            " for the 140 rows that are done; what all calls cost at most is known at the end "
            "(with max_cost, always)",
        ),
    ],
)
def test_a_cost_says_of_which_rows_it_is_and_what_is_not_known_of_it(
    status: str, cost: dict[str, Any], told: str
) -> None:
    shown = batch(
        status=status,
        request_counts=counts(500, 100, 0),
        phi3={"running": 40, "cost": {"currency": "USD", "counted": "0.25"} | cost},
    )
    assert dict(money_lines(shown))["cost"] == f"0.25 USD{told}"


def test_what_shards_that_are_asked_hold_of_a_cap_is_not_all_to_be_spent() -> None:
    held = {"max_total_tokens": 30000, "tokens_spent": 2316, "tokens_reserved": 27684}
    assert dict(money_lines(batch(phi3={"budget": held})))["max_total_tokens"] == (
        "30,000, of which 2,316 are spent and 27,684 spent, or set aside, for shards that are "
        "being asked"
    )


COSTS = {"currency": "USD", "counted": "0.001317", "at_most": None}
SPENT = {"currency": "USD", "tokens_spent": 300, "tokens_reserved": 0, "cost_spent": "0.001317"}


def outlook(budget: dict[str, Any] | None, **phi3: Any) -> dict[str, str]:
    """The lines of money of a batch of which 10 of 60 rows are done."""
    held = {"budget": None if budget is None else SPENT | {"cost_reserved": "0.0"} | budget}
    told = {"cost": COSTS, "projected_cost": "0.007900", **held, **phi3}
    return dict(money_lines(batch(request_counts=counts(60, 10, 0), phi3=told)))


def test_what_all_rows_would_cost_is_told_beside_a_cap_that_has_less() -> None:
    in_all = "0.007900 USD for all rows, if the others cost as much as those that are done"
    least = {"max_cost": "0.003000"}
    assert outlook(least | {"on_budget": "stop"})["projected_cost"] == (
        f"{in_all}; its cap is 0.003000 USD: rows for which that leaves no room get no answer "
        "(budget_exceeded)"
    )
    assert outlook(least | {"on_budget": "pause"})["projected_cost"] == (
        f"{in_all}; its cap is 0.003000 USD: it pauses when no further call fits"
    )
    assert outlook(least)["projected_cost"] == f"{in_all}; its cap is 0.003000 USD"
    at_cap = {"paused": True, "waiting": {"reason": "budget"}}
    assert outlook(least | {"on_budget": "pause"}, **at_cap)["projected_cost"] == (
        f"{in_all}; its cap is 0.003000 USD, and no further call fits"
    )
    enough = {"max_cost": "0.008000"}
    assert outlook(enough, **at_cap)["projected_cost"] == (
        f"{in_all}, but no further call fits its cap"
    )
    in_the_end = "0.007900 USD in the end, if its other rows cost as much as those that are done"
    assert outlook(enough)["projected_cost"] == in_the_end
    assert outlook(None)["projected_cost"] == in_the_end


def test_tokens_of_all_rows_are_told_where_their_cap_has_less() -> None:
    told = outlook({"max_total_tokens": 1500, "on_budget": "stop"}, projected_tokens=1800)
    assert told["projected_tokens"] == (
        "1,800 for all rows, if the others have as many as those that are done; its cap is 1,500: "
        "rows for which that leaves no room get no answer (budget_exceeded)"
    )
    assert "projected_tokens" not in outlook({"max_total_tokens": 1800}, projected_tokens=1800)


def test_what_a_batch_holds_of_its_month_is_not_told_as_an_option_of_its_own() -> None:
    told = outlook({"max_cost": "0.300000", "of_month": True})
    assert "max_cost" not in told
    assert told["of its month"] == (
        "it holds 0.300000 USD, the most that its rows can cost, of which 0.001317 are spent"
    )


def test_a_cost_of_which_nothing_is_known_is_told_as_such() -> None:
    assert "cost" not in dict(money_lines(batch()))
    told = dict(money_lines(batch(usage={"total_tokens": 12})))
    unknown = "not known: no deployment that answered has a price for tokens in DEPLOYMENTS"
    assert told == {"cost": unknown}


def test_a_line_tells_the_cost_of_rows_in_shards_that_run_too() -> None:
    cost = {"currency": "USD", "counted": "0.250000", "at_most": None}
    running = batch(request_counts=counts(1000, 400, 10), phi3={"running": 90, "cost": cost})
    assert describe(running) == (
        "batch_a in_progress · 500 of 1,000 rows · 400 succeeded · 10 failed · "
        "at least 0.250000 USD"
    )


def test_what_to_do_about_a_wait_is_told_once_beside_the_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wait = {"reason": "budget", "message": "cancel the batch", "since": "2026-11-26T12:00:00Z"}
    paused = batch(phi3={"paused": True, "waiting": wait})
    shown = Display(None)
    for rate in (1.0, 2.0):
        shown.show(batch(phi3={"rate": rate, "waiting": {"reason": "quota"}}))
        shown.show(paused)
    shown.show(batch(status="cancelled", phi3={"waiting": wait}))
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("batch_a paused · waiting for budget") == 2
    assert [each for each in lines if "cancel the batch" in each] == [
        "batch_a waits: cancel the batch"
    ]


def test_pauses_and_resumes_are_told_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    wait = {"reason": "budget", "message": "cancel it", "since": "2026-11-26T12:00:00Z"}
    shown = Display(None)
    for seen in (
        batch(),
        batch(phi3={"paused": True}),
        batch(phi3={"paused": True}, request_counts=counts(9, 3, 0)),
        batch(request_counts=counts(9, 4, 0)),
        batch(phi3={"paused": True, "waiting": wait}),
        batch(status="cancelling"),
        batch(status="cancelled"),
    ):
        shown.show(seen)
    lines = capsys.readouterr().err.splitlines()
    assert [each for each in lines if " is " in each or " waits: " in each] == [
        "batch_a is paused: it asks no more rows until: phi3batch resume batch_a",
        "batch_a is resumed: it goes on",
        "batch_a is paused: it waits for budget",
        "batch_a waits: cancel it",
    ]


def test_show_tells_what_to_do_about_a_wait(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = {"reason": "budget", "message": "cancel the batch", "since": "2026-11-26T12:00:00Z"}
    service = SimpleNamespace(batch=lambda _: batch(phi3={"paused": True, "waiting": wait}))
    monkeypatch.setattr(show, "connected", lambda: nullcontext(service))
    assert show.run(Namespace(id="batch_a", json=False)) == 0
    assert "  waits    cancel the batch" in capsys.readouterr().out.splitlines()
