"""A thin client of the Azure Resource Manager (ARM) REST API: tokens, paging, throttling and long-running operations.

The scripts call a handful of read operations of a dozen services; a management SDK per service would be forty packages
for them. Every caller states the API version it was written for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import ClientAuthenticationError

PUBLIC_CLOUD = "https://management.azure.com"

_LOG = logging.getLogger(__name__)
_TRIES = 6
_LONGEST_WAIT_SECONDS = 120.0  # a longer Retry-After is a quota of the hour, which nobody wants to sit through
_POLL_SECONDS = 5.0  # when a long-running operation does not say how long
_OPERATION_MINUTES = 60
_TOKEN_MARGIN_SECONDS = 300
_THROTTLED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_PASSING = _THROTTLED | {HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
_ENDED_WELL = frozenset({"succeeded"})
_ENDED_BADLY = frozenset({"failed", "canceled", "cancelled"})


class ArmError(Exception):
    """Azure's refusal: HTTP `status`, Azure's `code` and `message`. Status 0: Azure was not reached."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code} ({status}): {message}" if status else f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class Bearer(httpx.Auth):
    """Puts an Entra token for `scope` on every request. Keeps it: the Azure CLI takes half a second for each."""

    def __init__(self, credential: TokenCredential, scope: str) -> None:
        self._credential = credential
        self._scope = scope
        self._token: AccessToken | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """One request, never asked again: a 401 with a fresh token is an answer."""
        if self._token is None or self._token.expires_on - time.time() < _TOKEN_MARGIN_SECONDS:
            try:
                self._token = self._credential.get_token(self._scope)
            except ClientAuthenticationError as error:
                raise ArmError(HTTPStatus.UNAUTHORIZED, "NotSignedIn", error.message or str(error)) from error
        request.headers["Authorization"] = f"Bearer {self._token.token}"
        yield request


class Arm:
    """ARM calls as the signed-in caller. Paths begin with `/`; answers are the decoded JSON objects.

    Every method raises ArmError, after waiting out throttling (429, 503, with Retry-After) and passing faults.
    """

    def __init__(
        self,
        credential: TokenCredential,
        endpoint: str = PUBLIC_CLOUD,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint = httpx.URL(endpoint)
        self._client = httpx.Client(base_url=endpoint, auth=Bearer(credential, f"{endpoint}/.default"), timeout=60)
        self._sleep = sleep

    def get(self, path: str, api_version: str, **query: str) -> dict[str, Any]:
        """The resource, or one page of a list."""
        return _json(self._send("GET", path, params={"api-version": api_version, **query}))

    def find(self, path: str, api_version: str) -> dict[str, Any] | None:
        """The resource; None when there is none."""
        try:
            return self.get(path, api_version)
        except ArmError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def get_all(self, path: str, api_version: str, **query: str) -> Iterator[dict[str, Any]]:
        """Every element of a list, over all its pages."""
        page = self.get(path, api_version, **query)
        while True:
            yield from page.get("value", [])
            link = page.get("nextLink")
            if not link:
                return
            page = _json(self._send("GET", self._own(link)))

    def put(self, path: str, api_version: str, body: dict[str, Any], *, if_match: str | None = None) -> dict[str, Any]:
        """Create or replace; returns when Azure is done."""
        return self._change("PUT", path, api_version, body, if_match)

    def post(self, path: str, api_version: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call an action; returns when Azure is done."""
        return self._change("POST", path, api_version, body)

    def patch(self, path: str, api_version: str, body: dict[str, Any]) -> dict[str, Any]:
        """Change some properties; returns when Azure is done."""
        return self._change("PATCH", path, api_version, body, "*")

    def delete(self, path: str, api_version: str) -> None:
        """Delete; returns when Azure is done. What is not there counts as deleted."""
        try:
            self._change("DELETE", path, api_version, None, "*")
        except ArmError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _change(
        self, method: str, path: str, api_version: str, body: dict[str, Any] | None, if_match: str | None = None
    ) -> dict[str, Any]:
        headers = {"If-Match": if_match} if if_match else {}  # API Management refuses PATCH and DELETE without
        answer = self._send(method, path, params={"api-version": api_version}, json=body, headers=headers)
        return _json(self._finished(answer))

    def _finished(self, answer: httpx.Response) -> httpx.Response:
        """The last answer of a long-running operation; `answer` itself when it is none."""
        progress, location = answer.headers.get("Azure-AsyncOperation"), answer.headers.get("Location")
        is_pending = answer.status_code == HTTPStatus.ACCEPTED and (progress or location)
        if not is_pending and not (answer.status_code == HTTPStatus.CREATED and progress):
            return answer  # the Location of a 201 is where the new resource lives, not an operation
        started = time.monotonic()
        asked = answer
        while time.monotonic() - started < _OPERATION_MINUTES * 60:
            self._sleep(_retry_after(asked, _POLL_SECONDS))
            asked = self._send("GET", self._own(progress or str(location)))
            if not progress:
                if asked.status_code != HTTPStatus.ACCEPTED:
                    return asked
                continue
            state = _json(asked)
            status = str(state.get("status", "")).lower()
            if status in _ENDED_BADLY:
                raise _error(asked)
            if status in _ENDED_WELL:
                if answer.request.method in ("PUT", "PATCH"):
                    return self._send("GET", str(answer.request.url))
                return asked
        raise ArmError(0, "OperationTimeout", f"{answer.request.url.path} is not done after {_OPERATION_MINUTES} min")

    def _own(self, link: str) -> str:
        """A link that Azure gave, if it leads to Azure: the token goes along with it."""
        url = self._endpoint.join(link)
        if (url.scheme, url.host, url.port) != (self._endpoint.scheme, self._endpoint.host, self._endpoint.port):
            raise ArmError(0, "ForeignLink", f"the answer leads to {url.host}, which must not see the caller's token")
        return str(url)

    def _send(self, method: str, url: str, **request: Any) -> httpx.Response:
        """One answer below 400. POST is repeated only where Azure says that it did nothing."""
        retried = _THROTTLED if method == "POST" else _PASSING
        for attempt in range(1, _TRIES + 1):
            try:
                answer = self._client.request(method, url, **request)
            except httpx.TransportError as error:
                if method == "POST" or attempt == _TRIES:
                    reason = str(error) or type(error).__name__
                    raise ArmError(0, "Unreachable", f"{self._endpoint.host}: {reason}") from error
                self._sleep(float(2**attempt))
                continue
            if answer.is_success:
                return answer
            wait = _retry_after(answer, float(2**attempt))
            if answer.status_code not in retried or attempt == _TRIES or wait > _LONGEST_WAIT_SECONDS:
                raise _error(answer)
            _LOG.warning("%s answered %s; waiting %.0f s", answer.request.url.path, answer.status_code, wait)
            self._sleep(wait)
        raise AssertionError("every attempt returns or raises")


def _json(answer: httpx.Response) -> dict[str, Any]:
    if not answer.content:
        return {}
    try:
        body = answer.json()
    except ValueError as error:
        raise ArmError(answer.status_code, "InvalidAnswer", f"{answer.request.url.path} is no JSON") from error
    if isinstance(body, dict):
        return body
    return {"value": body}  # a few operations answer with a bare list


def _retry_after(answer: httpx.Response, default: float) -> float:
    """Seconds to wait: a number or a date, as HTTP has it."""
    text = answer.headers.get("Retry-After", "").strip()
    if not text:
        return default
    if text.isdigit():
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return default
    return max(0.0, (then.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _error(answer: httpx.Response) -> ArmError:
    """Azure's own words. Services differ: `{"error": {...}}`, `{"code", "message"}`, or text."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    found = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(found, dict):
        return ArmError(answer.status_code, HTTPStatus(answer.status_code).phrase, answer.text[:500])
    code = found.get("code") or found.get("Code") or HTTPStatus(answer.status_code).phrase
    messages = [found.get("message") or found.get("Message") or ""]
    messages += [detail.get("message") or "" for detail in found.get("details") or [] if isinstance(detail, dict)]
    return ArmError(answer.status_code, str(code), " ".join(dict.fromkeys(filter(None, messages))))
