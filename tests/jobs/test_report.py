"""The report of a job: what it says, what it never says, and that no job waits for it."""

import asyncio
from html.parser import HTMLParser
from random import Random
from typing import Any

import pytest

from schemas.budgets import BudgetStatus
from schemas.estimates import EstimatedCost, JobEstimate, QuotaBound, TokenRange
from schemas.jobs import JobOptions
from schemas.money import Cost, HourlyPrice, PinnedPrice
from schemas.outcomes import Outcome, Usage
from schemas.results import CodeCount, Counts, DeploymentUse, Lost, Manifest, ManifestFile, Tokens
from schemas.sketches import sketch_of
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import EPOCH, Answering, bench
from tests.simulation.virtual_time import run
from workers.inbox import RETRY_SECONDS
from workers.jobs import finisher
from workers.jobs.charts import duration
from workers.jobs.comparison import compared
from workers.jobs.outbox import JOBS
from workers.jobs.report import report
from workers.jobs.store import dump
from workers.ports import BlobRef
from workers.ports.errors import Unavailable

HOSTILE = "</bdi></title><script>alert(1)</script><img src=x onerror=alert(2)>\u202e"
SECRET = "the words of a prompt"
EMPTY = ManifestFile(name="output.jsonl", length=0, rows=0, parts=[])
MANIFEST = Manifest(
    job="20261125T020000Z-0123456789abcdef",
    state="completed",
    input={"container": "prompts", "name": HOSTILE, "etag": "e", "size": 1234},
    options={"max_tokens": 64, "system_prompt": SECRET, "template": {"prompt": SECRET}},
    counts=Counts(total=1000, succeeded=990, failed=7, invalid=3),
    tokens=Tokens(prompt=30000, completion=12000),
    created="2026-11-25T02:00:00.000Z",
    started="2026-11-25T02:00:02.000Z",
    finished="2026-11-25T02:01:42.000Z",
    seconds=102.0,
    least_seconds=60.0,
    release="0.2.0",
    codes={HOSTILE[:40]: CodeCount(rows=7, line=3), "content_filter": CodeCount(rows=3, line=9)},
    use={
        HOSTILE: DeploymentUse(
            calls=1010,
            outcomes={"ok": 990, "throttled": 20},
            tokens=42000,
            prompt_tokens=30000,
            completion_tokens=12000,
            unmetered_calls=2,
            row_seconds_waited={"quota": 7200.0, "throttled": 12.5},
            latency=sketch_of([0.5] * 980 + [4.0] * 10),
            waits=sketch_of([1.0] * 1010),
        )
    },
    output=EMPTY,
    errors=EMPTY,
)


ESTIMATE = JobEstimate(
    rows=1000,
    prompt_tokens=TokenRange(10_000, 20_000),
    completion_tokens=TokenRange(8_000, 64_000),
    seconds=(110.0, 200.0),
    cost=EstimatedCost(currency="USD", least="1.000000", most="2.000000"),
)
PRICE = PinnedPrice(input=130_000, output=520_000, currency="USD")


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data


def told_beside(words: str, what: str, under: str = "Estimate against") -> str:
    return words[words.index(under) :].partition(what)[2].split("\n")[0]


def test_it_says_by_how_much_the_estimate_was_wrong() -> None:
    cost = Cost(currency="USD", counted="1.500000", at_most="1.500000")
    words = Tags(
        report(MANIFEST.model_copy(update={"estimate": ESTIMATE, "cost": cost})).decode()
    ).words
    assert told_beside(words, "Rows asked") == (
        "1,0001,0009970% below the least: 3 rows were not asked: see the errors"
    )
    assert told_beside(words, "Prompt tokens") == (
        "10,00020,00030,00050% above the most: "
        "its text, tools or images have more than 0.5 tokens a byte"
    )
    assert told_beside(words, "Completion tokens") == "8,00064,00012,000within"
    assert told_beside(words, "Time") == (
        "1 min 50 s3 min 20 s1 min 40 s9% below the least: "
        "3 rows were not asked: see the errors, or its quotas allowed more than was known"
    )
    assert told_beside(words, "Cost, USD") == "1.0000002.0000001.500000within"


def test_it_says_what_was_not_reckoned_and_why() -> None:
    cost = Cost(currency="USD", counted="1.500000", at_most="1.500000")
    blind = ESTIMATE.model_copy(update={"seconds": None, "cost": None})
    made = MANIFEST.model_copy(update={"estimate": blind, "cost": cost})
    words = Tags(report(made).decode()).words
    assert told_beside(words, "Time") == "––1 min 40 snot reckoned: no quota bounds it"
    assert told_beside(words, "Cost, USD").startswith("––1.500000not reckoned: ")
    assert told_beside(words, "Cost, USD").endswith(" had no price")
    priced = made.model_copy(update={"prices": {HOSTILE: PRICE}})
    assert told_beside(Tags(report(priced).decode()).words, "Cost, USD").endswith(
        "not reckoned: not all that might answer had a price"
    )


def off(what: str, crashes: int | None = None, **known: Any) -> str:
    """What is told of a quantity of a job of which this is known."""
    made = MANIFEST.model_copy(update={"estimate": ESTIMATE, **known})
    return next(str(row[-1]) for row in compared(made, crashes) if str(row[0]).startswith(what))


def use_of(**known: Any) -> dict[str, DeploymentUse]:
    return {"phi": DeploymentUse(**{"calls": 1000, "outcomes": {"ok": 1000}, **known})}


PAID = Cost(currency="USD", counted="1.500000", at_most="1.500000")
ALL_ASKED = Counts(total=1000, succeeded=1000)
FAST = ESTIMATE.model_copy(update={"seconds": (10.0, 20.0)})


def test_a_job_that_could_ask_nothing_says_so_and_blames_neither_quotas_nor_prices() -> None:
    nothing = ESTIMATE.model_copy(
        update={"rows": 0, "prompt_tokens": TokenRange(0, 0), "completion_tokens": TokenRange(0, 0)}
        | {"seconds": None, "cost": None}
    )
    known: dict[str, Any] = {
        "estimate": nothing,
        "counts": Counts(total=1319, invalid=1319),
        "tokens": Tokens(),
        "use": {},
        "prices": {"phi": PRICE},
        "cost": Cost(currency="USD", counted="0.000000", at_most="0.000000"),
    }
    for what in ("Time", "Cost"):
        assert off(what, **known) == "not reckoned: no row could be asked"


def test_hours_that_never_met_are_blamed_where_quotas_bound_it_alone() -> None:
    bound = QuotaBound(deployments=("phi",), requests=1000, seconds=60.0)
    estimate = ESTIMATE.model_copy(update={"seconds": None, "bounds": (bound,)})
    assert "hours" in off("Time", estimate=estimate)
    assert "no quota" not in off("Time", estimate=estimate)


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({}, "no wait explains it: answers were slow, or workers were busy or went away"),
        ({"crashes": 0}, "no wait explains it: answers were slow, or workers were busy"),
        ({"cost": PAID}, "no wait explains it: answers were slow, or workers were busy"),
        ({"crashes": 10}, "10 attempts at shards ended with their worker"),
        (
            {"cost": PAID.model_copy(update={"crashes": 2})},
            "2 attempts at shards ended with their worker",
        ),
        (
            {"use": use_of(row_seconds_waited={"quota": 900.0})},
            "its quotas were shared with others",
        ),
        (
            {"use": use_of(row_seconds_waited={"quota": 300.0, "outage": 900.0})},
            "rows waited for an outage to end",
        ),
        (
            {"use": use_of(row_seconds_waited={"quota": 900.0, "outage": 300.0})},
            "rows waited for an outage to end, or its quotas were shared with others",
        ),
        (
            {"crashes": 2, "use": use_of(row_seconds_waited={"quota": 900.0})},
            "2 attempts at shards ended with their worker, or its quotas were shared with others",
        ),
        (
            {"crashes": 0, "use": use_of(row_seconds_waited={"concurrency": 7.9})},
            "no wait explains it: answers were slow, or workers were busy",
        ),
        (
            {
                "use": use_of(
                    outcomes={"ok": 1000, "transient": 1}, row_seconds_waited={"quota": 9.0}
                )
            },
            "1 call was in vain, or its quotas were shared with others",
        ),
        (
            {
                "cost": PAID.model_copy(update={"crashes": 1}),
                "use": use_of(outcomes={"ok": 1000, "timeout": 7}),
                "closed_seconds": 30.0,
            },
            "it waited 30.0 s for its hours, 1 attempt at shards ended with their worker, "
            "and 7 calls were in vain",
        ),
        (
            {
                "use": use_of(
                    outcomes={"ok": 1000, "throttled": 240, "timeout": 22},
                    row_seconds_waited={"throttled": 3531.0, "outage": 470.0},
                )
            },
            "rows waited where endpoints had answered 429, rows waited for an outage to end, "
            "240 calls were refused with 429, and 22 calls were in vain",
        ),
    ],
)
def test_what_took_a_jobs_time_is_what_was_there(known: dict[str, Any], why: str) -> None:
    usual = {"estimate": FAST, "counts": ALL_ASKED, "use": use_of()}
    assert off("Time", **{**usual, **known}) == f"400% above the most: {why}"


@pytest.mark.parametrize(
    ("waited", "why"),
    [
        ({"quota": 50_000.0, "concurrency": 1.2}, "its quotas were shared with others"),
        # An outage of five minutes while 14 rows wait side by side for a quota all the time.
        (
            {"quota": 46_000.0, "outage": 4_200.0},
            "rows waited for an outage to end",
        ),
        ({"concurrency": 50_000.0, "quota": 1.2}, "rows waited for calls in flight to end"),
    ],
)
def test_a_moments_wait_hides_no_cause_of_a_long_job(waited: dict[str, float], why: str) -> None:
    estimate = ESTIMATE.model_copy(update={"seconds": (600.0, 3300.0)})
    long = {"started": "2026-11-25T02:00:00.000Z", "finished": "2026-11-25T03:00:00.000Z"}
    use = {
        "phi": use_of(row_seconds_waited=waited)["phi"],
        "spare": use_of(row_seconds_waited={})["phi"],
    }
    told = off("Time", crashes=0, estimate=estimate, counts=ALL_ASKED, use=use, **long)
    assert told == f"9% above the most: {why}"


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({}, "its text has less than 0.2 tokens a byte"),
        ({"use": use_of(unmetered_calls=900)}, "900 calls told no tokens"),
        (
            {"use": use_of(unmetered_calls=16)},
            "16 calls told no tokens, or its text has less than 0.2 tokens a byte",
        ),
        (
            {"counts": Counts(total=1000, succeeded=500, failed=100, invalid=400)},
            "100 rows were asked in vain, and 400 rows were not asked: see the errors",
        ),
        # Retries: each row may have had its answer, with tokens, besides.
        (
            {"use": use_of(calls=2000, unmetered_calls=1000)},
            "1,000 calls told no tokens, or its text has less than 0.2 tokens a byte",
        ),
        (
            {"use": use_of(calls=1950, unmetered_calls=1000)},
            "1,000 calls told no tokens, or its text has less than 0.2 tokens a byte",
        ),
        # A row that was asked in vain by three calls that told nothing is one row.
        (
            {
                "counts": Counts(total=1000, succeeded=900, failed=100),
                "use": use_of(calls=1200, unmetered_calls=300),
            },
            "300 calls told no tokens, and 100 rows were asked in vain, "
            "or its text has less than 0.2 tokens a byte",
        ),
    ],
)
def test_tokens_that_nobody_told_are_no_fault_of_the_text(known: dict[str, Any], why: str) -> None:
    usual = {"counts": ALL_ASKED, "use": use_of(), "tokens": Tokens(prompt=8000, completion=9000)}
    assert off("Prompt tokens", **{**usual, **known}) == f"20% below the least: {why}"


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({"counted": "0.800000"}, "20% below the least: it had fewer tokens"),
        (
            {"counted": "0.800000", "unpriced_calls": 300},
            "20% below the least: 300 calls were to deployments without a price",
        ),
        # A call without a price that told no tokens either is one row.
        (
            {"counted": "0.800000", "unpriced_calls": 150, "unmetered_calls": 150},
            "20% below the least: 150 calls told no tokens, and 150 calls were to deployments "
            "without a price, or it had fewer tokens",
        ),
        (
            {"counted": "2.400000", "tokens": 42_500},
            "20% above the most: calls in vain were billed",
        ),
        ({"counted": "2.400000", "prompt": 30_000}, "20% above the most: it had more tokens"),
        (
            {"counted": "2.400000", "prompt": 30_000, "tokens": 99_000},
            "20% above the most: it had more tokens, and calls in vain were billed",
        ),
    ],
)
def test_what_a_cost_is_off_by_is_what_was_billed(known: dict[str, Any], why: str) -> None:
    cost = Cost(
        currency="USD", **{name: known[name] for name in known if name in Cost.model_fields}
    )
    tokens = Tokens(prompt=known.get("prompt", 15_000), completion=12_000)
    untold = known.get("unmetered_calls", 0)
    use = use_of(tokens=known.get("tokens", tokens.total), unmetered_calls=untold)
    assert off("Cost", cost=cost, counts=ALL_ASKED, tokens=tokens, use=use) == why


def test_it_says_what_the_whole_job_waited_for() -> None:
    estimate = ESTIMATE.model_copy(update={"seconds": (10.0, 20.0)})
    waits = {"budget_seconds": 60.0, "closed_seconds": 10.0}
    made = MANIFEST.model_copy(update={"estimate": estimate, **waits})
    words = Tags(report(made).decode()).words
    assert told_beside(words, "hours", "Waits of the whole job") == "10.0 s"
    assert told_beside(words, "budget", "Waits of the whole job") == "1 min 0 s"
    assert told_beside(words, "Time") == (
        "10.0 s20.0 s1 min 40 s400% above the most: "
        "it waited 10.0 s for its hours and 1 min 0 s for its budget, "
        "and 20 calls were refused with 429"
    )
    assert "Waits of the whole job" not in Tags(report(MANIFEST).decode()).words


def test_it_says_for_how_long_it_was_paused_by_hand_and_names_that_as_the_cause() -> None:
    estimate = ESTIMATE.model_copy(update={"seconds": (10.0, 20.0)})
    made = MANIFEST.model_copy(update={"estimate": estimate, "paused_seconds": 50.0})
    words = Tags(report(made).decode()).words
    assert told_beside(words, "Paused by hand", "Times in UTC") == "50.0 s"
    assert told_beside(words, "Time") == (
        "10.0 s20.0 s1 min 40 s400% above the most: it was paused by hand for 50.0 s, "
        "and 20 calls were refused with 429"
    )
    both = made.model_copy(update={"closed_seconds": 10.0})
    assert told_beside(Tags(report(both).decode()).words, "Time").endswith(
        ": it waited 10.0 s for its hours, it was paused by hand for 50.0 s, "
        "and 20 calls were refused with 429"
    )
    before = made.model_copy(update={"paused_seconds": 500.0})
    assert "it was paused by hand" not in Tags(report(before).decode()).words, "before it started"
    assert "Paused by hand" not in Tags(report(MANIFEST).decode()).words


def test_a_job_that_a_months_cap_kept_out_was_let_spend_nothing() -> None:
    made = MANIFEST.model_copy(
        update={
            "state": "failed",
            "reason": {"code": "budget_exceeded", "message": "of blue's month nothing is left"},
            "counts": Counts(total=10, invalid=10),
            "codes": {"budget_exceeded": CodeCount(rows=10, line=1)},
            "budget": BudgetStatus(max_cost="0.008573", tokens_spent=0, tokens_reserved=0),
        }
    )
    words = Tags(report(made).decode()).words
    assert "What it was let spend" not in words
    assert "the job's cap" not in words
    assert "the whole job failed for this: its reason says what to do" in words


def test_it_tells_no_options_that_nobody_gave() -> None:
    options = JobOptions(model="phi", max_tokens=64).model_dump(mode="json", exclude_none=True)
    words = Tags(report(MANIFEST.model_copy(update={"options": options})).decode()).words
    beside = words[words.index("Options that are not what they are by default") :]
    assert "modelphi" in beside
    assert "max_tokens64" in beside
    for name in ("metadata", "parameters", "completion_window", "on_invalid"):
        assert name not in beside


def test_it_says_what_was_spent_of_a_cap() -> None:
    told = BudgetStatus(
        max_total_tokens=5000,
        max_cost="2.000000",
        currency="USD",
        tokens_spent=4321,
        tokens_reserved=0,
        cost_spent="1.250000",
        cost_reserved="0.000000",
    )
    words = Tags(report(MANIFEST.model_copy(update={"budget": told})).decode()).words
    beside = words[words.index("What it was let spend") :]
    assert "Cost1.250000 USD2.000000 USD" in beside
    assert "Tokens4,3215,000" in beside


def test_it_tells_how_a_cap_was_given_and_of_other_peoples_words_that_they_were() -> None:
    options = {"max_cost": "2.000000", "on_budget": "pause", "system_prompt": "Be kind."}
    words = Tags(report(MANIFEST.model_copy(update={"options": options})).decode()).words
    beside = words[words.index("Options that are not what they are by default") :]
    assert "max_cost2.000000\n" in beside
    assert "on_budgetpause\n" in beside
    assert "system_promptgiven\n" in beside


def test_a_job_that_was_ended_early_is_held_against_no_estimate() -> None:
    made = MANIFEST.model_copy(update={"estimate": ESTIMATE, "state": "cancelled"})
    words = Tags(report(made).decode()).words
    assert told_beside(words, "Prompt tokens") == (
        "10,00020,00030,000not compared: the job was ended early (cancelled)"
    )


def test_a_job_that_its_cap_stopped_is_held_against_no_estimate() -> None:
    codes = {"budget_exceeded": CodeCount(rows=900, line=101)}
    counts = Counts(total=1000, succeeded=100, invalid=900)
    made = MANIFEST.model_copy(update={"estimate": ESTIMATE, "codes": codes, "counts": counts})
    words = Tags(report(made).decode()).words
    assert told_beside(words, "Rows asked") == (
        "1,0001,000100not compared: its cap kept rows from being asked"
    )
    assert "failed: asked in vain0" in words
    assert "Rows asked a second1.00" in words


def test_it_says_why_no_bound_of_the_cost_is_known() -> None:
    cost = Cost(currency="USD", counted="1.500000", unmetered_calls=3, crashes=2)
    words = Tags(report(MANIFEST.model_copy(update={"cost": cost})).decode()).words
    assert "At mostnot known" in words
    assert "Calls that may have been billed and told no tokens3" in words
    assert "Attempts at shards that ended with their worker: what they asked last" in words
    assert told_beside(words, "is unknown", "What its calls cost") == "2"
    assert told_beside(words, "At most", "What its calls cost") == "not known"
    alone = cost.model_copy(update={"crashes": 0})
    words = Tags(report(MANIFEST.model_copy(update={"cost": alone})).decode()).words
    how = "max_tokens in each row bounds such calls as a rule, max_cost always"
    assert f"At mostnot known: {how}" in words
    # So it is with what 0.1.0 counted, of which no call is known to lack its tokens.
    whole = alone.model_copy(update={"unmetered_calls": 0})
    words = Tags(report(MANIFEST.model_copy(update={"cost": whole})).decode()).words
    assert told_beside(words, "At most", "What its calls cost") == "not known"


def test_it_says_that_no_price_of_what_was_asked_is_known() -> None:
    priced = {"prices": {"other": PinnedPrice(input=130000, output=520000, currency="USD")}}
    words = Tags(report(MANIFEST.model_copy(update={"cost": None, **priced})).decode()).words
    assert "not known: nothing that was asked had a price for tokens" in words


def test_it_tells_the_prices_of_what_might_answer_and_of_no_others() -> None:
    prices = dict.fromkeys(("phi", "spare", "vectors"), PRICE)
    both = QuotaBound(deployments=("phi", "spare"), requests=1000, seconds=60.0)
    known = {"prices": prices, "cost": PAID, "use": use_of()}

    def told(**more: Any) -> set[str]:
        words = Tags(report(MANIFEST.model_copy(update={**known, **more})).decode()).words
        table = words.partition("Prices when the job was made")[2].partition("Settings")[0]
        return {name for name in prices if f"{name}0.130000 USD0.520000 USD" in table}

    bounded = ESTIMATE.model_copy(update={"bounds": (both,)})
    assert told(estimate=bounded) == {"phi", "spare"}
    assert told(estimate=bounded, use={"vectors": DeploymentUse(calls=3)}) == set(prices)
    # Some requests are bounded by no quota: what might answer those is not told.
    assert told(estimate=ESTIMATE) == set(prices)
    nothing = ESTIMATE.model_copy(update={"rows": 0})
    assert told(estimate=nothing, use={}) == set()


def test_it_tells_what_an_hour_of_a_rented_deployment_took() -> None:
    hourly = {
        name: HourlyPrice(per_hour=1_500_000, currency="USD") for name in ("phi", "rented", "idle")
    }
    might = QuotaBound(deployments=("phi", "rented"), requests=1000, seconds=60.0)
    known = {"use": use_of(), "estimate": ESTIMATE.model_copy(update={"bounds": (might,)})}

    def told(**more: Any) -> str:
        return Tags(report(MANIFEST.model_copy(update={**known, **more})).decode()).words

    words = told(prices={"phi": PRICE}, hourly_prices=hourly, cost=PAID)
    table = words.partition("Prices when the job was made")[2].partition("Settings")[0]
    assert table.startswith("; an hour's is part of no cost")
    assert "phi0.130000 USD0.520000 USD1.500000 USD" in table
    assert "rented––1.500000 USD" in table
    assert "idle" not in table
    of_hours_alone = told(hourly_prices=hourly, cost=None)
    assert "rented––1.500000 USD" in of_hours_alone
    assert "What its calls cost" not in of_hours_alone
    assert "hour" not in told(prices={"phi": PRICE}, cost=PAID).partition("Prices when")[2]


def test_it_tells_options_as_they_are_written() -> None:
    def told(**options: Any) -> str:
        words = Tags(report(MANIFEST.model_copy(update={"options": options})).decode()).words
        return words[words.index("Options that are not what they are by default") :]

    asked = told(endpoint="/v1/chat/completions", temperature=0.5, model="phi")
    assert "endpoint/v1/chat/completions\n" in asked
    assert "temperature0.5\n" in asked
    assert "modelphi\n" in asked
    # Whoever gave these: somebody may have, and the command line does by itself.
    mixed = told(endpoint="/v1/chat/completions", mixed=True, max_tokens=64)
    for option in ("max_tokens64\n", "endpoint/v1/chat/completions\n", "mixedtrue\n"):
        assert option in mixed


def test_it_tells_how_the_job_went() -> None:
    words = Tags(report(MANIFEST).decode()).words
    for told in (
        "completed, 10 of 1,000 rows without an answer",
        "1 min 40 s",  # from start to finish
        "9.97",  # rows a second
        "60%",  # of what the quotas allowed
        "2 h 0 min",  # waits for quota, of all rows together
        "990 ok, 20 throttled",
        "30,000",
        "refused by the content filter",
        "0.2.0",
    ):
        assert told in words, told


def test_it_is_the_same_byte_for_byte_and_needs_nothing_else() -> None:
    once = report(MANIFEST)
    assert once == report(Manifest.model_validate_json(MANIFEST.model_dump_json()))
    tags = Tags(once.decode())
    assert not tags.tags & {"script", "img", "link", "iframe", "object", "a", "form"}
    assert not tags.attributes & {"src", "href", "style", "srcset", "action"}
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert b"default-src 'none'; style-src 'sha256-" in once
    assert len(once) < 20_000


def test_it_never_says_what_may_be_a_prompt() -> None:
    assert SECRET.encode() not in report(MANIFEST)


def test_a_job_that_asked_nothing_has_one_too() -> None:
    nothing = MANIFEST.model_copy(
        update={
            "state": "failed",
            "reason": {"code": "not_jsonl", "message": HOSTILE},
            "counts": Counts(),
            "codes": {},
            "use": {},
            "started": None,
            "least_seconds": None,
        }
    )
    words = Tags(report(nothing).decode()).words
    assert "not_jsonl" in words
    assert "Latency" not in words


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.25, "250 ms"),
        (2.04, "2.0 s"),
        (61.0, "1 min 1 s"),
        (3700, "1 h 1 min"),
        (9e5, "10 d 10 h"),
    ],
)
def test_lengths_of_time_are_told_in_two_units(seconds: float, told: str) -> None:
    assert duration(seconds) == told


async def test_each_ended_job_has_the_report_of_its_manifest() -> None:
    class Half(Answering):
        async def ask(self, task: Any, body: Any) -> Outcome:
            if body["messages"][-1]["content"] == "a":
                return await super().ask(task, body)
            return Outcome("content_filter", 400, usage=Usage(3, 0), code="content_filter")

    async with bench(endpoint=Half()) as service:
        ended = await service.run(b'{"prompt": "a"}\n{"prompt": "b"}\n')
        container, _, folder = ended.event["data"]["results"].partition("/")
        stored = await service.blobs.read(BlobRef(container, f"{folder}/report.html"))
        assert stored.data == report(Manifest.model_validate(ended.manifest))
        assert "content_filter" in stored.data.decode()


async def test_crashes_are_told_of_a_job_without_prices_too() -> None:
    """Its manifest has no cost, which tells of them: the receipts do."""
    async with bench() as service:
        await service.drop(b'{"prompt": "a"}\n')
        await service.announce()
        await service.settle(lambda delivery: delivery.queue == JOBS)
        job = service.events[0]["subject"]
        receipt = await service.store.receipt(job, 0)
        assert receipt is not None
        documents = {
            "estimate.json": ESTIMATE.model_copy(update={"rows": 1, "seconds": (0.0, 0.0)}),
            "receipts/0": receipt.model_copy(update={"lost": Lost(crashes=10)}),
        }
        for name, document in documents.items():
            ref = service.store.ref(job, name)
            await service.blobs.delete(ref)
            await service.blobs.create(ref, dump(document))
        service.elapsed += 60.0
        await service.settle()
        ended = await service.ended()
        assert ended.manifest["cost"] is None
        container, _, folder = ended.event["data"]["results"].partition("/")
        stored = await service.blobs.read(BlobRef(container, f"{folder}/report.html"))
        beside = told_beside(Tags(stored.data.decode()).words, "Time")
        assert "10 attempts at shards ended with their worker" in beside


class Away(MemoryBlobs):
    """Storage takes no report, as often as `times` says."""

    times = 1000

    async def create(self, ref: BlobRef, *data: Any, **more: Any) -> str:
        if ref.name.endswith("report.html") and self.times:
            self.times -= 1
            raise Unavailable("storage is away")
        return await super().create(ref, *data, **more)


def ended_with(storage: Away) -> bool:
    """Have a job end in spite of it; gives whether it has a report."""
    there = False

    async def story(_: Random) -> None:
        nonlocal there
        async with bench(blobs=storage) as service:
            await service.drop(b'{"prompt": "a"}\n')
            await service.announce()
            await service.settle()
            await asyncio.sleep(RETRY_SECONDS + 1.0)
            await service.settle()
            ended = await service.ended()
            assert ended.counts["succeeded"] == 1
            there = any(ref.name.endswith("report.html") for ref in storage.blobs)

    run(story)
    return there


def test_a_report_is_not_lost_over_one_fault_of_storage(caplog: pytest.LogCaptureFixture) -> None:
    storage = Away(lambda: EPOCH)
    storage.times = 1
    assert ended_with(storage)
    assert not [each for each in caplog.messages if each.startswith("[REPORT_MISSING]")]


def test_a_report_that_storage_does_not_take_keeps_no_job_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not ended_with(Away(lambda: EPOCH))
    assert [each for each in caplog.messages if each.startswith("[REPORT_MISSING]")]


async def test_a_report_that_cannot_be_made_keeps_no_job_from_ending(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(finisher, "report", broken)
    async with bench() as service:
        assert (await service.run(b'{"prompt": "a"}\n')).counts["succeeded"] == 1
    assert [each for each in caplog.messages if each.startswith("[REPORT_BUG]")]
