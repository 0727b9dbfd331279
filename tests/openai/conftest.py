from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.processes import Processes, processes
from tests.openai.serving import settings


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Processes]:
    async with processes(tmp_path, settings=settings()) as started:
        yield started
