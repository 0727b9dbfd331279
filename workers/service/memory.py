"""How Python and the C library manage a worker's memory."""

import ctypes
import gc
from contextlib import suppress
from typing import Final

# Thousands of calls in flight are so many live objects that the collector, at its default of 700
# new ones, takes a third of the CPU to look through them over and over.
GC_THRESHOLD: Final = (35_000, 20, 20)

# glibc's name for the size from which a block is a mapping of its own, and goes back to the system
# when it is freed. By itself glibc raises that size to what was freed, up to 32 MiB: answers of
# megabytes then lie among small blocks, in a heap that never shrinks.
M_MMAP_THRESHOLD: Final = -3
LARGE_BLOCK_BYTES: Final = 1024 * 1024


def tune() -> None:
    """Set both up for a worker. A C library other than glibc is left as it is."""
    gc.set_threshold(*GC_THRESHOLD)
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
