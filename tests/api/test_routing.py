"""Every method, path and query is an operation or a refusal that says what is wrong."""

from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import parse_qsl

import azure.functions as func
import pytest
from hypothesis import given
from hypothesis import strategies as st

import function_app
from local.host.invoking import encode_response
from schemas.jobs import ShownState
from schemas.listing import IndexEntry
from schemas.status import JobStatus
from workers.api.dashboard import page
from workers.api.http import AnyReply, BytesReply, HttpCall, HttpRefusal
from workers.api.routing import Act, CreateJob, ListJobs, ReadJob, route


def refused(method: str, path: str, **query: str) -> HttpRefusal:
    with pytest.raises(HttpRefusal) as caught:
        route(HttpCall(method, path, query))
    return caught.value


def test_what_is_known_is_found() -> None:
    assert route(HttpCall("GET", "/api/jobs")) == ListJobs()
    assert route(HttpCall("GET", "/api/jobs/")) == ListJobs()
    assert route(HttpCall("POST", "/api/jobs")) == CreateJob()
    assert route(HttpCall("GET", "/api/jobs/a-1")) == ReadJob(id="a-1")
    assert route(HttpCall("POST", "/api/jobs/a-1/pause")) == Act(id="a-1", action="pause")


def test_the_function_key_is_no_parameter_of_ours() -> None:
    assert route(HttpCall("GET", "/api/jobs", {"code": "key", "limit": "7"})) == ListJobs(limit=7)


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/nope", "/api/jobs/a/explode", "/api/jobs/a/b/c"]
)
def test_an_unknown_path_is_404_in_the_openai_form(path: str) -> None:
    reply = refused("GET", path).reply()
    assert reply.code == 404
    error = reply.body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == ("unknown_url", "invalid_request_error")


def test_another_method_is_405_and_says_which_are_taken() -> None:
    refusal = refused("DELETE", "/api/jobs")
    assert (refusal.status, refusal.headers) == (405, {"Allow": "GET, POST"})
    assert "GET, POST" in str(refusal)


@pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs/a"])
def test_an_unknown_parameter_is_refused_by_name(path: str) -> None:
    refusal = refused("GET", path, stat="failed")
    assert (refusal.status, refusal.code, refusal.param) == (400, "unknown_parameter", "stat")


def test_a_query_does_not_speak_for_the_path() -> None:
    assert refused("GET", "/api/jobs/a", id="b").code == "unknown_parameter"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "many"),
        ("state", "done"),
        ("door", "window"),
        ("after", "../secrets"),
        ("created_after", "yesterday"),
        ("created_before", "inf"),
        ("created_before", "nan"),
    ],
)
def test_a_wrong_value_is_refused_with_its_parameter(name: str, value: str) -> None:
    refusal = refused("GET", "/api/jobs", **{name: value})
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_value", name)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=5&limit=6", "limit"),
        ("limit=5&limit=5", "limit"),
        ("state=&state=failed", "state"),
        ("metadata_team=a&door=drop&metadata_team=b", "metadata_team"),
        ("%6Cimit=5&limit=6", "limit"),
    ],
)
def test_a_parameter_that_is_given_twice_is_refused(query: str, param: str) -> None:
    """Hosts keep the last value, or join them: neither is what was asked for."""
    url = f"http://localhost/api/jobs?code=a&code=b&{query}"
    params = dict(parse_qsl(query))
    call = function_app._call(func.HttpRequest("GET", url, params=params, body=b""), "api/jobs")
    with pytest.raises(HttpRefusal) as caught:
        route(call)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    "reply",
    [*map(page.answer, (HttpCall("GET", "/"), HttpCall("GET", "/x"))), BytesReply(200, b"0")],
    ids=["a page", "JSON", "bytes"],
)
def test_a_type_of_content_is_sent_as_it_is(reply: AnyReply) -> None:
    headers: Any = encode_response(function_app._answer(reply))["headers"]
    sent = [datum.value for name, datum in headers.items() if name.lower() == "content-type"]
    assert sent == [reply.content_type]


def test_all_states_that_a_filter_takes_are_named() -> None:
    states = get_args(ShownState)
    assert {"completed", "paused", "cancelling", "expiring", "failing", "rejected"} <= set(states)
    for state in states:
        assert route(HttpCall("GET", "/api/jobs", {"state": state})) == ListJobs(state=state)
    told = str(refused("GET", "/api/jobs", state="nonsense"))
    assert [state for state in states if f"'{state}'" not in told] == []


@pytest.mark.parametrize(
    "time",
    ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T01:00:00+01:00", "1767225600"],
)
def test_times_are_iso_or_epoch_seconds(time: str) -> None:
    asked = route(HttpCall("GET", "/api/jobs", {"created_after": time}))
    assert isinstance(asked, ListJobs)
    assert asked.created_after == 1767225600


@pytest.mark.parametrize(
    ("query", "taken"),
    [
        ({}, True),
        ({"state": "failed"}, True),
        ({"state": "completed"}, False),
        ({"door": "queue"}, True),
        ({"door": "drop"}, False),
        ({"input": "inputs/a.jsonl"}, True),
        ({"input": "inputs/b.jsonl"}, False),
        ({"metadata_team": "blue"}, True),
        ({"metadata_team": "blue", "metadata_run": "8"}, False),
        ({"created_after": "2026-01-01", "created_before": "2026-01-03"}, True),
        ({"created_after": "2026-01-02T00:00:01Z"}, False),
        ({"created_before": "2026-01-02"}, False),
    ],
)
def test_a_job_has_to_fit_every_filter(query: dict[str, str], taken: bool) -> None:
    entry = IndexEntry(
        id="a",
        door="queue",
        input="inputs/a.jsonl",
        created=datetime(2026, 1, 2, tzinfo=UTC).timestamp(),
        metadata={"team": "blue", "run": "7"},
    )
    told = JobStatus(job="a", state="failed")
    asked = route(HttpCall("GET", "/api/jobs", query))
    assert isinstance(asked, ListJobs)
    assert (asked.lists(entry) and asked.takes(told)) is taken
    assert asked.filters is bool(query)


PARAMETERS = st.sampled_from(["limit", "after", "state", "created_after", "metadata_a"])
PATHS = st.sampled_from(["{}", "/api/{}", "/api/jobs/{}", "/api/jobs/{}/cancel", "/api/jobs"])


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "x"]),
    path=st.builds(str.format, PATHS, st.text()),
    query=st.dictionaries(st.one_of(st.text(), PARAMETERS), st.text()),
)
def test_whatever_comes_is_an_operation_or_a_refusal(
    method: str, path: str, query: dict[str, str]
) -> None:
    found: object
    try:
        found = route(HttpCall(method, path, query))
    except HttpRefusal as refusal:
        found = refusal.status
    assert found in (400, 404, 405) or isinstance(found, ListJobs | CreateJob | ReadJob | Act)
