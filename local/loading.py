"""How a process loads its modules: thousands of objects, all of which stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Without the garbage collector, now and later: a seventh of the time, and it finds nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
