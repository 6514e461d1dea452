"""What the gateway sends to a backend, and with which credential."""

from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import msgspec
import pytest

from gateway.call import read_call
from gateway.events import EventQueue
from gateway.exchange import MOST_USAGE_BYTES, Exchange
from gateway.providers.azure_openai import AzureOpenAiApi
from gateway.providers.base import Target
from gateway.providers.databricks import DatabricksApi
from gateway.upstream import Upstream, UpstreamBroken, UpstreamUnreachable, client_headers, default_api_version
from shared.config.loader import load_config
from shared.config.model import Endpoint
from shared.errors import ConfigInvalid, InvalidRequest
from shared.settings import Settings

CALL = read_call("chat", b'{"model": "gpt-4o", "messages": []}', None)
AZURE = Settings(upstream_url="https://contoso.openai.azure.com", upstream_key="backend-key")
CONFIG = load_config({"tenants.yaml": b"tenants: [{id: default}]"})
CLIENT_HEADERS = {"api-key": "local-search", "authorization": "Bearer local-search", "x-sim-status": "500"}


class Backend:
    """Keeps the request it got, or fails as told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.requests: list[httpx.Request] = []

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return httpx.Response(200, json={}, headers={"set-cookie": "affinity=one-caller; Path=/"})


async def send(settings: Settings, backend: Backend, deployment: str = "gpt-4o-weu", api_version: str | None = None):
    upstream = Upstream(settings, lambda: CONFIG, backend.transport())
    try:
        return await send_by(upstream, deployment, api_version)
    finally:
        await upstream.close()


async def send_by(upstream: Upstream, deployment: str, api_version: str | None = None) -> httpx.Response:
    endpoint = upstream.endpoint_of("azure-openai", deployment)
    target = Target("gpt-4o", "azure-openai", deployment, endpoint, api_version)
    return await upstream.send(target, AzureOpenAiApi().request(CALL, target, ()), CLIENT_HEADERS)


async def test_azure_gets_the_gateways_credential_and_never_the_callers():
    """The caller's key ends at the gateway, and so do the simulation's knobs."""
    backend = Backend()
    await send(AZURE, backend)
    request = backend.requests[0]
    assert str(request.url) == "https://contoso.openai.azure.com/openai/v1/chat/completions"
    assert request.headers["api-key"] == "backend-key"
    assert "authorization" not in request.headers
    assert "x-sim-status" not in request.headers


async def test_cookies_of_one_answer_stay_out_of_the_next_call():
    """A backend's cookie belongs to the caller it answered, and callers share the client."""
    backend = Backend()
    upstream = Upstream(AZURE, lambda: CONFIG, backend.transport())
    for _ in range(2):
        await send_by(upstream, "gpt-4o-weu")
    await upstream.close()
    assert [request.headers.get("cookie") for request in backend.requests] == [None, None]


async def test_a_call_by_deployment_stays_one():
    """Old api-versions answer on the deployment's path only."""
    backend = Backend()
    await send(AZURE, backend, "gpt-4o_weu.2", "2024-10-21")
    url = "https://contoso.openai.azure.com/openai/deployments/gpt-4o_weu.2/chat/completions?api-version=2024-10-21"
    assert str(backend.requests[0].url) == url


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a?c", "a#c", "a/../dear", "a%2f..%2fdear", "a\\b", "a b", "é"])
async def test_a_name_cannot_break_out_of_the_deployments_path(name):
    """Callers may name what config does not list; somebody on the way may undo an escape, and httpx resolves `..`."""
    backend = Backend()
    with pytest.raises(InvalidRequest, match=r"^model: "):
        await send(AZURE, backend, name, "2024-10-21")
    target = Target(
        "m", "databricks", name, Endpoint(id="d", provider="databricks", api="databricks", url="https://d"), None
    )
    with pytest.raises(InvalidRequest, match=r"^model: "):
        DatabricksApi().request(CALL, target, ())
    assert backend.requests == []


@pytest.mark.parametrize("version", ["2024-10-21&x=y", "../1", "a" * 41, "2024 10", "\r\nx: y"])
def test_an_api_version_is_one(version):
    """It comes from the caller and stands in the address that the gateway asks."""
    with pytest.raises(InvalidRequest, match=r"^api-version: "):
        default_api_version(version)
    assert default_api_version("2025-04-01-preview") == "2025-04-01-preview"


async def test_without_a_key_entra_id_is_used(monkeypatch):
    """Managed identity is the normal case in Azure: a token for the model service, as Bearer."""
    scopes = []

    class Credential:
        def __init__(self, **options) -> None:
            pass

        async def get_token(self, scope: str):
            scopes.append(scope)
            return SimpleNamespace(token="entra-token")

        async def close(self) -> None:
            pass

    monkeypatch.setattr("azure.identity.aio.ManagedIdentityCredential", Credential)
    backend = Backend()
    await send(Settings(upstream_url="https://contoso.openai.azure.com"), backend)
    assert backend.requests[0].headers["authorization"] == "Bearer entra-token"
    assert scopes == ["https://cognitiveservices.azure.com/.default"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (httpx.ConnectError("refused"), UpstreamUnreachable),
        (httpx.ConnectTimeout("slow"), UpstreamUnreachable),
        (httpx.ReadTimeout("slow"), UpstreamBroken),
        (httpx.RemoteProtocolError("cut"), UpstreamBroken),
    ],
)
async def test_only_a_call_the_model_cannot_have_seen_is_unreachable(error, raised, caplog):
    """After the request went out the model may have worked, and money may have been spent: the log names the place."""
    with pytest.raises(raised):
        await send(AZURE, Backend(error))
    seen = [record.getMessage() for record in caplog.records if record.name == "tollkeeper.gateway"]
    assert seen == (["unanswered: endpoint default, deployment gpt-4o-weu"] if raised is UpstreamBroken else [])


def test_a_backend_is_required():
    """Without one the gateway does not start, and says which variable to set."""
    with pytest.raises(ConfigInvalid, match="AZURE_OPENAI_ENDPOINT"):
        Upstream(Settings(), lambda: CONFIG)


def test_headers_of_the_connection_stay_here():
    """Clients see what describes the answer, not lengths, encodings or cookies of our own connection."""
    headers = {"content-type": "application/json", "content-length": "9", "set-cookie": "a", "x-ratelimit-limit": "1"}
    assert set(client_headers(httpx.Response(200, headers=headers))) == {"content-type", "x-ratelimit-limit"}


def test_headers_that_no_server_could_send_on_stay_here():
    """A head that cannot be written would lose an answer that the model has made, and its event."""
    headers = {"content-type": "application/json", "x-ratelimit-reset": "☃".encode()}
    assert set(client_headers(httpx.Response(200, headers=headers))) == {"content-type"}


def _nested(depth: int) -> dict:
    return {"nested": _nested(depth - 1)} if depth else {}


@pytest.mark.parametrize("junk", ["x" * MOST_USAGE_BYTES, _nested(300), [[]] * 300])
async def test_a_huge_usage_object_cannot_block_the_queue(junk):
    """An event too large for a hub message would be retried forever, with every later event behind it; one that cannot
    be written would be lost, and its place with it.
    """
    answer = SimpleNamespace(
        tenant="default",
        scopes={},
        requested_model="m",
        model="m",
        provider="p",
        deployment="d",
        reservation=None,
        decision="allow",
        admitted_at_utc=datetime(2026, 11, 21, tzinfo=UTC),
    )
    exchange = Exchange(source="gateway/t", request_id="1", call=CALL, answer=answer)
    queue = EventQueue(publisher=SimpleNamespace())
    queue.reserve()
    usage = exchange.billable({"prompt_tokens": 1, "junk": junk})
    exchange.report(queue, status=200, usage=usage, streamed=False)
    assert msgspec.json.decode(queue._events[0])["data"]["usage"] is None
