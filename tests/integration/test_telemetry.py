"""A job over three processes, one of which is killed, as a collector sees it."""

from pathlib import Path
from typing import Any

from local import keys
from local.collector import Collected, collector
from tests.integration import ordeal
from tests.integration.ordeal import answered, job_of, rows_of
from tests.integration.processes import Processes, listening, processes, usual_deployments
from tests.integration.user import PROMPT, User, jsonl, user_of

ROWS = 600
WORKERS = 3
KEY = "the-function-key"
NAME = "canary-of-a-name.jsonl"
METADATA = "canary of metadata"


def settings(url: str) -> dict[str, str]:
    often = {"OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, keys.SETTING: KEY}
    return {**ordeal.SETTINGS, **often, **own}


def deployments(url: str) -> list[dict[str, Any]]:
    """So few calls at once that a job takes ten seconds, however fast the machine is."""
    return [each | {"max_concurrency": 4} for each in usual_deployments(url)]


async def killed_and_followed(user: User, source: str) -> None:
    """Kill a worker of a job, which stands still until another one has its place."""
    job, hosts = await job_of(user, source), user.processes.hosts
    await user.until(lambda: answered(user) >= 100, "100 answers")
    dead, listened = hosts.processes[2], listening(user.processes.log)
    dead.kill()
    path, headers = f"/api/jobs/{job}", {keys.HEADER: KEY}
    assert (await user.ask("POST", f"{path}/pause", headers=headers))[0] == 202
    await user.until(
        lambda: hosts.processes[2] is not dead and listening(user.processes.log) > listened,
        "it is followed",
    )
    assert (await user.ask("POST", f"{path}/resume", headers=headers))[0] == 202


def check_discretion(collected: Collected, running: Processes) -> None:
    """Nothing that anybody has said, called or hidden is in what was sent."""
    told = b"\n".join(collected.raw)
    for secret in (PROMPT, "ordeal", "row-1", NAME.removesuffix(".jsonl"), METADATA, running.key):
        assert secret.encode() not in told, secret


async def test_a_job_is_one_trace_over_three_processes_and_a_crash(tmp_path: Path) -> None:
    with collector() as receiving:
        running = processes(
            tmp_path,
            workers=WORKERS,
            simulator=ordeal.SIMULATOR,
            deployments=deployments,
            settings=settings(receiving.url),
            config=ordeal.config(),
        )
        async with user_of(running) as user:
            await user.drop(NAME, jsonl(rows_of(ROWS)), {"metadata": {"project": METADATA}})
            await killed_and_followed(user, f"prompts/{NAME}")
            ended = (await user.job(f"prompts/{NAME}", seconds=200)).status
            (await user.results(ended)).check(ROWS)
            traceparents = {told.event.traceparent for told in user.told}
        collected = receiving.collected
        check_discretion(collected, user.processes)

    spans = [span for span in collected.spans if span.attributes.get("batch.job.id") == ended.job]
    (job,) = [span for span in spans if span.name == "job"]
    trace = [span for span in collected.spans if span.trace == job.trace]
    assert {span.trace for span in spans} == {job.trace}
    # One root, and whatever else there is, the calls that failed in a shard too, hangs on it.
    ids = {span.id for span in trace}
    assert len(ids) == len(trace)
    assert [span.name for span in trace if span.parent not in ids] == ["job"]
    assert job.parent == ""
    assert traceparents == {f"00-{job.trace}-{job.id}-01"}

    shards = [span for span in trace if span.name == "process shards"]
    assert {span.parent for span in shards} == {job.id}
    ends = [span.attributes["batch.attempt.end"] for span in shards]
    assert ends.count("crashed") > 0
    assert len({span.attributes["batch.shard"] for span in shards}) == ends.count("done")
    assert len({span.process for span in shards}) >= WORKERS
    late = [
        (span.began - job.began, span.ended - job.ended, span.attributes)
        for span in shards
        if not job.began <= span.began <= span.ended <= job.ended + 2
    ]
    assert late == []
    names = {span.name for span in trace}
    assert {"send jobs", "process jobs", "plan", "send job-status"} <= names

    # What the killed one had counted and not told yet is lost: the manifest knows.
    assert ROWS / 2 < collected.sums("batch.rows", batch__outcome="succeeded") <= ROWS
    assert collected.sums("batch.shards.attempts", batch__attempt__end="crashed") == ends.count(
        "crashed"
    )
    for name in ("batch.calls", "batch.call.wait", "batch.queue.delay", "batch.journal.lag"):
        assert collected.sums(name) > 0, name
    for name in ("batch.calls.in_flight", "batch.event_loop.lag", "batch.shards.active"):
        assert collected.told(name), name
