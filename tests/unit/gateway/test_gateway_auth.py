"""Who may call, and which scopes a client can name."""

import hashlib

import pytest

from gateway.auth import Authenticator, asserted_scopes
from shared.errors import InvalidRequest, NotAuthenticated

KEYS = {hashlib.sha256(b"local-search").hexdigest(): "search-local"}


@pytest.mark.parametrize(
    "headers",
    [
        {"api-key": "local-search"},
        {"authorization": "Bearer local-search"},
        {"authorization": "bearer  local-search "},
        {"api-key": "local-search", "authorization": "Bearer placeholder"},
    ],
)
async def test_a_known_key_names_its_subscription(headers):
    """Both OpenAI client classes work: one sends api-key, the other a Bearer token."""
    assert await Authenticator(KEYS).identity(headers) == {"subscription": "search-local"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"api-key": ""},
        {"api-key": "wrong"},
        {"authorization": "Basic local-search"},
        {"api-key": "LOCAL-SEARCH"},
        {"authorization": "Bearer wrong.wrong.wrong"},
    ],
)
async def test_an_unknown_key_is_refused_without_being_repeated(headers):
    """A wrong key is a 401 whose message does not echo it, with the code that API Management's policies answer."""
    with pytest.raises(NotAuthenticated) as raised:
        await Authenticator(KEYS).identity(headers)
    assert raised.value.code == "invalid_api_key"
    assert "wrong" not in raised.value.message


def test_scope_headers_become_scopes():
    """x-budget-scope-<type> names a scope, in any letter case of the header."""
    assert asserted_scopes({"X-Budget-Scope-Session": "s-42", "x-budget-scope-task": "t", "accept": "*/*"}) == {
        "session": "s-42",
        "task": "t",
    }


@pytest.mark.parametrize("name", ["x-budget-scope-", "x-budget-scope-9a", "x-budget-scope-a.b"])
def test_a_scope_type_must_look_like_one(name):
    """A header that cannot be a scope type is an error, not silently ignored spend."""
    with pytest.raises(InvalidRequest):
        asserted_scopes({name: "x"})


def test_scope_keys_are_utf8():
    """Names beyond ASCII survive: servers read header bytes as Latin-1."""
    assert asserted_scopes({"x-budget-scope-session": "Zoë".encode().decode("latin-1")}) == {"session": "Zoë"}
    assert asserted_scopes({"x-budget-scope-session": "caf\xe9"}) == {"session": "café"}


def test_an_empty_header_names_no_scope():
    """What LibreChat sends for a conversation without an id is no error, and charges no scope with an empty name."""
    assert asserted_scopes({"x-budget-scope-session": " ", "x-budget-scope-task": "t"}) == {"task": "t"}
