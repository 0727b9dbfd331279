"""A topic: each message goes to the subscriptions whose rules match it."""

from .configuration import QueueSettings, TopicSettings
from .entity import Entity, Surroundings
from .message import Message
from .queues import Queue
from .sessions import SessionQueue


def make_queue(path: str, settings: QueueSettings, around: Surroundings) -> Queue:
    """The queue that the settings ask for."""
    kind = SessionQueue if settings.requires_session else Queue
    return kind(path, settings, around)


class Topic(Entity):
    """A topic holds nothing but scheduled messages, which fan out when their time comes."""

    def __init__(self, name: str, settings: TopicSettings, around: Surroundings) -> None:
        super().__init__(name, settings.duplicate_window_ms, around)
        self._default_ttl_ms = settings.default_ttl_ms
        self._rules = {key: item.rules for key, item in settings.subscriptions.items()}
        self.subscriptions = {
            key: make_queue(f"{name}/Subscriptions/{key}", item.queue, around)
            for key, item in settings.subscriptions.items()
        }

    def check(self, message: Message) -> None:
        """Every message is welcome whose properties the rules can read.

        Raises:
            DecodeError: they cannot.
        """
        message.facts()

    def _activate(self, message: Message) -> None:
        self._number(message)
        if self._default_ttl_ms:
            message.ttl_ms = min(message.ttl_ms or self._default_ttl_ms, self._default_ttl_ms)
        facts = message.facts()
        for name, subscription in self.subscriptions.items():
            if any(rule(facts) for rule in self._rules[name]):
                subscription.accept(message.copy())
