"""Reading the configuration of Microsoft's emulator."""

from pathlib import Path
from typing import Any

import pytest

from local.servicebus.broker.configuration import ConfigurationError, duration_ms, load
from local.servicebus.broker.message import Facts

from .support import ROOT, correlation, namespace, queue, sql, subscription, topic


def test_the_project_configuration() -> None:
    space = load(ROOT / "Config.json")
    assert set(space.queues) == {"jobs", "shards", "webhooks"}
    assert space.queues["jobs"].lock_ms == 60_000
    assert space.queues["jobs"].default_ttl_ms == 3_600_000
    assert space.queues["jobs"].dead_letter_on_expiration
    status = space.topics["job-status"]
    assert status.duplicate_window_ms == 300_000
    [ended] = status.subscriptions["ended"].rules
    assert ended(Facts({}, {"state": "completed"}))
    assert ended(Facts({}, {"state": "rejected", "type": "job.rejected"}))
    assert ended(Facts({}, {"state": "rejected", "type": "job.refused"}))
    assert not ended(Facts({}, {"state": "in_progress"}))
    [everything] = status.subscriptions["all"].rules
    assert everything(Facts({}, {}))


def test_what_is_left_out_has_the_defaults_of_service_bus() -> None:
    settings = load(namespace({"Name": "q"})).queues["q"]
    assert (settings.lock_ms, settings.max_delivery_count) == (60_000, 10)
    assert (settings.default_ttl_ms, settings.duplicate_window_ms) == (0, 0)
    assert not settings.requires_session


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("PT1M", 60_000),
        ("P14D", 1_209_600_000),
        ("PT0.5S", 500),
        ("P1DT2H3M4S", 93_784_000),
        ("P10675199DT2H48M5.4775807S", 922_337_203_685_478),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1 minute", "PT1", "P1M"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigurationError, match="duration"):
        duration_ms(text)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"UserConfig": {"Namespaces": [{"Queues": [{"Properties": {}}]}]}},
        namespace(queue("q", ForwardTo="elsewhere")),
        namespace(queue("q", LockDuration="soon")),
        namespace(queue("q", LockDuraton="PT1M")),
        namespace(queue("q", MaxDeliveryCount="many")),
        namespace(queue("q"), queue("Q")),
        namespace(queue("q"), topics=(topic("q"),)),
        namespace(topics=(topic("t", RequiresSession=True),)),
        namespace(topics=(topic("t", subscription("s", sql("state ="))),)),
        namespace(topics=(topic("t", subscription("s", correlation(Colour="red"))),)),
        namespace(topics=(topic("t", subscription("s", {"FilterType": "Magic"})),)),
        namespace(
            topics=(topic("t", subscription("s", sql("1=1") | {"Action": {"SqlExpression": "x"}})),)
        ),
    ],
)
def test_what_cannot_be_used_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        load(content)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Config.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="JSONDecodeError"):
        load(path)


def test_a_wrong_name_is_told_with_the_right_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"jobs: no LockDuraton; .*LockDuration"):
        load(namespace(queue("jobs", LockDuraton="PT1M")))
