"""A job's report in a real browser: it runs nothing, asks for nothing, and all can read it."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.browser.looking import violations
from tests.jobs.test_report import MANIFEST
from workers.jobs.report import report

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
async def test_a_hostile_report_is_text_and_is_accessible(
    browser: Browser, tmp_path: Path, scheme: Any
) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(report(MANIFEST))
    context = await browser.new_context(color_scheme=scheme, viewport={"width": 320, "height": 640})
    page = await context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    await page.goto(file.as_uri())
    assert (asked, said) == ([file.as_uri()], [])
    assert await page.locator("script, img, iframe").count() == 0
    assert "<script>alert(1)" in await page.locator("h1").inner_text()
    colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    assert await violations(page) == []
    await context.close()
