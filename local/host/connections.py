"""Which client does the name of a connection setting stand for?

A name stands for a connection string, or for a prefix of identity-based settings
(https://learn.microsoft.com/azure/azure-functions/functions-reference#configure-an-identity-based-connection).
"""

import os
import ssl
from collections.abc import Mapping
from typing import Any

from azure.servicebus.aio import ServiceBusClient
from azure.storage.blob.aio import BlobServiceClient

from workers.ports.errors import SettingsError


def service_bus(name: str, environ: Mapping[str, str] = os.environ) -> ServiceBusClient:
    """A Service Bus client. Errors: `SettingsError` where nothing is set."""
    if connection_string := environ.get(name):
        return ServiceBusClient.from_connection_string(
            connection_string, **_trust(connection_string)
        )
    if namespace := environ.get(f"{name}__fullyQualifiedNamespace"):
        return ServiceBusClient(namespace, _credential(name, environ))
    raise SettingsError(
        f"{name} is not set: give it a Service Bus connection string, "
        f"or set {name}__fullyQualifiedNamespace"
    )


def _trust(connection_string: str) -> dict[str, Any]:
    """No certificates for an emulator: each link would take 20 ms to read what it needs not."""
    if "UseDevelopmentEmulator=true" not in connection_string:
        return {}
    return {"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}


def blobs(name: str, environ: Mapping[str, str] = os.environ) -> BlobServiceClient:
    """A Blob Storage client. Errors: `SettingsError` where nothing is set."""
    if connection_string := environ.get(name):
        return BlobServiceClient.from_connection_string(connection_string)
    url = environ.get(f"{name}__blobServiceUri") or environ.get(f"{name}__serviceUri")
    if not url and (account := environ.get(f"{name}__accountName")):
        url = f"https://{account}.blob.core.windows.net"
    if url:
        return BlobServiceClient(url, credential=_credential(name, environ))
    raise SettingsError(
        f"{name} is not set: give it a storage connection string "
        f"(UseDevelopmentStorage=true for Azurite), or set {name}__blobServiceUri"
    )


def _credential(name: str, environ: Mapping[str, str]) -> Any:
    # azure-identity takes a quarter of a second to import, and a connection string needs none.
    from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415

    return DefaultAzureCredential(managed_identity_client_id=environ.get(f"{name}__clientId"))
