"""By how much was a job's estimate wrong, and why may it have been?"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from schemas.estimates import JobEstimate
from schemas.money import amount, micros
from schemas.results import Manifest
from workers.jobs.charts import duration

# Calls that an estimate knows nothing of.
_IN_VAIN: Final = ("throttled", "transient", "timeout", "auth", "gone")
_WHY_LESS: Final[Mapping[str, str]] = {
    "Prompt tokens": "its text has less than 0.2 tokens a byte",
    "Completion tokens": "answers had fewer than 8 tokens",
    "Time": "its quotas allowed more than was known",
    "Cost": "it had fewer tokens",
}
_WHY_MORE: Final[Mapping[str, str]] = {
    "Prompt tokens": "its text, tools or images have more than 0.5 tokens a byte",
    "Completion tokens": "answers were longer than max_tokens, or than 1,024 where none was given",
}
_WAITS: Final[Mapping[str, str]] = {
    "outage": "rows waited for an outage to end",
    "day": "rows waited for the next day's requests",
    "hours": "rows waited for a deployment's hours",
    "concurrency": "rows waited for calls in flight to end",
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
        return f"not reckoned: {_not_reckoned(what, manifest)}"
    least, most = between
    if least <= took <= most:
        return "within"
    less = took < least
    bound, word = (least, "below the least") if less else (most, "above the most")
    wrong = f"{100.0 * abs(took - bound) / bound:.0f}% {word}" if bound else word
    why = (_why_less if less else _why_more)(what, took, manifest)
    return f"{wrong}: {why}" if why else wrong


def _not_reckoned(what: str, manifest: Manifest) -> str:
    told = manifest.estimate
    if told is None or not told.rows or not manifest.counts.asked:
        return "no row could be asked"
    if what == "Time":
        never = "the hours of what may answer never met"
        return f"when it was planned, {never}" if told.bounds else "no quota bounds it"
    might = {name for bound in told.bounds for name in bound.deployments} | set(manifest.use)
    unpriced = sorted(might - manifest.prices.keys())
    none = f"{', '.join(unpriced)} had no price"
    return none if unpriced else "not all that might answer had a price"


def _why_more(what: str, took: float, manifest: Manifest) -> str:
    if what == "Time":
        return _why_longer(took, manifest)
    return _why_dearer(manifest) if what == "Cost" else _WHY_MORE.get(what, "")


def _why_longer(took: float, manifest: Manifest) -> str:
    """What took a job's time; others with its quotas, where rows waited for those alone."""
    use, told = manifest.use.values(), _stood(manifest, took)
    waits = [each.row_seconds_waited for each in use]
    waited = {reason for each in waits for reason, seconds in each.items() if seconds >= 1.0}
    told += [words for reason, words in _WAITS.items() if reason in waited]
    crashes = manifest.cost.crashes if manifest.cost is not None else 0
    if crashes:
        told.append(f"{_many(crashes, 'attempt')} at shards ended with their worker")
    shared = "its quotas were shared with others" if "quota" in waited and not told else ""
    vain = sum(each.outcomes.get(kind, 0) for each in use for kind in _IN_VAIN)
    if vain:
        told.append(f"{_many(vain, 'call')} {_were(vain)} in vain")
    known = _listed(told)
    if known and shared:
        return f"{known}, or {shared}"
    return known or shared or "no wait explains it: answers were slow, or workers were busy"


def _why_dearer(manifest: Manifest) -> str:
    told, tokens = manifest.estimate, manifest.tokens
    more = told is not None and (
        tokens.prompt > told.prompt_tokens.most or tokens.completion > told.completion_tokens.most
    )
    billed = sum(each.tokens for each in manifest.use.values()) > tokens.total
    causes = (("it had more tokens", more), ("calls in vain were billed", billed))
    return _listed([words for words, so in causes if so])


def _why_less(what: str, took: float, manifest: Manifest) -> str:
    """What was not asked or not told, and, where that cannot be all, what else it may be."""
    missing = _missing(what, manifest)
    told = _listed([words for _, words in missing])
    own = _WHY_LESS.get(what)
    if own is None or manifest.estimate is None:
        return told
    share = sum(count for count, _ in missing) / max(1, manifest.estimate.rows)
    enough = missing and took >= (1.0 - share) * _least(what, manifest.estimate)
    return told if enough else f"{told}, or {own}" if told else own


def _least(what: str, told: JobEstimate) -> float:
    return {
        "Prompt tokens": told.prompt_tokens.least,
        "Completion tokens": told.completion_tokens.least,
        "Time": told.seconds[0] if told.seconds else 0.0,
        "Cost": micros(told.cost.least) if told.cost else 0.0,
    }[what]


def _missing(what: str, manifest: Manifest) -> Sequence[tuple[int, str]]:
    """Rows that were not asked, and what was asked and is not in what was told, with how many."""
    told, use = manifest.estimate, manifest.use.values()
    left = max(0, (told.rows if told else 0) - manifest.counts.asked)
    found = [(left, f"{_many(left, 'row')} {_were(left)} not asked: see the errors")]
    if what not in ("Rows asked", "Time"):
        unmetered = sum(each.unmetered_calls for each in use)
        cost, failed = manifest.cost if what == "Cost" else None, manifest.counts.failed
        unpriced = cost.unpriced_calls if cost else 0
        found = [
            (unmetered, f"{_many(unmetered, 'call')} told no tokens"),
            (
                unpriced,
                f"{_many(unpriced, 'call')} {_were(unpriced)} to deployments without a price",
            ),
            (failed, f"{_many(failed, 'row')} {_were(failed)} asked in vain"),
            *found,
        ]
    return [(count, words) for count, words in found if count]


def _stood(manifest: Manifest, took: float) -> list[str]:
    """For how long nothing was asked, and for what, of the time that a job took."""
    # A wait for its month came before it began, and took nothing of that time.
    within = {name: long for name, long in manifest.waits.items() if long <= took}
    waited = " and ".join(f"{duration(long)} for its {name}" for name, long in within.items())
    told = [f"it waited {waited}"] if waited else []
    if 0 < manifest.paused_seconds <= took:
        told.append(f"it was paused by hand for {duration(manifest.paused_seconds)}")
    return told


def _listed(words: Sequence[str]) -> str:
    *first, last = words or ("",)
    return f"{', '.join(first)}, and {last}" if first else last


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def seconds_between(start: str | None, end: str) -> float | None:
    """Seconds from one time to another; None where there was no first."""
    if start is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
