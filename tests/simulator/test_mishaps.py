"""Each fault as a client meets it on the wire, and what it costs."""

import asyncio
import logging
import time
from typing import Any

import aiohttp
import pytest

from local.endpoint import Rule, Settings, When
from local.endpoint.faults import AT_THE_DOOR, UNBILLED, Fault

from .asking import Asker, asking

STATUSES: list[Fault] = [
    *("http_400", "http_401", "http_403", "http_404", "http_408", "http_410", "http_413"),
    *("http_422", "http_424", "http_429", "http_500", "http_502", "http_503", "http_504"),
]


def with_fault(fault: Fault, **more: Any) -> Settings:
    """A simulator whose first asking goes wrong, and only the first."""
    return Settings(profile="openai", faults=(Rule(fault=fault, times=1, **more),))


async def settled(asker: Asker) -> dict[str, Any]:
    """The report once nothing is in flight any more."""
    async with asyncio.timeout(5):
        while (stats := asker.endpoint.stats())["in_flight"]:  # noqa: ASYNC110 - only read
            await asyncio.sleep(0.01)
    return stats


@pytest.mark.parametrize("fault", STATUSES)
async def test_a_status_and_then_a_good_answer(fault: Fault) -> None:
    async with asking(with_fault(fault)) as asker:
        reply = await asker.chat()
        assert reply.status == int(fault.removeprefix("http_"))
        assert (await asker.chat()).status == 200
        stats = asker.endpoint.stats()
        assert stats["faults"] == {fault: 1}
        assert stats["admitted"] == (1 if fault in AT_THE_DOOR else 2)
        billed = 1 if fault in AT_THE_DOOR | UNBILLED else 2
        assert (stats["rows"]["billed"], stats["rows"]["answered"]) == (billed, 1)


async def test_424_wraps_the_status_of_the_container() -> None:
    async with asking(with_fault("http_424", inner_status=413)) as asker:
        reply = await asker.chat()
        assert reply.headers["ms-azureml-model-error-statuscode"] == "413"


async def test_an_outage_may_hint_and_may_take_its_time() -> None:
    async with asking(with_fault("http_503", hint="retry-after", seconds=7, delay=0.1)) as asker:
        began = time.monotonic()
        reply = await asker.chat()
        assert (reply.status, reply.headers["retry-after"]) == (503, "7")
        assert time.monotonic() - began >= 0.1


async def test_gateways_answer_in_html() -> None:
    async with asking(with_fault("http_502")) as asker:
        assert (await asker.chat()).raw.startswith(b"<html>")
    async with asking(with_fault("html_200")) as asker:
        reply = await asker.chat()
        assert (reply.status, reply.headers["content-type"].split(";")[0]) == (200, "text/html")
        assert asker.endpoint.stats()["rows"]["billed"] == 0


@pytest.mark.parametrize(
    ("fault", "when", "billed"),
    [
        ("reset_before", When(), 0),
        ("reset_before", When(contains="hello"), 0),
        ("reset_after", When(), 1),
    ],
)
async def test_a_reset_is_a_reset_and_is_quiet(
    fault: Fault, when: When, billed: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with asking(with_fault(fault, when=when)) as asker:
            with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
                await asker.chat()
            stats = await settled(asker)
            assert (stats["rows"]["billed"], stats["rows"]["answered"]) == (billed, 0)
            assert (await asker.chat()).status == 200
    assert not caplog.records


async def test_a_reset_before_reading_does_not_wait_for_the_body() -> None:
    async with asking(with_fault("reset_before")) as asker:
        host, port = asker.endpoint.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n"
        )
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


@pytest.mark.parametrize("fault", ["truncated_body", "truncated_stream"])
async def test_a_truncated_body_is_noticed_by_its_length(fault: Fault) -> None:
    async with asking(with_fault(fault)) as asker:
        with pytest.raises(aiohttp.ClientPayloadError):
            await asker.chat()
        stats = await settled(asker)
        assert (stats["rows"]["billed"], stats["rows"]["answered"]) == (1, 0)


async def test_a_truncated_stream_ends_cleanly_without_its_mark() -> None:
    async with asking(with_fault("truncated_stream")) as asker:
        reply = await asker.chat(stream=True)
        assert reply.status == 200
        assert "[DONE]" not in reply.events
        assert all(event["choices"][0]["finish_reason"] is None for event in reply.events)
    async with asking(with_fault("truncated_body")) as asker:
        with pytest.raises(aiohttp.ClientPayloadError):
            await asker.chat(stream=True)


async def test_an_error_inside_a_200() -> None:
    async with asking(with_fault("stream_error")) as asker:
        reply = await asker.chat(stream=True)
        assert reply.status == 200
        assert reply.events[-1]["error"]["code"] == "500"
    async with asking(with_fault("stream_error")) as asker:
        assert "error" in (await asker.chat()).body


@pytest.mark.parametrize("stream", [True, False])
async def test_the_content_filter_in_both_forms(stream: bool) -> None:
    async with asking(with_fault("content_filter_400")) as asker:
        reply = await asker.chat(stream=stream)
        error = reply.body["error"]
        assert (reply.status, error["code"]) == (400, "content_filter")
        assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
        assert asker.endpoint.stats()["rows"]["billed"] == 1
    async with asking(with_fault("content_filter_200")) as asker:
        reply = await asker.chat(stream=stream)
        assert reply.status == 200
        if stream:
            (chunk, done) = reply.events
            assert (chunk["choices"][0]["delta"], done) == ({}, "[DONE]")
            assert chunk["choices"][0]["finish_reason"] == "content_filter"
        else:
            choice = reply.body["choices"][0]
            assert choice["finish_reason"] == "content_filter"
            assert "content" not in choice["message"]


async def test_200s_that_lack_something() -> None:
    async with asking(with_fault("empty_choices")) as asker:
        assert (await asker.chat()).body["choices"] == []
    async with asking(with_fault("empty_choices")) as asker:
        assert (await asker.chat(stream=True)).events == ["[DONE]"]
    async with asking(with_fault("missing_usage")) as asker:
        reply = await asker.chat()
        assert reply.text
        assert "usage" not in reply.body
    packed = {"input": ["a", "b", "c"]}
    async with asking(with_fault("short_embeddings")) as asker:
        assert len((await asker.post("/embeddings", packed)).body["data"]) == 2
    async with asking(with_fault("shuffled_embeddings")) as asker:
        good = [await asker.post("/embeddings", packed) for _ in range(2)]
        shuffled, straight = (reply.body["data"] for reply in good)
        assert [item["index"] for item in shuffled] == [2, 1, 0]
        assert sorted(shuffled, key=lambda item: item["index"]) == straight


@pytest.mark.parametrize("stream", [True, False])
async def test_a_drip_never_pauses_for_long_and_yet_takes_its_time(stream: bool) -> None:
    async with asking(with_fault("drip", lasts=0.3)) as asker:
        began = time.monotonic()
        reply = await asker.chat(stream=stream)
        assert time.monotonic() - began >= 0.25
        assert asker.endpoint.stats()["rows"]["answered"] == 1
        assert reply.raw == (await asker.chat(stream=stream)).raw


@pytest.mark.parametrize("fault", ["hang", "drip"])
async def test_a_client_that_gives_up_frees_its_place(fault: Fault) -> None:
    settings = Settings(profile="openai", max_concurrency=1, faults=(Rule(fault=fault, times=1),))
    async with asking(settings) as asker:
        with pytest.raises(TimeoutError):
            await asker.chat(timeout=0.2)
        stats = await settled(asker)
        assert (stats["abandoned"], stats["rows"]["billed"]) == (1, 1)
        assert (await asker.chat()).status == 200


async def test_a_rule_is_not_used_up_by_a_request_that_the_quota_refused() -> None:
    rule = Rule(fault="http_500", when=When(contains="late"), times=1)
    settings = Settings(profile="serverless", requests_per_minute=1, window=60, faults=(rule,))
    async with asking(settings) as asker:
        assert [(await asker.chat(text)).status for text in ("early", "late")] == [200, 429]
        assert asker.endpoint.stats()["faults"] == {}
        asker.endpoint.set_limits(requests_per_minute=0)
        assert [(await asker.chat("late")).status for _ in range(2)] == [500, 200]


async def test_a_hang_with_an_end_answers_late() -> None:
    async with asking(with_fault("hang", lasts=0.1)) as asker:
        assert (await asker.chat()).status == 200


async def test_a_bad_row_among_packed_ones_spoils_only_calls_that_hold_it() -> None:
    rule = Rule(fault="http_400", when=When(contains="poison"))
    async with asking(Settings(faults=(rule,))) as asker:
        assert (await asker.post("/embeddings", {"input": ["a", "poison"]})).status == 400
        assert (await asker.post("/embeddings", {"input": ["poison"]})).status == 400
        assert (await asker.post("/embeddings", {"input": ["a"]})).status == 200
