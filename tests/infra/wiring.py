"""Modules against their callers, and parameters against whoever fills them in."""

import json
import re
from collections.abc import Iterator, Mapping

from tests.infra.bicep import Module, Template, properties, text
from tests.infra.models import Shape
from tests.infra.resources import Reader, Templates, value_problems


def module_problems(
    templates: Templates, template: Template, symbol: str, module: Module
) -> Iterator[str]:
    where = f"{template.where(module.body)}, module {symbol}"
    called = templates.get(template.called(module))
    if called is None:
        yield f"{where}: there is no {module.path}"
        return
    told = properties(module.body)
    for name in told.keys() - {"name", "scope", "params", "dependsOn"}:
        yield f"{where}: a module has no {name}"
    if template.scope != called.scope and "scope" not in told:
        yield f"{where}: {called.path} deploys to a {called.scope}: it lacks a scope"
    given = properties(told["params"]) if "params" in told else {}
    for name, value in given.items():
        if name not in called.params:
            yield f"{template.where(value)}: {called.path} has no parameter {name}"
            continue
        reader = Reader(templates, template)
        shape = Shape(reader.of_type(called.params[name].type))
        yield from value_problems(reader, value, shape, f"{symbol}.{name}")
    for name, param in called.params.items():
        if name not in given and param.default is None and not param.type.endswith("?"):
            yield f"{where}: {called.path} wants {name}"
    for name in re.findall(rf"\b{symbol}!?\.outputs\.(\w+)", text(template.root)):
        if name not in called.outputs:
            yield f"{where}: {called.path} has no output {name}"


# -- parameters that azd fills in --------------------------------------------------------------

AZD = frozenset({"AZURE_ENV_NAME", "AZURE_LOCATION", "AZURE_PRINCIPAL_ID", "AZURE_PRINCIPAL_TYPE"})


def parameter_problems(
    template: Template, parameters: str, before: Mapping[str, object]
) -> Iterator[str]:
    """What a layer's parameters file has too much or too little. `before`: outputs of earlier
    layers, which are the only other names that a parameter without default may come from.
    """
    given = json.loads(parameters)["parameters"]
    for name in given.keys() ^ template.params.keys():
        yield f"{template.path}: {name} is not both a parameter and in the parameters file"
    for name, param in template.params.items():
        if param.type in ("int", "bool"):
            yield f"{template.path}: azd takes a {name} that is no {param.type} for the default"
    for name, value in given.items():
        match = re.fullmatch(r"\$\{([A-Z][A-Z0-9_]*)\}", value["value"])
        if match is None:
            yield f"{template.path}: {name} is {value['value']!r}, and not a variable by itself"
        elif before and match[1] not in before and match[1] not in AZD:
            yield f"{template.path}: {name}: no earlier layer puts out {match[1]}"
