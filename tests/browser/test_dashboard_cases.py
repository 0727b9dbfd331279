"""What the dashboard shows in each case: a look of its own for each, minutes in all."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Route, expect

from schemas.health import DeploymentHealth
from schemas.hours import Hours
from schemas.listing import index_name
from schemas.money import Price
from tests.browser import states
from tests.browser.conftest import Site, Tab
from tests.browser.looking import row, violations
from tests.browser.states import AT_NIGHT, CAPPED, LIMITED, PRICED, TENANTS
from tests.doubles.service import DEPLOYMENT, EPOCH
from workers.ports import BlobRef
from workers.quota.health import HealthBoard

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]


async def test_a_service_without_jobs_says_so(tab: Tab) -> None:
    await tab.open()
    await expect(tab.page.get_by_text("Nothing needs attention")).to_be_visible()
    await expect(tab.page.get_by_text("No job fits.")).to_be_visible()
    await tab.page.get_by_text("Night by file").click()
    await expect(tab.page.get_by_text("No file was left for the night")).to_be_visible()


async def test_errors_tell_the_first_of_their_lines(tab: Tab, site: Site) -> None:
    bad = b'{"nothing": 1}\n' * 7 + b"[]\n"
    ended = await site.service.run(states.ROWS + bad, "bad.jsonl")
    await tab.open(f"job={ended.manifest['job']}")
    rows = tab.page.get_by_role("group", name="Errors").get_by_role("row")
    await expect(rows.nth(1).get_by_role("cell").nth(1)).to_have_text("3, 4, 5, 6, 7…")
    await expect(rows.nth(2).get_by_role("cell").nth(1)).to_have_text("10")


@pytest.mark.parametrize("site", [{"deployments": (PRICED,)}], indirect=True)
async def test_a_capped_job_shows_what_is_spent_and_set_aside(tab: Tab, site: Site) -> None:
    caps: dict[str, object] = {"max_tokens": 9, "max_total_tokens": 400_000, "max_cost": "1.5"}
    job = await states.begun(site.service, "capped.jsonl", 2000, **caps)
    await tab.page.clock.install()
    await tab.open(f"job={job}")
    shown = tab.page.locator("section.shown").get_by_text("Of its cap")
    await expect(shown.first).to_contain_text(re.compile(r"of 1\.5\d* USD, 0\.\d+ USD are spent"))
    await site.service.settle()
    await tab.page.clock.fast_forward(4000)
    # Each row has 7 tokens read and 5 written.
    await expect(shown.last).to_have_text("Of its cap of 400,000 tokens, 24,000 tokens are spent.")


DEAR = PRICED.model_copy(update={"name": "dear"})


RENTED = DEPLOYMENT.model_copy(
    update={
        "name": "rented",
        "price": Price(input="1", output="2.5", per_hour="1.50", currency="EUR"),
    }
)


@pytest.mark.parametrize("site", [{"deployments": (DEPLOYMENT, DEAR, RENTED)}], indirect=True)
async def test_prices_are_shown_with_each_deployment(tab: Tab, site: Site) -> None:
    await tab.open()
    await tab.settled()
    table = tab.page.get_by_role("group", name="Deployments")
    heads = await table.get_by_role("columnheader").all_inner_texts()
    cells = [
        await row.locator("th, td").nth(heads.index("Price, of a million tokens")).inner_text()
        for row in (await table.get_by_role("row").all())[1:]
    ]
    assert cells == [
        "not told",
        "0.13 USD prompt\n0.52 USD completion",
        "1 EUR prompt\n2.5 EUR completion\n1.50 EUR an hour",
    ]
    assert await violations(tab.page) == []


async def test_a_job_that_waits_for_its_cap_says_what_to_do_and_offers_no_resume(
    tab: Tab, site: Site
) -> None:
    options = {"max_tokens": 10, "max_total_tokens": 100, "on_budget": "pause"}
    await site.service.drop(states.ROWS * 30, "capped.jsonl", options=options)
    await site.service.announce("capped.jsonl")
    await site.service.settle()
    await tab.open()
    await tab.settled()
    attention = tab.page.get_by_role("region", name="Needs attention")
    await expect(attention).to_contain_text("capped.jsonl: it is paused by its budget: the cap")
    await expect(attention).not_to_contain_text("resumes it")
    await attention.get_by_role("link", name="capped.jsonl").click()
    shown = tab.page.locator("section.shown")
    await expect(shown.get_by_role("button", name="Cancel")).to_be_visible()
    await expect(shown.get_by_role("button", name="Resume")).to_have_count(0)


@pytest.mark.parametrize("site", [{"deployments": (PRICED,)}], indirect=True)
@pytest.mark.parametrize(
    ("caps", "ends"),
    [
        # A call is pledged for its bytes, of which most are given back: some fit, and not all.
        (
            {"max_cost": "0.003"},
            "its cap is 0.003 USD. Rows for which that leaves no room get no answer, and end as "
            "budget_exceeded.",
        ),
        (
            {"max_cost": "0.003", "on_budget": "pause"},
            "its cap is 0.003 USD. It pauses when no further call fits.",
        ),
    ],
)
async def test_a_job_that_its_cap_will_cut_off_says_so_and_what_then(
    tab: Tab, site: Site, caps: dict[str, str], ends: str
) -> None:
    job = await states.begun(site.service, "dear.jsonl", 2000, max_tokens=9, **caps)
    await tab.open(f"job={job}")
    shown = tab.page.locator("section.shown")
    # Each row has 7 tokens read and 5 written: 2,000 of them would be 0.00702 USD.
    said = r"All its 2,000 rows would cost about 0\.00702\d* USD, if they went on as they did; "
    await expect(shown.get_by_text("It has cost")).to_contain_text(
        re.compile(said + re.escape(ends))
    )
    await expect(shown).not_to_contain_text("It will cost")
    assert await violations(tab.page) == []


@pytest.mark.parametrize("site", [{"deployments": (PRICED,)}], indirect=True)
async def test_a_job_that_no_further_call_fits_is_not_said_to_cost_more(
    tab: Tab, site: Site
) -> None:
    options = {"max_tokens": 10, "max_cost": "0.0005", "on_budget": "pause"}
    options |= {"max_total_tokens": 1000}
    await site.service.drop(states.ROWS * 100, "capped.jsonl", options=options)
    await site.service.announce("capped.jsonl")
    await site.service.settle()
    (job,) = (await site.service.ask("GET", "/api/jobs")).body["data"]
    assert (job["state"], job["waiting"]["reason"]) == ("paused", "budget")
    await tab.open(f"job={job['job']}")
    shown = tab.page.locator("section.shown")
    await expect(shown.get_by_text("It has cost")).to_contain_text(
        "All its 200 rows would cost about 0.000703 USD, if they went on as they did; its cap is "
        "0.0005 USD, and no further call fits."
    )
    await expect(shown.get_by_text("would have about")).to_have_text(
        "All its 200 rows would have about 2,400 tokens, if they went on as they did; its cap is "
        "1,000 tokens, and no further call fits."
    )
    await expect(shown).not_to_contain_text("It will cost")


async def test_what_shards_that_are_asked_hold_is_told_apart(tab: Tab, site: Site) -> None:
    job = await states.begun(site.service, max_tokens=9, max_total_tokens=400_000)
    told = (await site.service.ask("GET", f"/api/jobs/{job}")).body
    done = told["counts"]["succeeded"]
    told |= {"running": 45, "budget": told["budget"] | {"tokens_reserved": 26_788}}

    async def with_shards_out(route: Route) -> None:
        await route.fulfill(json=told)

    await tab.page.route(f"**/api/jobs/{job}", with_shards_out)
    await tab.open(f"job={job}")
    shown = tab.page.locator("section.shown")
    await expect(shown.get_by_text("Of its cap")).to_contain_text(
        "are spent, and 26,788 tokens spent, or set aside, for shards that are being asked."
    )
    await expect(shown.get_by_text("whose shards are done")).to_have_text(
        f"Of the {done:,} rows whose shards are done: the 45 others are counted with their shards."
    )


@pytest.mark.parametrize("site", [CAPPED], indirect=True)
async def test_a_job_of_a_month_is_called_as_its_user_called_the_file(tab: Tab, site: Site) -> None:
    holding, _ = await states.waiting_for_its_month(site.service)
    told = (await site.service.ask("GET", "/api/budgets")).body
    for job in told["data"][0]["reserving"]:
        job |= {"input": "files/default/1.jsonl", "filename": "h100.jsonl"}

    async def uploaded(route: Route) -> None:
        await route.fulfill(json=told)

    await tab.page.route("**/api/budgets*", uploaded)
    await tab.open()
    named = tab.page.get_by_role("group", name="Budgets").get_by_role("link", name="h100.jsonl")
    await expect(named).to_have_attribute("href", f"#job={holding}")


@pytest.mark.parametrize("site", [CAPPED], indirect=True)
async def test_a_month_that_cannot_be_read_says_what_to_do(tab: Tab, site: Site) -> None:
    month = datetime.fromtimestamp(site.service.clock(), UTC).strftime("%Y-%m")
    await site.service.blobs.create(BlobRef("state", f"budgets/blue/{month}"), b"{")
    await tab.page.set_viewport_size({"width": 320, "height": 640})
    await tab.open()
    blue = tab.page.get_by_role("group", name="Budgets").get_by_role("row").filter(has_text="blue")
    await expect(blue).to_contain_text("cannot be read: restore it")
    assert await tab.page.evaluate("document.documentElement.scrollWidth") <= 320
    assert await violations(tab.page) == []


@pytest.mark.parametrize("site", [CAPPED], indirect=True)
async def test_a_month_says_how_many_open_jobs_were_not_looked_at(tab: Tab, site: Site) -> None:
    now = site.service.clock()
    for n in range(201):
        for name in (f"open/other-{n}", f"index/blue/{index_name(now, f'other-{n}')}"):
            await site.service.blobs.create(BlobRef("state", name), b"{}")
    await tab.open()
    rows = tab.page.get_by_role("group", name="Budgets").get_by_role("row")
    told = rows.filter(has_text="blue").get_by_role("cell").last
    await expect(told).to_have_text("1 more open job was not looked at")
    await expect(rows.filter(has_text="default").get_by_role("cell").last).to_have_text("–")
    assert await violations(tab.page) == []


async def test_where_no_tenant_has_a_cap_months_are_asked_for_once(tab: Tab, site: Site) -> None:
    await tab.page.clock.install()
    await tab.open()
    await tab.settled()
    await tab.page.clock.fast_forward(300_000)
    await tab.page.clock.fast_forward(300_000)
    assert [path for _, path in site.asked if "budgets" in path] == ["/api/budgets"]
    await expect(tab.page.get_by_role("heading", name="Budgets")).to_have_count(0)


NIGHT_ALONE = AT_NIGHT.model_copy(update={"name": "night-alone", "model": "phi-3-night"})


async def shown_at_eight(tab: Tab, site: Site, **options: object) -> Locator:
    """A job of a model that is closed at eight in the morning (UTC), as the page shows it then."""
    service = site.service
    service.elapsed += (EPOCH - service.clock()) % 86400.0
    await service.drop(states.ROWS, "soon.jsonl", options={"model": "phi-3-night", **options})
    await service.announce("soon.jsonl")
    await service.settle()
    await tab.open()
    await tab.settled()
    await tab.page.get_by_role("link", name="soon.jsonl").last.click()
    return tab.page.locator("section.shown")


@pytest.mark.parametrize("site", [{"deployments": (DEPLOYMENT, NIGHT_ALONE)}], indirect=True)
async def test_no_rate_is_advised_where_what_may_answer_opens_after_the_window(
    tab: Tab, site: Site
) -> None:
    shown = await shown_at_eight(tab, site, completion_window="2h")
    await expect(shown).to_contain_text(
        re.compile(r"It will miss .+: night-alone opens \d+ \w+ \d+, 21:00:00, after that\.")
    )
    await expect(shown).not_to_contain_text("would do")
    assert await violations(tab.page) == []


AT_NOON = NIGHT_ALONE.model_copy(update={"hours": "12:00-20:00", "name": "noon-alone"})


MORNINGS = {"low": Hours(hours="08:00-10:00", time_zone="Europe/Berlin")}


@pytest.mark.parametrize(
    "site", [{"deployments": (DEPLOYMENT, AT_NOON), "priority_hours": MORNINGS}], indirect=True
)
async def test_what_opens_within_the_window_is_not_said_to_open_after_it(
    tab: Tab, site: Site
) -> None:
    # Nine in the morning in Berlin: the hour that is left of the job's own ends before noon.
    shown = await shown_at_eight(tab, site, completion_window="11h", priority="low")
    told = r"It will miss .+: noon-alone opens .+, and none of the job's hours is left from then on"
    await expect(shown).to_contain_text(re.compile(told))
    await expect(shown).not_to_contain_text("after that")
    assert await violations(tab.page) == []


async def test_the_guard_of_a_deployment_is_that_of_all_its_processes(tab: Tab, site: Site) -> None:
    board = HealthBoard(site.service.blobs, "state")
    for process, guard in (("a", 64), ("b", 12), ("of an earlier release", None)):
        health = DeploymentHealth(at=site.service.clock(), in_flight=3, guard=guard)
        await board.tell("phi", process, health)
    await tab.open()
    await tab.settled()
    table = tab.page.get_by_role("group", name="Deployments")
    heads = await table.get_by_role("columnheader").all_inner_texts()
    cells = table.get_by_role("row").last.locator("th, td")
    await expect(cells.nth(heads.index("In flight"))).to_have_text("9of 76")
    assert await violations(tab.page) == []


async def test_what_is_no_job_is_told(tab: Tab) -> None:
    await tab.open("job=nobody")
    await expect(tab.page.get_by_text("there is no such job")).to_be_visible()
    await tab.page.get_by_role("button", name="Close").click()
    await expect(tab.page.get_by_text("there is no such job")).to_have_count(0)


@pytest.mark.parametrize("site", [{"deployments": (LIMITED,)}], indirect=True)
async def test_of_a_deployment_that_nobody_asks_nothing_is_used(tab: Tab, site: Site) -> None:
    await tab.open()
    await tab.settled()
    cells = tab.page.get_by_role("group", name="Deployments").get_by_role("row").last
    await expect(cells.get_by_role("cell")).to_have_text(
        ["idle", "0 of 1K", "0 of 200K", "0%", "–", "0", "–", re.compile("0.13 USD")]
    )
    board = HealthBoard(site.service.blobs, "state")
    await board.tell("phi", "new", DeploymentHealth(at=site.service.clock(), calls=9))
    await tab.page.reload()
    await expect(cells).to_contain_text("not measured yet of 1K")


WIDE = LIMITED.model_copy(
    update={
        "name": "phi-3-medium-westeurope",
        "model": "Phi-3-medium-128k-instruct",
        "hours": "22:00-06:00",
        "time_zone": "Europe/Berlin",
    }
)


@pytest.mark.parametrize("site", [{"deployments": (LIMITED, WIDE, RENTED)}], indirect=True)
async def test_no_column_is_cut_at_1280_px(browser: Browser, site: Site) -> None:
    await states.failed(site.service, "a-file-with-a-rather-long-name-2026-11.jsonl")
    board = HealthBoard(site.service.blobs, "state")
    busy: dict[str, Any] = {"requests_used": 16_500.0, "tokens_used": 1_234_000.0, "guard": 4096}
    for name in ("phi", WIDE.name):
        at = site.service.clock()
        health = DeploymentHealth(at=at, calls=123_456, tokens=98_765_432, refusals=1_234, **busy)
        await board.tell(name, "p", health)
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    tab = Tab(await context.new_page(), site)
    await tab.open()
    await tab.settled()
    for name in ("Jobs", "Deployments"):
        table = tab.page.get_by_role("group", name=name, exact=True)
        cut = await table.evaluate("each => each.scrollWidth - each.clientWidth")
        assert cut == 0, name
    await context.close()


FAST = LIMITED.model_copy(update={"requests_per_minute": 200_000, "tokens_per_minute": None})


@pytest.mark.parametrize("site", [{"deployments": (FAST,)}], indirect=True)
async def test_a_paused_job_has_no_rate_and_says_by_what_it_is_paused(tab: Tab, site: Site) -> None:
    job = await states.begun(site.service, "later.jsonl", model="phi-3-mini")
    await tab.open(f"job={job}")
    await tab.settled()
    shown = tab.page.locator("section.shown")
    await expect(shown).to_contain_text("rows/s (")
    await expect(row(tab.page, "later.jsonl")).to_contain_text("rows/s")
    reply = await site.service.ask("POST", f"/api/jobs/{job}/pause")
    assert reply.code == 202
    await tab.page.reload()
    await expect(shown).to_contain_text("It is paused by hand, until somebody resumes it.")
    await expect(shown).to_contain_text(re.compile(r"Its window ends at .+ all the same"))
    await expect(shown).not_to_contain_text("rows/s (")
    await expect(row(tab.page, "later.jsonl")).to_contain_text("a resume")
    await expect(row(tab.page, "later.jsonl")).not_to_contain_text("rows/s")
    await expect(shown).not_to_contain_text("It waits for")
    assert await violations(tab.page) == []


async def test_an_old_job_that_stands_still_needs_attention_however_many_came_after_it(
    tab: Tab, site: Site
) -> None:
    service = site.service
    await states.acted(service, "pause", "old.jsonl")
    for number in range(31):
        await states.failed(service, f"{number}.csv.jsonl")
    await tab.open()
    await tab.settled()
    await expect(row(tab.page, "old.jsonl")).to_have_count(0)
    attention = tab.page.get_by_role("region", name="Needs attention")
    await expect(attention).to_contain_text("the 10 open ones of the oldest files")
    old = attention.get_by_role("listitem").filter(has_text="old.jsonl")
    # What has ended can wait for less long than what stands still does: it is not among the first.
    await expect(old).not_to_be_visible()
    await attention.get_by_text("and 23 more").click()
    await expect(old).to_contain_text("it is paused until somebody resumes it")
    assert await violations(tab.page) == []


@pytest.mark.parametrize("site", [{"tenants": TENANTS}], indirect=True)
async def test_what_is_wrong_is_that_of_all_tenants_and_the_list_is_too_until_one_is_named(
    tab: Tab, site: Site
) -> None:
    service = site.service
    await states.failed(service, "own.jsonl")
    await service.drop(b"a,b\n", "theirs.jsonl", container="inputs")
    await service.say({"container": "inputs", "name": "theirs.jsonl", "tenant": "blue"})
    await service.settle()
    await tab.open()
    await tab.settled()
    attention = tab.page.get_by_role("region", name="Needs attention")
    await expect(attention.get_by_role("listitem")).to_have_count(2)
    await expect(attention).to_contain_text("inputs/theirs.jsonl of blue: this is a CSV")
    await expect(attention).to_contain_text("prompts/own.jsonl: this is a CSV")
    await expect(attention).to_contain_text("the newest 30 jobs of all tenants")
    await expect(row(tab.page, "theirs.jsonl")).to_contain_text("of blue")
    await expect(row(tab.page, "own.jsonl")).to_be_visible()
    await tab.page.get_by_label("Tenant").fill("blue")
    await tab.page.keyboard.press("Enter")
    await expect(row(tab.page, "own.jsonl")).to_have_count(0)
    await expect(row(tab.page, "theirs.jsonl")).to_be_visible()
    await expect(attention).to_contain_text("prompts/own.jsonl: this is a CSV")
    assert await violations(tab.page) == []


async def test_the_late_answer_of_one_job_leaves_the_next_its_own(tab: Tab, site: Site) -> None:
    late = await states.completed(site.service)
    running = await states.begun(site.service)
    asked, let = asyncio.Event(), asyncio.Event()

    async def held(route: Route) -> None:
        asked.set()
        await let.wait()
        await route.continue_()

    await tab.page.route(f"**/api/jobs/{late}", held)
    await tab.open(f"job={late}")
    await asked.wait()
    await tab.page.evaluate(f"location.hash = 'job={running}'")
    await expect(tab.page.locator("section.shown")).to_contain_text("Loading")
    let.set()
    heading = tab.page.get_by_role("heading", name="prompts/long.jsonl")
    await expect(heading).to_be_visible()


async def test_what_cannot_be_shown_is_told_and_asked_for_again(tab: Tab, site: Site) -> None:
    await states.completed(site.service)
    await tab.page.clock.install()

    async def odd(route: Route) -> None:
        await route.fulfill(json={"object": "list", "data": [None], "has_more": False})

    await tab.page.route(re.compile(r"/api/jobs\?"), odd)
    await tab.open()
    await expect(tab.page.get_by_role("alert")).to_contain_text("This page has a fault")
    await expect(tab.page.locator("[data-live]")).to_have_text("not up to date")
    assert await violations(tab.page) == []
    await tab.page.unroute(re.compile(r"/api/jobs\?"))
    await tab.page.clock.fast_forward(17_000)
    await expect(row(tab.page, "fine.jsonl")).to_be_visible()
    await tab.settled()
    assert tab.complaints
    tab.complaints.clear()


async def test_of_a_file_and_night_the_newest_job_is_shown(tab: Tab, site: Site) -> None:
    for data in (b"a,b\n1,2\n", states.ROWS):
        await site.service.drop(data, container="nightly")
        await site.service.service.nightly.run()
        await site.service.settle()
        site.service.elapsed += 60.0
    await tab.open()
    await tab.page.get_by_text("Night by file").click()
    nights = tab.page.get_by_role("group", name="Nightly runs")
    await expect(nights.get_by_role("cell")).to_have_text(["✓ completed"])


async def test_nights_are_found_behind_however_many_other_jobs(
    tab: Tab, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.api.jobs.MOST_READ", 2)
    service = site.service
    for name in ("older.jsonl", "newer.jsonl"):
        await service.drop(states.ROWS, name, container="nightly")
        await service.service.nightly.run()
        await service.settle()
        for number in range(2):
            await states.completed(service, f"between-{number}-{name}")
        service.elapsed += 86400.0
    await tab.open()
    await tab.page.get_by_text("Night by file").click()
    await expect(tab.page.get_by_text("No file was left for the night")).to_be_visible()
    back = tab.page.get_by_role("button", name="Look further back")
    nights = tab.page.get_by_role("group", name="Nightly runs")
    await back.click()
    await expect(nights.get_by_role("cell")).to_have_text(["✓ completed"])
    await back.click()
    await expect(nights.get_by_role("rowheader")).to_have_text(
        ["nightly/newer.jsonl", "nightly/older.jsonl"]
    )
    await expect(nights.get_by_role("cell")).to_have_text(["✓ completed", "–", "–", "✓ completed"])
    await expect(back).to_have_count(0)
    assert await violations(tab.page) == []


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("site", [{"deployments": (PRICED,)}], indirect=True)
async def test_no_table_of_a_chart_breaks_out_of_its_card(
    browser: Browser, site: Site, width: int
) -> None:
    job = await states.begun(site.service, rows=2000)
    for _ in range(3):
        site.service.elapsed += 30.0
        await site.service.settle(stop=states.after(3))
    context = await browser.new_context(viewport={"width": width, "height": 900})
    tab = Tab(await context.new_page(), site)
    await tab.open(f"job={job}")
    await tab.settled()
    charts = tab.page.get_by_role("figure")
    await expect(charts).to_have_count(5)
    for summary in await charts.locator("summary").all():
        await summary.click()
    right = "each => each.getBoundingClientRect().right"
    for chart in await charts.all():
        edge = await chart.evaluate(right)
        for part in await chart.locator("> *").all():
            assert await part.evaluate(right) <= edge + 0.5, await part.inner_text()
        if width == 1280:
            cut = "each => each.scrollWidth - each.clientWidth"
            assert await chart.locator(".scroll").evaluate(cut) == 0, await chart.inner_text()
    assert await tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert await violations(tab.page) == []
    assert tab.complaints == []
    await context.close()
