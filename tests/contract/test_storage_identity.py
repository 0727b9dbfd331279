"""Storage with an identity instead of a key, as in Azure: Azurite over TLS with OAuth."""

import base64
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core.credentials import AccessToken
from azure.storage.blob import UserDelegationKey
from azure.storage.blob.aio import BlobServiceClient

from local.azurite import ACCOUNT, azurite
from workers.adapters.blobs import AzureBlobs
from workers.ports import BlobRef


class Identity:
    """A credential whose tokens look like Entra ID's; Azurite checks no signature."""

    def __init__(self) -> None:
        self.scopes: set[str] = set()
        self.since = int(time.time())

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.scopes.update(scopes)
        now = self.since
        claims = {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
            "iat": now - 60,
            "nbf": now - 60,
            "exp": now + 3600,
        }
        parts = (_encoded({"alg": "none", "typ": "JWT"}), _encoded(claims), "c2lnbmVk")
        return AccessToken(".".join(parts), now + 3600)

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> "Identity":
        return self

    async def __aexit__(self, *args: object) -> None:
        pass


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


async def test_an_identity_reads_writes_and_copies(certificate: Path) -> None:
    identity = Identity()
    lent: set[str | None] = set()

    def watch(request: Any) -> None:
        headers = request.http_request.headers
        if "x-ms-copy-source" in headers:
            lent.add(headers.get("x-ms-copy-source-authorization"))

    options = ["--oauth", "basic", "--cert", str(certificate), "--key", str(certificate)]
    async with (
        azurite(options=options) as emulator,
        BlobServiceClient(
            f"https://127.0.0.1:{emulator.port}/{ACCOUNT}",
            identity,
            connection_verify=str(certificate),
            raw_request_hook=watch,
        ) as service,
    ):
        blobs = AzureBlobs(service, identity)
        await blobs.ensure_containers(["work"])
        part, whole = BlobRef("work", "ä part"), BlobRef("work", "whole")
        await blobs.create(part, b"line\n")

        # Azurite knows no authorization of a source: it refuses, and the part is streamed.
        await blobs.stage_from(whole, "1", part)
        await blobs.commit(whole, ["1"])

        assert (await blobs.read(whole)).data == b"line\n"
    assert identity.scopes == {"https://storage.azure.com/.default"}
    assert lent == {f"Bearer {(await identity.get_token()).token}"}


async def test_links_are_signed_for_an_identity_by_a_key_that_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Azurite gives out no delegation keys, so here one is made up."""
    asked: list[tuple[datetime, datetime]] = []

    async def delegate(_service: Any, start: datetime, until: datetime) -> Any:
        asked.append((start, until))
        key: Any = UserDelegationKey()  # type: ignore[no-untyped-call]
        key.signed_oid = key.signed_tid = "11111111-2222-3333-4444-555555555555"
        key.signed_start, key.signed_expiry = start.isoformat(), until.isoformat()
        key.signed_service, key.signed_version = "b", "2025-01-05"
        key.value = base64.b64encode(b"k" * 32).decode()
        return key

    monkeypatch.setattr(BlobServiceClient, "get_user_delegation_key", delegate)
    async with BlobServiceClient("https://there.blob.core.windows.net", Identity()) as service:
        blobs = AzureBlobs(service, Identity())
        links = [await blobs.link(BlobRef("box", name), 900.0, "a.jsonl") for name in "ab"]
    assert len(asked) == 1
    for link, name in zip(links, "ab", strict=True):
        parts = urlsplit(link)
        query = parse_qs(parts.query)
        assert parts.path == f"/box/{name}"
        assert "skoid" in query, "a user delegation, and no account key"
        assert (query["sp"], query["sr"], query["spr"]) == (["r"], ["b"], ["https"])
