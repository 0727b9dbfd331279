"""What a program that uses the `openai` package does, and what it has to come to.

    python probes.py URL KEY OTHER_KEY MODEL [--large] [--async]

URL is the base of the doors without `/v1`; the keys are those of two tenants. The script needs the
SDK and nothing else; it prints a line for each probe and ends with 1 where one has failed.
"""

import argparse
import asyncio
import hashlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

sys.path.insert(0, str(Path(__file__).parent))
from relay import Relay
from waiting import Waiting

CHAT: Any = "/v1/chat/completions"
MIB = 1024 * 1024
SECONDS = 120


class Pipe(io.BytesIO):
    """A stream whose length nobody can tell."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


class Probes:
    """All probes against one running service."""

    def __init__(
        self, url: str, key: str, other: str, model: str, *, large: bool, in_loop: bool
    ) -> None:
        self.url, self.key, self.model, self.large = url, key, model, large
        self.in_loop = in_loop
        self.client = self.openai(f"{url}/v1")
        self.other = self.openai(f"{url}/v1", other)

    # -- what the probes have in common

    def openai(self, base_url: str, key: str | None = None, **more: Any) -> Any:
        """A client, of the kind that is probed."""
        given: Any = {"base_url": base_url, "api_key": key or self.key, **more}
        return Waiting(AsyncOpenAI(**given)) if self.in_loop else OpenAI(**given)

    def azure(self) -> Any:
        given: Any = {"azure_endpoint": self.url, "api_key": self.key}
        given["api_version"] = "2024-10-21"
        return Waiting(AsyncAzureOpenAI(**given)) if self.in_loop else AzureOpenAI(**given)

    def row(self, name: str, url: str = CHAT, **body: Any) -> bytes:
        full = {
            "model": self.model,
            "messages": [{"role": "user", "content": f"probe {name}"}],
            "max_tokens": 4,
            **body,
        }
        line = {"custom_id": name, "method": "POST", "url": url, "body": full}
        return json.dumps(line).encode() + b"\n"

    def rows(self, count: int, url: str = CHAT) -> bytes:
        return b"".join(self.row(f"r{number}", url) for number in range(count))

    def upload(self, data: bytes, purpose: Any = "batch") -> Any:
        return self.client.files.create(file=("in.jsonl", data), purpose=purpose)

    def create(self, file: Any, client: Any = None, endpoint: Any = CHAT, **more: Any) -> Any:
        return (client or self.client).batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
        )

    def ended(self, batch: Any, client: Any = None) -> Any:
        """The batch at its end."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            now = (client or self.client).batches.retrieve(batch.id)
            if now.status in ("completed", "failed", "expired", "cancelled"):
                return now
            time.sleep(0.2)
        raise AssertionError(f"not ended within {SECONDS} s: {now}")

    def run(self, data: bytes, **more: Any) -> Any:
        return self.ended(self.create(self.upload(data), **more))

    def lines(self, file_id: str | None) -> list[Any]:
        if file_id is None:
            return []
        text = self.client.files.content(file_id).text
        return [json.loads(line) for line in text.splitlines()]

    # -- the probes

    def probe_01_a_file_goes_through(self) -> None:
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
            file.write(self.rows(5))
            file.flush()
            with open(file.name, "rb") as handle:
                uploaded = self.client.files.create(file=handle, purpose="batch")
        done = self.ended(self.create(uploaded))
        assert done.status == "completed", done
        names = [line["custom_id"] for line in self.lines(done.output_file_id)]
        assert names == [f"r{number}" for number in range(5)]

    def probe_02_the_same_in_an_event_loop(self) -> None:
        async def go() -> Any:
            async with AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key) as client:
                file = await client.files.create(file=("a.jsonl", self.rows(3)), purpose="batch")
                batch = await client.batches.create(
                    input_file_id=file.id, endpoint=CHAT, completion_window="24h"
                )
                while batch.status in ("validating", "in_progress", "finalizing"):
                    await asyncio.sleep(0.2)
                    batch = await client.batches.retrieve(batch.id)
                assert batch.output_file_id is not None, batch
                listed = [each.id async for each in await client.batches.list(limit=1)][:1]
                assert listed == [batch.id]
                return (await client.files.content(batch.output_file_id)).text

        assert len(asyncio.run(go()).splitlines()) == 3

    def probe_03_azures_client(self) -> None:
        azure = self.azure()
        file = azure.files.create(
            file=("a.jsonl", self.rows(2, "/chat/completions")), purpose="batch"
        )
        done = self.ended(self.create(file, azure, "/chat/completions"), azure)
        assert done.status == "completed", done
        assert len(azure.files.content(done.output_file_id).text.splitlines()) == 2
        with self.openai(f"{self.url}/openai/v1") as newer:
            assert newer.batches.retrieve(done.id).id == done.id

    def probe_04_names_and_bytes_are_kept(self) -> None:
        data = bytes(range(256)) + b"\r\n--\r\n"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'é".jsonl'
            path.write_bytes(data)
            given: list[tuple[Any, str]] = [
                (data, "upload"),
                (path, 'é".jsonl'),
                (("named.jsonl", data), "named.jsonl"),
                (("é 日.jsonl", io.BytesIO(data)), "é 日.jsonl"),
            ]
            for file, name in given:
                made = self.client.files.create(file=file, purpose="batch")
                assert (made.filename, made.bytes) == (name, len(data)), made
                assert self.client.files.content(made.id).content == data

    def probe_05_a_pipe_is_told_of_uploads(self) -> None:
        error = refused(
            openai.APIStatusError,
            lambda: self.client.files.create(file=("a.jsonl", Pipe(self.rows(1))), purpose="batch"),
        )
        assert error.status_code == 411, error
        assert "uploads" in str(error)

    def probe_06_a_file_of_nothing(self) -> None:
        file = self.upload(b"")
        assert file.bytes == 0
        done = self.ended(self.create(file))
        assert (done.status, done.errors.data[0].code) == ("failed", "empty_file"), done

    def probe_07_a_file_of_another_purpose(self) -> None:
        file = self.upload(self.rows(1), "fine-tune")
        error = refused(openai.BadRequestError, lambda: self.create(file))
        assert error.param == "input_file_id"

    def probe_08_broken_json_is_named_by_its_line(self) -> None:
        done = self.run(self.row("a") + b"{\n")
        wrong = done.errors.data[0]
        assert (done.status, wrong.code, wrong.line) == ("failed", "invalid_json_line", 2), done
        assert done.request_counts.completed == 0

    def probe_09_a_row_for_another_endpoint(self) -> None:
        done = self.run(self.row("a") + self.row("b", "/v1/embeddings", input="x"))
        wrong = done.errors.data[0]
        assert (done.status, wrong.code, wrong.line) == ("failed", "invalid_url", 2), done

    def probe_10_an_unknown_endpoint(self) -> None:
        file = self.upload(self.rows(1))
        error = refused(openai.BadRequestError, lambda: self.create(file, endpoint="/v1/nope"))
        assert (error.code, error.param) == ("invalid_value", "endpoint"), error

    def probe_11_models_and_ids(self) -> None:
        done = self.run(self.row("a", model="gpt-9"))
        assert done.errors.data[0].code == "model_not_found", done
        done = self.run(self.row("a") + self.row("a"))
        wrong = done.errors.data[0]
        assert (wrong.code, wrong.line) == ("duplicate_custom_id", 2), done

    def probe_12_metadata(self) -> None:
        file = self.upload(self.rows(1))
        for metadata in ({"a": "x" * 513}, {str(number): "" for number in range(17)}):
            refused(
                openai.BadRequestError,
                partial(self.create, file, metadata=metadata),
            )

    def probe_13_a_file_deleted_while_it_is_read(self) -> None:
        file = self.upload(self.rows(20))
        batch = self.create(file)
        assert self.client.files.delete(file.id).deleted
        refused(openai.NotFoundError, lambda: self.client.files.retrieve(file.id))
        assert self.ended(batch).status == "completed"

    def probe_14_a_cancel(self) -> None:
        batch = self.create(self.upload(self.rows(200)))
        status = self.client.batches.cancel(batch.id).status
        assert status in ("cancelling", "cancelled"), status
        assert self.client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
        done = self.ended(batch)
        assert (done.status, done.request_counts.total) == ("cancelled", 200), done
        both = [*self.lines(done.output_file_id), *self.lines(done.error_file_id)]
        assert len(both) == 200

    def probe_15_a_cancel_too_late(self) -> None:
        done = self.run(self.rows(1))
        with Relay(self.url) as relay:
            client = self.openai(f"{relay.url}/v1")
            refused(openai.ConflictError, lambda: client.batches.cancel(done.id))
            assert len(relay.seen) == 1

    def probe_16_pages(self) -> None:
        file = self.upload(self.rows(1))
        made = [self.create(file).id for _ in range(101 if self.large else 9)]
        found = [batch.id for batch in self.client.batches.list(limit=7)]
        assert found[: len(made)] == made[::-1]
        assert len(set(found)) == len(found)
        with_files = [each.id for each in self.client.files.list(limit=3)]
        assert len(set(with_files)) == len(with_files) >= 2

    def probe_17_wrong_pages(self) -> None:
        assert self.client.batches.list(limit=0).data == []
        for query in ({"limit": 101}, {"limit": -1}, {"after": "batch_nothing"}):
            refused(
                openai.BadRequestError,
                partial(self.client.batches.list, **query),
            )

    def probe_18_an_upload_in_parts(self) -> None:
        size = 250 * MIB if self.large else 20 * MIB
        line = self.row("filler", max_tokens=1, user="x" * 60_000)
        data = line * (size // len(line))
        uploads = self.client.uploads
        if not hasattr(uploads, "upload_file_chunked"):
            return
        done = uploads.upload_file_chunked(
            file=data,
            filename="big.jsonl",
            bytes=len(data),
            mime_type="application/jsonl",
            purpose="batch",
            part_size=64 * MIB if self.large else 4 * MIB,
            md5=hashlib.md5(data).hexdigest(),
        )
        assert (done.status, done.file.bytes) == ("completed", len(data)), done
        digest = hashlib.sha256()
        with self.client.files.with_streaming_response.content(done.file.id) as answer:
            for piece in answer.iter_bytes():
                digest.update(piece)
        assert digest.digest() == hashlib.sha256(data).digest()

    def _begun(self, size: int) -> Any:
        return self.client.uploads.create(
            bytes=size, filename="a.jsonl", mime_type="text/plain", purpose="batch"
        )

    def probe_19_parts_that_do_not_add_up(self) -> None:
        uploads = self.client.uploads
        one, two = self._begun(4), self._begun(4)
        mine = uploads.parts.create(one.id, data=b"abcd").id
        theirs = uploads.parts.create(two.id, data=b"abcd").id
        for ids in ([], [theirs], [mine, mine], ["part_x"]):
            refused(
                openai.BadRequestError,
                partial(uploads.complete, one.id, part_ids=ids),
            )
        refused(
            openai.BadRequestError,
            lambda: uploads.complete(one.id, part_ids=[mine], md5="0" * 32),
        )
        refused(openai.NotFoundError, lambda: self.client.files.retrieve(file_of(one)))

    def probe_20_parts_too_late(self) -> None:
        uploads = self.client.uploads
        done, cancelled = self._begun(1), self._begun(1)
        only = uploads.parts.create(done.id, data=b"x").id
        first = uploads.complete(done.id, part_ids=[only])
        assert uploads.complete(done.id, part_ids=[only]).file.id == first.file.id
        assert uploads.cancel(cancelled.id).status == "cancelled"
        for each in (done, cancelled):
            refused(
                openai.BadRequestError,
                partial(uploads.parts.create, each.id, data=b"x"),
            )

    def probe_21_a_file_too_large_for_one_piece(self) -> None:
        with Relay(self.url) as relay:
            client = self.openai(f"{relay.url}/v1")
            data = bytes(101 * MIB)
            error = refused(
                openai.APIStatusError,
                lambda: client.files.create(file=("a.jsonl", data), purpose="batch"),
            )
            assert error.status_code == 413, error
            assert len(relay.seen) == 1

    def probe_22_a_large_content_comes_from_storage(self) -> None:
        data = os.urandom(33 * MIB)
        file = self.upload(data)
        relays: list[Relay] = []

        def through(link: str) -> str:
            host = link.split("/")[2]
            relay = Relay(f"http://{host}")
            relays.append(relay.__enter__())
            return link.replace(f"http://{host}", relay.url)

        with Relay(self.url, through) as front:
            client = self.openai(f"{front.url}/v1")
            assert client.files.content(file.id).content == data
        [storage] = relays
        [(method, _, headers)] = storage.seen
        assert method == "GET"
        assert "authorization" not in headers
        assert "cookie" not in headers
        storage.__exit__(None, None, None)

    def probe_23_wrong_keys(self) -> None:
        for key in ("wrong", "Bearer", self.key[:-1]):
            client = self.openai(f"{self.url}/v1", key, max_retries=0)
            error = refused(openai.AuthenticationError, client.models.list)
            assert error.code == "invalid_api_key"
            assert error.request_id.startswith("req_")

    def probe_24_another_tenant(self) -> None:
        file = self.upload(self.rows(1))
        done = self.ended(self.create(file))
        upload = self._begun(1)
        other = self.other
        for ask in (
            lambda: other.files.retrieve(file.id),
            lambda: other.files.content(file.id),
            lambda: other.files.delete(file.id),
            lambda: other.files.content(done.output_file_id),
            lambda: other.batches.retrieve(done.id),
            lambda: other.batches.cancel(done.id),
            lambda: other.uploads.parts.create(upload.id, data=b"x"),
            lambda: other.uploads.complete(upload.id, part_ids=[]),
            lambda: other.uploads.cancel(upload.id),
        ):
            refused(openai.NotFoundError, ask)
        refused(openai.BadRequestError, lambda: other.batches.list(after=done.id))
        refused(openai.BadRequestError, lambda: self.create(file, other))
        assert [*other.batches.list(), *other.files.list()] == []

    def probe_25_a_lost_answer(self) -> None:
        file = self.upload(self.rows(1))
        before = {each.id for each in self.client.batches.list()}
        with Relay(self.url) as relay:
            relay.lose = 1
            client = self.openai(f"{relay.url}/v1")
            batch = self.create(file, client)
            assert len(relay.seen) == 2
        made = {each.id for each in self.client.batches.list()} - before
        assert made == {batch.id}
        done = self.run(self.row("a", model="gpt-9"), extra_body={"phi3": {"on_invalid": "skip"}})
        assert (done.status, done.output_file_id) == ("completed", None), done
        assert len(self.lines(done.error_file_id)) == 1


def refused(kind: type[Any], ask: Callable[[], Any]) -> Any:
    """The error that a call ends in."""
    try:
        answer = ask()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {answer!r:.200}")


def file_of(upload: Any) -> str:
    return str(upload.id).replace("upload_", "file-")


def main() -> int:
    """0 where every probe came to what it has to."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "key", "other", "model"):
        parser.add_argument(name)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--async", dest="in_loop", action="store_true")
    given = parser.parse_args()
    probes = Probes(**vars(given))
    print(f"openai {openai.__version__}", flush=True)
    failed = 0
    for name in sorted(name for name in dir(probes) if name.startswith("probe_")):
        began = time.monotonic()
        try:
            getattr(probes, name)()
        except Exception:  # noqa: BLE001 - whatever goes wrong is told, and the next one tried
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok {name} {time.monotonic() - began:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
