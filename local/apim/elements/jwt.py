"""validate-jwt: the signature, the times, the audience, the issuer and the claims of a token."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import jwt

from local.apim.call import Call
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.schema import Attribute, Children, Element, Policy, literal, needs

ALGORITHMS = ("RS256", "RS512", "PS256")
_CACHE_SECONDS, _AGAIN_SECONDS = 3600, 300

# PyJWT's exceptions as the reasons API Management documents, the most specific first.
_REASONS: tuple[tuple[type[jwt.InvalidTokenError], str], ...] = (
    (jwt.ExpiredSignatureError, "TokenExpired"),
    (jwt.InvalidAudienceError, "TokenAudienceNotAllowed"),
    (jwt.InvalidIssuerError, "TokenIssuerNotAllowed"),
    (jwt.InvalidSignatureError, "TokenSignatureInvalid"),
)


class SigningKeys:
    """The keys of issuers, read from their OpenID configuration and kept for an hour."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._known: dict[str, tuple[float, str, dict[str, Any]]] = {}  # url -> (read at, issuer, keys by id)

    async def of(self, url: str, key_id: str | None) -> tuple[str, list[Any]]:
        """(issuer, keys that may have signed). Raises CallFailed when the configuration cannot be read."""
        now = time.monotonic()
        known = self._known.get(url)
        missing = known is not None and key_id is not None and key_id not in known[2]
        if known is None or now - known[0] > (_AGAIN_SECONDS if missing else _CACHE_SECONDS):
            known = self._known[url] = (now, *await self._read(url))
        _, issuer, keys = known
        return issuer, [keys[key_id]] if key_id in keys else [] if key_id else list(keys.values())

    async def _read(self, url: str) -> tuple[str, dict[str, Any]]:
        try:
            configuration = (await self._http.get(url)).raise_for_status().json()
            listed = (await self._http.get(configuration["jwks_uri"])).raise_for_status().json()
            keys = {str(key.key_id): key.key for key in jwt.PyJWKSet.from_dict(listed).keys}
            return str(configuration["issuer"]), keys
        except (httpx.HTTPError, ValueError, KeyError, jwt.PyJWTError) as error:
            message = f"the OpenID configuration {url} cannot be read: {type(error).__name__}"
            raise CallFailed("OpenIdConfigurationFailure", message, status=500) from error


async def run_validate_jwt(call: Call, node: Node) -> None:
    """Let the call pass, or fail with the policy's own status and message."""
    try:
        token = await _validated(call, node)
    except _Rejected as rejected:
        status = int(await call.number(node, "failed-validation-httpcode", 401))
        shown = await call.text(node, "failed-validation-error-message") or rejected.message
        raise CallFailed(rejected.reason, rejected.message, status=status, shown=shown) from None
    if (variable := node.attributes.get("output-token-variable-name")) is not None:
        call.bridge.set_jwt_variable(variable.text, token)


class _Rejected(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


async def _validated(call: Call, node: Node) -> str:
    token = await _token(call, node)
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise _Rejected("JwtInvalid", f"{error}. Access denied.") from None
    issuers = await _texts(call, node.child("issuers"), "issuer")
    keys: list[Any] = []
    for configuration in node.all("openid-config"):
        issuer, found = await call.gateway.signing_keys.of(await call.text(configuration, "url"), header.get("kid"))
        keys += found
        issuers.append(issuer)
    if not keys:
        raise _Rejected("TokenSignatureKeyNotFound", "The key that signed the token is not known. Access denied.")
    required = ["exp"] if await call.boolean(node, "require-expiration-time", default=True) else []
    checks = {
        "audience": await _texts(call, node.child("audiences"), "audience") or None,
        "issuer": issuers,
        "leeway": await call.number(node, "clock-skew"),
        "options": {"require": required, "verify_aud": node.child("audiences") is not None},
    }
    claims = _decode(token, keys, checks)
    await _require_claims(call, node, claims)
    return token


async def _token(call: Call, node: Node) -> str:
    if "token-value" in node.attributes:
        return await call.text(node, "token-value")
    name = await call.text(node, "header-name")
    value = (call.request.headers.get(name) or "").strip()
    scheme, _, rest = value.partition(" ")
    wanted = await call.text(node, "require-scheme") if name.lower() == "authorization" else ""
    if wanted and scheme.lower() != wanted.lower():
        raise _Rejected("TokenNotPresent", "JWT not present.")
    token = rest.strip() if rest else value
    if not token:
        raise _Rejected("TokenNotPresent", "JWT not present.")
    return token


def _decode(token: str, keys: Sequence[Any], checks: Mapping[str, Any]) -> dict[str, Any]:
    for place, key in enumerate(keys, 1):
        try:
            return jwt.decode(token, key, algorithms=list(ALGORITHMS), **checks)
        except jwt.InvalidSignatureError as error:
            if place == len(keys):
                raise _Rejected("TokenSignatureInvalid", f"{error}. Access denied.") from None
        except jwt.InvalidTokenError as error:
            reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "JwtInvalid")
            raise _Rejected(reason, f"{error}. Access denied.") from None
    raise AssertionError("there is at least one key")


async def _require_claims(call: Call, node: Node, claims: Mapping[str, Any]) -> None:
    required = node.child("required-claims")
    for claim in required.children if required else ():
        name = claim.attributes["name"].text
        if name not in claims:
            message = f"JWT token is missing the following claims: {name} Access denied."
            raise _Rejected("TokenClaimNotFound", message)
        held = _values(claims[name], await call.text(claim, "separator"))
        wanted = [(await call.text(value, "text")).strip() for value in claim.all("value")]
        every = await call.text(claim, "match", "all") == "all"
        if wanted and not (all if every else any)(value in held for value in wanted):
            message = f"Claim {name} value of {','.join(held)} is not allowed. Access denied."
            raise _Rejected("TokenClaimValueNotAllowed", message)


def _values(claim: Any, separator: str) -> list[str]:
    if isinstance(claim, list):
        return [str(each) for each in claim]
    text = ("true" if claim else "false") if isinstance(claim, bool) else str(claim)
    return text.split(separator) if separator else [text]


async def _texts(call: Call, parent: Node | None, name: str) -> list[str]:
    return [(await call.text(each, "text")).strip() for each in (parent.all(name) if parent else ())]


def _list(name: str) -> Children:
    return Children(Element(children={name: Children(Element(text="required"), least=1)}), most=1)


_CLAIM = Element(
    attributes={
        "name": literal(required=True),
        "match": literal(choices=frozenset(("all", "any"))),
        "separator": literal(),
    },
    children={"value": Children(Element(text="required"))},
)
_VALIDATE = Element(
    attributes={
        "header-name": Attribute(),
        "token-value": Attribute(),
        "failed-validation-httpcode": Attribute(kind="integer", least=400, most=599),
        "failed-validation-error-message": Attribute(),
        "require-expiration-time": Attribute(kind="boolean"),
        "require-scheme": Attribute(),
        "require-signed-tokens": Attribute(kind="boolean", choices=frozenset(("true",))),
        "clock-skew": Attribute(kind="integer", least=0),
        "output-token-variable-name": literal(),
    },
    children={
        "openid-config": Children(Element({"url": needs()}), least=1),
        "audiences": _list("audience"),
        "issuers": _list("issuer"),
        "required-claims": Children(Element(children={"claim": Children(_CLAIM, least=1)}), most=1),
    },
)

POLICIES = (Policy("validate-jwt", frozenset(("inbound",)), _VALIDATE, run_validate_jwt),)
