"""authentication-managed-identity: a token of the gateway's own identity."""

from __future__ import annotations

from local.apim.call import Call
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.messages import Headers
from local.apim.schema import Attribute, Element, Policy, literal, needs


async def add_token(call: Call, node: Node, headers: Headers) -> None:
    """Put a token for the resource into Authorization, or into a variable when the policy names one."""
    resource = await call.text(node, "resource")
    client_id = await call.text(node, "client-id") or None
    try:
        token = await call.gateway.tokens.token(resource, client_id)
    except RuntimeError as error:
        if await call.boolean(node, "ignore-error"):
            return
        raise CallFailed("ManagedIdentityTokenFailure", f"no token for {resource}: {error}") from error
    if (variable := node.attributes.get("output-token-variable-name")) is not None:
        call.bridge.set_variable(variable.text, token)
    else:
        headers.set("Authorization", [f"Bearer {token}"])


async def run_managed_identity(call: Call, node: Node) -> None:
    """Authenticate to the backend as the gateway."""
    await add_token(call, node, call.request.headers)
    call.bridge.changed(call.request)


MANAGED_IDENTITY = Element(
    attributes={
        "resource": needs(),
        "client-id": literal(),
        "output-token-variable-name": literal(),
        "ignore-error": Attribute(expression=False, kind="boolean"),
    }
)

POLICIES = (Policy("authentication-managed-identity", frozenset(("inbound",)), MANAGED_IDENTITY, run_managed_identity),)
