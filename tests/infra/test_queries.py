"""The queries of alerts, of the workbook and of the documents are ones that Azure can answer."""

import json
import logging
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.infra import project
from tests.infra.bicep import items, literal, text, walk
from workers.ports.errors import Outage

pytestmark = pytest.mark.xdist_group("infra")

ALERTS = "infra/service/alerts.bicep"
COMMON = (
    "TimeGenerated: datetime, OperationName: string, OperationId: string, ParentId: string, "
    "AppRoleName: string, AppRoleInstance: string, AppVersion: string, Properties: dynamic, "
    "Measurements: dynamic, ItemCount: int, SDKVersion: string, Type: string, _ResourceId: string"
)
# Tables of a workspace that Application Insights writes to, as its reference lists them.
TABLES = {
    "AppRequests": f"({COMMON}, Id: string, Name: string, Url: string, Success: bool, "
    "ResultCode: string, DurationMs: real, PerformanceBucket: string, Source: string)",
    "AppTraces": f"({COMMON}, Message: string, SeverityLevel: int)",
    "AppExceptions": f"({COMMON}, ProblemId: string, ExceptionType: string, Assembly: string, "
    "Method: string, OuterType: string, OuterMessage: string, OuterMethod: string, "
    "InnermostType: string, InnermostMessage: string, Details: dynamic, SeverityLevel: int)",
    "AppDependencies": f"({COMMON}, Id: string, Name: string, Target: string, Data: string, "
    "DependencyType: string, Success: bool, ResultCode: string, DurationMs: real)",
}
# Said by the host, and not by this service.
HOST = {
    *("Executed 'Functions.", "Executed 'Functions.sweep' (Succeeded"),
    *(
        "Exception while executing function: Functions.",
        "exited with code 143",
        "exited with code 137",
    ),
}


def queries() -> Iterator[tuple[str, str]]:
    alerts = project.templates(project.sources())[ALERTS]
    for node in walk(alerts.root):
        if node.type != "object_property" or text(items(node)[0]) != "query":
            continue
        if query := literal(items(node)[1]):
            yield f"{ALERTS}:{node.start_point[0] + 1}", query
    for item in json.loads(project.sources()[project.WORKBOOK])["items"]:
        if query := item["content"].get("query"):
            yield f"{project.WORKBOOK}, {item['name']}", query
    for document in sorted((project.ROOT / "docs").glob("*.md")):
        content = document.read_text("utf-8")
        blocks = re.findall(r"```kusto\n(.*?)```", content, re.DOTALL)
        blocks += re.findall(r'^log "(.+)"$', content, re.MULTILINE)
        yield from ((f"{document.name}, {at}", block) for at, block in enumerate(blocks, 1))


def diagnose(asked: dict[str, str]) -> dict[str, list[str]]:
    """What Kusto's own language service says of each query."""
    ran = subprocess.run(
        ["node", "tests/infra/kql.cjs"],
        cwd=project.ROOT,
        input=json.dumps({"tables": TABLES, "queries": asked}),
        capture_output=True,
        check=True,
        text=True,
        timeout=240,
    )
    return {name: list(found) for name, found in json.loads(ran.stdout).items()}


WRONG = {
    "an operator": "AppRequests | wherre Success == false",
    "a column": "AppRequests | where Succeeded == false",
    "a table": "AppRequest | take 1",
    "a function": "AppTraces | summarize counted() by Message",
    "a type": "AppRequests | where DurationMs has 'slow'",
}


def test_the_queries_are_right_and_wrong_ones_are_found() -> None:
    asked = dict(queries())
    assert len(asked) >= 7
    found = diagnose(asked | WRONG)
    assert {name: found[name] for name in asked if found[name]} == {}
    assert [name for name in WRONG if not found[name]] == []


def test_failed_invocations_are_looked_for_among_exceptions() -> None:
    """The host logs each with its exception, which the exporter makes a row of AppExceptions."""
    failed = "OuterMessage startswith 'Exception while executing function: Functions.'"
    for name, query in queries():
        every = "Executed 'Functions." in query and "(Succeeded" not in query
        assert failed in query or not (every or "Failed" in query), name
    assert sum(failed in query for _, query in queries()) >= 4


@pytest.mark.parametrize("code", ["NOT_STARTED", "OUT_OF_ORDER", "WEBHOOK_GIVEN_UP"])
def test_somebody_is_told_of_what_only_he_can_mend(code: str) -> None:
    assert any(name.startswith(ALERTS) and f"'[{code}]" in query for name, query in queries())


def test_a_fault_that_lasts_is_read_as_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    (query,) = (each for _, each in queries() if "'[OUT_OF_ORDER] '" in each)
    ((begin, then),) = re.findall(r"parse Message with '(.+?)' Subject '(.+?)' \*", query)
    Outage(logging.getLogger(__name__), "deployment mini").failed("401", 0.0)
    assert caplog.messages == [f"{begin}deployment mini{then}401"]
    (minutes,) = re.findall(r"Last - First >= (\d+)m", query)
    # Two lines of one process have to lie in the half hour that is looked at.
    assert 60 * int(minutes) <= Outage.REPEAT <= 15 * 60


def test_what_the_queries_look_for_is_said_by_the_service() -> None:
    said = "".join(path.read_text("utf-8") for path in project.ROOT.glob("workers/**/*.py"))
    for name, query in queries():
        for phrase in re.findall(r"""(?:has|startswith|contains) (?:'([^']+)'|"([^"]+)")""", query):
            wanted = "".join(phrase)
            assert wanted in HOST or wanted in said, f"{name}: nobody says {wanted!r}"
        for function in re.findall(r"Name == '(\w+)'|Functions\.(\w+)'", query):
            assert "".join(function) in project.functions(), name


def test_the_workbook_shows_what_it_is_given() -> None:
    workbook = project.sources()[project.WORKBOOK]
    alerts = project.sources()[ALERTS]
    assert {item["type"] for item in json.loads(workbook)["items"]} <= {1, 3, 9, 10}
    for placeholder in set(re.findall(r"<\w+>", workbook)):
        assert f"'{placeholder}'" in alerts
