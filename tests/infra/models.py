"""What Azure takes of each resource, read from the models of its own management SDKs.

The SDKs come in two generations. The older say what they send in `_attribute_map`, with a path
where Azure nests properties, and what may be sent in the annotations of `__init__`; the newer have
a descriptor for each field. Both become a `Shape`.
"""

import datetime
import enum
import importlib
import importlib.util
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ForwardRef, Literal, Union

Kind = Literal["string", "int", "bool", "list", "dict", "model", "any"]


@dataclass(frozen=True)
class Shape:
    """What a value has to be: `values` of a string that is one of several, `item` of a list or of
    a dictionary's values, `model` and the path within it of an object.
    """

    kind: Kind
    values: frozenset[str] = frozenset()
    item: "Shape | None" = None
    model: Any = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """One property, as Azure calls it."""

    shape: Shape
    required: bool = False
    read_only: bool = False


ANY = Shape("any")
STRING = Shape("string")

_WEB = "azure.mgmt.web.models"
_BUS = "azure.mgmt.servicebus.models"
_STORAGE = "azure.mgmt.storage.models"
_EVENTS = "azure.mgmt.eventgrid.models"
_MONITOR = "azure.mgmt.monitor.models"
_NETWORK = "azure.mgmt.network.models"
_DNS = "azure.mgmt.privatedns.models"

# Resource types, the versions of their API whose types are published, and their models.
RESOURCES: Mapping[str, tuple[str, str]] = {
    "Microsoft.Resources/resourceGroups": ("2024-11-01", ""),
    "Microsoft.Web/serverfarms": ("2024-11-01", f"{_WEB}:AppServicePlan"),
    "Microsoft.Web/sites": ("2024-11-01", f"{_WEB}:Site"),
    "Microsoft.Web/sites/config": ("2024-11-01", f"{_WEB}:StringDictionary"),
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": (
        "2024-11-01",
        f"{_WEB}:CsmPublishingCredentialsPoliciesEntity",
    ),
    "Microsoft.ServiceBus/namespaces": ("2024-01-01", f"{_BUS}:SBNamespace"),
    "Microsoft.ServiceBus/namespaces/networkRuleSets": ("2024-01-01", f"{_BUS}:NetworkRuleSet"),
    "Microsoft.ServiceBus/namespaces/queues": ("2024-01-01", f"{_BUS}:SBQueue"),
    "Microsoft.ServiceBus/namespaces/topics": ("2024-01-01", f"{_BUS}:SBTopic"),
    "Microsoft.ServiceBus/namespaces/topics/subscriptions": (
        "2024-01-01",
        f"{_BUS}:SBSubscription",
    ),
    "Microsoft.ServiceBus/namespaces/topics/subscriptions/rules": ("2024-01-01", f"{_BUS}:Rule"),
    "Microsoft.Storage/storageAccounts": (
        "2025-06-01",
        f"{_STORAGE}:StorageAccountCreateParameters",
    ),
    "Microsoft.Storage/storageAccounts/blobServices": (
        "2025-06-01",
        f"{_STORAGE}:BlobServiceProperties",
    ),
    "Microsoft.Storage/storageAccounts/blobServices/containers": (
        "2025-06-01",
        f"{_STORAGE}:BlobContainer",
    ),
    "Microsoft.Storage/storageAccounts/managementPolicies": (
        "2025-06-01",
        f"{_STORAGE}:ManagementPolicy",
    ),
    "Microsoft.EventGrid/systemTopics": ("2025-02-15", f"{_EVENTS}:SystemTopic"),
    "Microsoft.EventGrid/systemTopics/eventSubscriptions": (
        "2025-02-15",
        f"{_EVENTS}:EventSubscription",
    ),
    "Microsoft.KeyVault/vaults": ("2024-11-01", "azure.mgmt.keyvault.models:Vault"),
    "Microsoft.OperationalInsights/workspaces": (
        "2025-02-01",
        "azure.mgmt.loganalytics.models:Workspace",
    ),
    "Microsoft.Insights/components": (
        "2020-02-02",
        "azure.mgmt.applicationinsights.v2020_02_02.models:ApplicationInsightsComponent",
    ),
    "Microsoft.Insights/workbooks": (
        "2023-06-01",
        "azure.mgmt.applicationinsights.v2023_06_01.models:Workbook",
    ),
    "Microsoft.Insights/actionGroups": ("2023-01-01", f"{_MONITOR}:ActionGroupResource"),
    "Microsoft.Insights/metricAlerts": ("2018-03-01", f"{_MONITOR}:MetricAlertResource"),
    "Microsoft.Insights/scheduledQueryRules": (
        "2023-12-01",
        f"{_MONITOR}:ScheduledQueryRuleResource",
    ),
    "Microsoft.Consumption/budgets": ("2023-11-01", "azure.mgmt.consumption.models:Budget"),
    "Microsoft.ManagedIdentity/userAssignedIdentities": (
        "2024-11-30",
        "azure.mgmt.msi.v2024_11_30.models:Identity",
    ),
    "Microsoft.Authorization/roleAssignments": (
        "2022-04-01",
        "azure.mgmt.authorization.v2022_04_01.models:RoleAssignmentCreateParameters",
    ),
    "Microsoft.Authorization/locks": (
        "2020-05-01",
        "azure.mgmt.resource.locks.models:ManagementLockObject",
    ),
    "Microsoft.Network/publicIPAddresses": ("2024-05-01", f"{_NETWORK}:PublicIPAddress"),
    "Microsoft.Network/natGateways": ("2024-05-01", f"{_NETWORK}:NatGateway"),
    "Microsoft.Network/virtualNetworks": ("2024-05-01", f"{_NETWORK}:VirtualNetwork"),
    "Microsoft.Network/virtualNetworks/subnets": ("2024-05-01", f"{_NETWORK}:Subnet"),
    "Microsoft.Network/privateEndpoints": ("2024-05-01", f"{_NETWORK}:PrivateEndpoint"),
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": (
        "2024-05-01",
        f"{_NETWORK}:PrivateDnsZoneGroup",
    ),
    "Microsoft.Network/privateDnsZones": ("2024-06-01", f"{_DNS}:PrivateZone"),
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": (
        "2024-06-01",
        f"{_DNS}:VirtualNetworkLink",
    ),
}


# Where Azure answers with another model than it takes.
ANSWERS: Mapping[str, str] = {"Microsoft.Storage/storageAccounts": f"{_STORAGE}:StorageAccount"}


def shape_of(resource: str, *, read: bool = False) -> Shape | None:
    """The shape of a resource's body, as it is sent or as it is read; None without a model."""
    named = RESOURCES[resource][1]
    module, _, name = (ANSWERS.get(resource, named) if read else named).partition(":")
    return Shape("model", model=getattr(_models(module), name)) if module else None


@cache
def _models(module: str) -> types.ModuleType:
    """A module of models without its SDK's client and operations, which take most of the time."""
    packages = module.split(".")[:-1]
    for depth in range(3, len(packages) + 1):
        package = ".".join(packages[:depth])
        if package not in sys.modules and (spec := importlib.util.find_spec(package)):
            bare = types.ModuleType(package)
            bare.__path__ = list(spec.submodule_search_locations or ())
            sys.modules[package] = bare
    return importlib.import_module(module)


def fields(shape: Shape) -> dict[str, Field]:
    """The properties of an object, by the names that Azure gives them."""
    return _fields(shape.model, shape.path)


@cache
def _fields(model: Any, path: tuple[str, ...]) -> dict[str, Field]:
    return _mapped(model, path) if hasattr(model, "_attribute_map") else _described(model)


def variant(shape: Shape, told: Mapping[str, str]) -> Shape:
    """The model that an object is, among those that one property of it tells apart."""
    by = vars(shape.model).get("_subtype_map")
    if by:
        ((attribute, names),) = by.items()
        wire = shape.model._attribute_map[attribute]["key"].replace("\\.", ".")
        if (name := names.get(told.get(wire))) is not None:
            chosen = getattr(importlib.import_module(shape.model.__module__), name)
            return variant(Shape("model", model=chosen), told)
    return shape


def tells_apart(shape: Shape) -> tuple[str, frozenset[str]] | None:
    """The property that tells models apart, and what it may be."""
    by = vars(shape.model).get("_subtype_map")
    if not by:
        return None
    ((attribute, names),) = by.items()
    return shape.model._attribute_map[attribute]["key"].replace("\\.", "."), frozenset(names)


def _described(model: Any) -> dict[str, Field]:
    found = {}
    for owner in reversed(model.__mro__):
        names = importlib.import_module(owner.__module__.rsplit(".", 1)[0])
        for attribute, descriptor in vars(owner).items():
            if not hasattr(descriptor, "_rest_name_input"):
                continue
            annotation = owner.__annotations__[attribute]
            found[descriptor._rest_name_input or attribute] = Field(
                _shape(annotation, names),
                required=not _optional(annotation),
                read_only=descriptor._visibility == ["read"],
            )
    return found


def _mapped(model: Any, path: tuple[str, ...]) -> dict[str, Field]:
    names = importlib.import_module(model.__module__.rsplit(".", 1)[0])
    told = _init_annotations(model)
    found = {}
    for attribute, entry in model._attribute_map.items():
        steps = tuple(
            step.replace("\0", ".") for step in entry["key"].replace("\\.", "\0").split(".")
        )
        if steps[: len(path)] != path:
            continue
        wire, rest = steps[len(path)], steps[len(path) + 1 :]
        if rest:
            found[wire] = Field(Shape("model", model=model, path=(*path, wire)))
            continue
        rules = getattr(model, "_validation", {}).get(attribute, {})
        annotation = told.get(attribute)
        shape = _shape(annotation, names) if annotation else _named(entry["type"], names)
        found[wire] = Field(shape, rules.get("required", False), rules.get("readonly", False))
    return found


def _init_annotations(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for owner in reversed(model.__mro__):
        found.update(getattr(vars(owner).get("__init__"), "__annotations__", {}))
    return found


def _optional(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation)


_PLAIN: dict[Any, Shape] = {
    bool: Shape("bool"),
    int: Shape("int"),
    float: Shape("int"),
    str: STRING,
    datetime.datetime: STRING,
    datetime.timedelta: STRING,
}


def _shape(annotation: Any, names: Any) -> Shape:
    """The shape of an annotation whose forward references are looked up in a package."""
    if isinstance(annotation, str):
        annotation = ForwardRef(annotation)
    if isinstance(annotation, ForwardRef):
        named = annotation.__forward_arg__.rsplit(".", 1)[-1]
        return _class(getattr(names, named, None))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        values = [each.value if isinstance(each, enum.Enum) else each for each in arguments]
        return Shape("string", values=frozenset(map(str, values)))
    if origin in (Union, types.UnionType):
        shapes = [_shape(each, names) for each in arguments if each is not type(None)]
        return max(shapes, key=lambda each: (len(each.values), each.kind == "model"))
    if origin is list or origin in (typing.List, typing.Sequence):  # noqa: UP006 - the SDKs' own
        return Shape("list", item=_shape(arguments[0], names))
    if origin is dict:
        return Shape("dict", item=_shape(arguments[1], names))
    return _PLAIN.get(annotation) or _class(annotation)


def _class(found: Any) -> Shape:
    if isinstance(found, type) and issubclass(found, enum.Enum):
        return Shape("string", values=frozenset(str(each.value) for each in found))
    if hasattr(found, "_attribute_map") or hasattr(found, "_is_model") or _is_described(found):
        return Shape("model", model=found)
    return ANY


def _is_described(found: Any) -> bool:
    return isinstance(found, type) and any(
        hasattr(each, "_rest_name_input")
        for owner in found.__mro__
        for each in vars(owner).values()
    )


def _named(name: str, names: Any) -> Shape:
    """The shape of a type as `_attribute_map` writes it: str, [Name], {Name}."""
    if name[0] in "[{":
        return Shape("list" if name[0] == "[" else "dict", item=_named(name[1:-1], names))
    plain = {"str": STRING, "bool": Shape("bool"), "int": Shape("int"), "float": Shape("int")}
    return plain.get(name) or _class(getattr(names, name, None))
