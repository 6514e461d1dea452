"""People's names kept out: keys that are e-mail addresses become keyed hashes at the door, when a secret is set for it.

Only addresses are replaced, and only in scopes that may name a person: object ids and what the organisation names
itself stay as they are. Without the secret nobody can tell whose hash it is; with it the hash of an address can be made
again, so budgets and questions may go on naming the address.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from shared.config.model import Config
from shared.scopes import ORGANISATIONAL

_DIGITS = 32
_ADDRESS = re.compile(r"[^/:#]+@[^/:#]+")  # in a budget's id, whose parts stand between these


class Pseudonyms:
    """Replaces addresses under one secret; without a secret it changes nothing."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret.encode() if secret else None

    def key(self, scope_type: str, key: str) -> str:
        """What stands for a scope's key. Upper and lower case of an address are one person."""
        if self._secret is None or "@" not in key or scope_type in ORGANISATIONAL:
            return key
        return _pseudonym(self._secret, key.strip().lower())

    def scopes(self, scopes: dict[str, str]) -> dict[str, str]:
        """The scopes with what stands for their keys; the same ones when nothing is to be replaced."""
        if self._secret is None or not any("@" in key for key in scopes.values()):
            return scopes
        return {scope_type: self.key(scope_type, key) for scope_type, key in scopes.items()}

    def scope(self, scope: str) -> str:
        """`type:key` with what stands for the key."""
        scope_type, separator, key = scope.partition(":")
        return f"{scope_type}{separator}{self.key(scope_type, key)}"

    def config(self, config: Config) -> Config:
        """The configuration whose budgets name what calls will carry."""
        if self._secret is None:
            return config
        budgets = [
            replace(budget, id=self.budget_id(budget.id), scope_key=self.key(budget.scope_type, budget.scope_key))
            for budget in config.budgets
        ]
        return replace(
            config,
            budgets=tuple(budgets),
            edits={self.budget_id(budget_id): edit for budget_id, edit in config.edits.items()},
            entry_digests={self.budget_id(budget_id): digest for budget_id, digest in config.entry_digests.items()},
        )

    def budget_id(self, budget_id: str) -> str:
        """A budget's id with what stands for an address in it: one that states no id is named by its scope."""
        secret = self._secret
        if secret is None or "@" not in budget_id:
            return budget_id
        return _ADDRESS.sub(lambda found: _pseudonym(secret, unquote(found[0]).strip().lower()), budget_id)

    def event(self, body: bytes) -> bytes:
        """A usage event with what stands for the keys of its scopes; equal bytes give equal bytes."""
        if self._secret is None or b"@" not in body:
            return body
        event: dict[str, Any] = msgspec.json.decode(body)
        scopes: Mapping[str, str] | None = event["data"].get("scopes")
        if not scopes:
            return body
        event["data"]["scopes"] = self.scopes(dict(scopes))
        return msgspec.json.encode(event)


NO_PSEUDONYMS = Pseudonyms(None)


@lru_cache(maxsize=65_536)
def _pseudonym(secret: bytes, address: str) -> str:
    """Cached: the same people call again and again."""
    return f"hmac-{hmac.new(secret, address.encode(), 'sha256').hexdigest()[:_DIGITS]}"
