"""What this project asks of its deployment, beyond what Azure would refuse."""

import json
import re
from collections.abc import Iterator, Mapping

from tree_sitter import Node

from tests.infra.bicep import Template, at, items, literal, member, properties, text, walk
from tests.infra.resources import Templates

MAIN = "infra/service/main.bicep"
APP = "infra/service/app.bicep"
BUS = "infra/service/bus.bicep"
STORAGE = "infra/service/storage.bicep"
ACCESS = "infra/service/access.bicep"
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


# -- roles -------------------------------------------------------------------------------------

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
        ("principalId", "storageBlobDataContributor", "account"),
        ("principalId", "serviceBusDataSender", "namespace"),
        ("principalId", "serviceBusDataReceiver", "namespace"),
        ("principalId", "keyVaultSecretsOfficer", "vault"),
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
                held |= _held(template, resource.body)
                yield from _assignment(where, resource.body)
    for who, role, scope in held ^ HELD:
        yield f"{ACCESS}: {role} on {scope} for {who} is not as it is told here"


def _held(template: Template, body: Node) -> set[tuple[str, str, str]]:
    scope, who = text(member(body, "scope")), text(member(body, "properties", "principalId"))
    names = re.findall(r"roles\.(\w+)", text(member(body, "properties", "roleDefinitionId")))
    if not names and body.parent is not None:
        # One assignment for each of a list of roles.
        around = body.parent if body.parent.type != "if_statement" else body.parent.parent
        names = re.findall(r"roles\.(\w+)", text(items(around)[1])) if around else []
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


# -- queues and topic --------------------------------------------------------------------------

# What differs from Config.json: the emulator's own limits.
EMULATOR = frozenset({"DefaultMessageTimeToLive", "DuplicateDetectionHistoryTimeWindow"})


def entity_problems(templates: Templates, config: str) -> Iterator[str]:
    """What Config.json says of an entity and its resource does not."""
    bus = templates[BUS]
    (namespace,) = json.loads(config)["UserConfig"]["Namespaces"]
    if len(namespace["Topics"]) != 1:
        yield f"{BUS}: takes the first of {len(namespace['Topics'])} topics"
    (topic, *_) = namespace["Topics"]
    rules = [rule for each in topic["Subscriptions"] for rule in each["Rules"]]
    yield from _entity(bus, "queues", "queue", namespace["Queues"])
    yield from _entity(bus, "topic", "status", [topic])
    yield from _entity(bus, "subscriptions", "subscription", topic["Subscriptions"])
    for rule in rules:
        if rule["Name"] == "$Default":
            yield f"{BUS}: a rule named $Default is said to succeed and leaves none"
        if rule["Properties"].keys() != {"FilterType", "SqlFilter"}:
            yield f"{BUS}: rule {rule['Name']} is no SQL filter alone"
    for path in re.findall(r"rule\.(Name|Properties[.\w]*)", text(bus.variables["rules"])):
        yield from _there(path, rules, "rules")


def _entity(
    bus: Template, symbol: str, loop: str, entities: list[dict[str, object]]
) -> Iterator[str]:
    body = bus.resources[symbol].body
    if text(member(body, "name")) != f"{loop}.Name":
        yield f"{BUS}: {symbol} have names of their own"
    taken = {}
    for name, value in properties(member(body, "properties")).items():
        if match := re.fullmatch(rf"{loop}\.Properties\.(\w+)", text(value)):
            taken[name] = match[1]
            yield from _there(f"Properties.{match[1]}", entities, symbol)
    for name, source in taken.items():
        if name != source[0].lower() + source[1:]:
            yield f"{BUS}: {symbol}.{name} is made of {source}"
    said = {name for each in entities for name in dict(each["Properties"])}  # type: ignore[call-overload]
    for name in said - EMULATOR - set(taken.values()):
        yield f"{BUS}: {symbol} do not take {name} from Config.json"
    for name in said & EMULATOR:
        if name[0].lower() + name[1:] not in properties(member(body, "properties")):
            yield f"{BUS}: {symbol} do not set {name}"


def _there(path: str, entities: list[dict[str, object]], what: str) -> Iterator[str]:
    for each in entities:
        value: object = each
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            yield f"Config.json: one of the {what} has no {path}"


# -- settings ----------------------------------------------------------------------------------

# Settings that the service does not read, and who does.
OTHERS: Mapping[str, str] = {
    "AzureWebJobsStorage__accountName": "host",
    "AzureWebJobsStorage__blobServiceUri": "host and workers/service",
    "AzureWebJobsStorage__queueServiceUri": "host",
    "AzureWebJobsStorage__credential": "host",
    "AzureWebJobsStorage__clientId": "host",
    "ServiceBusConnection__fullyQualifiedNamespace": "host and workers/service",
    "ServiceBusConnection__credential": "host",
    "ServiceBusConnection__clientId": "host",
    "AZURE_CLIENT_ID": "azure-identity",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "host",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "host",
    "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "host",
    "NIGHTLY_SCHEDULE": "host, for the timer",
    "AzureWebJobs.prompts.Disabled": "host",
}
# Read by the service, and secret: they come through keySettings.
SECRET = frozenset({"API_KEYS"})
# A host on Flex Consumption fails with these, or refuses to be deployed.
NEVER = re.compile(
    r"AzureWebJobsStorage|FUNCTIONS_WORKER_RUNTIME|FUNCTIONS_EXTENSION_VERSION|ENABLE_ORYX_BUILD"
    r"|WEBSITE_(RUN_FROM_PACKAGE|CONTENT\w*|MAX_DYNAMIC_APPLICATION_SCALE_OUT|TIME_ZONE)"
    r"|SCM_DO_BUILD_DURING_DEPLOYMENT|TZ|linuxFxVersion|PYTHON_ENABLE_OPENTELEMETRY"
)


def settings_set(templates: Templates) -> set[str]:
    """The names of all settings that a deployment can have, but those of keys."""
    app, main = templates[APP], templates[MAIN]
    call = member(main.modules["app"].body, "params", "settings")
    objects = [
        node
        for node in walk(call)
        if node.type == "object" and (node.parent or node).type == "arguments"
    ]
    named = {name for node in objects for name in properties(node)}
    return (
        named
        | set(properties(main.types["Limits"]))
        | set(properties(app.variables["connections"]))
    )


def settings_problems(templates: Templates, read: set[str], triggers: set[str]) -> Iterator[str]:
    """`read`: the settings of the service; `triggers`: the functions that may be switched off."""
    found = settings_set(templates)
    for name in read - found - SECRET:
        yield f"{APP}: {name} is read by the service and not set"
    for name in found - read - OTHERS.keys():
        yield f"{APP}: {name} is set and nobody reads it"
    for name in OTHERS.keys() - found:
        yield f"{APP}: {name} is missing"
    for name in found:
        if NEVER.fullmatch(name):
            yield f"{APP}: {name} must not be set on Flex Consumption"
        if (match := re.fullmatch(r"AzureWebJobs\.(\w+)\.Disabled", name)) and match[
            1
        ] not in triggers:
            yield f"{APP}: there is no function {match[1]}"
    sealed = re.findall(r"@sealed\(\)\s*type (\w+)", text(templates[MAIN].root))
    if "Limits" not in sealed:
        yield f"{MAIN}: a limit that nobody knows would be taken"


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


# What goes, and after how many days: records outlive the files that they keep from running again,
# and neither the quota's ledger nor the deployed package is among them.
LIFECYCLE: Mapping[str, tuple[str, str]] = {
    "inputs": ("map(inputContainers, name => '${name}/')", "inputDays"),
    "results": ("['${resultsContainer}/']", "resultDays"),
    "state-of-jobs": ("['${stateContainer}/jobs/']", "inputDays + 31"),
}


def lifecycle_problems(templates: Templates) -> Iterator[str]:
    """Rules that would take what a job still needs."""
    storage = templates[STORAGE]
    rules = items(member(storage.resources["lifecycle"].body, "properties", "policy", "rules"))
    found = {literal(member(rule, "name")): rule for rule in rules}
    if found.keys() != LIFECYCLE.keys():
        yield f"{STORAGE}: {found.keys() ^ LIFECYCLE.keys()} are not the rules that are known"
        return
    for name, (prefixes, days) in LIFECYCLE.items():
        definition = member(found[name], "definition")
        if not text(member(found[name], "enabled")).endswith(" > 0"):
            yield f"{STORAGE}: rule {name} is on by default"
        if text(member(definition, "filters", "prefixMatch")) != prefixes:
            yield f"{STORAGE}: rule {name} takes other blobs than {prefixes}"
        after = member(definition, "actions", "baseBlob", "delete")
        if text(member(after, "daysAfterModificationGreaterThan")) != days:
            yield f"{STORAGE}: rule {name} takes blobs after another time than {days}"
    for name in ("inputDays", "resultDays"):
        if not text(storage.variables[name]).endswith(", 31)"):
            yield f"{STORAGE}: {name} may be less than a job's longest window"
