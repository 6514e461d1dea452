"""The policies that can be executed; any other is an error when a document is loaded."""

from __future__ import annotations

from local.apim.elements import (
    cache,
    control,
    events,
    forward,
    headers,
    identity,
    jwt,
    limits,
    requests,
    responses,
    url,
)
from local.apim.schema import Policy

MODULES = (cache, control, events, forward, headers, identity, jwt, limits, requests, responses, url)
POLICIES: dict[str, Policy] = {policy.name: policy for module in MODULES for policy in module.POLICIES}
