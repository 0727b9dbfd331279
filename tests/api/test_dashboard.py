"""The dashboard's files: which there are, how they are given out, and whose they are."""

import re
from pathlib import Path
from typing import get_args

import pytest

from schemas.results import JobWaitReason
from tests.browser.states import ROWS, begun
from tests.doubles.service import bench
from tests.test_readme import section
from workers.api.dashboard.page import POLICY, answer, static_files
from workers.api.http import BytesReply, HttpCall

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "workers/api/dashboard/static"
LIT = ROOT / "node_modules/lit-html"
FILES = static_files()


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_given_out_with_its_type_and_policy(path: str) -> None:
    reply = answer(HttpCall("GET", f"/{path}"))
    assert isinstance(reply, BytesReply)
    assert (reply.code, reply.data) == (200, FILES[path].data)
    assert reply.headers["Content-Security-Policy"] == POLICY
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    again = answer(HttpCall("GET", f"/{path}", headers={"if-none-match": reply.headers["ETag"]}))
    assert (again.code, again.data) == (304, b"")
    head = answer(HttpCall("HEAD", f"/{path}"))
    assert (head.code, head.data) == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["page.py", "../page.py", "..%2fpage.py", "static/app.js", "/etc/passwd", "app.js/x", "é"],
)
def test_there_is_no_other_file(path: str) -> None:
    assert answer(HttpCall("GET", f"/{path}")).code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_files_are_only_read(method: str) -> None:
    reply = answer(HttpCall(method, "/app.js"))
    assert (reply.code, reply.headers["Allow"]) == (405, "GET, HEAD")


def test_every_file_of_the_folder_is_part_of_the_page_and_none_is_asked_for_elsewhere() -> None:
    assert {path.name for path in STATIC.iterdir()} == {name or "index.html" for name in FILES}
    for path in STATIC.iterdir():
        text = path.read_text("utf-8")
        if path.name.startswith("lit-html"):
            continue
        assert re.findall(r"https?://(?!www\.w3\.org/)", text) == [], path.name
        for name in re.findall(r"[\"'](/dashboard/[^\"']*)[\"']", text):
            assert name.removeprefix("/dashboard/") in FILES, f"{path.name}: {name}"


@pytest.mark.parametrize(
    ("ours", "theirs"), [("lit-html.js", "lit-html.js"), ("lit-html.LICENSE.txt", "LICENSE")]
)
def test_what_is_not_ours_is_as_npm_has_it(ours: str, theirs: str) -> None:
    assert (STATIC / ours).read_bytes() == (LIT / theirs).read_bytes()


# -- what the page asks for


async def test_links_are_given_to_the_results_of_a_job_that_has_ended() -> None:
    async with bench() as service:
        job = (await service.run(ROWS)).manifest["job"]
        reply = await service.ask("POST", f"/api/jobs/{job}/links")
        assert reply.code == 200
        found = {each["name"]: each for each in reply.body["data"]}
        assert {"output.jsonl", "errors.jsonl", "manifest.json"} <= set(found)
        assert found["output.jsonl"]["bytes"] > 0
        assert found["output.jsonl"]["url"].startswith("https://memory.invalid/results/")


async def test_there_are_no_links_before_the_end_nor_where_they_are_not_wanted() -> None:
    async with bench() as service:
        job = await begun(service)
        refused = await service.ask("POST", f"/api/jobs/{job}/links")
        assert (refused.code, refused.body["error"]["code"]) == (409, "not_possible")
        assert (await service.ask("POST", "/api/jobs/nobody/links")).code == 404
    async with bench(downloads="body") as service:
        job = (await service.run(ROWS)).manifest["job"]
        refused = await service.ask("POST", f"/api/jobs/{job}/links")
        assert (refused.code, refused.body["error"]["code"]) == (409, "no_links")


async def test_the_list_is_filtered_by_what_jobs_wait_for() -> None:
    async with bench() as service:
        await service.run(ROWS)
        listed = await service.ask("GET", "/api/jobs", waits_for="outage")
        assert (listed.code, listed.body["data"]) == (200, [])
        refused = await service.ask("GET", "/api/jobs", waits_for="nonesuch")
    assert (refused.code, refused.body["error"]["param"]) == (400, "waits_for")
    told = section((ROOT / "docs/http.md").read_text("utf-8"), "Pages and filters of the list")
    named = re.search(r"^\| `waits_for` \|.*?: (.*) \|$", told, re.MULTILINE)
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) == set(get_args(JobWaitReason))
    for reason in get_args(JobWaitReason):
        assert f"'{reason}'" in refused.body["error"]["message"]


async def test_an_answer_that_has_not_changed_is_not_sent_again() -> None:
    async with bench() as service:
        job = (await service.run(ROWS)).manifest["job"]
        first = await service.ask("GET", f"/api/jobs/{job}")
        known = {"if-none-match": first.headers["ETag"]}
        again = await service.api.answer(HttpCall("GET", f"/api/jobs/{job}", headers=known))
        assert (again.code, again.data) == (304, b"")
        # Health is asked to be seen now.
        health = await service.ask("GET", "/api/health")
        assert "ETag" not in health.headers
