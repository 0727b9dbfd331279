"""`phi3batch validate`: what will the service make of a file?"""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import orjson

from phi3batch.checking import DUPLICATE_CODE, Checker, Report, rules_for
from phi3batch.inputs import REPEATED, Prepared, options_of, prepared
from phi3batch.mistakes import Mistake
from phi3batch.printing import print_json
from phi3batch.tasks import NotAsked
from workers.rows.reading import Refusal

_SHOWN_CHARACTERS = 400


def run(given: Namespace) -> int:
    """0 where every row can be asked, 1 where one cannot."""
    try:
        rules = rules_for(options_of(given))
    except ValueError as error:
        raise Mistake(f"option template: {error}") from None
    checker = Checker(rules, dict(given.context))
    not_asked = 0

    def tell(task: NotAsked) -> None:
        nonlocal not_asked
        not_asked += 1
        _tell(given, {"row": task.row, "custom_id": task.custom_id, "code": task.code,
                      "message": f"row {task.row}: {task.message}"})  # fmt: skip
        checker.report.codes[task.code] += 1

    with prepared(given, given.file, tell) as file, file.path.open("rb") as content:
        for refusal in checker.refusals(content):
            _tell(given, _told(refusal, file))
    report = checker.report
    report.rows += not_asked
    _summarise(given, report)
    return 1 if report.refused or report.foreign else 0


def _told(refusal: Refusal, file: Prepared) -> dict[str, Any]:
    """A refusal as it is printed; in a file that was made of a table lines say nothing."""
    message = refusal.message
    if file.naming is not None:
        message = message.removeprefix(f"line {refusal.line}: ")
        if refusal.code == DUPLICATE_CODE:
            message = REPEATED
        message = f"{refusal.custom_id}: {message}"
    where = {} if file.naming else {"line": refusal.line}
    return {**where, "custom_id": refusal.custom_id, "code": refusal.code, "message": message}


def _tell(given: Namespace, refusal: Mapping[str, Any]) -> None:
    if given.json:
        print_json(refusal)
    else:
        print(f"{refusal['message']} ({refusal['code']})")


def _summarise(given: Namespace, report: Report) -> None:
    if given.json:
        print_json(
            {
                "rows": report.rows,
                "requests": report.requests,
                "refused": report.refused,
                "codes": report.codes,
                "tasks": report.tasks,
                "perhaps_too_long": report.perhaps_too_long,
                "prompt_tokens": round(report.prompt_tokens),
                "answer_tokens": round(report.answer_tokens),
                "foreign": report.foreign,
                "first": report.first,
            }
        )
        return
    for line in _lines(report):
        print(line)


def _lines(report: Report) -> list[str]:
    if report.foreign is not None:
        return [f"no file of requests: {report.foreign}; tables are read with --format"]
    tasks = ", ".join(f"{count:,} {task}" for task, count in report.tasks.items())
    lines = [
        f"{report.rows:,} rows: {report.requests:,} can be asked{f' ({tasks})' if tasks else ''}, "
        f"{report.refused:,} cannot",
        *(f"  {count:,} {code}" for code, count in report.codes.most_common()),
        f"about {report.prompt_tokens:,.0f} tokens of prompts and {report.answer_tokens:,.0f} of "
        "answers, as the service estimates before it has asked",
    ]
    if report.without_model:
        lines.append(
            f"{report.without_model:,} requests name no model: the service takes the one that it "
            "has for their task, where there is only one; else set the option model"
        )
    if report.perhaps_too_long:
        lines.append(
            f"{report.perhaps_too_long:,} requests may be too long for their model, with their "
            "answers, by that estimate"
        )
    if report.first:
        lines.append("the first requests, as they would be sent:")
    return lines + [f"  {_shortened(request)}" for request in report.first]


def _shortened(request: Mapping[str, Any]) -> str:
    text = orjson.dumps(request).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
