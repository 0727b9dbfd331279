"""Webhooks are what the `openai` package takes, and nothing else passes it."""

import time
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import InvalidWebhookSignatureError, OpenAI
from openai.types.webhooks import (
    BatchCancelledWebhookEvent,
    BatchCompletedWebhookEvent,
    BatchExpiredWebhookEvent,
    BatchFailedWebhookEvent,
)

from schemas.jobs import Job, JobState
from schemas.webhooks import secret_of, signing_key
from tests.golden.releases import FOLDER
from workers.webhooks.payload import body_of, event_of
from workers.webhooks.signing import signed

CLIENT = OpenAI(api_key="none")
JOB = Job.model_validate_json((FOLDER / "0.2.0/job.json").read_bytes())
MODELS = {
    "completed": BatchCompletedWebhookEvent,
    "failed": BatchFailedWebhookEvent,
    "expired": BatchExpiredWebhookEvent,
    "cancelled": BatchCancelledWebhookEvent,
}
KEYS = st.binary(min_size=24, max_size=64)


def state(word: str) -> JobState:
    return JobState.model_validate({"revision": 9, "state": word, "ended": 1_795_575_600.9})


def unwrapped(body: bytes, headers: Any, key: bytes) -> Any:
    return CLIENT.webhooks.unwrap(body, headers, secret=secret_of(key))


@pytest.mark.parametrize("word", MODELS)
def test_each_end_is_an_event_of_the_packages_own_form(word: str) -> None:
    event = event_of(JOB, state(word))
    assert event is not None
    headers = signed(event.id, int(time.time()), body_of(event), [b"k" * 32])
    found = unwrapped(body_of(event), headers, b"k" * 32)
    assert type(found) is MODELS[word]
    # Every field that the package knows, and none besides: it would keep others unread.
    assert found.to_dict() == {
        "id": f"evt_{JOB.id}",
        "object": "event",
        "created_at": 1_795_575_600,
        "type": f"batch.{word}",
        "data": {"id": f"batch_{JOB.id}"},
    }
    assert set(found.to_dict()) == set(MODELS[word].model_fields)


def test_a_job_that_runs_has_no_event() -> None:
    running = JobState.model_validate({"revision": 1, "state": "in_progress"})
    assert event_of(JOB, running) is None


@given(KEYS, KEYS, st.binary(max_size=200).filter(lambda raw: raw.isascii()))
def test_either_of_two_keys_verifies(old: bytes, new: bytes, body: bytes) -> None:
    headers = signed("evt_1", int(time.time()), body, [old, new])
    for key in (old, new):
        CLIENT.webhooks.verify_signature(body, headers, secret=secret_of(key))


@given(KEYS, KEYS)
def test_a_key_that_did_not_sign_does_not_verify(signer: bytes, other: bytes) -> None:
    headers = signed("evt_1", int(time.time()), b"{}", [signer])
    if other.ljust(64, b"\0") != signer.ljust(64, b"\0"):  # to HMAC these are one key
        with pytest.raises(InvalidWebhookSignatureError):
            unwrapped(b"{}", headers, other)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body"])
def test_what_was_changed_on_its_way_does_not_verify(changed: str) -> None:
    at = int(time.time())
    headers = dict(signed("evt_1", at, b"{}", [b"k" * 32]))
    body = b"{} " if changed == "body" else b"{}"
    if changed != "body":
        headers[changed] = str(at - 1) if changed == "webhook-timestamp" else "evt_2"
    with pytest.raises(InvalidWebhookSignatureError):
        unwrapped(body, headers, b"k" * 32)


def test_what_is_sent_again_much_later_by_somebody_else_does_not_verify() -> None:
    headers = signed("evt_1", int(time.time()) - 600, b"{}", [b"k" * 32])
    with pytest.raises(InvalidWebhookSignatureError, match="too old"):
        unwrapped(b"{}", headers, b"k" * 32)


@given(KEYS)
def test_a_secret_stands_for_its_key(key: bytes) -> None:
    assert signing_key(secret_of(key)) == key


@pytest.mark.parametrize(
    "secret",
    [
        *("", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!!", "k" * 40, "whsec_" + "k" * 44 + "é"),
        *("@Microsoft.KeyVault(SecretUri=https://vault/secrets/hook/)", secret_of(b"k" * 65)),
    ],
)
def test_what_is_no_secret_is_none(secret: str) -> None:
    assert signing_key(secret) is None


def test_the_package_is_one_that_verifies_webhooks() -> None:
    assert tuple(map(int, openai.__version__.split(".")[:2])) >= (1, 92)
