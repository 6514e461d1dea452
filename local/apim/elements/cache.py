"""cache-lookup-value, cache-store-value, cache-remove-value: the gateway's internal cache."""

from __future__ import annotations

from local.apim.call import Call
from local.apim.document import Node
from local.apim.schema import ALL_SECTIONS, Attribute, Element, Policy, literal, needs

_CACHING_TYPES = frozenset(("internal", "external", "prefer-external"))


async def run_lookup(call: Call, node: Node) -> None:
    """Put the cached value into a variable; without one the default, or no variable at all."""
    variable = node.attributes["variable-name"].text
    found = call.gateway.cache.get(await call.text(node, "key"))
    if found is not None:
        call.bridge.set_variable(variable, found[0])
    elif "default-value" in node.attributes:
        await call.keep(node, "default-value", variable)
    else:
        call.bridge.remove_variable(variable)


async def run_store(call: Call, node: Node) -> None:
    """Keep a value for `duration` seconds."""
    key, seconds = await call.text(node, "key"), await call.number(node, "duration")
    value = await call.raw(node, "value")
    call.gateway.cache.put(key, value and value.value, seconds)


async def run_remove(call: Call, node: Node) -> None:
    """Forget a value."""
    call.gateway.cache.remove(await call.text(node, "key"))


_KEY = {"key": needs(), "caching-type": literal(choices=_CACHING_TYPES)}

POLICIES = (
    Policy(
        "cache-lookup-value",
        ALL_SECTIONS,
        Element({**_KEY, "variable-name": literal(required=True), "default-value": Attribute()}),
        run_lookup,
    ),
    Policy(
        "cache-store-value",
        ALL_SECTIONS,
        Element({**_KEY, "value": needs(), "duration": needs("integer", least=1)}),
        run_store,
    ),
    Policy("cache-remove-value", ALL_SECTIONS, Element(_KEY), run_remove),
)
