"""Is a shared quota used to the full, and hardly ever exceeded, by several real workers?

    python -m benchmarks.quota [--workers 1 2 4 8] [--seconds 243] [--kinds requests tokens]
                               [--requests 6000] [--tokens 1200000] [--kill 20] [--plot FILE]
                               [--by-second]

Each run starts storage, Service Bus, the function hosts and an endpoint that judges as Azure does:
requests in windows of one second, floored; tokens at admission, by the minute. The endpoint is a
process of its own: in the broker's it would judge calls late, many in one moment, where many hosts
begin. Quotas are 6,000 requests or 1,200,000 tokens a minute where no others are given; latencies
are log-normal around a second. With `--kill` the first worker is killed after so many seconds, and
started again. Printed: the seconds of quota that the work takes; the time from the first call to
the last in whole seconds, both counted, against the lower bound in whole seconds; the exact time,
from the first admission to the last and one call's part, against the quota; refusals and calls per
row; the most calls that came in a second beside what a second's window lets in; and Jain's index of
what the workers used of the quota. With `--by-second` also the percent of it that was used in each
second, with `--plot` a picture of that.
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from benchmarks.throughput import MODEL, child
from benchmarks.whole_job import site
from local.endpoint.answers import count_message_tokens

Kind = Literal["requests", "tokens"]
LATENCY = 1.0
LEAST, MOST_REFUSED, MOST_SENT = 0.95, 0.015, 1.02


@dataclass(frozen=True, slots=True)
class Quota:
    """What is scarce, and how much of it there is in a minute."""

    kind: Kind
    requests: int
    tokens: int

    @property
    def _limits(self) -> dict[str, int]:
        tokens = self.tokens if self.kind == "tokens" else 0
        return {"requests_per_minute": self.requests, "tokens_per_minute": tokens}

    @property
    def endpoint(self) -> list[str]:
        """The arguments of one that judges by it."""
        given = {**self._limits, "window": 1, "latency": LATENCY, "latency_sigma": 0.5}
        return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]

    def settings(self, url: str) -> dict[str, str]:
        """The settings that lead there."""
        deployment = {"name": "phi", "kind": "model-inference", "model": MODEL, "auth": "none"}
        deployment["url"] = f"{url}/endpoints/{MODEL}"
        told = {name: limit for name, limit in self._limits.items() if limit}
        return {"DEPLOYMENTS": json.dumps([deployment | told])}

    def bound(self, rows: int, tokens: int) -> float:
        """Seconds that nobody can undercut: all windows before the last are full; the last call's
        second is counted, as `Finished.calling` counts it."""
        seconds = math.ceil(rows / (self.requests // 60))
        if self.kind == "tokens":
            seconds = max(seconds, (math.ceil(tokens / self.tokens) - 1) * 60)
        return float(seconds)

    def work(self, rows: int, tokens: int) -> float:
        """Seconds of quota that the calls take: of windows, and of tokens as they come back."""
        seconds = rows / (self.requests // 60)
        return max(seconds, tokens / self.tokens * 60) if self.kind == "tokens" else seconds

    def file(self, seconds: float, rng: Random) -> list[bytes]:
        """Rows for so many seconds. Sizes are log-normal where tokens are what is scarce."""
        if self.kind == "requests":
            return [_row(_content(n, 20), 16) for n in range(int(self.requests / 60 * seconds))]
        lines: list[bytes] = []
        left = self.tokens / 60 * seconds
        while left > 0:
            words = max(10, int(min(1500, rng.lognormvariate(5.3, 0.7))))
            output = max(16, int(min(1500, rng.lognormvariate(5.0, 0.5))))
            content = _content(len(lines), words)
            lines.append(_row(content, output))
            left -= count_message_tokens([content]) + output
        return lines


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the table. `work`, `bound`, `took` and `exact` are seconds."""

    kind: Kind
    workers: int
    rows: int
    work: float
    bound: float
    took: float
    exact: float
    refused: float
    sent: float
    most: str
    fairness: float
    whole: float
    used: Sequence[float]

    @property
    def efficiency(self) -> float:
        return self.bound / self.took

    @property
    def good(self) -> bool:
        return self.efficiency >= LEAST and self.refused <= MOST_REFUSED and self.sent <= MOST_SENT


def _content(number: int, words: int) -> str:
    return f"Row {number}: " + "tell me " * (words // 2)


def _row(content: str, output: int) -> bytes:
    row = {"messages": [{"role": "user", "content": content}], "max_tokens": output}
    return json.dumps(row).encode() + b"\n"


def jain(used: Sequence[int], workers: int) -> float:
    """Jain's fairness index: 1 where all workers used the same, 1/workers where one used all."""
    return sum(used) ** 2 / (workers * sum(each * each for each in used))


async def measure(quota: Quota, workers: int, seconds: float, kill: float | None) -> Run:
    lines = quota.file(seconds, Random(1))
    async with AsyncExitStack() as opened:
        url = opened.enter_context(child("local.endpoint", "--profile=serverless", *quota.endpoint))
        led = (url, quota.settings(url))
        running = await opened.enter_async_context(site(workers, "serverless", {}, elsewhere=led))
        loop, hosts = asyncio.get_running_loop(), running.running.hosts.processes
        killing = None if kill is None else loop.call_later(kill, hosts[min(hosts)].kill)
        done = await running.do(f"quota-{quota.kind}-{workers}.jsonl", lines)
        if killing is not None:
            killing.cancel()
    stats = done.stats
    work = quota.work(len(lines), stats["tokens_admitted"])
    rejected = sum(stats["rejected"].values())
    column, each = (0, quota.requests / 60) if quota.kind == "requests" else (1, quota.tokens / 60)
    return Run(
        kind=quota.kind,
        workers=workers,
        rows=len(lines),
        work=work,
        bound=quota.bound(len(lines), stats["tokens_admitted"]),
        took=done.calling,
        exact=stats["last"] - stats["first"] + work / len(lines),
        refused=rejected / len(lines),
        sent=stats["received"] / len(lines),
        most=f"{max(let_in + refused for _, let_in, _, refused in stats['seconds'])}"
        f" of {quota.requests // 60}",
        fairness=jain([used[column] for used in stats["callers"].values()], workers),
        whole=done.whole,
        used=[used[column] / each for _, *used in sorted(stats["seconds"])],
    )


def plot(runs: Sequence[Run], path: Path) -> None:
    """Used quota over time, smoothed over ten seconds: request windows are judged one by one, but
    tokens come in sizes."""
    import matplotlib as mpl  # noqa: PLC0415 - only here, and slow to load

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    kinds = list(dict.fromkeys(run.kind for run in runs))
    figure, axes = plt.subplots(len(kinds), 1, figsize=(9, 3.2 * len(kinds)), squeeze=False)
    for axis, kind in zip(axes[:, 0], kinds, strict=True):
        for run in (each for each in runs if each.kind == kind):
            smooth = [
                statistics.mean(run.used[max(0, at - 9) : at + 1]) for at in range(len(run.used))
            ]
            axis.plot(smooth, label=f"{run.workers} worker{'s' * (run.workers > 1)}", lw=1.2)
        axis.axhline(1.0, color="grey", lw=0.8, ls="--")
        axis.set(ylim=(0, 1.1), xlabel="seconds", ylabel=f"part of the {kind} used")
        axis.legend(loc="lower center", ncols=4, fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def show(runs: Sequence[Run]) -> None:
    print(
        f"{'quota':9}{'workers':>8}{'rows':>8}{'work':>9}{'bound':>9}{'took':>9}{'bound/took':>12}"
        f"{'exact':>9}{'work/exact':>12}"
        f"{'429 a row':>11}{'calls a row':>13}{'most in a second':>18}{'Jain':>7}{'whole job':>11}"
    )
    for run in runs:
        print(
            f"{run.kind:9}{run.workers:8}{run.rows:8}{run.work:8.1f}s{run.bound:8.1f}s{run.took:8.1f}s"
            f"{run.efficiency:12.3f}{run.exact:8.2f}s{run.work / run.exact:12.3f}"
            f"{run.refused:11.4f}{run.sent:13.4f}{run.most:>18}{run.fairness:7.3f}"
            f"{run.whole:10.1f}s{'' if run.good else '  missed'}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    # Just past four whole minutes, where the bound of whole minutes is a tight one.
    parser.add_argument("--seconds", type=float, default=243.0)
    parser.add_argument("--kinds", nargs="+", default=["requests", "tokens"])
    parser.add_argument("--requests", type=int, default=6_000, help="requests a minute")
    parser.add_argument("--tokens", type=int, default=1_200_000, help="tokens a minute")
    parser.add_argument("--kill", type=float, help="seconds after which a worker is killed")
    parser.add_argument("--by-second", action="store_true", help="print the percent used in each")
    parser.add_argument("--plot", type=Path, help="where to draw the quota used over time")
    given = parser.parse_args()
    runs = []
    for kind in given.kinds:
        for workers in given.workers:
            quota = Quota(kind, given.requests, given.tokens)
            runs.append(asyncio.run(measure(quota, workers, given.seconds, given.kill)))
            show(runs[-1:])
            if given.by_second:
                print("  percent", *(round(100 * used) for used in runs[-1].used), flush=True)
    print()
    show(runs)
    if given.plot is not None:
        plot(runs, given.plot)
    return int(not all(run.good for run in runs))


if __name__ == "__main__":
    sys.exit(main())
