"""What does a webhook say of a job that has ended?"""

from typing import cast

import orjson

from schemas.jobs import Job, JobState
from schemas.openai import BATCH_PREFIX
from schemas.webhooks import WebhookData, WebhookEvent, WebhookType


def event_of(job: Job, state: JobState) -> WebhookEvent | None:
    """The event of a job's end, the same whenever it is asked for; None while the job runs."""
    if not state.terminal:
        return None
    ended = job.created if state.ended is None else state.ended
    return WebhookEvent(
        id=f"evt_{job.id}",
        created_at=int(ended),
        type=cast("WebhookType", f"batch.{state.state}"),
        data=WebhookData(id=f"{BATCH_PREFIX}{job.id}"),
    )


def body_of(event: WebhookEvent) -> bytes:
    """The bytes that are sent, and signed."""
    return orjson.dumps(event.model_dump(mode="json"))
