"""Which service is played? Its real limits, its models and the manner of its refusals."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from .contracts import Task
from .limits import Limits

ProfileName = Literal["serverless", "github-models", "managed-online", "azure-openai", "openai"]
PROFILES: tuple[ProfileName, ...] = get_args(ProfileName)

_CHAT: frozenset[Task] = frozenset({"chat", "completions"})
_VECTORS: frozenset[Task] = frozenset({"embeddings", "image-embeddings"})


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served, what it can do, and how many tokens it takes; 0: unlimited."""

    name: str
    tasks: frozenset[Task]
    context: int = 0

    @classmethod
    def parse(cls, text: str) -> "Model":
        """Read `name` or `name:task,task`; without tasks, a name with "embed" in it embeds.

        The context is what the name says, as in `Phi-3-mini-4k-instruct`.
        """
        name, _, listed = text.partition(":")
        said = re.search(r"-(\d+)k(?:-|$)", name)
        context = 1024 * int(said[1]) if said else 0
        if not listed:
            return cls(name, _VECTORS if "embed" in name.lower() else _CHAT, context)
        wanted = frozenset(listed.split(","))
        tasks: frozenset[Task] = frozenset(task for task in get_args(Task) if task in wanted)
        if not name or len(tasks) != len(wanted):
            raise ValueError(f"model {text!r}: tasks are {', '.join(get_args(Task))}")
        return cls(name, tasks, context)


MODELS = tuple(
    map(
        Model.parse,
        (
            "Phi-3-mini-4k-instruct",
            "Phi-3-mini-128k-instruct",
            "Phi-3-small-8k-instruct",
            "Phi-3-small-128k-instruct",
            "Phi-3-medium-4k-instruct",
            "Phi-3-medium-128k-instruct",
            "simulated-embed",
        ),
    )
)
"""What every profile serves unless told otherwise; the first is the one that needs no naming."""

LIMITS: dict[ProfileName, Limits] = {
    "serverless": Limits(requests_per_minute=1_000, tokens_per_minute=200_000, window=1),
    "github-models": Limits(
        requests_per_minute=15,
        requests_per_day=150,
        max_tokens_per_request=8_000,
        max_concurrency=5,
        window=60,
    ),
    # 2 x max_concurrent_requests_per_instance x instances, each 1 unless set otherwise.
    "managed-online": Limits(max_concurrency=2),
    # Azure OpenAI grants 6 requests a minute with each 1,000 tokens a minute.
    "azure-openai": Limits(requests_per_minute=720, tokens_per_minute=120_000, window=10),
    "openai": Limits(),
}

REQUEST_TIMEOUTS: dict[ProfileName, float] = {"managed-online": 5.0}
"""Seconds after which the service itself gives a request up with 408 (request_timeout_ms)."""
