"""Workers of two releases side by side: what one does not know it keeps, what it would break it
leaves alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from schemas.jobs import Job, JobState
from schemas.messages import ShardMessage
from schemas.results import Counts, DeploymentUse, Receipt
from schemas.tenants import Tenant
from schemas.versions import NEWEST_VERSION
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import Bench, bench
from tests.golden import first_release, releases, shapes
from workers.jobs.outbox import JOBS, SHARDS
from workers.jobs.store import dump, load
from workers.ports import BlobRef, OutMessage
from workers.ports.errors import NewerVersion, Unreadable
from workers.quota.book import Book, Wish
from workers.quota.shares import leave, renew
from workers.rows.writing import add_use

NOW = releases.version()
LATER = {"later": {"a": [1, None]}}
ROWS = b'{"prompt": "p"}\n' * 3
TENANTS = {"default": Tenant(), "blue": Tenant()}
# Where nothing hangs on them; an ending, a state, a priority or an option is more than that.
WORDS = {"door", "reason", "breaker", "basis"}


def from_later(document: Any, node: Mapping[str, Any], named: Any) -> Any:
    """A document with a field more in each object that may have some."""
    if "$ref" in node:
        node = named[node["$ref"].rsplit("/", 1)[-1]]
    for either in node.get("anyOf", ()):
        document = from_later(document, either, named)
    if isinstance(document, dict) and node.get("additionalProperties") is True:
        known = node.get("properties", {})
        if not known:
            return document
        inner = {k: from_later(v, known.get(k, {}), named) for k, v in document.items()}
        return {**inner, **LATER}
    if isinstance(document, dict) and isinstance(each := node.get("additionalProperties"), dict):
        return {key: from_later(value, each, named) for key, value in document.items()}
    return document


def with_words(document: Any) -> Any:
    """The same, with other words where any may stand."""
    if not isinstance(document, dict):
        return document
    return {
        key: "word" if key in WORDS and isinstance(value, str) else with_words(value)
        for key, value in document.items()
    }


KEPT = ["job.json", "state.json", "receipt.json", "open.json", "index.json", "rejected.json"]
KEPT += ["done.json", "nightly.json", "deployment.json", "plan.jsonl", "verdict.json"]
KEPT += ["probed.json"]
KEPT += ["file.json", "creation.json", "due.json", "samples.jsonl"]
KEPT += ["messages/announce.json", "messages/finish.json", "messages/expire.json"]
KEPT += ["messages/shard.json", "quota.json"]


@pytest.mark.parametrize("name", KEPT)
def test_what_a_later_version_says_stays(name: str) -> None:
    schema = TypeAdapter(shapes.SHAPED[releases.shaped(name)]).json_schema(mode="serialization")
    for document in releases.entries(releases.files(NOW)[name]):
        if name == "quota.json":
            later = {**document, **LATER, "day": {**document["day"], **LATER}}
            later["holders"] = {k: {**v, **LATER} for k, v in document["holders"].items()}
        else:
            later = with_words(from_later(document, schema, schema.get("$defs", {})))
            assert later["later"] == LATER["later"]
        assert releases.again(name, later) == later


def test_a_swapped_state_keeps_what_a_later_version_says() -> None:
    document = releases.entries(releases.files(NOW)["state.json"])[0]
    schema = TypeAdapter(JobState).json_schema()
    held = load(JobState, orjson.dumps(from_later(document, schema, schema["$defs"])))
    counted = Counts.model_validate({"succeeded": 3, "skipped": 2, "later": {"b": 1}})
    moved = held.model_copy(
        update={"revision": held.revision + 1, "counts": held.counts.plus(counted)}
    )
    told = orjson.loads(dump(moved))
    assert (told["later"], told["waiting"]["later"]) == (LATER["later"], LATER["later"])
    assert (told["counts"]["skipped"], told["counts"]["later"]) == (2, {"b": 1})
    twice = held.counts.plus(counted).plus(counted)
    assert twice.model_dump()["skipped"] == 4


def test_sums_of_use_add_what_a_later_version_counts() -> None:
    one = DeploymentUse.model_validate({"calls": 1, "cost": 0.5, "currency": "EUR"})
    added = add_use(one, DeploymentUse.model_validate({"calls": 2, "cost": 0.25})).model_dump()
    assert (added["calls"], added["cost"], added["currency"]) == (3, 0.75, "EUR")


def test_the_ledger_keeps_what_a_later_version_says_of_other_holders() -> None:
    document = releases.entries(releases.files(NOW)["quota.json"])[0]
    [(name, other)] = document["holders"].items()
    document["holders"] = {name: {**other, "cap": 5, "expires": 110.0}}
    book = Book.load(orjson.dumps({**document, "month": 3}))
    assert book is not None
    for changed in (
        renew(book, "me", Wish(1.0, 1.0), 100.0)[0],
        leave(book, "me", Wish(1, 1), 100),
    ):
        told = orjson.loads(changed.dump())
        assert (told["month"], told["holders"][name]["cap"]) == (3, 5)


@pytest.mark.parametrize(
    ("model", "name", "change"),
    [
        (JobState, "state.json", {"ending": "capped"}),
        (JobState, "state.json", {"state": "archived"}),
        (Job, "job.json", {"priority": "urgent"}),
        (Job, "job.json", {"options": {"max_watts": 5}}),
        (Job, "job.json", {"schema_version": NEWEST_VERSION + 1}),
    ],
)
def test_what_must_be_obeyed_and_is_not_known_is_of_a_later_version(
    model: type[Job | JobState], name: str, change: Mapping[str, Any]
) -> None:
    document = releases.entries(releases.files(NOW)[name])[0]
    with pytest.raises(NewerVersion):
        load(model, orjson.dumps({**document, **change}))
    with pytest.raises(Unreadable):
        load(model, orjson.dumps({**document, **change, "schema_version": "x"}))


# -- what 0.1.0 makes of what is written now


async def written(options: Mapping[str, Any], tenant: str = "default") -> Sequence[tuple[str, Any]]:
    """(golden file's name, document) of all that a job of these options stores and sends."""
    request = {"container": "prompts", "name": "in.jsonl", "tenant": tenant, "options": options}
    sent: list[tuple[str, Any]] = []
    async with bench(tenants=TENANTS) as service:
        assert isinstance(service.blobs, MemoryBlobs)
        send = service.bus.send
        names: dict[BlobRef, Any] = {}

        async def sending(entity: str, messages: Sequence[OutMessage]) -> None:
            if entity in (JOBS, SHARDS):
                told = [orjson.loads(message.body) for message in messages]
                sent.extend((f"{each['type']}.json", each) for each in told if "type" in each)
                names.update({ref: blob.data for ref, blob in stored(service).items()})
            await send(entity, messages)

        service.bus.send = sending  # type: ignore[method-assign]
        await service.drop(ROWS)
        await service.say(request)
        await service.settle()
        await service.ended()
        names.update({ref: blob.data for ref, blob in stored(service).items()})
    for ref, data in names.items():
        name = ref.name.rsplit("/", 1)[-1]
        folder = ref.name.split("/")[0]
        if ref.container == "state" and folder in ("open", "jobs"):
            name = "open.json" if folder == "open" else name
            name = "receipt.json" if "/receipts/" in ref.name else name
            if name in first_release.DOCUMENTS:
                sent.extend((name, orjson.loads(line)) for line in data.splitlines())
    return sent


def stored(service: Bench) -> Mapping[BlobRef, Any]:
    assert isinstance(service.blobs, MemoryBlobs)
    return service.blobs.blobs


async def test_a_job_that_says_nothing_new_is_one_for_the_first_release() -> None:
    seen = await written({"max_tokens": 5, "system_prompt": "Be brief.", "metadata": {"a": "b"}})
    kinds = {"open.json", "job.json", "state.json", "receipt.json", "plan.jsonl"}
    assert kinds | {"shard.json", "finish.json", "expire.json"} <= {name for name, _ in seen}
    for name, document in seen:
        first_release.read(name, orjson.dumps(document))


@pytest.mark.parametrize(
    ("options", "tenant"),
    [
        ({}, "blue"),
        ({"on_missing": "empty"}, "default"),
        ({"on_duplicate": "number"}, "default"),
        ({"template": {"messages": [{"role": "user", "content": "{prompt}"}]}}, "default"),
        ({"template_for": "other_rows"}, "default"),
        ({"endpoint": "/v1/chat/completions"}, "default"),
    ],
)
async def test_a_job_that_the_first_release_would_break_is_set_aside_by_it(
    options: Mapping[str, Any], tenant: str
) -> None:
    seen = await written(options, tenant)
    for name, document in seen:
        if name in ("plan.jsonl", "verdict.json"):
            continue  # read after job.json only
        with pytest.raises(first_release.SetAside):
            first_release.read(name, orjson.dumps(document))


def test_the_first_release_can_take_up_what_journals_say_of_calls() -> None:
    for line in releases.entries(releases.files(NOW)["journal.jsonl"]):
        for call in line.get("use", ()):
            assert asdict(first_release.Attempt(**call)) == call


# -- what this version makes of a later one's


@pytest.mark.parametrize("written", ["newer", "odd"])
async def test_a_job_that_cannot_be_read_hides_no_other(written: str) -> None:
    async with bench() as service:
        for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
            await service.run(ROWS, name)
        ids = [each["job"] for each in (await service.ask("GET", "/api/jobs")).body["data"]]
        ref = service.store.ref(ids[1], "job.json")
        blobs = stored(service)
        told = orjson.loads(blobs[ref].data)
        newer = orjson.dumps({**told, "schema_version": NEWEST_VERSION + 1})
        blobs[ref].data = newer if written == "newer" else b"odd"
        service.store._jobs.clear()
        reply = await service.ask("GET", "/api/jobs")
        assert reply.code == 200
        listed = [(each["input"], each.get("state")) for each in reply.body["data"]]
        rest = ("prompts/a.jsonl", "completed")
        assert listed == [("prompts/c.jsonl", "completed"), ("prompts/b.jsonl", None), rest]
        code = "newer_version" if written == "newer" else "unreadable"
        assert reply.body["data"][1]["reason"]["code"] == code
        assert (await service.ask("GET", f"/api/jobs/{ids[1]}")).code != 200
        page = (await service.ask("GET", "/api/jobs", limit="2")).body
        assert (page["last_id"], page["has_more"]) == (ids[1], True)
        page = (await service.ask("GET", "/api/jobs", after=ids[1])).body
        assert [(each["input"], each["state"]) for each in page["data"]] == [rest]
        costs = (await service.ask("GET", "/api/costs", month="2027-01")).body["data"]
        assert [each["jobs"] for each in costs] == [2]
        assert (await service.ask("POST", "/api/deployments/phi/probe")).code == 202


async def test_an_entry_of_the_index_that_cannot_be_read_hides_no_job() -> None:
    async with bench() as service:
        job = (await service.run(ROWS)).manifest["job"]
        blobs = stored(service)
        [entry] = [ref for ref in blobs if ref.name.startswith("index/")]
        blobs[entry].data = b"odd"
        [told] = (await service.ask("GET", "/api/jobs")).body["data"]
        assert (told["job"], told["state"]) == (job, "completed")


async def test_a_shard_that_goes_back_says_what_it_said() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        delivery = service.bus.receive(SHARDS)  # type: ignore[attr-defined]
        told = {**orjson.loads(delivery.message.body), **LATER}
        service.bus.complete(delivery)  # type: ignore[attr-defined]
        message = load(ShardMessage, orjson.dumps(told))
        lease = await service.store.lease_blob(message.job, message.shard)
        await service.blobs.acquire_lease(lease, "somebody else", 60)
        await service.deliver(SHARDS, orjson.dumps(told))
        [waiting] = service.bus.waiting(SHARDS)  # type: ignore[attr-defined]
        assert orjson.loads(waiting.body) == told


async def test_receipts_add_what_a_later_version_counts() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        job = service.events[0]["data"]["job"]
        state = stored(service)[service.store.ref(job, "state.json")]
        state.data = orjson.dumps({**orjson.loads(state.data), **LATER})
        later = Receipt(shard=0, attempt="later", counts=Counts(succeeded=3), tokens={})
        counts = {"succeeded": 0, "cancelled": 3, "skipped": 1}
        receipt = {**later.model_dump(mode="json"), "counts": counts, **LATER}
        await service.blobs.create(service.store.ref(job, "receipts", "0"), orjson.dumps(receipt))
        await service.settle()
        moved = orjson.loads(stored(service)[service.store.ref(job, "state.json")].data)
        assert (moved["later"], moved["counts"]["skipped"]) == (LATER["later"], 1)
