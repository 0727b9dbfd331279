"""The example of docs/webhooks.md runs as it stands, and what it shows is what the service does."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY
from urllib.parse import urlsplit

import pytest

from schemas.jobs import Job, JobState
from schemas.webhooks import secret_of
from tests.cli.serving import serving
from tests.golden.releases import FOLDER
from tests.integration.processes import until
from tests.test_readme import DEPLOYMENT, blocks, names, section, table
from workers.adapters.webhooks import connect_webhooks
from workers.settings import read_settings
from workers.webhooks.addresses import ReceiverAddresses
from workers.webhooks.backoff import DAY_SECONDS, FIRST_SECONDS, LONGEST_SECONDS
from workers.webhooks.payload import body_of, event_of
from workers.webhooks.signing import signed

TEXT = (Path(__file__).parents[2] / "docs/webhooks.md").read_text("utf-8")
KEY = secrets.token_bytes(32)
LOCAL = ReceiverAddresses(private=True, secure=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def example() -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    (program,) = blocks(section(TEXT, "Set it up"), "python")
    port = free_port()
    own = {"WEBHOOK_SECRET": secret_of(KEY), "PORT": str(port)}
    running = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with running:
        yield port, running
        running.kill()


@pytest.mark.slow
async def test_the_receiver_prints_each_event_once_and_refuses_what_is_not_signed(
    example: tuple[int, "subprocess.Popen[str]"],
) -> None:
    port, running = example
    await until(lambda: answers(port), "the receiver listens")
    job = Job.model_validate_json((FOLDER / "0.2.0/job.json").read_bytes())
    event = event_of(job, JobState(revision=1, state="completed", ended=1_795_575_600.0))
    assert event is not None
    body, url = body_of(event), f"http://127.0.0.1:{port}/"
    async with connect_webhooks() as http:
        for key, status in ((b"x" * 32, 400), (KEY, 200), (KEY, 200)):
            headers = signed(event.id, int(time.time()), body, [key])
            assert (await http.post(url, headers, body, LOCAL)).status == status
    running.kill()
    out, _ = running.communicate(timeout=30)
    assert out.split() == ["batch.completed", f"batch_{job.id}"]


def test_the_event_shown_is_one() -> None:
    (block,) = blocks(section(TEXT, "What comes"), "json")
    job = Job.model_validate_json((FOLDER / "0.2.0/job.json").read_bytes())
    event = event_of(job, JobState(revision=1, state="completed", ended=1_795_575_600.0))
    assert event is not None
    shown, sent = json.loads(block), json.loads(body_of(event))
    assert list(shown) == list(sent)
    assert shown["id"].removeprefix("evt_") == shown["data"]["id"].removeprefix("batch_")


def test_the_setting_shown_is_taken() -> None:
    (value,) = re.findall(r"^WEBHOOKS='(.+)'$", TEXT, re.MULTILINE)
    given = {"DEPLOYMENTS": json.dumps([DEPLOYMENT]), "WEBHOOKS": value}
    settings = read_settings({**given, "WEBHOOK_SECRET": secret_of(KEY)})
    assert urlsplit(settings.webhooks["default"].url).hostname == "app.example"
    fields = {name for row in table(section(TEXT, "Set it up")) for name in names(row[0])}
    assert fields == {"url", "secret_settings", "private"}


def test_curl_has_it_sent_again_as_shown() -> None:
    (block,) = blocks(section(TEXT, "Again"), "sh")
    (line,) = [each for each in block.splitlines() if each.startswith("curl ")]
    with serving() as served:
        job = served.run(served.service.run(b'{"prompt": "a"}\n')).event["data"]["job"]
        (first,) = served.service.receiver.posts
        given = {"BATCH": f"batch_{job}", "PHI3BATCH_URL": served.url, "PHI3BATCH_KEY": "app"}
        done = subprocess.run(
            ["sh", "-c", line], env=os.environ | given, capture_output=True, timeout=60, check=True
        )
        assert json.loads(done.stdout).get("id") == f"batch_{job}", done.stdout
        assert served.service.receiver.posts[1:] == [first._replace(headers=ANY)]


def test_the_times_are_the_real_ones() -> None:
    assert (FIRST_SECONDS, LONGEST_SECONDS, DAY_SECONDS) == (5.0, 7200.0, 86400.0)
    assert "5 s, 20 s, 80 s and so on up to every two hours" in TEXT
