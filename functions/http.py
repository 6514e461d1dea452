"""What every HTTP door shares: the guard, decoding the request, encoding the answer, mapping errors.

A door is `async def (call: Call) -> Answer` under `@door(...)`; it parses, calls one service and maps what comes back.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import azure.functions as func
import msgspec

from functions.auth import PRINCIPAL_HEADER, Principal, Role, authenticate, require_role
from functions.reach import Reach, reach
from shared.decoding import field_and_problem
from shared.errors import ConfigInvalid, Forbidden, InvalidRequest, PayloadTooLarge, TollkeeperError

if TYPE_CHECKING:
    from shared.bootstrap import Services
    from shared.settings import Settings

T = TypeVar("T")
JSON = "application/json"
SMALL_BODY_BYTES = 64 * 1024
DEFAULT_TENANT = "default"

_log = logging.getLogger("tollkeeper.http")
_encode = msgspec.json.Encoder(order="deterministic").encode
_READING = ("GET", "HEAD", "OPTIONS")
_PLAIN_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,100}")
_DEPENDENCIES = ("azure.", "redis.", "aiohttp.")
_RETRY_SECONDS = 2


class NotReady(TollkeeperError):
    """The app cannot serve yet: its settings or its first configuration are refused."""

    code, http_status = "not_ready", 503


class DependencyUnavailable(TollkeeperError):
    """A store does not respond; sending the request again is safe and may help."""

    code, http_status = "dependency_unavailable", 503


class Answer(msgspec.Struct):
    """What a door answers. A `bytes` body goes out as it is, None as nothing, anything else as JSON."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    media_type: str = JSON


class Call:
    """One authenticated request, with the services that can answer it."""

    __slots__ = ("principal", "request", "services")

    def __init__(self, request: func.HttpRequest, principal: Principal, services: Services) -> None:
        self.request = request
        self.principal = principal
        self.services = services

    def query(self, name: str) -> str | None:
        """A query parameter, None when absent or empty."""
        return self.request.params.get(name) or None

    def body(self, max_bytes: int = SMALL_BODY_BYTES) -> bytes:
        """The raw body. Raises PayloadTooLarge."""
        body: bytes = self.request.get_body()
        if len(body) > max_bytes:
            raise PayloadTooLarge(f"the body has {len(body)} bytes; at most {max_bytes} are taken here")
        return body

    def json(self, shape: type[T], max_bytes: int = SMALL_BODY_BYTES) -> T:
        """The body as `shape`. Raises PayloadTooLarge, or InvalidRequest naming the field."""
        body = self.body(max_bytes)
        try:
            return msgspec.json.decode(body, type=shape)
        except msgspec.ValidationError as error:
            _refuse(error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}", param="body") from None

    def idempotency_key(self) -> str:
        """The caller's `Idempotency-Key`, else a fresh one. Raises InvalidRequest for one that is no plain token."""
        key: str | None = self.request.headers.get("idempotency-key")
        if key is None:
            return uuid.uuid4().hex
        if not _PLAIN_TOKEN.fullmatch(key):
            expected = "expected 1 to 100 letters, digits, '.', '_' or '-'"
            raise InvalidRequest(f"idempotency-key: {expected}", param="idempotency-key")
        return key

    def reach(self) -> Reach:
        """What the caller may read in the tenant that the `tenant` parameter names (else `default`)."""
        return reach(self.principal, self.services.config.current, self.query("tenant") or DEFAULT_TENANT)


Handler = Callable[[Call], Awaitable[Answer]]


def door(*roles: Role, anonymous: bool = False) -> Callable[[Handler], Callable[..., Any]]:
    """Turn a handler into an Azure function that only callers with one of `roles` pass; `anonymous` lets all in."""

    def wrap(handler: Handler) -> Callable[..., Any]:
        async def run(req: func.HttpRequest) -> func.HttpResponse:
            request_id = uuid.uuid4().hex
            try:
                answer = await handler(await _admit(req, roles, anonymous=anonymous))
            except TollkeeperError as error:
                answer = _mapped(error)
            except Exception as error:  # noqa: BLE001 - the outermost frame; _failure logs it with its traceback
                answer = _failure(error, handler.__name__, request_id)
            return _response(answer, request_id)

        # Not functools.wraps: the host reads the signature, and must see `req` rather than the handler's `call`.
        run.__name__, run.__qualname__, run.__doc__ = handler.__name__, handler.__qualname__, handler.__doc__
        return run

    return wrap


def page(handler: Callable[[func.HttpRequest], Answer]) -> Callable[..., Any]:
    """Turn a handler into an Azure function that anybody may call and that needs nothing to be up: it asks no service,
    so a browser gets its page also while the app is not ready, and the page can tell."""

    async def run(req: func.HttpRequest) -> func.HttpResponse:
        return _response(handler(req), uuid.uuid4().hex)

    run.__name__, run.__qualname__, run.__doc__ = handler.__name__, handler.__qualname__, handler.__doc__
    return run


async def _admit(request: func.HttpRequest, roles: tuple[Role, ...], *, anonymous: bool) -> Call:
    services = await _services()
    refuse_cross_site(request, services.settings)
    if anonymous:
        return Call(request, Principal(), services)
    principal = authenticate(request.headers.get(PRINCIPAL_HEADER), services.settings)
    require_role(principal, roles)
    return Call(request, principal, services)


def refuse_cross_site(request: func.HttpRequest, settings: Settings) -> None:
    """Forbidden `cross_site_request` for a change that a browser was made to ask for by another site.

    People are signed in by a cookie, which a browser sends along whoever made it ask. Browsers say who did: by
    Sec-Fetch-Site, older ones by Origin. Other callers send neither, and carry a token that no site can borrow.
    """
    if request.method in _READING:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        origin = request.headers.get("origin")
        ours = {urlsplit(settings.public_url or "").netloc, request.headers.get("host", "")} - {""}
        foreign = origin is not None and urlsplit(origin).netloc not in ours
    else:
        foreign = site not in ("same-origin", "none")
    if foreign:
        raise Forbidden("another site made the browser send this; nothing was changed", code="cross_site_request")


async def _services() -> Services:
    """This process's services. Raises NotReady: which line of which file is wrong is not for the caller to read."""
    from shared.bootstrap import app

    try:
        return await app()
    except ConfigInvalid as error:
        _log.error("not_ready: %s", error.message)
        raise NotReady("the configuration is refused; the log says why", retry_after_seconds=_RETRY_SECONDS) from None


def _response(answer: Answer, request_id: str) -> func.HttpResponse:
    body = answer.body
    if body is not None and not isinstance(body, bytes):
        body = _encode(body)
    headers = {"x-request-id": request_id, **answer.headers}
    if body is not None:
        headers["Content-Type"] = _content_type(answer.media_type)
    return func.HttpResponse(body, status_code=answer.status, headers=headers, mimetype=answer.media_type)


def _content_type(media_type: str) -> str:
    """Texts say their charset, once. Said here: the library appends one to texts that have it, some hosts to all."""
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") and ";" not in media_type else media_type


def _failure(error: Exception, name: str, request_id: str) -> Answer:
    """An answer that says nothing of the inside; the log has the traceback under the same id."""
    _log.exception("%s failed, request id %s", name, request_id)
    if _is_outage(error):
        message = f"a store this answer needs does not respond; request id {request_id}"
        return _mapped(DependencyUnavailable(message, retry_after_seconds=_RETRY_SECONDS))
    return _mapped(TollkeeperError(f"something failed on our side; request id {request_id}"))


def _mapped(error: TollkeeperError) -> Answer:
    headers = error.headers()
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # HTTP asks for it, and some clients fetch a token only when told so
    return Answer(error.body(), error.http_status, headers)


def _is_outage(error: Exception) -> bool:
    """Whether a store failed rather than this code: the caller may then try again.

    SDK errors are told by where they are defined, because a door imports no SDK. An SDK error with a 4xx status is a
    request of ours that was wrong, so no outage.
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if not type(error).__module__.startswith(_DEPENDENCIES):
        return False
    status = getattr(error, "status_code", None)
    return not isinstance(status, int) or status == 429 or status >= 500


def _refuse(error: msgspec.ValidationError) -> NoReturn:
    field, problem = field_and_problem(error)
    field = field or "body"
    raise InvalidRequest(f"{field}: {problem}", param=field) from None
