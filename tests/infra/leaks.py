"""Where secrets could get to: Terraform's state, app settings, named values and outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.infra.rules.access import KEYLESS
from tests.support.azurerm import MAPPINGS
from tests.support.known_plan import KnownPlan, Planned

# Types whose schema has computed secrets, and which are not switched off by tests/infra/rules/access.py.
HARMLESS = {
    "azurerm_api_management": "the keys of the direct management API, which is only there with a block tenant_access",
    "azurerm_container_app": "an id to prove with that a domain is one's own; the secrets are references",
    "azapi_resource_action": "sensitive_output holds what the action is asked to export, which is nothing",
}
# Secrets by their schema that open nothing here.
ADDRESSES = {
    "azurerm_application_insights#connection_string": "an address: the component takes no keys",
}
_MADE = re.compile(r"«(?P<type>[a-z_]+)\.[^#»]*#(?P<attribute>[^»]+)»")
_WRITTEN = re.compile(
    r"AccountKey=|SharedAccessKey=|SharedAccessSignature|[?&;]sig=|AccessKey=|password=|-----BEGIN|listKeys|listSecrets",
    re.IGNORECASE,
)


def leaks(plan: KnownPlan) -> list[str]:
    """Secrets that leave the resource they are of or that somebody wrote down; working keys in the state."""
    of_kind = _secrets(plan)
    secrets = {f"{kind}#{attribute}" for kind, found in of_kind.items() for attribute in found} - set(ADDRESSES)
    problems = []
    for where, text in _texts(plan):
        own = where.partition("#")[0]
        named = [m for m in _MADE.finditer(text) if f"{m['type']}#{m['attribute']}" in secrets]
        problems += [f"{where} holds {m.group()}" for m in named if not m.group().startswith(f"«{own}#")]
        problems += [f"{where} holds a key: {found}" for found in _WRITTEN.findall(_MADE.sub("", text))]
    for address, found in plan.resources.items():
        problems += [f"{address} keeps working keys in the state"] if found.type in of_kind and _keeps(found) else []
        problems += [f"{address} may export anything"] if _exports_at_will(found) else []
    return problems


def _secrets(plan: KnownPlan) -> dict[str, list[str]]:
    """By type in the plan: attributes that the provider computes and calls sensitive."""
    kinds = {found.type for found in plan.resources.values()} & set(plan.schemas)
    found = {kind: list(_sensitive(plan.schemas[kind]["block"])) for kind in kinds}
    return {kind: attributes for kind, attributes in found.items() if attributes}


def _sensitive(block: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, attribute in block.get("attributes", {}).items():
        if attribute.get("sensitive") and attribute.get("computed"):
            yield path + name
    for name, nested in block.get("block_types", {}).items():
        yield from _sensitive(nested["block"], f"{path}{name}.")


def _keeps(found: Planned) -> bool:
    """Whether the keys in its state are of a kind that nothing switches off; `keyless` sees that the switch is off."""
    if found.type == "azurerm_api_management":
        return bool(found.values["tenant_access"])
    if found.type in HARMLESS:
        return False
    mapping = MAPPINGS[found.type]
    return not any(part.type in KEYLESS for part in (mapping, *mapping.parts))


def _exports_at_will(found: Planned) -> bool:
    """azapi writes the whole answer of Azure into the state unless it is told what of it."""
    return found.type.startswith("azapi_") and found.values.get("response_export_values") is None


def _texts(plan: KnownPlan) -> Iterator[tuple[str, str]]:
    for found in plan.resources.values():
        for name, value in found.values.items():
            yield f"{found.address}#{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    for name, value in plan.outputs.items():
        yield f"output {name}", json.dumps(value, ensure_ascii=False)
