"""Which entities there are: the configuration file of Microsoft's Service Bus emulator.

Source: "Service Bus emulator", Microsoft Learn, and the schema of its Config.json. What this broker
does not do is refused when the file is read, not ignored when a message depends on it.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .filters import Rule, accept_all, correlation_rule
from .sql import sql_rule

_DURATION = re.compile(
    r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.IGNORECASE
)
_UNSUPPORTED = ("ForwardTo", "ForwardDeadLetteredMessagesTo")
_TOPIC_PROPERTIES = {
    "DefaultMessageTimeToLive",
    "DuplicateDetectionHistoryTimeWindow",
    "RequiresDuplicateDetection",
}
_QUEUE_PROPERTIES = {
    *_TOPIC_PROPERTIES,
    *_UNSUPPORTED,
    "DeadLetteringOnMessageExpiration",
    "LockDuration",
    "MaxDeliveryCount",
    "RequiresSession",
}


class ConfigurationError(ValueError):
    """The configuration cannot be used; the message names the entity and the property."""


@dataclass(frozen=True)
class QueueSettings:
    """The settings of a queue or subscription; durations in milliseconds, 0 for none."""

    lock_ms: int = 60_000
    max_delivery_count: int = 10
    default_ttl_ms: int = 0
    dead_letter_on_expiration: bool = False
    duplicate_window_ms: int = 0
    requires_session: bool = False


@dataclass(frozen=True)
class SubscriptionSettings:
    """A subscription: its queue, and the rules of which one must match (no rule: all match)."""

    queue: QueueSettings
    rules: tuple[Rule, ...] = (accept_all,)


@dataclass(frozen=True)
class TopicSettings:
    """A topic and its subscriptions by name; durations in milliseconds, 0 for none."""

    default_ttl_ms: int = 0
    duplicate_window_ms: int = 0
    subscriptions: dict[str, SubscriptionSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class Namespace:
    """All entities by name."""

    queues: dict[str, QueueSettings] = field(default_factory=dict)
    topics: dict[str, TopicSettings] = field(default_factory=dict)


def load(source: str | Path | Mapping[str, Any]) -> Namespace:
    """Read a configuration from a file, or from what `json.load` made of one.

    Raises:
        ConfigurationError: it is not in the emulator's format, or asks for what is not there.
    """
    try:
        content = (
            json.loads(Path(source).read_text(encoding="utf-8-sig"))
            if isinstance(source, str | Path)
            else source
        )
        namespaces = content["UserConfig"]["Namespaces"]
        queues = [item for namespace in namespaces for item in namespace.get("Queues") or ()]
        topics = [item for namespace in namespaces for item in namespace.get("Topics") or ()]
        _check_unique([item["Name"] for item in (*queues, *topics)])
        return Namespace(
            {item["Name"]: _queue(item["Name"], item.get("Properties") or {}) for item in queues},
            {item["Name"]: _topic(item["Name"], item) for item in topics},
        )
    except ConfigurationError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"not in the format of the emulator: {error!r}") from error


def duration_ms(text: str) -> int:
    """An ISO 8601 duration such as PT1M or P14D, in milliseconds."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ConfigurationError(f"{text!r} is no ISO 8601 duration such as PT1M")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return round((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000)


def _check_unique(names: list[str]) -> None:
    for name, times in Counter(name.lower() for name in names).items():
        if times > 1:
            raise ConfigurationError(f"{name}: {times} queues or topics have this name")


def _check_names(name: str, properties: Mapping[str, Any], known: set[str]) -> None:
    if unknown := properties.keys() - known:
        raise ConfigurationError(
            f"{name}: no {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )


def _queue(name: str, properties: Mapping[str, Any]) -> QueueSettings:
    _check_names(name, properties, _QUEUE_PROPERTIES)
    for key in _UNSUPPORTED:
        if properties.get(key):
            raise ConfigurationError(f"{name}: {key} is not supported by this broker")
    default = QueueSettings()
    return QueueSettings(
        lock_ms=_duration(properties, "LockDuration") or default.lock_ms,
        max_delivery_count=int(properties.get("MaxDeliveryCount", default.max_delivery_count)),
        default_ttl_ms=_duration(properties, "DefaultMessageTimeToLive"),
        dead_letter_on_expiration=bool(properties.get("DeadLetteringOnMessageExpiration")),
        duplicate_window_ms=_duplicate_window(properties),
        requires_session=bool(properties.get("RequiresSession")),
    )


def _topic(name: str, item: Mapping[str, Any]) -> TopicSettings:
    properties = item.get("Properties") or {}
    _check_names(name, properties, _TOPIC_PROPERTIES)
    return TopicSettings(
        default_ttl_ms=_duration(properties, "DefaultMessageTimeToLive"),
        duplicate_window_ms=_duplicate_window(properties),
        subscriptions={
            entry["Name"]: SubscriptionSettings(
                _queue(f"{name}/{entry['Name']}", entry.get("Properties") or {}),
                tuple(_rule(rule) for rule in entry.get("Rules") or ()) or (accept_all,),
            )
            for entry in item.get("Subscriptions") or ()
        },
    )


def _rule(item: Mapping[str, Any]) -> Rule:
    properties = item["Properties"]
    if (properties.get("Action") or {}).get("SqlExpression"):
        raise ConfigurationError(f"{item['Name']}: actions are not supported by this broker")
    kind = str(properties["FilterType"]).lower()
    if kind == "sql":
        return sql_rule(properties["SqlFilter"]["SqlExpression"])
    if kind == "correlation":
        return correlation_rule(properties["CorrelationFilter"])
    raise ConfigurationError(f"{item['Name']}: FilterType is Sql or Correlation, not {kind}")


def _duration(properties: Mapping[str, Any], key: str) -> int:
    text = properties.get(key)
    return duration_ms(text) if text else 0


def _duplicate_window(properties: Mapping[str, Any]) -> int:
    if not properties.get("RequiresDuplicateDetection"):
        return 0
    return _duration(properties, "DuplicateDetectionHistoryTimeWindow") or 600_000
