"""What does the endpoint do while all are compared, and what should each row be answered?"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.peers.programs.work import IN_FLIGHT
from benchmarks.throughput import MODEL, body, child
from local.endpoint import completion
from schemas.deployments import Deployment

REQUESTS_PER_MINUTE: Final = 3_000
LATENCY: Final = 0.2


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Answers come after 200 ms. A quota is judged second by second; 0: there is none."""

    name: str
    requests_per_minute: int = 0
    faults: Mapping[str, float] = field(default_factory=dict)

    def endpoint(self) -> AbstractContextManager[str]:
        """The simulator as a process of its own; gives its address."""
        return child(
            "local.endpoint",
            *("--profile", "serverless", "--tokens-per-minute", "0"),
            *("--requests-per-minute", str(self.requests_per_minute)),
            *("--latency", str(LATENCY), "--faults", json.dumps(dict(self.faults))),
        )

    def settings(self, url: str) -> dict[str, str]:
        """How this service is told of that endpoint: as much as its peers are."""
        deployment = Deployment(
            name="phi",
            kind="openai",
            url=f"{url}/v1",
            model=MODEL,
            auth="none",
            max_concurrency=IN_FLIGHT,
            requests_per_minute=self.requests_per_minute or None,
        )
        told = deployment.model_dump(mode="json", exclude_defaults=True)
        return {"DEPLOYMENTS": json.dumps([told])}


ALL: Final = (
    Circumstances("without limit"),
    Circumstances("50 requests a second", requests_per_minute=REQUESTS_PER_MINUTE),
    Circumstances("2% faults", faults={"http_503": 0.01, "reset_after": 0.01}),
)


def expected(row: int) -> str:
    """What the simulator answers to a row."""
    asked: dict[str, Any] = body(row)
    return completion(0, MODEL, asked["messages"], max_tokens=asked["max_tokens"]).text
