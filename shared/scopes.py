"""Scopes: `type:key` labels that say on whose account a call runs, and their safe spelling inside store keys."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, unquote

from shared.errors import InvalidRequest

SCOPE_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
TENANT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_SCOPE_KEY_BYTES = 256
MAX_SCOPES = 16
ORGANISATIONAL = ("tenant", "org", "team", "app", "subscription", "product", "model")  # keys that name no person
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


def validate_tenant(tenant: object, param: str = "tenant") -> str:
    """The tenant id, or InvalidRequest. The pattern keeps it safe as a Redis hash tag and a file name."""
    if isinstance(tenant, str) and TENANT_ID.fullmatch(tenant):
        return tenant
    raise InvalidRequest(f"{param}: expected 1 to 63 letters, digits, '.', '_' or '-'", param=param)


def validate_scopes(scopes: Mapping[str, str], param: str = "scopes") -> dict[str, str]:
    """A checked copy of the scopes sorted by type, or InvalidRequest naming the offending one.

    Any printable text is a valid key; control characters and keys over 256 UTF-8 bytes are not: they could only be
    a mistake or an attack on logs and memory.
    """
    if len(scopes) > MAX_SCOPES:
        raise InvalidRequest(f"{param}: at most {MAX_SCOPES} scopes, got {len(scopes)}", param=param)
    for kind, key in scopes.items():
        if not SCOPE_TYPE.fullmatch(kind):
            raise InvalidRequest(
                f"{param}: scope type {kind[:40]!r} must match [a-z][a-z0-9_-]*, up to 32", param=param
            )
        validate_scope_key(key, f"{param}.{kind}")
    return dict(sorted(scopes.items()))


@lru_cache(maxsize=65_536)
def validate_scope_key(key: str, param: str) -> str:
    """The key, or InvalidRequest. Cached: the same users call again and again."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{param}: not valid Unicode text", param=param) from None
    if not 0 < size <= MAX_SCOPE_KEY_BYTES:
        raise InvalidRequest(f"{param}: expected 1 to {MAX_SCOPE_KEY_BYTES} bytes, got {size}", param=param)
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in key):
        raise InvalidRequest(f"{param}: control characters are not allowed", param=param)
    return key


@lru_cache(maxsize=65_536)
def scope_id(kind: str, key: str) -> str:
    """`type:key` with the key percent-encoded, so that `:`, `|`, `{` in a key can never make two scopes look alike."""
    return f"{kind}:{quote(key, safe='@.-_~+*')}"


def parse_scope_id(text: str) -> tuple[str, str]:
    """The inverse of `scope_id`."""
    kind, _, key = text.partition(":")
    return kind, unquote(key)
