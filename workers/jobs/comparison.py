"""By how much was a job's estimate wrong, and why may it have been?"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from schemas.estimates import JobEstimate
from schemas.money import amount, micros
from schemas.results import DeploymentUse, Manifest
from workers.jobs.charts import duration

# Calls that an estimate knows nothing of.
_IN_VAIN: Final = ("transient", "timeout", "auth", "gone")
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
_OF_CALLS: Final = frozenset({"Prompt tokens", "Completion tokens", "Cost"})
_WAITS: Final[Mapping[str, str]] = {
    "throttled": "rows waited where endpoints had answered 429",
    "outage": "rows waited for an outage to end",
    "day": "rows waited for the next day's requests",
    "hours": "rows waited for a deployment's hours",
    "concurrency": "rows waited for calls in flight to end",
}
# Of what a job took above the most, and of all that it took, what a wait has to explain to be told.
_OF_WHAT_IS_MORE: Final = 0.1
_OF_THE_WHOLE: Final = 0.01


def row_waits(use: Mapping[str, DeploymentUse]) -> Mapping[str, float]:
    """Seconds that rows waited, all of them together, by what they waited for."""
    waits: dict[str, float] = {}
    for each in use.values():
        for reason, seconds in each.row_seconds_waited.items():
            waits[reason] = waits.get(reason, 0.0) + seconds
    return waits


def compared(manifest: Manifest, crashes: int | None = None) -> Sequence[Sequence[object]]:
    """What was reckoned, at least and at most, what it took, and by how much that is off, and why.

    `crashes` are the attempts that ended with their worker; a manifest tells of them with the cost
    alone. Of a job that was ended before its time, or stopped by its cap, the last says so: it took
    what it took.
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
        crashes = manifest.cost.crashes if crashes is None else crashes
        found.append((name, cost, taken, lambda of: amount(int(of))))
    return [
        (
            what,
            *(None if each is None else say(each) for each in (*(between or (None, None)), took)),
            _ended_early(manifest)
            or _off(what.partition(",")[0], between, took, manifest, crashes),
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
    what: str,
    between: tuple[float, float] | None,
    took: float,
    manifest: Manifest,
    crashes: int | None,
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
    if less:
        why = _why_less(what, took, manifest)
    elif what == "Time":
        why = _why_longer(took, took - most, manifest, crashes)
    else:
        why = _why_dearer(manifest) if what == "Cost" else _WHY_MORE.get(what, "")
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


def _why_longer(took: float, more: float, manifest: Manifest, crashes: int | None) -> str:
    """What took a job's time; others with its quotas, where what is known is not most of it."""
    least = max(_OF_WHAT_IS_MORE * more, _OF_THE_WHOLE * took)
    waits = _explained(manifest.use, took)
    long = {reason: seconds for reason, seconds in waits.items() if seconds >= least}
    causes = _stood(manifest, took)
    causes += [(long[reason], words) for reason, words in _WAITS.items() if reason in long]
    told = [words for _, words in causes]
    if crashes:
        told.append(f"{_many(crashes, 'attempt')} at shards ended with their worker")
    refused = _ended(manifest, "throttled")
    if refused:
        told.append(f"{_many(refused, 'call')} {_were(refused)} refused with 429")
    vain = _ended(manifest, *_IN_VAIN)
    if vain:
        told.append(f"{_many(vain, 'call')} {_were(vain)} in vain")
    known = _listed(told)
    if "quota" in long and 2.0 * sum(seconds for seconds, _ in causes) < more:
        shared = "its quotas were shared with others"
        return f"{known}, or {shared}" if known else shared
    # Without a cost nobody may have told of workers that went away.
    busy = "workers were busy" if crashes is not None else "workers were busy or went away"
    return known or f"no wait explains it: answers were slow, or {busy}"


def _explained(use: Mapping[str, DeploymentUse], took: float) -> Mapping[str, float]:
    """How much of a job's time its rows' waits may explain, by what they waited for.

    Rows wait side by side: each wait has the part of the time that it has of all waits, and never
    more than rows waited for it.
    """
    waits = row_waits(use)
    whole = sum(waits.values())
    part = min(1.0, took / whole) if whole else 0.0
    return {reason: part * seconds for reason, seconds in waits.items()}


def _why_dearer(manifest: Manifest) -> str:
    told, tokens = manifest.estimate, manifest.tokens
    more = told is not None and (
        tokens.prompt > told.prompt_tokens.most or tokens.completion > told.completion_tokens.most
    )
    billed = sum(each.tokens for each in manifest.use.values()) > tokens.total
    causes = (("it had more tokens", more), ("calls in vain were billed", billed))
    return _listed([words for words, so in causes if so])


def _ended(manifest: Manifest, *outcomes: str) -> int:
    return sum(each.outcomes.get(how, 0) for each in manifest.use.values() for how in outcomes)


def _why_less(what: str, took: float, manifest: Manifest) -> str:
    """What was not asked or not told, and, where that cannot be all, what else it may be."""
    missing = _missing(what, manifest)
    told = _listed(missing)
    own = _WHY_LESS.get(what)
    if own is None or manifest.estimate is None:
        return told
    share = min(1.0, _rows_missing(what, manifest) / max(1, manifest.estimate.rows))
    enough = missing and took >= (1.0 - share) * _least(what, manifest.estimate)
    return told if enough else f"{told}, or {own}" if told else own


def _least(what: str, told: JobEstimate) -> float:
    return {
        "Prompt tokens": told.prompt_tokens.least,
        "Completion tokens": told.completion_tokens.least,
        "Time": told.seconds[0] if told.seconds else 0.0,
        "Cost": micros(told.cost.least) if told.cost else 0.0,
    }[what]


def _missing(what: str, manifest: Manifest) -> Sequence[str]:
    """Rows that were not asked, and what was asked and is not in what was told, with how many."""
    left, failed = _not_asked(manifest), manifest.counts.failed
    found = [(left, f"{_many(left, 'row')} {_were(left)} not asked: see the errors")]
    if what in _OF_CALLS:
        unmetered, unpriced = _unmetered(manifest), _unpriced(what, manifest)
        found = [
            (unmetered, f"{_many(unmetered, 'call')} told no tokens"),
            (
                unpriced,
                f"{_many(unpriced, 'call')} {_were(unpriced)} to deployments without a price",
            ),
            (failed, f"{_many(failed, 'row')} {_were(failed)} asked in vain"),
            *found,
        ]
    return [words for count, words in found if count]


def _rows_missing(what: str, manifest: Manifest) -> int:
    """How many rows at least were not asked, or are not in what was told, each counted once.

    Calls are no rows: as many as there are more calls than answers may have told nothing though
    each answer did. One that told no tokens may be one without a price.
    """
    if what not in _OF_CALLS:
        return _not_asked(manifest)
    counts, calls = manifest.counts, sum(each.calls for each in manifest.use.values())
    untold = max(0, _unmetered(manifest) - max(0, calls - counts.succeeded))
    silent = min(counts.succeeded, max(untold, _unpriced(what, manifest)))
    return _not_asked(manifest) + counts.failed + silent


def _not_asked(manifest: Manifest) -> int:
    return max(0, (manifest.estimate.rows if manifest.estimate else 0) - manifest.counts.asked)


def _unmetered(manifest: Manifest) -> int:
    return sum(each.unmetered_calls for each in manifest.use.values())


def _unpriced(what: str, manifest: Manifest) -> int:
    return manifest.cost.unpriced_calls if what == "Cost" and manifest.cost else 0


def _stood(manifest: Manifest, took: float) -> list[tuple[float, str]]:
    """For how long nothing was asked, and for what, of the time that a job took."""
    # A wait for its month came before it began, and took nothing of that time.
    within = {name: long for name, long in manifest.waits.items() if long <= took}
    waited = " and ".join(f"{duration(long)} for its {name}" for name, long in within.items())
    told = [(sum(within.values()), f"it waited {waited}")] if waited else []
    paused = manifest.paused_seconds
    if 0 < paused <= took:
        told.append((paused, f"it was paused by hand for {duration(paused)}"))
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
