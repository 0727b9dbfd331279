"""Who may do what: the least that each can do its work with."""

import re
from collections.abc import Iterator, Mapping

from tree_sitter import Node

from tests.infra.bicep import at, literal, member, properties, text
from tests.infra.resources import Templates

ACCESS = "infra/service/access.bicep"

ROLES: Mapping[str, str] = {
    "storageBlobDataOwner": "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "storageBlobDataContributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "serviceBusDataOwner": "090c5cfd-751d-490a-894a-3ce6f1109419",
    "serviceBusDataSender": "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39",
    "serviceBusDataReceiver": "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0",
    "keyVaultSecretsUser": "4633458b-17de-408a-b874-0445c86b69e6",
    "keyVaultSecretsOfficer": "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
    "monitoringMetricsPublisher": "3913510d-42f4-4e42-8a64-420c390055eb",
}

# Who holds what, and where: the least that each can do its work with.
HELD = frozenset(
    {
        ("identity.properties.principalId", "storageBlobDataOwner", "account"),
        ("identity.properties.principalId", "serviceBusDataOwner", "namespace"),
        ("identity.properties.principalId", "keyVaultSecretsUser", "vault"),
        ("identity.properties.principalId", "monitoringMetricsPublisher", "insights"),
        ("topicPrincipalId", "serviceBusDataSender", "namespace::jobs"),
        ("topicPrincipalId", "storageBlobDataContributor", "account::blobs::deadLetters"),
        ("person.id", "storageBlobDataContributor", "account"),
        ("person.id", "serviceBusDataSender", "namespace"),
        ("person.id", "serviceBusDataReceiver", "namespace"),
        ("person.id", "keyVaultSecretsOfficer", "vault"),
    }
)


def role_problems(templates: Templates) -> Iterator[str]:
    """Roles that are another's, too many, too few, or would fail to be assigned."""
    access = templates[ACCESS]
    told = {name: literal(node) for name, node in properties(access.variables["roles"]).items()}
    for name in told.keys() ^ ROLES.keys():
        yield f"{ACCESS}: {name} is not a role that is known here"
    for name, guid in told.items():
        if ROLES.get(name) != guid:
            yield f"{ACCESS}: {name} is {ROLES.get(name)}, not {guid}"
    held: set[tuple[str, str, str]] = set()
    for template in templates.values():
        for symbol, resource in template.resources.items():
            if resource.type == "Microsoft.Authorization/roleAssignments":
                where = f"{template.path}: {symbol}"
                held |= _held(resource.body)
                yield from _assignment(where, resource.body)
    for who, role, scope in held ^ HELD:
        yield f"{ACCESS}: {role} on {scope} for {who} is not as it is told here"


def _held(body: Node) -> set[tuple[str, str, str]]:
    scope, who = text(member(body, "scope")), text(member(body, "properties", "principalId"))
    names = re.findall(r"roles\.(\w+)", text(member(body, "properties", "roleDefinitionId")))
    return {(who, name, scope) for name in names}


def _assignment(where: str, body: Node) -> Iterator[str]:
    name, role = text(member(body, "name")), text(member(body, "properties", "roleDefinitionId"))
    scope = text(member(body, "scope"))
    if not name.startswith(f"guid({scope}.id, "):
        yield f"{where}: its name is not made of its scope"
    if ".properties." in name or "Principal" in name:
        yield f"{where}: its name has to be known before anything is deployed"
    if re.findall(r"role\w*(?:\.\w+)?\)$", name) != re.findall(r"role\w*(?:\.\w+)?\)$", role):
        yield f"{where}: its name is made of another role"
    if "'Microsoft.Authorization/roleDefinitions'" not in role:
        yield f"{where}: a role is a definition of the subscription"
    if at(body, "properties", "principalType") is None:
        yield f"{where}: without principalType an identity that is new is not found"
