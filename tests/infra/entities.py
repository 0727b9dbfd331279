"""The queues, the topic and its subscriptions against Config.json."""

import json
import re
from collections.abc import Iterator

from tests.infra.bicep import Template, member, properties, text
from tests.infra.resources import Templates

BUS = "infra/service/bus.bicep"

# What differs from Config.json: the emulator's own limits.
EMULATOR = frozenset({"DefaultMessageTimeToLive", "DuplicateDetectionHistoryTimeWindow"})


def entity_problems(templates: Templates, config: str) -> Iterator[str]:
    """What Config.json says of an entity and its resource does not."""
    bus = templates[BUS]
    (namespace,) = json.loads(config)["UserConfig"]["Namespaces"]
    if len(namespace["Topics"]) != 1:
        yield f"{BUS}: takes the first of {len(namespace['Topics'])} topics"
    (topic, *_) = namespace["Topics"]
    rules = [rule for each in topic["Subscriptions"] for rule in each["Rules"]]
    yield from _entity(bus, "queues", "queue", namespace["Queues"])
    yield from _entity(bus, "topic", "status", [topic])
    yield from _entity(bus, "subscriptions", "subscription", topic["Subscriptions"])
    for rule in rules:
        if rule["Name"] == "$Default":
            yield f"{BUS}: a rule named $Default is said to succeed and leaves none"
        if rule["Properties"].keys() != {"FilterType", "SqlFilter"}:
            yield f"{BUS}: rule {rule['Name']} is no SQL filter alone"
    for symbol in ("queues", "subscriptions", "filters"):
        (size,) = bus.resources[symbol].decorators.get("batchSize", [None])
        if size is None or text(size) != "1":
            yield f"{BUS}: {symbol} are made at one time, and may be refused as a conflict"
    for path in re.findall(r"rule\.(Name|Properties[.\w]*)", text(bus.variables["rules"])):
        yield from _there(path, rules, "rules")


def _entity(
    bus: Template, symbol: str, loop: str, entities: list[dict[str, object]]
) -> Iterator[str]:
    body = bus.resources[symbol].body
    if text(member(body, "name")) != f"{loop}.Name":
        yield f"{BUS}: {symbol} have names of their own"
    taken = {}
    for name, value in properties(member(body, "properties")).items():
        if match := re.fullmatch(rf"{loop}\.Properties\.(\w+)", text(value)):
            taken[name] = match[1]
            yield from _there(f"Properties.{match[1]}", entities, symbol)
    for name, source in taken.items():
        if name != source[0].lower() + source[1:]:
            yield f"{BUS}: {symbol}.{name} is made of {source}"
    said = {name for each in entities for name in dict(each["Properties"])}  # type: ignore[call-overload]
    for name in said - EMULATOR - set(taken.values()):
        yield f"{BUS}: {symbol} do not take {name} from Config.json"
    for name in said & EMULATOR:
        if name[0].lower() + name[1:] not in properties(member(body, "properties")):
            yield f"{BUS}: {symbol} do not set {name}"


def _there(path: str, entities: list[dict[str, object]], what: str) -> Iterator[str]:
    for each in entities:
        value: object = each
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            yield f"Config.json: one of the {what} has no {path}"
