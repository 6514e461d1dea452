"""The HTTP client to the models' endpoints, and the credential each of them gets."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from gateway.providers.base import ProviderRequest, Target
from gateway.transport import open_transport
from shared.config.model import Api, Config, Endpoint
from shared.credential import open_credential
from shared.errors import ConfigInvalid, InvalidRequest, TollkeeperError
from shared.routing.endpoints import DEFAULT_KEY, Endpoints, default_endpoint
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

log = logging.getLogger("tollkeeper.gateway")

_COGNITIVE_SERVICES = "https://cognitiveservices.azure.com/.default"
_DATABRICKS = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"  # the application that every Azure Databricks is
_DEFAULT_API_VERSION = "2024-10-21"
_API_VERSION = re.compile(r"[A-Za-z0-9.-]{1,40}")
_USER_AGENT = "tollkeeper"  # some providers' front doors turn away calls that name none
_CONNECT_SECONDS = 5.0  # connecting never takes long, however long a model thinks
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
_PASSED_ON = ("content-type", "retry-after", "retry-after-ms", "apim-request-id", "openai-processing-ms", "x-ms-region")
_NEVER_REACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class UpstreamUnreachable(TollkeeperError):
    """No connection to the backend: the model never saw the call, so it cost nothing."""

    code, http_status, kind = "upstream_unreachable", 502, "server_error"


class UpstreamBroken(TollkeeperError):
    """The backend took the call and gave no answer: a timeout or a cut connection."""

    code, http_status, kind = "upstream_failed", 504, "server_error"


class UpstreamRefused(TollkeeperError):
    """The backend does not accept the gateway's own credential: nothing the caller could change."""

    code, http_status, kind = "upstream_refused", 502, "server_error"


class Upstream:
    """Kept-open connections to the endpoints of the configuration in force."""

    def __init__(
        self, settings: Settings, read_config: Callable[[], Config], transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Raises ConfigInvalid when neither settings nor config name an endpoint. `transport` is for tests."""
        self._settings = settings
        self._read_config = read_config
        has_key = settings.upstream_key is not None
        self._default = default_endpoint(settings.upstream_url, settings.local_model_url, has_key=has_key)
        self._keys = {**settings.model_keys, **({DEFAULT_KEY: settings.upstream_key} if settings.upstream_key else {})}
        self._config: Config | None = None
        self._endpoints = self._current_endpoints()
        if self._default is None and not read_config().endpoints:
            raise ConfigInvalid(
                "AZURE_OPENAI_ENDPOINT: is required, such as https://name.openai.azure.com, or endpoints in models.yaml"
            )
        self._credential: AsyncTokenCredential | None = None
        # No httpx.AsyncClient: it merges what every call states anyway, keeps cookies, and takes half a call's time.
        self._transport = transport or open_transport(_LIMITS)

    def endpoint_of(self, provider: str, deployment: str) -> Endpoint | None:
        """Where a deployment of the provider is served; None when nowhere, or when nobody set the endpoint's key."""
        endpoint = self._current_endpoints().of(provider, deployment)
        return endpoint if endpoint is not None and self._is_usable(endpoint) else None

    async def send(self, target: Target, request: ProviderRequest, headers: Mapping[str, str]) -> httpx.Response:
        """Send the request and return once the answer's head is there; the body is still to be read, then closed.

        `headers` are the client's, for the simulated model. Raises UpstreamUnreachable when the model cannot have seen
        the call, UpstreamBroken when it may have.
        """
        endpoint = target.endpoint
        timeout = {"connect": _CONNECT_SECONDS, "pool": _CONNECT_SECONDS, "read": float(endpoint.timeout_seconds)}
        try:
            auth = await self._authorization(endpoint)
            built = httpx.Request(
                "POST",
                _url(endpoint.url + request.path, tuple(request.params.items())),
                content=request.body,
                headers={**self._forwarded(endpoint, headers), **request.headers, **auth},
                extensions={"timeout": timeout},
            )
            response = await self._transport.handle_async_request(built)
        except _NEVER_REACHED as error:
            raise UpstreamUnreachable("the model backend cannot be reached", retry_after_seconds=1) from error
        except httpx.HTTPError as error:
            # Its provider may charge for what nobody will see the usage of: whoever compares invoices must find it.
            log.warning("unanswered: endpoint %s, deployment %s", endpoint.id, target.deployment)
            raise UpstreamBroken("the model backend took the call but did not answer") from error
        # What is left is read by the same request's timeouts; from here on silence means a stall.
        timeout["read"] = float(endpoint.stall_seconds)
        return response

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
        if self._credential is not None:
            await self._credential.close()

    def _current_endpoints(self) -> Endpoints:
        config = self._read_config()
        if config is not self._config:
            self._config, self._endpoints = config, Endpoints(config, self._default)
            for endpoint in config.endpoints.values():
                if not self._is_usable(endpoint):
                    log.error("endpoint %s serves nothing until its key is set: %s", endpoint.id, endpoint.key)
        return self._endpoints

    def _is_usable(self, endpoint: Endpoint) -> bool:
        return endpoint.key is None or endpoint.key in self._keys or self._is_simulated(endpoint)

    def _is_simulated(self, endpoint: Endpoint) -> bool:
        simulated = self._settings.local_model_url
        return simulated is not None and (endpoint.url == simulated or endpoint.url.startswith(simulated + "/"))

    def _forwarded(self, endpoint: Endpoint, headers: Mapping[str, str]) -> dict[str, str]:
        """Request headers for the backend. The caller's key stays here; the simulation's knobs go only to it."""
        forwarded = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": _USER_AGENT}
        if self._is_simulated(endpoint):
            forwarded |= {name: knob for name, knob in headers.items() if name.startswith("x-sim-") and knob.isascii()}
        return forwarded

    async def _authorization(self, endpoint: Endpoint) -> dict[str, str]:
        """The endpoint's own credential, as its API takes it. The simulated model gets none."""
        if self._is_simulated(endpoint):
            return {}
        if endpoint.key is not None:
            return _key_header(endpoint.api, self._keys[endpoint.key])
        scope = _entra_scope(endpoint)
        if scope is None:
            return {}
        try:
            if self._credential is None:
                self._credential = open_credential(self._settings)
            token = await self._credential.get_token(scope)
        except Exception as error:
            # Whatever the identity library raises: no model was asked, and the next try may find a token.
            log.exception("no token of Entra ID for endpoint %s", endpoint.id)
            raise UpstreamRefused("the gateway's identity gets no token for the model backend") from error
        return {"authorization": f"Bearer {token.token}"}


@lru_cache(1024)
def _url(address: str, params: tuple[tuple[str, str], ...]) -> httpx.URL:
    """Parsed once per deployment instead of once per call."""
    return httpx.URL(address, params=dict(params)) if params else httpx.URL(address)


def _key_header(api: Api, key: str) -> dict[str, str]:
    if api == "azure-openai":
        return {"api-key": key}
    return {"x-api-key": key} if api == "anthropic" else {"authorization": f"Bearer {key}"}


def _entra_scope(endpoint: Endpoint) -> str | None:
    """Which token of Entra ID a keyless endpoint takes; None for one that takes none, and so for all without TLS."""
    parts = urlsplit(endpoint.url)
    if parts.scheme != "https":
        return None
    if endpoint.api == "databricks":
        return _DATABRICKS
    if endpoint.api == "azure-openai" or (parts.hostname or "").endswith(".services.ai.azure.com"):
        return _COGNITIVE_SERVICES
    return None


def default_api_version(given: str | None) -> str:
    """The api-version of a call by deployment; Azure requires one. Raises InvalidRequest for what can be none."""
    if given and not _API_VERSION.fullmatch(given):
        raise InvalidRequest("api-version: expected a version such as 2024-10-21", param="api-version")
    return given or _DEFAULT_API_VERSION


def client_headers(response: httpx.Response) -> dict[str, str]:
    """The backend's headers a client may see: what describes this answer, nothing that describes our connection."""
    return {
        name: value
        for name, value in response.headers.items()
        if (name in _PASSED_ON or name.startswith("x-ratelimit-")) and value.isascii()
    }
