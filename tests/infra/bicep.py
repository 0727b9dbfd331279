"""What a Bicep file declares, read from its syntax tree.

tree-sitter takes more than the Bicep compiler does: two items on a line without a comma between
them, types that nobody declared, a property that is there twice. `Template.faults` holds what it
lets pass.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_bicep.language()))
_COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter: its type as it is written, its default, its decorators by name."""

    type: str
    default: Node | None
    decorators: dict[str, list[Node]]


@dataclass(frozen=True, slots=True)
class Output:
    """What a module hands to its caller."""

    type: str
    value: Node


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource: its whole type, also where it stands within its parent, its body, and its value,
    which is the body with the loop or the condition around it.
    """

    type: str
    version: str
    existing: bool
    body: Node
    value: Node
    parent: str | None = None
    decorators: dict[str, list[Node]] = field(default_factory=dict)

    @property
    def looped(self) -> bool:
        """Whether it is many."""
        return self.value.type == "for_statement"


@dataclass(frozen=True, slots=True)
class Module:
    """A call of another file: its body, and its value, which may have a condition around it."""

    path: str
    body: Node
    value: Node


@dataclass(slots=True)
class Template:
    """One file. Nested resources are known as `parent::child`."""

    path: str
    root: Node
    scope: str = "resourceGroup"
    params: dict[str, Param] = field(default_factory=dict)
    variables: dict[str, Node] = field(default_factory=dict)
    types: dict[str, Node] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def where(self, node: Node) -> str:
        """File and line of a node."""
        return f"{self.path}:{node.start_point[0] + 1}"

    def called(self, module: Module) -> str:
        """The path of the file that a module calls."""
        return (PurePosixPath(self.path).parent / module.path).as_posix()


def parse(path: str, source: str) -> Template:
    """Read a file's declarations."""
    root = _PARSER.parse(source.encode()).root_node
    template = Template(path, root)
    template.faults += [f"{template.where(node)}: {fault}" for node, fault in _faults(root)]
    decorators: dict[str, list[Node]] = {}
    for node in root.named_children:
        if node.type == "decorators":
            decorators = _decorators(node)
            continue
        if node.type != "comment":
            _declare(template, node, decorators)
            decorators = {}
    return template


def text(node: Node) -> str:
    """A node as it is written."""
    return (node.text or b"").decode()


def literal(node: Node | None) -> str | None:
    """The value of a string without interpolation."""
    if node is None or node.type != "string":
        return None
    if any(child.type != "string_content" for child in node.named_children):
        return None
    return "".join(text(child) for child in node.named_children)


def walk(node: Node) -> Iterator[Node]:
    """A node and all that is named beneath it."""
    yield node
    for child in node.named_children:
        yield from walk(child)


def items(node: Node) -> list[Node]:
    """The children of a node that mean something."""
    return [child for child in node.named_children if child.type != "comment"]


def properties(node: Node) -> dict[str, Node]:
    """The properties of an object by name; a name that is computed is its text."""
    found = {}
    for each in items(node):
        if each.type == "object_property" and len(parts := items(each)) == 2:
            found[_key(parts[0])] = parts[1]
    return found


def at(node: Node, *path: str) -> Node | None:
    """What lies in an object under a path of names."""
    for name in path:
        if node.type != "object" or name not in (inner := properties(node)):
            return None
        node = inner[name]
    return node


def member(node: Node, *path: str) -> Node:
    """What lies under a path of names. Raises AssertionError where it does not."""
    found = at(node, *path)
    assert found is not None, f"no {'.'.join(path)}"
    return found


def _key(node: Node) -> str:
    return text(node) if (value := literal(node)) is None else value


def _declare(template: Template, node: Node, decorators: dict[str, list[Node]]) -> None:
    parts = items(node)
    if node.type == "target_scope_assignment":
        template.scope = literal(parts[0]) or ""
        return
    if not parts:
        return
    name = text(parts[0])
    if node.type == "parameter_declaration":
        default = parts[2] if len(parts) > 2 else None
        template.params[name] = Param(text(parts[1]), default, decorators)
    elif node.type == "variable_declaration":
        template.variables[name] = parts[1]
    elif node.type == "type_declaration":
        template.types[name] = parts[1]
    elif node.type == "output_declaration":
        template.outputs[name] = Output(text(parts[1]), parts[2])
    elif node.type == "module_declaration":
        template.modules[name] = Module(literal(parts[1]) or "", _body(parts[2]), parts[2])
    elif node.type == "resource_declaration":
        _declare_resource(template, node, None, decorators)


def _declare_resource(
    template: Template, node: Node, parent: str | None, decorators: dict[str, list[Node]]
) -> None:
    name, kind, value = items(node)[:3]
    type_, _, version = (literal(kind) or "").partition("@")
    symbol = text(name)
    if parent is not None:
        outer = template.resources[parent]
        symbol, type_ = f"{parent}::{symbol}", f"{outer.type}/{type_}"
        version = version or outer.version
    body = _body(value)
    existing = any(child.type == "existing" for child in node.children)
    template.resources[symbol] = Resource(type_, version, existing, body, value, parent, decorators)
    for each in items(body):
        inner = items(each)
        if inner and inner[0].type == "resource_declaration":
            _declare_resource(template, inner[0], symbol, {})


def _body(node: Node) -> Node:
    """The object that a loop or a condition stands before."""
    while node.type in ("for_statement", "if_statement"):
        node = items(node)[-1]
    return node


def _decorators(node: Node) -> dict[str, list[Node]]:
    found = {}
    for each in items(node):
        call = items(each)[0]
        name, arguments = items(call)[:2] if call.type == "call_expression" else (call, None)
        found[text(name)] = [] if arguments is None else items(arguments)
    return found


def _faults(root: Node) -> Iterator[tuple[Node, str]]:
    for node in walk(root):
        if node.type == "ERROR" or node.is_missing:
            yield node, f"no Bicep: {text(node)[:60]!r}"
        if node.type in ("object", "array"):
            for before, after in zip(children := items(node), children[1:], strict=False):
                between = (root.text or b"")[before.end_byte : after.start_byte]
                if not _COMMENT.sub(b"", between).strip(b" \t\r").startswith((b",", b"\n")):
                    yield after, "no comma and no new line before this"
        if node.type == "object":
            names = [_key(items(each)[0]) for each in items(node) if items(each)]
            for name in {name for name in names if names.count(name) > 1}:
                yield node, f"{name} is there twice"
    for node in _errors(root):
        yield node, f"no Bicep near {text(node)[:60]!r}"


def _errors(node: Node) -> Iterator[Node]:
    """Missing tokens are no named nodes."""
    for child in node.children:
        if not child.is_named and child.is_missing:
            yield child
        if child.has_error:
            yield from _errors(child)
