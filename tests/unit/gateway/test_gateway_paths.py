"""What the gateway answers to paths and hosts that nobody should send."""

import httpx
import pytest

from gateway.app import build_app


async def no_services():
    raise AssertionError("nothing is served in these tests")


async def ask(path: str, host: str = "gateway") -> httpx.Response:
    transport = httpx.ASGITransport(build_app(no_services, "test"))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.post(path, headers={"host": host, "api-key": "k"})


async def test_a_slash_too_many_is_no_redirect():
    """Behind TLS it would name an http:// address of the caller's Host, and SDKs send their key there."""
    answer = await ask("/v1/chat/completions/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "location" not in answer.headers


@pytest.mark.parametrize("host", ["[", "a/b?c#d", "[::1]:x"])
async def test_a_host_that_cannot_be_read_does_not_matter(host):
    """The answer is about the path; a defect would be logged with a traceback at anybody's wish."""
    answer = await ask("/nowhere", host)
    assert answer.status_code == 404
    assert "POST /nowhere is not served here" in answer.json()["error"]["message"]


async def test_a_path_is_repeated_without_what_a_terminal_obeys():
    """The same text goes to the log."""
    answer = await ask("/%1b%5b31m%0aline%e2%80%a8")
    assert answer.json()["error"]["message"] == "POST /\\x1b[31m\\nline\\u2028 is not served here"
