"""A client of the doors under /v1, over the in-memory service."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from schemas.access import ApiKey
from tests.doubles.service import MODEL, Bench
from workers.api.http import AnyReply, HttpCall

KEYS = tuple(
    ApiKey(name=name, tenant=tenant, sha256=hashlib.sha256(name.encode()).hexdigest())
    for name, tenant in (("app", "default"), ("app-2", "default"), ("blue", "blue"))
)
CHAT = "/v1/chat/completions"


def rows(count: int, url: str = CHAT, model: str = MODEL) -> bytes:
    """Batch rows, each with a prompt of its own."""
    lines = (
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": url,
            "body": {"model": model, "messages": [{"role": "user", "content": f"p{number}"}]},
        }
        for number in range(count)
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class Client:
    """Somebody with a key, whose name is the key."""

    def __init__(self, service: Bench, key: str = "app") -> None:
        self._service = service
        self._key = key

    async def call(
        self,
        method: str,
        path: str,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> AnyReply:
        """A call as it comes from the host."""
        given = {
            "authorization": f"Bearer {self._key}",
            "content-length": str(len(data)),
            **(headers or {}),
        }
        return await self._service.openai.answer(HttpCall(method, path, query, given, data))

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> tuple[int, Any]:
        """Status and JSON of a call with a JSON body."""
        data = b"" if body is None else json.dumps(body).encode()
        reply = await self.call(method, path, data, headers, **query)
        return reply.code, json.loads(reply.data)

    async def upload(
        self, data: bytes, filename: str = "in.jsonl", purpose: str = "batch", **fields: str
    ) -> Any:
        """An uploaded file."""
        status, told = await self.try_upload(data, filename, purpose, **fields)
        assert status == 200, told
        return told

    async def try_upload(
        self, data: bytes, filename: str = "in.jsonl", purpose: str = "batch", **fields: str
    ) -> tuple[int, Any]:
        """Status and JSON of an upload."""
        given = {"purpose": purpose, **fields}
        parts = [
            f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in given.items()
        ]
        head = f'--B\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
        body = b"".join([*parts, head.encode(), data, b"\r\n--B--\r\n"])
        headers = {"content-type": "multipart/form-data; boundary=B"}
        reply = await self.call("POST", "/v1/files", body, headers)
        return reply.code, json.loads(reply.data)

    async def create(self, file_id: str, endpoint: str = CHAT, **fields: Any) -> Any:
        """A batch of an uploaded file."""
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
        status, told = await self.ask("POST", "/v1/batches", body | fields)
        assert status == 200, told
        return told

    async def batch(self, batch_id: str) -> Any:
        """A batch as it stands."""
        status, told = await self.ask("GET", f"/v1/batches/{batch_id}")
        assert status == 200, told
        return told

    async def run(self, data: bytes, **fields: Any) -> Any:
        """The batch of a file, at its end."""
        file = await self.upload(data)
        batch = await self.create(file["id"], **fields)
        await self._service.settle()
        return await self.batch(batch["id"])

    async def content(self, file_id: str) -> bytes:
        """The bytes of a file."""
        reply = await self.call("GET", f"/v1/files/{file_id}/content")
        assert reply.code == 200, reply.data
        return reply.data
