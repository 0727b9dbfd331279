"""Misbehaviour on request: what a test wants to go wrong, where and how often.

Source of what really happens: the retry guidance of Service Bus on Microsoft Learn. A fault is
drawn once for each operation that could meet it; the first rule that applies wins.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any


class Kind(StrEnum):
    """What goes wrong."""

    DROP = "drop"  # the connection breaks, and the operation has no effect
    LOSE_ACK = "lose-ack"  # the operation has its effect, then the connection breaks
    DELAY_ACK = "delay-ack"  # the operation has its effect; its answer comes `delay` seconds late
    BUSY = "busy"  # the operation is refused with com.microsoft:server-busy
    TWICE = "twice"  # a message's lock is lost as it is delivered, so that it comes again at once


class Operation(StrEnum):
    """Where it goes wrong."""

    ATTACH = "attach"
    SEND = "send"
    SETTLE = "settle"
    MANAGE = "manage"
    DELIVER = "deliver"


_POSSIBLE = {
    Kind.DROP: set(Operation),
    Kind.LOSE_ACK: {Operation.SEND, Operation.SETTLE, Operation.MANAGE},
    Kind.DELAY_ACK: {Operation.SEND, Operation.SETTLE, Operation.MANAGE},
    Kind.BUSY: {Operation.ATTACH, Operation.SEND, Operation.SETTLE, Operation.MANAGE},
    Kind.TWICE: {Operation.DELIVER},
}


# How the settings of a rule are read from text.
_READERS: dict[str, Callable[[str], Any]] = {
    "entity": str,
    "probability": float,
    "skip": int,
    "times": int,
    "delay": float,
}


@dataclass
class Fault:
    """One rule: `kind` befalls `on` at `entity` (None: any), after `skip` have been spared.

    It befalls each with `probability`, at most `times` times (None: for ever). `delay` is in
    seconds and matters to DELAY_ACK only.
    """

    kind: Kind
    on: Operation
    entity: str | None = None
    probability: float = 1.0
    skip: int = 0
    times: int | None = None
    delay: float = 1.0

    def __post_init__(self) -> None:
        self.kind, self.on = Kind(self.kind), Operation(self.on)
        if self.on not in _POSSIBLE[self.kind]:
            raise ValueError(f"{self.kind} cannot befall {self.on}")
        if not 0 <= self.probability <= 1 or min(self.skip, self.delay, self.times or 0) < 0:
            raise ValueError("a probability is 0 to 1, and skip, times and delay are not negative")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read `kind:operation[,name=value...]`, as in `busy:send,entity=jobs,probability=0.1`.

        Raises:
            ValueError: the kind, the operation or a name is unknown, or a value is no number.
        """
        head, *settings = text.split(",")
        kind, _, operation = head.partition(":")
        values = dict(item.partition("=")[::2] for item in settings)
        if unknown := values.keys() - _READERS.keys():
            raise ValueError(f"a fault knows no {', '.join(sorted(unknown))}")
        settings_read = {name: _READERS[name](value) for name, value in values.items()}
        return cls(Kind(kind), Operation(operation), **settings_read)

    def _applies(self, operation: Operation, path: str) -> bool:
        return (
            self.on == operation
            and self.times != 0
            and (self.entity is None or self.entity.lower() == path.lower())
        )


class Faults:
    """The rules in force; `rules` may be changed at any time."""

    def __init__(self, rules: Iterable[Fault] = (), seed: int = 0) -> None:
        self.rules = list(rules)
        self._random = Random(seed)

    def draw(self, operation: Operation, path: str) -> Fault | None:
        """The fault that befalls this operation, if one does."""
        for rule in self.rules:
            if not rule._applies(operation, path):
                continue
            if rule.skip > 0:
                rule.skip -= 1
            elif self._random.random() < rule.probability:
                rule.times = rule.times - 1 if rule.times is not None else None
                return rule
        return None
