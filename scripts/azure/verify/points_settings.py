"""Points about the way of the LLM log to its hub: the diagnostic setting, its access rule and local authentication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.azure.verify.points_log import LOGGED
from scripts.azure.verify.probe import Point, Probe, Verdict, as_assumed, differs, not_measured
from scripts.azure.verify.seen import Answer, Record, Seen

CATEGORIES = ("GatewayLlmLogs", "GatewayLogs")


def judge_local_auth(seen: Seen) -> Verdict:
    """Whether the setting writes to a namespace without local authentication."""
    settings = seen.settings
    if settings.problem:
        return not_measured(f"the settings cannot be read: {settings.problem}")
    writes = any(seen.records_of(name) for name in LOGGED)
    if settings.local_auth_disabled:
        if writes:
            return differs("records arrive although local authentication is off: it can stay off")
        return not_measured("local authentication is off and nothing arrives; switch it on and look again")
    told = "records arrive, but whether they need it is not known" if writes else "nothing arrives"
    return not_measured(f"local authentication is on; {told}")


def judge_keyless(answer: Answer, records: Sequence[Record], waited_seconds: float) -> Verdict:
    """Whether the log arrives of a call made while local authentication was off."""
    if answer.status != 200:
        return not_measured(f"no call was answered meanwhile: {answer.told()}")
    if records:
        return differs("records arrive while local authentication is off: it can stay off")
    return as_assumed(f"while it was off, nothing of a call arrived within {waited_seconds:.0f} s")


def judge_rule(seen: Seen) -> Verdict:
    """Which access rule the setting took, and whether both categories go through it."""
    if seen.settings.problem:
        return not_measured(f"the settings cannot be read: {seen.settings.problem}")
    setting = next((each for each in seen.settings.diagnostic_settings if _rule(each)), None)
    if setting is None:
        return differs("no diagnostic setting writes to a hub: streams stay estimates")
    on = {log.get("category") for log in setting["properties"].get("logs", []) if log.get("enabled")}
    if missing := [category for category in CATEGORIES if category not in on]:
        return differs(f"the setting {setting.get('name')} does not write {' and '.join(missing)}")
    kind = "of one hub" if "/eventhubs/" in _rule(setting).lower() else "of the namespace"
    if not any(seen.records_of(name) for name in LOGGED):
        return not_measured(f"a rule {kind} was taken, but nothing arrives through it")
    if kind == "of one hub":
        return differs("a rule of one hub is enough: the one of the namespace can go")
    return as_assumed("a rule of the namespace was taken and writes; one of a hub alone was not tried")


def _rule(setting: dict[str, Any]) -> str:
    return str(setting.get("properties", {}).get("eventHubAuthorizationRuleId") or "")


LOCAL_AUTH = Point("e", "local authentication of the log's namespace", "is needed by the setting")

PROBES = (
    Probe(
        Point("23", "the access rule of the diagnostic setting", "is one of the namespace, for both categories"),
        judge_rule,
        LOGGED,
        ("events", "log", "settings"),
    ),
    Probe(LOCAL_AUTH, judge_local_auth, LOGGED, ("events", "log", "settings")),
)
