"""Which request goes wrong, and how? Rules by script or by rate; decisions without I/O.

A rule that goes by rate looks at the row and at how often it was asked, never at arrival order,
so one seed spoils the same rows however many workers there are.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from .contracts import Ask, Task
from .throttles import Hint

Fault = Literal[
    # Refused at the door: neither counted against a quota nor billed.
    "http_400",
    "http_401",
    "http_403",
    "http_404",
    "http_410",
    "http_413",
    "http_422",
    "http_429",
    "html_200",
    "reset_before",
    # Admitted, and failed before anything was generated: counted, not billed.
    "http_424",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    # Admitted and billed, as Azure bills a time-out and a filtered prompt.
    "http_408",
    "content_filter_400",
    "reset_after",
    "truncated_body",
    "truncated_stream",
    "stream_error",
    "drip",
    "hang",
    # Billed and answered with 200, but not as expected.
    "content_filter_200",
    "empty_choices",
    "missing_usage",
    "short_embeddings",
    "shuffled_embeddings",
    "wrong_schema",
]

AT_THE_DOOR: frozenset[Fault] = frozenset(
    {
        "http_400",
        "http_401",
        "http_403",
        "http_404",
        "http_410",
        "http_413",
        "http_422",
        "http_429",
        "html_200",
        "reset_before",
    }
)
UNBILLED: frozenset[Fault] = frozenset({"http_424", "http_500", "http_502", "http_503", "http_504"})


class When(BaseModel):
    """What a request must be for a rule to apply; all that is given must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contains: str | None = None
    task: Task | None = None
    model: str | None = None
    stream: bool | None = None
    ordinals: frozenset[int] | None = Field(None, description="positions of arrival, from 1")
    every: int | None = Field(None, ge=1, description="each n-th request to arrive")
    from_seconds: float = Field(0.0, ge=0, description="since the simulator began or was reset")
    until_seconds: float | None = None
    rate: float = Field(1.0, ge=0, le=1)

    def holds_on_arrival(self, ordinal: int, elapsed: float) -> bool:
        """Judge what is known before the body is read."""
        return (
            (self.ordinals is None or ordinal in self.ordinals)
            and (self.every is None or ordinal % self.every == 0)
            and self.from_seconds <= elapsed
            and (self.until_seconds is None or elapsed < self.until_seconds)
        )

    def holds_for(self, ask: Ask) -> bool:
        """Judge what only the body tells."""
        return (
            (self.task is None or self.task == ask.task)
            and (self.model is None or self.model == ask.model)
            and (self.stream is None or self.stream == ask.stream)
            and (self.contains is None or self.contains in ask.text)
        )


class Rule(BaseModel):
    """One line of a script. `times` caps how often it fires, `times_per_row` how often per row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: Fault
    when: When = When()
    times: int | None = Field(None, ge=1)
    times_per_row: int | None = Field(None, ge=1)
    hint: Hint | None = Field(None, description="how a status says to wait; 429: retry-after")
    seconds: float = Field(1.0, ge=0, description="the wait that is hinted")
    lasts: float | None = Field(None, ge=0, description="seconds of a drip or a hang")
    delay: float = Field(0.0, ge=0, description="seconds before a failure of the service shows")
    inner_status: int = Field(500, ge=100, le=599, description="what 424 wraps")

    @property
    def needs_body(self) -> bool:
        """Whether the request must be read before this can be judged."""
        when = self.when
        given = (when.contains, when.task, when.model, when.stream, self.times_per_row)
        return when.rate < 1 or any(value is not None for value in given)


_SCRIPT = TypeAdapter(list[Rule])
_RATES = TypeAdapter(dict[Fault, float])


def read_rules(given: Any) -> tuple[Rule, ...]:
    """Read a script: a list of rules, {"rules": [...]}, or {fault: rate}.

    Raises pydantic.ValidationError, which names the rule and the field.
    """
    if isinstance(given, dict) and "rules" in given:
        given = given["rules"]
    if isinstance(given, dict):
        rates = _RATES.validate_python(given)
        return tuple(Rule(fault=name, when=When(rate=rate)) for name, rate in rates.items())
    return tuple(_SCRIPT.validate_python(given))


class FaultPlan:
    """The rules of a run and how often each has fired. The first rule that applies decides."""

    def __init__(self, seed: int, rules: Sequence[Rule] = ()) -> None:
        self._seed = seed
        # Copies, so that each is told from its equals by identity.
        self.rules = tuple(rule.model_copy() for rule in rules)
        self._fired: Counter[int] = Counter()
        self._fired_for: Counter[tuple[int, str]] = Counter()
        self._asked: Counter[str] = Counter()
        self._by_rate = any(rule.when.rate < 1 for rule in self.rules)

    def on_arrival(self, ordinal: int, elapsed: float) -> Rule | None:
        """The connection reset, if one is due, that needs no look at the body."""
        for index, rule in enumerate(self.rules):
            if (
                rule.fault == "reset_before"
                and not rule.needs_body
                and rule.when.holds_on_arrival(ordinal, elapsed)
                and self._spare(index, rule, "")
            ):
                return rule
        return None

    def decide(self, ordinal: int, elapsed: float, ask: Ask, row: str) -> Rule | None:
        """What would go wrong with this request, if anything; `row` is the key of its row.

        The counts stay as they are: `settle` counts once no other reason has refused the request.
        """
        for index, rule in enumerate(self.rules):
            when = rule.when
            if not (when.holds_on_arrival(ordinal, elapsed) and when.holds_for(ask)):
                continue
            if self._spare(index, rule, row) and self._drawn(index, when.rate, row):
                return rule
        return None

    def settle(self, rule: Rule | None, row: str) -> None:
        """Count that the row was asked, and that the rule, if there is one, has fired."""
        if self._by_rate:
            self._asked[row] += 1
        if rule is None:
            return
        index = next(i for i, each in enumerate(self.rules) if each is rule)
        self._fired[index] += 1
        if rule.times_per_row is not None:
            self._fired_for[index, row] += 1

    def _spare(self, index: int, rule: Rule, row: str) -> bool:
        return (rule.times is None or self._fired[index] < rule.times) and (
            rule.times_per_row is None or self._fired_for[index, row] < rule.times_per_row
        )

    def _drawn(self, index: int, rate: float, row: str) -> bool:
        if rate >= 1:
            return True
        text = f"{self._seed}:{index}:{row}:{self._asked[row]}"
        drawn = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(drawn, "big") < rate * 2**64
