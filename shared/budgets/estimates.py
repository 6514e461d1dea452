"""Which learned estimate a call may use: the levels from the most specific trusted scope to the tenant."""

from __future__ import annotations

from collections.abc import Mapping, Set
from urllib.parse import quote

from shared.scopes import scope_id

_SPECIFIC_TYPES = ("agent", "app", "user")


def learning_levels(tenant: str, scopes: Mapping[str, str], asserted_types: Set[str], model: str) -> list[str]:
    """Names of the learned estimates of a call, most specific first.

    Scopes a client merely asserts never teach: fresh session ids would reset what was learned, and tiny calls under
    an invented id would train the estimate down before a burst.
    """
    levels = [kind for kind in _SPECIFIC_TYPES if kind in scopes and kind not in asserted_types][:1]
    if "team" in scopes and "team" not in asserted_types:
        levels.append("team")
    named_model = quote(model, safe="")
    names = [f"{scope_id(kind, scopes[kind])}|{named_model}" for kind in levels]
    return [*names, f"{scope_id('tenant', tenant)}|{named_model}"]
