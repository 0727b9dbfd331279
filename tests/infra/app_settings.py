"""The app's settings against whoever reads them."""

import re
from collections.abc import Iterator, Mapping

from tests.infra.bicep import member, properties, text, walk
from tests.infra.models import STRING, Shape
from tests.infra.resources import Reader, Templates, value_problems

MAIN = "infra/service/main.bicep"
APP = "infra/service/app.bicep"

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
    "OTEL_EXPORTER_OTLP_ENDPOINT": "host and workers/adapters/telemetry",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "host: what is said there is protobuf over HTTP",
    **dict.fromkeys(
        (
            *("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_METRIC_EXPORT_INTERVAL"),
            *("OTEL_BSP_SCHEDULE_DELAY", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"),
        ),
        "OpenTelemetry's SDK",
    ),
    "NIGHTLY_SCHEDULE": "host, for the timer",
    "AzureWebJobs.prompts.Disabled": "host",
}
# Read by the service, and secret: they come through keySettings.
SECRET = frozenset({"API_KEYS"})
# A host on Flex Consumption fails with these, or refuses to be deployed.
NEVER = re.compile(
    r"AzureWebJobsStorage|FUNCTIONS_WORKER_RUNTIME|FUNCTIONS_EXTENSION_VERSION|ENABLE_ORYX_BUILD"
    r"|WEBSITE_(RUN_FROM_PACKAGE|CONTENT\w*|MAX_DYNAMIC_APPLICATION_SCALE_OUT|TIME_ZONE)"
    r"|SCM_DO_BUILD_DURING_DEPLOYMENT|TZ|linuxFxVersion|PYTHON_(ENABLE_OPENTELEMETRY|APPLICATIONINSIGHTS_ENABLE_TELEMETRY)"
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
    app = templates[APP]
    texts = Shape("dict", item=STRING)
    yield from value_problems(
        Reader(templates, app), app.variables["connections"], texts, "settings"
    )
    sealed = re.findall(r"@sealed\(\)\s*type (\w+)", text(templates[MAIN].root))
    if "Limits" not in sealed:
        yield f"{MAIN}: a limit that nobody knows would be taken"
