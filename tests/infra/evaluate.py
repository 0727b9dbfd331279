"""What a Bicep file deploys: its resources with their values, for given parameters.

What is known only once Azure has made a thing stands in braces: `{type name}` is its id, and
`{type name}.properties.clientId` what is read of it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tree_sitter import Node

from tests.infra.bicep import Module, Resource, Template, items, literal, text
from tests.infra.roles import ROLES

# As long as Azure's.
UNIQUE = "uniquestring1"
_PLACES = {
    "environment": {"suffixes": {"storage": "core.windows.net"}},
    "subscription": {"id": "{subscription}"},
    "resourceGroup": {"id": "{resource group}"},
    "tenant": {"tenantId": "{tenant}"},
}


class Told(str):
    """What Azure tells of a thing once it is there."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A resource as it is deployed. `name` begins with its parents'."""

    type: str
    name: str
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> Told:
        return Told(f"{{{self.type} {self.name}}}")


class Undefined(Exception):
    """An expression has no value. Azure, or Bicep, would refuse it."""


# What comes of an expression that is none.
REFUSED = (Undefined, KeyError, IndexError, TypeError, ValueError, AttributeError)


@dataclass(slots=True)
class Deployment:
    """A template with its parameters. What it makes is in `made`, once `run` was called."""

    templates: Mapping[str, Template]
    files: Mapping[str, str]
    template: Template
    given: Mapping[str, Any]
    made: list[Made] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    _known: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Everything is made, also what modules make; gives the outputs. Raises Undefined."""
        for symbol in (*self.template.resources, *self.template.modules):
            self._symbol(symbol)
        return {name: self.value(each.value, {}) for name, each in self.template.outputs.items()}

    def value(self, node: Node, bound: Mapping[str, Any]) -> Any:
        """The value of an expression; `bound`: the names of the loops and lambdas around it."""
        return getattr(self, f"_{node.type}")(node, bound)

    # -- literals

    def _string(self, node: Node, bound: Mapping[str, Any]) -> str:
        if text(node).startswith("'''"):
            return literal(node) or ""
        parts = [
            str(self.value(items(each)[0], bound)) if each.type == "interpolation" else text(each)
            for each in node.named_children
        ]
        return "".join(parts)

    def _number(self, node: Node, _: Mapping[str, Any]) -> int:
        return int(text(node))

    def _boolean(self, node: Node, _: Mapping[str, Any]) -> bool:
        return text(node) == "true"

    def _null(self, _: Node, __: Mapping[str, Any]) -> None:
        return None

    def _array(self, node: Node, bound: Mapping[str, Any]) -> list[Any]:
        return [self.value(each, bound) for each in items(node)]

    def _object(self, node: Node, bound: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for each in items(node):
            if each.type == "object_property" and len(parts := items(each)) == 2:
                key = text(parts[0])
                if parts[0].type == "string":
                    key = self.value(parts[0], bound)
                found[key] = self.value(parts[1], bound)
        return found

    # -- operators

    def _parenthesized_expression(self, node: Node, bound: Mapping[str, Any]) -> Any:
        return self.value(items(node)[0], bound)

    def _unary_expression(self, node: Node, bound: Mapping[str, Any]) -> bool:
        return not self.value(items(node)[0], bound)

    def _binary_expression(self, node: Node, bound: Mapping[str, Any]) -> Any:
        left, right = items(node)
        operator = next(text(each) for each in node.children if not each.is_named)
        first = self.value(left, bound)
        if operator in ("&&", "||"):
            return self.value(right, bound) if bool(first) == (operator == "&&") else first
        return _OPERATORS[operator](first, self.value(right, bound))

    def _ternary_expression(self, node: Node, bound: Mapping[str, Any]) -> Any:
        condition, then, other = items(node)
        return self.value(then if self.value(condition, bound) else other, bound)

    def _for_statement(self, node: Node, bound: Mapping[str, Any]) -> list[Any]:
        return [self.value(body, inner) for body, inner in self._turns(node, bound)]

    def _turns(
        self, node: Node, bound: Mapping[str, Any]
    ) -> Iterator[tuple[Node, Mapping[str, Any]]]:
        """The body of a loop or of a condition, each time that it holds, with its names."""
        if node.type == "for_statement":
            names, over, body = items(node)
            each_of = [text(name) for name in items(names)] or [text(names)]
            for at, each in enumerate(self.value(over, bound)):
                yield from self._turns(
                    body, {**bound, **dict(zip(each_of, (each, at), strict=False))}
                )
        elif node.type == "if_statement":
            condition, body = items(node)
            if self.value(condition, bound):
                yield from self._turns(body, bound)
        else:
            yield node, bound

    # -- names

    def _identifier(self, node: Node, bound: Mapping[str, Any]) -> Any:
        name = text(node)
        return bound[name] if name in bound else self._symbol(name)

    def _resource_expression(self, node: Node, _: Mapping[str, Any]) -> Any:
        return self._symbol(text(node))

    def _symbol(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = self._declared(name)
        return self._known[name]

    def _declared(self, name: str) -> Any:
        template = self.template
        if name in template.params:
            if name in self.given:
                return self.given[name]
            if (default := template.params[name].default) is not None:
                return self.value(default, {})
        elif name in template.variables:
            return self.value(template.variables[name], {})
        elif name in template.resources:
            return self._resource(template.resources[name])
        elif name in template.modules:
            return self._module(name, template.modules[name])
        raise Undefined(f"{template.path}: {name} has no value")

    def _resource(self, resource: Resource) -> Made | list[Made]:
        made = []
        for body, bound in self._turns(resource.value, {}):
            values = self._object(body, bound)
            above = values.pop("parent", None)
            if resource.parent:
                above = self._symbol(resource.parent)
            name = values.pop("name")
            made.append(Made(resource.type, f"{above.name}/{name}" if above else name, values))
        if not resource.existing:
            self.made += made
        if resource.looped:
            return made
        # One that is not deployed may be named where its condition is asked again.
        return made[0] if made else Made(resource.type, "not deployed")

    def _module(self, symbol: str, module: Module) -> Any:
        for body, bound in self._turns(module.value, {}):
            told = self._object(body, bound)
            called = self.templates[self.template.called(module)]
            inner = Deployment(self.templates, self.files, called, told["params"])
            outputs = inner.run()
            self.made += inner.made
            taken = sorted(set(re.findall(r"\b(\w+)!?\.outputs(\.\w+)", text(body))))
            waits = "".join(f" {other}{output}" for other, output in taken)
            self.order += [f"module {symbol}, deployed as {told['name']}, takes:{waits}"]
            self.order += inner.order
            return {"outputs": outputs}
        return {"outputs": {}}

    # -- what is read of things

    def _member_expression(self, node: Node, bound: Mapping[str, Any]) -> Any:
        of, name = items(node)
        return self._member(self.value(of, bound), text(name), node)

    def _subscript_expression(self, node: Node, bound: Mapping[str, Any]) -> Any:
        of, at = items(node)
        inner, place = self.value(of, bound), self.value(at, bound)
        return inner[place] if isinstance(inner, list) else self._member(inner, place, node)

    def _member(self, of: Any, name: str, node: Node) -> Any:
        if isinstance(of, Made):
            return {"id": of.id, "name": of.name.rpartition("/")[2]}.get(
                name, Told(f"{of.id}.{name}")
            )
        if isinstance(of, Told):
            return Told(f"{of}.{name}")
        if isinstance(of, Mapping) and name in of:
            return of[name]
        raise Undefined(f"{self.template.where(node)}: {text(node)} has no value")

    # -- functions

    def _lambda_expression(self, node: Node, bound: Mapping[str, Any]) -> Callable[[Any], Any]:
        name, body = items(node)
        return lambda each: self.value(body, {**bound, text(name): each})

    def _call_expression(self, node: Node, bound: Mapping[str, Any]) -> Any:
        called, arguments = items(node)
        given = [self.value(each, bound) for each in items(arguments)]
        name = text(called)
        if name in ("loadJsonContent", "loadTextContent"):
            return self._file(node, name, given[0])
        return _FUNCTIONS[name](*given)

    def _file(self, node: Node, name: str, path: str) -> Any:
        place = PurePosixPath(self.template.path).parent
        for part in PurePosixPath(path).parts:
            place = place.parent if part == ".." else place / part
        if place.as_posix() not in self.files:
            raise Undefined(f"{self.template.where(node)}: there is no {place}")
        content = self.files[place.as_posix()]
        return json.loads(content) if name == "loadJsonContent" else content


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The values within a value, as text, by their paths."""
    if isinstance(value, Made):
        yield path, value.id
    elif isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from leaves(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for at, each in enumerate(value):
            yield from leaves(each, f"{path}[{at}]")
    elif path.endswith("serializedData"):
        yield path, f"the workbook, with {sorted(set(re.findall(r'{M[^}]+}|<[a-z]+>', value)))}"
    elif isinstance(value, str) and not re.fullmatch(r"true|false|null|-?\d+", value):
        yield path, " ".join(value.split())
    else:
        yield path, json.dumps(value)


_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def _union(*given: Any) -> Any:
    if isinstance(given[0], Mapping):
        return {name: value for each in given for name, value in each.items()}
    return list(dict.fromkeys(each for one in given for each in one))


def _definition(type_: str, role: str) -> Told:
    return Made(type_, {guid: name for name, guid in ROLES.items()}.get(role, role)).id


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{name: (lambda place=place: place) for name, place in _PLACES.items()},
    "any": lambda value: value,
    "concat": lambda *lists: [each for one in lists for each in one],
    "contains": lambda within, one: one in within,
    "empty": lambda value: not value,
    "filter": lambda values, keep: [each for each in values if keep(each)],
    "flatten": lambda lists: [each for one in lists for each in one],
    "guid": lambda *parts: f"guid({', '.join(parts)})",
    "int": int,
    "join": lambda values, by: by.join(values),
    "length": len,
    "map": lambda values, make: [make(each) for each in values],
    "max": max,
    "min": min,
    "range": lambda start, count: list(range(start, start + count)),
    "replace": lambda value, old, new: type(value)(value.replace(old, new)),
    "resourceId": lambda type_, *names: Made(type_, "/".join(names)).id,
    "string": lambda value: value if isinstance(value, str) else json.dumps(value),
    "subscriptionResourceId": _definition,
    "toLower": lambda value: value.lower(),
    "toObject": lambda values, key, make: {key(each): make(each) for each in values},
    "union": _union,
    "uniqueString": lambda *_: UNIQUE,
}
