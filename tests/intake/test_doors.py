"""What comes in at the doors, and which job it becomes."""

import pytest

from tests.doubles.service import Bench, bench

ROWS = b'{"prompt": "p"}\n{"prompt": "q"}\n'
REQUEST = {"container": "prompts", "name": "in.jsonl"}


def jobs_of(service: Bench) -> set[str]:
    """The jobs that events tell of."""
    return {event["data"]["job"] for event in service.events if "job" in event["data"]}


@pytest.mark.parametrize("dropped_first", [True, False])
async def test_one_file_dropped_and_enqueued_without_options_is_one_job(
    *, dropped_first: bool
) -> None:
    async with bench() as service:
        await service.drop(ROWS, options={"max_tokens": 5})
        if dropped_first:
            await service.announce()
        await service.say(REQUEST)
        await service.settle()
        await service.announce()
        await service.settle()
        assert len(jobs_of(service)) == 1
        assert len(service.endpoint.asked) == 2
        assert (await service.ended()).manifest["options"]["max_tokens"] == 5


async def test_no_options_that_are_given_are_options() -> None:
    async with bench() as service:
        await service.run(ROWS, options={"max_tokens": 5})
        await service.say(REQUEST | {"options": {}})
        await service.settle()
        assert len(jobs_of(service)) == 2
        assert "max_tokens" not in (await service.ended()).manifest["options"]
