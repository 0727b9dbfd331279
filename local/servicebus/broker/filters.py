"""Which messages a subscription gets.

Source: "Topic filters", Microsoft Learn. SQL filters have a module of their own, `sql`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..codec.values import Value
from .message import PROPERTY_FIELDS, Facts

Rule = Callable[[Facts], bool]


def accept_all(_facts: Facts) -> bool:
    """The rule of a subscription that names none."""
    return True


def correlation_rule(settings: Mapping[str, Any]) -> Rule:
    """Match messages whose properties all equal the given ones; `Subject` is a name for Label.

    Raises:
        ValueError: a name is no property of a message.
    """
    settings = {"Label" if key == "Subject" else key: value for key, value in settings.items()}
    application: dict[str, Value] = dict(settings.pop("Properties", None) or {})
    unknown = settings.keys() - PROPERTY_FIELDS.keys()
    if unknown:
        raise ValueError(f"a correlation filter knows no {', '.join(sorted(unknown))}")
    system = {key: value for key, value in settings.items() if value is not None}

    def matches(facts: Facts) -> bool:
        return all(facts.system.get(key) == value for key, value in system.items()) and all(
            _same(facts.application.get(key), value) for key, value in application.items()
        )

    return matches


def _same(actual: Value, expected: Value) -> bool:
    """Whether two values are equal and of one kind: True is not 1."""
    return actual == expected and isinstance(actual, bool) == isinstance(expected, bool)
