"""Microsoft Entra ID for the laptop and the tests: OpenID metadata, keys, and tokens signed with RS256.

    python -m local.entra --port 8082
    curl -X POST http://127.0.0.1:8082/sim/tokens -d '{"appid": "<client id>"}'

A gateway that trusts this issuer lets anybody in who can reach it, so it listens on loopback only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jwt
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import HMACAlgorithm, RSAAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TENANT_ID = "11111111-2222-4333-8444-555555555555"
AUDIENCE = "api://tollkeeper"
LIFETIME_SECONDS = 3600
_KEY_BITS = 2048

Flaw = Literal[
    "expired",
    "not_yet_valid",
    "wrong_audience",
    "wrong_issuer",
    "wrong_key",  # another key under the same key id
    "unknown_key",  # another key under its own id
    "unsigned",  # alg none
    "public_key_as_secret",  # HS256 with the published key for a secret
]
FLAWS: tuple[Flaw, ...] = get_args(Flaw)


@dataclass(frozen=True)
class Issuer:
    """Mints tokens as Entra's v2.0 endpoint does. `url` is where its metadata is served."""

    url: str
    key: rsa.RSAPrivateKey = field(default_factory=lambda: new_key())
    tenant_id: str = TENANT_ID
    audience: str = AUDIENCE

    @property
    def issuer(self) -> str:
        """What stands in `iss`."""
        return f"{self.url}/{self.tenant_id}/v2.0"

    @property
    def metadata_url(self) -> str:
        """The OpenID configuration that a gateway is told to read."""
        return f"{self.issuer}/.well-known/openid-configuration"

    def metadata(self) -> dict[str, Any]:
        """The OpenID configuration."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.url}/{self.tenant_id}/discovery/v2.0/keys",
            "token_endpoint": f"{self.url}/sim/tokens",
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["id_token", "token"],
            "subject_types_supported": ["pairwise"],
        }

    def keys(self) -> dict[str, Any]:
        """The JSON Web Key Set: the public half of the signing key."""
        published = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        shown = {name: published[name] for name in ("kty", "n", "e")}
        return {"keys": [{**shown, "use": "sig", "kid": _key_id(self.key), "issuer": self.issuer}]}

    def mint(self, *, flaw: Flaw | None = None, **claims: Any) -> str:
        """A token with these claims (`oid`, `appid` or `azp`, `groups`, `roles`, ...) over the usual ones.

        Any usual claim may be named too; one that is None is left out. With a `flaw` the token is as valid as can be
        but for that.
        """
        return _sign(self._claims(claims, flaw), self.key, flaw)

    def _claims(self, claims: Mapping[str, Any], flaw: Flaw | None) -> dict[str, Any]:
        now = int(time.time())
        usual: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": now,
            "nbf": now - 5,
            "exp": now + LIFETIME_SECONDS,
            "tid": self.tenant_id,
            "sub": str(claims.get("oid") or claims.get("azp") or claims.get("appid") or uuid.uuid4()),
            "uti": uuid.uuid4().hex,
            "ver": "2.0",
        }
        if flaw == "expired":
            usual |= {"iat": now - 2 * LIFETIME_SECONDS, "nbf": now - 2 * LIFETIME_SECONDS, "exp": now - 600}
        elif flaw == "not_yet_valid":
            usual["nbf"] = now + 600
        elif flaw == "wrong_audience":
            usual["aud"] = "api://somebody-else"
        elif flaw == "wrong_issuer":
            usual["iss"] = f"{self.url}/{uuid.UUID(int=0)}/v2.0"
        return {name: value for name, value in {**usual, **claims}.items() if value is not None}


def build_app(issuer: Issuer) -> Starlette:
    """Serves the issuer's metadata and keys, and mints what it is asked for."""

    async def metadata(request: Request) -> Response:
        return JSONResponse(issuer.metadata())

    async def keys(request: Request) -> Response:
        return JSONResponse(issuer.keys())

    async def tokens(request: Request) -> Response:
        """POST /sim/tokens with the claims as a JSON object, `flaw` among them."""
        try:
            claims = json.loads(await request.body() or b"{}")
        except ValueError:
            claims = None
        if not isinstance(claims, dict) or not all(isinstance(name, str) for name in claims):
            return JSONResponse({"error": "invalid_request", "error_description": "expected a JSON object"}, 400)
        flaw = claims.pop("flaw", None)
        if flaw is not None and flaw not in FLAWS:
            problem = f"flaw: expected one of {', '.join(FLAWS)}"
            return JSONResponse({"error": "invalid_request", "error_description": problem}, 400)
        token = issuer.mint(flaw=flaw, **claims)
        return JSONResponse({"token_type": "Bearer", "expires_in": LIFETIME_SECONDS, "access_token": token})

    tenant = f"/{issuer.tenant_id}"
    return Starlette(
        routes=[
            Route(f"{tenant}/v2.0/.well-known/openid-configuration", metadata),
            Route(f"{tenant}/discovery/v2.0/keys", keys),
            Route("/sim/tokens", tokens, methods=["POST"]),
        ]
    )


def new_key() -> rsa.RSAPrivateKey:
    """A signing key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)


def _sign(claims: dict[str, Any], key: rsa.RSAPrivateKey, flaw: Flaw | None) -> str:
    headers = {"kid": _key_id(key)}
    if flaw == "unsigned":
        return jwt.encode(claims, "", algorithm="none", headers=headers)
    if flaw == "public_key_as_secret":
        return _signed_with_public_key(claims, key, headers)
    if flaw in ("wrong_key", "unknown_key"):
        other = new_key()
        return jwt.encode(claims, other, "RS256", headers=headers if flaw == "wrong_key" else {"kid": _key_id(other)})
    return jwt.encode(claims, key, "RS256", headers=headers)


def _signed_with_public_key(claims: dict[str, Any], key: rsa.RSAPrivateKey, headers: dict[str, str]) -> str:
    """The attack on verifiers that let the token choose its algorithm. By hand: PyJWT refuses to take part in it."""
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    unsigned = jwt.encode(claims, "", algorithm="none", headers=headers).split(".")[1]
    head = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "typ": "JWT", **headers}).encode()).decode()
    signature = HMACAlgorithm(HMACAlgorithm.SHA256).sign(f"{head}.{unsigned}".encode(), public)
    return f"{head}.{unsigned}.{jwt.utils.base64url_encode(signature).decode()}"


def _key_id(key: rsa.RSAPrivateKey) -> str:
    return hashlib.sha256(str(key.public_key().public_numbers().n).encode()).hexdigest()[:20]


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="A token issuer in place of Microsoft Entra ID.")
    parser.add_argument("--port", type=int, default=8082)
    arguments = parser.parse_args()
    issuer = Issuer(f"http://127.0.0.1:{arguments.port}")
    uvicorn.run(build_app(issuer), host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
