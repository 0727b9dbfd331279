"""host.json says to the host what it reads there, and keeps keys out of its log."""

import json
from typing import Any

from tests.infra import project

HOST: dict[str, Any] = json.loads((project.ROOT / "host.json").read_text("utf-8"))


def test_the_host_tells_by_opentelemetry_and_is_told_so_where_it_reads_it() -> None:
    # Under `logging` it does nothing; beside it, what belongs to the other way is not read.
    assert HOST["telemetryMode"] == "OpenTelemetry"
    assert "telemetryMode" not in HOST["logging"]
    assert "applicationInsights" not in HOST["logging"]


def test_what_callers_prove_themselves_with_is_not_logged() -> None:
    levels = HOST["logging"]["logLevel"]
    # The host takes each bearer token for one of its own, and tells of each that it is none.
    assert levels["Microsoft.AspNetCore.Authentication.JwtBearer"] == "Warning"
    # It would log each request with its query, where a function key may stand.
    assert levels["Microsoft.AspNetCore.Hosting.Diagnostics"] == "Warning"


def test_alerts_find_the_lines_that_they_rest_on() -> None:
    assert HOST["logging"]["logLevel"]["Function"] == "Information"
