"""The usage doors: events in, bound to whoever sent them."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from door_fakes import Doors, Recorder, principal

from shared.usage.events import UsageEvent, decode_event
from shared.usage.helicone import HeliconeWebhook
from shared.usage.hub import HubUnavailable

ONE = {"content-type": "application/cloudevents+json"}
MANY = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}


def event(source: str = "apim/prod", id: str = "r-1", **data: Any) -> dict[str, Any]:  # noqa: A002
    """A usage event as an emitter writes it."""
    return {
        "specversion": "1.0",
        "type": "tollkeeper.usage.v1",
        "source": source,
        "id": id,
        "time": datetime.now(UTC).isoformat(),
        "data": {
            "tenant": "contoso",
            "scopes": {"team": "search"},
            "model": "gpt-4o",
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
            **data,
        },
    }


def published(services: SimpleNamespace) -> list[UsageEvent]:
    """What reached the hub, decoded as ingest would."""
    found = []
    for (bodies,), _ in services.publisher.publish.calls:
        for _, body in bodies:
            decoded = decode_event(body, datetime.now(UTC))
            assert isinstance(decoded, UsageEvent)
            found.append(decoded)
    return found


async def test_one_event_is_accepted(doors: Doors, services: SimpleNamespace) -> None:
    """202 with the count, and the event is on the hub."""
    reply = await doors.call("usage", body=event(), headers=ONE)
    assert (reply.status, reply.json) == (202, {"accepted": 1, "rejected": []})
    assert [each.id for each in published(services)] == ["r-1"]


async def test_one_bad_event_costs_only_itself(doors: Doors, services: SimpleNamespace) -> None:
    """In a batch the bad one is named by index, code and reason; the others go on."""
    bad = event(id="bad")
    del bad["time"]
    reply = await doors.call("usage", body=[event(id="a"), bad, event(id="b")], headers=MANY)
    assert reply.status == 202
    assert reply.json["accepted"] == 2
    assert [(each["index"], each["code"]) for each in reply.json["rejected"]] == [(1, "time_missing")]
    assert [each.id for each in published(services)] == ["a", "b"]


async def test_stranger_cannot_claim_another_emitters_ids(doors: Doors, services: SimpleNamespace) -> None:
    """Two callers that send the same source and id get two identities, so neither can suppress the other's bill."""
    for oid in ("gateway-identity", "stranger"):
        await doors.call("usage", body=event(), headers=ONE, as_=principal("Usage.Write", oid=oid))
    assert [each.source for each in published(services)] == [
        "http/gateway-identity/apim/prod",
        "http/stranger/apim/prod",
    ]


async def test_claiming_the_prefix_itself_does_not_help(doors: Doors, services: SimpleNamespace) -> None:
    """A source that already looks bound to somebody else is put under the caller's own prefix."""
    forged = event(source="http/gateway-identity/apim/prod")
    await doors.call("usage", body=forged, headers=ONE, as_=principal("Usage.Write", oid="stranger"))
    assert published(services)[0].source == "http/stranger/http/gateway-identity/apim/prod"


async def test_retry_of_one_caller_keeps_its_identity_and_bytes(doors: Doors, services: SimpleNamespace) -> None:
    """The binding is a pure function of caller and event, so a retry is the same event to the ledger."""
    sent = event()
    for _ in range(2):
        await doors.call("usage", body=sent, headers=ONE, as_=principal("Usage.Write", oid="gw"))
    first, second = published(services)
    assert (first.source, first.id, first.content_digest) == (second.source, second.id, second.content_digest)


async def test_source_that_the_prefix_makes_too_long_is_refused_here(doors: Doors, services: SimpleNamespace) -> None:
    """What ingest would have to put aside is told to the sender instead, with the length that fits."""
    as_ = principal("Usage.Write", oid="gw")
    for length, status in ((512 - len("http/gw/"), 202), (512, 400)):
        reply = await doors.call("usage", body=event(source="s" * length), headers=ONE, as_=as_)
        assert reply.status == status
    assert (reply.code, reply.param) == ("invalid_event", "source")


async def test_admin_imports_under_the_stated_source(doors: Doors, services: SimpleNamespace) -> None:
    """Whoever may correct the ledger may also restate another emitter's events, byte for byte the same identity."""
    both = principal("Usage.Write", "Chargeback.Admin", oid="grace")
    await doors.call("usage", body=event(), headers=ONE, as_=both)
    assert published(services)[0].source == "apim/prod"


async def test_usage_writer_cannot_grant_budget(doors: Doors, services: SimpleNamespace) -> None:
    """A grant through this door would be a reset without the admin role."""
    grant = {**event(), "type": "tollkeeper.grant.v1"}
    grant["data"] = {"tenant": "contoso", "cell": "c", "amount": "-100", "who": "me", "why": "because"}
    reply = await doors.call("usage", body=grant, headers=ONE, as_=principal("Usage.Write"))
    assert (reply.status, reply.code) == (400, "type_unknown")
    assert services.publisher.publish.calls == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"", "invalid_json"),
        (b"\x00" * 100, "invalid_json"),
        ({**event(), "type": "other"}, "type_unknown"),
        ({**event(), "time": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, "time_in_future"),
        (event(tenant="../../etc"), "invalid_event"),
        (event(scopes={"team": "x" * 4096}), "invalid_event"),
        (event(scopes={"te{am": "x"}), "invalid_event"),
        (event(scopes={"team": "a\u0000b"}), "invalid_event"),
        (event(usage={"prompt_tokens": -1, "completion_tokens": 1}), "usage_unreadable"),
        (event(usage={"prompt_tokens": 10**30, "completion_tokens": 1}), "usage_unreadable"),
        (event(padding="x" * 300_000), "too_large"),
    ],
)
async def test_bad_event_gets_a_clear_answer(doors: Doors, services: SimpleNamespace, body: Any, code: str) -> None:
    """400 with the stable code of what is wrong; nothing reaches the hub."""
    reply = await doors.call("usage", body=body, headers=ONE)
    assert (reply.status, reply.code) == (400, code)
    assert services.publisher.publish.calls == []


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain"])
async def test_content_type_must_say_which_form(doors: Doors, services: SimpleNamespace, content_type: str) -> None:
    """400 naming the header: guessing one or many could bill an array as nothing."""
    reply = await doors.call("usage", body=event(), headers={"content-type": content_type})
    assert (reply.status, reply.param) == (400, "content-type")


async def test_too_large_a_batch_is_refused(doors: Doors, services: SimpleNamespace) -> None:
    """413 above 1 MiB."""
    reply = await doors.call("usage", body=b" " * (1024 * 1024 + 1), headers=MANY)
    assert (reply.status, reply.code) == (413, "payload_too_large")


async def test_hub_outage_asks_the_emitter_to_send_again(doors: Doors, services: SimpleNamespace) -> None:
    """503 with Retry-After: nothing was promised, and sending the same bytes again is safe."""
    services.publisher.publish = Recorder(HubUnavailable("the hub did not answer", retry_after_seconds=1))
    reply = await doors.call("usage", body=event(), headers=ONE)
    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (503, "hub_unavailable", "1")


WEBHOOK = {
    "request_id": "550e8400-e29b-41d4-a716-446655440000",
    "user_id": "user-123",
    "request_body": "secret prompt",
    "response_body": '{"choices": [{"message": {"content": "secret answer"}}], "model": "gpt-4o-mini-2024", "usage": '
    '{"prompt_tokens": 10, "completion_tokens": 15, "prompt_tokens_details": {"cached_tokens": 4}}}',
    "model": "gpt-4o-mini",
    "provider": "AZURE",
    "metadata": {"cost": 0.0015, "promptTokens": 10, "completionTokens": 15, "totalTokens": 25, "latencyMs": 1200},
}
TEAM = {"tenant": "contoso", "team": "search"}


class Memory:
    """First-heard times, held in a dict."""

    def __init__(self) -> None:
        self.times: dict[tuple[str, str], datetime] = {}

    async def time(self, source: str, id: str, now_utc: datetime) -> datetime:  # noqa: A002
        return self.times.setdefault((source, id), now_utc)


@pytest.fixture
def helicone(services: SimpleNamespace) -> SimpleNamespace:
    """The services with the real webhook over the fake hub."""
    services.helicone = HeliconeWebhook(services.publisher, Memory(), None)
    return services


async def test_helicone_call_becomes_a_usage_event(doors: Doors, helicone: SimpleNamespace) -> None:
    """204, and the event carries numbers and names only, the provider's own usage object, and the address's scopes."""
    before = datetime.now(UTC)
    reply = await doors.call("helicone", body=WEBHOOK, query=TEAM)
    assert (reply.status, reply.raw) == (204, b"")
    (found,) = published(helicone)
    assert (found.source, found.id) == ("helicone", WEBHOOK["request_id"])
    assert (found.data.tenant, found.data.scopes) == ("contoso", {"team": "search"})
    assert (found.data.provider, found.data.model, found.data.latency_ms) == ("azure-openai", "gpt-4o-mini", 1200)
    assert found.data.usage == {
        "prompt_tokens": 10,
        "completion_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert before - timedelta(seconds=1.3) < found.time_utc < datetime.now(UTC)
    assert b"secret" not in helicone.publisher.publish.calls[0][0][0][0][1]


async def test_helicone_counts_stand_in_for_a_cut_answer(doors: Doors, helicone: SimpleNamespace) -> None:
    """A response text cut at 10 KB is no JSON; Helicone's own token counts are used."""
    await doors.call("helicone", body={**WEBHOOK, "response_body": '{"usage": {"prompt'}, query=TEAM)
    assert published(helicone)[0].data.usage == {"prompt_tokens": 10, "completion_tokens": 15}


async def test_helicone_retry_is_the_same_event(doors: Doors, helicone: SimpleNamespace) -> None:
    """A webhook delivered twice has no time of its own; the first one's stands, or it would be billed twice."""
    for _ in range(2):
        await doors.call("helicone", body=WEBHOOK, query=TEAM)
    first, second = published(helicone)
    assert (first.time_utc, first.content_digest) == (second.time_utc, second.content_digest)


async def test_helicone_ids_are_bound_to_the_caller_too(doors: Doors, helicone: SimpleNamespace) -> None:
    """A stranger with Usage.Write cannot send a Helicone call's id first."""
    await doors.call("helicone", body=WEBHOOK, query=TEAM, as_=principal("Usage.Write", oid="stranger"))
    assert published(helicone)[0].source == "http/stranger/helicone"


async def test_helicone_user_counts_only_where_clients_may_assert_users(
    doors: Doors, helicone: SimpleNamespace
) -> None:
    """Anybody can write a user id into Helicone's header; contoso does not believe it, fabrikam does."""
    await doors.call("helicone", body=WEBHOOK, query=TEAM)
    await doors.call("helicone", body=WEBHOOK, query={"tenant": "fabrikam", "team": "fab"})
    assert [each.data.scopes for each in published(helicone)] == [
        {"team": "search"},
        {"team": "fab", "user": "user-123"},
    ]


async def test_wrong_helicone_signature_is_refused(doors: Doors, services: SimpleNamespace) -> None:
    """With a secret configured the body must be signed with it; the right signature passes."""
    services.helicone = HeliconeWebhook(services.publisher, Memory(), "hush")
    good = hmac.new(b"hush", json.dumps(WEBHOOK).encode(), hashlib.sha256).hexdigest()
    for signature in ("", "0" * 64, "é"):
        reply = await doors.call("helicone", body=WEBHOOK, query=TEAM, headers={"helicone-signature": signature})
        assert (reply.status, reply.code) == (401, "signature_invalid")
    reply = await doors.call("helicone", body=WEBHOOK, query=TEAM, headers={"helicone-signature": good})
    assert reply.status == 204


@pytest.mark.parametrize(
    ("body", "query", "status", "code"),
    [
        (b"{", TEAM, 400, "invalid_json"),
        ({"model": "gpt-4o"}, TEAM, 400, "invalid_event"),
        ({**WEBHOOK, "model": None, "response_body": None}, TEAM, 400, "invalid_event"),
        ({**WEBHOOK, "metadata": {"promptTokens": -5}}, TEAM, 400, "invalid_event"),
        (WEBHOOK, {"tenant": "contoso"}, 400, "invalid_request"),
        (WEBHOOK, {"tenant": "nobody", "team": "search"}, 403, "tenant_unknown"),
        (WEBHOOK, {"tenant": "contoso", "te{am": "x"}, 400, "invalid_request"),
    ],
)
async def test_helicone_webhook_that_cannot_be_billed(
    doors: Doors, helicone: SimpleNamespace, body: Any, query: dict[str, str], status: int, code: str
) -> None:
    """A clear answer, and nothing on the hub."""
    reply = await doors.call("helicone", body=body, query=query)
    assert (reply.status, reply.code) == (status, code)
    assert helicone.publisher.publish.calls == []
