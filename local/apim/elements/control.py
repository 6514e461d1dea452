"""Which policies run, and how often: base, include-fragment, choose, retry, set-variable, trace."""

from __future__ import annotations

import random

from local.apim.call import Call
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.schema import ALL_SECTIONS, Attribute, Children, Element, Policy, literal, needs
from local.apim.steps import run_policies

MOST_RETRIES = 50


async def run_base(call: Call, node: Node) -> None:
    """The scopes outside the API's hold nothing here."""


async def run_include(call: Call, node: Node) -> None:
    """The fragment's policies, in place."""
    await run_policies(call, call.gateway.policy.fragments[node.attributes["fragment-id"].text].children)


async def run_choose(call: Call, node: Node) -> None:
    """The first branch whose condition holds."""
    for branch in node.children:
        if branch.name == "otherwise" or await call.condition(branch):
            call.gateway.coverage.hit(branch.key)
            await run_policies(call, branch.children)
            return
    call.gateway.coverage.hit(f"{node.key}:none")


async def run_set_variable(call: Call, node: Node) -> None:
    """Keep a value under a name."""
    await call.keep(node, "value", node.attributes["name"].text)


async def run_retry(call: Call, node: Node) -> None:
    """The children once, then again while the condition holds and tries are left.

    A child that fails leaves a response of status 500 for the condition to see, as API Management's own advice for
    broken backend connections assumes; when no retry follows, the failure goes on to on-error.
    """
    count = int(await call.number(node, "count"))
    if not 1 <= count <= MOST_RETRIES:
        raise CallFailed("InvalidRetryCount", f"count is {count}; it must be from 1 to {MOST_RETRIES}")
    for attempt in range(count + 1):
        failure: CallFailed | None = None
        try:
            await run_policies(call, node.children)
        except CallFailed as error:
            if error.reason not in ("BackendConnectionFailure", "Timeout"):
                raise
            failure = error
            await call.bridge.show_failure(error)
        again = await call.condition(node)
        if not again or attempt == count:
            if failure is not None:
                raise failure
            return
        await call.gateway.sleep(await _wait_seconds(call, node, attempt + 1))


async def _wait_seconds(call: Call, node: Node, retry: int) -> float:
    if retry == 1 and await call.boolean(node, "first-fast-retry"):
        return 0.0
    interval, delta = await call.number(node, "interval"), await call.number(node, "delta")
    if not delta:
        return interval
    most = await call.number(node, "max-interval")
    if not most:
        return interval + (retry - 1) * delta
    grown = interval + ((1 << (retry - 1)) - 1) * random.uniform(delta * 0.8, delta * 1.2)
    return min(most, grown)


async def run_trace(call: Call, node: Node) -> None:
    """A line for the trace, here also kept for tests."""
    text = node.child("message")
    message = await call.text(text, "text") if text else ""
    metadata = [f"{each.attributes['name'].text}={await call.text(each, 'value')}" for each in node.all("metadata")]
    call.gateway.traces.append(" ".join(filter(None, [node.attributes["source"].text, message.strip(), *metadata])))


_WHEN = Element(attributes={"condition": needs("boolean")}, policies=True)
_RETRY = Element(
    attributes={
        "condition": needs("boolean"),
        "count": needs("integer", least=1, most=MOST_RETRIES),
        "interval": needs("number", least=0),
        "max-interval": Attribute(kind="number", least=0),
        "delta": Attribute(kind="number", least=0),
        "first-fast-retry": Attribute(kind="boolean"),
    },
    policies=True,
)
_TRACE = Element(
    attributes={
        "source": literal(required=True),
        "severity": literal(choices=frozenset(("verbose", "information", "error"))),
    },
    children={
        "message": Children(Element(text="required"), least=1, most=1),
        "metadata": Children(Element(attributes={"name": literal(required=True), "value": needs()})),
    },
)
_CHOOSE = Element(
    children={"when": Children(_WHEN, least=1), "otherwise": Children(Element(policies=True), most=1)},
)
_VARIABLE = Element(attributes={"name": literal(required=True), "value": needs()})

POLICIES = (
    Policy("base", ALL_SECTIONS, Element(), run_base),
    Policy("include-fragment", ALL_SECTIONS, Element({"fragment-id": literal(required=True)}), run_include),
    Policy("choose", ALL_SECTIONS, _CHOOSE, run_choose),
    Policy("set-variable", ALL_SECTIONS, _VARIABLE, run_set_variable),
    Policy("retry", ALL_SECTIONS, _RETRY, run_retry),
    Policy("trace", ALL_SECTIONS, _TRACE, run_trace),
)
