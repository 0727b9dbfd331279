"""All entities of a namespace, by their paths."""

from collections.abc import Iterator

from .configuration import Namespace
from .entity import Entity, Surroundings
from .errors import EntityNotFoundError, NotAllowedError
from .queues import Queue
from .topics import Topic, make_queue


class Broker:
    """The namespace; every change of it is made through its entities.

    After each change the caller calls `pump`, and `tick` no later than `next_due` says.
    """

    def __init__(self, namespace: Namespace, around: Surroundings) -> None:
        self.entities: dict[str, Entity] = {}
        self._around = around
        for name, queue_settings in namespace.queues.items():
            self._add(make_queue(name, queue_settings, around))
        for name, topic_settings in namespace.topics.items():
            topic = Topic(name, topic_settings, around)
            self._add(topic)
            for subscription in topic.subscriptions.values():
                self._add(subscription)

    def _add(self, entity: Entity) -> None:
        self.entities[entity.path.lower()] = entity
        if isinstance(entity, Queue) and entity.dead_letters is not None:
            self._add(entity.dead_letters)

    def entity(self, path: str) -> Entity:
        """A queue, topic, subscription or dead-letter queue by its path, whatever its case.

        Raises:
            EntityNotFoundError: there is none.
        """
        entity = self.entities.get(path.strip("/").lower())
        if entity is None:
            raise EntityNotFoundError(f"The messaging entity '{path}' could not be found.")
        return entity

    def queue(self, path: str) -> Queue:
        """An entity to receive from.

        Raises:
            EntityNotFoundError: there is no such entity.
            NotAllowedError: it is a topic.
        """
        entity = self.entity(path)
        if not isinstance(entity, Queue):
            raise NotAllowedError(f"'{path}' is a topic: receive from one of its subscriptions")
        return entity

    def queues(self) -> Iterator[Queue]:
        """All queues, subscriptions and dead-letter queues."""
        return (entity for entity in self.entities.values() if isinstance(entity, Queue))

    def wake(self, queue: Queue) -> None:
        """A consumer of the queue has new credit: look at it at the next `pump`."""
        self._around.awake.add(queue)

    def pump(self) -> None:
        """Hand out the messages that have become available."""
        awake = self._around.awake
        while awake:
            awake.pop().pump()

    def tick(self) -> None:
        """Do what has become due, and hand out what became available by that."""
        for entity in self.entities.values():
            entity.tick()
        self.pump()

    def next_due(self) -> int | None:
        """When `tick` has something to do again, in milliseconds since the epoch."""
        times = (entity.next_due() for entity in self.entities.values())
        return min((time for time in times if time is not None), default=None)

    def restored(self) -> None:
        """All that an earlier process left is in its place: go on."""
        for queue in self.queues():
            queue.restored()
