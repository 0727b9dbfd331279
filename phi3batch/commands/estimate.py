"""`phi3batch estimate`: rows, tokens, time and cost of a file, before anything is sent."""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any, Final

from phi3batch.checking import Checker, Report, rules_for
from phi3batch.inputs import options_of, prepared
from phi3batch.printing import print_json
from phi3batch.statuses import NOT_DONE
from schemas.estimating import CapFit, EstimateCreate, EstimateGroup, Fits
from schemas.jobs import JobOptions, window_seconds
from schemas.money import amount, micros
from workers.intake.fitting import doubted, own_caps
from workers.intake.quota_time import USED, job_seconds
from workers.rows.capped import UNBOUNDED
from workers.rows.token_ranges import LEAST, MOST, pledged, summed

_NAME_ONE: Final = "name a model that GET /v1/models tells of, by -O model=MODEL"
_MONTH: Final = "max_cost_per_month"
_WAITS: Final[Mapping[Fits, str]] = {
    "yes": "; the batch waits until there is room",
    "no": "; it would not fit the whole month either, so the batch fails at once",
    "perhaps": "; the batch waits until there is room, or fails at once if the most that its rows "
    "can cost is more than the whole month: name a max_cost, which is reserved in its place",
}
_FITS: Final = {"yes": "it fits", "no": "it does not fit", "perhaps": "perhaps it fits"}


def run(given: Namespace) -> int:
    """Print the estimate; the exit status is 1 where some of it would surely have no answer."""
    options = options_of(given)
    checker = Checker(rules_for(options), pledging=True)
    with prepared(given, given.file) as file, file.path.open("rb") as content:
        for _ in checker.refusals(content):
            pass
    report = checker.report
    groups = report.groups
    found = counted(report, groups)
    found |= _by_limits(groups, given) or _by_service(groups, options)
    reckoned = found["cost"]
    if given.prices is not None:
        found["cost"] = cost(groups, given.prices)
    caps = found["caps"] if "caps" in found else _caps(pledged(groups), options, given.prices)
    if not report.bounded:
        caps = doubted(caps, options.max_cost)
    found["caps"] = [each.model_dump() for each in caps]
    month = next((each for each in found["caps"] if each["cap"] == _MONTH), None)
    waits = _waits(month, options, reckoned)
    found["fails"] = list(_fails(found, options.completion_window, waits))
    if given.json:
        print_json(found)
    else:
        for line in _lines(found, waits):
            print(line)
    return NOT_DONE if found["fails"] else 0


def counted(report: Report, groups: Sequence[EstimateGroup]) -> dict[str, Any]:
    """What a file holds. Ranges are least and most, as in estimate.json."""
    prompts, answers = summed(groups)
    return {
        "requests": report.requests,
        "refused": report.refused,
        "codes": report.codes,
        "unlimited": sum(each.count - each.limited for each in report.asked.values()),
        "prompt_tokens": list(prompts),
        "completion_tokens": list(answers),
    }


def cost(groups: Sequence[EstimateGroup], prices: tuple[Decimal, Decimal]) -> dict[str, Any]:
    """By prices of a million tokens read and written."""
    least, most = (amount(_micros(groups, end, prices)) for end in (LEAST, MOST))
    return {"currency": None, "least": least, "most": most}


def _micros(groups: Sequence[EstimateGroup], end: int, prices: tuple[Decimal, Decimal]) -> int:
    """Exact, and rounded up once, as the service does."""
    read, written = map(Fraction, prices)
    tokens = [map(round, group.tokens(end)) for group in groups]
    return ceil(sum(prompts * read + answers * written for prompts, answers in tokens))


def _by_limits(groups: Sequence[EstimateGroup], given: Namespace) -> dict[str, Any] | None:
    """By the quotas that the arguments name, if they name one."""
    if given.requests_per_minute is None and given.tokens_per_minute is None:
        return None
    prompts, answers = summed(groups)
    # Embeddings share calls: how many, nobody knows before.
    alone = sum(each.requests for each in groups if each.task != "embeddings")
    calls = alone, sum(each.requests for each in groups)
    least, most = (
        60.0 * max(need / limit for need, limit in needs if limit)
        for needs in (
            [
                (calls[end], given.requests_per_minute),
                (prompts[end] + answers[end], given.tokens_per_minute),
            ]
            for end in (LEAST, MOST)
        )
    )
    return {"basis": "arguments", "seconds": job_seconds(least, most / USED), "cost": None}


def _by_service(groups: list[EstimateGroup], options: JobOptions) -> dict[str, Any]:
    """By the quotas of the service that the environment names, if there is one that says."""
    unknown: dict[str, Any] = {"basis": None, "seconds": None, "cost": None}
    # Loads the SDK, which takes most of a second.
    from phi3batch.service import connected, is_known  # noqa: PLC0415

    if not groups or not is_known():
        return unknown
    with connected() as service:
        told = service.estimate(
            EstimateCreate(
                requests=groups,
                priority=options.priority or "normal",
                max_cost=options.max_cost,
                max_total_tokens=options.max_total_tokens,
            )
        )
    if told is None:
        return unknown
    return {
        "basis": "service",
        "seconds": told.job_seconds,
        "closed_seconds": told.closed_seconds,
        "unserved": [_what(each) for each in told.unserved],
        "cost": None if told.cost is None else told.cost.model_dump(),
        "caps": told.caps,
    }


def _what(group: EstimateGroup) -> str:
    """What nobody answers. A request may name no model where one model alone does its task."""
    if group.model is not None:
        return f"{group.task} by {group.model}"
    return f"{group.task} requests that name no model"


def _caps(
    pledges: Sequence[EstimateGroup], options: JobOptions, prices: tuple[Decimal, Decimal] | None
) -> list[CapFit]:
    told = None if prices is None else cost(pledges, prices)
    range_ = None if told is None else (told["least"], told["most"])
    return own_caps(options.max_cost, options.max_total_tokens, summed(pledges), range_)


def _waits(
    month: Mapping[str, Any] | None, options: JobOptions, reckoned: Mapping[str, Any] | None
) -> Fits | None:
    """Whether a job that does not fit what its month has left waits for room; None: it does not
    even with `on_budget`, or it fits. What is more than the whole month fails at once.

    A job without a `max_cost` reserves no less than the most that it is `reckoned` to cost.
    """
    if month is None or month["fits"] != "no" or options.on_budget != "pause":
        return None
    whole = micros(month["limit"])
    if options.max_cost is not None:
        return "yes" if micros(options.max_cost) <= whole else "no"
    return "no" if reckoned is not None and micros(reckoned["most"]) > whole else "perhaps"


def _fails(found: Mapping[str, Any], window: str, waits: Fits | None) -> Iterator[str]:
    """Why some of it would surely have no answer, if it were sent as it is.

    Rows that cannot be asked are no reason, for they do not keep the others from their answers; a
    month in which a job waits for room, or perhaps does, is none either.
    """
    unbounded = found["codes"].get(UNBOUNDED, 0)
    if found["caps"]:
        unbounded = unbounded or found["unlimited"]
    if unbounded:
        yield f"{_without_limit(unbounded)}, which a cap needs of each"
    elif not found["requests"]:
        yield "nothing in it can be asked"
    for each in found.get("unserved", ()):
        yield f"no deployment answers {each}"
    closed = found.get("closed_seconds", 0)
    if closed is None:
        yield "what may answer is never open at the hours of its priority"
    elif closed >= window_seconds(window):
        yield f"what may answer opens after its completion_window of {window} has ended"
    elif found["seconds"] is not None and found["seconds"][LEAST] > window_seconds(window):
        least = _duration(found["seconds"][LEAST])
        yield f"its quotas take {least} at least, and its completion_window is {window}"
    for told in found["caps"]:
        if (reason := told.get("reason")) is not None:
            yield reason
        elif told["fits"] == "no" and (told["cap"] != _MONTH or waits in (None, "no")):
            yield f"{told['cap']} has no room for it"


def _without_limit(count: int) -> str:
    return f"{count:,} request{' names' if count == 1 else 's name'} no max_tokens"


def _lines(found: Mapping[str, Any], waits: Fits | None) -> list[str]:
    codes = ", ".join(f"{count:,} {code}" for code, count in found["codes"].most_common())
    refused = f"{found['refused']:,} rows that cannot be asked" + (f": {codes}" if codes else "")
    lines = [f"{found['requests']:,} requests, {refused}"]
    if not found["requests"]:
        lines.append("nothing to reckon: `phi3batch validate` says what is wrong with each row")
        return [*lines, *_last_line(found)]
    prompts, answers = (
        _range(f"{least:,}", f"{most:,}")
        for least, most in (found["prompt_tokens"], found["completion_tokens"])
    )
    lines.append(
        f"tokens of prompts: {prompts}, of answers: {answers}; estimated on this machine, as the "
        "service does when it plans the file"
    )
    lines += [*_time_lines(found), *_cost_lines(found)]
    if found["caps"] and found["unlimited"]:
        lines.append(
            f"{_without_limit(found['unlimited'])}: with a cap the batch would fail for that "
            "before anything is asked"
        )
    partly = bool(found.get("unserved"))
    return [*lines, *(_cap_line(each, partly, waits) for each in found["caps"]), *_last_line(found)]


def _last_line(found: Mapping[str, Any]) -> list[str]:
    return [f"not to be sent as it is: {'; '.join(found['fails'])}"] if found["fails"] else []


def _time_lines(found: Mapping[str, Any]) -> list[str]:
    unserved = found.get("unserved", ())
    lines = [f"no deployment of the service answers {each}; {_NAME_ONE}" for each in unserved]
    if found.get("closed_seconds", 0) is None:
        never = "nothing that may answer is ever open at the hours of this priority"
        return [*lines, f"{never}: name another, or ask for other hours"]
    if found["seconds"] is not None:
        least, most = (_duration(each) for each in found["seconds"])
        whose = "these quotas"
        if found["basis"] == "service":
            whose = "the service's quotas: by them alone, and in their hours as they are shared now"
        if closed := round(found.get("closed_seconds", 0)):
            lines.append(f"nothing is asked for {_duration(closed)}: then hours begin")
        return [f"from {least} to {most} under {whose}", *lines]
    if found["basis"] is None:
        return ["time: set PHI3BATCH_URL and PHI3BATCH_KEY, or say --requests-per-minute"]
    return lines or ["time: no quota of the service bounds it"]


def _duration(seconds: float) -> timedelta:
    """To the second; rows may ask for more than any timedelta holds."""
    return timedelta(seconds=min(round(seconds), timedelta.max // timedelta(seconds=1)))


def _cost_lines(found: Mapping[str, Any]) -> list[str]:
    told = found["cost"]
    if told is None:
        if found["basis"] != "service" or found["unserved"]:
            return []
        return [
            "cost: not known, for a deployment that may answer has no price; name yours by --prices"
        ]
    currency, amount = told["currency"], _range(told["least"], told["most"])
    whose = "at these prices" if currency is None else f"{currency} at the service's prices"
    return [f"{amount} {whose}"]


def _range(least: str, most: str) -> str:
    return least if least == most else f"from {least} to {most}"


def _cap_line(told: Mapping[str, Any], partly: bool, waits: Fits | None) -> str:
    cap, limit, left = told["cap"], told["limit"], told["left"]
    whole = f"{limit:,}" if isinstance(limit, int) else limit
    if (reason := told.get("reason")) is not None:
        return f"{cap} {whole}: the batch would fail: {reason}"
    if told["fits"] == "perhaps" and partly:
        return f"{cap} {whole}: nobody can tell, for not all of it would be answered"
    if cap != _MONTH:
        return f"{cap} {whole}: {_FITS[told['fits']]}, by this estimate"
    rest = "nobody can tell what is left of it" if left is None else f"{left} of it is left"
    what = f"{cap} {whole}, and {rest}: {_FITS[told['fits']]}"
    if waits is not None:
        return what + _WAITS[waits]
    if told["fits"] == "perhaps" and left is not None:
        return f"{what}; name a max_cost, for without one the most that rows can cost is reserved"
    return what
