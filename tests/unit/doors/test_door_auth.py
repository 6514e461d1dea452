"""Who may pass which door."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from door_fakes import Doors, encode_principal, principal

from functions.auth import LOCAL_DEVELOPER, Principal, authenticate
from shared.errors import NotAuthenticated
from shared.settings import Settings

ROOT = Path(__file__).parents[3]
PRODUCTION = Settings(environment="production", auth_enabled=True)
ADMIN_DOORS = ("budget_reset", "dead_letters", "dead_letters_replay")
ROLES_OF_DOORS = {
    "budget_check": {"Budget.Check"},
    "budget_release": {"Budget.Check"},
    "budget_reset": {"Chargeback.Admin"},
    "usage": {"Usage.Write"},
    "helicone": {"Usage.Write"},
    "spend": {"Chargeback.Read", "Chargeback.Admin"},
    "spend_of_scope": {"Chargeback.Read", "Chargeback.Admin"},
    "budgets": {"Chargeback.Read", "Chargeback.Admin"},
    "budget_history": {"Chargeback.Read", "Chargeback.Admin"},
    "budget_change": {"Chargeback.Admin"},
    "budget_revert": {"Chargeback.Admin"},
    "usage_summary": {"Chargeback.Read", "Chargeback.Admin"},
    "chargeback_report": {"Chargeback.Read", "Chargeback.Admin"},
    "forecast": {"Chargeback.Read", "Chargeback.Admin"},
    "anomalies": {"Chargeback.Read", "Chargeback.Admin"},
    "reconciliation": {"Chargeback.Read", "Chargeback.Admin"},
    "budget_simulate": {"Chargeback.Read", "Chargeback.Admin"},
    "decisions": {"Chargeback.Read", "Chargeback.Admin"},
    "models": {"Budget.Check", "Chargeback.Read", "Chargeback.Admin"},
    "route": {"Budget.Check"},
    "dead_letters": {"Chargeback.Admin"},
    "dead_letters_replay": {"Chargeback.Admin"},
    "re_rate": {"Chargeback.Admin"},
    "names": {"Chargeback.Read", "Chargeback.Admin"},
    "names_put": {"Chargeback.Admin"},
    "names_delete": {"Chargeback.Admin"},
    "me": {"Chargeback.Read", "Chargeback.Admin"},
    "statement_list": {"Chargeback.Read", "Chargeback.Admin"},
    "statement_file": {"Chargeback.Read", "Chargeback.Admin"},
}
ALL = ("Budget.Check", "Usage.Write", "Chargeback.Read", "Chargeback.Admin")


OPEN_DOORS = {"health", "dashboard"}  # a state and a page without figures


def test_every_http_door_but_the_open_ones_is_listed_here(doors: Doors) -> None:
    """A new door cannot be forgotten by the role tests below."""
    http = {name for name, each in doors.functions.items() if each.is_http_function()}
    assert http == {*ROLES_OF_DOORS, *OPEN_DOORS}


@pytest.mark.parametrize("name", ROLES_OF_DOORS)
async def test_door_refuses_callers_without_its_role(doors: Doors, services: SimpleNamespace, name: str) -> None:
    """Every role that is not the door's own is refused with 403 role_required, all of them together too."""
    others = [role for role in ALL if role not in ROLES_OF_DOORS[name]]
    for roles in [[], *([role] for role in others), others]:
        reply = await doors.call(name, as_=principal(*roles))
        assert (reply.status, reply.code) == (403, "role_required")


@pytest.mark.parametrize("name", ROLES_OF_DOORS)
async def test_each_role_of_a_door_opens_it(doors: Doors, services: SimpleNamespace, name: str) -> None:
    """With the role the door goes on to read the request: whatever it answers, it is not about the role."""
    for role in ROLES_OF_DOORS[name]:
        reply = await doors.call(name, as_=principal(role), query={"tenant": "contoso"})
        assert reply.status not in (401, 500)
        assert reply.status < 400 or reply.code != "role_required"


@pytest.mark.parametrize("name", ROLES_OF_DOORS)
async def test_production_refuses_a_request_without_principal(
    doors: Doors, services: SimpleNamespace, name: str
) -> None:
    """Outside development nothing but the open doors answers an unauthenticated caller."""
    services.settings = PRODUCTION
    reply = await doors.call(name)
    assert (reply.status, reply.code) == (401, "not_authenticated")
    assert reply.json["error"]["type"] == "authentication_error"
    assert reply.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["none", "", "e30=", "!!!", base64.b64encode(b'{"claims": 7}').decode(), "e30"])
async def test_unreadable_principal_is_not_authenticated(doors: Doors, services: SimpleNamespace, header: str) -> None:
    """A header that is not the platform's is refused even in development; `none` is a test's way to be nobody."""
    reply = await doors.call("spend", as_=header)
    assert (reply.status, reply.code) == (401, "not_authenticated")


def test_principal_header_is_worthless_when_platform_authentication_is_off() -> None:
    """Without the platform in front anyone could set the header, so it is not believed."""
    forged = principal("Chargeback.Admin")
    with pytest.raises(NotAuthenticated):
        authenticate(forged, Settings(environment="production", auth_enabled=False))


def test_claims_of_another_identity_provider_are_refused() -> None:
    """A GitHub or custom provider's `roles` may be what the user typed."""
    claims = [{"typ": "roles", "val": "Chargeback.Admin"}]
    with pytest.raises(NotAuthenticated, match="github"):
        authenticate(encode_principal({"auth_typ": "github", "claims": claims}), PRODUCTION)


def test_long_and_short_claim_names_mean_the_same() -> None:
    """The platform maps claim types to long names unless told not to; both are read, and both names of the app id."""
    long_role = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"
    claims = [(long_role, "Usage.Write"), ("oid", "o-1"), ("groups", "g-1"), ("groups", "g-2"), ("appid", "a-1")]
    header = encode_principal({"auth_typ": "aad", "claims": [{"typ": t, "val": v} for t, v in claims]})
    assert authenticate(header, PRODUCTION) == Principal(
        roles=frozenset({"Usage.Write"}), oid="o-1", groups=frozenset({"g-1", "g-2"}), app_id="a-1"
    )


def test_signing_in_through_a_teams_app_does_not_make_a_member_of_the_team() -> None:
    """A delegated token (it carries `scp`) names the app of the sign-in page; only an app calling as itself is it."""
    claims = [{"typ": t, "val": v} for t, v in (("oid", "bob"), ("azp", "search-app"), ("scp", "user_impersonation"))]
    assert authenticate(encode_principal({"auth_typ": "aad", "claims": claims}), PRODUCTION).app_id is None
    assert authenticate(encode_principal({"auth_typ": "aad", "claims": claims[:2]}), PRODUCTION).app_id == "search-app"


def test_development_without_principal_is_the_local_developer() -> None:
    """On the laptop a plain request may do everything."""
    assert authenticate(None, Settings(environment="development")) is LOCAL_DEVELOPER


AZURE = {
    "REDIS_URL": "rediss://x.redis.azure.net:10000",
    "EventHubs__fullyQualifiedNamespace": "x.servicebus.windows.net",
    "LlmLogs__fullyQualifiedNamespace": "y.servicebus.windows.net",
    "LEDGER_TABLES_ENDPOINT": "https://x.table.core.windows.net",
    "LEDGER_BLOBS_ENDPOINT": "https://x.blob.core.windows.net",
    "RESERVATION_KEYS": "k" * 32,
    "WEBSITE_INSTANCE_ID": "0123",
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"WEBSITE_AUTH_ENABLED": "True"}, None),
        ({}, "WEBSITE_AUTH_ENABLED"),
        ({"WEBSITE_AUTH_ENABLED": "False"}, "WEBSITE_AUTH_ENABLED"),
        ({"WEBSITE_AUTH_ENABLED": "True", "TOLLKEEPER_ENV": "development"}, "TOLLKEEPER_ENV"),
    ],
)
def test_app_starts_on_azure_only_behind_platform_authentication(change: dict[str, str], problem: str | None) -> None:
    """Refusing requests later would be found by the first user; refusing to start is found by the deployment. And the
    development mode, in which everybody is admin, cannot be deployed at all."""
    env = {name: value for name, value in os.environ.items() if name not in ("TOLLKEEPER_ENV", "WEBSITE_AUTH_ENABLED")}
    command = [sys.executable, "-c", "import function_app; print('started')"]
    run = subprocess.run(command, cwd=ROOT, env={**env, **AZURE, **change}, capture_output=True, text=True, check=False)
    assert (run.returncode == 0) == (problem is None), run.stderr
    assert problem is None or f"{problem}:" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ADMIN_DOORS[1:])
async def test_reader_is_no_admin(doors: Doors, services: SimpleNamespace, name: str) -> None:
    """Dead letters may name any tenant, so even finance people do not see them."""
    reply = await doors.call(name, as_=principal("Chargeback.Read", groups=["finance-group"]))
    assert (reply.status, reply.code) == (403, "role_required")


async def test_correction_needs_an_attributable_person(doors: Doors, services: SimpleNamespace) -> None:
    """A reset names who did it; a token that identifies nobody cannot make one."""
    body = {"tenant": "contoso", "scope": "team:search", "why": "test"}
    reply = await doors.call("budget_reset", body=body, as_=principal("Chargeback.Admin", oid=None))
    assert (reply.status, reply.code) == (401, "not_authenticated")
    assert services.reset.reset.calls == []


NOT_OF_A_TENANT = {"dashboard", "health", "me", "dead_letters"}


async def test_no_reading_route_crosses_into_another_tenant(doors: Doors, services: SimpleNamespace) -> None:
    """Finance of one tenant and member of none elsewhere: whatever `tenant` says, every other route refuses."""
    finance = principal("Chargeback.Read", oid="fin", groups=["finance-group"])
    named = {"period": "2026-10", "file": "a.csv", "scope_type": "team", "scope_key": "fab", "budget_id": "b1/history"}
    asked = []
    for name, function in sorted(doors.functions.items()):
        trigger = function.get_trigger()
        methods = [method.value for method in getattr(trigger, "methods", None) or ()]
        if methods != ["GET"] or name in NOT_OF_A_TENANT:
            continue
        route = {key: value for key, value in named.items() if key in trigger.route}
        for tenant in ("fabrikam", "default", "nobody", "../contoso", "contoso/../fabrikam"):
            reply = await doors.call(name, query={"tenant": tenant}, route=route, as_=finance)
            assert reply.status in (400, 403), (name, tenant)
        asked.append(name)
    assert {"decisions", "forecast", "anomalies", "budgets", "budget_history", "names", "reconciliation"} <= set(asked)
    assert {"models", "statement_list", "statement_file", "chargeback_report", "usage_summary", "spend"} <= set(asked)
