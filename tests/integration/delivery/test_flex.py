"""A package is put onto a Flex Consumption app, over HTTP against a stub of its deployment site."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.azure import flex
from scripts.azure.flex import DeploymentError, deploy_package, is_rolling, scm_address
from tests.support.azure_stub import AzureStub, Reply, Sleeps, Tokens

PACKAGE = b"PK\x03\x04 a zip"
ID = "0f7b1c9e-3f5a-4f5e-9a0d-6f1f2a3b4c5d"
LATEST = "/api/deployments/latest"


def state(status: int, text: str = "", **more: Any) -> Reply:
    """What the site tells of a deployment."""
    return Reply({"id": ID, "status": status, "status_text": text, "complete": status > 2, **more})


def deploy(azure: AzureStub, tokens: Tokens, sleeps: Sleeps) -> list[str]:
    """Deploy, and return what was said meanwhile."""
    said: list[str] = []
    assert deploy_package(azure.url, PACKAGE, tokens, say=said.append, sleep=sleeps) == ID
    return said


def test_the_package_is_handed_over_and_followed_to_its_end(azure: AzureStub, tokens: Tokens, sleeps: Sleeps) -> None:
    """One POST without a remote build, with a token for ARM; each new text of the platform is shown once."""
    azure.on("POST", "/api/publish", Reply(f'"{ID}"', 202))
    azure.on("GET", LATEST, state(0), state(2, "copying"), state(2, "copying"), state(4))
    assert deploy(azure, tokens, sleeps) == [f"package handed over as deployment {ID}", "copying"]
    (sent,) = azure.to("POST", "/api/publish")
    assert sent.body == PACKAGE
    assert sent.query == {"RemoteBuild": "false", "Deployer": "tollkeeper"}
    assert sent.headers["content-type"] == "application/zip"
    assert sent.headers["authorization"] == "Bearer token for https://management.azure.com/.default"


def test_a_site_that_is_recycled_meanwhile_is_waited_for(azure: AzureStub, tokens: Tokens, sleeps: Sleeps) -> None:
    """It tells of the deployment before, then of nothing, then not at all: none of it is the end."""
    azure.on("POST", "/api/publish", Reply(status=503), Reply(status=502), Reply(f'"{ID}"', 202))
    before = Reply({"id": "another", "status": 4})
    azure.on("GET", LATEST, before, Reply(status=404), state(2), Reply(status=503), state(4))
    deploy(azure, tokens, sleeps)
    assert len(azure.to("POST", "/api/publish")) == 3
    assert len(azure.to("GET", LATEST)) == 5


@pytest.mark.parametrize(("status", "word"), [(3, "failed"), (-1, "cancelled"), (5, "conflict"), (6, "in part")])
def test_a_deployment_that_ended_badly_says_why(
    azure: AzureStub, tokens: Tokens, sleeps: Sleeps, status: int, word: str
) -> None:
    """The platform's texts are the only place where the reason stands."""
    azure.on("POST", "/api/publish", Reply(f'"{ID}"', 202))
    errors = {"build_summary": {"errors": ["InaccessibleStorageException"]}}
    azure.on("GET", LATEST, state(status, "storage answered Forbidden", **errors))
    with pytest.raises(DeploymentError, match=rf"{word}.*Forbidden.*InaccessibleStorage"):
        deploy(azure, tokens, sleeps)


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "token is not accepted"), (403, "deployer_ip_ranges"), (409, "another deployment")]
)
def test_a_refused_package_says_what_to_do(
    azure: AzureStub, tokens: Tokens, sleeps: Sleeps, status: int, remedy: str
) -> None:
    """Who may not, or not now, is told at once."""
    azure.on("POST", "/api/publish", Reply("Ip Forbidden", status))
    with pytest.raises(DeploymentError, match=remedy):
        deploy(azure, tokens, sleeps)
    assert len(azure.requests) == 1
    assert sleeps == []


def test_a_deployment_without_an_end_is_no_success(
    azure: AzureStub, tokens: Tokens, sleeps: Sleeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the site said last is told."""
    monkeypatch.setattr(flex, "_WAIT_SECONDS", 0.2)
    azure.on("POST", "/api/publish", Reply(f'"{ID}"', 202))
    azure.on("GET", LATEST, state(1))
    with pytest.raises(DeploymentError, match="still at status 1"):
        deploy(azure, tokens, sleeps)


def test_the_deployment_site_is_the_one_azure_names() -> None:
    """Newer apps have a host with a region and a hash in it, so it cannot be guessed from the name."""
    hosts = [
        {"name": "func-x.azurewebsites.net", "hostType": "Standard"},
        {"name": "func-x-a1b2.scm.westeurope-01.azurewebsites.net", "hostType": "Repository"},
    ]
    site = {"name": "func-x", "properties": {"hostNameSslStates": hosts}}
    assert scm_address(site) == "https://func-x-a1b2.scm.westeurope-01.azurewebsites.net"
    with pytest.raises(DeploymentError, match="func-x has no"):
        scm_address({"name": "func-x", "properties": {"hostNameSslStates": hosts[:1]}})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"siteUpdateStrategy": {"type": "RollingUpdate"}}, True),
        ({"siteUpdateStrategy": {"type": "Recreate"}}, False),
        ({"siteUpdateStrategy": None}, False),
        (None, False),
    ],
)
def test_what_is_not_said_to_be_rolling_has_a_gap(config: dict[str, Any] | None, *, expected: bool) -> None:
    """Recreate is the platform's default, whether it says so or not."""
    assert is_rolling({"properties": {"functionAppConfig": config}}) is expected
