"""Tokens of Microsoft Entra ID: what must hold of one, and who it says is calling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.issuer_keys import IssuerKeys
from shared.errors import NotAuthenticated

CLOCK_SKEW_SECONDS = 60  # the same as the policies of API Management allow
_ALGORITHMS = ["RS256"]  # what Entra ID signs with; a token must not choose how it is checked
_MOST_TOKEN_CHARS = 16_384
_REQUIRED = ["exp", "iss", "aud"]


class EntraTokens:
    """Checks tokens of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str, keys: IssuerKeys | None = None) -> None:
        """`issuer` as in `iss`: https://login.microsoftonline.com/<directory>/v2.0. `keys` are its own unless given."""
        self._issuer = issuer
        self._audience = audience
        self._keys = keys or IssuerKeys(issuer)

    def start(self) -> None:
        """Read the issuer's keys in the background, before the first call. Needs a running event loop."""
        self._keys.warm_up()

    async def close(self) -> None:
        """Close the connections."""
        await self._keys.close()

    async def identity(self, token: str) -> dict[str, Any]:
        """The identity behind a token, as a budget check takes it.

        Raises NotAuthenticated for a token that does not hold, KeysUnavailable while nobody can tell. The message names
        what is wrong with it in general, and repeats nothing of it.
        """
        import jwt

        try:
            if len(token) > _MOST_TOKEN_CHARS:
                raise _refused("it is too long")
            header = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            if header.get("alg") not in _ALGORITHMS or not isinstance(key_id, str):
                raise _refused("its signature is of another kind")
            key = await self._keys.key(key_id)
            if key is None:
                raise _refused("the key that signed it is not known")
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise _refused("it has expired") from None
        except jwt.ImmatureSignatureError:
            raise _refused("it is not valid yet") from None
        except jwt.InvalidAudienceError:
            raise _refused("it is for another audience") from None
        except jwt.InvalidIssuerError:
            raise _refused("it is of another issuer") from None
        except jwt.InvalidTokenError:
            raise _refused("it is no valid token") from None
        if "tid" in claims and claims["tid"] not in self._issuer.split("/"):
            raise _refused("it is of another directory")
        return identity_of(claims)


def identity_of(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Who calls, by claims that were validated.

    In a person's token (it has `scp`) the app says only through which app they signed in: it makes nobody a member of
    the team that owns the app.
    """
    identity: dict[str, Any] = {}
    if isinstance(oid := claims.get("oid"), str) and oid:
        identity["oid"] = oid
    app = claims.get("azp") or claims.get("appid")
    if isinstance(app, str) and app and "scp" not in claims:
        identity["app"] = app
    if isinstance(groups := claims.get("groups"), list):
        identity["groups"] = [group for group in groups if isinstance(group, str)]
    return identity


def _refused(why: str) -> NotAuthenticated:
    return NotAuthenticated(f"this token is not accepted here: {why}", code="invalid_api_key")
