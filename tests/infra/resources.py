"""Each resource's properties against Azure's own models."""

import re
from collections.abc import Iterator, Mapping

from tree_sitter import Node

from tests.infra.bicep import Resource, Template, items, literal, properties, text
from tests.infra.models import (
    RESOURCES,
    Field,
    Kind,
    Shape,
    fields,
    shape_of,
    tells_apart,
    variant,
)
from tests.infra.names import FUNCTIONS, TYPES

# Bicep's own properties of a resource.
BICEPS = frozenset({"parent", "scope", "dependsOn", "name"})

Templates = Mapping[str, Template]


def resource_problems(
    templates: Templates, template: Template, symbol: str, resource: Resource
) -> Iterator[str]:
    where = f"{template.where(resource.body)}, {symbol}"
    if resource.type not in RESOURCES:
        yield f"{where}: no model is known for {resource.type}"
        return
    if resource.version != RESOURCES[resource.type][0]:
        yield f"{where}: {resource.version} is not the version that was looked at"
    told = properties(resource.body)
    if "name" not in told:
        yield f"{where}: has no name"
    if resource.type.count("/") > 1 and resource.parent is None and "parent" not in told:
        yield f"{where}: has no parent"
    if resource.existing:
        return
    shape = shape_of(resource.type)
    if shape is None:
        return
    inner = {name: value for name, value in told.items() if name not in BICEPS}
    yield from _object(Reader(templates, template), inner, shape, resource.body, where)


class Reader:
    """What an expression is, as far as the templates tell."""

    def __init__(self, templates: Templates, template: Template) -> None:
        self.templates = templates
        self.template = template

    def kind(self, node: Node) -> Kind:
        """The kind of an expression's value."""
        if node.type == "call_expression":
            return FUNCTIONS.get(text(items(node)[0]), "any")
        if node.type == "identifier" and (param := self.template.params.get(text(node))):
            return self.of_type(param.type)
        if node.type == "member_expression":
            return self._member(text(node))
        if node.type == "binary_expression" and re.search(r"&&|\|\||[=!<>]=?|[<>]", text(node)):
            return "bool"
        return "any"

    def of_type(self, type_: str) -> Kind:
        """The kind of values of a declared type."""
        plain = type_.removesuffix("?")
        return "list" if plain.endswith("[]") else TYPES.get(plain, "dict")

    def _member(self, path: str) -> Kind:
        symbol, _, rest = path.replace("!", "").partition(".")
        if module := self.template.modules.get(symbol):
            called = self.templates.get(self.template.called(module))
            output = called and called.outputs.get(rest.removeprefix("outputs."))
            return self.of_type(output.type) if output else "any"
        if symbol in self.template.resources and rest in ("id", "name"):
            return "string"
        return "any"


def _object(
    reader: Reader, told: Mapping[str, Node], shape: Shape, node: Node, where: str
) -> Iterator[str]:
    apart = tells_apart(shape)
    if apart and (name := literal(told.get(apart[0]))) is not None and name not in apart[1]:
        yield f"{where}: {apart[0]} is {name!r}, not one of {sorted(apart[1])}"
        return
    shape = variant(shape, {name: literal(value) or "" for name, value in told.items()})
    known = fields(shape)
    for name, value in told.items():
        if name not in known:
            yield f"{reader.template.where(value)}: {where} has no property {name}"
        elif known[name].read_only:
            yield f"{reader.template.where(value)}: {where}.{name} is read-only"
        else:
            yield from value_problems(reader, value, known[name].shape, f"{where}.{name}")
    for name, field in known.items():
        if field.required and not field.read_only and name not in told and not _own(name, field):
            yield f"{reader.template.where(node)}: {where} lacks {name}"


def _own(name: str, field: Field) -> bool:
    """Whether Bicep or Azure fills in what a model requires."""
    return name == "location" or (name == "properties" and field.shape.kind == "model")


_LITERALS: Mapping[str, Kind] = {
    "string": "string",
    "number": "int",
    "boolean": "bool",
    "array": "list",
    "for_statement": "list",
    "object": "dict",
}


def value_problems(reader: Reader, node: Node, shape: Shape, where: str) -> Iterator[str]:
    """What is wrong with an expression where a shape is wanted."""
    if shape.kind == "any" or node.type == "null":
        return
    if node.type == "ternary_expression":
        for branch in items(node)[1:]:
            yield from value_problems(reader, branch, shape, where)
        return
    if node.type == "identifier" and (value := reader.template.variables.get(text(node))):
        yield from value_problems(reader, value, shape, where)
        return
    wanted: Kind = "dict" if shape.kind == "model" else shape.kind
    found = _LITERALS.get(node.type) or reader.kind(node)
    if found not in ("any", wanted):
        yield f"{reader.template.where(node)}: {where} takes {wanted}, not {found}"
    elif node.type == "object" and shape.kind == "model":
        yield from _object(reader, properties(node), shape, node, where)
    elif shape.item:
        for name, each in _within(node):
            yield from value_problems(reader, each, shape.item, f"{where}{name}")
    elif shape.values:
        yield from _choice(reader, node, shape, where)


def _within(node: Node) -> Iterator[tuple[str, Node]]:
    """The values of a dictionary or a list that stands there as it is."""
    if node.type == "object":
        yield from ((f".{name}", each) for name, each in properties(node).items())
    elif node.type == "array":
        yield from (("[]", each) for each in items(node))
    elif node.type == "for_statement":
        yield "[]", items(node)[-1]


def _choice(reader: Reader, node: Node, shape: Shape, where: str) -> Iterator[str]:
    """A text that has to be one of several; of a parameter, each that is allowed."""
    param = reader.template.params.get(text(node)) if node.type == "identifier" else None
    allowed = param.decorators.get("allowed") if param else None
    for each in items(allowed[0]) if allowed else [node]:
        if (value := literal(each)) is not None and value not in shape.values:
            place = reader.template.where(each)
            yield f"{place}: {where} is {value!r}, not one of {sorted(shape.values)}"
