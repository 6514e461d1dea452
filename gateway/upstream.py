"""The HTTP client to the models' endpoints, and the credential each of them gets."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx

from gateway.providers.base import ProviderRequest, Target
from shared.config.model import Endpoint
from shared.credential import open_credential
from shared.errors import ConfigInvalid, TollkeeperError
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

_ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
_DEFAULT_API_VERSION = "2024-10-21"
# Reasoning models may think for minutes before their first byte; connecting never takes long.
_TIMEOUT = httpx.Timeout(600.0, connect=5.0, pool=5.0)
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
    """One kept-open HTTP client to the backend."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Raises ConfigInvalid when the settings name no backend. `transport` is for tests."""
        self._endpoint = _default_endpoint(settings)
        self._api_key = settings.upstream_key
        self._settings = settings
        self._credential: AsyncTokenCredential | None = None
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, limits=_LIMITS, transport=transport)
        # A cookie that a backend sets for one caller would go out with the next one's call.
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def endpoint_of(self, provider: str, deployment: str) -> Endpoint | None:
        """Where a deployment of the provider is served; None when nowhere."""
        return self._endpoint

    async def send(self, target: Target, request: ProviderRequest, headers: Mapping[str, str]) -> httpx.Response:
        """Send the request and return once the answer's head is there; the body is still to be read, then closed.

        `headers` are the client's, for the simulated model. Raises UpstreamUnreachable when the model cannot have seen
        the call, UpstreamBroken when it may have.
        """
        url = target.endpoint.url + request.path
        try:
            auth = await self._authorization(target.endpoint)
            sent = {**self._forwarded(target.endpoint, headers), **request.headers, **auth}
            built = self._client.build_request(
                "POST", url, params=request.params or None, content=request.body, headers=sent
            )
            return await self._client.send(built, stream=True)
        except _NEVER_REACHED as error:
            raise UpstreamUnreachable("the model backend cannot be reached", retry_after_seconds=1) from error
        except httpx.HTTPError as error:
            raise UpstreamBroken("the model backend took the call but did not answer") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        if self._credential is not None:
            await self._credential.close()

    def _is_simulated(self, endpoint: Endpoint) -> bool:
        simulated = self._settings.local_model_url
        return simulated is not None and endpoint.url.startswith(simulated)

    def _forwarded(self, endpoint: Endpoint, headers: Mapping[str, str]) -> dict[str, str]:
        """Request headers for the backend. The caller's key stays here; the simulation's knobs go only to it."""
        forwarded = {"content-type": "application/json", "accept-encoding": "identity"}
        if self._is_simulated(endpoint):
            forwarded |= {name: value for name, value in headers.items() if name.startswith("x-sim-")}
        return forwarded

    async def _authorization(self, endpoint: Endpoint) -> dict[str, str]:
        if self._is_simulated(endpoint) or endpoint.api != "azure-openai":
            return {}
        if self._api_key:
            return {"api-key": self._api_key}
        if self._credential is None:
            self._credential = open_credential(self._settings)
        token = await self._credential.get_token(_ENTRA_SCOPE)
        return {"authorization": f"Bearer {token.token}"}


def _default_endpoint(settings: Settings) -> Endpoint:
    """The one endpoint that the settings name. Raises ConfigInvalid when they name none."""
    url = settings.upstream_url or settings.local_model_url
    if url is None:
        raise ConfigInvalid("AZURE_OPENAI_ENDPOINT: is required, such as https://name.openai.azure.com")
    return Endpoint(id="default", provider="azure-openai", api="azure-openai", url=url)


def default_api_version(given: str | None) -> str:
    """The api-version of a call by deployment; Azure requires one."""
    return given or _DEFAULT_API_VERSION


def client_headers(response: httpx.Response) -> dict[str, str]:
    """The backend's headers a client may see: what describes this answer, nothing that describes our connection."""
    return {
        name: value for name, value in response.headers.items() if name in _PASSED_ON or name.startswith("x-ratelimit-")
    }
