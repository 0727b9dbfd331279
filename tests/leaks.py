"""No key and no prompt in any log of the whole test run.

`conftest.py` takes the two fixtures from here: every record that any logger of this process makes
at the level of an operator's log (Azure Functions: Information) is searched, and our own loggers
down to DEBUG. `leaked` searches what other processes said and what events carry.
"""

import logging
from collections.abc import Iterator

import pytest

from local.azurite import KEY as STORAGE_KEY

ENDPOINT_KEY = "the-key-of-the-tests"
# For tests that want a key or a prompt of which no trace may be found.
CANARY_KEY = "canary-key-3f0c62b1"
CANARY_PROMPT = "canary-prompt-9a17e4d5"
# How the prompts begin that the samples hold and the whole run asks.
SAMPLE_PROMPTS = ("Janet’s ducks lay 16", "A robe takes 2 bolts", "Why is the sky blue?")
SECRETS = (CANARY_KEY, CANARY_PROMPT, STORAGE_KEY, ENDPOINT_KEY, *SAMPLE_PROMPTS)
OURS = ("workers", "schemas", "local", "function_app")


def leaked(text: str) -> str | None:
    """The first secret in a text."""
    return next((secret for secret in SECRETS if secret in text), None)


class Watch(logging.Handler):
    """Searches every record, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.found: list[str] = []
        self.seen = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.seen += 1
        secret = leaked(self.format(record))
        if secret is not None:
            self.found.append(f"{record.name}, line {record.lineno}, logged {secret[:9]!r}...")


@pytest.fixture(scope="session")
def log_watch() -> Iterator[Watch]:
    """Watches all logs from the first test that runs to the last."""
    watch, root = Watch(), logging.getLogger()
    levels = {logger: logger.level for logger in map(logging.getLogger, OURS)}
    before = root.level
    root.addHandler(watch)
    root.setLevel(logging.INFO)
    for logger in levels:
        logger.setLevel(logging.DEBUG)
    yield watch
    root.removeHandler(watch)
    root.setLevel(before)
    for logger, level in levels.items():
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_leaks(log_watch: Watch) -> Iterator[None]:
    """Fails the test during which a key or a prompt was logged."""
    yield
    found, log_watch.found = log_watch.found, []
    assert not found
