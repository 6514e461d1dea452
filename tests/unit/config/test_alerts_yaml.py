"""alerts.yaml: routes that can work, or a problem that names line and field and repeats no secret."""

from __future__ import annotations

import pytest

from shared.config.loader import load_config
from shared.config.model import AlertRoute
from shared.errors import ConfigInvalid

TENANTS = b"tenants:\n  - id: default\n  - id: acme\n"


def routes(text: str) -> tuple[AlertRoute, ...]:
    return load_config({"tenants.yaml": TENANTS, "alerts.yaml": f"routes:\n{text}".encode()}).alerts


def test_routes_are_read() -> None:
    """One kind or all, any channel, filters as a text or a list."""
    assert routes("""
  - {kinds: ["*"], channel: slack, target: ALERT_PLATFORM}
  - {kinds: threshold, channel: webhook, target: ALERT_URL, secret: ALERT_KEY, tenants: [acme], scope: team:search}
  - {kinds: [anomaly, drift], channel: email, target: ALERT_MAIL, scope: [team:a, "app:*"]}
""") == (
        AlertRoute(("*",), "slack", "ALERT_PLATFORM"),
        AlertRoute(("threshold",), "webhook", "ALERT_URL", "ALERT_KEY", frozenset({"acme"}), ("team:search",)),
        AlertRoute(("anomaly", "drift"), "email", "ALERT_MAIL", None, frozenset(), ("team:a", "app:*")),
    )


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("{channel: slack, target: ALERT_A}", "config/alerts.yaml:3: routes[0].kinds: is required"),
        ("{kinds: [treshold], channel: slack, target: ALERT_A}", "did you mean 'threshold'?"),
        ("{kinds: [drift], channel: pager, target: ALERT_A}", "routes[0].channel: 'pager' is none of slack, teams"),
        ("{kinds: [drift], channel: slack}", "routes[0].target: is required"),
        ("{kinds: [drift], channel: webhook, target: ALERT_A}", "routes[0].secret: is required for webhook"),
        ("{kinds: [drift], channel: teams, target: ALERT_A, secret: ALERT_B}", "routes[0].secret: is for webhook only"),
        ("{kinds: [drift], channel: slack, target: ALERT_A, tenants: [acmee]}", "did you mean 'acme'?"),
        ("{kinds: [drift], channel: slack, target: ALERT_A, scope: search}", "routes[0].scope: expected type:key"),
    ],
)
def test_problem_names_its_field(route: str, problem: str) -> None:
    """Each says what would be right."""
    with pytest.raises(ConfigInvalid) as refused:
        routes(f"\n  - {route}\n")
    assert problem in refused.value.message


@pytest.mark.parametrize("field", ["target", "secret"])
def test_secret_in_place_of_its_setting_is_not_repeated(field: str) -> None:
    """Somebody pastes the address: the problem that says so ends up in logs and terminals."""
    names = {"target": "ALERT_A", "secret": "ALERT_B", field: "https://hooks.slack.com/services/T0/B0/hunter2"}
    with pytest.raises(ConfigInvalid) as refused:
        routes(f"  - {{kinds: [drift], channel: webhook, target: '{names['target']}', secret: '{names['secret']}'}}\n")
    assert f"routes[0].{field}: expected the name of an app setting" in refused.value.message
    assert "hunter2" not in refused.value.message
