"""The scoring contract of Azure ML managed online endpoints: one prompt in, one text out.

Source: the scoring script of the Phi-3 models in the Azure ML catalogue. There is no streaming,
no `usage`, and no word on why the text ended.
"""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from schemas.deployments import Deployment, Task
from workers.adapters.endpoints.contract import Unsupported
from workers.adapters.endpoints.model_inference import MACHINE_LEARNING
from workers.ports import EndpointInfo

_NOT_SENT = frozenset({"model", "messages", "stream", "stream_options", "n"})
_LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_new_tokens"})


class AmlScore:
    """An `aml-score` deployment; its `url` is the whole scoring URL."""

    scope = MACHINE_LEARNING
    headers: Mapping[str, str] = {}
    info_url: str | None = None

    def __init__(self, deployment: Deployment) -> None:
        self._url = deployment.url
        self._model = deployment.model

    def key_headers(self, key: str) -> Mapping[str, str]:
        """The header `Authorization: Bearer`."""
        return {"Authorization": f"Bearer {key}"}

    def url(self, task: Task) -> str | None:
        """The scoring URL, for chat only."""
        return self._url if task == "chat" else None

    def encode(self, task: Task, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """`messages` become `input_string`; each parameter goes along, the answer's limit renamed.

        Of several limits the last one is sent: a row's own stands behind its job's.
        """
        if body.get("n") not in (None, 1):
            raise Unsupported("the scoring contract gives one answer a call: drop n")
        parameters = {n: v for n, v in body.items() if n not in _NOT_SENT | _LIMITS}
        limits = [v for n, v in body.items() if n in _LIMITS and v is not None]
        if limits:
            parameters["max_new_tokens"] = limits[-1]
        return {"input_data": {"input_string": body.get("messages"), "parameters": parameters}}

    def decode(self, answer: dict[str, Any]) -> dict[str, Any]:
        """A chat.completion around `output`; `usage` only if the script gives one."""
        if not isinstance(answer.get("output"), str):
            return answer
        message = {"role": "assistant", "content": answer["output"]}
        completion: dict[str, Any] = {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._model,
            "choices": [
                {"index": 0, "message": message, "finish_reason": answer.get("finish_reason")}
            ],
        }
        return completion | ({"usage": answer["usage"]} if "usage" in answer else {})

    def read_info(self, answer: Any) -> EndpointInfo | None:
        """Return None, as the contract has no address that tells of the model."""
        return None
