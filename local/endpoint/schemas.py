"""Which JSON does a schema ask for? A valid value for each draw, and a wrong one on demand. Pure.

What the services take for structured output: types, enum, const, anyOf, oneOf, allOf, $ref within
the schema, bounds of numbers, lengths and items, and formats. A schema that asks for more (a
pattern, say) is refused where no value that was drawn is valid.
"""

import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from .contracts import RequestError

Schema = Mapping[str, Any]

TRIES = 20
# Where optional properties and further items end, so that recursion does.
DEEPEST = 4
MOST_ITEMS = 3
_FORMATS = {
    "date": "2026-01-31",
    "time": "12:34:56Z",
    "date-time": "2026-01-31T12:34:56Z",
    "duration": "PT90S",
    "email": "simulated@example.com",
    "hostname": "simulated.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_WRONG: tuple[Any, ...] = ("[simulated] wrong", None, 0, True, [], {})


def read(given: object) -> Schema | None:
    """The schema of a `response_format`; None where it asks for none.

    Raises RequestError where it is no schema, or one that no value is found for.
    """
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        return None
    wrapped = given.get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
    if not isinstance(schema, dict):
        raise _refused("'json_schema' must hold a 'schema'")
    _example(_canonical(schema))
    return schema


def valid(schema: Schema, seed: bytes, word: Callable[[random.Random], str]) -> str:
    """JSON that the schema is content with; the same for the same seed."""
    validator, draw = _validator(_canonical(schema)), random.Random(seed)
    for _ in range(TRIES):
        value = _Maker(schema, draw, word).make(schema)
        if validator.is_valid(value):
            return json.dumps(value, ensure_ascii=False)
    return _example(_canonical(schema))


def wrong(schema: Schema, text: str) -> str:
    """JSON that the schema is not content with: the same, less a property, or something else."""
    validator, value = _validator(_canonical(schema)), json.loads(text)
    names = value if isinstance(value, dict) else ()
    less = [{other: value[other] for other in names if other != name} for name in names]
    found = (each for each in (*less, *_WRONG) if not validator.is_valid(each))
    return json.dumps(next(found, value), ensure_ascii=False)


def _canonical(schema: Schema) -> bytes:
    return orjson.dumps(schema)


@functools.lru_cache(maxsize=64)
def _validator(canonical: bytes) -> Any:
    # Here and not above: few rows ask for a schema, and the package takes a tenth of a start.
    import jsonschema  # noqa: PLC0415

    schema = orjson.loads(canonical)
    return jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema)


@functools.lru_cache(maxsize=64)
def _example(canonical: bytes) -> str:
    """One value that is valid. Raises RequestError."""
    from jsonschema import SchemaError  # noqa: PLC0415

    schema, validator = orjson.loads(canonical), _validator(canonical)
    try:
        validator.check_schema(schema)
        for number in range(TRIES):
            maker = _Maker(schema, random.Random(number), lambda _: "simulated")
            value = maker.make(schema)
            if validator.is_valid(value):
                return json.dumps(value)
    except (SchemaError, LookupError, TypeError, ValueError, RecursionError):
        raise _refused("the schema is none, or refers to what it does not have") from None
    raise _refused("the schema has a keyword that is not supported")


def _refused(why: str) -> RequestError:
    message = f"Invalid schema for response_format: {why}."
    return RequestError("invalid_parameter", message, "response_format")


class _Maker:
    """Makes values of one schema; what is drawn decides which."""

    def __init__(
        self, root: Schema, draw: random.Random, word: Callable[[random.Random], str]
    ) -> None:
        self._root = root
        self._draw = draw
        self._word = word

    def make(self, schema: Any, depth: int = 0) -> Any:
        """A value; `depth` counts the objects and lists around it."""
        if not isinstance(schema, dict):
            return self._text({})
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._draw.choice(schema["enum"])
        if "$ref" in schema:
            return self.make(self._resolved(schema["$ref"]), depth)
        if "allOf" in schema:
            return self.make(_merged(schema), depth)
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return self.make(self._option(options, depth), depth)
        return self._typed(schema, depth)

    def _typed(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        match self._draw.choice(kind) if isinstance(kind, list) else kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._list(schema, depth)
            case "integer":
                return int(self._number(schema, 1))
            case "number":
                return self._number(schema, 0.5)
            case "boolean":
                return self._draw.random() < 0.5
            case "null":
                return None
            case _:
                return self._text(schema)

    def _option(self, options: Sequence[Any], depth: int) -> Any:
        if depth < DEEPEST:
            return self._draw.choice(options)
        return min(options, key=lambda option: ("$ref" in str(option), len(str(option))))

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        required, properties = schema.get("required", []), schema.get("properties", {})
        rest = schema.get("additionalProperties", {})
        made = {
            name: self.make(each, depth + 1)
            for name, each in properties.items()
            if name in required or (depth < DEEPEST and self._draw.random() < 0.5)
        }
        return made | {n: self.make(rest, depth + 1) for n in required if n not in properties}

    def _list(self, schema: Schema, depth: int) -> list[Any]:
        first, least = schema.get("prefixItems", []), schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, len(first), MOST_ITEMS))
        count = least
        if depth < DEEPEST:
            count = self._draw.randint(least, max(least, min(most, least + MOST_ITEMS)))
        items = [*first[:count], *[schema.get("items", {})] * (count - len(first))]
        return [self.make(item, depth + 1) for item in items]

    def _number(self, schema: Schema, step: float) -> float:
        step = schema.get("multipleOf", step)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is None:
            low = 0 if high is None or high > 0 else high - 100 * step
        if high is None:
            high = low + 100 * step
        lowest, highest = -int(-low // step), int(high // step)
        return step * self._draw.randint(
            lowest + ("exclusiveMinimum" in schema and lowest * step == low),
            highest - ("exclusiveMaximum" in schema and highest * step == high),
        )

    def _text(self, schema: Schema) -> str:
        if (fixed := _FORMATS.get(schema.get("format", ""))) is not None:
            return fixed
        least, most = schema.get("minLength", 0), schema.get("maxLength", 200)
        text = self._word(self._draw)
        while len(text) < least:
            text += f" {self._word(self._draw)}"
        return text[: max(least, most)][:most]

    def _resolved(self, reference: str) -> Any:
        place, found = reference.removeprefix("#"), self._root
        for part in filter(None, place.split("/")):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return found


def _merged(schema: Schema) -> Schema:
    """The parts of an allOf as one object's schema."""
    merged: dict[str, Any] = {name: each for name, each in schema.items() if name != "allOf"}
    for part in schema["allOf"]:
        merged |= {
            name: _joined(merged[name], each) if name in merged else each
            for name, each in part.items()
        }
    return merged


def _joined(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return one | other
    return [*one, *other] if isinstance(one, list) and isinstance(other, list) else other
