"""Pictures of the dashboard and of a report, for the documents.

    python -m benchmarks.screenshots [--folder docs]

Runs the production code over the in-memory doubles with an endpoint that answers after a while and
refuses now and then, opens the page in Chromium as `tests/browser` does, and writes dashboard.png
and report.png.
"""

import argparse
import asyncio
import io
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from aiohttp import web
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from schemas.money import Price
from schemas.outcomes import Outcome
from tests.browser import states
from tests.browser.conftest import CHROMIUM, KEY, Site
from tests.doubles.service import DEPLOYMENT, Answering, Bench, bench
from workers.jobs.outbox import SHARDS
from workers.ports import BlobRef

ROWS = 6000
PRICED = DEPLOYMENT.model_copy(update={"price": Price(input="0.13", output="0.52", currency="USD")})
STEP_SECONDS = 12.0
VIEWPORT: Any = {"width": 1100, "height": 900}


class Lifelike(Answering):
    """Answers after a while, and refuses some rows for good."""

    rng = Random(7)

    async def ask(self, task: Any, body: Any) -> Outcome:
        await asyncio.sleep(self.rng.lognormvariate(-2.3, 0.5))
        if self.rng.random() < 0.01:
            return Outcome("content_filter", 400, code="content_filter")
        return await super().ask(task, body)


async def history(service: Bench) -> str:
    """Some jobs that have ended, and one that is under way; gives its id."""
    await states.completed(service, "labels-monday.jsonl")
    await states.with_errors(service, "reviews.jsonl")
    await states.failed(service, "customers.csv.jsonl")
    await states.acted(service, "pause", "archive.jsonl")
    await service.drop(b'{"prompt": "p"}\n' * ROWS, "summaries.jsonl")
    await service.announce("summaries.jsonl")
    shards = 0

    def stop(delivery: Any) -> bool:
        nonlocal shards
        shards += delivery.queue == SHARDS
        service.elapsed += STEP_SECONDS * Lifelike.rng.uniform(0.6, 1.4)
        return bool(shards > 22)

    await service.settle(stop=stop)
    return str(service.events[-1]["data"]["job"])


async def dashboard(browser: Browser, service: Bench, job: str, file: Path) -> None:
    site = Site(service)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", site.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        page = await browser.new_page(viewport=VIEWPORT)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/dashboard"
        await page.goto(f"{url}#key={KEY}&job={job}")
        await page.wait_for_selector("figure")
        await page.wait_for_selector(".jobs")
        await picture(page, file, 1560)
    finally:
        await runner.cleanup()


async def picture(page: Page, file: Path, height: int) -> None:
    """The upper part of a page, in as few colours as it has: a fifth of the bytes."""
    clip: Any = {"x": 0, "y": 0, "width": VIEWPORT["width"], "height": height}
    taken = await page.screenshot(full_page=True, clip=clip)
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(48).save(file, optimize=True)


async def report(browser: Browser, service: Bench, file: Path) -> None:
    await service.drop(b'{"prompt": "p"}\n' * 3000, "tuesday.jsonl", options={"max_tokens": 8})
    await service.announce("tuesday.jsonl")

    def goes_on(_: Any) -> bool:
        service.elapsed += STEP_SECONDS * Lifelike.rng.uniform(0.2, 1.8)
        return False

    await service.settle(stop=goes_on)
    ended = await service.ended()
    container, _, folder = ended.event["data"]["results"].partition("/")
    stored = await service.blobs.read(BlobRef(container, f"{folder}/report.html"))
    with tempfile.NamedTemporaryFile(suffix=".html") as made:
        made.write(stored.data)
        made.flush()
        page = await browser.new_page(viewport=VIEWPORT)
        await page.goto(Path(made.name).as_uri())
        await picture(page, file, 1500)


async def take(folder: Path) -> None:
    if CHROMIUM is None:
        raise SystemExit("no chromium is installed: apt-get install chromium, or set CHROMIUM")
    async with (
        bench(endpoint=Lifelike(), deployments=(PRICED,)) as service,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        job = await history(service)
        await dashboard(browser, service, job, folder / "dashboard.png")
        await service.settle()
        await report(browser, service, folder / "report.png")
        await browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent.parent / "docs")
    asyncio.run(take(parser.parse_args().folder))


if __name__ == "__main__":
    main()
