"""alerts.yaml: where notifications go."""

from __future__ import annotations

import re
from typing import cast

from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.model import CHANNELS, AlertRoute, Channel
from shared.config.problems import did_you_mean
from shared.config.yaml_lines import Value
from shared.notify.kinds import NOTICE_KINDS

ALERT_FIELDS = ("kinds", "channel", "target", "secret", "tenants", "scope")
EVERY_KIND = "*"
_SETTING = re.compile(r"ALERT_[A-Z0-9_]{1,100}")


def read_alerts(document: Value | None, draft: Draft) -> None:
    """Add the alert routes to the draft."""
    for section in draft.entries(document, "routes", ALERT_FIELDS):
        kinds, tenants, scopes = _kinds(section), section.texts("tenants"), section.text_or_texts("scope")
        for tenant in tenants:
            draft.check_known(section, "tenants", tenant, draft.tenants, "tenant", "tenants.yaml")
        for scope in scopes:
            draft.read_scope(section, scope)
        channel = section.choice("channel", CHANNELS)
        target, secret = _setting(section, "target", required=True), _setting(section, "secret")
        if channel == "webhook" and not section.has("secret"):
            section.problem("secret", "is required for webhook: the app setting with the signing secret, whsec_...")
        if channel != "webhook" and section.has("secret"):
            section.problem("secret", f"is for webhook only; what {channel} needs stands in the target's app setting")
        if target:
            draft.alerts.append(AlertRoute(kinds, cast("Channel", channel), target, secret, frozenset(tenants), scopes))


def _kinds(section: Section) -> tuple[str, ...]:
    """Kinds of notices, or every one."""
    kinds = section.text_or_texts("kinds")
    if not kinds:
        section.problem("kinds", 'is required, such as [threshold, unpriced_model], or "*" for all')
    for kind in kinds:
        if kind != EVERY_KIND and kind not in NOTICE_KINDS:
            section.problem("kinds", f"{kind!r} is no kind of notice{did_you_mean(kind, NOTICE_KINDS)}")
    return kinds


def _setting(section: Section, name: str, *, required: bool = False) -> str | None:
    """The name of an app setting. An address or a secret in its place is not repeated: it would be in every log."""
    text = section.text(name, required=required)
    if text is not None and not _SETTING.fullmatch(text):
        section.problem(name, "expected the name of an app setting such as ALERT_FINOPS, never its value")
        return None
    return text
