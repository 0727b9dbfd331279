"""`phi3batch estimate`: rows, tokens, time and cost of a file, before anything is sent."""

from argparse import Namespace
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from phi3batch.checking import Checker, Report, rules_for
from phi3batch.inputs import options_of, prepared
from phi3batch.printing import print_json
from schemas.openai import EstimateCreate, EstimateGroup

_MILLION: Final = 1_000_000


def run(given: Namespace) -> int:
    """0: the estimate is on standard output."""
    checker = Checker(rules_for(options_of(given)))
    with prepared(given, given.file) as file, file.path.open("rb") as content:
        for _ in checker.refusals(content):
            pass
    report = checker.report
    found = {**tokens(report), **(_by_limits(report, given) or _by_service(report))}
    found["cost"] = cost(report, given.prices)
    if given.json:
        print_json(found)
    else:
        for line in _lines(found):
            print(line)
    return 0


def tokens(report: Report) -> dict[str, Any]:
    """What a file holds, by the estimates that the service begins with."""
    return {
        "requests": report.requests,
        "refused": report.refused,
        "prompt_tokens": round(report.prompt_tokens),
        "answer_tokens": round(report.answer_tokens),
    }


def cost(report: Report, prices: tuple[float, float] | None) -> float | None:
    """By prices of a million tokens read and written; None without them."""
    if prices is None:
        return None
    read, written = prices
    return round((report.prompt_tokens * read + report.answer_tokens * written) / _MILLION, 6)


def _by_limits(report: Report, given: Namespace) -> dict[str, Any] | None:
    limits = (
        (report.requests, given.requests_per_minute),
        (report.prompt_tokens + report.answer_tokens, given.tokens_per_minute),
    )
    minutes = [amount / limit for amount, limit in limits if limit]
    return {"basis": "arguments", "seconds": round(60 * max(minutes))} if minutes else None


def _by_service(report: Report) -> dict[str, Any]:
    """By the quotas of the service that the environment names, if there is one that says."""
    unknown: dict[str, Any] = {"basis": None, "seconds": None}
    # Loads the SDK, which takes most of a second.
    from phi3batch.service import connected, is_known  # noqa: PLC0415

    if not report.asked or not is_known():
        return unknown
    groups = [
        EstimateGroup(
            model=model,
            task=task,
            requests=each.requests,
            prompt_tokens=each.prompt_tokens,
            answer_tokens=each.answer_tokens,
        )
        for (task, model), each in report.asked.items()
    ]
    with connected() as service:
        told = service.estimate(EstimateCreate(requests=groups))
    if told is None:
        return unknown
    shared = None if told.seconds_shared is None else round(told.seconds_shared)
    unserved = [f"{each.task} by {each.model or 'no model'}" for each in told.unserved]
    seconds = None if told.seconds is None else round(told.seconds)
    cost = None if told.cost is None else told.cost.model_dump()
    return {
        "basis": "service",
        "seconds": seconds,
        "seconds_shared": shared,
        "unserved": unserved,
        "service_cost": cost,
    }


def _lines(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{found['requests']:,} requests, {found['refused']:,} rows that cannot be asked",
        f"about {found['prompt_tokens']:,} tokens of prompts and {found['answer_tokens']:,} of "
        "answers: estimated on this machine, as the service does before it has asked",
    ]
    if found["seconds"] is not None:
        whose = "the service's" if found["basis"] == "service" else "these"
        lines.append(f"at least {timedelta(seconds=found['seconds'])} under {whose} quotas")
    elif found["basis"] is None:
        lines.append("time: set PHI3BATCH_URL and PHI3BATCH_KEY, or say --requests-per-minute")
    elif not found["unserved"]:
        lines.append("time: no quota of the service bounds it")
    if (shared := found.get("seconds_shared")) is not None and shared > found["seconds"]:
        lines.append(f"about {timedelta(seconds=shared)} as they are shared with other jobs now")
    lines += [f"no deployment of the service answers {each}" for each in found.get("unserved", ())]
    if (range_ := found.get("service_cost")) is not None:
        least, most = range_["least"], range_["most"]
        amount = least if least == most else f"between {least} and {most}"
        lines.append(f"{amount} {range_['currency']} at the service's prices")
    if found["cost"] is not None:
        lines.append(f"about {found['cost']:,.6f} at these prices")
    return lines
