"""Whatever arrives at a door, the answer is one the contract knows: never a 500, always JSON with OpenAI's error."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from door_fakes import CONFIG, Doors, Recorder, encode_principal, fake_services
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.auth import authenticate
from shared.budgets.request import CheckRequest, resolve_caller
from shared.errors import NotAuthenticated
from shared.settings import Settings
from shared.usage.helicone import HeliconeWebhook

FIELDS = {
    "budget_check": (
        "model",
        "tenant",
        "scopes",
        "identity",
        "tools",
        "input_tokens",
        "max_output_tokens",
        "operation",
    ),
    "budget_release": ("reservation",),
    "budget_reset": ("tenant", "scope", "why", "period", "spent"),
    "usage": ("specversion", "type", "source", "id", "time", "data"),
    "helicone": ("request_id", "model", "provider", "metadata", "response_body", "user_id"),
    "route": ("model", "capabilities", "input_tokens", "max_output_tokens", "tenant"),
    "dead_letters_replay": ("ids",),
}
LIKELY = st.sampled_from(
    ["contoso", "default", "gpt-4o", "team:search", "tollkeeper.usage.v1", "1.0", "2026-11-21T10:00:00Z"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | LIKELY
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | LIKELY, inner, max_size=4),
    max_leaves=12,
)


class Engine:
    """The check's own reading of a question, without counters."""

    async def check(self, request: CheckRequest) -> Any:
        resolve_caller(request, CONFIG)
        return await Recorder(fake_services().budget.check.answer)()

    async def release(self, token: str) -> bool:
        return False


class Memory:
    """Nothing was ever heard of."""

    async def time(self, source: str, id: str, now_utc: Any) -> Any:  # noqa: A002
        return now_utc


@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_makes_a_door_fail(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, name: str, data: st.DataObject
) -> None:
    """Any JSON under the right names, or any bytes: 2xx or an error of the contract that names what is wrong."""
    services = fake_services(budget=Engine())
    services.helicone = HeliconeWebhook(services.publisher, Memory(), None)

    async def app() -> Any:
        return services

    monkeypatch.setattr("shared.bootstrap.app", app)
    shaped = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS[name], VALUES))
    body = data.draw(st.binary(max_size=200) | (shaped | VALUES).map(lambda value: json.dumps(value).encode()))
    headers = {"content-type": "application/cloudevents+json"}
    query = {"tenant": "contoso", "team": "search"}
    reply = asyncio.run(doors.call(name, body=body, headers=headers, query=query))
    assert reply.status in (200, 202, 204, 400, 402, 403, 404)
    if reply.status >= 400:
        assert set(reply.json["error"]) == {"code", "message", "type", "param"}


@settings(max_examples=300, deadline=None)
@given(document=VALUES | st.fixed_dictionaries({"claims": VALUES, "auth_typ": VALUES}))
def test_no_principal_header_makes_a_principal_out_of_nonsense(document: Any) -> None:
    """Whatever the header holds, the caller is a principal or is not authenticated; nothing else is raised."""
    try:
        found = authenticate(encode_principal(document), Settings(environment="production", auth_enabled=True))
    except NotAuthenticated:
        return
    assert all(isinstance(role, str) for role in found.roles)
