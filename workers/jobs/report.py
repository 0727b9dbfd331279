"""`report.html`: how a job went, of its manifest and its series alone, so that it is the same byte
for byte.

The file needs nothing beside it and runs nothing. Other people's text is text in it, and what may
hold prompts is never in it.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from html import escape
from typing import Any, Final

from schemas.history import Sample
from schemas.jobs import JobOptions
from schemas.money import Cost, amount
from schemas.reports import mark
from schemas.results import CodeCount, Counts, DeploymentUse, Manifest
from schemas.sketches import Sketch, merged, quantiles
from workers.jobs.advice import advised
from workers.jobs.charts import bar, by_seconds, duration, over_time
from workers.jobs.comparison import compared, row_waits, seconds_between

SHARES: Final = (0.5, 0.9, 0.95, 0.99)
# What else an option says may be part of prompts.
_TOLD_OPTIONS: Final = frozenset(
    {"model", "template_for", "on_missing", "completion_window", "on_invalid", "on_duplicate"}
    | {"max_cost", "max_total_tokens", "on_budget"}
    | {"endpoint", "mixed", "output_expires_after", "priority", "max_tokens", "temperature"}
    | {"top_p", "frequency_penalty", "presence_penalty", "seed", "dimensions"}
)
_MOST_TEXT: Final = 500
# One worker that goes away ends as many as it has shards.
_CRASHES: Final = "Attempts at shards that ended with their worker: what they asked last is unknown"
_STYLE: Final = """
:root{color-scheme:light dark;--ink:light-dark(#1a1d23,#e8eaee);--muted:light-dark(#565c68,#a3abb8);
--rule:light-dark(#d5d9e0,#363c47);--ground:light-dark(#fff,#14171c);--good:light-dark(#12703a,#5ecb8a);
--bad:light-dark(#b0222b,#ff8b8f);--busy:light-dark(#2456c4,#7aa5ff)}
body{font:1rem/1.45 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:64rem;
margin:0 auto;padding:1rem;overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
.muted{color:var(--muted)}.bad{color:var(--bad)}.good{color:var(--good)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted)}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;overflow-wrap:normal}
tbody th{overflow-wrap:anywhere;min-width:8rem}
th,td{border-top:1px solid var(--rule)}
.scroll{overflow-x:auto}
svg{display:block;width:100%;background:none}.bar{height:.8rem}.chart{height:7rem}
.bar rect.good{fill:var(--good)}.bar rect.bad{fill:var(--bad)}.bar rect.rest{fill:var(--rule)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:0 1.5rem}
.chart rect{fill:var(--busy)}.chart line{stroke:var(--rule)}
"""
_POLICY: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

Cells = Sequence[object]


def report(manifest: Manifest, went: Sequence[Sample] = (), *, crashes: int | None = None) -> bytes:
    """The report of an ended job, and of how it went.

    `crashes` are the attempts at its shards that ended with their worker, where that is known.
    """
    given = manifest.input
    name = given.get("filename") or f"{given.get('container')}/{given.get('name')}"
    parts = [
        f"<h1>{_text(name)}</h1>",
        f"<p><strong>{_word(manifest)}</strong> {mark(manifest.job)}</p>",
        _reason(manifest),
        bar(manifest.counts),
        _section("Rows", _rows(manifest.counts)),
        _section("Time", _time(manifest)),
        _section("Over time", over_time(went, manifest.cost.currency if manifest.cost else "")),
        _section("Latency of answers", _latency(manifest.use)),
        _section("Waits", _waits(manifest)),
        _section("Calls and tokens", _calls(manifest.use)),
        _section("Cost", _cost(manifest) + _cap(manifest)),
        _section("Estimate against what it took", _estimate(manifest, crashes)),
        _section("Errors", _errors(manifest)),
        _section("Settings", _settings(manifest)),
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'sha256-{_POLICY}'\">"
        f"<title>{_text(name)}: {_text(manifest.state)}</title><style>{_STYLE}</style></head>"
    )
    body = "\n".join(part for part in parts if part)
    # What no UTF-8 holds may stand in a file's name.
    return f"{head}\n<body><main>\n{body}\n</main></body></html>\n".encode("utf-8", "replace")


def _text(words: object) -> str:
    said = str(words)
    cut = said if len(said) <= _MOST_TEXT else f"{said[:_MOST_TEXT]}…"
    return f"<bdi>{escape(cut)}</bdi>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}</section>" if body else ""


def _table(caption: str, heads: Sequence[str], rows: Iterable[Cells]) -> str:
    """A table; its first column names the rows. All but numbers and words of ours are escaped."""
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    lines = "".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>'
        + "".join(f"<td>{_cell(each)}</td>" for each in row[1:])
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{columns}</tr></thead>\n"
        f"<tbody>{lines}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else _text(value)


def _word(manifest: Manifest) -> str:
    errors, total = manifest.counts.errors, manifest.counts.total
    if manifest.state == "completed" and errors:
        return f'<span class="bad">completed, {errors:,} of {total:,} rows without an answer</span>'
    tone = "good" if manifest.state == "completed" else "bad"
    return f'<span class="{tone}">{manifest.state}</span>'


def _reason(manifest: Manifest) -> str:
    if manifest.reason is None:
        return ""
    code, message = manifest.reason.get("code", ""), manifest.reason.get("message", "")
    return f"<p>{_text(code)}: {_text(message)}</p>"


def _rows(counts: Counts) -> str:
    told = {
        "succeeded": counts.succeeded,
        "failed: asked in vain": counts.failed,
        "invalid: could not be asked": counts.invalid,
        "cancelled": counts.cancelled,
        "expired": counts.expired,
        "all": counts.total,
    }
    return _table("Rows by outcome", ("Outcome", "Rows"), told.items())


def _time(manifest: Manifest) -> str:
    asked = manifest.counts.asked
    ran = seconds_between(manifest.started, manifest.finished)
    rows: list[Cells] = [
        ("Created", manifest.created),
        ("Started", manifest.started),
        ("Finished", manifest.finished),
        ("From created to finished", duration(manifest.seconds)),
        ("From start to finish", None if ran is None else duration(ran)),
    ]
    if manifest.paused_seconds:
        rows.append(("Paused by hand", duration(manifest.paused_seconds)))
    if ran and asked:
        rows.append(("Rows asked a second", f"{asked / ran:.2f}"))
    least = manifest.least_seconds
    if least:
        rows += [
            ("The least that its quotas allowed", duration(least)),
            ("Rows a second at most, by quota", f"{asked / least:.2f}"),
        ]
        if ran:
            used = 100.0 * least / ran
            more = ": the first calls wait for no quota" if used > 100.5 else ""
            rows.append(("Of what the quotas allowed", f"{used:.0f}%{more}"))
    return _table("Times in UTC", ("What", "When, or how much"), rows)


def _latency(use: Mapping[str, DeploymentUse]) -> str:
    whole = _whole(use, lambda each: each.latency)
    table = _quantiles("Seconds of an answer", use, lambda each: each.latency)
    return by_seconds("Answers by how long they took", whole) + table if whole else ""


def _waits(manifest: Manifest) -> str:
    use = manifest.use
    ordered = sorted(row_waits(use).items(), key=lambda item: (-item[1], item[0]))
    told = [(reason, duration(seconds)) for reason, seconds in ordered]
    by_reason = _table("All rows' waits together", ("Waited for", "Time"), told) if told else ""
    whole = [(reason, duration(seconds)) for reason, seconds in manifest.waits.items()]
    as_one = (
        _table("Waits of the whole job since it was created", ("Waited for", "Time"), whole)
        if whole
        else ""
    )
    return as_one + by_reason + _quantiles("Wait of a call", use, lambda each: each.waits)


def _whole(use: Mapping[str, DeploymentUse], of: Callable[[DeploymentUse], Sketch]) -> Sketch:
    whole: Sketch = {}
    for each in use.values():
        whole = merged(whole, of(each))
    return whole


def _quantiles(
    caption: str, use: Mapping[str, DeploymentUse], of: Callable[[DeploymentUse], Sketch]
) -> str:
    rows = [
        (name, sum(of(each).values()), *map(duration, quantiles(of(each), SHARES)))
        for name, each in sorted(use.items())
        if of(each)
    ]
    heads = ("Deployment", "Calls", *(f"p{100 * share:.0f}" for share in SHARES))
    return _table(caption, heads, rows) if rows else ""


def _calls(use: Mapping[str, DeploymentUse]) -> str:
    rows = [
        (
            name,
            each.calls,
            ", ".join(f"{count:,} {kind}" for kind, count in sorted(each.outcomes.items())),
            each.prompt_tokens,
            each.completion_tokens,
            each.tokens,
            each.unmetered_calls,
        )
        for name, each in sorted(use.items())
    ]
    heads = ("Deployment", "Calls", "Outcomes", "Prompt tokens", "Completion tokens", "All tokens")
    return (
        _table("Calls by deployment", (*heads, "Billed perhaps, tokens not told"), rows)
        if rows
        else ""
    )


def _cost(manifest: Manifest) -> str:
    told = ""
    if manifest.cost is not None or manifest.prices:
        told = _table("What its calls cost", ("What", "Amount"), _costs(manifest.cost))
    heads = ("Deployment", "A million prompt tokens", "A million completion tokens", "An hour")
    prices = list(_prices(manifest))
    columns = 4 if any(each[3] for each in prices) else 3
    note = "; an hour's is part of no cost" if columns == 4 else ""
    rows = [each[:columns] for each in prices]
    caption = f"Prices when the job was made{note}"
    return told + (_table(caption, heads[:columns], rows) if rows else "")


def _prices(manifest: Manifest) -> Iterator[Cells]:
    """Of a million prompt tokens, of a million completion tokens, and of an hour."""
    might = _might_answer(manifest)
    for name in sorted(manifest.prices.keys() | manifest.hourly_prices.keys()):
        if might is not None and name not in might:
            continue
        price, rented = manifest.prices.get(name), manifest.hourly_prices.get(name)
        yield (
            name,
            f"{amount(price.input)} {price.currency}" if price else None,
            f"{amount(price.output)} {price.currency}" if price else None,
            f"{amount(rented.per_hour)} {rented.currency}" if rented else None,
        )


def _might_answer(manifest: Manifest) -> Set[str] | None:
    """The deployments that answered the job's rows, or might have; None where that is not known.

    Of those that no quota bounds an estimate tells nothing.
    """
    told = manifest.estimate
    if told is None or sum(each.requests for each in told.bounds) < told.rows:
        return None
    return {name for each in told.bounds for name in each.deployments} | manifest.use.keys()


def _costs(cost: Cost | None) -> Sequence[Cells]:
    if cost is None:
        unknown = "not known: nothing that was asked had a price for tokens"
        return [("By the tokens that were told", unknown)]
    most = f"{cost.at_most} {cost.currency}" if cost.at_most else "not known"
    others = cost.unpriced_calls or cost.crashes
    if cost.at_most is None and cost.unmetered_calls and not others:
        most = "not known: max_tokens in each row bounds such calls as a rule, max_cost always"
    rows: list[Cells] = [
        ("By the tokens that were told", f"{cost.counted} {cost.currency}"),
        ("At most", most),
    ]
    if cost.unmetered_calls:
        rows.append(("Calls that may have been billed and told no tokens", cost.unmetered_calls))
    if cost.crashes:
        rows.append((_CRASHES, cost.crashes))
    if cost.unpriced_calls:
        rows.append(("Calls to deployments without a price", cost.unpriced_calls))
    return rows


def _cap(manifest: Manifest) -> str:
    told = manifest.budget
    if told is None or (manifest.reason or {}).get("code") == "budget_exceeded":
        return ""  # what had no room in its month was let spend nothing
    rows: list[Cells] = []
    if told.max_cost is not None:
        spent, most = (f"{each} {told.currency}" for each in (told.cost_spent, told.max_cost))
        rows.append(("Cost", spent, most))
    if told.max_total_tokens is not None:
        rows.append(("Tokens", told.tokens_spent, told.max_total_tokens))
    return _table("What it was let spend, and spent at most", ("What", "Spent", "Cap"), rows)


def _estimate(manifest: Manifest, crashes: int | None) -> str:
    rows = compared(manifest, crashes)
    caption = "Reckoned when the file was planned, before anything was asked"
    heads = ("What", "At least", "At most", "It took", "Off, and why it may be")
    return _table(caption, heads, rows) if rows else ""


def _errors(manifest: Manifest) -> str:
    told = advised(manifest.codes, failed_for=(manifest.reason or {}).get("code"))
    rows = [(each.code, each.rows, _lines(each), each.advice) for each in told]
    heads = ("Code", "Rows", "First lines", "What to do")
    return _table("Rows in errors.jsonl", heads, rows) if rows else ""


def _lines(code: CodeCount) -> str | None:
    if code.line is None:
        return None
    told = (code.line, *code.more)
    return ", ".join(f"{each:,}" for each in told) + ("…" if code.rows > len(told) else "")


def _settings(manifest: Manifest) -> str:
    usual = JobOptions().model_dump(mode="json")
    other = {name: value for name, value in manifest.options.items() if usual.get(name) != value}
    rows: list[Cells] = [(name, _setting(name, value)) for name, value in other.items()]
    rows.append(("release of the service", manifest.release))
    rows.append(("bytes of the file", manifest.input.get("size")))
    # Who gave them is not known: the clients of batches give some by themselves.
    caption = "Options that are not what they are by default, the release and the file"
    return _table(caption, ("What", "Value"), rows)


def _setting(name: str, value: Any) -> str:
    """An option as it is written in JSON, a text without its quotes."""
    if name not in _TOLD_OPTIONS:
        return "given"
    return value if isinstance(value, str) else json.dumps(value)
