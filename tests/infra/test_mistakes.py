"""Mistakes that people make in such a deployment are found before anything is deployed."""

from dataclasses import dataclass

import pytest

from tests.infra import project, rules
from tests.infra.app_settings import APP, MAIN
from tests.infra.entities import BUS
from tests.infra.roles import ACCESS

pytestmark = pytest.mark.xdist_group("infra")

STORAGE, EVENTS = rules.STORAGE, rules.EVENTS
ALERTS, NETWORK = "infra/service/alerts.bicep", "infra/service/network.bicep"
MONITORING, VAULT = "infra/service/monitoring.bicep", "infra/service/vault.bicep"


@dataclass(frozen=True)
class Mistake:
    """One change of one file, and what is to be said about it."""

    path: str
    old: str
    new: str
    told: str


MISTAKES = {
    # -- what Azure calls things
    "a misspelt property": Mistake(
        APP, "maximumInstanceCount:", "maximumInstancesCount:", "no property maximumInstancesCount"
    ),
    "a value that is none": Mistake(
        APP, "type: 'UserAssignedIdentity'", "type: 'UserAssigned'", "is 'UserAssigned', not one of"
    ),
    "a retry's name of another service": Mistake(
        EVENTS, "maxDeliveryAttempts", "maxDeliveryCount", "no property maxDeliveryCount"
    ),
    "an operator that is none": Mistake(
        ALERTS,
        "operator: 'LessThanOrEqual'",
        "operator: 'LessOrEqual'",
        "is 'LessOrEqual', not one of",
    ),
    "a destination that is none": Mistake(
        EVENTS, "'ServiceBusQueue'", "'ServiceBus'", "endpointType is 'ServiceBus', not one of"
    ),
    "a text for a number": Mistake(
        EVENTS, "eventTimeToLiveInMinutes: 1440", "eventTimeToLiveInMinutes: '1440'", "takes int"
    ),
    "a required property left out": Mistake(ALERTS, "      severity: 1\n", "", "lacks severity"),
    "a property that only Azure sets": Mistake(
        BUS, "disableLocalAuth: true", "disableLocalAuth: true\n    status: 'Active'", "read-only"
    ),
    "a property of another level": Mistake(
        APP,
        "siteConfig: { minTlsVersion: '1.2' }",
        "minTlsVersion: '1.2'",
        "no property minTlsVersion",
    ),
    "an older version of an API": Mistake(
        BUS, "namespaces/queues@2024-01-01", "namespaces/queues@2017-04-01", "2017-04-01"
    ),
    "a resource type that is none": Mistake(
        STORAGE, "managementPolicies@", "managementPolicy@", "no model is known"
    ),
    "a subnet delegated as a web app's": Mistake(
        NETWORK, "delegations: [", "delegation: [", "no property delegation"
    ),
    # -- what Bicep would refuse
    "a missing comma": Mistake(
        EVENTS, "['jsonl', 'ndjson']", "['jsonl' 'ndjson']", "no comma and no new line"
    ),
    "a name that nobody declared": Mistake(
        APP, "serverFarmId: plan.id", "serverFarmId: farm.id", "farm is not declared"
    ),
    "an output that is not there": Mistake(
        MAIN, "storage.outputs.queueEndpoint", "storage.outputs.queueUri", "no output queueUri"
    ),
    "a module's parameter left out": Mistake(
        MAIN, "    busHost: bus.outputs.host\n", "", "wants busHost"
    ),
    "a module's parameter of another type": Mistake(
        MAIN, "keySettings: keySettings", "keySettings: 'PHI3_KEY'", "takes list, not string"
    ),
    "a type that is none": Mistake(
        APP,
        "maximumInstances int",
        "maximumInstances integer",
        "maximumInstances is of type integer",
    ),
    "a function that is none": Mistake(APP, "toLower(", "lower(", "no function lower"),
    "a property of an answer that is not there": Mistake(
        STORAGE, "primaryEndpoints.blob", "primaryEndpoint.blob", "there is no primaryEndpoint"
    ),
    "an object left open": Mistake(VAULT, "  properties: {", "  properties: [", "no Bicep"),
    # -- what would deploy and not work, or not be safe
    "shared keys left on": Mistake(
        STORAGE, "allowSharedKeyAccess: false", "allowSharedKeyAccess: true", "is not false"
    ),
    "a bus with local keys": Mistake(BUS, "    disableLocalAuth: true\n", "", "is not true"),
    "telemetry that a key opens": Mistake(
        MONITORING, "    DisableLocalAuth: true\n", "", "DisableLocalAuth is not true"
    ),
    "a key in a setting": Mistake(
        APP,
        "AzureWebJobsStorage__credential: 'managedidentity'",
        "AzureWebJobsStorage: account.listKeys().keys[0].value",
        "is a key",
    ),
    "another role's GUID": Mistake(
        ACCESS,
        "'090c5cfd-751d-490a-894a-3ce6f1109419'",
        "'4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0'",
        "serviceBusDataOwner is 090c5cfd",
    ),
    "a role for too much": Mistake(
        ACCESS, "scope: namespace::jobs\n", "scope: namespace\n", "serviceBusDataSender"
    ),
    "an assignment named by what is not known yet": Mistake(
        ACCESS,
        "guid(account.id, identity.id,",
        "guid(account.id, identity.properties.principalId,",
        "known before anything is deployed",
    ),
    "an assignment without the kind of its principal": Mistake(
        ACCESS, "    principalType: 'ServicePrincipal'\n", "", "principalType"
    ),
    "a setting that nobody reads": Mistake(
        MAIN, "NIGHTLY_SCHEDULE: nightly", "NIGHTLY_CRON: nightly", "NIGHTLY_CRON is set and nobody"
    ),
    "a setting that is no text": Mistake(
        APP, "Disabled': 'true'", "Disabled': true", "takes string, not bool"
    ),
    "a setting that is not set": Mistake(
        MAIN, "      ROUTES: string(routes)\n", "", "ROUTES is read by the service and not set"
    ),
    "a limit that nobody knows": Mistake(
        MAIN, "SHARD_SECONDS: string?", "SHARD_SECOND: string?", "SHARD_SECOND is set and nobody"
    ),
    "a setting that Flex Consumption refuses": Mistake(
        APP,
        "AZURE_CLIENT_ID:",
        "FUNCTIONS_WORKER_RUNTIME: 'python'\n  AZURE_CLIENT_ID:",
        "must not be set on Flex",
    ),
    "a trigger switched off that is none": Mistake(
        APP, "AzureWebJobs.prompts.Disabled", "AzureWebJobs.prompt.Disabled", "no function prompt"
    ),
    "addresses of storage without its name": Mistake(
        APP,
        "  AzureWebJobsStorage__accountName: accountName\n",
        "",
        "AzureWebJobsStorage__accountName is missing",
    ),
    "events of another container": Mistake(
        EVENTS, "containers/prompts/", "containers/prompt/", "are not the files of prompts"
    ),
    "events without a second chance": Mistake(
        EVENTS, "deadLetterWithResourceIdentity: {", "deadLetterDestination: {", "events are lost"
    ),
    "a lock of another length": Mistake(
        BUS, "lockDuration: queue.Properties.LockDuration", "lockDuration: 'PT5M'", "do not take"
    ),
    "a property of another name": Mistake(
        BUS,
        "maxDeliveryCount: queue.Properties.MaxDeliveryCount",
        "maxDeliveryCount: queue.Properties.MaxDeliveries",
        "no Properties.MaxDeliveries",
    ),
    "a rule that leaves none": Mistake(
        project.CONFIG, '"Name": "terminal"', '"Name": "$Default"', "a rule named $Default"
    ),
    "a metric that is none": Mistake(
        ALERTS, "'DeadletteredMessages'", "'DeadLetteredMessages'", "no metric DeadLetteredMessages"
    ),
    "a metric of the workbook that is none": Mistake(
        project.WORKBOOK, "--MatchedEventCount", "--MatchedEvents", "no metric MatchedEvents"
    ),
    "records that go before their files": Mistake(
        STORAGE,
        "GreaterThan: inputDays + 31",
        "GreaterThan: resultDays",
        "rule state-of-jobs takes blobs after",
    ),
    "a rule that takes the ledger": Mistake(
        STORAGE,
        "['${stateContainer}/jobs/']",
        "['${stateContainer}/']",
        "rule state-of-jobs takes other blobs",
    ),
    "a container of another name": Mistake(
        MAIN, "stateContainer = 'state'", "stateContainer = 'states'", "stateContainer is states"
    ),
    "a parameter that azd does not fill in": Mistake(
        "infra/service/main.parameters.json",
        '"${DEPLOYMENTS}"',
        '"$(DEPLOYMENTS)"',
        "not a variable",
    ),
    "a layer that wants what no layer puts out": Mistake(
        "infra/events/main.parameters.json", "${EVENT_TOPIC}", "${EVENTS_TOPIC}", "no earlier layer"
    ),
}

# Such as are Bicep and Azure's own words, and found by what would be deployed.
MISTAKES |= {
    # -- identities
    "an id for a client id": Mistake(
        APP,
        "__clientId: identityClientId",
        "__clientId: identityId",
        "AzureWebJobsStorage__clientId",
    ),
    "no identity that reads the vault": Mistake(
        APP, "    keyVaultReferenceIdentity: identityId\n", "", "keyVaultReferenceIdentity"
    ),
    "a client id put out as a principal's": Mistake(
        MAIN,
        "WORKER_PRINCIPAL_ID string = access.outputs.identityPrincipalId",
        "WORKER_PRINCIPAL_ID string = access.outputs.identityClientId",
        "output: WORKER_PRINCIPAL_ID is",
    ),
    "a worker that is a user": Mistake(
        ACCESS, "principalType: 'ServicePrincipal'", "principalType: 'User'", "principalType: User"
    ),
    "a worker's role that hangs on the deployer": Mistake(
        MAIN, "    people: people\n", "    people: []\n", "{who deploys}"
    ),
    "a worker's role under a condition": Mistake(
        ACCESS,
        "// Owner, not Contributor: the host keeps its leases and keys here.\nresource workerBlobs "
        "'Microsoft.Authorization/roleAssignments@2022-04-01' = {",
        "resource workerBlobs "
        "'Microsoft.Authorization/roleAssignments@2022-04-01' = if (empty(people)) {",
        "storageBlobDataOwner",
    ),
    "a package that another identity reads": Mistake(
        APP,
        "type: 'UserAssignedIdentity'\n            userAssignedIdentityResourceId: identityId",
        "type: 'SystemAssignedIdentity'",
        "authentication.type",
    ),
    "telemetry without its authorization": Mistake(
        APP, ";Authorization=AAD", "", "APPLICATIONINSIGHTS_AUTHENTICATION_STRING"
    ),
    "operators that are users": Mistake(MAIN, "type: 'Group'", "type: 'User'", "{a group}"),
    # -- wiring
    "a name in the place of an output": Mistake(
        MAIN,
        "accountName: storage.outputs.accountName\n    deadLetter",
        "accountName: 'st${token}'\n    deadLetter",
        "module access, deployed as access",
    ),
    "an identity that is not the module's": Mistake(
        MAIN,
        "identityId: access.outputs.identityId",
        "identityId: 'id-${token}'",
        "userAssignedIdentities.id-uniquestring1",
    ),
    "a bus outside of the network": Mistake(
        MAIN,
        "namespaceName: 'sb-${token}'\n    privateNetwork: isPrivate",
        "namespaceName: 'sb-${token}'\n    privateNetwork: false",
        "sku.name: Premium",
    ),
    "two modules of one name": Mistake(
        MAIN, "name: 'vault'", "name: 'bus'", "module vault, deployed as bus"
    ),
    "limits that settings overrule": Mistake(
        MAIN,
        "union({ TELEMETRY: 'azure-monitor' }, limits, {",
        "union(limits, { TELEMETRY: 'azure-monitor' }, {",
        "properties.TELEMETRY",
    ),
    "entities of no file": Mistake(
        BUS, "'../../Config.json'", "'../Config.json'", "no infra/Config"
    ),
    "a workbook of no file": Mistake(
        ALERTS, "loadTextContent('workbook.json')", "loadTextContent('workbooks.json')", "no infra/"
    ),
    "a trigger that is not switched off": Mistake(
        APP,
        "prompts.Disabled': 'true'",
        "prompts.Disabled': 'false'",
        "AzureWebJobs.prompts.Disabled",
    ),
    "a reference to no secret": Mistake(APP, "secrets/${", "secret/${", "properties.MINI_KEY"),
    "a number that azd may take for the default": Mistake(
        MAIN, "param monthlyBudget string = '0'", "param monthlyBudget int = 0", "for the default"
    ),
    # -- limits of Azure's
    "a vault's name that is too long": Mistake(
        MAIN,
        "'kv-${token}'",
        "'kv-${environmentName}-batch-${token}'",
        "kv-prod-batch-uniquestring1",
    ),
    "an account's name with a dash": Mistake(MAIN, "'st${token}'", "'st-${token}'", "st-unique"),
    "a vault that forgets too soon": Mistake(VAULT, "InDays: 7", "InDays: 5", "RetentionInDays: 5"),
    "a name that no telephone shows": Mistake(
        ALERTS, "groupShortName: 'phi3-batch'", "groupShortName: 'phi3-batch-worker'", "groupShort"
    ),
    "logs that go too soon": Mistake(
        MONITORING, "retentionInDays: 30", "retentionInDays: 7", "Days: 7"
    ),
    "a window that alerts do not have": Mistake(
        ALERTS, "windowSize: 'PT15M'", "windowSize: 'PT20M'", "windowSize: PT20M"
    ),
    "a plan of another kind": Mistake(APP, "name: 'FC1'", "name: 'Y1'", "sku.name: Y1"),
    "a bus without topics": Mistake(
        BUS,
        "{ name: 'Standard', tier: 'Standard' }",
        "{ name: 'Basic', tier: 'Basic' }",
        "sku.name: Basic",
    ),
    "a Python that is gone": Mistake(
        APP, "version: '3.12'", "version: '3.9'", "runtime.version: 3.9"
    ),
    # -- storage
    "a container that is not made": Mistake(
        STORAGE,
        "union(inputContainers, [",
        "union(filter(inputContainers, name => name != 'prompts'), [",
        "default/prompts",
    ),
    "a firewall turned round": Mistake(
        STORAGE, "? 'Deny' : 'Allow'", "? 'Allow' : 'Deny'", "networkAcls.defaultAction: Deny"
    ),
    "a firewall for Event Grid too": Mistake(
        STORAGE, "bypass: 'AzureServices'", "bypass: 'None'", "networkAcls.bypass: None"
    ),
    "storage that nobody reaches": Mistake(
        STORAGE,
        "publicNetworkAccess: 'Enabled'",
        "publicNetworkAccess: 'Disabled'",
        "publicNetworkAccess: Disabled",
    ),
    "a version of every small document": Mistake(
        STORAGE, "isVersioningEnabled: false", "isVersioningEnabled: true", "isVersioningEnabled"
    ),
    "deleted blobs that stay": Mistake(
        STORAGE,
        "deleteRetentionPolicy: { enabled: false }",
        "deleteRetentionPolicy: { enabled: true, days: 7 }",
        "properties.deleteRetentionPolicy",
    ),
    "results that go with inputs": Mistake(
        STORAGE,
        "enabled: keepResultDays > 0",
        "enabled: keepInputDays > 0",
        "results is on, or off",
    ),
    "results that always go": Mistake(
        STORAGE,
        "enabled: keepResultDays > 0",
        "enabled: keepResultDays + 1 > 0",
        "results is on, or",
    ),
    "results that go at once": Mistake(
        STORAGE,
        "max(keepResultDays, 31)",
        "min(keepResultDays, 31)",
        "rule results takes blobs after",
    ),
    "inputs that go while they are read": Mistake(
        STORAGE,
        "max(keepInputDays, 31)",
        "max(keepInputDays, 7)",
        "rule inputs takes blobs after 7",
    ),
    # -- bus and events
    "events to another queue": Mistake(
        BUS, "namespace.name, 'jobs')", "namespace.name, 'shards')", "jobs"
    ),
    "a bus of another cloud": Mistake(
        BUS, ".servicebus.windows.net", ".servicebus.azure.net", "fullyQualifiedNamespace"
    ),
    "messages that go after an hour": Mistake(BUS, "'P14D'", "'PT1H'", "TimeToLive: PT1H"),
    "a bus that Event Grid does not reach": Mistake(
        BUS,
        "trustedServiceAccessEnabled: true",
        "trustedServiceAccessEnabled: false",
        "trustedService",
    ),
    "events of renamed blobs": Mistake(EVENTS, "BlobCreated", "BlobRenamed", "BlobRenamed"),
    "events of other files": Mistake(EVENTS, "'.${ending}'", "'.${ending}.gz'", "subjectEndsWith"),
    "events in another form": Mistake(
        EVENTS,
        "'CloudEventSchemaV1_0'",
        "'EventGridSchema'",
        "eventDeliverySchema: EventGridSchema",
    ),
    "entities that are made at one time": Mistake(
        BUS, "@batchSize(1)\nresource subscriptions", "resource subscriptions", "at one time"
    ),
    # -- the network
    "a zone that resolves nothing": Mistake(
        NETWORK, "privatelink.servicebus", "privatelink.servicebuses", "privatelink.servicebuses"
    ),
    "an endpoint of another part": Mistake(
        NETWORK, "name: 'blob', target", "name: 'table', target", 'groupIds: ["table"]'
    ),
    "a zone of a region": Mistake(
        NETWORK,
        "    name: link.zone\n    location: 'global'",
        "    name: link.zone\n    location: location",
        "privateDnsZones",
    ),
    "a subnet outside of its network": Mistake(
        NETWORK, "addressPrefix: '10.20.1.0/27'", "addressPrefix: '10.30.1.0/27'", "10.30.1.0/27"
    ),
    "a subnet for another kind of app": Mistake(
        NETWORK, "'Microsoft.App/environments'", "'Microsoft.Web/serverFarms'", "serverFarms"
    ),
    # -- alerts
    "an alert that needs 500 lines": Mistake(
        ALERTS,
        "    threshold: 0\n    window: 'PT15M'",
        "    threshold: 500\n    window: 'PT15M'",
        "not-started",
    ),
    "an alert that is turned round": Mistake(
        ALERTS, "operator: 'LessThan'\n", "operator: 'GreaterThan'\n", "silent-timers"
    ),
    "an alert that cries wolf": Mistake(
        ALERTS,
        "timeAggregation: 'Minimum'",
        "timeAggregation: 'Maximum'",
        "timeAggregation: Maximum",
    ),
    "an alert of a dimension that is none": Mistake(
        ALERTS, "name: 'EntityName'", "name: 'QueueName'", "QueueName"
    ),
    "an alert that is off": Mistake(
        ALERTS,
        "severity: 1\n    enabled: true",
        "severity: 1\n    enabled: false",
        "enabled: false",
    ),
    "telemetry without a workspace": Mistake(
        MONITORING, "    WorkspaceResourceId: workspace.id\n", "", "WorkspaceResourceId"
    ),
    "a budget that waits for a date": Mistake(
        ALERTS, "if (monthlyBudget > 0)", "if (monthlyBudget > 100)", "budgets"
    ),
}


def test_there_are_mistakes_of_each_kind() -> None:
    assert len(MISTAKES) >= 20
    assert {each.path for each in MISTAKES.values()} >= {APP, BUS, STORAGE, ACCESS, MAIN, EVENTS}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name: str) -> None:
    mistake = MISTAKES[name]
    files = dict(project.sources())
    changed = files[mistake.path].replace(mistake.old, mistake.new, 1)
    assert changed != files[mistake.path], "the mistake is not one any more"
    found = list(project.problems(files | {mistake.path: changed}))
    assert any(mistake.told in each for each in found), found
