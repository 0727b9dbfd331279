"""Mistakes in an app show when it is loaded, as they would in Azure."""

import re
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func
import pytest
from azurefunctions.extensions.bindings import blob
from hypothesis import given
from hypothesis import strategies as st

from local.host import options
from local.host.blob_triggers import BlobPattern
from local.host.http_triggers import aiohttp_route
from local.host.loading import LoadError, load
from local.host.timer_triggers import Schedule


def module(app: Any) -> ModuleType:
    made = ModuleType("function_app")
    made.__file__ = "function_app.py"
    made.app = app  # type: ignore[attr-defined]
    return made


def test_a_function_is_loaded_with_its_trigger() -> None:
    app = func.FunctionApp()

    @app.blob_trigger(
        "client",
        path="prompts/{name}",
        connection="Store",
        source=func.BlobSource.EVENT_GRID,
    )
    async def dropped(client: blob.BlobClient, context: func.Context) -> None:
        """Never called."""

    (function,) = load(module(app))
    assert (function.name, function.kind, function.parameter) == (
        "dropped",
        "blobTrigger",
        "client",
    )
    assert function.trigger["path"] == "prompts/{name}"
    assert function.trigger["source"] == "EventGrid"
    assert function.deferred
    assert function.takes_context


def no_app() -> Any:
    return None


def no_functions() -> Any:
    return func.FunctionApp()


def parameter_without_binding() -> Any:
    app = func.FunctionApp()

    @app.timer_trigger("timer", schedule="0 0 0 * * *")
    async def tick(timer: func.TimerRequest, other: str) -> None:
        """Never called."""

    return app


def binding_without_parameter() -> Any:
    app = func.FunctionApp()

    @app.timer_trigger("timer", schedule="0 0 0 * * *")
    async def tick(clock: func.TimerRequest) -> None:
        """Never called."""

    return app


def wrong_type() -> Any:
    app = func.FunctionApp()

    @app.service_bus_queue_trigger("message", queue_name="jobs", connection="Bus")
    async def take(message: func.TimerRequest) -> None:
        """Never called."""

    return app


def whole_blob() -> Any:
    app = func.FunctionApp()

    @app.blob_trigger("content", path="prompts/{name}", connection="Store")
    async def dropped(content: func.InputStream) -> None:
        """Never called."""

    return app


def output_binding() -> Any:
    app = func.FunctionApp()

    @app.timer_trigger("timer", schedule="0 0 0 * * *")
    @app.queue_output("out", queue_name="q", connection="Store")
    async def tick(timer: func.TimerRequest, out: func.Out[str]) -> None:
        """Never called."""

    return app


def other_trigger() -> Any:
    app = func.FunctionApp()

    @app.queue_trigger("message", queue_name="q", connection="Store")
    async def take(message: func.QueueMessage) -> None:
        """Never called."""

    return app


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_app, "has no `app"),
        (no_functions, "has no functions"),
        (parameter_without_binding, "in Python but not in its decorators: ['other']"),
        (binding_without_parameter, "declared in its decorators but not in Python: ['timer']"),
        (wrong_type, "cannot be"),
        (whole_blob, "as BlobClient only"),
        (output_binding, "triggers only"),
        (other_trigger, "has no queueTrigger"),
    ],
)
def test_a_mistake_is_named(make: Any, said: str) -> None:
    with pytest.raises(LoadError, match=re.escape(said)):
        load(module(make()))


@pytest.mark.parametrize(
    ("expression", "after", "due"),
    [
        ("0 */5 * * * *", "2026-03-01T12:01:00", "2026-03-01T12:05:00"),
        ("30 0 2 * * *", "2026-03-01T02:00:30", "2026-03-02T02:00:30"),
        ("0 0 9 * * MON-FRI", "2026-03-06T09:00:00", "2026-03-09T09:00:00"),
        ("0 0 0 13 * 5", "2026-03-01T00:00:00", "2026-03-13T00:00:00"),
        ("0 0 0 13 * FRI", "2026-03-14T00:00:00", "2026-11-13T00:00:00"),
        ("0 9 * * *", "2026-03-01T09:00:00", "2026-03-02T09:00:00"),
    ],
)
def test_schedules_are_ncrontab(expression: str, after: str, due: str) -> None:
    found = Schedule(expression).after(datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(due).replace(tzinfo=UTC)


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))
def test_the_next_run_is_later_and_the_one_after_it_later_still(moment: datetime) -> None:
    schedule = Schedule("*/20 */7 3 * * *")
    first = schedule.after(moment)
    second = schedule.after(first)
    assert moment < first < second
    assert (first.second % 20, first.minute % 7, first.hour) == (0, 0, 3)


@pytest.mark.parametrize("expression", ["", "never", "* * *", "61 * * * * *", "0 0 0 31 2 *"])
def test_what_is_no_schedule_is_refused(expression: str) -> None:
    with pytest.raises(LoadError, match="is not NCRONTAB"):
        Schedule(expression)


def test_a_blob_path_says_which_blobs_and_tokens() -> None:
    pattern = BlobPattern.of("inputs/{team}/in-{name}.jsonl")
    assert (pattern.container, pattern.prefix) == ("inputs", "")
    assert pattern.tokens("search/in-a/b.jsonl") == {"team": "search", "name": "a/b"}
    assert pattern.tokens("search/a.jsonl") is None
    assert BlobPattern.of("prompts/{name}").tokens("a/b") == {"name": "a/b"}
    assert BlobPattern.of("prompts/day/{name}").prefix == "day/"
    with pytest.raises(LoadError, match="name of a container"):
        BlobPattern.of("{container}/{name}")


@pytest.mark.parametrize(
    ("route", "written"),
    [
        ("jobs", "jobs"),
        ("jobs/{id}", "jobs/{id}"),
        ("jobs/{id:int}/rows", "jobs/{id:[0-9]+}/rows"),
        ("jobs/{id}/{action:regex(^(cancel|pause)$)}", "jobs/{id}/{action:(cancel|pause)}"),
        ("/{*rest}", r"{rest:[\s\S]*}"),
    ],
)
def test_routes_are_translated(route: str, written: str) -> None:
    assert aiohttp_route(route) == written


def test_an_unknown_route_constraint_is_named() -> None:
    with pytest.raises(LoadError, match="does not know 'datetime'"):
        aiohttp_route("jobs/{day:datetime}")


def test_the_projects_own_host_json_is_understood() -> None:
    own = options.read(Path(__file__).parents[2])
    assert own.function_timeout == 1800
    assert own.max_concurrent_calls == 32
    assert own.max_lock_renewal > own.function_timeout
    assert own.route_prefix == ""


@pytest.mark.parametrize(
    ("timespan", "seconds"), [("00:30:00", 1800), ("1.02:00:00", 93600), ("00:00:00.5", 0.5)]
)
def test_time_spans_are_dotnets(timespan: str, seconds: float) -> None:
    assert options.seconds(timespan) == seconds
    with pytest.raises(LoadError, match="not a time span"):
        options.seconds(f"{timespan}x")
