"""Webhooks from the end of a job to a receiver that verifies them with the `openai` package."""

import json
from pathlib import Path

import pytest

from schemas.webhooks import secret_of
from tests.integration.processes import processes, until
from tests.integration.receiving import receiver
from tests.integration.user import chats, jsonl, user_of

SECRET = secret_of(b"k" * 32)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("webhooks")]


def settings(url: str) -> dict[str, str]:
    """One webhook, of the tenant `default`, on this machine."""
    hook = {"url": url, "secret_settings": ["WEBHOOK_SECRET"], "private": True}
    return {"WEBHOOKS": json.dumps({"default": hook}), "WEBHOOK_SECRET": SECRET}


async def test_the_end_of_a_job_reaches_a_receiver_signed(tmp_path: Path) -> None:
    async with (
        receiver(SECRET) as hook,
        user_of(processes(tmp_path, settings=settings(hook.url))) as user,
    ):
        await user.drop("a.jsonl", jsonl(chats(3, "a")))
        (event,) = await until(lambda: hook.events, "the webhook comes")
        job = event.data.id.removeprefix("batch_")
        assert event.type == "batch.completed"
        assert hook.headers[0]["webhook-id"] == event.id == f"evt_{job}"
        code, status = await user.ask("GET", f"/api/jobs/{job}")
        assert (code, status["state"]) == (200, "completed")
        log = user.processes.log
    assert not [line for line in log if SECRET in line or hook.url in line]
