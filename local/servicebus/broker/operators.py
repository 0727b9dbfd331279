"""What the operators of a SQL filter do with a message's values.

Source: "Subscription rule SQL filter syntax", Microsoft Learn. Logic has three values: a comparison
with a missing property, or of values that cannot be compared, is unknown (None here).
"""

import operator
import re
from collections.abc import Callable
from typing import Any

from ..codec.values import Value
from .message import Facts

Expression = Callable[[Facts], Value]

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _quotient(a: float, b: float) -> float:
    """The quotient as C# computes it: of two integers, without the remainder."""
    return _times(a, b) if isinstance(a, int) and isinstance(b, int) else a / b


def _remainder(a: float, b: float) -> float:
    """The remainder as C# computes it: with the sign of the dividend."""
    return a - b * _times(a, b)


def _times(a: float, b: float) -> float:
    """How often `b` goes into `a`, towards zero."""
    return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _quotient,
    "%": _remainder,
}


def literal(value: Value) -> Expression:
    """A constant."""
    return lambda _facts: value


def binary(apply: Callable[[Any, Any], Any], left: Expression, right: Expression) -> Expression:
    """A comparison or arithmetic; unknown where the two values are of different families."""

    def evaluate(facts: Facts) -> Value:
        a, b = left(facts), right(facts)
        if a is None or b is None or _kind(a) != _kind(b):
            return None
        try:
            return apply(a, b)
        except (TypeError, ValueError, ArithmeticError):
            return None

    return evaluate


def _kind(value: Value) -> type:
    """The family of values that can be compared with each other."""
    for family in (bool, str):
        if isinstance(value, family):
            return family
    return float if isinstance(value, int | float) else type(value)


def either(left: Expression, right: Expression) -> Expression:
    """OR: true if one value is, unknown if one might be."""

    def evaluate(facts: Facts) -> bool | None:
        values = (left(facts), right(facts))
        if True in values:
            return True
        return None if None in values else False

    return evaluate


def both(left: Expression, right: Expression) -> Expression:
    """AND: false if one value is, unknown if one might be."""

    def evaluate(facts: Facts) -> bool | None:
        values = (left(facts), right(facts))
        if False in values:
            return False
        return None if None in values else True

    return evaluate


def negation(inner: Expression) -> Expression:
    """NOT: the contrary of unknown is unknown."""

    def evaluate(facts: Facts) -> bool | None:
        value = inner(facts)
        return None if value is None else not value

    return evaluate


def like(pattern: str, escape: str) -> re.Pattern[str]:
    """The regular expression of a LIKE pattern: % any text, _ any character."""
    parts, characters = [], iter(pattern)
    for character in characters:
        if character == escape:
            parts.append(re.escape(next(characters, escape)))
        else:
            parts.append({"%": ".*", "_": "."}.get(character) or re.escape(character))
    return re.compile("".join(parts), re.DOTALL)
