"""Where the request goes: set-method, rewrite-uri, set-query-parameter, set-backend-service."""

from __future__ import annotations

import re

from local.apim.call import Call
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.schema import Attribute, Children, Element, Policy, literal, needs

_PARAMETER = re.compile(r"\{([A-Za-z0-9_-]+)\}")


async def run_set_method(call: Call, node: Node) -> None:
    """Another method towards the backend."""
    call.request.method = (await call.text(node, "text")).strip().upper()
    call.bridge.changed(call.request)


async def run_rewrite_uri(call: Call, node: Node) -> None:
    """Another path towards the backend; {parameters} are those of the operation's own template."""
    template = await call.text(node, "template")
    if not template.startswith("/"):
        raise CallFailed("InvalidUriTemplate", f"template {template!r} does not begin with /")

    def parameter(match: re.Match[str]) -> str:
        if match[1] not in call.request.matched_parameters:
            raise CallFailed("InvalidUriTemplate", f"the operation has no parameter {match[1]!r}")
        return call.request.matched_parameters[match[1]]

    before = call.request.query()
    call.request.backend_path = _PARAMETER.sub(parameter, template)
    own = call.request.query()
    if await call.boolean(node, "copy-unmatched-params", default=True):
        names = {name.lower() for name, _ in own}
        call.request.set_query([*own, *((name, value) for name, value in before if name.lower() not in names)])
    call.bridge.changed(call.request)


async def run_set_query_parameter(call: Call, node: Node) -> None:
    """Change one query parameter of the request."""
    name = await call.text(node, "name")
    action = await call.text(node, "exists-action", "override")
    values = [(name, await call.text(value, "text")) for value in node.all("value")]
    query = call.request.query()
    others = [pair for pair in query if pair[0].lower() != name.lower()]
    if action == "delete":
        query = others
    elif action == "append":
        query = [*query, *values]
    elif action == "override" or len(others) == len(query):
        query = [*others, *values]
    call.request.set_query(query)
    call.bridge.changed(call.request)


async def run_set_backend_service(call: Call, node: Node) -> None:
    """Another backend: one that is configured, or any base URL."""
    if "backend-id" in node.attributes:
        backend_id = await call.text(node, "backend-id")
        urls = call.gateway.options.backends.get(backend_id)
        if urls is None:
            raise CallFailed("BackendNotFound", f"there is no backend {backend_id!r}")
        call.backend_id = backend_id
        call.backend_urls = [urls] if isinstance(urls, str) else list(urls)
    elif "base-url" in node.attributes:
        call.backend_id, call.backend_urls = None, [await call.text(node, "base-url")]
    else:
        raise CallFailed("BackendNotFound", "neither backend-id nor base-url is given")
    call.request.backend_url = call.backend_urls[0]
    call.bridge.set_backend(call.backend_id)
    call.bridge.changed(call.request)


_QUERY = Element(
    attributes={
        "name": needs(),
        "exists-action": literal(choices=frozenset(("override", "skip", "append", "delete"))),
    },
    children={"value": Children(Element(text="optional"))},
)
_REWRITE = Element(
    attributes={"template": needs(), "copy-unmatched-params": Attribute(expression=False, kind="boolean")},
)

POLICIES = (
    Policy("set-method", frozenset(("inbound", "on-error")), Element(text="required"), run_set_method),
    Policy("rewrite-uri", frozenset(("inbound",)), _REWRITE, run_rewrite_uri),
    Policy("set-query-parameter", frozenset(("inbound", "backend")), _QUERY, run_set_query_parameter),
    Policy(
        "set-backend-service",
        frozenset(("inbound", "backend")),
        Element({"backend-id": Attribute(), "base-url": Attribute()}),
        run_set_backend_service,
    ),
)
