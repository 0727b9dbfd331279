"""What nobody should send is refused in words, and leaves nothing behind."""

import json
import logging
from random import Random

import pytest

from tests.api.client import KEYS
from tests.api.hostile import SECRET, hostile, is_refusal
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import bench
from workers.api.http import HttpCall

REQUESTS = 2000


async def test_hostile_requests_are_refused_and_leave_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = Random(14)
    with caplog.at_level(logging.DEBUG):
        async with bench(api_keys=KEYS) as service:
            for _ in range(REQUESTS):
                made = hostile(rng)
                headers = {
                    "authorization": "Bearer app",
                    "content-length": str(len(made.body)),
                    **made.headers,
                }
                call = HttpCall(made.method, made.path, made.query, headers, made.body)
                reply = await service.openai.answer(call)
                assert is_refusal(reply.code, json.loads(reply.data)), (made, reply)
            assert isinstance(service.blobs, MemoryBlobs)
            assert service.blobs.blobs == {}
            assert service.events == []
    assert SECRET not in caplog.text
