"""Batches over HTTP: what the OpenAI Batch API promises, over the in-memory service."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from openai.types import Batch, FileObject

from schemas.money import Price
from schemas.openai import Batch as OurBatch
from schemas.openai import File
from schemas.tenants import Tenant
from tests.api.client import CHAT, KEYS, Client, rows
from tests.doubles.bus import Delivery
from tests.doubles.service import DEPLOYMENT, EPOCH, MODEL, Bench, bench
from workers.ports import BlobRef

TENANTS = {"default": Tenant(), "blue": Tenant()}


@pytest.fixture
async def service() -> AsyncIterator[Bench]:
    async with bench(api_keys=KEYS, tenants=TENANTS) as made:
        yield made


@pytest.fixture
def client(service: Bench) -> Client:
    return Client(service)


def test_nothing_is_missing_that_typed_clients_know() -> None:
    # The SDK validates nothing, so what drifts apart would stay unseen.
    assert set(Batch.model_fields) <= set(OurBatch.model_fields)
    assert set(FileObject.model_fields) <= set(File.model_fields)


async def test_a_batch_goes_from_validating_to_completed(service: Bench, client: Client) -> None:
    file = await client.upload(rows(3))
    batch = await client.create(file["id"], metadata={"team": "blue"})
    assert batch["status"] == "validating"
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    assert batch["expires_at"] - batch["created_at"] == 86400
    await service.settle()
    done = await client.batch(batch["id"])
    Batch.model_validate(done, strict=False)
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + 15
    assert (done["input_file_id"], done["metadata"]) == (file["id"], {"team": "blue"})
    assert done["created_at"] <= done["in_progress_at"] <= done["finalizing_at"]
    assert done["finalizing_at"] <= done["completed_at"]
    lines = [
        json.loads(line) for line in (await client.content(done["output_file_id"])).splitlines()
    ]
    assert [line["custom_id"] for line in lines] == ["r0", "r1", "r2"]
    assert lines[0]["response"]["status_code"] == 200
    assert done["error_file_id"] is None


async def test_a_file_is_told_of_by_the_name_that_its_user_gave_it(
    service: Bench, client: Client
) -> None:
    name = "reviews of \u202eMay.jsonl"
    batch = await client.create((await client.upload(rows(3), name))["id"])
    await service.settle()
    shown = "reviews of _May.jsonl"
    done = await client.batch(batch["id"])
    assert done["phi3"]["filename"] == shown
    (told,) = (await service.ask("GET", "/api/jobs")).body["data"]
    assert told["filename"] == shown
    assert told["input"].startswith("files/default/")
    assert {each["data"]["filename"] for each in service.events} == {shown}
    ended = await service.ended()
    assert ended.manifest["input"]["filename"] == shown
    assert f"files/{ended.manifest['input']['name']}" == told["input"]
    page = await service.blobs.read(
        BlobRef("results", f"{ended.folder.partition('/')[2]}/report.html")
    )
    assert f"<h1><bdi>{shown}</bdi></h1>" in page.data.decode()
    again = await client.create(done["input_file_id"])
    assert again["phi3"]["filename"] == shown


async def test_wrong_lines_fail_a_batch_before_anything_is_asked(
    service: Bench, client: Client
) -> None:
    good = rows(1).rstrip()
    other = rows(1, "/v1/embeddings").rstrip().replace(b"r0", b"e")
    strange = rows(1, model="gpt-9").rstrip().replace(b"r0", b"g")
    unnamed = b'{"url": "/v1/nope", "body": {}}'
    data = b"\n".join([good, b"{", other, good, strange, unnamed])
    done = await client.run(data)
    assert done["status"] == "failed"
    assert done["failed_at"] is not None
    told = [(each["line"], each["code"], each["param"]) for each in done["errors"]["data"]]
    assert told == [
        (2, "invalid_json_line", None),
        (3, "invalid_url", "url"),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "model_not_found", "body.model"),
        (6, "invalid_url", "url"),
    ]
    assert service.endpoint.asked == []
    # The reason, which goes into events, quotes nothing.
    assert "line 2 is wrong: invalid_json" in service.events[-1]["data"]["reason"]["message"]


async def test_no_more_than_a_hundred_lines_are_named(client: Client) -> None:
    done = await client.run(b"{\n" * 150 + rows(1))
    assert [each["line"] for each in done["errors"]["data"]] == list(range(1, 101))


async def test_an_empty_file_fails_its_batch(client: Client) -> None:
    file = await client.upload(b"")
    assert file["bytes"] == 0
    done = await client.run(b"")
    assert (done["status"], done["errors"]["data"][0]["code"]) == ("failed", "empty_file")


async def test_options_and_mixed_rows_come_in_extra_body(service: Bench, client: Client) -> None:
    data = rows(1) + b'{"custom_id": "e", "input": "a text"}\n{"prompt": "x", "id": "p"}\n{\n'
    done = await client.run(
        data, phi3={"on_invalid": "skip", "max_tokens": 9, "mixed": True, "model": MODEL}
    )
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 4, "completed": 3, "failed": 1}
    tasks = sorted(task for task, _ in service.endpoint.asked)
    assert tasks == ["chat", "chat", "embeddings"]
    assert all(
        body.get("max_tokens") == 9 for task, body in service.endpoint.asked if task == "chat"
    )
    errors = await client.content(done["error_file_id"])
    assert json.loads(errors)["error"]["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input_file_id": None}, "invalid_type", "input_file_id"),
        ({"endpoint": "/v1/nope"}, "invalid_value", "endpoint"),
        ({"completion_window": "1y"}, "invalid_value", "completion_window"),
        ({"metadata": {"a": "x" * 513}}, "invalid_value", "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "invalid_value", "metadata"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"input_file_id": "file-abc"}, "file_not_found", "input_file_id"),
        ({"input_file_id": "../../x"}, "file_not_found", "input_file_id"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "invalid_value",
            "output_expires_after.seconds",
        ),
        ({"phi3": {"max_token": 1}}, "invalid_options", "phi3"),
        ({"phi3": {"metadata": {}}}, "invalid_value", "phi3"),
        ({"windows": 1}, "unknown_parameter", "windows"),
    ],
)
async def test_what_makes_no_batch_is_refused_at_once(
    client: Client, fields: dict[str, object], code: str, param: str
) -> None:
    file = await client.upload(rows(1))
    body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    status, told = await client.ask("POST", "/v1/batches", body | fields)
    assert (status, told["error"]["code"], told["error"]["param"]) == (400, code, param)
    status, told = await client.ask("GET", "/v1/batches")
    assert told["data"] == []


async def test_a_parameter_that_is_missing_is_named(client: Client) -> None:
    status, told = await client.ask("POST", "/v1/batches", {"endpoint": CHAT})
    assert (status, told["error"]["code"]) == (400, "missing_required_parameter")
    assert told["error"]["param"] == "input_file_id"
    reply = await client.call("POST", "/v1/batches", b"{" * 50_000)
    assert reply.code == 400


async def test_a_file_of_another_purpose_makes_no_batch(client: Client) -> None:
    file = await client.upload(rows(1), purpose="fine-tune")
    body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    status, told = await client.ask("POST", "/v1/batches", body)
    assert (status, told["error"]["param"]) == (400, "input_file_id")


async def test_a_batch_is_cancelled_from_the_moment_it_is_created(
    service: Bench, client: Client
) -> None:
    file = await client.upload(rows(3))
    batch = await client.create(file["id"])
    path = f"/v1/batches/{batch['id']}/cancel"
    for _ in range(2):
        status, told = await client.ask("POST", path)
        assert (status, told["status"]) == (200, "cancelling")
    await service.settle()
    done = await client.batch(batch["id"])
    assert done["status"] == "cancelled"
    assert done["cancelling_at"] <= done["cancelled_at"]
    assert done["request_counts"] == {"total": 3, "completed": 0, "failed": 0}
    lines = (await client.content(done["error_file_id"])).splitlines()
    assert len(lines) == 3
    assert (await client.ask("POST", path))[0] == 200
    assert service.endpoint.asked == []


async def test_a_completed_batch_takes_no_cancel_and_no_retry_of_it(client: Client) -> None:
    done = await client.run(rows(1))
    reply = await client.call("POST", f"/v1/batches/{done['id']}/cancel")
    assert (reply.code, reply.headers["x-should-retry"]) == (409, "false")


async def test_pauses_are_told_beside_the_status(service: Bench, client: Client) -> None:
    file = await client.upload(rows(3))
    batch = await client.create(file["id"])
    path = f"/v1/batches/{batch['id']}"
    assert (await client.ask("POST", f"{path}/pause"))[0] == 409  # it is still read
    await service.settle(lambda delivery: delivery.queue == "shards")
    status, told = await client.ask("POST", f"{path}/pause")
    assert (status, told["status"], told["phi3"]["paused"]) == (200, "in_progress", True)
    await service.settle()
    assert service.endpoint.asked == []
    status, told = await client.ask("POST", f"{path}/resume")
    assert (status, told["phi3"]["paused"]) == (200, False)
    await service.settle()
    assert (await client.batch(batch["id"]))["status"] == "completed"
    _, events = await client.ask("GET", f"{path}/events")
    assert [each["type"] for each in events["data"]] == [
        "batch.completed",
        "batch.finalizing",
        "batch.resumed",
        "batch.paused",
        "batch.in_progress",
        "batch.validating",
    ]
    assert [each["message"] for each in events["data"][2:4]] == [
        "the batch goes on",
        "the batch was paused by hand: it asks no more rows until it is resumed",
    ]
    assert len({each["id"] for each in events["data"]}) == len(events["data"])


async def test_the_event_of_a_failed_batch_says_why(service: Bench, client: Client) -> None:
    file = await client.upload(rows(2) + b"no JSON\n")
    batch = await client.create(file["id"])
    await service.settle()
    why = (await client.batch(batch["id"]))["errors"]["data"][0]["message"]
    _, events = await client.ask("GET", f"/v1/batches/{batch['id']}/events")
    latest = events["data"][0]
    assert (latest["type"], latest["level"]) == ("batch.failed", "error")
    assert latest["message"] == f"0 of 3 rows succeeded, 3 failed: {why}"


async def test_a_pause_by_a_cap_says_so_and_what_to_do_as_long_as_it_lasts() -> None:
    price = Price(input="2", output="4", currency="USD")
    priced = DEPLOYMENT.model_copy(update={"price": price})
    async with bench(api_keys=KEYS, deployments=(priced,)) as service:
        client = Client(service)
        file = await client.upload(rows(60))
        caps = {"max_cost": "0.001", "on_budget": "pause", "max_tokens": 9}
        batch = await client.create(file["id"], phi3=caps)
        path = f"/v1/batches/{batch['id']}"
        await service.settle()
        for _ in range(2):
            _, told = await client.ask("GET", f"{path}/events")
            latest = told["data"][0]
            assert (latest["type"], latest["level"]) == ("batch.paused", "warn")
            assert latest["message"].startswith(
                "the batch waits for budget: the cap leaves no room for the next call: cancel"
            )
            service.elapsed += 60
            await client.ask("POST", f"{path}/resume")
            await service.settle()
        await client.ask("POST", f"{path}/cancel")
        await service.settle()
        _, told = await client.ask("GET", f"{path}/events")
    found = [(each["type"], each["message"]) for each in reversed(told["data"])]
    waits = ("batch.paused", "the batch waits for budget")
    assert found[2:7] == [waits, ("batch.resumed", "the batch goes on")] * 2 + [waits]
    assert [kind for kind, _ in found[7:]] == [
        "batch.cancelling",
        "batch.finalizing",
        "batch.cancelled",
    ]


async def test_every_row_failing_is_completed_without_output(
    service: Bench, client: Client
) -> None:
    done = await client.run(rows(2, model="gpt-9"), phi3={"on_invalid": "skip"})
    assert (done["status"], done["output_file_id"]) == ("completed", None)
    assert done["error_file_id"] is not None
    assert done["request_counts"] == {"total": 2, "completed": 0, "failed": 2}


async def test_batches_are_listed_newest_first_by_pages_of_any_size(
    service: Bench, client: Client
) -> None:
    file = await client.upload(rows(1))
    made = []
    for _ in range(11):
        made.append((await client.create(file["id"]))["id"])
        await asyncio.sleep(0.01)
    await service.say({"container": "inputs", "name": "nowhere.jsonl"})  # rejected: no batch
    await service.settle()
    found: list[str] = []
    query: dict[str, str] = {"limit": "3"}
    for _ in range(10):
        _, page = await client.ask("GET", "/v1/batches", None, None, **query)
        found += [each["id"] for each in page["data"]]
        assert page["last_id"] == found[-1]
        query["after"] = found[-1]
        if not page["has_more"]:
            break
    assert found == made[::-1]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"limit": "101"}, "invalid_value"),
        ({"limit": "-1"}, "invalid_value"),
        ({"limit": "x"}, "invalid_value"),
        ({"after": "batch_nothing"}, "invalid_value"),
        ({"afetr": "x"}, "unknown_parameter"),
    ],
)
async def test_a_wrong_page_is_refused(client: Client, query: dict[str, str], code: str) -> None:
    status, told = await client.ask("GET", "/v1/batches", None, None, **query)
    assert (status, told["error"]["code"]) == (400, code)
    assert (await client.ask("GET", "/v1/batches", limit="0"))[1]["data"] == []


async def test_jobs_of_other_doors_are_batches_of_their_tenant(
    service: Bench, client: Client
) -> None:
    ended = await service.run(b'{"prompt": "a"}\n', "dropped.jsonl")
    _, page = await client.ask("GET", "/v1/batches")
    [batch] = page["data"]
    assert (batch["id"], batch["status"]) == (f"batch_{ended.event['data']['job']}", "completed")
    assert batch["phi3"]["door"] == "drop"
    _, file = await client.ask("GET", f"/v1/files/{batch['input_file_id']}")
    assert file["filename"] == "dropped.jsonl"
    assert await client.content(batch["input_file_id"]) == b'{"prompt": "a"}\n'
    status, told = await client.ask("DELETE", f"/v1/files/{batch['input_file_id']}")
    assert (status, told["error"]["code"]) == (403, "not_deletable")
    again = await client.create(batch["input_file_id"], phi3={"model": MODEL})
    await service.settle()
    assert (await client.batch(again["id"]))["status"] == "completed"


# -- lost answers


async def test_a_request_that_the_sdk_repeats_makes_one_batch(
    service: Bench, client: Client
) -> None:
    file = await client.upload(rows(1))
    body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    _, first = await client.ask("POST", "/v1/batches", body, {"x-stainless-retry-count": "0"})
    _, again = await client.ask("POST", "/v1/batches", body, {"x-stainless-retry-count": "1"})
    assert again["id"] == first["id"]
    _, other = await client.ask("POST", "/v1/batches", body, {"x-stainless-retry-count": "0"})
    assert other["id"] != first["id"]
    _, theirs = await Client(service, "app-2").ask(
        "POST", "/v1/batches", body, {"x-stainless-retry-count": "1"}
    )
    assert theirs["id"] not in (first["id"], other["id"])
    service.elapsed += 901
    _, late = await client.ask("POST", "/v1/batches", body, {"x-stainless-retry-count": "1"})
    assert late["id"] not in (first["id"], other["id"])


async def test_an_idempotency_key_is_kept_for_a_day(service: Bench, client: Client) -> None:
    file = await client.upload(rows(1))
    body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    key = {"idempotency-key": "order-7"}
    _, first = await client.ask("POST", "/v1/batches", body, key)
    await service.settle()
    status, again = await client.ask("POST", "/v1/batches", body, key)
    assert (status, again["id"], again["status"]) == (200, first["id"], "completed")
    reply = await client.call("POST", "/v1/batches", b"{}", key)
    assert reply.code == 400
    changed = body | {"completion_window": "1h"}
    status, told = await client.ask("POST", "/v1/batches", changed, key)
    assert (status, told["error"]["code"]) == (409, "idempotency_key_reused")
    service.elapsed += 86401
    status, told = await client.ask("POST", "/v1/batches", changed, key)
    assert status == 200
    assert told["id"] != first["id"]


async def test_other_tenants_keys_mean_nothing(service: Bench, client: Client) -> None:
    body = {"endpoint": CHAT, "completion_window": "24h"}
    key = {"idempotency-key": "order-7"}
    made = []
    for each in (client, Client(service, "blue")):
        file = await each.upload(rows(1))
        _, told = await each.ask("POST", "/v1/batches", body | {"input_file_id": file["id"]}, key)
        made.append(told["id"])
    assert made[0] != made[1]


async def test_models_are_told_with_their_tasks(client: Client) -> None:
    _, told = await client.ask("GET", "/v1/models")
    assert [each["id"] for each in told["data"]] == [MODEL, DEPLOYMENT.name]
    for model in told["data"]:
        assert "chat" in model["tasks"]
        assert await client.ask("GET", f"/v1/models/{model['id']}") == (200, model)
    code, told = await client.ask("GET", "/v1/models/microsoft/Phi-9")
    assert (code, told["error"]["code"]) == (404, "model_not_found")


async def test_azures_paths_lead_to_the_same(client: Client) -> None:
    done = await client.run(rows(1, "/chat/completions"), endpoint="/chat/completions")
    assert done["status"] == "completed"
    for path in ("/openai/v1/batches", "/openai/batches"):
        _, told = await client.ask("GET", path, None, None, **{"api-version": "2024-10-21"})
        assert [each["id"] for each in told["data"]] == [done["id"]]
    reply = await client.call("GET", "/openai/deployments/x/batches")
    assert reply.code == 404
    assert done["created_at"] >= EPOCH


async def test_a_batch_tells_what_it_has_cost_where_prices_are_known(client: Client) -> None:
    assert (await client.run(rows(2)))["phi3"]["cost"] is None
    price = Price(input="2", output="4", currency="USD")
    priced = DEPLOYMENT.model_copy(update={"price": price})
    async with bench(api_keys=KEYS, deployments=(priced,)) as service:
        done = await Client(service).run(rows(2))
    usage = done["usage"]
    cost = f"0.{usage['input_tokens'] * 2 + usage['output_tokens'] * 4:06d}"
    told = {"currency": "USD", "counted": cost, "at_most": cost}
    assert done["phi3"]["cost"] == told | {"unmetered_calls": 0, "unpriced_calls": 0}
    assert usage["total_tokens"] == 24


async def test_a_capped_batch_tells_its_caps_as_the_status_of_its_job_does() -> None:
    price = Price(input="2", output="4", currency="USD")
    priced = DEPLOYMENT.model_copy(update={"price": price})
    caps = {"max_cost": "0.001", "max_total_tokens": 9000, "on_budget": "pause"}
    async with bench(api_keys=KEYS, deployments=(priced,)) as service:
        client = Client(service)
        file = await client.upload(rows(60))
        batch = await client.create(file["id"], phi3={**caps, "max_tokens": 9})
        await service.settle()
        told = (await client.batch(batch["id"]))["phi3"]
        job = (await service.ask("GET", f"/api/jobs/{batch['id'].removeprefix('batch_')}")).body
    assert (told["paused"], told["waiting"]["reason"]) == (True, "budget")
    assert told["waiting"]["message"].startswith("the cap leaves no room for the next call: cancel")
    assert (told["budget"], told["cost"]) == (job["budget"], job["cost"])
    assert told["projected_cost"] == job.get("projected_cost")
    assert (told["budget"]["max_cost"], told["budget"]["max_total_tokens"]) == ("0.001000", 9000)
    assert told["budget"]["on_budget"] == "pause"
    assert "of_month" not in told["budget"], "it names its cap"
    # Each row costs 34 millionths, and has 12 tokens: all of them more than its cap on cost.
    assert (told["projected_cost"], told["projected_tokens"]) == ("0.002040", 720)
    assert job["projected_tokens"] == 720
    assert 0 < float(told["budget"]["cost_spent"]) <= float(told["cost"]["at_most"]) <= 0.001
    assert told["budget"]["tokens_spent"] == 12 * len(service.endpoint.asked)


async def test_a_batch_tells_what_it_will_come_to(client: Client) -> None:
    price = Price(input="2", output="4", currency="USD")
    priced = DEPLOYMENT.model_copy(update={"price": price})
    async with bench(api_keys=KEYS, deployments=(priced,)) as service:
        client = Client(service)
        file = await client.upload(b"".join(rows(1) for _ in range(3000)))
        batch = await client.create(file["id"], phi3={"on_duplicate": "number"})
        left = 1

        def held(delivery: Delivery) -> bool:
            nonlocal left
            left -= delivery.queue == "shards"
            return left < 0

        await service.settle(held)
        told = await client.batch(batch["id"])
        await service.settle()
        done = await client.batch(batch["id"])
    counted, projected = float(told["phi3"]["cost"]["counted"]), told["phi3"]["projected_cost"]
    part = told["request_counts"]["completed"] / 3000
    assert 0 < part < 1
    assert float(projected) == pytest.approx(counted / part, abs=1e-6)
    assert projected == done["phi3"]["cost"]["counted"]
    assert done["phi3"]["projected_cost"] is None


async def test_what_is_asked_of_an_ended_batch_says_which_and_what_is_left(client: Client) -> None:
    done = await client.run(rows(1))
    code, told = await client.ask("POST", f"/v1/batches/{done['id']}/pause")
    words = f"{done['id']} is completed and takes no pause: what it has answered can be fetched"
    assert (code, told["error"]["message"]) == (409, words)


async def test_a_body_is_utf_8_and_nothing_else(client: Client) -> None:
    body = json.dumps({"requests": []}).encode("utf-16")
    reply = await client.call("POST", "/v1/estimate", body)
    assert (reply.code, json.loads(reply.data)["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("written", ["newer", "odd"])
async def test_a_batch_that_cannot_be_read_hides_no_other(
    service: Bench, client: Client, written: str
) -> None:
    file = await client.upload(rows(1))
    for _ in range(3):
        await client.create(file["id"])
    ids = [batch["id"] for batch in (await client.ask("GET", "/v1/batches"))[1]["data"]]
    ref = service.store.ref(ids[1].removeprefix("batch_"), "job.json")
    told = await service.blobs.read(ref)
    newer = json.dumps({**json.loads(told.data), "schema_version": 99}).encode()
    await service.blobs.replace(ref, newer if written == "newer" else b"odd", told.etag)
    service.store._jobs.clear()
    status, page = await client.ask("GET", "/v1/batches")
    assert (status, [batch["id"] for batch in page["data"]]) == (200, [ids[0], ids[2]])
    status, page = await client.ask("GET", "/v1/batches", after=ids[1])
    assert (status, [batch["id"] for batch in page["data"]]) == (200, [ids[2]])
