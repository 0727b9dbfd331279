"""By how much was a job's estimate wrong, and why may it have been?"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from schemas.money import amount, micros
from schemas.results import Manifest
from workers.jobs.charts import duration

_NOT_RECKONED: Final[Mapping[str, str]] = {
    "Time": "not reckoned: no quota bounds it, or its hours never meet",
    "Cost": "not reckoned: not all that might answer had a price",
}
_WHY_MORE: Final[Mapping[str, str]] = {
    "Prompt tokens": "its text, tools or images have more than 0.5 tokens a byte",
    "Completion tokens": "answers were longer than max_tokens, or than 1,024 where none was given",
    "Time": "its quotas were shared with others, or calls in vain used them up",
    "Cost": "its tokens are, or calls in vain were billed",
}
_WHY_LESS: Final[Mapping[str, str]] = {
    "Rows asked": "rows could not be asked: see the errors",
    "Prompt tokens": "its text has less than 0.2 tokens a byte, or rows could not be asked",
    "Completion tokens": "answers had fewer than 8 tokens, or rows have none",
    "Time": "its quotas allowed more than was known, or rows could not be asked",
    "Cost": "its tokens are",
}


def compared(manifest: Manifest) -> Sequence[Sequence[object]]:
    """What was reckoned, at least and at most, what it took, and by how much that is off, and why.

    Of a job that was ended before its time, or stopped by its cap, the last says so: it took what
    it took.
    """
    told = manifest.estimate
    if told is None:
        return ()
    found: list[tuple[str, tuple[float, float] | None, float | None, Callable[[float], object]]] = [
        ("Rows asked", (told.rows, told.rows), manifest.counts.asked, int),
        ("Prompt tokens", told.prompt_tokens, manifest.tokens.prompt, int),
        ("Completion tokens", told.completion_tokens, manifest.tokens.completion, int),
        ("Time", told.seconds, seconds_between(manifest.started, manifest.finished), duration),
    ]
    if manifest.cost is not None:
        held = told.cost
        cost = None if held is None else (micros(held.least), micros(held.most))
        taken = micros(manifest.cost.counted)
        name = f"Cost, {manifest.cost.currency}"
        found.append((name, cost, taken, lambda of: amount(int(of))))
    return [
        (
            what,
            *(None if each is None else say(each) for each in (*(between or (None, None)), took)),
            _ended_early(manifest) or _off(what.partition(",")[0], between, took, manifest),
        )
        for what, between, took, say in found
        if took is not None
    ]


def _ended_early(manifest: Manifest) -> str | None:
    """Why what a job took says nothing of its estimate."""
    if manifest.state != "completed":
        return f"not compared: the job was ended early ({manifest.state})"
    stopped = "budget_exceeded" in manifest.codes
    return "not compared: its cap kept rows from being asked" if stopped else None


def _off(
    what: str, between: tuple[float, float] | None, took: float, manifest: Manifest
) -> str | None:
    """By how much a range was wrong, and why that may be."""
    if between is None:
        return _NOT_RECKONED.get(what)
    least, most = between
    if least <= took <= most:
        return "within"
    less = took < least
    bound, word = (least, "below the least") if less else (most, "above the most")
    wrong = f"{100.0 * abs(took - bound) / bound:.0f}% {word}" if bound else word
    stood = _stood(manifest, took) if what == "Time" and not less else ""
    why = stood or (_WHY_LESS if less else _WHY_MORE).get(what, "")
    return f"{wrong}: {why}" if why else wrong


def _stood(manifest: Manifest, took: float) -> str:
    """For how long nothing was asked, and for what, of the time that a job took."""
    # A wait for its month came before it began, and took nothing of that time.
    within = {name: long for name, long in manifest.waits.items() if long <= took}
    waited = " and ".join(f"{duration(long)} for its {name}" for name, long in within.items())
    told = [f"it waited {waited}"] if waited else []
    if 0 < manifest.paused_seconds <= took:
        told.append(f"it was paused by hand for {duration(manifest.paused_seconds)}")
    return ", and ".join(told)


def seconds_between(start: str | None, end: str) -> float | None:
    """Seconds from one time to another; None where there was no first."""
    if start is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
