"""A gateway that cannot start says why."""

import pytest

from gateway.app import build_app
from shared.errors import ConfigInvalid


async def test_a_refused_configuration_is_told_in_its_own_words():
    """The server prints what the application says at startup: the file and line to mend, and no traceback."""
    sentence = "models.yaml:4: endpoints[0].url: expected an address such as https://name.openai.azure.com"

    async def open_services():
        raise ConfigInvalid(sentence)

    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    app = build_app(open_services, "test")
    with pytest.raises(ConfigInvalid):
        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": sentence}]
