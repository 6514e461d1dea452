"""Bicep templates evaluated: which resources a deployment with given parameters would ask Azure for.

What only Azure knows (a principal id, an endpoint) stays a `Runtime`, which names the resource and the property it is
read from. Functions and syntax that are not understood raise with file and line: a test must not pass on a guess.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.bicep_syntax import BicepError, Declaration, Node, parse

SUBSCRIPTION = "00000000-0000-4000-8000-000000000000"
TENANT = "00000000-0000-4000-8000-00000000000a"
_LOCATION = "swedencentral"
_LOGIN = "https://login.microsoftonline.com/"
_SUFFIXES = {"storage": "core.windows.net", "keyvaultDns": ".vault.azure.net"}


class Runtime(str):
    """A value that Azure gives at deployment: `«type:name#property»`."""

    __slots__ = ()

    @classmethod
    def of(cls, resource: Resource, what: str) -> Runtime:
        return cls(f"«{resource.type}:{resource.name}#{what}»")

    def member(self, key: object) -> Runtime:
        if self.endswith("#properties.primaryEndpoints»") or key == "vaultUri":  # addresses that end in a slash
            return Runtime(f"{self[:-1]}.{key}»/")
        return Runtime(f"{self[:-1]}[{key}]»" if isinstance(key, int) else f"{self[:-1]}.{key}»")


@dataclass
class Resource:
    """A resource as it would be deployed, or an existing one that is referred to."""

    type: str
    version: str
    name: str  # with its parents' names, separated by slashes
    scope: str  # id of what it stands in or on
    existing: bool
    where: str  # file and line of the declaration
    body: dict[str, Any] = field(default_factory=dict)
    needs: set[str] = field(default_factory=set)  # ids of the resources that must be there before

    @property
    def id(self) -> str:
        namespace, *kinds = self.type.split("/")
        path = "/".join(f"{kind}/{name}" for kind, name in zip(kinds, self.name.split("/"), strict=True))
        if self.type == "Microsoft.Resources/resourceGroups":
            return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{self.name}"
        return f"{self.scope}/providers/{namespace}/{path}"


@dataclass
class Group:
    """A resource group as the scope of a module."""

    name: str

    @property
    def id(self) -> str:
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{self.name}"


class Deployed(dict[str, Any]):
    """A module that was deployed: its outputs, and what it created. Whoever reads it waits for all of that."""

    def __init__(self, members: dict[str, Any], created: list[Resource]) -> None:
        super().__init__(members)
        self.created = created


class _Absent:
    """What a module or resource under a false condition leaves behind: it may be named, not read."""


def evaluate(
    file: Path, parameters: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None
) -> list[Resource]:
    """The resources that deploying `file` (.bicep, or a .bicepparam that uses one) would create.

    `functions` take the place of functions of the language, such as one that hashes.
    """
    found: list[Resource] = []
    known = {**_FUNCTIONS, **(functions or {})}
    if file.suffix == ".bicepparam":
        declarations = _declarations(file)
        template = next(d.target for d in declarations if d.kind == "using")
        own = _File(file, {}, "", found, known)
        given = {d.name: own.value(d.value, {}) for d in declarations if d.kind == "param" and d.value}
        file, parameters = file.parent / template, {**given, **parameters}
    _File(file, parameters, f"/subscriptions/{SUBSCRIPTION}", found, known).deploy()
    return found


@functools.cache
def _parsed(text: str) -> list[Declaration]:
    return parse(text)


def _declarations(file: Path) -> list[Declaration]:
    try:
        return _parsed(file.read_text(encoding="utf-8"))
    except BicepError as problem:
        raise BicepError(f"{file.name} {problem}") from None


class _File:
    """One template with its parameters: evaluates what is asked for, once."""

    def __init__(
        self,
        file: Path,
        parameters: Mapping[str, Any],
        scope: str,
        found: list[Resource],
        functions: Mapping[str, Callable[..., Any]],
    ) -> None:
        self.file = file
        self.scope = scope
        self._found = found
        self._functions = functions
        self._given = dict(parameters)
        self._symbols: dict[str, Declaration] = {}  # a resource inside of another as `outer::inner`
        self._inside = [""]  # the symbol that is being evaluated
        self._known: dict[str, Any] = {}
        self._needed_by_variable: dict[str, set[str]] = {}
        self._reading: list[set[str]] = [set()]  # ids of resources read by what is being evaluated
        for declaration in _declarations(file):
            self._declare(declaration, "")
        unknown = set(parameters) - {d.name for d in self._symbols.values() if d.kind == "param"}
        if unknown:
            raise BicepError(f"{file.name} has no parameter {', '.join(sorted(unknown))}")

    def _declare(self, declaration: Declaration, outer: str) -> None:
        if declaration.kind == "output":
            return
        symbol = f"{outer}::{declaration.name}" if outer else declaration.name
        self._symbols[symbol] = declaration
        for nested in declaration.nested:
            self._declare(nested, symbol)

    def deploy(self) -> None:
        """Evaluate everything that deploys something."""
        for name, declaration in self._symbols.items():
            if declaration.kind in ("resource", "module"):
                self.symbol(name)

    def outputs(self) -> dict[str, Any]:
        found = [d for d in _declarations(self.file) if d.kind == "output"]
        return {d.name: self.value(d.value, {}) for d in found if d.value}

    # -- symbols -----------------------------------------------------------------------------------------------------
    def _resolve(self, name: str) -> str:
        """The symbol that a plain name means where it stands: the innermost one."""
        outer = self._inside[-1]
        while outer and f"{outer}::{name}" not in self._symbols:
            outer = outer.rpartition("::")[0]
        return f"{outer}::{name}" if outer else name

    def symbol(self, name: str) -> Any:
        """The value of a symbol. A resource that is read is remembered as needed by what is being evaluated."""
        if name not in self._known:
            declaration = self._symbols.get(name)
            if declaration is None:
                raise BicepError(f"{self.file.name}: {name} is not declared")
            if name in self._inside:
                raise BicepError(f"{self.file.name} line {declaration.line}: {name} is made of itself")
            self._reading.append(set())
            self._inside.append(name)
            self._known[name] = self._evaluate(declaration)
            self._inside.pop()
            needs = self._reading.pop()
            if declaration.kind == "var":
                self._needed_by_variable[name] = needs
        self._reading[-1] |= self._needed_by_variable.get(name, set()) | _ids(self._known[name])
        return self._known[name]

    def _evaluate(self, declaration: Declaration) -> Any:
        match declaration.kind:
            case "param":
                if declaration.name in self._given:
                    return self._given[declaration.name]
                if declaration.value is None:
                    raise BicepError(f"{self.file.name} line {declaration.line}: {declaration.name} has no value")
                return self.value(declaration.value, {})
            case "func":
                body = declaration.value
                return lambda *given: self.value(body, dict(zip(declaration.arguments, given, strict=True)))
            case "resource" | "module":
                return self._deploy(declaration)
        return self.value(declaration.value, {})

    def _deploy(self, declaration: Declaration) -> Any:
        """A resource or module, or a list of them where it is declared in a loop."""
        one = self._resource if declaration.kind == "resource" else self._module

        def of(node: Node, local: dict[str, Any]) -> Any:
            if node.kind == "for":
                return [of(node.parts[2], local | element) for element in self._elements(node, local)]
            if node.kind == "if":
                return of(node.parts[1], local) if self.value(node.parts[0], local) else _Absent()
            return one(declaration, self.value(node, local))

        assert declaration.value is not None
        return of(declaration.value, {})

    def _resource(self, declaration: Declaration, body: dict[str, Any]) -> Resource:
        kind, _, version = declaration.target.partition("@")
        name = str(body["name"])
        scope = body.get("scope")
        scope_id = self.scope if scope is None else scope.id
        parent = body.get("parent")
        outer = self._inside[-1].rpartition("::")[0]
        if outer:
            parent = self.symbol(outer)
            kind = f"{parent.type}/{kind}"
        if parent is not None:
            name, scope_id = f"{parent.name}/{name}", parent.scope
        where, needs = f"{self.file.name}:{declaration.line}", set(self._reading[-1])
        resource = Resource(kind, version, name, scope_id, declaration.existing, where, body, needs)
        if not resource.existing:
            self._found.append(resource)
        return resource

    def _module(self, declaration: Declaration, body: dict[str, Any]) -> Any:
        scope = body.get("scope")
        inner = _File(
            self.file.parent / declaration.target,
            body.get("params", {}),
            self.scope if scope is None else scope.id,
            self._found,
            self._functions,
        )
        before = len(self._found)
        inner.deploy()
        created = self._found[before:]
        for resource in created:
            resource.needs |= self._reading[-1]
        return Deployed({"outputs": inner.outputs()}, created)

    # -- expressions -------------------------------------------------------------------------------------------------
    def value(self, node: Node | None, local: Mapping[str, Any]) -> Any:
        assert node is not None
        try:
            return getattr(self, "_" + node.kind.replace("-", "_"))(node, local)
        except BicepError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
            raise BicepError(f"{self.file.name} line {node.line}: {type(problem).__name__}: {problem}") from problem

    def _literal(self, node: Node, local: Mapping[str, Any]) -> Any:
        return node.parts[0]

    _text = _literal

    def _name(self, node: Node, local: Mapping[str, Any]) -> Any:
        name = node.parts[0]
        return local[name] if name in local else self.symbol(self._resolve(name))

    def _string(self, node: Node, local: Mapping[str, Any]) -> str:
        parts = [part if isinstance(part, str) else self.value(part, local) for part in node.parts]
        kept = [part for part in parts if part != ""]
        return kept[0] if len(kept) == 1 and isinstance(kept[0], Runtime) else "".join(map(_text, parts))

    def _object(self, node: Node, local: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.parts:
            if key.kind == "spread":
                made |= self.value(value, local)
            else:
                made[str(self.value(key, local))] = self.value(value, local)
        return made

    def _array(self, node: Node, local: Mapping[str, Any]) -> list[Any]:
        made: list[Any] = []
        for part in node.parts:
            if part.kind == "spread":
                made += self.value(part.parts[0], local)
            else:
                made.append(self.value(part, local))
        return made

    def _for(self, node: Node, local: Mapping[str, Any]) -> list[Any]:
        return [self.value(node.parts[2], {**local, **element}) for element in self._elements(node, local)]

    def _elements(self, node: Node, local: Mapping[str, Any]) -> list[dict[str, Any]]:
        names, over = node.parts[0], self.value(node.parts[1], local)
        return [dict(zip(names, (element, index), strict=False)) for index, element in enumerate(over)]

    def _lambda(self, node: Node, local: Mapping[str, Any]) -> Callable[..., Any]:
        names, body = node.parts
        return lambda *given: self.value(body, {**local, **dict(zip(names, given, strict=False))})

    def _ternary(self, node: Node, local: Mapping[str, Any]) -> Any:
        condition, yes, no = node.parts
        return self.value(yes if self.value(condition, local) else no, local)

    def _unary(self, node: Node, local: Mapping[str, Any]) -> Any:
        value = self.value(node.parts[1], local)
        return not value if node.parts[0] == "!" else -value

    def _binary(self, node: Node, local: Mapping[str, Any]) -> Any:
        operator, left_node, right_node = node.parts
        left = self.value(left_node, local)
        match operator:
            case "??":
                return self.value(right_node, local) if left is None else left
            case "&&":
                return bool(left and self.value(right_node, local))
            case "||":
                return bool(left or self.value(right_node, local))
        return _OPERATORS[operator](left, self.value(right_node, local))

    def _member(self, node: Node, local: Mapping[str, Any]) -> Any:
        return _read(self.value(node.parts[0], local), self.value(node.parts[1], local))

    def _safe_member(self, node: Node, local: Mapping[str, Any]) -> Any:
        of, key = self.value(node.parts[0], local), self.value(node.parts[1], local)
        if of is None or isinstance(of, _Absent) or (isinstance(of, dict) and key not in of):
            return None
        return None if isinstance(of, list) and not -len(of) <= key < len(of) else _read(of, key)

    def _nested(self, node: Node, local: Mapping[str, Any]) -> Any:
        outer, inner = node.parts
        return self.symbol(f"{self._symbol_of(outer)}::{inner.parts[0]}")

    def _symbol_of(self, node: Node) -> str:
        if node.kind == "nested":
            return f"{self._symbol_of(node.parts[0])}::{node.parts[1].parts[0]}"
        return self._resolve(node.parts[0])

    def _method(self, node: Node, local: Mapping[str, Any]) -> Any:
        of, name, *arguments = node.parts
        if of.kind == "name" and of.parts[0] in ("az", "sys"):
            return self._call(Node("call", (name, *arguments), node.line), local)
        target = self.value(of, local)
        if isinstance(target, Resource) and name.startswith("list"):
            return Runtime.of(target, f"{name}()")
        raise BicepError(f"{self.file.name} line {node.line}: {name}() is not understood here")

    def _call(self, node: Node, local: Mapping[str, Any]) -> Any:
        name, *nodes = node.parts
        arguments = [self.value(argument, local) for argument in nodes]
        if name in self._symbols and self._symbols[name].kind == "func":
            return self.symbol(name)(*arguments)
        if name.startswith("load"):
            return self._load(name, *arguments)
        if name == "resourceId":
            return f"{self.scope}{_resource_id(*arguments)}"
        if name == "resourceGroup":
            return Group(str(arguments[-1]) if arguments else self.scope.rpartition("/")[2])
        if name not in self._functions:
            raise BicepError(f"{self.file.name} line {node.line}: {name}() is not understood here")
        return self._functions[name](*arguments)

    def _load(self, function: str, path: str, query: str | None = None) -> Any:
        text = (self.file.parent / path).read_text(encoding="utf-8")
        if function == "loadTextContent":
            return text
        content = yaml.safe_load(text) if function == "loadYamlContent" else json.loads(text)
        for part in (query or "").removeprefix("$").strip(".").split("."):
            content = content[part] if part else content
        return content


def _ids(value: Any) -> set[str]:
    """What a deployment waits for where the value is read. An existing resource is not waited for."""
    if isinstance(value, Resource):
        return set() if value.existing else {value.id}
    if isinstance(value, Deployed):
        return {resource.id for resource in value.created}
    return set().union(*map(_ids, value)) if isinstance(value, list) else set()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return str(value)


def _read(of: Any, key: Any) -> Any:
    """`of.key` or `of[key]`. Of a resource: its id, name and type are known before deployment, the rest is not."""
    if isinstance(of, Resource):
        if key in ("id", "type"):
            return getattr(of, key)
        if key == "name":
            return of.name.rpartition("/")[2]
        return of.body[key] if key in ("location", "tags", "kind") and key in of.body else Runtime.of(of, key)
    if isinstance(of, Group):
        return {"id": of.id, "name": of.name, "location": _LOCATION}[key]
    if isinstance(of, Runtime):
        return of.member(key)
    return of[key]


def _unique(*values: Any) -> str:
    return hashlib.sha256("/".join(map(str, values)).encode()).hexdigest()[:13]


def _union(*values: Any) -> Any:
    if isinstance(values[0], dict):
        merged: dict[str, Any] = {}
        for value in values:
            for key, member in value.items():
                both = isinstance(member, dict) and isinstance(merged.get(key), dict)
                merged[key] = _union(merged[key], member) if both else member
        return merged
    kept: list[Any] = []
    for member in (member for value in values for member in value):
        if member not in kept:
            kept.append(member)
    return kept


def _items(of: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": of[key]} for key in sorted(of)]


def _to_object(values: list[Any], key: Callable[[Any], str], value: Callable[[Any], Any] | None = None) -> Any:
    return {key(element): value(element) if value else element for element in values}


def _format(pattern: str, *values: Any) -> str:
    return pattern.format(*map(_text, values))


def _cidr_subnet(network: str, prefix: int, index: int) -> str:
    return str(list(ipaddress.ip_network(network).subnets(new_prefix=prefix))[index])


def _resource_id(*parts: str) -> str:
    """`/providers/<type and names>`, which stands behind the id of a scope."""
    kind, *names = parts
    namespace, *kinds = kind.split("/")
    path = "/".join(f"{k}/{n}" for k, n in zip(kinds, names, strict=True))
    return f"/providers/{namespace}/{path}"


def _fail(message: str) -> Any:
    raise BicepError(message)


def _contains(of: Any, what: Any) -> bool:
    return what in of


def _reduce(values: list[Any], start: Any, step: Callable[[Any, Any], Any]) -> Any:
    for value in values:
        start = step(start, value)
    return start


def _sort(values: list[Any], before: Callable[[Any, Any], bool]) -> list[Any]:
    return sorted(values, key=functools.cmp_to_key(lambda a, b: -1 if before(a, b) else 1))


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "=~": lambda a, b: str(a).lower() == str(b).lower(),
    "!~": lambda a, b: str(a).lower() != str(b).lower(),
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "any": lambda value: value,
    "array": lambda value: value if isinstance(value, list) else [value],
    "bool": lambda value: str(value).lower() == "true",
    "cidrSubnet": _cidr_subnet,
    "coalesce": lambda *values: next((v for v in values if v is not None), None),
    "concat": lambda *values: [m for v in values for m in v] if isinstance(values[0], list) else "".join(values),
    "contains": _contains,
    "dateTimeAdd": lambda start, duration: f"{start}+{duration}",
    "deployer": lambda: {"objectId": "00000000-0000-4000-8000-00000000000d", "tenantId": TENANT},
    "empty": lambda value: not value,
    "endsWith": lambda text, end: text.lower().endswith(end.lower()),
    "environment": lambda: {"suffixes": _SUFFIXES, "authentication": {"loginEndpoint": _LOGIN}},
    "fail": _fail,
    "filter": lambda values, keep: [value for value in values if keep(value)],
    "first": lambda values: values[0] if values else None,
    "flatten": lambda values: [member for value in values for member in value],
    "format": _format,
    "guid": lambda *values: str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, values)))),
    "int": int,
    "items": _items,
    "join": lambda values, separator: separator.join(map(_text, values)),
    "json": json.loads,
    "last": lambda values: values[-1] if values else None,
    "length": len,
    "map": lambda values, to: [to(value) for value in values],
    "mapValues": lambda of, to: {key: to(value) for key, value in of.items()},
    "max": lambda *values: max(values[0] if isinstance(values[0], list) else values),
    "min": lambda *values: min(values[0] if isinstance(values[0], list) else values),
    "newGuid": lambda: str(uuid.UUID(int=7)),
    "objectKeys": sorted,
    "parseCidr": lambda network: {"cidr": ipaddress.ip_network(network).prefixlen},
    "range": lambda start, count: list(range(start, start + count)),
    "readEnvironmentVariable": lambda name, default="": default,
    "reduce": _reduce,
    "replace": lambda text, old, new: text.replace(old, new),
    "sort": _sort,
    "split": lambda text, separator: text.split(separator),
    "startsWith": lambda text, start: text.lower().startswith(start.lower()),
    "string": _text,
    "subscription": lambda: {
        "id": f"/subscriptions/{SUBSCRIPTION}",
        "subscriptionId": SUBSCRIPTION,
        "tenantId": TENANT,
    },
    "subscriptionResourceId": lambda *parts: f"/subscriptions/{SUBSCRIPTION}{_resource_id(*parts)}",
    "substring": lambda text, start, length=None: text[start : None if length is None else start + length],
    "take": lambda value, count: value[:count],
    "skip": lambda value, count: value[count:],
    "tenant": lambda: {"tenantId": TENANT},
    "tenantResourceId": _resource_id,
    "toLower": lambda text: text.lower(),
    "toObject": _to_object,
    "toUpper": lambda text: text.upper(),
    "trim": lambda text: text.strip(),
    "union": _union,
    "uniqueString": _unique,
    "utcNow": lambda pattern="": "2026-01-01T00:00:00Z",
}
