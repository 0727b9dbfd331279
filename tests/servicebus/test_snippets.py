"""The examples of docs/servicebus.md, run as they stand against the broker."""

import asyncio
import re
import sys
import textwrap
from asyncio.subprocess import PIPE
from pathlib import Path

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docs" / "servicebus.md").read_text("utf-8")
COMMAND, *_ = re.findall(r"```\n(python -m local\.servicebus .*)\n```", TEXT)
CLIENT, IN_A_TEST, *_ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SECONDS = 60


async def test_the_command_serves_the_client_as_both_stand() -> None:
    arguments = COMMAND.replace(" [--data bus.sqlite]", "").replace("5672", "0").split()[1:]
    broker = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=PROJECT, stdout=PIPE
    )
    assert broker.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            line = (await broker.stdout.readline()).decode().strip()
            assert await printed(CLIENT.replace("<the line>", line)) == "hello\n"
    finally:
        broker.terminate()
        await broker.communicate()


async def test_a_test_serves_itself_as_it_stands() -> None:
    imports, _, body = IN_A_TEST.partition("\n\n")
    lines = ["import asyncio", imports, "async def main():", textwrap.indent(body, "    ")]
    lines += ["    await client.close()", "    print('served')", "asyncio.run(main())"]
    async with asyncio.timeout(SECONDS):
        assert await printed("\n".join(lines)) == "served\n"


async def printed(code: str) -> str:
    """What a program prints that ends well."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=PROJECT, stdout=PIPE
    )
    said, _ = await program.communicate()
    assert program.returncode == 0
    return said.decode()
