"""Azure OpenAI's deployments API: the deployment stands in the path, the version in the query.

Source: the Azure OpenAI REST API reference (data plane, 2024-10-21).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from schemas.deployments import Deployment, Task
from workers.adapters.endpoints.openai import COGNITIVE_SERVICES, PATHS
from workers.ports import EndpointInfo

API_VERSION = "2024-10-21"


class AzureOpenAI:
    """An `azure-openai` deployment: `url` is the resource, `model` the deployment's name."""

    scope = COGNITIVE_SERVICES
    headers: Mapping[str, str] = {}
    info_url: str | None = None  # the data plane lists base models, never deployments

    def __init__(self, deployment: Deployment) -> None:
        base = f"{deployment.url}/openai/deployments/{quote(deployment.model, safe='')}"
        query = f"?api-version={deployment.api_version or API_VERSION}"
        self._urls = {task: f"{base}{path}{query}" for task, path in PATHS.items()}

    def key_headers(self, key: str) -> Mapping[str, str]:
        """The header `api-key`."""
        return {"api-key": key}

    def url(self, task: Task) -> str | None:
        """The URL of a task: resource, deployment, path and version."""
        return self._urls.get(task)

    def encode(self, task: Task, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body without `model`: the path names the deployment."""
        return {name: value for name, value in body.items() if name != "model"}

    def decode(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer is in OpenAI's shape already."""
        return answer

    def read_info(self, answer: Any) -> EndpointInfo | None:
        """Return None, as the contract has no address that tells of the model."""
        return None
