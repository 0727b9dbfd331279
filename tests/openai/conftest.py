from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.processes import Processes, in_one_task, processes
from tests.openai.serving import settings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Processes]:
    """One service for a module's programs, each of which knows its own files from others'."""
    folder = tmp_path_factory.mktemp("processes")
    async with in_one_task(processes(folder, settings=settings())) as started:
        yield started
