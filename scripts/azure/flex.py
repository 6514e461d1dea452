"""Put a package onto a function app of the Flex Consumption plan, through its deployment (SCM) site."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx
from azure.core.credentials import TokenCredential

from scripts.azure.arm import PUBLIC_CLOUD, Bearer

_POLL_SECONDS = 5.0
_WAIT_SECONDS = 15 * 60
_TRIES = 8  # a site that was just created, or whose settings just changed, answers 502 and 503 for a minute or two
_PASSING = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_SUCCEEDED = 4
_ENDED_BADLY = {-1: "cancelled", 3: "failed", 5: "in conflict with another one", 6: "done only in part"}


class DeploymentError(Exception):
    """The package is not deployed, or nobody can say whether it is. The message says what the platform said."""


def scm_address(site: Mapping[str, Any]) -> str:
    """The deployment site of `Microsoft.Web/sites`, as ARM describes the site."""
    names = [state["name"] for state in site["properties"]["hostNameSslStates"] if state["hostType"] == "Repository"]
    if not names:
        raise DeploymentError(f"{site['name']} has no deployment site")
    return f"https://{names[0]}"


def is_rolling(site: Mapping[str, Any]) -> bool:
    """Whether the app stays available while it is updated. What ARM does not mention is Recreate, the default."""
    strategy = (site["properties"].get("functionAppConfig") or {}).get("siteUpdateStrategy") or {}
    return bool(strategy.get("type") == "RollingUpdate")


def deploy_package(
    scm: str,
    package: bytes,
    credential: TokenCredential,
    *,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Deploy the package and wait for the end; the deployment's id. Raises DeploymentError."""
    auth = Bearer(credential, f"{PUBLIC_CLOUD}/.default")  # the SCM site takes tokens for ARM
    with httpx.Client(base_url=scm, auth=auth, timeout=httpx.Timeout(60, write=600, read=600)) as client:
        deployment = _hand_over(client, package, sleep)
        say(f"package handed over as deployment {deployment}")
        _wait(client, deployment, say, sleep)
    return deployment


def _hand_over(client: httpx.Client, package: bytes, sleep: Callable[[float], None]) -> str:
    """POST the zip. RemoteBuild=false: everything is in it, and the platform must not fetch other versions."""
    for attempt in range(1, _TRIES + 1):
        try:
            answer = client.post(
                "/api/publish",
                params={"RemoteBuild": "false", "Deployer": "tollkeeper"},
                content=package,
                headers={"Content-Type": "application/zip"},
            )
        except httpx.TransportError as error:
            if attempt == _TRIES:
                raise DeploymentError(f"{client.base_url.host} cannot be reached: {error}") from error
            sleep(2.0**attempt)
            continue
        if answer.status_code in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
            return answer.text.strip().strip('"')
        if answer.status_code not in _PASSING or attempt == _TRIES:
            raise DeploymentError(_explain(answer))
        sleep(2.0**attempt)
    raise AssertionError("every attempt returns or raises")


def _wait(client: httpx.Client, deployment: str, say: Callable[[str], None], sleep: Callable[[float], None]) -> None:
    """Until the platform says how it ended.

    The site that tells is recycled by the deployment itself: single answers may be missing or a 404, before and after.
    """
    deadline, shown, reason = time.monotonic() + _WAIT_SECONDS, "", "it never answered"
    while time.monotonic() < deadline:
        sleep(_POLL_SECONDS)
        try:
            answer = client.get("/api/deployments/latest")
        except httpx.TransportError as error:
            reason = str(error)
            continue
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise DeploymentError(_explain(answer))
        if not answer.is_success:
            reason = f"it answered {answer.status_code}"
            continue
        state = answer.json()
        if state.get("id") != deployment:
            reason = f"it tells of deployment {state.get('id')} instead"
            continue
        text = state.get("status_text") or state.get("progress") or ""
        if state["status"] == _SUCCEEDED:
            return
        if state["status"] in _ENDED_BADLY:
            details = [text, state.get("message") or "", *_errors(state)]
            raise DeploymentError(
                f"deployment {deployment} is {_ENDED_BADLY[state['status']]}: {' '.join(filter(None, details))}"
            )
        reason = f"it is still at status {state['status']}"
        if text and text != shown:
            say(text)
            shown = text
    raise DeploymentError(
        f"deployment {deployment} did not end within {_WAIT_SECONDS // 60} minutes ({reason}): look at Deployment "
        "Center of the function app"
    )


def _errors(state: Mapping[str, Any]) -> list[str]:
    return [str(error) for error in (state.get("build_summary") or {}).get("errors") or []]


def _explain(answer: httpx.Response) -> str:
    """The status with what it means here, and the site's own words."""
    meaning = {
        HTTPStatus.UNAUTHORIZED: "the token is not accepted",
        HTTPStatus.FORBIDDEN: "this address may not reach the site (see deployer_ip_ranges), or the caller lacks "
        "the role Website Contributor on the function app",
        HTTPStatus.CONFLICT: "another deployment is running; try again when it ended",
    }.get(HTTPStatus(answer.status_code), "")
    host = answer.request.url.host
    return f"{host} answered {answer.status_code}{f': {meaning}' if meaning else ''} {answer.text[:500]}".rstrip()
