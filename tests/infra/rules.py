"""What would deploy, and not be safe or not work: keys, containers, events, metrics, deletions."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tree_sitter import Node

from tests.infra.bicep import at, items, literal, member, properties, text, walk
from tests.infra.evaluate import REFUSED, Deployment, Made, leaves
from tests.infra.resources import Templates

MAIN = "infra/service/main.bicep"
STORAGE = "infra/service/storage.bicep"
EVENTS = "infra/events/announcements.bicep"

# -- keys --------------------------------------------------------------------------------------

# Anything that is a key or hands one out. Application Insights' connection string is none: with
# DisableLocalAuth it only says where to send.
KEYS = re.compile(
    r"list(Account)?Keys|listCredentials|list(Account|Service)Sas|SharedAccess(Key|Signature)"
    r"|AccountKey|authorizationRules|primaryKey|secondaryKey|InstrumentationKey"
    r"|AzureWebJobsStorage'?\s*:|ServiceBusConnection'?\s*:|publishxml|secureString",
    re.IGNORECASE,
)

# What keeps a resource keyless and reachable over TLS only.
LOCKED: Mapping[str, Mapping[str, str]] = {
    "Microsoft.Storage/storageAccounts": {
        "properties.allowSharedKeyAccess": "false",
        "properties.allowBlobPublicAccess": "false",
        "properties.defaultToOAuthAuthentication": "true",
        "properties.minimumTlsVersion": "'TLS1_2'",
        "properties.supportsHttpsTrafficOnly": "true",
    },
    "Microsoft.ServiceBus/namespaces": {
        "properties.disableLocalAuth": "true",
        "properties.minimumTlsVersion": "'1.2'",
    },
    "Microsoft.KeyVault/vaults": {"properties.enableRbacAuthorization": "true"},
    "Microsoft.OperationalInsights/workspaces": {"properties.features.disableLocalAuth": "true"},
    "Microsoft.Insights/components": {"properties.DisableLocalAuth": "true"},
    "Microsoft.Web/sites": {
        "properties.httpsOnly": "true",
        "properties.siteConfig.minTlsVersion": "'1.2'",
    },
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": {"properties.allow": "false"},
}


def key_problems(sources: Mapping[str, str]) -> Iterator[str]:
    """Keys, and calls that hand them out, in any file."""
    for path, source in sources.items():
        for number, line in enumerate(source.splitlines(), 1):
            if found := KEYS.search(line):
                yield f"{path}:{number}: {found[0]} is a key, or hands one out"


def locking_problems(templates: Templates) -> Iterator[str]:
    """Resources that a key would open."""
    for template in templates.values():
        for symbol, resource in template.resources.items():
            for path, wanted in LOCKED.get(resource.type, {}).items():
                found = at(resource.body, *path.split("."))
                if not resource.existing and (found is None or text(found) != wanted):
                    yield f"{template.path}: {symbol}.{path} is not {wanted}"


# -- containers, events, alerts ----------------------------------------------------------------


def container_problems(templates: Templates, containers: Mapping[str, object]) -> Iterator[str]:
    """`containers`: what the service takes where nothing is set, by the names in main.bicep."""
    main = templates[MAIN]
    for name, wanted in containers.items():
        node = main.variables[name]
        found = [literal(each) for each in items(node)] if node.type == "array" else literal(node)
        if found != wanted:
            yield f"{MAIN}: {name} is {found}, where the service takes {wanted}"


def event_problems(templates: Templates, watched: str) -> Iterator[str]:
    """`watched`: the container whose files are jobs."""
    body = templates[EVENTS].resources["announcements"].body
    begins = literal(member(body, "properties", "filter", "subjectBeginsWith"))
    if begins != f"/blobServices/default/containers/{watched}/":
        yield f"{EVENTS}: {begins} are not the files of {watched}"
    told = properties(member(body, "properties"))
    for name in ("deliveryWithResourceIdentity", "deadLetterWithResourceIdentity", "retryPolicy"):
        if name not in told:
            yield f"{EVENTS}: without {name} events are lost"
    for name in ("destination", "deadLetterDestination"):
        if name in told:
            yield f"{EVENTS}: {name} would need a key"
    topic = templates[STORAGE].resources["topic"].body
    if literal(at(topic, "identity", "type")) != "SystemAssigned":
        yield f"{STORAGE}: only the topic's own identity passes a firewall"


# Names of metrics, by where they come from. A misspelt one would never fire.
METRICS: Mapping[str, frozenset[str]] = {
    namespace.lower(): frozenset(names.split())
    for namespace, names in {
        "Microsoft.ServiceBus/namespaces": "ActiveMessages DeadletteredMessages ScheduledMessages "
        "Size IncomingMessages OutgoingMessages CompleteMessage AbandonMessage ServerErrors "
        "UserErrors ThrottledRequests",
        "Microsoft.EventGrid/systemTopics": "MatchedEventCount DeliveryAttemptFailCount "
        "DeadLetteredCount DroppedEventCount",
        "Microsoft.Web/sites": "OnDemandFunctionExecutionUnits OnDemandFunctionExecutionCount "
        "AlwaysReadyUnits InstanceCount AverageMemoryWorkingSet Http5xx",
    }.items()
}


def metric_problems(templates: Templates, workbook: str) -> Iterator[str]:
    """Metrics of alerts and of the workbook that Azure does not have."""
    alerts = templates["infra/service/alerts.bicep"]
    for node in walk(alerts.root):
        if node.type != "object" or (told := properties(node)).keys().isdisjoint({"metricName"}):
            continue
        names = [literal(told["metricName"])]
        if names == [None] and (loop := _loop_around(node)):
            names = [literal(each) for each in items(loop)]
        known = METRICS[(literal(told["metricNamespace"]) or "").lower()]
        for name in names:
            if name not in known:
                yield f"{alerts.where(node)}: there is no metric {name}"
    for item in json.loads(workbook)["items"]:
        for metric in item["content"].get("metrics", []):
            namespace, _, name = metric["metric"].partition("--")
            if name not in METRICS[namespace]:
                yield f"workbook.json: there is no metric {name}"


def _loop_around(node: Node | None) -> Node | None:
    while node is not None and node.type != "for_statement":
        node = node.parent
    return next((each for each in items(node) if each.type == "array"), None) if node else None


# Which setting switches a rule of deletion on, what it takes, and after how many days at least: a
# job may take 30 days, its record outlives the file that it keeps from running again, and neither
# the quota's ledger nor the deployed package is among them.
LIFECYCLE: Mapping[str, tuple[str, str]] = {
    "inputs": ("keepInputDays", "dropped/"),
    "results": ("keepResultDays", "resultsContainer/"),
    "state-of-jobs": ("keepInputDays", "stateContainer/jobs/"),
}


def lifecycle_problems(templates: Templates, files: Mapping[str, str]) -> Iterator[str]:
    """Rules that would take what a job still needs, for settings as people choose them."""
    storage = templates[STORAGE]
    usual: dict[str, Any] = {name: name for name in storage.params}
    usual |= {"inputContainers": ["dropped"], "tags": {}, "privateNetwork": False, "locked": False}
    for inputs, results in itertools.product((0, 1, 40), (0, 1, 90)):
        given = usual | {"keepInputDays": inputs, "keepResultDays": results}
        deployment = Deployment(templates, files, storage, given)
        try:
            deployment.run()
        except REFUSED as error:
            yield f"{STORAGE}: what is deleted cannot be told: {error!r}"
            return
        policies = [each for each in deployment.made if each.type.endswith("managementPolicies")]
        rules = [rule for each in policies for rule in each.body["properties"]["policy"]["rules"]]
        yield from _lifecycle(rules, given)


def _lifecycle(rules: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> Iterator[str]:
    if {rule["name"] for rule in rules} != LIFECYCLE.keys():
        yield f"{STORAGE}: the rules are not {sorted(LIFECYCLE)}"
        return
    after = {}
    for rule in rules:
        name, (setting, prefix) = rule["name"], LIFECYCLE[rule["name"]]
        if rule["enabled"] != bool(given[setting]):
            yield f"{STORAGE}: rule {name} is on, or off, whatever {setting} says"
        if rule["definition"]["filters"]["prefixMatch"] != [prefix]:
            yield f"{STORAGE}: rule {name} takes other blobs than {prefix}"
        actions = rule["definition"]["actions"]["baseBlob"]
        after[name] = actions["delete"]["daysAfterModificationGreaterThan"]
    for name, least in {
        "inputs": max(31, given["keepInputDays"]),
        "results": max(31, given["keepResultDays"]),
        "state-of-jobs": after["inputs"] + 31,
    }.items():
        if after[name] < least:
            yield f"{STORAGE}: rule {name} takes blobs after {after[name]} days, not {least}"


# -- identities --------------------------------------------------------------------------------

# What has to stand in a property of a name: one id in the place of another is taken, and fails.
_IDS: Mapping[str, str] = {
    r"(?i:client_?id)": r".*}\.properties\.clientId",
    r"principalId": r".*}(\.properties|\.identity)\.principalId|{who deploys}|{a group}",
    r"keyVaultReferenceIdentity|userAssignedIdentityResourceId": r"{\S*userAssignedIdentities \S+}",
}


def identity_problems(made: Iterable[Made], outputs: Mapping[str, object]) -> Iterator[str]:
    """One id of an identity in the place of another."""
    told = [(each.name, *leaf) for each in made for leaf in leaves(each.body)]
    told += [("output", name, str(value)) for name, value in outputs.items()]
    for of, path, value in told:
        for name, wanted in _IDS.items():
            if re.search(rf"({name})$", path) and not re.fullmatch(wanted, value):
                yield f"{of}: {path} is {value}"
        if path.endswith("PRINCIPAL_ID") and not value.endswith(".principalId"):
            yield f"{of}: {path} is {value}"
