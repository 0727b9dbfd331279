"""The dashboard in a real browser, over the production API and the in-memory doubles."""

import os
import shutil
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.doubles.service import Bench, bench
from workers.api.dashboard import page as files
from workers.api.http import AnyReply, HttpCall, repeated_in

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
KEY = "the-function-key"
HEADER = "x-functions-key"

expect.set_options(timeout=15_000)


class Site:
    """Serves the page and the API of a process, as the Functions host does.

    `away` answers 503 to all that is asked of the API; `asked` are its calls.
    """

    def __init__(self, service: Bench) -> None:
        self.service = service
        self.away = False
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/dashboard")
        if path != request.path:
            return self._sent(files.answer(_call(request, path, b"")))
        self.asked.append((request.method, request.path_qs))
        if self.away:
            return web.Response(status=503)
        if request.headers.get(HEADER) != KEY:
            return web.Response(status=401)
        call = _call(request, request.path, await request.read())
        return self._sent(await self.service.api.answer(call))

    def _sent(self, reply: AnyReply) -> web.Response:
        date = formatdate(self.service.clock(), usegmt=True)
        headers = {**reply.headers, "Content-Type": reply.content_type, "Date": date}
        return web.Response(status=reply.code, body=reply.data, headers=headers)


def _call(request: web.Request, path: str, body: bytes) -> HttpCall:
    headers = {name.lower(): value for name, value in request.headers.items()}
    again = repeated_in(str(request.url))
    return HttpCall(request.method, path, dict(request.query), headers, body, again)


@pytest_asyncio.fixture(loop_scope="module")
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A process with the settings that a test names as its parameter."""
    async with bench(**getattr(request, "param", {})) as service:
        made = Site(service)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", made.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/dashboard"
        yield made
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One for a module: tests have contexts of their own, which share nothing."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium, or set CHROMIUM")
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        await made.close()


class Tab:
    """A page, and all that it complained of."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page, self.site = page, site
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        # The browser itself tells of each answer that is none: 401, 404 and 503 are asked for here.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    async def open(self, rest: str = "", *, key: str | None = KEY) -> None:
        """Open the page with a key in its fragment."""
        parts = [part for part in (f"key={key}" if key else "", rest) if part]
        await self.page.goto(f"{self.site.url}#{'&'.join(parts)}")
        await self.page.wait_for_selector("h1")

    async def settled(self) -> None:
        """Wait until the list is there."""
        await expect(self.page.locator("[data-live]")).to_have_text("up to date")


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, site: Site) -> AsyncIterator[Tab]:
    context = await browser.new_context(viewport={"width": 1200, "height": 900})
    made = Tab(await context.new_page(), site)
    yield made
    await context.close()
    assert made.complaints == []
    await context.close()
