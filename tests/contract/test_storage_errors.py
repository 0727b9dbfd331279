"""Each documented answer of Blob Storage has one meaning, and the worlds of the simulation meet it.

A handler does the same whether storage is throttled, down, slow or out of reach: it may have done
what it was asked, and is to be asked again. So those are one error, `Unavailable`, by design.
"""

import pytest
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)

from tests.simulation.swarm import scenario
from tests.simulation.world import live
from workers.adapters.storage_errors import meaning_of
from workers.ports.errors import (
    BlobChanged,
    BlobExists,
    BlobFull,
    BlobMissing,
    LeaseHeld,
    LeaseLost,
    StorageError,
    Unavailable,
    WorkerError,
)

PASSING = [
    (500, "InternalError"),
    (500, "OperationTimedOut"),
    (502, ""),
    (503, "ServerBusy"),
    (503, ""),
    (504, ""),
    (429, "TooManyRequests"),
    (429, ""),
    (408, ""),
    (409, "ContainerBeingDeleted"),
    (409, "AccountBeingCreated"),
    (200, ""),  # the answer broke off
]
SAID = [
    (400, "InvalidHeaderValue", StorageError),
    (401, "NoAuthenticationInformation", StorageError),
    (403, "AuthenticationFailed", StorageError),
    (403, "AuthorizationFailure", StorageError),
    (403, "AuthorizationPermissionMismatch", StorageError),
    (403, "InsufficientAccountPermissions", StorageError),
    (403, "AccountIsDisabled", StorageError),
    (404, "BlobNotFound", BlobMissing),
    (404, "ContainerNotFound", BlobMissing),
    (404, "ResourceNotFound", BlobMissing),
    (404, "", BlobMissing),  # the answer to a HEAD has no body
    (409, "BlobAlreadyExists", BlobExists),
    (409, "BlockCountExceedsLimit", BlobFull),
    (409, "LeaseAlreadyPresent", LeaseHeld),
    (412, "LeaseIdMissing", LeaseHeld),
    (409, "LeaseIsBreakingAndCannotBeAcquired", LeaseHeld),
    (409, "LeaseIdMismatchWithLeaseOperation", LeaseLost),
    (412, "LeaseIdMismatchWithLeaseOperation", LeaseLost),  # so says Azurite
    (412, "LeaseIdMismatchWithBlobOperation", LeaseLost),
    (409, "LeaseNotPresentWithLeaseOperation", LeaseLost),
    (412, "LeaseNotPresentWithBlobOperation", LeaseLost),
    (409, "LeaseIsBrokenAndCannotBeRenewed", LeaseLost),
    (409, "LeaseIsBreakingAndCannotBeChanged", LeaseLost),
    (412, "LeaseLost", LeaseLost),
    (409, "InvalidBlobType", StorageError),
    (412, "ConditionNotMet", BlobChanged),
    (412, "", BlobChanged),
    (409, "", BlobChanged),
    (501, "NotImplemented", StorageError),
]
SILENT: list[Exception] = [
    ServiceRequestError("nobody listens"),
    ServiceRequestTimeoutError("no connection in time"),
    ServiceResponseError("connection reset by peer"),
    ServiceResponseTimeoutError("no answer in time"),
    IncompleteReadError("the answer broke off"),
    AzureError("something else of the SDK's"),
    TimeoutError(),
    ConnectionResetError(),
    OSError("no route to host"),
]


def refused(status: int, code: str) -> HttpResponseError:
    """An answer of the service's, as the SDK raises it."""
    error = HttpResponseError("refused")
    error.status_code = status
    error.error_code = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(("status", "code"), PASSING)
def test_what_passes_is_to_be_asked_again(status: int, code: str) -> None:
    meaning = meaning_of(refused(status, code), "state/x", BlobChanged)
    assert type(meaning) is Unavailable
    assert "state/x" in str(meaning)


@pytest.mark.parametrize("error", SILENT, ids=lambda error: type(error).__name__)
def test_so_is_what_has_no_answer(error: Exception) -> None:
    assert type(meaning_of(error, "state/x", BlobChanged)) is Unavailable


@pytest.mark.parametrize(("status", "code", "kind"), SAID)
def test_what_does_not_pass_says_what_it_is(
    status: int, code: str, kind: type[WorkerError]
) -> None:
    assert type(meaning_of(refused(status, code), "state/x", BlobChanged)) is kind


def test_worlds_meet_each_meaning() -> None:
    meanings = {kind.__name__ for *_, kind in SAID} | {Unavailable.__name__}
    assert meanings == {StorageError.__name__, Unavailable.__name__} | {
        kind.__name__
        for kind in StorageError.__subclasses__()
        if kind.__module__ == StorageError.__module__  # and none of a test's
    }
    for seed in range(200):
        meanings -= {line.split()[-1] for line in live(scenario(seed), keep=True).log or ()}
        if not meanings:
            return
    pytest.fail(f"no world meets {meanings}")
