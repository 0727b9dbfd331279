"""Whose call goes next? Jobs share a deployment by weight, measured in tokens.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each job has a tag that grows by
tokens / weight with every call; the job with the smallest tag goes next, and one that comes new
starts at the tag of those being served. It divides as deficit round-robin does, without the
rounds: a small job behind a huge one is served with the very next call. Where several servers
serve one queue, each has reached a tag of its own: a fast one does not hold up those who wait for
a slow one.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Hashable)


class _Place(Generic[K, T]):
    """A job's place in the order, and what of it waits."""

    __slots__ = ("flows", "servers", "tag")

    def __init__(self, tag: float) -> None:
        self.tag = tag
        self.flows: OrderedDict[K, Flow[K, T]] = OrderedDict()
        self.servers: Iterable[Hashable] = ()


class Flow(Generic[K, T]):
    """Calls of one job that may go under the same conditions (`key`), first come first served."""

    __slots__ = ("items", "job", "key", "turn")

    def __init__(self, job: str, key: K, turn: "_Place[K, T]") -> None:
        self.job = job
        self.key = key
        self.turn = turn
        self.items: OrderedDict[T, None] = OrderedDict()

    @property
    def head(self) -> T:
        """The call that goes next of this flow."""
        return next(iter(self.items))


class FairQueue(Generic[K, T]):
    """Calls that wait. `select` takes time by the number of jobs, all else constant time."""

    def __init__(self) -> None:
        self.waiting = 0
        self._flows: OrderedDict[tuple[str, K], Flow[K, T]] = OrderedDict()
        self._turns: dict[str, _Place[K, T]] = {}
        self._reached: dict[Hashable, float] = {}

    def push(
        self,
        job: str,
        key: K,
        item: T,
        *,
        servers: Iterable[Hashable] = (None,),
        first: bool = False,
    ) -> None:
        """Let a call wait for any of `servers`; `first` puts one that was refused to the front."""
        turn = self._turns.get(job)
        if turn is None:
            turn = self._turns[job] = _Place(0.0)
        if not turn.flows:
            turn.servers = servers
            turn.tag = max(turn.tag, self._reached_by(servers))
        flow = self._flows.get((job, key))
        if flow is None:
            flow = self._flows[job, key] = turn.flows[key] = Flow(job, key, turn)
            if first:
                # Its flow had gone before the others: a shard is not to wait for its last rows
                # behind all rows of the next ones.
                turn.flows.move_to_end(key, last=False)
        flow.items[item] = None
        if first:
            flow.items.move_to_end(item, last=False)
        self.waiting += 1

    def select(self, eligible: Callable[[K], bool]) -> Flow[K, T] | None:
        """The flow whose head goes next among those whose key is eligible."""
        best: Flow[K, T] | None = None
        # Flows of one job have one tag: where the first may go, nobody looks at the others.
        for turn in self._turns.values():
            if best is None or turn.tag < best.turn.tag:
                may_go = (flow for flow in turn.flows.values() if eligible(flow.key))
                best = next(may_go, best)
        return best

    def flows(self) -> list[Flow[K, T]]:
        """All flows that have calls waiting, the oldest first."""
        return list(self._flows.values())

    def take(
        self, flow: Flow[K, T], cost: float, weight: float = 1.0, server: Hashable = None
    ) -> T:
        """Take the head of a flow out: `server` serves its job, which weighs so much by now, with
        `cost` tokens.
        """
        item = flow.head
        turn = flow.turn
        self._reached[server] = max(self._reached.get(server, 0.0), turn.tag)
        turn.tag += max(cost, 1.0) / weight
        self.remove(flow.job, flow.key, item)
        return item

    def remove(self, job: str, key: K, item: T) -> bool:
        """Take a call out that waits no more; gives whether the call was there."""
        flow = self._flows.get((job, key))
        if flow is None or item not in flow.items:
            return False
        del flow.items[item]
        self.waiting -= 1
        if not flow.items:
            del self._flows[job, key]
            del flow.turn.flows[key]
            if not flow.turn.flows:
                self._retire()
        return True

    def _retire(self) -> None:
        """A job that waits no more keeps its tag only while it is ahead of the others."""
        self._turns = {
            job: turn
            for job, turn in self._turns.items()
            if turn.flows or (self.waiting and turn.tag > self._reached_by(turn.servers))
        }

    def _reached_by(self, servers: Iterable[Hashable]) -> float:
        return max((self._reached.get(server, 0.0) for server in servers), default=0.0)
