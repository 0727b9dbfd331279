"""Plain OpenAI: vLLM, llama.cpp server, Ollama, Foundry Local, `transformers serve`, Azure v1.

Source: the OpenAI API reference; Azure OpenAI's v1 API is the same contract.
"""

from collections.abc import Mapping
from typing import Any

from schemas.deployments import Deployment, Task
from workers.ports import EndpointInfo

COGNITIVE_SERVICES = "https://cognitiveservices.azure.com/.default"

PATHS: dict[Task, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}


class OpenAI:
    """An `openai` deployment; its `url` is the base to which `/chat/completions` is appended."""

    scope = COGNITIVE_SERVICES
    headers: Mapping[str, str] = {}

    def __init__(self, deployment: Deployment) -> None:
        self._model = deployment.model
        self._urls = {task: deployment.url + path for task, path in PATHS.items()}
        self.info_url: str | None = f"{deployment.url}/models"

    def key_headers(self, key: str) -> Mapping[str, str]:
        """The header `Authorization: Bearer`."""
        return {"Authorization": f"Bearer {key}"}

    def url(self, task: Task) -> str | None:
        """The URL of a task: base and path."""
        return self._urls.get(task)

    def encode(self, task: Task, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body as it is, for the deployment's own model."""
        return {**body, "model": self._model}

    def decode(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer is in OpenAI's shape already."""
        return answer

    def read_info(self, answer: Any) -> EndpointInfo | None:
        """The model of `GET /models`, whose id may carry a revision (`name@main`)."""
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            return None
        ids = [each["id"] for each in data if isinstance(each, dict) and "id" in each]
        names = [name for name in ids if isinstance(name, str)]
        own = [name for name in names if name.partition("@")[0] == self._model.partition("@")[0]]
        return EndpointInfo(model=self._model if own else (names[0] if len(names) == 1 else None))
