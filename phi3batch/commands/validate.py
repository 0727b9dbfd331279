"""`phi3batch validate`: what will the service make of a file?"""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import orjson

from phi3batch.checking import Checker, Report, rules_for
from phi3batch.inputs import options_of, prepared
from phi3batch.printing import print_json
from phi3batch.tasks import Naming
from workers.intake.planning import too_many_shards
from workers.rows.reading import Refusal

_SHOWN_CHARACTERS = 400


def run(given: Namespace) -> int:
    """The exit status, 0 where every row can be asked, 1 where one cannot."""
    checker = Checker(rules_for(options_of(given)), dict(given.context))
    with prepared(given, given.file) as file, file.path.open("rb") as content:
        for refusal in checker.refusals(content):
            _tell(given, refusal, file.naming)
    report = checker.report
    _summarise(given, report, file.naming)
    failed = report.foreign or report.beyond or report.refused
    return 0 if report.rows and not failed else 1


def _tell(given: Namespace, refusal: Refusal, naming: Naming | None) -> None:
    """Print a refusal with its line, or its row of the table."""
    at = _place(refusal.line, naming)
    place = _words(at)
    message = refusal.message.removeprefix(f"line {refusal.line}: ").removeprefix(f"{place}: ")
    if given.json:
        told = {"custom_id": refusal.custom_id, "code": refusal.code, "message": message}
        print_json({**at, **told})
    else:
        print(f"{place}: {message} ({refusal.code})")


def _place(line: int, naming: Naming | None) -> dict[str, Any]:
    """Where people find a request: in a file that was made of a table lines say nothing."""
    return {"line": line} if naming is None else naming.place(line)


def _words(place: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in place.items())


def _summarise(given: Namespace, report: Report, naming: Naming | None) -> None:
    if given.json:
        print_json(
            {
                "rows": report.rows,
                "requests": report.requests,
                "refused": report.refused,
                "codes": report.codes,
                "tasks": report.tasks,
                "perhaps_too_long": report.perhaps_too_long,
                "perhaps_too_long_lines": report.long_lines,
                "context_unknown": report.contextless,
                "prompt_tokens": round(report.prompt_tokens),
                "answer_tokens": round(report.answer_tokens),
                "foreign": report.foreign,
                "too_large": _too_large(report),
                "first": report.first,
            }
        )
        return
    for line in _lines(report, naming):
        print(line)


def _lines(report: Report, naming: Naming | None) -> list[str]:
    if report.foreign is not None:
        return [f"no file of requests: {report.foreign}; tables are read with --format"]
    if not report.rows:
        return ["the file has no rows: the service fails such a batch (empty_file)"]
    tasks = ", ".join(f"{count:,} {task}" for task, count in report.tasks.items())
    lines = [
        f"{report.rows:,} rows: {report.requests:,} can be asked{f' ({tasks})' if tasks else ''}, "
        f"{report.refused:,} cannot",
        *(f"  {count:,} {code}" for code, count in report.codes.most_common()),
        f"about {report.prompt_tokens:,.0f} tokens of prompts and {report.answer_tokens:,.0f} of "
        "answers, as the service estimates before it has asked",
    ]
    if (why := _too_large(report)) is not None:
        lines.append(f"too large, the service fails such a batch (file_too_large): {why}")
    if report.without_model:
        lines.append(
            f"{report.without_model:,} requests name no model: the service takes the one that it "
            "has for their task, where there is only one; else set the option model"
        )
    if report.perhaps_too_long:
        first = "; ".join(_words(_place(line, naming)) for line in report.long_lines)
        lines.append(
            f"{report.perhaps_too_long:,} requests may be too long for their model, with their "
            f"answers, by that estimate; the first are {first}"
        )
    if report.contextless:
        lines.append(
            f"{report.contextless:,} requests were held against no context, for nothing is asked "
            "of the service: --context says how many tokens their model can read"
        )
    if report.first:
        lines.append("the first requests, as they would be sent:")
    return lines + [f"  {_shortened(request)}" for request in report.first]


def _too_large(report: Report) -> str | None:
    return None if report.beyond is None else too_many_shards(report.beyond)


def _shortened(request: Mapping[str, Any]) -> str:
    text = orjson.dumps(request).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
