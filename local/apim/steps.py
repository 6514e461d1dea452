"""Running policies one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from local.apim.errors import CallFailed

if TYPE_CHECKING:
    from local.apim.call import Call
    from local.apim.document import Node


async def run_policies(call: Call, nodes: Sequence[Node]) -> None:
    """Run each in order. A CallFailed that leaves here says which policy failed and where."""
    from local.apim.elements import POLICIES  # the elements need this module

    for node in nodes:
        call.gateway.coverage.hit(node.key)
        try:
            await POLICIES[node.name].run(call, node)
        except CallFailed as failure:
            if not failure.section:
                failure.source = failure.source or node.name
                failure.section, failure.path = call.section, node.path
                identifier = node.attributes.get("id")
                failure.policy_id = identifier.text if identifier else None
            raise
