"""The priority queue whose keys can be removed, against a plain dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from local.servicebus.broker.index import PriorityIndex
from local.servicebus.broker.message import Message

from .support import Clock, Taker, encoded, make_broker, namespace, queue

KEYS = st.integers(0, 20)
STEPS = st.one_of(
    st.tuples(st.just("add"), KEYS, st.integers(0, 100)),
    st.tuples(st.just("remove"), KEYS, st.just(0)),
    st.tuples(st.just("pop"), st.just(0), st.just(0)),
    st.tuples(st.just("due"), st.just(0), st.integers(0, 100)),
)


@given(st.lists(STEPS, max_size=200))
def test_it_gives_what_a_dictionary_would(transitions: list[tuple[str, int, int]]) -> None:
    index, model = PriorityIndex(), dict[int, int]()
    for step, key, priority in transitions:
        match step:
            case "add":
                index.add(key, priority)
                model[key] = priority
            case "remove":
                index.remove(key)
                model.pop(key, None)
            case "pop":
                expected = min(model, key=lambda k: (model[k], k), default=None)
                assert index.pop() == expected
                model.pop(expected or 0, None)
            case _:
                due = sorted(
                    (k for k in model if model[k] <= priority), key=lambda k: (model[k], k)
                )
                assert list(index.pop_due(priority)) == due
                model = {k: p for k, p in model.items() if p > priority}
        assert len(index) == len(model)
        assert index.first() == min(model.values(), default=None)


def test_memory_follows_the_keys_that_are_there() -> None:
    index = PriorityIndex()
    for key in range(10_000):
        index.add(key, 10_000 - key)
        index.remove(key - 10)
    assert len(index) == 10
    assert len(index._heap) < 200


def test_a_queue_forgets_the_messages_that_passed() -> None:
    broker = make_broker(namespace(queue("q", DefaultMessageTimeToLive="P14D")), Clock())
    source, taker = broker.queue("q"), Taker(credit=10**6)
    source.consumers.append(taker)
    for _ in range(3_000):
        source.accept(Message.parse(encoded(ttl_ms=10**9)))
        broker.pump()
        [message] = taker.messages
        taker.messages.clear()
        assert message.lock_token is not None
        source.complete(message.lock_token)
    sizes = (source.messages, source._locked, source._expiring._heap, source._ready._heap)
    assert all(len(part) < 200 for part in sizes)
