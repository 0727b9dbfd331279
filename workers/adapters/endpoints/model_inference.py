"""The Azure AI Model Inference API: serverless and managed online endpoints, GitHub Models.

Source: the REST reference, version 2024-05-01-preview. The client is azure-ai-inference.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from schemas.deployments import Deployment, Task
from workers.adapters.endpoints.openai import COGNITIVE_SERVICES, PATHS
from workers.ports import EndpointInfo

API_VERSION = "2024-05-01-preview"

MACHINE_LEARNING = "https://ml.azure.com/.default"

_AZURE_AI_HOSTS = (".services.ai.azure.com", ".openai.azure.com", ".cognitiveservices.azure.com")

_TASKS_OF_TYPE: dict[str, tuple[Task, ...]] = {
    "chat_completion": ("chat", "completions"),
    "chat_completions": ("chat", "completions"),
    "chat": ("chat", "completions"),
    "completion": ("chat", "completions"),
    "text_generation": ("completions",),
    # What a model of texts and images says of itself as well (Cohere Embed v3).
    "embedding": ("embeddings", "image-embeddings"),
    "embeddings": ("embeddings", "image-embeddings"),
    "text_embedding": ("embeddings",),
    "text_embeddings": ("embeddings",),
    "image_embedding": ("image-embeddings", "embeddings"),
    "image_embeddings": ("image-embeddings", "embeddings"),
}


class ModelInference:
    """A `model-inference` deployment; its `url` is the target to which paths are appended."""

    headers: Mapping[str, str] = {"extra-parameters": "pass-through"}

    def __init__(self, deployment: Deployment) -> None:
        query = f"?api-version={deployment.api_version or API_VERSION}"
        paths = PATHS | {"image-embeddings": "/images/embeddings"}
        host = urlsplit(deployment.url).hostname or ""
        self._model = deployment.model
        self._urls = {task: f"{deployment.url}{path}{query}" for task, path in paths.items()}
        self.info_url: str | None = f"{deployment.url}/info{query}"
        self.scope = COGNITIVE_SERVICES if host.endswith(_AZURE_AI_HOSTS) else MACHINE_LEARNING

    def key_headers(self, key: str) -> Mapping[str, str]:
        """Both headers, as azure-ai-inference sends them: services differ in which they read."""
        return {"Authorization": f"Bearer {key}", "api-key": key}

    def url(self, task: Task) -> str | None:
        """The URL of a task: target, path and version."""
        return self._urls.get(task)

    def encode(self, task: Task, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body as it is, for the deployment's own model."""
        return {**body, "model": self._model}

    def decode(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer is in OpenAI's shape already."""
        return answer

    def read_info(self, answer: Any) -> EndpointInfo | None:
        """`GET /info`: model_name, model_type (spelled in many ways), model_provider_name."""
        if not isinstance(answer, dict) or not isinstance(answer.get("model_name"), str):
            return None
        kind = str(answer.get("model_type", "")).lower().replace("-", "_").replace(" ", "_")
        provider = answer.get("model_provider_name")
        # An endpoint of many models describes one of them: that says nothing about another.
        own = _plain(answer["model_name"]) == _plain(self._model)
        return EndpointInfo(
            model=answer["model_name"],
            provider=provider if isinstance(provider, str) else None,
            tasks=_TASKS_OF_TYPE.get(kind) if own else None,
        )


def _plain(model: str) -> str:
    """A model's name without publisher, case and punctuation, which services spell at will."""
    return "".join(filter(str.isalnum, model.rpartition("/")[2].casefold()))
