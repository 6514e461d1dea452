"""Who the scripts are, by where they run."""

from __future__ import annotations

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import AzureCliCredential, AzurePipelinesCredential, ClientAssertionCredential

from scripts.azure.credential import _github_proof, open_credential
from tests.support.azure_stub import AzureStub, Reply

GITHUB = {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://github.example/token", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "job"}
AZURE_DEVOPS = {
    "SYSTEM_OIDCREQUESTURI": "https://dev.azure.example/oidc",
    "SYSTEM_ACCESSTOKEN": "job",
    "ARM_ADO_PIPELINE_SERVICE_CONNECTION_ID": "connection",
}
IDENTITY = {
    "ARM_CLIENT_ID": "11111111-1111-1111-1111-111111111111",
    "ARM_TENANT_ID": "22222222-2222-2222-2222-222222222222",
}


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs these tests is neither of the pipelines."""
    for name in {**GITHUB, **AZURE_DEVOPS, **IDENTITY}:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, AzureCliCredential),
        ({**GITHUB, **IDENTITY}, ClientAssertionCredential),
        (GITHUB, AzureCliCredential),  # a job that may ask for an identity, and names none
        ({**AZURE_DEVOPS, **IDENTITY}, AzurePipelinesCredential),
    ],
)
def test_a_pipeline_is_its_own_identity_and_a_person_is_signed_in(
    env: dict[str, str], expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variables that Terraform's providers go by."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert isinstance(open_credential(), expected)


def test_githubs_proof_is_asked_for_each_time(azure: AzureStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is good for minutes only, an apply may take an hour; the request's own query is kept."""
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{azure.url}/token?api-version=2.0")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "job")
    azure.on("GET", "/token", Reply({"value": "first"}), Reply({"value": "second"}), Reply(status=403))
    assert [_github_proof(), _github_proof()] == ["first", "second"]
    assert azure.requests[0].query == {"api-version": "2.0", "audience": "api://AzureADTokenExchange"}
    assert azure.requests[0].headers["authorization"] == "Bearer job"
    with pytest.raises(ClientAuthenticationError, match="403"):
        _github_proof()
