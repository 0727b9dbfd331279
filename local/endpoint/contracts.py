"""What does a request ask? Addresses of the four wire contracts, and one `Ask` for all. Pure.

Sources: the Azure AI Model Inference API (2024-05-01-preview), the OpenAI API reference, the
Azure OpenAI REST reference, and the scoring contract of Azure ML managed online endpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

Contract = Literal["model-inference", "openai", "azure-openai", "aml-score"]
Task = Literal["chat", "completions", "embeddings", "image-embeddings"]

DEFAULT_MAX_TOKENS = 256
"""What admission reckons with for a completion whose max_tokens is not said."""

_TASK_PATHS: dict[str, Task] = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/embeddings": "embeddings",
    "/images/embeddings": "image-embeddings",
}
_BASES: dict[str, Contract] = {
    "": "model-inference",
    "/models": "model-inference",  # a Foundry resource
    "/inference": "model-inference",  # models.github.ai
    "/v1": "openai",
    "/openai/v1": "openai",  # Azure OpenAI v1
}
_DEPLOYMENTS = "/openai/deployments/"
_ENDPOINTS = "/endpoints/"


class RequestError(Exception):
    """The request is at fault. Each service words and numbers it in its own way."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: `model` is the one the address names, if it names one."""

    contract: Contract
    task: Task | Literal["info", "models"]
    model: str | None = None


@dataclass(slots=True, kw_only=True)
class Ask:
    """One request. `inputs` are what each row asks: one for a chat, each text when packed.

    `prompt_tokens` are those of all, `longest_prompt` those that the model sees at once.
    """

    contract: Contract
    task: Task
    model: str
    body: Mapping[str, Any]
    prompt: object
    inputs: list[str | list[int]]
    prompt_tokens: int
    longest_prompt: int = 0
    sampling: Mapping[str, object] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    choices: int = 1
    stream: bool = False
    include_usage: bool = False
    as_json: bool = False
    schema: Mapping[str, Any] | None = None
    dimensions: int | None = None
    base64: bool = False
    user: str | None = None

    @property
    def tokens(self) -> int:
        """What admission reckons with: prompt estimate + max_tokens, for each choice asked."""
        if self.task in ("embeddings", "image-embeddings"):
            return self.prompt_tokens
        budget = DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        return self.prompt_tokens + budget * self.choices * len(self.inputs)

    @property
    def text(self) -> str:
        """All that was asked, for rules that look for a word in it."""
        return "\n".join([*texts(self.prompt), *map(str, self.inputs)])


def route(path: str) -> Route | None:
    """Tell the contract and the task from a path; None where nothing is served.

    `/endpoints/{model}` before any other path is an endpoint that serves that model alone, as a
    serverless or managed online endpoint does.
    """
    model = None
    if path.startswith(_ENDPOINTS):
        named, slash, rest = path.removeprefix(_ENDPOINTS).partition("/")
        model, path = unquote(named), slash + rest
    if path.startswith(_DEPLOYMENTS):
        named, slash, rest = path.removeprefix(_DEPLOYMENTS).partition("/")
        task = _TASK_PATHS.get(slash + rest)
        return Route("azure-openai", task, unquote(named)) if task else None
    if path == "/score":
        return Route("aml-score", "chat", model)
    if path == "/v1/models":
        return Route("openai", "models", model)
    for base, contract in _BASES.items():
        if path == f"{base}/info" and contract == "model-inference":
            return Route(contract, "info", model)
        task = _TASK_PATHS.get(path.removeprefix(base)) if path.startswith(base) else None
        if task:
            return Route(contract, task, model)
    return None


def texts(value: object) -> list[str]:
    """Every text in a message, in content parts or in a list of them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    if isinstance(value, dict):
        keys = ("content", "text", "image_url", "url")
        return [text for key in keys if key in value for text in texts(value[key])]
    return []
