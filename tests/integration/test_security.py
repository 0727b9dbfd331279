"""What must not get out, get in, or grow: containers, endpoints, logs, HTTP doors, sizes."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

import function_app
from local.azurite import Azurite
from schemas.deployments import Deployment
from tests.doubles import MemoryBlobs
from tests.doubles.service import EPOCH, MODEL, Answering, Bench, bench
from tests.leaks import CANARY_KEY, CANARY_PROMPT, Watch, leaked
from workers.adapters.blobs import connect_blobs
from workers.adapters.endpoints import connect
from workers.intake import announcements
from workers.jobs.rejections import InputError
from workers.ports import BlobRef, Endpoint, Stored

GOOD = b'{"prompt": "p"}\n'

# -- containers

ESCAPES = [
    "../state/open/x.jsonl",
    "../../results/x.jsonl",
    "a/../../state/x.jsonl",
    "./x.jsonl",
    "a/./x.jsonl",
    "..",
    "..\\state\\x.jsonl",
    "a\\..\\x.jsonl",
    "x\x00.jsonl",
    "x\ny.jsonl",
    "x\x7f.jsonl",
]
ODD = [
    "%2e%2e/state/open/x.jsonl",
    "..%2fstate%2fopen%2fx.jsonl",
    "%252e%252e%252fx.jsonl",
    "http://evil.example/x.jsonl",
    "https:x.jsonl",
    "/x.jsonl",
    "//evil.example/x.jsonl",
    "a//b.jsonl",
    "...jsonl",
    "... /x.jsonl",
    " .jsonl",
    ".jsonl",
    "a?sig=b#c.jsonl",
    "c:\\x.jsonl",
    "ünï/çödé 💥.jsonl",
    "{job}.jsonl",
    "~/x.jsonl",
    "n" * 900 + ".jsonl",
]


# What is written, or looked for, of what yields no job: names of digests and of the job alone.
OF_A_REJECTION = re.compile(
    r"rejected/[0-9a-f-]{32,64}|index/default/[0-9]{13}-[0-9a-f-]{32,64}"
    r"|open/j|done/j|jobs/j/job\.json"
)


class WatchedBlobs(MemoryBlobs):
    """Notes what is touched, and how much is read at a time."""

    def __init__(self) -> None:
        super().__init__(lambda: EPOCH + asyncio.get_running_loop().time())
        self.touched: set[BlobRef] = set()
        self.whole: set[BlobRef] = set()
        self.longest = 0

    def _existing(self, ref: BlobRef) -> Any:
        self.touched.add(ref)
        return super()._existing(ref)

    def _absent(self, ref: BlobRef) -> None:
        self.touched.add(ref)
        super()._absent(ref)

    async def read(self, ref: BlobRef) -> Stored:
        self.whole.add(ref)
        return await super().read(ref)

    async def read_range(
        self, ref: BlobRef, offset: int, length: int, *, etag: str | None = None
    ) -> bytes:
        self.longest = max(self.longest, length)
        return await super().read_range(ref, offset, length, etag=etag)


async def through_every_door(service: Bench, name: str) -> None:
    await service.announce(name)
    await service.say({"container": "prompts", "name": name})
    url = f"https://a.blob.core.windows.net/prompts/{name}"
    event = {"type": "Microsoft.Storage.BlobCreated", "data": {"api": "PutBlob", "url": url}}
    await service.say(event)
    await service.say(event | {"subject": f"/blobServices/default/containers/prompts/blobs/{name}"})
    announcement = {"job": "j", "door": "drop", "container": "prompts", "name": name}
    await service.say({"type": "announce", **announcement, "etag": "0x1", "size": 9})
    await service.settle()


@pytest.mark.parametrize("name", ESCAPES)
async def test_a_name_that_climbs_out_is_refused_at_every_door(name: str) -> None:
    blobs = WatchedBlobs()
    async with bench(blobs=blobs) as service:
        await blobs.create(BlobRef("prompts", name), GOOD)
        blobs.touched.clear()
        await through_every_door(service, name)
        for ref in blobs.touched:
            match ref.container:
                case "prompts":
                    assert ref.name != name
                case container:
                    assert container == "state"
                    assert OF_A_REJECTION.fullmatch(ref.name)
        assert {event["type"] for event in service.events} <= {"job.rejected"}
        assert len(service.events) >= 3
        assert not service.endpoint.asked


@pytest.mark.parametrize("name", ODD)
async def test_results_of_an_odd_name_stay_in_their_folder(name: str) -> None:
    blobs = WatchedBlobs()
    async with bench(blobs=blobs) as service:
        ended = await service.run(GOOD, name)
        assert ended.state == "completed"
        job = ended.event["data"]["job"]
        inside_its_folder(ended.folder, job)
        known = (f"open/{job}", f"jobs/{job}/", f"done/{job}", "index/default/")
        for ref in blobs.touched:
            match ref.container:
                case "results":
                    assert f"results/{ref.name}".startswith(f"{ended.folder}/")
                case "state":
                    assert ref.name.startswith(known)
                    assert job in ref.name
                case container:
                    assert container == "prompts"
                    assert ref.name == name or ref.name.endswith(".options.json")


async def test_odd_names_through_azurite(azurite: Azurite) -> None:
    containers = ("odd-prompts", "odd-results", "odd-state")
    async with connect_blobs(azurite.connection_string, None, None) as blobs:
        await blobs.ensure_containers(containers)
        async with bench(
            blobs=blobs,
            input_containers=containers[:1],
            results_container=containers[1],
            state_container=containers[2],
        ) as service:
            folders = [
                (await service.run(GOOD, name, container="odd-prompts")).folder for name in ODD
            ]
            for name in ESCAPES:
                with pytest.raises(InputError):
                    announcements.check_place("odd-prompts", name, containers[:1])
        found = [f"odd-results/{info.ref.name}" async for info in blobs.list("odd-results")]
        assert len(found) == 4 * len(ODD)  # output, errors, manifest, report
        assert {path.rsplit("/", 1)[0] for path in found} == set(folders)
        there = {info.ref.name async for info in blobs.list("odd-prompts")}
        assert there == {name.replace("\\", "/") for name in ODD}  # as storage takes them
        stored = [info.ref.name async for info in blobs.list("odd-state")]
        assert {name.split("/")[0] for name in stored} == {"done", "index", "jobs"}


def inside_its_folder(folder: str, job: str) -> None:
    container, *parts = folder.split("/")
    assert container == "results"
    assert parts[-1] == job
    assert len(parts) >= 2
    assert not {"", ".", ".."} & set(parts)
    assert PurePosixPath("/results", *parts).is_relative_to("/results")
    assert not any(ord(char) < 32 or char in '\\%?#:*|<>"' for char in folder)
    assert all(part == part.strip(" .") for part in parts)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_name_leads_out_of_the_results(name: str) -> None:
    inside_its_folder(f"results/{announcements.results_folder(name, 'j-1')}", "j-1")


@given(st.lists(st.sampled_from(["..", ".", "/", "\\", "a", " ", "%2e", ".jsonl"]), min_size=1))
@settings(max_examples=300, deadline=None)
def test_no_path_leads_out_of_the_results(parts: list[str]) -> None:
    test_no_name_leads_out_of_the_results.hypothesis.inner_test(  # type: ignore[attr-defined]
        "".join(parts)
    )


# -- endpoints, keys, prompts


class Server:
    """A deployment's server that repeats whatever it was sent, key and prompt, in its errors."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        said = f"{request.headers.get('Authorization')} {await request.text()}"
        if self.status == 200:
            message = {"role": "assistant", "content": "Yes."}
            body: dict[str, Any] = {"choices": [{"index": 0, "message": message}]}
            return web.json_response(body | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}})
        return web.json_response({"error": {"code": "bad", "message": said}}, status=self.status)


@asynccontextmanager
async def serving(status: int) -> AsyncIterator[Server]:
    server, app = Server(status), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


class Real(Answering):
    """The production client of one endpoint, in the place of the double."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.ask = endpoint.ask  # type: ignore[method-assign]


@asynccontextmanager
async def real(server: Server) -> AsyncIterator[Answering]:
    deployment = Deployment(
        name="phi", kind="openai", url=f"{server.url}/v1", model=MODEL, key_setting="KEY"
    )
    async with connect([deployment], {"KEY": CANARY_KEY}.get) as endpoints:
        yield Real(endpoints["phi"])


async def test_a_row_cannot_choose_where_it_goes() -> None:
    async with serving(200) as ours, serving(200) as theirs, real(ours) as endpoint:
        names = ("base_url", "api_base", "endpoint", "server", "host", "azure_endpoint")
        named = dict.fromkeys(names, theirs.url)
        rows: list[dict[str, Any]] = [
            {"prompt": "p", **named},
            {"prompt": "p", "extra_headers": {"Host": theirs.url}, "extra_body": named},
            {"url": "/v1/chat/completions", "body": {"messages": [], **named}},
            {"url": f"{theirs.url}/v1/chat/completions", "body": {"messages": []}},
            {"url": f"//{theirs.url[7:]}/chat/completions", "body": {"messages": []}},
            {"prompt": "p", "model": f"{theirs.url}/v1"},
            {"input_data": {"input_string": [{"role": "user", "content": "p"}]}, **named},
        ]
        data = "\n".join(map(json.dumps, rows)).encode()
        async with bench(endpoint=endpoint) as service:
            ended = await service.run(data)
            assert ended.counts["total"] == len(rows)
            assert ours.asked >= 3
            assert theirs.asked == 0
            refused = await service.run(GOOD, "o.jsonl", options={"url": theirs.url})
            assert refused.reason["code"] == "invalid_options"
            assert theirs.asked == 0


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
async def test_no_key_and_no_prompt_in_logs_and_events(status: int, log_watch: Watch) -> None:
    """Not even where the server repeats both. Error rows have the prompt, and never the key."""
    seen = log_watch.seen
    bad = f'{{"prompt": "{CANARY_PROMPT}", "max_tokens": "{CANARY_PROMPT}"}}\n'
    torn = f'{{"prompt": "{CANARY_PROMPT}\n'
    good = json.dumps({"prompt": CANARY_PROMPT}) + "\n"
    data = (good + bad + torn + good).encode()
    options = {"system_prompt": CANARY_PROMPT, "max_tokens": 5}
    async with (
        serving(status) as server,
        real(server) as endpoint,
        bench(endpoint=endpoint, shard_seconds=0.5) as service,
    ):
        await service.drop(data, options=options)
        await service.announce()
        await service.settle()
        for wrong in (
            {"template": {"prompt": CANARY_PROMPT + " {"}},
            {"completion_window": CANARY_PROMPT},
            {"template": {"prompt": "{" + CANARY_PROMPT + "}"}, "on_invalid": "fail"},
        ):
            await service.drop(b'{"q": 1}', "w.jsonl", options=wrong)
            await service.announce("w.jsonl")
            await service.settle()
        await service.say({"container": "prompts", "name": "in.jsonl", "options": wrong})
        await service.say(f"{{{CANARY_PROMPT}".encode())
        await service.settle()
        assert server.asked
        assert log_watch.seen > seen
        assert len(service.events) > 4
        said = [event for event in service.events if CANARY_PROMPT in json.dumps(event)]
        assert not said
        for event in service.events:
            assert CANARY_KEY not in json.dumps(event)
        blobs = service.blobs
        assert isinstance(blobs, MemoryBlobs)
        for ref, blob in blobs.blobs.items():
            assert CANARY_KEY.encode() not in bytes(blob.data), ref


def test_the_watch_finds_what_it_looks_for(log_watch: Watch) -> None:
    logging.getLogger("workers.any").debug("asked %s", CANARY_PROMPT)
    assert len(log_watch.found) == 1
    assert leaked(log_watch.found.pop()) is None
    assert leaked(f"x{CANARY_KEY}x") == CANARY_KEY


# -- HTTP


def test_every_http_door_needs_a_function_key_or_looks_at_keys_itself() -> None:
    doors_found = {}
    for function in function_app.app.get_functions():
        trigger = function.get_trigger()
        assert trigger is not None
        told = trigger.get_dict_repr()
        if told["type"] == "httpTrigger":
            doors_found[told["route"]] = str(told["authLevel"].value)
    assert doors_found == {
        "{*path}": "function",
        "{door:regex(^(v1|openai)$)}/{*path}": "anonymous",
        "dashboard/{*path}": "anonymous",
    }


@pytest.mark.parametrize(
    "job", ["..", "../../results", "%2e%2e", "a/b", "x" * 97, "", "a b", "j\n", "ＡＢＣ"]
)
async def test_http_takes_no_id_that_is_none(job: str) -> None:
    blobs = WatchedBlobs()
    async with bench(blobs=blobs) as service:
        if job:  # without one, it is the list that is asked for
            assert (await service.ask("GET", f"/api/jobs/{job}")).code == 404
        assert (await service.ask("POST", f"/api/jobs/{job}/cancel")).code == 404
        assert not blobs.touched


@pytest.mark.parametrize("limit", ["0", "101", "-1", "²", "٣", "9" * 5000, "1e2", "", " 5"])
async def test_http_takes_no_limit_that_is_none(limit: str) -> None:
    async with bench() as service:
        assert (await service.ask("GET", "/api/jobs", limit=limit)).code == 400
        assert (await service.ask("GET", "/api/jobs", after="../..")).code == 400


# -- sizes


async def test_sizes_are_bounded_before_anything_is_read() -> None:
    blobs = WatchedBlobs()
    async with bench(blobs=blobs, max_line_bytes=4096) as service:
        await service.drop(b"{" + b" " * 50_000_000 + b"}", "in.options.json")
        ended = await service.run(GOOD)
        assert ended.reason["code"] == "invalid_options"
        assert blobs.longest <= announcements.MAX_OPTIONS_BYTES + 1
        assert not [ref for ref in blobs.whole if ref.container == "prompts"]

        ended = await service.run(GOOD + b"x" * 30_000_000 + b"\n" + GOOD, "long.jsonl")
        assert ended.counts["succeeded"] == 2
        assert ended.counts["invalid"] == 1
        assert blobs.longest <= 8 * 1024 * 1024
        assert not [ref for ref in blobs.whole if ref.container == "prompts"]


async def test_a_file_beyond_the_limit_is_never_read() -> None:
    blobs = WatchedBlobs()
    async with bench(blobs=blobs, max_file_bytes=1000) as service:
        ended = await service.run(GOOD * 1000, options={})
        assert ended.reason["code"] == "file_too_large"
        assert ended.manifest["input"]["size"] == len(GOOD) * 1000
        assert blobs.longest <= announcements.MAX_OPTIONS_BYTES + 1


@pytest.mark.parametrize("size", [announcements.MAX_MESSAGE_BYTES + 1, 5_000_000])
def test_a_message_beyond_the_limit_is_never_parsed(size: int) -> None:
    with pytest.raises(InputError) as told:
        announcements.read_jobs_message(b"[" * size)
    assert told.value.code == "message_too_large"


def test_options_beyond_the_limit_are_never_parsed() -> None:
    with pytest.raises(ValueError, match="more than"):
        announcements.options_json(b" " * (announcements.MAX_OPTIONS_BYTES + 1))
