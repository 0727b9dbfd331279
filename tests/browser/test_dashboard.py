"""The dashboard as people meet it: what it shows, how it is operated, what it survives."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from schemas.health import DeploymentHealth
from schemas.money import amount
from schemas.outcomes import Outcome
from tests.api.client import KEYS, Client, rows
from tests.browser import states
from tests.browser.conftest import KEY, Site, Tab
from tests.browser.looking import row, violations
from tests.browser.states import AT_NIGHT, CAPPED, LIMITED, PRICED, TENANTS, UNPRICED
from tests.doubles.service import DEPLOYMENT, EPOCH, Answering
from workers.ports import BlobRef
from workers.quota.book import Book, Holder
from workers.quota.health import HealthBoard

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>\u202egnp.jsonl'

# -- access


async def test_the_key_leaves_the_address_at_once_and_travels_in_the_header_alone(
    tab: Tab, site: Site
) -> None:
    urls: list[str] = []
    tab.page.on("request", lambda request: urls.append(request.url))
    await tab.open()
    await tab.settled()
    assert "key" not in tab.page.url
    assert KEY not in await tab.page.content()
    # The first navigation has the fragment in the browser alone: no server sees it.
    assert [url for url in urls if KEY in url.partition("#")[0]] == []
    asked = {path.partition("?")[0] for _, path in site.asked}
    assert asked == {"/api/jobs", "/api/deployments", "/api/budgets"}
    await tab.page.reload()
    await tab.settled()


async def test_a_wrong_key_is_asked_for_again_and_the_right_one_shows_the_jobs(
    tab: Tab, site: Site
) -> None:
    await states.completed(site.service)
    await tab.open(key="wrong")
    await expect(tab.page.get_by_role("alert")).to_contain_text("a key that it knows")
    assert await violations(tab.page) == []
    await tab.page.get_by_label("Function key").fill("two words")
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.get_by_text("A key has no spaces")).to_be_visible()
    await tab.page.get_by_label("Function key").fill(KEY)
    await tab.page.keyboard.press("Enter")
    await expect(row(tab.page, "fine.jsonl")).to_be_visible()
    await tab.page.get_by_role("button", name="Use another key").click()
    await expect(tab.page.get_by_label("Function key")).to_be_visible()
    assert await tab.page.evaluate("sessionStorage.length") == 0


async def test_nothing_but_the_files_of_the_page_runs(tab: Tab) -> None:
    await tab.open()
    await tab.settled()
    with pytest.raises(Exception, match="TrustedHTML"):
        await tab.page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    tab.complaints.clear()
    await tab.page.evaluate(
        "document.body.append(Object.assign(document.createElement('style'), {id: 's'}))"
    )
    refused = await tab.page.evaluate("fetch('https://example.invalid/').catch((e) => e.name)")
    assert refused == "TypeError"
    assert any("Content Security Policy" in each for each in tab.complaints)
    tab.complaints.clear()


# -- what is shown


async def test_each_state_is_told_and_what_is_wrong_comes_first(tab: Tab, site: Site) -> None:
    service = site.service
    await states.completed(service)
    await states.with_errors(service)
    await states.failed(service)
    await states.rejected(service)
    await states.begun(service)
    await states.acted(service, "pause", "later.jsonl")
    await states.acted(service, "cancel", "never.jsonl")
    await tab.open()
    await tab.settled()
    wanted = {
        "fine.jsonl": "✓ completed",
        "half.jsonl": "! completed",
        "table.csv.jsonl": "✗ failed",
        "missing.jsonl": "✗ rejected",
        "long.jsonl": "▶ in progress",
        "later.jsonl": "‖ paused",
        "never.jsonl": "▶ cancelling",
    }
    for name, badge in wanted.items():
        await expect(row(tab.page, name).locator(".badge")).to_have_text(badge)
    attention = tab.page.get_by_role("region", name="Needs attention")
    for name, why in {
        "half.jsonl": "2 of 4 rows have no answer",
        "table.csv.jsonl": "this is a CSV",
        "missing.jsonl": "does not exist",
        "later.jsonl": "until somebody resumes it",
    }.items():
        await expect(attention.get_by_role("listitem").filter(has_text=name)).to_contain_text(why)
    await expect(attention).not_to_contain_text("fine.jsonl")
    assert await violations(tab.page) == []


class Refusing(Answering):
    """An endpoint whose every word is hostile."""

    async def ask(self, task: Any, body: Any) -> Outcome:
        return Outcome("bad_request", 400, code=HOSTILE[:64], message=HOSTILE)


async def test_other_peoples_text_is_never_markup(tab: Tab, site: Site) -> None:
    site.service.endpoint.ask = Refusing().ask  # type: ignore[method-assign]
    ended = await site.service.run(
        states.ROWS, HOSTILE.replace("/", "_"), options={"metadata": {HOSTILE[:60]: HOSTILE}}
    )
    await tab.open(f"job={ended.manifest['job']}")
    await tab.settled()
    shown = tab.page.get_by_role("heading", name="gnp.jsonl")
    await expect(shown.locator("bdi")).to_contain_text("<img src=x")
    await tab.page.get_by_text("Facts").click()
    await expect(tab.page.locator("dl")).to_contain_text("<script>alert(2)")
    await expect(tab.page.get_by_role("group", name="Errors")).to_contain_text("<img src=x")
    assert await tab.page.locator("img, script:not([src]), iframe").count() == 0
    assert await violations(tab.page) == []


async def test_one_job_tells_its_errors_its_use_and_where_its_results_are(
    tab: Tab, site: Site
) -> None:
    job = await states.with_errors(site.service)
    await tab.open(f"job={job}")
    errors = tab.page.get_by_role("group", name="Errors")
    await expect(errors.get_by_role("row")).to_have_count(3)
    used = tab.page.get_by_role("group", name="Deployments it used").get_by_role("row").last
    await expect(used.get_by_role("cell")).to_have_text(["2", "0", "14", "10", "0"])
    link = tab.page.get_by_role("link", name="output.jsonl")
    href = await link.get_attribute("href")
    assert href is not None
    assert href.startswith("https://memory.invalid/results/")
    assert f"/{job}/output.jsonl" in href


@pytest.mark.parametrize("site", [{"deployments": (PRICED,)}], indirect=True)
async def test_what_a_job_costs_is_shown_over_time_and_what_it_will_come_to(
    tab: Tab, site: Site
) -> None:
    job = await states.begun(site.service, rows=2000)
    for _ in range(3):
        site.service.elapsed += 30.0
        await site.service.settle(stop=states.after(3))
    await tab.page.clock.install()
    await tab.open(f"job={job}")
    shown = tab.page.locator("section.shown")
    # Each row has 7 tokens read and 5 written: 2,000 of them are 0.00702 USD.
    await expect(shown.get_by_text("It will cost about")).to_contain_text(
        re.compile(r"0\.00702\d* USD")
    )
    cost = shown.get_by_role("figure").filter(has_text="Cost USD, of rows")
    await expect(cost.get_by_role("img")).to_be_visible()
    told = (await site.service.ask("GET", f"/api/jobs/{job}")).body
    await shown.get_by_text("Facts").click()
    facts = shown.locator("dl")
    rows = f"{told['counts']['succeeded']:,} rows that are done"
    await expect(facts).to_contain_text(f"{told['cost']['counted']} USD for the {rows}")
    await expect(shown.get_by_text("It has cost")).to_contain_text(f"USD for the {rows}. It will")
    # A row has 7 tokens read and 5 written: 3.51 millionths.
    assert told["cost"]["counted"] == amount(-(-351 * told["counts"]["succeeded"] // 100))
    await site.service.settle()
    await tab.page.clock.fast_forward(4000)
    await expect(cost.locator(".legend")).to_contain_text("USD 0.00702")
    await expect(facts).not_to_contain_text("rows that are done")
    await expect(shown.get_by_text("It will cost about")).to_have_count(0)
    await expect(shown.get_by_text("Of its cap")).to_have_count(0)
    latency = shown.get_by_role("figure").filter(has_text="Latency of answers")
    for share in ("p50", "p95", "p99"):
        await expect(latency.locator(".legend")).to_contain_text(share)
    await shown.get_by_text("Cost as a table").click()
    assert await violations(tab.page) == []


@pytest.mark.parametrize("site", [CAPPED], indirect=True)
async def test_a_month_shows_what_is_spent_reserved_and_left_and_for_whom(
    tab: Tab, site: Site
) -> None:
    await states.ended_in_its_month(site.service)
    holding, waits = await states.waiting_for_its_month(site.service)
    await tab.page.clock.install()
    await tab.open(f"job={waits}")
    await tab.settled()
    table = tab.page.get_by_role("group", name="Budgets")
    rows = table.get_by_role("row")
    # Two rows of 7 and 5 tokens are spent, 0.3 is what the open job may cost.
    own = rows.filter(has_text="default")
    held, waiting = "0.3 prompts/long.jsonl", "prompts/next.jsonl"
    await expect(own.get_by_role("cell")).to_have_text(
        ["0.5 USD", "0.000008", held, "0.199992", waiting], use_inner_text=True
    )
    bar = own.get_by_role("img")
    told = "Of 0.5 USD: 0.000008 spent, 0.3 reserved, 0.199992 left"
    await expect(bar).to_have_attribute("aria-label", told)
    widths = await bar.locator("rect").evaluate_all(
        "all => all.map((each) => each.getAttribute('width'))"
    )
    assert [round(float(width)) for width in widths] == [0, 60]
    await expect(rows.filter(has_text="blue").get_by_role("cell").last).to_have_text("–")
    assert await violations(tab.page) == []
    shown = tab.page.locator("section.shown")
    await expect(shown).to_contain_text("cancel it, and send it with a lower max_cost")
    await shown.get_by_role("button", name="See the budget of its month").click()
    await expect(tab.page.get_by_role("heading", name="Budgets")).to_be_focused()
    await table.get_by_role("link", name="prompts/long.jsonl").click()
    await expect(tab.page.get_by_role("heading", name="prompts/long.jsonl")).to_be_visible()
    await expect(tab.page.get_by_role("button", name="See the budget")).to_have_count(0)
    month = datetime.fromtimestamp(site.service.clock(), UTC)
    before = (month.replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
    await tab.page.get_by_role("button", name="Month before").click()
    await expect(tab.page.get_by_role("region", name="Budgets")).to_contain_text(before)
    await expect(own).to_contain_text("0.5 USD")
    await expect(own.get_by_role("cell").nth(2)).to_have_text("0")
    assert holding in {path.rpartition("/")[2] for _, path in site.asked}


# -- as time goes on


async def test_filters_and_pages_show_other_jobs(tab: Tab, site: Site) -> None:
    for number in range(33):
        await states.completed(site.service, f"{number:02}.jsonl")
    await states.failed(site.service)
    await tab.open()
    await tab.settled()
    rows = tab.page.get_by_role("region", name="Jobs").get_by_role("row")
    await expect(rows).to_have_count(31)
    await tab.page.get_by_role("button", name="Older").click()
    await expect(rows).to_have_count(5)
    await tab.page.get_by_role("button", name="Newer").click()
    await tab.page.get_by_label("State").select_option("failed")
    await expect(rows).to_have_count(2)
    await tab.page.get_by_label("Waits for").select_option("outage")
    await expect(tab.page.get_by_text("No job fits")).to_be_visible()


async def test_a_running_job_is_followed_to_its_end(tab: Tab, site: Site) -> None:
    job = await states.begun(site.service, rows=2000)
    await tab.page.clock.install()
    await tab.open(f"job={job}")
    shown = tab.page.locator("section.shown")
    await expect(shown.locator(".bar-words")).to_contain_text("of 2,000 rows")
    before = await shown.locator(".bar-words").inner_text()
    for _ in range(4):
        site.service.elapsed += 30.0
        await site.service.settle(stop=states.after(3))
        await tab.page.clock.fast_forward(4000)
    await expect(shown.locator(".bar-words")).not_to_have_text(before)
    await expect(shown.locator("figure").first).to_contain_text("rows/s")
    await site.service.settle()
    await tab.page.clock.fast_forward(4000)
    await expect(shown.locator(".bar-words")).to_have_text("2,000 of 2,000 rows")
    await expect(tab.page.get_by_role("status")).to_have_text("prompts/long.jsonl is now completed")
    await shown.get_by_text("Rows as a table").click()
    assert await violations(tab.page) == []
    asked = len(site.asked)
    await tab.page.clock.fast_forward(10_000)
    assert [path for _, path in site.asked[asked:] if job in path] == []


@pytest.mark.parametrize("site", [{"deployments": (LIMITED,)}], indirect=True)
async def test_what_is_granted_used_and_left_of_a_quota_is_told_at_the_first_look(
    tab: Tab, site: Site
) -> None:
    service = site.service
    quota = Book(
        {"p": Holder(1.0, 1.0, 0.75, since=0.0, expires=service.clock() + 13.0)}, tokens=0.9
    )
    await service.blobs.create(BlobRef("state", "quota/phi.json"), quota.dump())
    board = HealthBoard(service.blobs, "state")
    told = {"calls": 1300, "tokens": 90_000, "refusals": 7, "in_flight": 3, "guard": 512}
    for process in ("a", "b"):
        used = DeploymentHealth(
            at=service.clock(), requests_used=468.2, tokens_used=45_100.0, **told
        )
        await board.tell("phi", process, used)
    await tab.open()
    await tab.settled()
    table = tab.page.get_by_role("group", name="Deployments")
    heads = await table.get_by_role("columnheader").all_inner_texts()
    cells = await table.get_by_role("row").last.locator("th, td").all_inner_texts()
    assert dict(zip(heads, cells, strict=True)) == {
        "Deployment": "phi\nphi-3-mini",
        "Breaker, hours": "closed",
        "Requests used a minute": "936 of 1K",
        "Tokens used a minute": "90.2K of 200K",
        "Granted": "75%",
        "Headroom": "90%",
        "In flight": "6\nof 1,024",
        "Answered": "2,600 calls, 14 429s\n180K tokens\nby 2 processes",
        "Price, of a million tokens": "0.13 USD prompt\n0.52 USD completion",
    }
    widths = await table.locator(".bar rect").evaluate_all("all => all.map((e) => e.width)")
    assert len(widths) == 2
    assert await violations(tab.page) == []


async def test_the_late_answer_to_one_filter_is_not_shown_under_the_next(
    tab: Tab, site: Site
) -> None:
    await states.completed(site.service)
    await states.failed(site.service)
    asked, let = asyncio.Event(), asyncio.Event()

    async def held(route: Route) -> None:
        asked.set()
        await let.wait()
        await route.continue_()

    await tab.open()
    await tab.settled()
    state, listed = tab.page.get_by_label("State"), tab.page.get_by_role("region", name="Jobs")
    await tab.page.route(re.compile(r"state=failed"), held)
    await tab.page.route(re.compile(r"state=completed"), held)
    await state.select_option("failed")
    await asked.wait()
    await expect(listed.get_by_role("row")).to_have_count(0)
    asked.clear()
    await state.select_option("completed")
    await tab.page.unroute(re.compile(r"state=failed"))
    let.set()
    await asked.wait()
    await expect(row(tab.page, "fine.jsonl")).to_be_visible()
    await expect(row(tab.page, "table.csv.jsonl")).to_have_count(0)


async def test_a_hidden_tab_asks_nothing(tab: Tab, site: Site) -> None:
    await tab.page.clock.install()
    await tab.open()
    await tab.settled()
    hide = "Object.defineProperty(document, 'visibilityState', {value: '%s', configurable: true});"
    event = "document.dispatchEvent(new Event('visibilitychange'))"
    await tab.page.evaluate(hide % "hidden" + event)
    asked = len(site.asked)
    await tab.page.clock.fast_forward(600_000)
    assert len(site.asked) == asked
    async with tab.page.expect_response("**/api/deployments"):
        await tab.page.evaluate(hide % "visible" + event)


async def test_what_has_not_changed_travels_once(tab: Tab, site: Site) -> None:
    await states.completed(site.service)
    await tab.page.clock.install()
    await tab.open()
    await tab.settled()
    async with tab.page.expect_response("**/api/jobs?limit=30&tenant=*") as answer:
        await tab.page.clock.fast_forward(17_000)
    assert (await answer.value).status == 304
    await expect(row(tab.page, "fine.jsonl")).to_be_visible()


async def test_a_service_that_is_away_is_told_and_found_again(tab: Tab, site: Site) -> None:
    await states.completed(site.service)
    await tab.page.clock.install()
    await tab.open()
    await tab.settled()
    site.away = True
    await tab.page.clock.fast_forward(17_000)
    await expect(tab.page.get_by_role("alert")).to_contain_text("cannot be reached")
    # Each failure doubles the time until the next try: after 15 s come 30, then 60.
    asked = len(site.asked)
    await tab.page.clock.fast_forward(20_000)
    assert len(site.asked) == asked
    await expect(row(tab.page, "fine.jsonl")).to_be_visible()
    # Last, for the page's clock goes on meanwhile, and this takes seconds on a busy machine.
    assert await violations(tab.page) == []
    site.away = False
    await tab.page.clock.fast_forward(120_000)
    await expect(tab.page.get_by_role("alert")).to_have_count(0)


def answering(status: int) -> Callable[[Route], Awaitable[None]]:
    async def answer(route: Route) -> None:
        await route.fulfill(status=status)

    return answer


@pytest.mark.parametrize("site", [{"deployments": (PRICED, UNPRICED)}], indirect=True)
async def test_a_missing_price_is_told_as_such_and_not_as_0(tab: Tab, site: Site) -> None:
    job = await states.begun(site.service, rows=2000, model="phi-3-small")
    await tab.open(f"job={job}")
    shown = tab.page.locator("section.shown")
    await shown.get_by_text("Facts").click()
    facts = shown.locator("dl")
    await expect(facts).to_contain_text("not known: no deployment that answered has a price")
    await expect(shown.get_by_text("It has cost")).to_have_count(0)
    await expect(shown.get_by_text("It will cost about")).to_have_count(0)
    await site.service.settle()
    models = (DEPLOYMENT.model, UNPRICED.model)
    rows = b"".join(b'{"prompt": "p", "model": "%s"}\n' % name.encode() for name in models)
    await site.service.drop(rows * 1000, "mixed.jsonl")
    await site.service.announce("mixed.jsonl")
    await site.service.settle(stop=states.after(3))
    jobs = (await site.service.ask("GET", "/api/jobs", input="prompts/mixed.jsonl")).body["data"]
    await tab.open(f"job={jobs[0]['job']}")
    has_cost = "calls were to deployments without a price, so it is not known what it will cost"
    await expect(shown.get_by_text("It has cost")).to_contain_text(has_cost)
    await expect(shown.get_by_text("It will cost about")).to_have_count(0)


@pytest.mark.parametrize("site", [{"deployments": (AT_NIGHT,)}], indirect=True)
async def test_what_waits_for_its_hour_says_until_when(tab: Tab, site: Site) -> None:
    service = site.service
    # The doubles' clock goes on from the machine's: let it be nine in the morning in Berlin.
    service.elapsed += (EPOCH - service.clock()) % 86400.0
    await service.drop(states.ROWS, "night.jsonl")
    await service.announce("night.jsonl")
    await service.drop(states.ROWS, "soon.jsonl", options={"completion_window": "2h"})
    await service.announce("soon.jsonl")
    await service.settle()
    await tab.open()
    await tab.settled()
    phi = tab.page.get_by_role("group", name="Deployments").get_by_role("row").last
    await expect(phi).to_contain_text("22:00-06:00 Europe/Berlin")
    await expect(phi).to_contain_text(re.compile(r"opens \d+ \w+ \d+, 21:00:00"))
    wrong = tab.page.get_by_role("region", name="Needs attention")
    await expect(wrong).to_contain_text("soon.jsonl: it will miss the end of its window")
    await expect(wrong).not_to_contain_text("night.jsonl")
    await tab.page.get_by_label("Waits for").select_option("hours")
    await expect(row(tab.page, "night.jsonl")).to_contain_text("hours")
    left = row(tab.page, "soon.jsonl").get_by_role("cell").filter(has_text="too late")
    await expect(left).to_have_text("too late")
    await tab.page.get_by_role("link", name="soon.jsonl").last.click()
    shown = tab.page.locator("section.shown")
    await expect(shown).to_contain_text("It waits for hours")
    await expect(shown).to_contain_text(re.compile(r"until \d+ \w+ \d+, 21:00:00"))
    await expect(shown).to_contain_text("none of its hours is left before that")
    assert await violations(tab.page) == []


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ({"message": "the key is refused: mend PHI_KEY"}, ": the key is refused: mend PHI_KEY. "),
        pytest.param({"message": "It is away."}, ": It is away. ", marks=pytest.mark.long),
        pytest.param({}, ". ", marks=pytest.mark.long),
    ],
)
async def test_a_deployment_that_is_out_of_order_says_in_sentences_when_it_is_tried(
    tab: Tab, site: Site, word: dict[str, str], told: str
) -> None:
    board = HealthBoard(site.service.blobs, "state")
    at = site.service.clock()

    async def tell(**more: Any) -> None:
        await board.tell("phi", "p", DeploymentHealth(at=at, **{"breaker": "open", **word, **more}))

    await tell(until=at + 600.0)
    await tab.open()
    await tab.settled()
    attention = tab.page.get_by_role("region", name="Needs attention").get_by_role("listitem")
    await expect(attention).to_contain_text(f"Deployment phi{told}It is tried again at ")
    await tell(until=at - 5.0)
    await tab.page.reload()
    await expect(attention).to_contain_text(f"Deployment phi{told}It is tried with the next call.")
    await tell(breaker="probing")
    await tab.page.reload()
    await expect(attention).to_contain_text(f"Deployment phi{told}A call is trying it.")


@pytest.mark.parametrize("site", [{"tenants": TENANTS}], indirect=True)
async def test_a_filter_that_is_refused_lists_nothing_and_the_rest_is_up_to_date(
    tab: Tab, site: Site
) -> None:
    service = site.service
    await service.drop(b"a,b\n", "theirs.jsonl", container="inputs")
    await service.say({"container": "inputs", "name": "theirs.jsonl", "tenant": "blue"})
    await service.settle()
    await tab.open()
    await tab.settled()
    tenant = tab.page.get_by_label("Tenant")
    await tenant.fill("blue")
    await tenant.press("Enter")
    await expect(row(tab.page, "theirs.jsonl")).to_be_visible()
    await tenant.fill("nobody")
    await tenant.press("Enter")
    listed = tab.page.get_by_role("region", name="Jobs")
    await expect(listed.get_by_role("alert")).to_have_text(
        "Nothing is listed: there is no tenant 'nobody'; TENANTS knows: default, blue"
    )
    await expect(listed.get_by_role("row")).to_have_count(0)
    await expect(tab.page.get_by_role("alert")).to_have_count(1)
    await tab.settled()
    attention = tab.page.get_by_role("region", name="Needs attention")
    await expect(attention).to_contain_text("theirs.jsonl of blue")
    assert await violations(tab.page) == []
    await tenant.fill("")
    await tenant.press("Enter")
    await expect(row(tab.page, "theirs.jsonl")).to_be_visible()
    await expect(tab.page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("site", [{"api_keys": KEYS}], indirect=True)
async def test_a_batch_is_called_as_its_file_was(tab: Tab, site: Site) -> None:
    client = Client(site.service)
    file = await client.upload(rows(2), "reviews.jsonl")
    await client.create(file["id"])
    await site.service.settle()
    await tab.open()
    await tab.settled()
    await row(tab.page, "reviews.jsonl").get_by_role("link").click()
    await expect(tab.page.get_by_role("heading", name="reviews.jsonl")).to_be_visible()
    await tab.page.get_by_text("Facts").click()
    await expect(tab.page.locator("dl")).to_contain_text("files/default/")


async def test_a_job_is_followed_past_answers_that_are_none(tab: Tab, site: Site) -> None:
    job = await states.begun(site.service)
    await tab.page.clock.install()
    await tab.open(f"job={job}")
    shown = tab.page.locator("section.shown")
    await expect(shown.locator(".badge")).to_have_text("▶ in progress")

    for status in (500, 502, 504):
        await tab.page.route("**/api/**", answering(status))
        await tab.page.clock.fast_forward(20_000)
        await expect(tab.page.get_by_role("alert")).to_contain_text("cannot be reached")
        await tab.page.unroute("**/api/**")
        await tab.page.clock.fast_forward(120_000)
        await expect(tab.page.get_by_role("alert")).to_have_count(0)
    await site.service.settle()
    await tab.page.clock.fast_forward(4000)
    await expect(shown.locator(".badge")).to_have_text("✓ completed")


# -- as it is operated


async def test_a_job_is_cancelled_with_the_keyboard_alone(tab: Tab, site: Site) -> None:
    job = await states.begun(site.service)
    await tab.open()
    await tab.settled()
    page, press = tab.page, tab.page.keyboard.press

    async def tab_to(name: str) -> None:
        for _ in range(30):
            await press("Tab")
            focused = page.locator("a:focus, button:focus")
            if await focused.count() and name in (await focused.text_content() or ""):
                return
        raise AssertionError(f"no {name} within 30 steps")

    await press("Tab")
    await expect(page.get_by_role("link", name="Skip to the jobs")).to_be_focused()
    await tab_to("prompts/long.jsonl")
    await press("Enter")
    await expect(page.get_by_role("heading", name="prompts/long.jsonl")).to_be_focused()
    await tab_to("Cancel")
    await press("Enter")
    dialog = page.get_by_role("dialog", name="Cancel prompts/long.jsonl?")
    await expect(dialog).to_be_visible()
    assert await violations(page) == []
    await press("Escape")
    await expect(dialog).to_be_hidden()
    assert not any(method == "POST" for method, _ in site.asked)
    await press("Enter")
    await press("Enter")
    await expect(page.locator("section.shown .badge")).to_have_text("▶ cancelling")
    assert ("POST", f"/api/jobs/{job}/cancel") in site.asked


@pytest.mark.parametrize(
    ("width", "scale"),
    [
        pytest.param(320, 1.0, id="320 px"),
        pytest.param(600, 2.0, id="200% of 1200 px", marks=pytest.mark.long),
    ],
)
async def test_nothing_is_cut_off_on_a_small_screen(
    browser: Browser, site: Site, width: int, scale: float
) -> None:
    job = await states.with_errors(site.service, "a-very-long-name-" * 8 + ".jsonl")
    context = await browser.new_context(
        viewport={"width": width, "height": 640}, device_scale_factor=scale
    )
    tab = Tab(await context.new_page(), site)
    await tab.open(f"job={job}")
    await tab.settled()
    await expect(tab.page.get_by_role("group", name="Errors")).to_be_visible()
    assert await tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert await violations(tab.page) == []
    assert tab.complaints == []
    await context.close()


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.long), "dark"])
async def test_colours_have_contrast_in_light_and_dark(
    browser: Browser, site: Site, scheme: Any
) -> None:
    await states.failed(site.service)
    job = await states.with_errors(site.service)
    context = await browser.new_context(color_scheme=scheme, reduced_motion="reduce")
    tab = Tab(await context.new_page(), site)
    await tab.open(f"job={job}")
    await tab.settled()
    await expect(tab.page.get_by_role("group", name="Errors")).to_be_visible()
    ground = await tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(246, 247, 249)" if scheme == "light" else "rgb(20, 23, 28)")
    assert await violations(tab.page) == []
    await context.close()


async def test_what_a_browser_is_given_says_what_it_may_do(site: Site) -> None:
    """Held here too, where the page has been seen to live with it."""
    from workers.api.dashboard.page import POLICY

    directives = dict(part.strip().partition(" ")[::2] for part in POLICY.split(";"))
    assert directives["default-src"] == "'none'"
    assert json.dumps(directives).count("unsafe") == 0


async def test_pause_and_resume_are_offered_where_they_are_possible(tab: Tab, site: Site) -> None:
    job = await states.begun(site.service)
    await tab.open(f"job={job}")
    shown = tab.page.locator("section.shown")
    for action, after in (("Pause", "paused"), ("Resume", "in progress")):
        await shown.get_by_role("button", name=action).click()
        await tab.page.get_by_role("dialog").get_by_role("button", name=action).click()
        await expect(shown.locator(".badge")).to_contain_text(after)
    await expect(shown.get_by_role("button", name="Resume")).to_have_count(0)
