"""Pictures of the dashboard and of a report, for the documents.

    python -m benchmarks.screenshots [--folder docs]

Runs the production code over the in-memory doubles with an endpoint that answers after a while and
refuses now and then, opens the page in Chromium as `tests/browser` does, and writes dashboard.png
and report.png.
"""

import argparse
import asyncio
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from aiohttp import web
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from schemas.money import Price
from schemas.outcomes import Outcome, Usage
from tests.browser import states
from tests.browser.conftest import CHROMIUM, KEY, Site
from tests.doubles.service import DEPLOYMENT, Answering, Bench, bench
from tests.simulation.virtual_time import run
from workers.jobs.outbox import SHARDS
from workers.ports import BlobRef

ROWS = 6000
PRICED = DEPLOYMENT.model_copy(update={"price": Price(input="0.13", output="0.52", currency="USD")})
BOUND = PRICED.model_copy(update={"requests_per_minute": 600, "tokens_per_minute": 90_000})
STEP_SECONDS = 12.0
VIEWPORT: Any = {"width": 1100, "height": 900}
COLUMN = 720
ABOVE = 20  # pixels above a heading


class Lifelike(Answering):
    """Answers after a while, and refuses some rows for good."""

    rng = Random(7)

    async def ask(self, task: Any, body: Any) -> Outcome:
        await asyncio.sleep(self.rng.lognormvariate(-2.3, 0.5))
        drawn = self.rng.random()
        if drawn < 0.01:
            return Outcome("content_filter", 400, code="content_filter")
        if drawn > 0.995:
            return Outcome("transient", 500, code="InternalServerError", billed=True)
        outcome = await super().ask(task, body)
        text = body["messages"][-1]["content"]
        usage = Usage(8 + len(text) // 4, self.rng.randint(4, 24))
        return replace(outcome, usage=usage)


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
        return bool(shards > 40)

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
    """The upper part of a page."""
    clip: Any = {"x": 0, "y": 0, "width": VIEWPORT["width"], "height": height}
    save(Image.open(io.BytesIO(await page.screenshot(full_page=True, clip=clip))), file)


def save(taken: Image.Image, file: Path) -> None:
    """Keep a picture in as few colours as it has: a fifth of the bytes."""
    taken.convert("RGB").quantize(64).save(file, optimize=True)


async def reported(_: Random) -> bytes:
    """The report of a job that its quota bounds, by a clock on which nobody has to wait."""
    texts = [
        f"Say in one word what this is about: {word * 40}" for word in ("rain ", "tax ", "tea ")
    ]
    rows = [json.dumps({"prompt": text}).encode() for text in texts] * 800
    rows[90:1500:470] = [b'{"question": "?"}'] * 3
    async with bench(endpoint=Lifelike(), deployments=(BOUND,)) as service:
        ended = await service.run(
            b"\n".join(rows) + b"\n", "tuesday.jsonl", options={"max_tokens": 32}
        )
        container, _, folder = ended.event["data"]["results"].partition("/")
        return (await service.blobs.read(BlobRef(container, f"{folder}/report.html"))).data


async def report(browser: Browser, made: bytes, file: Path) -> None:
    """The whole of a report, in two columns."""
    with tempfile.NamedTemporaryFile(suffix=".html") as kept:
        kept.write(made)
        kept.flush()
        page = await browser.new_page(viewport={"width": COLUMN, "height": 900})
        await page.goto(Path(kept.name).as_uri())
        begins = await page.evaluate(
            "[...document.querySelectorAll('section')].map((each) => each.offsetTop)"
        )
        taken = Image.open(io.BytesIO(await page.screenshot(full_page=True)))
    middle = min(begins, key=lambda top: max(top, taken.height - top)) - ABOVE
    whole = Image.new("RGB", (2 * COLUMN, max(middle, taken.height - middle)), "white")
    whole.paste(taken.crop((0, 0, COLUMN, middle)), (0, 0))
    whole.paste(taken.crop((0, middle, COLUMN, taken.height)), (COLUMN, 0))
    save(whole, file)


async def take(folder: Path, made: bytes) -> None:
    if CHROMIUM is None:
        raise SystemExit("no chromium is installed: apt-get install chromium, or set CHROMIUM")
    async with (
        bench(endpoint=Lifelike(), deployments=(PRICED,)) as service,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        await report(browser, made, folder / "report.png")
        job = await history(service)
        await dashboard(browser, service, job, folder / "dashboard.png")
        await browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent.parent / "docs")
    asyncio.run(take(parser.parse_args().folder, run(reported)))


if __name__ == "__main__":
    main()
