"""Which messages a rule lets through."""

from typing import Any

import pytest

from local.servicebus.broker.filters import accept_all, correlation_rule
from local.servicebus.broker.message import Facts
from local.servicebus.broker.sql import SqlError, sql_rule

FACTS = Facts(
    system={"Label": "audit", "MessageId": "m-1", "CorrelationId": None, "To": "100%"},
    application={"state": "failed", "shard": 3, "cost": 0.5, "last": True, "two words": "x"},
)


@pytest.mark.parametrize(
    "expression",
    [
        "state = 'failed'",
        "user.state = 'failed'",
        "State = 'failed' AND user.SHARD = 3",  # names of properties have no case, values do
        "[two words] = 'x' AND \"two words\" = 'x'",
        "sys.Label = 'audit' and SYS.messageid LIKE 'm-_'",
        "state IN ('completed', 'failed', 'expired', 'cancelled')",
        "state NOT IN ('completed')",
        "state <> 'completed' AND state != 'expired'",
        "shard > 2 AND shard >= 3 AND shard < 4 AND shard <= 3.0",
        "shard + 1 = 4 AND shard - 1 = 2 AND shard * 2 = 6",
        "shard / 2 = 1 AND -shard / 2 = -1 AND shard / 2.0 = 1.5 AND cost / 2 = 0.25",
        "shard % 2 = 1 AND -shard % 2 = -1 AND 3.5 % 2 = 1.5",
        "-shard = -3 AND +shard = 3",
        "2 + 3 * 2 = 8 AND (2 + 3) * 2 = 10",
        "cost = .5 AND cost = 5e-1",
        "last = TRUE AND last <> FALSE AND last",
        "state LIKE 'f%' AND state NOT LIKE 'g%' AND state LIKE '%ai%'",
        "sys.To LIKE '100!%' ESCAPE '!'",
        "missing IS NULL AND state IS NOT NULL AND sys.CorrelationId IS NULL",
        "EXISTS(state) AND NOT EXISTS(missing) AND EXISTS(sys.Label)",
        "'it''s' = 'it''s'",
        "missing = 'x' OR state = 'failed'",
        "NOT state = 'completed'",
        "state = 'failed' OR state = 'x' AND state = 'y'",
        "1=1",
    ],
)
def test_an_expression_that_is_true(expression: str) -> None:
    assert sql_rule(expression)(FACTS)


@pytest.mark.parametrize(
    "expression",
    [
        "state = 'completed'",
        "missing = 'x'",
        "missing <> 'x'",  # unknown, not true
        "NOT missing = 'x'",  # the contrary of unknown
        "missing NOT IN ('x')",
        "missing IN ('x') AND state = 'failed'",
        "missing LIKE '%'",
        "shard LIKE '3'",
        "shard = '3'",  # a number is no text
        "last = 1",  # nor a truth value a number
        "shard / 0 = 1",
        "shard % 0 = 1",
        "'%s' % state = 'failed'",  # no arithmetic with texts
        "state < 3",
        "state LIKE 'F%'",
        "state LIKE 'fail'",
        "state",  # a text is not true
        "1=0",
        "NULL = NULL",
    ],
)
def test_an_expression_that_is_not_true(expression: str) -> None:
    assert not sql_rule(expression)(FACTS)


@pytest.mark.parametrize(
    "expression",
    [
        *("", "state =", "state = 'x' state", "(state = 'x'", "state IN ()", "state IN 'x'"),
        *("state NOT 'x'", "sys.nothing = 1", "other.state = 1", "state = 'open", "state # 1"),
        *("state IS 3", "EXISTS state", "state LIKE 3", "= 3"),
    ],
)
def test_an_expression_outside_the_subset_is_refused(expression: str) -> None:
    with pytest.raises(SqlError):
        sql_rule(expression)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"Label": "audit"}, True),
        ({"Subject": "audit", "MessageId": "m-1"}, True),
        ({"Label": "audit", "To": "elsewhere"}, False),
        ({"ContentType": None}, True),
        ({"CorrelationId": "c"}, False),
        ({"Properties": {"state": "failed", "shard": 3}}, True),
        ({"Properties": {"state": "failed", "missing": "x"}}, False),
        ({"Properties": {"last": 1}}, False),
    ],
)
def test_a_correlation_rule_matches_all_it_names(settings: dict[str, Any], expected: bool) -> None:
    assert correlation_rule(settings)(FACTS) is expected


def test_a_correlation_rule_of_an_unknown_property_is_refused() -> None:
    with pytest.raises(ValueError, match="Colour"):
        correlation_rule({"Colour": "red"})
    assert accept_all(FACTS)
