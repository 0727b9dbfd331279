"""What users do with files, uploads and batches, and what they hold against each answer."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.api.client import CHAT
from tests.api.test_uploads import add, complete
from tests.api.worlds.network import Network, NoAnswer, Program, now
from tests.api.worlds.records import SLACK, KnownBatch, KnownFile, KnownUpload, Records
from tests.doubles.service import MODEL

PAUSES = (0.0, 0.0, 0.3, 2.0, 20.0, 200.0, 1500.0, 3700.0)
KEPT = 3600
PENDING, REMEMBERED = 3600.0, 86400.0


def lines(tag: str, count: int) -> bytes:
    """Requests that nobody else's file holds."""
    found = []
    for number in range(count):
        messages = [{"role": "user", "content": f"{tag} {number}"}]
        row = {"custom_id": f"{tag}-{number}", "url": CHAT}
        found.append(json.dumps(row | {"body": {"model": MODEL, "messages": messages}}) + "\n")
    return "".join(found).encode()


class User:
    """One program of a tenant. `others` are the records of the other tenant."""

    def __init__(self, network: Network, records: Records, others: Records) -> None:
        self._network = network
        self._rng = network.rng
        self._records = records
        self._others = others
        self._program = Program(network, records.key)

    async def live(self, actions: int) -> None:
        """Do so many things, one after the other."""
        weights: dict[Callable[[], Awaitable[None]], int] = {
            self.upload: 4,
            self.begin_upload: 3,
            self.complete_again: 2,
            self.cancel_upload: 1,
            self.create: 6,
            self.cancel: 1,
            self.delete: 3,
            self.delete_result: 1,
            self.list_files: 2,
            self.list_batches: 2,
            self.read: 2,
            self.pry: 2,
        }
        for _ in range(actions):
            [action] = self._rng.choices([*weights], [*weights.values()])
            try:
                await action()
            except NoAnswer:
                continue
            await asyncio.sleep(self._rng.choice(PAUSES))

    def _serial(self) -> str:
        return f"{self._records.key}-{self._rng.getrandbits(40):x}"

    def _some_file(self) -> KnownFile | None:
        return self._rng.choice(self._records.files) if self._records.files else None

    # -- files

    async def upload(self) -> None:
        data = lines(self._serial(), self._rng.randint(1, 3))
        kept = self._rng.random() < 0.2
        fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(KEPT)}
        self._records.sent.append(data)
        status, told = await self._program.try_upload(data, **(fields if kept else {}))
        self._records.check(status == 200, f"an upload was answered by {status} {told}")
        self._records.files.append(KnownFile(told["id"], data, expires=told["expires_at"]))

    async def read(self) -> None:
        if (file := self._some_file()) is None:
            return
        before = file.stands(now())
        reply = await self._program.call("GET", f"/v1/files/{file.id}/content")
        after = file.stands(now())
        if before == "gone":
            self._records.check(reply.code == 404, f"{file.id} is read though it is gone")
        if after == "there":
            self._records.check(reply.data == file.data, f"{file.id} is read as {reply.code}")

    async def delete(self) -> None:
        if (file := self._some_file()) is None:
            return
        stood = file.stands(now())
        file.standing = "gone" if stood == "gone" else "perhaps"
        status, told = await self._program.ask("DELETE", f"/v1/files/{file.id}")
        # What the SDK asks again after a lost answer finds nothing more.
        known = status == 200 or stood != "there" or self._program.repeated
        self._records.check(known and status in (200, 404), f"a delete came to {status} {told}")
        file.standing = "gone"

    async def list_files(self) -> None:
        before = {each.id: each.stands(now()) for each in self._records.files}
        order = self._rng.choice(["asc", "desc"])
        pages = await self._pages("/v1/files", order=order)
        if pages is None:
            return
        found = [each["id"] for each in pages]
        self._check_page(found, {one for one, stood in before.items() if stood == "gone"})
        for file in self._records.files:
            if before.get(file.id) == "there" == file.stands(now()):
                self._records.check(file.id in found, f"{file.id} is missing in a list")

    def _check_page(self, found: list[str], gone: set[str]) -> None:
        theirs = {each.id for each in self._others.files}
        theirs |= {each.id for each in self._others.batches if each.id is not None}
        self._records.check(len(found) == len(set(found)), f"a list names one twice: {found}")
        self._records.check(not gone & set(found), f"a list names what is gone: {gone}")
        self._records.check(not theirs & set(found), "a list names what is another tenant's")

    async def _pages(self, path: str, **query: str) -> list[Any] | None:
        """All that a list names, page by page; None where its place was deleted meanwhile."""
        found: list[Any] = []
        query["limit"] = str(self._rng.randint(1, 4))
        while True:
            status, told = await self._program.ask("GET", path, None, None, **query)
            if status == 400 and "after" in query:
                file = self._records.file(query["after"])
                lost = file is None or file.stands(now()) != "there"
                self._records.check(lost and "files" in path, f"a page is refused: {told}")
                return None
            self._records.check(status == 200, f"a page is answered by {status}")
            found += told["data"]
            if not told["has_more"]:
                return found
            query["after"] = told["last_id"]

    # -- uploads

    async def begin_upload(self) -> None:
        data = lines(self._serial(), self._rng.randint(1, 3))
        body = {"bytes": len(data), "filename": "a.jsonl", "mime_type": "a/b", "purpose": "batch"}
        status, told = await self._program.ask("POST", "/v1/uploads", body)
        self._records.check(status == 200, f"an upload was answered by {status} {told}")
        spoiled = self._rng.random() < 0.15
        digest = hashlib.md5(b"other" if spoiled else data).hexdigest()
        upload = KnownUpload(told["id"], data, digest, spoiled=spoiled, begun=now())
        cut = self._rng.randint(0, len(data))
        for piece in (data[:cut], data[cut:]):
            for _ in range(self._rng.choice([1, 1, 2])):  # an orphan is as good as none
                status, part = await add(self._program, {"id": upload.id}, piece)
                self._records.check(status == 200, f"a part was answered by {status} {part}")
            upload.parts.append(part["id"])
        self._records.uploads.append(upload)
        if self._rng.random() < 0.8:
            await self._complete(upload)

    async def complete_again(self) -> None:
        if self._records.uploads:
            await self._complete(self._rng.choice(self._records.uploads))

    async def _complete(self, upload: KnownUpload) -> None:
        if not upload.spoiled:
            self._records.sent.append(upload.data)
        upload.asked = True
        fields = {"md5": upload.md5} if upload.spoiled or self._rng.random() < 0.5 else {}
        gone = upload.file is not None and upload.file.standing == "gone"
        status, told = await complete(self._program, {"id": upload.id}, *upload.parts, **fields)
        if status == 200:
            self._completed(upload, told["file"], gone)
            return
        stands = upload.file is not None and upload.file.standing == "there"
        self._records.check(
            not stands or now() > upload.begun + REMEMBERED, f"completed, and then {status} {told}"
        )
        late = now() > upload.begun + PENDING - SLACK
        expected = upload.spoiled or upload.cancelled != "there" or late or upload.file is not None
        self._records.check(expected, f"{upload.id} cannot be completed: {status} {told}")

    def _completed(self, upload: KnownUpload, told: Any, gone: bool) -> None:
        self._records.check(not upload.spoiled, "a file has another md5, and stands")
        self._records.check(upload.cancelled != "gone", "an upload is cancelled and completed")
        self._records.check(not gone, f"{upload.id} names its file again after that was deleted")
        if upload.file is None:
            known = self._records.file(told["id"])
            upload.file = known or KnownFile(told["id"], upload.data)
            if known is None:
                self._records.files.append(upload.file)
        self._records.check(upload.file.id == told["id"], "an upload has become two files")
        self._records.check(told["bytes"] == len(upload.data), "an upload is not whole")

    async def cancel_upload(self) -> None:
        if not self._records.uploads:
            return
        upload = self._rng.choice(self._records.uploads)
        if upload.cancelled == "there":
            upload.cancelled = "perhaps"
        status, told = await self._program.ask("POST", f"/v1/uploads/{upload.id}/cancel")
        if status == 200:
            self._records.check(upload.file is None, "an upload is completed and cancelled")
            upload.cancelled = "gone"
            return
        done = upload.asked or now() > upload.begun + REMEMBERED
        self._records.check(done and status in (400, 404), f"a cancel came to {status} {told}")

    # -- batches

    async def create(self) -> None:
        if (file := self._some_file()) is None:
            return
        stood = file.stands(now())
        batch = KnownBatch(self._serial(), file)
        self._records.batches.append(batch)
        body: dict[str, Any] = {"input_file_id": file.id, "endpoint": CHAT}
        body |= {"completion_window": "24h", "metadata": {"op": batch.operation}}
        if self._rng.random() < 0.2:
            batch.results = "perhaps"
            body["output_expires_after"] = {"anchor": "created_at", "seconds": KEPT}
        keyed = self._rng.random() < 0.3
        headers = {"idempotency-key": batch.operation} if keyed else {}
        for _ in range(self._rng.choice([1, 2, 3]) if keyed else 1):
            await self._create(batch, body, headers, stood == "gone")

    async def _create(
        self, batch: KnownBatch, body: object, headers: dict[str, str], gone: bool
    ) -> None:
        try:
            status, told = await self._program.ask("POST", "/v1/batches", body, headers)
        except NoAnswer:
            return
        if status == 200:
            self._records.check(batch.id in (None, told["id"]), "one request has made two batches")
            self._records.check(not gone, "a batch is made of a file that is gone")
            batch.id = told["id"]
            return
        code = told["error"]["code"]
        missing = code == "file_not_found" and batch.file.stands(now()) != "there"
        self._records.check(missing, f"a create came to {status} {code}")
        self._records.check(batch.id is None, "a create is refused that was granted")

    async def cancel(self) -> None:
        batch = self._some_batch()
        if batch is not None:
            batch.cancelled = True
            status, _ = await self._program.ask("POST", f"/v1/batches/{batch.id}/cancel")
            self._records.check(status in (200, 409), f"a cancel came to {status}")

    async def delete_result(self) -> None:
        batch = self._some_batch()
        if batch is None:
            return
        result = f"{batch.id}-output".replace("batch_", "file-")
        status, _ = await self._program.ask("GET", f"/v1/files/{result}")
        if status == 200:
            batch.results = "perhaps"
            status, _ = await self._program.ask("DELETE", f"/v1/files/{result}")
            self._records.check(status in (200, 404), f"a delete came to {status}")
            batch.results = "gone"

    def _some_batch(self) -> KnownBatch | None:
        known = [each for each in self._records.batches if each.id is not None]
        return self._rng.choice(known) if known else None

    async def list_batches(self) -> None:
        before = {each.id for each in self._records.batches if each.id is not None}
        pages = await self._pages("/v1/batches")
        found = [each["id"] for each in pages or ()]
        self._check_page(found, set())
        self._records.check(before <= set(found), f"batches are missing: {before - set(found)}")
        for each in pages or ():
            own = each["metadata"]["op"].startswith(f"{self._records.key}-")
            self._records.check(own, "a list shows another tenant's batch")

    # -- what is not theirs

    async def pry(self) -> None:
        """Ask for what is another tenant's, by its id."""
        files = [each.id for each in self._others.files]
        batches = [each.id for each in self._others.batches if each.id is not None]
        uploads = [each.id for each in self._others.uploads]
        wanted: list[tuple[str, str]] = []
        wanted += [(method, f"/v1/files/{one}") for one in files for method in ("GET", "DELETE")]
        wanted += [("GET", f"/v1/files/{one}/content") for one in files]
        wanted += [("GET", f"/v1/batches/{one}") for one in batches]
        wanted += [("POST", f"/v1/batches/{one}/cancel") for one in batches]
        wanted += [("POST", f"/v1/uploads/{one}/cancel") for one in uploads]
        if not wanted:
            return
        method, path = self._rng.choice(wanted)
        status, _ = await self._program.ask(method, path)
        self._records.check(status == 404, f"another tenant's: {method} {path} gives {status}")
