"""A call through its sections: inbound, backend, outbound, and on-error when anything fails."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from local.apim.bridge import error_response, last_error
from local.apim.call import Call, PipelineEnded
from local.apim.errors import CallFailed
from local.apim.messages import Headers, Response
from local.apim.steps import run_policies

if TYPE_CHECKING:
    from local.apim.messages import Request

log = logging.getLogger("tollkeeper.apim")

_VALID_KEY = "Make sure to provide a valid key for an active subscription."
SUBSCRIPTION_HEADER, SUBSCRIPTION_QUERY = "api-key", "subscription-key"


async def run_call(call: Call) -> Response:
    """Execute the policies. The response may still have its body on the way."""
    try:
        call.bridge.open()
        refused = _refused_before_policies(call)
        if refused is not None:
            raise refused
        await _section(call, "inbound")
        await _section(call, "backend")
        if call.response is None:
            call.response = Response(200, "OK", Headers())
            call.bridge.changed(call.response, body=True)
        await _section(call, "outbound")
    except PipelineEnded:
        pass
    except CallFailed as failure:
        await _on_error(call, failure)
    finally:
        call.bridge.close()  # not when the stream is over: C# would keep a body for every one that is open
    assert call.response is not None
    for name, value in call.late_headers.items():
        call.response.headers.set(name, [value])
    return call.response


async def _section(call: Call, section: str) -> None:
    call.section = section
    root = call.gateway.policy.sections.get(section)
    if root is None and section == "backend":
        raise CallFailed("PolicyNotFound", "the policy has no backend section, so nothing is forwarded")
    if root is not None:
        await run_policies(call, root.children)


async def _on_error(call: Call, failure: CallFailed) -> None:
    _note(call, failure)
    await call.bridge.show_failure(failure)
    try:
        await _section(call, "on-error")
    except PipelineEnded:
        pass
    except CallFailed as second:
        # Nothing catches an error of the error handler.
        _note(call, second)
        second.status, second.shown = 500, "Internal server error"
        if call.response is not None:
            await call.response.close()
        call.response = error_response(second, str(call.request_id))


def _note(call: Call, failure: CallFailed) -> None:
    call.failure = failure
    if not failure.section:
        failure.section = call.section
    call.gateway.errors.append(last_error(failure))
    # Without the message: what an exception says may hold a piece of a prompt.
    log.warning("%s in %s of %s: %s", failure.source, failure.path or "-", failure.section, failure.reason)


def _refused_before_policies(call: Call) -> CallFailed | None:
    """The built-in steps: which operation, and whose subscription key."""
    if call.operation is None:
        return CallFailed(
            "OperationNotFound",
            "Unable to match incoming request to an operation.",
            status=404,
            shown="Resource not found",
            source="configuration",
        )
    if call.subscription_key is not None and call.subscription_id is None:
        message = f"Access denied due to invalid subscription key. {_VALID_KEY}"
        challenge = f'AzureApiManagementKey realm="{call.request.original_url}",name="api-key",type="header"'
        return CallFailed(
            "SubscriptionKeyInvalid",
            message,
            status=401,
            source="authorization",
            headers={"WWW-Authenticate": challenge},
        )
    return None


def subscription_key(request: Request) -> str | None:
    """The key that a request carries; the query is looked at only when the header is missing."""
    return request.headers.get(SUBSCRIPTION_HEADER) or dict(request.query()).get(SUBSCRIPTION_QUERY)
