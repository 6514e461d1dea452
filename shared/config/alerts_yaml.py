"""alerts.yaml: where notifications go."""

from __future__ import annotations

from shared.config.draft import Draft
from shared.config.model import AlertRoute
from shared.config.yaml_lines import Value

ALERT_FIELDS = ("kinds", "channel", "target", "scope")


def read_alerts(document: Value | None, draft: Draft) -> None:
    """Add the alert routes to the draft."""
    for section in draft.entries(document, "routes", ALERT_FIELDS):
        kinds, scope = section.texts("kinds"), section.text("scope")
        if not kinds:
            section.problem("kinds", "is required, such as [threshold, unpriced_model]")
        if scope is not None:
            draft.read_scope(section, scope)
        channel, target = section.text("channel", required=True), section.text("target", required=True)
        if channel and target:
            draft.alerts.append(AlertRoute(kinds=kinds, channel=channel, target=target, scope=scope))
