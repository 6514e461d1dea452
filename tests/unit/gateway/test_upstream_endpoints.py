"""Each endpoint of models.yaml gets its own credential in the form its API takes, its own times, and nobody else's."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import httpx
import pytest

from gateway.providers.base import ProviderRequest, Target
from gateway.upstream import Upstream
from shared.config.loader import load_config
from shared.settings import Settings

REQUEST = ProviderRequest("/x", b"{}", headers={"anthropic-version": "2023-06-01"})
KEYS = {"A_API_KEY": "key-a", "AZURE_OPENAI_API_KEY": "key-azure"}
SETTINGS = Settings(model_keys=KEYS, local_model_url="http://127.0.0.1:9")


def config(*endpoints: str):
    text = "endpoints:\n" + "".join(f"  - {endpoint}\n" for endpoint in endpoints)
    return load_config({"tenants.yaml": b"tenants: [{id: default}]", "models.yaml": text.encode()})


async def sent(endpoint: str, settings: Settings = SETTINGS) -> httpx.Request:
    """What an endpoint is sent."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={})

    listed = config(endpoint)
    upstream = Upstream(settings, lambda: listed, httpx.MockTransport(answer))
    (only,) = listed.endpoints.values()
    target = Target("m", only.provider, "m", only, None)
    await upstream.send(target, REQUEST, {"x-sim-status": "500", "authorization": "Bearer of-the-caller"})
    await upstream.close()
    return requests[0]


@pytest.mark.parametrize(
    ("endpoint", "header", "value"),
    [
        ("{id: a, provider: openai, key: A_API_KEY}", "authorization", "Bearer key-a"),
        ("{id: a, provider: openrouter, key: A_API_KEY}", "authorization", "Bearer key-a"),
        ("{id: a, provider: databricks, url: 'https://adb-1.azuredatabricks.net', key: A_API_KEY}", "authorization", 0),
        ("{id: a, provider: anthropic, key: A_API_KEY}", "x-api-key", "key-a"),
        ("{id: a, provider: azure, url: 'https://w.openai.azure.com', key: A_API_KEY}", "api-key", "key-a"),
        ("{id: a, provider: vllm, url: 'http://127.0.0.1:8000/v1', key: A_API_KEY}", "authorization", "Bearer key-a"),
    ],
)
async def test_a_key_goes_in_the_header_that_the_api_takes(endpoint: str, header: str, value: str | int) -> None:
    """And the caller's own credential, and knobs of the simulation, go nowhere."""
    request = await sent(endpoint)
    given = {name: request.headers.get(name) for name in ("authorization", "x-api-key", "api-key")}
    assert {name: text for name, text in given.items() if text} == {header: value or "Bearer key-a"}
    assert "x-sim-status" not in request.headers
    assert request.headers["anthropic-version"] == "2023-06-01"  # headers of the API itself pass


@pytest.mark.parametrize(
    ("endpoint", "scope"),
    [
        ("{id: a, provider: azure, url: 'https://w.openai.azure.com'}", "https://cognitiveservices.azure.com/.default"),
        (
            "{id: a, provider: anthropic, url: 'https://w.services.ai.azure.com/anthropic'}",
            "https://cognitiveservices.azure.com/.default",
        ),
        (
            "{id: a, provider: databricks, url: 'https://adb-1.azuredatabricks.net'}",
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default",
        ),
        ("{id: a, provider: ollama, url: 'http://127.0.0.1:11434/v1'}", None),
        ("{id: a, provider: azure, url: 'http://127.0.0.1:1'}", None),  # a token never travels without TLS
        ("{id: a, provider: vllm, url: 'https://vllm.example/v1'}", None),  # nor to somebody who is not Azure
    ],
)
async def test_without_a_key_only_azure_gets_a_token_for_itself(endpoint: str, scope: str | None, monkeypatch) -> None:
    """Each service of Azure takes tokens made for it; what is keyless elsewhere gets no credential at all."""
    scopes = []

    class Credential:
        async def get_token(self, scope: str):
            scopes.append(scope)
            return SimpleNamespace(token="entra")

        async def close(self) -> None:
            pass

    monkeypatch.setattr("gateway.upstream.open_credential", lambda settings: Credential())
    request = await sent(endpoint)
    assert scopes == ([scope] if scope else [])
    assert request.headers.get("authorization") == ("Bearer entra" if scope else None)


@pytest.mark.parametrize(
    ("url", "simulated"), [("http://127.0.0.1:9/at/a/v1", True), ("http://127.0.0.1:99/v1", False)]
)
async def test_only_endpoints_below_the_laptops_model_hear_its_knobs(url: str, simulated: bool) -> None:
    """And those get no key, so that a real one set on a laptop stays there."""
    request = await sent(f"{{id: a, provider: openai, url: '{url}', key: A_API_KEY}}")
    assert request.headers.get("x-sim-status") == ("500" if simulated else None)
    assert request.headers.get("authorization") == (None if simulated else "Bearer key-a")


def test_an_endpoint_whose_key_is_not_set_serves_nothing_and_says_so(caplog) -> None:
    """The log names endpoint and setting; a call is then refused as not served instead of failing at the provider."""
    listed = config("{id: a, provider: openai, key: MISSING_API_KEY}", "{id: b, provider: x, url: 'https://x'}")
    with caplog.at_level(logging.ERROR):
        upstream = Upstream(SETTINGS, lambda: listed)
    assert "endpoint a serves nothing until its key is set: MISSING_API_KEY" in caplog.text
    assert upstream.endpoint_of("openai", "m") is None
    assert upstream.endpoint_of("x", "m") is listed.endpoints["b"]


def test_an_endpoint_below_the_laptops_model_needs_no_key(caplog) -> None:
    """A configuration with real providers' key names plays them all without one, and nothing is said to be missing."""
    listed = config("{id: a, provider: openai, url: 'http://127.0.0.1:9/at/a', key: MISSING_API_KEY}")
    with caplog.at_level(logging.ERROR):
        upstream = Upstream(SETTINGS, lambda: listed)
    assert upstream.endpoint_of("openai", "m") is listed.endpoints["a"]
    assert not caplog.text


def test_a_new_configuration_holds_for_the_next_call() -> None:
    """Endpoints come and go without a restart."""
    versions = [config("{id: a, provider: x, url: 'https://old'}"), config("{id: a, provider: x, url: 'https://new'}")]
    current = [versions[0]]
    upstream = Upstream(SETTINGS, lambda: current[0])
    assert upstream.endpoint_of("x", "m") is versions[0].endpoints["a"]
    current[0] = versions[1]
    assert upstream.endpoint_of("x", "m") is versions[1].endpoints["a"]


async def test_silence_within_an_answer_is_measured_by_its_own_time() -> None:
    """A head may take a minute, but at an endpoint that allows a second of silence after it, that is all it gets."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ndata: {}\n\n")
        await reader.read(-1)  # until the other side is gone
        writer.close()

    async with await asyncio.start_server(stall, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        listed = config(
            f"{{id: a, provider: x, url: 'http://127.0.0.1:{port}', timeout_seconds: 60, stall_seconds: 1}}"
        )
        upstream = Upstream(Settings(), lambda: listed)
        response = await upstream.send(Target("m", "x", "m", listed.endpoints["a"], None), REQUEST, {})
        with pytest.raises(httpx.ReadTimeout):
            await asyncio.wait_for(response.aread(), 30)
        await response.aclose()
        await upstream.close()
