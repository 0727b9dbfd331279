"""Which functions does an app have, and do their parameters fit their bindings?

The checks are those that Azure's worker makes when it indexes an app
(azure_functions_runtime/functions.py, `Registry.add_indexed_function`), so that a mistake shows
here and not after a deployment.
"""

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func
from azurefunctions.extensions.base import get_binding_registry

from local.settings import expand

# The decoders by trigger type: those of the package, and those of its SDK-type extensions.
CONVERTERS: Any = func.get_binding_registry()  # type: ignore[no-untyped-call]
DEFERRED_CONVERTERS: Any = get_binding_registry()

SUPPORTED_TRIGGERS = ("blobTrigger", "serviceBusTrigger", "timerTrigger", "httpTrigger")


class LoadError(Exception):
    """The app cannot be loaded; the message says which function and why."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the app.

    `trigger` is the trigger's function.json, its `%SETTING%`s resolved. `parameter` is the name
    of the argument that takes the trigger's value and `pytype` its annotation.
    """

    name: str
    call: Callable[..., Any]
    kind: str
    trigger: Mapping[str, Any]
    parameter: str
    pytype: type
    takes_context: bool = False
    folder: Path = field(default_factory=Path)

    @property
    def deferred(self) -> bool:
        """Whether the trigger's value is an SDK client, made from a reference."""
        return bool(DEFERRED_CONVERTERS.check_supported_type(self.pytype))


def import_app(folder: Path, module: str = "function_app") -> ModuleType:
    """Import `folder`'s function_app.py, which does no I/O."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(module)


def load(app_module: ModuleType) -> list[Function]:
    """The functions of a module's `app`, checked. An app can be indexed only once."""
    app = getattr(app_module, "app", None)
    if not isinstance(app, func.FunctionApp):
        raise LoadError(f"{app_module.__name__}.py has no `app = func.FunctionApp()`")
    folder = Path(app_module.__file__ or ".").parent
    functions = [_load_one(each, folder) for each in app.get_functions()]
    if not functions:
        raise LoadError(f"{app_module.__name__}.py has no functions")
    return functions


def _load_one(built: Any, folder: Path) -> Function:
    name = built.get_function_name()
    call = built.get_user_function()
    trigger = built.get_trigger()
    if trigger is None:
        raise LoadError(f"function {name} has no trigger")
    described = {key: _plain(value) for key, value in trigger.get_dict_repr().items()}
    if described["type"] not in SUPPORTED_TRIGGERS:
        raise LoadError(f"function {name}: the local host has no {described['type']}")
    parameters = inspect.signature(call).parameters
    bound = _check_bindings(name, built.get_bindings(), parameters)
    hints = typing.get_type_hints(call)
    _check_type(name, described, bound, hints.get(bound))
    return Function(
        name=name,
        call=call,
        kind=described["type"],
        trigger=described,
        parameter=bound,
        pytype=hints[bound],
        takes_context="context" in parameters,
        folder=folder,
    )


def _check_bindings(name: str, bindings: list[Any], parameters: Mapping[str, Any]) -> str:
    bound = {binding.name for binding in bindings if binding.name != "$return"}
    missing = bound - set(parameters)
    if missing:
        raise LoadError(
            f"function {name}: declared in its decorators but not in Python: {sorted(missing)}"
        )
    extra = set(parameters) - bound - {"context"}
    if extra:
        raise LoadError(f"function {name}: in Python but not in its decorators: {sorted(extra)}")
    others = [each.type for each in bindings if each.name != "$return" and not _is_trigger(each)]
    if others:
        raise LoadError(
            f"function {name}: the local host has triggers only, no {others[0]} binding"
        )
    return str(next(each.name for each in bindings if _is_trigger(each)))


def _is_trigger(binding: Any) -> bool:
    return bool(binding.type.endswith("Trigger"))


def _check_type(name: str, trigger: Mapping[str, Any], parameter: str, pytype: Any) -> None:
    if pytype is None:
        raise LoadError(f"function {name}: annotate the parameter {parameter!r} with its type")
    if DEFERRED_CONVERTERS.check_supported_type(pytype):
        return
    if trigger["type"] == "blobTrigger":
        raise LoadError(
            f"function {name}: the local host gives a blob as BlobClient only, not as "
            f"{pytype.__name__}, which would carry its whole content through the host"
        )
    converter = CONVERTERS.get(trigger["type"])
    if converter is None or not converter.check_input_type_annotation(pytype):
        raise LoadError(
            f"function {name}: {parameter!r} cannot be {pytype!r} for a {trigger['type']}"
        )


def _plain(value: Any) -> Any:
    """function.json's value of a decorator's argument; `%SETTING%` is resolved."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return expand(value) if isinstance(value, str) else value
