"""Which of the gateway's tokens are Azure's."""

from types import SimpleNamespace

import pytest
from azure.core.exceptions import ClientAuthenticationError

from local.apim import tokens
from local.apim.tokens import LOCAL_TOKEN, Tokens, local_token


class Credential:
    """Signed in, or not."""

    def __init__(self, *, signed_in: bool) -> None:
        self.signed_in = signed_in
        self.closed = False

    async def get_token(self, scope: str) -> SimpleNamespace:
        if not self.signed_in:
            raise ClientAuthenticationError("not signed in")
        return SimpleNamespace(token=f"azure:{scope}")

    async def close(self) -> None:
        self.closed = True


async def test_only_azures_models_ask_for_azures_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laptop's function app takes any token; with simulated models nothing asks Azure at all."""
    credential = Credential(signed_in=True)
    monkeypatch.setattr(tokens, "open_credential", lambda settings: credential)
    models = "https://cognitiveservices.azure.com"
    on_azure, local = Tokens(local_token, on_azure=True), Tokens(local_token, on_azure=False)
    assert await on_azure.token(models, None) == f"azure:{models}/.default"
    assert await on_azure.token("api://tollkeeper", None) == LOCAL_TOKEN
    assert await local.token(models, None) == LOCAL_TOKEN
    await on_azure.close()
    assert credential.closed


async def test_without_a_sign_in_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy then decides: ignore-error, or an error of the call."""
    monkeypatch.setattr(tokens, "open_credential", lambda settings: Credential(signed_in=False))
    with pytest.raises(RuntimeError, match="ClientAuthenticationError"):
        await Tokens(local_token, on_azure=True).token("https://models", None)
