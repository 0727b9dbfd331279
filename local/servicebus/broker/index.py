"""Which key comes next: a priority queue whose keys can be removed."""

import heapq
from collections.abc import Iterator


class PriorityIndex:
    """Sequence numbers in the order of their priorities (a time or the number itself).

    Removal leaves a stale entry in the heap. Once stale entries outnumber live ones the heap is
    rebuilt, so memory follows the number of keys and each operation stays O(log n) on average.
    """

    __slots__ = ("_heap", "_priorities")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []
        self._priorities: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._priorities)

    def add(self, key: int, priority: int) -> None:
        """Put `key` in its place; a key that is there already moves."""
        self._priorities[key] = priority
        heapq.heappush(self._heap, (priority, key))
        if len(self._heap) > 2 * len(self._priorities) + 64:
            self._heap = [(live, key) for key, live in self._priorities.items()]
            heapq.heapify(self._heap)

    def remove(self, key: int) -> None:
        """Take `key` out if it is there."""
        self._priorities.pop(key, None)

    def first(self) -> int | None:
        """The lowest priority; None if empty."""
        heap = self._heap
        while heap:
            priority, key = heap[0]
            if self._priorities.get(key) == priority:
                return priority
            heapq.heappop(heap)
        return None

    def pop(self) -> int | None:
        """Take out the key of the lowest priority; None if empty."""
        if self.first() is None:
            return None
        _, key = heapq.heappop(self._heap)
        del self._priorities[key]
        return key

    def pop_due(self, now: int) -> Iterator[int]:
        """Take out, one by one, the keys whose priority is at most `now`."""
        while (first := self.first()) is not None and first <= now:
            key = self.pop()
            if key is not None:
                yield key
