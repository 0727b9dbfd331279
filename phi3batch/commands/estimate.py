"""`phi3batch estimate`: rows, tokens, time and cost of a file, before anything is sent."""

from argparse import Namespace
from datetime import timedelta
from typing import Any, Final

from phi3batch.checking import Checker, Report, rules_for
from phi3batch.inputs import options_of, prepared
from phi3batch.printing import print_json

_MILLION: Final = 1_000_000


def run(given: Namespace) -> int:
    """0: the estimate is on standard output."""
    checker = Checker(rules_for(options_of(given)))
    with prepared(given, given.file, lambda _: None) as file, file.path.open("rb") as content:
        for _ in checker.refusals(content):
            pass
    found = estimate(checker.report, given)
    if given.json:
        print_json(found)
        return 0
    for line in _lines(found):
        print(line)
    return 0


def estimate(report: Report, given: Namespace) -> dict[str, Any]:
    """What a file comes to; `seconds` and `cost` are null where nothing was said to reckon by."""
    read, written = report.prompt_tokens, report.answer_tokens
    limits = (
        (report.requests, given.requests_per_minute),
        (read + written, given.tokens_per_minute),
    )
    minutes = [amount / limit for amount, limit in limits if limit]
    prices = given.prices
    cost = (read * prices[0] + written * prices[1]) / _MILLION if prices else None
    return {
        "requests": report.requests,
        "refused": report.refused,
        "prompt_tokens": round(read),
        "answer_tokens": round(written),
        "seconds": round(60 * max(minutes)) if minutes else None,
        "cost": None if cost is None else round(cost, 6),
    }


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{found['requests']:,} requests, {found['refused']:,} rows that cannot be asked",
        f"about {found['prompt_tokens']:,} tokens of prompts and {found['answer_tokens']:,} of "
        "answers: estimated on this machine, as the service does before it has asked",
    ]
    if found["seconds"] is not None:
        lines.append(f"at least {timedelta(seconds=found['seconds'])} under these quotas")
    if found["cost"] is not None:
        lines.append(f"about {found['cost']:,.2f} at these prices")
    return lines
