"""What is declared in a file, and what it names that is not."""

import re
from collections.abc import Iterator, Mapping

from tree_sitter import Node

from tests.infra.bicep import Template, items, text, walk
from tests.infra.models import Kind, fields, shape_of

# Bicep's functions that the templates use, and what they return.
FUNCTIONS: Mapping[str, Kind] = {
    "any": "any",
    "concat": "list",
    "contains": "bool",
    "empty": "bool",
    "environment": "any",
    "filter": "list",
    "flatten": "list",
    "guid": "string",
    "int": "int",
    "join": "string",
    "length": "int",
    "loadJsonContent": "any",
    "loadTextContent": "string",
    "map": "list",
    "max": "int",
    "min": "int",
    "range": "list",
    "replace": "string",
    "resourceGroup": "any",
    "resourceId": "string",
    "string": "string",
    "subscription": "any",
    "subscriptionResourceId": "string",
    "tenant": "any",
    "toLower": "string",
    "toObject": "dict",
    "union": "any",
    "uniqueString": "string",
}
DECORATORS = frozenset(
    {
        "allowed",
        "batchSize",
        "description",
        "maxLength",
        "maxValue",
        "minLength",
        "minValue",
        "sealed",
    }
)
TYPES: Mapping[str, Kind] = {
    "string": "string",
    "int": "int",
    "bool": "bool",
    "object": "dict",
    "array": "list",
}


def name_problems(template: Template) -> Iterator[str]:
    """Names without a declaration, declarations without a use, and what resources do not have."""
    yield from _names(template)
    yield from _types(template)
    yield from _reads(template)


def _names(template: Template) -> Iterator[str]:
    declared = {
        *template.params,
        *template.variables,
        *template.modules,
        *(symbol for symbol in template.resources if "::" not in symbol),
    }
    used: set[str] = set()
    for node in template.root.named_children:
        yield from _unknown(template, node, declared, used)
    for name in [*template.params, *template.variables]:
        if name not in used:
            yield f"{template.path}: {name} is declared and not used"


# How many of a declaration's first parts are its own name and type.
_DECLARES = {
    "parameter_declaration": 2,
    "variable_declaration": 1,
    "type_declaration": 2,
    "output_declaration": 2,
    "module_declaration": 1,
    "resource_declaration": 1,
}


def _unknown(template: Template, node: Node, known: set[str], used: set[str]) -> Iterator[str]:
    """The identifiers that nobody declared; what is used is added to `used`."""
    where = template.where(node)
    if node.type == "identifier":
        used.add(text(node))
        if text(node) not in known:
            yield f"{where}: {text(node)} is not declared"
    elif node.type == "resource_expression":
        used.add(text(node).partition("::")[0])
        if text(node) not in template.resources:
            yield f"{where}: {text(node)} is not declared"
    elif node.type == "decorator":
        if (name := text(node)[1:].partition("(")[0]) not in DECORATORS:
            yield f"{where}: there is no decorator {name}"
    else:
        if node.type == "call_expression" and (name := text(items(node)[0])) not in FUNCTIONS:
            yield f"{where}: there is no function {name}"
        if node.type in ("lambda_expression", "for_statement"):
            known = known | _bound(node)
        for child in _meant(node):
            yield from _unknown(template, child, known, used)


def _meant(node: Node) -> list[Node]:
    """The parts of a node that may name something: not what it declares, nor a property's key."""
    parts = items(node)
    if node.type in _DECLARES:
        return parts[_DECLARES[node.type] :]
    if node.type == "call_expression" or node.type in ("lambda_expression", "for_statement"):
        return parts[1:]
    if node.type == "object_property" and parts[0].type == "identifier":
        return parts[1:]
    return parts


def _bound(node: Node) -> set[str]:
    """The names that a loop or a lambda gives to what it goes through."""
    first = items(node)[0]
    return {text(each) for each in walk(first) if each.type in _BINDERS}


_BINDERS = frozenset({"identifier", "loop_variable", "loop_enumerator"})


def _types(template: Template) -> Iterator[str]:
    written = {name: each.type for name, each in template.params.items()}
    written |= {f"output {name}": each.type for name, each in template.outputs.items()}
    for name, type_ in written.items():
        plain = type_.removesuffix("?").removesuffix("[]")
        if plain not in TYPES and plain not in template.types:
            yield f"{template.path}: {name} is of type {type_}, which nobody declared"


def _reads(template: Template) -> Iterator[str]:
    """What is read of resources and is not there."""
    for node in walk(template.root):
        if node.type != "member_expression" or (node.parent or node).type == "member_expression":
            continue
        symbol, *path = re.sub(r"\[[^]]*\]|[!?]", "", text(node)).split(".")
        resource = template.resources.get(symbol)
        shape = shape_of(resource.type, read=True) if resource else None
        for name in path if shape else []:
            if shape is None or shape.kind != "model":
                break
            if name not in fields(shape):
                yield f"{template.where(node)}: {text(node)}: there is no {name}"
                break
            shape = fields(shape)[name].shape
