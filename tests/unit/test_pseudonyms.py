"""Addresses of people become keyed hashes; everything else stays as it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from shared.errors import ConfigInvalid
from shared.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from shared.settings import Settings
from shared.usage.build import usage_event_bytes
from tests.support.engine import budget, config

KEY = "a secret of more than thirty-two characters"
HASHED = Pseudonyms(KEY)
OBJECT_ID = "e2b7c9a1-5f36-4d8e-8c04-91d0a6b3f721"


def test_only_addresses_of_people_are_replaced() -> None:
    """Object ids and what the organisation names stay: teams and products are on statements by their names."""
    scopes = {"user": "Ada@Contoso.com", "session": "ada@x", "team": "a@b", "task": "t-1", "app": OBJECT_ID}
    found = HASHED.scopes(scopes)
    assert {kind for kind in scopes if found[kind] != scopes[kind]} == {"user", "session"}
    assert found["user"] == HASHED.key("user", "ada@contoso.COM") != HASHED.key("user", "bob@contoso.com")
    assert found["user"].startswith("hmac-")
    assert len(found["user"]) == 5 + 32
    assert HASHED.scopes(found) == found  # what a check answered comes back with the event


def test_another_secret_gives_another_hash_and_none_gives_none() -> None:
    """Nobody without the secret can try addresses until one fits; without one nothing changes at all."""
    scopes = {"user": "ada@contoso.com"}
    assert Pseudonyms(KEY + "2").scopes(scopes) != HASHED.scopes(scopes)
    assert NO_PSEUDONYMS.scopes(scopes) is scopes


def test_budgets_follow_their_people() -> None:
    """A hard limit on an address would silently stop to match otherwise."""
    known = config(budget("user:ada@contoso.com", 1), budget("user:*", 1), budget("team:search", 1))
    keys = [each.scope_key for each in HASHED.config(known).budgets]
    assert keys == [HASHED.key("user", "ada@contoso.com"), "*", "search"]
    assert HASHED.scope("user:ada@contoso.com") == f"user:{keys[0]}"


def test_no_id_of_a_budget_shows_an_address() -> None:
    """A budget that states no id is named by its scope, and ids stand in answers, notices and logs."""
    plain, person = "*/team:search/month/UTC", "contoso/user:Ada%20L@contoso.com/month/Europe/Amsterdam#2"
    key = HASHED.key("user", "ada l@contoso.com")
    assert HASHED.budget_id(person) == f"contoso/user:{key}/month/Europe/Amsterdam#2"
    assert HASHED.budget_id(plain) == plain
    assert NO_PSEUDONYMS.budget_id(person) == person


def test_an_event_goes_onto_the_hub_without_the_address() -> None:
    """The same bytes each time, so that a retry is a retry; an event that names nobody is not touched."""
    data = {"tenant": "acme", "scopes": {"team": "search", "user": "ada@contoso.com"}, "model": "big"}
    body = usage_event_bytes("s", "1", datetime(2026, 11, 21, tzinfo=UTC), data)
    sent = HASHED.event(body)
    assert b"ada@" not in sent
    assert sent == HASHED.event(body)
    assert json.loads(sent) == {**json.loads(body), "data": {**data, "scopes": HASHED.scopes(data["scopes"])}}
    plain = body.replace(b"ada@contoso.com", b"u-1")
    assert HASHED.event(plain) is plain


def test_a_short_secret_is_refused() -> None:
    """Whoever guesses it can try all addresses of a company in a second."""
    with pytest.raises(ConfigInvalid, match="PSEUDONYM_KEY"):
        Settings.from_env({"TOLLKEEPER_ENV": "development", "PSEUDONYM_KEY": "short"})
