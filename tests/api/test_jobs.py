"""Jobs over HTTP, over the in-memory doubles."""

import pytest

from schemas.jobs import Asked
from schemas.messages import Announcement
from schemas.status import JobStatus
from schemas.tenants import Tenant
from tests.browser import states
from tests.doubles.service import Bench, bench
from workers.ports import BlobRef

ROWS = b'{"prompt": "a"}\n{"prompt": "b"}\n'
REQUEST = {"container": "inputs", "name": "in.jsonl", "options": {"max_tokens": 8}}


async def test_a_posted_job_is_the_one_that_the_same_message_makes() -> None:
    async with bench() as service:
        await service.drop(ROWS, container="inputs")
        posted = await service.ask("POST", "/api/jobs", REQUEST, {"idempotency-key": "order-7"})
        assert posted.code == 202
        job = posted.body["job"]
        assert posted.headers == {"Location": f"/api/jobs/{job}"}
        assert JobStatus.model_validate(posted.body).state == "validating"
        await service.say(REQUEST)
        await service.settle()
        ends = [event["data"] for event in service.events if event["data"].get("ended")]
        assert [end["job"] for end in ends] == [job]
        told = await service.ask("GET", f"/api/jobs/{job}")
        assert (told.body["state"], told.body["message_id"]) == ("completed", "order-7")


async def test_a_job_that_is_known_is_answered_with_its_status() -> None:
    async with bench() as service:
        await service.drop(ROWS, container="inputs")
        posted = await service.ask("POST", "/api/jobs", REQUEST)
        await service.settle()
        before = len(service.events)
        again = await service.ask("POST", "/api/jobs", REQUEST)
        assert (again.code, again.body["state"]) == (200, "completed")
        assert again.body["job"] == posted.body["job"]
        await service.settle()
        assert len(service.events) == before


async def test_a_job_is_marked_before_it_is_answered() -> None:
    async with bench() as service:
        await service.drop(ROWS, container="inputs")
        posted = await service.ask("POST", "/api/jobs", REQUEST)
        assert [job async for job, _ in service.store.open_jobs()] == [posted.body["job"]]


async def test_a_posted_job_is_where_its_location_says_before_intake_has_seen_it() -> None:
    async with bench() as service:
        await service.drop(ROWS, container="inputs")
        posted = await service.ask("POST", "/api/jobs", REQUEST, {"idempotency-key": "order-7"})
        place = posted.headers["Location"]
        told = await service.ask("GET", place)
        assert (told.code, told.body) == (200, posted.body)
        for action in ("cancel", "pause", "resume"):
            refused = (await service.ask("POST", f"{place}/{action}")).body["error"]
            assert refused["code"] == "not_possible"
            assert "try again in a moment" in refused["message"]
        again = await service.ask("POST", "/api/jobs", REQUEST, {"idempotency-key": "order-7"})
        assert (again.code, again.body, again.headers) == (202, posted.body, posted.headers)
        await service.settle()
        assert (await service.ask("GET", place)).body["state"] == "completed"
        assert sum(event["type"] == "job.completed" for event in service.events) == 1


async def test_a_posted_job_is_answered_with_its_metadata() -> None:
    asked = {**REQUEST, "options": {"metadata": {"team": "blue"}}}
    async with bench() as service:
        await service.drop(ROWS, container="inputs")
        posted = await service.ask("POST", "/api/jobs", asked)
        assert (posted.code, posted.body["metadata"]) == (202, {"team": "blue"})
        await service.settle()
        told = await service.ask("GET", posted.headers["Location"])
        assert told.body["metadata"] == posted.body["metadata"]


async def test_a_file_that_is_to_be_looked_at_is_told_without_options_that_nobody_has_read() -> (
    None
):
    async with bench() as service:
        for options in (None, {"max_token": 1}):
            marked = Announcement(
                job="20270115T080000Z-8b7a6f5e4d3c2f1b",
                door="drop",
                container="prompts",
                name="in.jsonl",
                etag="1",
                size=1,
                options=options,
                asked=Asked(metadata={"from": "ci"}),
            )
            await service.store.open(marked)
            told = await service.ask("GET", f"/api/jobs/{marked.job}")
            assert (told.body["state"], told.body["metadata"]) == ("validating", {"from": "ci"})


async def test_what_makes_no_job_is_said_at_once() -> None:
    async with bench() as service:
        await service.drop(ROWS, container="inputs")
        for body, code, name, param in (
            ({"container": "inputs", "name": "gone.jsonl"}, 404, "file_not_found", "name"),
            ({"container": "secret", "name": "in.jsonl"}, 400, "wrong_container", "container"),
            ({"container": "inputs", "name": "../in.jsonl"}, 400, "invalid_name", "name"),
            ({"container": "inputs"}, 400, "invalid_message", "name"),
            ({**REQUEST, "options": 7}, 400, "invalid_message", "options"),
            ({"type": "finish", "job": "a"}, 400, "invalid_message", "type"),
            ({**REQUEST, "options": {"max_token": 1}}, 400, "invalid_options", "options"),
            ({**REQUEST, "tenant": "nobody"}, 400, "unknown_tenant", "tenant"),
            ({**REQUEST, "etag": "other"}, 409, "file_changed", "etag"),
            ({**REQUEST, "rerun": True}, 400, "rerun_unnamed", "rerun"),
            ({**REQUEST, "rerun": "yes"}, 400, "invalid_message", "rerun"),
            ({**REQUEST, "rerun": 1}, 400, "invalid_message", "rerun"),
            ([], 400, "invalid_message", None),
        ):
            error = (reply := await service.ask("POST", "/api/jobs", body)).body["error"]
            assert (reply.code, error["code"], error["param"]) == (code, name, param), body
        reply = await service.ask("POST", "/api/jobs", REQUEST, {"idempotency-key": "é" * 3})
        assert (reply.code, reply.body["error"]["param"]) == (400, "Idempotency-Key")
        assert service.events == []


async def test_jobs_are_listed_newest_first_page_by_page() -> None:
    async with bench() as service:
        for number in range(7):
            await service.run(ROWS, f"{number}.jsonl", options={"metadata": {"n": str(number % 2)}})
        found: list[str] = []
        query: dict[str, str] = {}
        while True:
            page = (await service.ask("GET", "/api/jobs", None, None, limit="3", **query)).body
            found += [told["job"] for told in page["data"]]
            if not page["has_more"]:
                break
            query = {"after": page["last_id"]}
        assert len(found) == len(set(found)) == 7
        odd = await service.ask("GET", "/api/jobs", metadata_n="1")
        assert len(odd.body["data"]) == 3
        assert (await service.ask("GET", "/api/jobs", state="failed")).body["data"] == []


async def listed(service: Bench, **query: str) -> list[tuple[str, str]]:
    """(tenant, file) of each job of all pages."""
    found: list[tuple[str, str]] = []
    while True:
        page = (await service.ask("GET", "/api/jobs", None, None, **query)).body
        found += [(each["tenant"], each["input"].rpartition("/")[2]) for each in page["data"]]
        if not page["has_more"]:
            return found
        query["after"] = page["last_id"]


@pytest.mark.parametrize("limit", ["1", "2", "5", "100"])
async def test_the_jobs_of_all_tenants_are_one_list_page_by_page(limit: str) -> None:
    tenants = {name: Tenant() for name in ("default", "blue", "green")}
    async with bench(tenants=tenants) as service:
        wanted: list[tuple[str, str]] = []
        for number, tenant in enumerate(("blue", "default", "blue", "blue", "default", "blue")):
            name = f"{number}.jsonl"
            await service.drop(ROWS, name, container="inputs")
            await service.say({"container": "inputs", "name": name, "tenant": tenant})
            await service.settle()
            service.elapsed += 1.0
            wanted.insert(0, (tenant, name))
        assert await listed(service, tenant="*", limit=limit) == wanted
        own = [each for each in wanted if each[0] == "blue"]
        assert await listed(service, tenant="blue", limit=limit) == own
        assert await listed(service, tenant="*", limit=limit, state="failed") == []
        newest = (await service.ask("GET", "/api/jobs", tenant="*", limit="1")).body["data"][0]
        # A job of another tenant is no place in a list of one's own.
        reply = await service.ask("GET", "/api/jobs", tenant="default", after=newest["job"])
        assert (reply.code, reply.body["error"]["param"]) == (400, "after")


async def test_of_a_list_of_all_tenants_what_cannot_be_read_tells_whose_it_is_and_is_a_place() -> (
    None
):
    async with bench(tenants={"default": Tenant(), "blue": Tenant()}) as service:
        for name in ("0.jsonl", "1.jsonl"):
            await service.drop(ROWS, name, container="inputs")
            await service.say({"container": "inputs", "name": name, "tenant": "blue"})
            await service.settle()
            service.elapsed += 1.0
        (told, _) = (await service.ask("GET", "/api/jobs", tenant="*")).body["data"]
        ref = service.store.ref(told["job"], "job.json")
        await service.blobs.replace(ref, b"odd", (await service.blobs.head(ref)).etag)
        service.store._jobs.clear()
        (odd, other) = (await service.ask("GET", "/api/jobs", tenant="*")).body["data"]
        assert (odd["tenant"], odd["reason"]["code"]) == ("blue", "unreadable")
        rest = await service.ask("GET", "/api/jobs", tenant="*", after=odd["job"])
        assert rest.body["data"] == [other]


async def test_the_open_jobs_are_listed_page_by_page_the_oldest_file_first() -> None:
    tenants = {"default": Tenant(), "blue": Tenant()}
    async with bench(tenants=tenants) as service:
        await service.run(ROWS, "done.jsonl")
        held = [await states.begun(service, f"{number}.jsonl") for number in range(2)]
        assert (await service.ask("POST", f"/api/jobs/{held[1]}/pause")).code == 202
        for name, tenant in (("own.jsonl", "default"), ("theirs.jsonl", "blue")):
            await service.drop(ROWS, name, container="inputs")
            request = {"container": "inputs", "name": name, "tenant": tenant}
            # Marked as open, and nobody has looked at it yet.
            held.append((await service.ask("POST", "/api/jobs", request)).body["job"])
        names = dict(zip(held, ("0", "1", "own", "theirs"), strict=True))
        oldest = [f"{names[job]}.jsonl" for job in sorted(held)]
        told = await listed(service, open="true", tenant="*", limit="2")
        assert [name for _, name in told] == oldest
        own = await listed(service, open="true", limit="1")
        assert [name for _, name in own] == [each for each in oldest if each != "theirs.jsonl"]
        paused = await listed(service, open="true", state="paused", tenant="*")
        assert paused == [("default", "1.jsonl")]
        read = await listed(service, open="true", state="validating", tenant="blue", door="queue")
        assert read == [("blue", "theirs.jsonl")]
        assert await listed(service, open="true", door="nightly") == []
        # Others' jobs are no part of a page, and none of them makes a tenant known.
        page = (await service.ask("GET", "/api/jobs", open="true", tenant="blue", limit="1")).body
        assert [each["input"] for each in page["data"]] == ["inputs/theirs.jsonl"]
        lost = await service.ask("GET", "/api/jobs", open="true", after="zzz")
        assert (lost.code, lost.body["error"]["param"]) == (400, "after")
        unknown = await service.ask("GET", "/api/jobs", open="true", tenant="nobody")
        assert (unknown.code, unknown.body["error"]["code"]) == (404, "unknown_tenant")


async def test_a_job_that_has_ended_is_no_open_one_though_its_marker_stands() -> None:
    async with bench() as service:
        job = (await service.run(ROWS)).manifest["job"]
        await service.blobs.create(BlobRef("state", f"open/{job}"), b"{}")
        assert await listed(service, open="true") == []


async def test_an_open_job_that_this_version_cannot_read_is_listed_with_the_reason() -> None:
    async with bench() as service:
        await service.blobs.create(BlobRef("state", "open/20260101T000000Z-0"), b"{}")
        (told,) = (await service.ask("GET", "/api/jobs", open="true")).body["data"]
        assert (told["job"], told["reason"]["code"]) == ("20260101T000000Z-0", "unreadable")


async def test_a_cursor_that_is_no_job_is_refused() -> None:
    async with bench() as service:
        reply = await service.ask("GET", "/api/jobs", after="20260101T000000Z-none")
        assert (reply.code, reply.body["error"]["param"]) == (400, "after")


async def test_a_rerun_is_told_from_others_by_its_idempotency_key() -> None:
    async with bench() as service:
        await service.drop(ROWS, container="inputs")
        jobs = []
        for key, code in (("a", 202), ("a", 200), ("b", 202)):
            body = REQUEST | {"rerun": True}
            reply = await service.ask("POST", "/api/jobs", body, {"idempotency-key": key})
            await service.settle()
            assert reply.code == code
            jobs.append(reply.body["job"])
        assert jobs[0] == jobs[1] != jobs[2]
        reply = await service.ask("POST", "/api/jobs", REQUEST | {"rerun": True})
        assert (reply.code, reply.body["error"]["code"]) == (400, "rerun_unnamed")


async def test_pages_of_a_filter_that_few_fit_are_short_and_go_on() -> None:
    async with bench() as service:
        for number in range(5):
            await service.say({"container": "inputs", "name": f"{number}.jsonl"})
        await service.run(ROWS, "last.jsonl")
        page = (await service.ask("GET", "/api/jobs", state="rejected", limit="2")).body
        assert [len(page["data"]), page["has_more"]] == [2, True]
        rest = await service.ask("GET", "/api/jobs", state="rejected", after=page["last_id"])
        assert [len(rest.body["data"]), rest.body["has_more"]] == [3, False]


async def test_a_tenant_without_jobs_has_an_empty_list_and_one_that_nobody_knows_none() -> None:
    async with bench(tenants={"default": Tenant(), "blue": Tenant()}) as service:
        for query in ({}, {"tenant": "blue"}):
            reply = await service.ask("GET", "/api/jobs", None, None, **query)
            assert (reply.code, reply.body["data"]) == (200, [])
        reply = await service.ask("GET", "/api/jobs", tenant="bleu")
        assert (reply.code, reply.body["error"]["code"]) == (404, "unknown_tenant")
        assert reply.body["error"]["message"].endswith("TENANTS knows: default, blue")


async def test_a_request_of_a_later_version_is_refused_in_the_usual_form() -> None:
    async with bench() as service:
        reply = await service.ask("POST", "/api/jobs", {**REQUEST, "schema_version": 9})
        assert (reply.code, reply.body["error"]["code"]) == (400, "newer_version")
