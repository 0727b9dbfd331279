"""What tells one kind of endpoint from another: addresses and bodies, no I/O."""

from collections.abc import Mapping
from typing import Any, Protocol

from schemas.deployments import Task
from workers.ports import EndpointInfo


class Unsupported(Exception):
    """A row asks for something that the contract cannot carry. The message names no values."""


class Contract(Protocol):
    """One wire contract, bound to one deployment."""

    @property
    def scope(self) -> str:
        """The Entra ID scope whose tokens the service takes."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the contract itself, without credentials."""

    @property
    def info_url(self) -> str | None:
        """Where the endpoint tells what it is; None if the contract has no such place."""

    def key_headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry a key."""

    def url(self, task: Task) -> str | None:
        """The URL at which a task is asked; None if the contract cannot do it."""

    def encode(self, task: Task, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The wire body of an OpenAI-shaped one. Raises `Unsupported`."""

    def decode(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The OpenAI shape of a successful answer; what is not readable is given back as it is."""

    def read_info(self, answer: Any) -> EndpointInfo | None:
        """What the answer at `info_url` says; None where it says nothing usable."""
