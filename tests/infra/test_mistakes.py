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
