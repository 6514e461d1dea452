"""Both templates in one form: what each asks Azure for, in Azure's own types, names and properties.

A reference to another resource is `«type:name»`, a value that Azure gives is `«type:name#property»`, whichever language
it was written in; so what the two templates declare can be compared, and checked by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.support import azurerm
from tests.support.azurerm import MAPPINGS, Getter, Mapping, read
from tests.support.bicep import Resource
from tests.support.known_plan import KnownPlan, Planned

_REFERENCE = re.compile(r"«([^«»#]+)#([^«»]+)»")
_CHILD = re.compile(r"«([^«»#:]+):([^«»#]+)»((?:/[A-Za-z]+/[^/«»\s]+)+)")
_EDGE = re.compile(r'"([\w.]+)" -> "([\w.]+)"')
_ROLE_ID = re.compile(r".*/roleDefinitions/([0-9a-f-]{36})$")
_PLACED = ("scope", "parent", "dependsOn")  # says where and when, not what
_IN_ANOTHER = {  # what Bicep may write inside of its parent
    "Microsoft.Network/virtualNetworks": "subnets",
    "Microsoft.Network/networkSecurityGroups": "securityRules",
}


@dataclass
class Item:
    """One resource in Azure's form."""

    type: str
    name: str  # with its parents' names, separated by slashes; `scope|name` of what stands on another resource
    where: str  # address, or file and line
    body: dict[str, Any]  # of azapi and Bicep; empty where azurerm makes it
    properties: dict[str, Any] = field(default_factory=dict)  # what is compared, by azurerm.MAPPINGS and AZAPI_ONLY

    @property
    def last_name(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def reference(self) -> str:
        return f"«{self.type}:{self.name}»"


@dataclass
class Deployment:
    """Everything that one template declares."""

    items: list[Item]
    needs: dict[str, set[str]] = field(default_factory=dict)  # by reference: what must be there before

    def comes_after(self, item: Item) -> set[str]:
        """References of everything that must be there before the item."""
        return _reached(item.reference, self.needs)

    def of(self, kind: str) -> list[Item]:
        return [item for item in self.items if item.type.lower() == kind.lower()]

    def names(self, kind: str) -> set[str]:
        return {item.last_name for item in self.of(kind)}

    def one(self, kind: str, what: str = "") -> Item:
        found = [item for item in self.of(kind) if what in item.name]
        assert len(found) == 1, f"expected one {kind} with {what!r} in its name, found {[i.name for i in found]}"
        return found[0]


def _getters() -> dict[str, dict[str, Getter]]:
    """By type: how each compared property is read from Azure's own form."""
    wanted: dict[str, dict[str, Getter]] = {}
    for mapping in _all_mappings(MAPPINGS.values()):
        wanted.setdefault(mapping.type, {}).update({path: path for path in mapping.properties})
    for kind, paths in azurerm.AZAPI_ONLY.items():
        wanted.setdefault(kind, {}).update({path: path for path in paths})
    for kind, forms in azurerm.FORMS.items():
        wanted[kind] |= forms
    for _, path, _ in azurerm.PARTS_OF.values():
        wanted["Microsoft.Network/virtualNetworks/subnets"][path] = path
    for getters in wanted.values():
        if "identity.type" in getters:
            getters["identity.userAssignedIdentities"] = lambda b: sorted(
                read(b, "identity.userAssignedIdentities") or []
            )
    return wanted


def _all_mappings(mappings: Iterable[Mapping]) -> Iterable[Mapping]:
    for mapping in mappings:
        yield mapping
        yield from mapping.parts


_GETTERS = _getters()
KNOWN_TYPES = {kind.lower(): kind for kind in _GETTERS}


def _take(getters: dict[str, Getter], source: dict[str, Any]) -> dict[str, Any]:
    return {path: read(source, get) if isinstance(get, str) else get(source) for path, get in getters.items()}


def _spelt(kind: str) -> str:
    """The type as azurerm.py spells it. A type that is not there is not compared, which must not go unseen."""
    if kind.lower() not in KNOWN_TYPES:
        raise AssertionError(f"{kind}: tests/support/azurerm.py does not say what of it is compared")
    return KNOWN_TYPES[kind.lower()]


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {change(key): _each_text(member, change) for key, member in value.items()}
    if isinstance(value, list):
        return [_each_text(member, change) for member in value]
    return change(value) if isinstance(value, str) else value


def _children(text: str) -> str:
    """`«a/b:x»/c/y` is `«a/b/c:x/y»`."""

    def joined(match: re.Match[str]) -> str:
        parts = match[3].strip("/").split("/")
        kind = "/".join([match[1], *parts[::2]])
        return f"«{KNOWN_TYPES.get(kind.lower(), kind)}:{'/'.join([match[2], *parts[1::2]])}»"

    return _CHILD.sub(joined, text)


# -- Terraform ---------------------------------------------------------------------------------------------------------
def from_terraform(plan: KnownPlan, graph: str = "") -> Deployment:
    """What a plan declares, and with the output of `terraform graph` also in which order."""
    found = _Terraform(plan).deployment()
    found.needs = _needs(found.items, graph)
    return found


def _needs(items: list[Item], graph: str) -> dict[str, set[str]]:
    """What each item waits for. Terraform waits for blocks, with all that for_each makes of them."""
    of_block: dict[str, set[str]] = {}
    for item in items:
        of_block.setdefault(item.where.partition("[")[0], set()).add(item.reference)
    edges: dict[str, set[str]] = {}
    for later, earlier in _EDGE.findall(graph):
        edges.setdefault(later, set()).add(earlier)
    needs: dict[str, set[str]] = {}
    for block, references in of_block.items():
        # Blocks on the way may be none of the items, such as data sources.
        earlier_items = set().union(*(of_block.get(other, set()) for other in _reached(block, edges)))
        needs |= dict.fromkeys(references, earlier_items)
    return needs


def _reached(start: str, edges: dict[str, set[str]]) -> set[str]:
    """Everything on any way from there."""
    found: set[str] = set()
    left = [start]
    while left:
        new = edges.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


class _Terraform:
    def __init__(self, plan: KnownPlan) -> None:
        self._plan = plan

    def deployment(self) -> Deployment:
        items: list[Item] = []
        for planned in self._plan.resources.values():
            items += self._items(planned)
        by_reference = {item.reference: item for item in items}
        for planned in self._plan.resources.values():
            if part := azurerm.PARTS_OF.get(planned.type):
                of, path, argument = part
                by_reference[self._text(planned.values[of])].properties[path] = self._text(planned.values[argument])
        return Deployment(items)

    def _items(self, planned: Planned) -> list[Item]:
        if planned.type in azurerm.LOCAL or planned.type in azurerm.PARTS_OF:
            return []
        if str(planned.values.get("type")).startswith("Microsoft.Resources/deployments@"):
            parts = planned.values["body"]["properties"]["template"]["resources"]
            return [Item(one["type"], self._text(one["name"]), planned.address, one, {}) for one in parts]
        if planned.type.startswith("azapi_"):
            return [self._azapi(planned)]
        mapping = self._mapping(planned)
        items = []
        for one in (mapping, *mapping.parts):
            properties = _each_text(_take(one.properties, planned.values), self._text)
            # What an argument is not set to, Azure decides.
            own = f"«{planned.address}#"
            properties = {p: None if str(v).startswith(own) else v for p, v in properties.items()}
            items.append(Item(one.type, self._filled(one.name, planned), planned.address, {}, properties))
        return items

    def _mapping(self, planned: Planned) -> Mapping:
        if planned.type not in MAPPINGS:
            raise AssertionError(f"{planned.address}: tests/support/azurerm.py does not say what it is in Azure")
        return MAPPINGS[planned.type]

    def _azapi(self, planned: Planned) -> Item:
        kind, name = self._azapi_name(planned)
        body = dict(planned.values.get("body") or {})
        if identity := planned.values.get("identity"):
            ids = identity[0].get("identity_ids") or []
            body["identity"] = {"type": identity[0]["type"], "userAssignedIdentities": {key: {} for key in ids}}
        body = _each_text(body, self._text)
        return Item(kind, name, planned.address, body, _take(_GETTERS[kind], body))

    def _azapi_name(self, planned: Planned) -> tuple[str, str]:
        values = planned.values
        kind = _spelt(values["type"].partition("@")[0])
        parent = self._text(values.get("parent_id") or values.get("resource_id") or "")
        name = values.get("name")
        if planned.type == "azapi_resource_action":  # on something that its id names
            return kind, parent.strip("«»").partition(":")[2]
        on_another = kind.count("/") == 1 and parent and "resourceGroups:" not in parent
        if on_another:
            return kind, f"{parent}|{name}"
        inside = parent.strip("«»").partition(":")[2] if kind.count("/") > 1 else ""
        return kind, f"{inside}/{name}" if inside else str(name)

    def _filled(self, template: str, planned: Planned) -> str:
        """A name: of what stands on another resource with its reference, of what stands in one with its name."""
        fields = {field: str(planned.values.get(field)) for field in re.findall(r"\{(\w+)\}", template)}
        texts = {field: self._text(value) for field, value in fields.items()}
        if "|" not in template:
            texts = {field: re.sub(r"^«[^:]+:([^#]*)»$", r"\1", text) for field, text in texts.items()}
        return template.format(**texts)

    def _text(self, text: str) -> str:
        if "«" not in text:
            return text
        return _children(_REFERENCE.sub(lambda match: self._reference(match[1], match[2]), text))

    def _reference(self, address: str, attribute: str) -> str:
        planned = self._plan.resources[address]
        if planned.type in azurerm.LOCAL:
            return f"«{address}#{attribute}»"
        if planned.type.startswith("azapi_"):
            kind, name = self._azapi_name(planned)
        else:
            mapping = self._mapping(planned)
            if "|" in mapping.name:
                return f"«{address}#{attribute}»"
            kind, name = mapping.type, self._filled(mapping.name, planned)
        if attribute == "id":
            return f"«{kind}:{name}»"
        path = azurerm.ATTRIBUTES.get(attribute, attribute).removeprefix("output.")
        return f"«{kind}:{name}#{path}»"


# -- Bicep -------------------------------------------------------------------------------------------------------------
def from_bicep(resources: list[Resource], role_names: dict[str, str]) -> Deployment:
    """What an evaluated template declares. `role_names`: {id of a built-in role: its name}."""
    resources = [part for resource in resources for part in (resource, *_written_inside(resource))]
    text = _replacer({r.id: f"«{KNOWN_TYPES.get(r.type.lower(), r.type)}:{r.name}»" for r in resources})
    items = []
    of_id: dict[str, Item] = {}
    for resource in resources:
        if resource.type not in azurerm.IMPLIED:
            kind = _spelt(resource.type)
            body = _each_text({k: v for k, v in resource.body.items() if k not in _PLACED}, text)
            name = _bicep_name(resource, kind, body, text(resource.scope), role_names)
            of_id[resource.id] = Item(kind, name, resource.where, body, _take(_GETTERS[kind], body))
            items.append(of_id[resource.id])
    needs: dict[str, set[str]] = {}
    for resource in resources:
        if resource.id in of_id:
            earlier = {of_id[other].reference for other in resource.needs if other in of_id}
            needs.setdefault(of_id[resource.id].reference, set()).update(earlier)
    return Deployment(items, needs)


def _replacer(references: dict[str, str]) -> Callable[[str], str]:
    """Replaces ids of resources, in whatever case, by references."""
    by_id = {resource_id.lower(): reference for resource_id, reference in references.items()}
    longest_first = sorted(by_id, key=len, reverse=True)
    ids = re.compile(f"({'|'.join(map(re.escape, longest_first))})(?![\\w-])", re.IGNORECASE)

    def text(value: str) -> str:
        if "/subscriptions/" in value:
            value = ids.sub(lambda match: by_id[match[1].lower()], value)
        return _children(_REFERENCE.sub(lambda match: f"«{_spelt_reference(match[1])}#{match[2]}»", value))

    return text


def _bicep_name(resource: Resource, kind: str, body: dict[str, Any], scope: str, role_names: dict[str, str]) -> str:
    """The name as Terraform's side gives it, where a name means nothing or stands on another resource."""
    match kind:
        case "Microsoft.Authorization/roleAssignments":
            role = _ROLE_ID.sub(r"\1", body["properties"]["roleDefinitionId"])
            return f"{scope}|{body['properties']['principalId']}|{role_names.get(role, role)}"
        case "Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments":
            return f"{resource.name.rpartition('/')[0]}/{body['properties']['user']['objectId']}"
        case "Microsoft.Insights/workbooks":
            return "workbook"
    stands_on_another = "scope" in resource.body and kind.count("/") == 1 and "resourceGroups:" not in scope
    return f"{scope}|{resource.name}" if stands_on_another else resource.name


def _spelt_reference(reference: str) -> str:
    kind, _, name = reference.partition(":")
    return f"{KNOWN_TYPES.get(kind.lower(), kind)}:{name}"


def _written_inside(resource: Resource) -> list[Resource]:
    """Subnets in a network and rules in a security group, as resources of their own. They come with the outer one."""
    kind = _IN_ANOTHER.get(resource.type)
    found = []
    for body in read(resource.body, f"properties.{kind}") or []:
        inner = Resource(
            f"{resource.type}/{kind}",
            resource.version,
            f"{resource.name}/{body['name']}",
            resource.scope,
            existing=False,
            where=resource.where,
            body=body,
            needs=set(resource.needs),
        )
        found.append(inner)
    resource.needs |= {inner.id for inner in found}
    return found
