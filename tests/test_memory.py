"""What large blocks took goes back to the system when they are freed, whatever lies around them."""

import os
import subprocess
import sys

import pytest

# A worker's pattern: answers of megabytes come and go, and each leaves something small behind.
_STORY = """
import psutil
from workers.service.memory import tune

tune()
first = psutil.Process().memory_info().rss
bytearray(16 * 1024 * 1024)
kept = []
for _ in range(8):
    large = []
    for _ in range(16):
        large.append(bytearray(b"x") * (4 * 1024 * 1024))
        kept.append(bytearray(4096))
    del large
print(psutil.Process().memory_info().rss - first)
"""


@pytest.mark.slow
@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="glibc's allocator")
def test_large_blocks_leave_nothing_in_the_heap() -> None:
    command = [sys.executable, "-c", _STORY]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 8 * 1024 * 1024
