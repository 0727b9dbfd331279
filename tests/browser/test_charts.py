"""What the page draws of how a job went."""

import re
from typing import Any

import pytest
from playwright.async_api import expect

from schemas.outcomes import Outcome
from tests.browser.conftest import Site, Tab
from tests.doubles.service import Answering, Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROWS = 235


class Steady(Answering):
    """Ten answers a second of the service's clock."""

    made: Bench

    async def ask(self, task: Any, body: Any) -> Outcome:
        outcome = await super().ask(task, body)
        self.made.elapsed += 0.1
        return outcome


@pytest.mark.parametrize("site", [{"endpoint": Steady()}], indirect=True)
async def test_a_steady_job_that_has_ended_is_drawn_as_fast_at_its_ends_as_between(
    tab: Tab, site: Site
) -> None:
    endpoint = site.service.endpoint
    assert isinstance(endpoint, Steady)
    endpoint.made = site.service
    site.service.elapsed += 7.0
    ended = await site.service.run(b'{"prompt": "p"}\n' * ROWS)
    await tab.open(f"job={ended.manifest['job']}")
    rows = tab.page.get_by_role("figure").filter(has_text="Rows rows/s")
    await rows.get_by_text("Rows as a table").click()
    cells = rows.get_by_role("cell")
    await expect(cells.first).to_be_visible()
    rates = [float(each) for each in await cells.all_inner_texts()]
    assert len(rates) >= 2
    average = ROWS / (ended.manifest["seconds"])
    assert rates == pytest.approx([average] * len(rates), rel=0.25)
    told = re.search(r"highest ([0-9.]+)", await rows.locator("figcaption").inner_text())
    assert told is not None
    assert float(told[1]) >= 0.99 * average
