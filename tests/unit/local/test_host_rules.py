"""The pure parts of the function host: schedules, routes, retry policies, settings."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local.functions_host.functions import AppError, resolve_settings
from local.functions_host.host_json import HostSettings, read_host_json
from local.functions_host.ncrontab import Schedule
from local.functions_host.retries import RetryPolicy
from local.functions_host.routes import compile_route, specificity


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "moment", "expected"),
    [
        ("*/10 * * * * *", "2026-11-21T10:00:00", "2026-11-21T10:00:10"),
        ("*/10 * * * * *", "2026-11-21T10:00:59", "2026-11-21T10:01:00"),
        ("0 */5 * * * *", "2026-11-21T10:03:20", "2026-11-21T10:05:00"),
        ("0 10 2 * * *", "2026-11-21T02:10:00", "2026-11-22T02:10:00"),
        ("30 0 6 1 * *", "2026-12-31T23:59:59", "2027-01-01T06:00:30"),
        ("0 0 0 29 2 *", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 9 * * Mon-Fri", "2026-11-20T09:00:00", "2026-11-23T09:00:00"),
        ("0 0 9 * Jan,Jul 0", "2026-11-20T09:00:00", "2027-01-03T09:00:00"),
        ("*/15 * * * *", "2026-11-21T10:00:00", "2026-11-21T10:15:00"),
        ("0 0 8-18/4 * * *", "2026-11-21T12:00:00", "2026-11-21T16:00:00"),
    ],
)
def test_next_moment_of_a_schedule(schedule: str, moment: str, expected: str) -> None:
    """A schedule fires at the first moment after now whose fields all match, day and weekday both."""
    assert Schedule.parse(schedule).next_after(_at(moment)) == _at(expected)


@pytest.mark.parametrize("schedule", ["* * *", "60 * * * * *", "*/0 * * * * *", "0 0 0 31-1 * *", "0 0 0 * Foo *"])
def test_bad_schedules_are_refused(schedule: str) -> None:
    """A schedule that cannot be meant is an error when the app is loaded, not a timer that never fires."""
    with pytest.raises(ValueError, match="schedule"):
        Schedule.parse(schedule)


def test_a_schedule_that_never_fires_is_an_error() -> None:
    """30 February does not come."""
    with pytest.raises(ValueError, match="never fires"):
        Schedule.parse("0 0 0 30 2 *").next_after(_at("2026-01-01T00:00:00"))


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("spend", "/spend", {}),
        ("spend", "/Spend/", {}),
        ("spend/{type}/{key}", "/spend/team/search", {"type": "team", "key": "search"}),
        ("spend/{type}/{key}", "/spend/team", None),
        ("cost/{month:int?}", "/cost", {"month": None}),
        ("cost/{month:int?}", "/cost/11", {"month": "11"}),
        ("cost/{month:int?}", "/cost/may", None),
        ("files/{*rest}", "/files/a/b", {"rest": "a/b"}),
        ("a.b", "/axb", None),
    ],
)
def test_routes(template: str, path: str, expected: dict[str, str | None] | None) -> None:
    """Templates match whole paths without case and give their parameters."""
    match = compile_route(template).match(path)
    assert (match.groupdict() if match else None) == expected


def test_literal_routes_win() -> None:
    """A route of fixed words is tried before one with parameters."""
    routes = ["usage/{id}", "{*rest}", "usage/summary"]
    assert sorted(routes, key=specificity) == ["usage/summary", "usage/{id}", "{*rest}"]


def test_unsupported_templates_are_refused() -> None:
    """A constraint this host would ignore is an error, because Azure would not ignore it."""
    with pytest.raises(ValueError, match="constraint 'regex'"):
        compile_route("a/{b:regex(x)}")


def test_fixed_delay_without_limit() -> None:
    """max_retry_count -1 retries until the call succeeds, always after the same pause."""
    policy = RetryPolicy.from_settings(
        {"strategy": "fixed_delay", "max_retry_count": "-1", "delay_interval": "00:00:02"}
    )
    assert policy.max_retry_count == math.inf
    assert policy.allows(1_000_000)
    assert [policy.delay_seconds(n) for n in (0, 1, 5000)] == [2.0, 2.0, 2.0]


def test_exponential_backoff_with_limit() -> None:
    """The pause doubles from the minimum to the maximum, for as many retries as the policy has."""
    settings = {"strategy": "exponential_backoff", "max_retry_count": "3"}
    policy = RetryPolicy.from_settings(settings | {"minimum_interval": "00:00:01", "maximum_interval": "00:01:00"})
    assert [policy.allows(n) for n in range(5)] == [True, True, True, False, False]
    assert [policy.delay_seconds(n) for n in (0, 1, 2, 6, 5000)] == [1.0, 2.0, 4.0, 60.0, 60.0]


def test_no_policy_means_no_retry() -> None:
    """As on Azure, a function without a policy gets one attempt."""
    assert not RetryPolicy.from_settings(None).allows(0)


def test_settings_in_bindings() -> None:
    """%NAME% is replaced from the environment, and a missing name is named."""
    assert resolve_settings("%A%-x", {"A": "usage"}) == "usage-x"
    with pytest.raises(AppError, match="the setting B is not in the environment"):
        resolve_settings("%B%", {"A": "usage"})


def test_host_json(tmp_path: Path) -> None:
    """The file's values are used, with the Functions host's defaults for what it leaves out."""
    path = tmp_path / "host.json"
    path.write_text("{}")
    assert read_host_json(path) == HostSettings()
    hubs = {"maxEventBatchSize": 500, "initialOffsetOptions": {"type": "fromEnd"}}
    path.write_text(json.dumps({"extensions": {"http": {"routePrefix": "api/v1"}, "eventHubs": hubs}}))
    settings = read_host_json(path)
    assert (settings.route_prefix, settings.max_event_batch_size, settings.initial_position) == (
        "api/v1",
        500,
        "@latest",
    )
    path.write_text("{")
    with pytest.raises(ValueError, match=r"host\.json"):
        read_host_json(path)
