"""Policy files -> a checked policy whose expressions are compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local.apim.coverage import Coverage
from local.apim.document import MAX_DOCUMENT_BYTES, MAX_FRAGMENT_BYTES, NamedValues, Node, Value, read_document
from local.apim.errors import PolicyError
from local.apim.expressions import Compiled, Expression, compile_expressions
from local.apim.operations import Api, read_api
from local.apim.schema import SECTIONS
from local.apim.validate import check_fragment, check_section

_HOLDS_POLICIES = ("when", "otherwise", "retry")
_CONDITIONS = ("condition", "first-fast-retry", "estimate-prompt-tokens")  # what must be a C# bool


@dataclass(frozen=True)
class LoadedPolicy:
    """An API with its policy document, ready to run."""

    api: Api
    sections: Mapping[str, Node]
    fragments: Mapping[str, Node]
    compiled: Compiled | None  # None for a document without an expression

    def declare(self, coverage: Coverage) -> None:
        """Tell the recorder every place that a complete test run executes."""
        for root in (*self.sections.values(), *self.fragments.values()):
            for parent in root.walk():
                for node in parent.children:
                    _declare(node, coverage, runs=parent is root or parent.name in _HOLDS_POLICIES)


def load_policy(directory: Path, overrides: Mapping[str, str]) -> LoadedPolicy:
    """Read, check and compile the policy in `directory`. Raises PolicyError naming file and line."""
    defaults = _defaults(directory / "named-values.yaml")
    if unknown := sorted(set(overrides) - set(defaults)):
        raise PolicyError("named-values.yaml", f"lists no named value {unknown[0]!r}")
    given = {**defaults, **overrides}
    named_values = NamedValues({name: value for name, value in given.items() if value is not None})
    sections = {}
    for section in SECTIONS:
        path = directory / f"{section}-policy.xml"
        if path.exists():
            sections[section] = _read(path, directory, named_values, section, MAX_DOCUMENT_BYTES)
    if not sections:
        raise PolicyError(str(directory), "holds no policy")
    if sum((directory / f"{section}-policy.xml").stat().st_size for section in sections) > MAX_DOCUMENT_BYTES:
        raise PolicyError(str(directory), "the four sections together are over the limit of 256 KiB")
    fragments = {
        path.stem: _read(path, directory, named_values, "fragment", MAX_FRAGMENT_BYTES)
        for path in sorted((directory / "fragments").glob("*.xml"))
    }
    included: set[str] = set()
    for section, root in sections.items():
        check_section(root, section)
        for node in root.walk():
            if node.name == "include-fragment":
                name = node.attributes["fragment-id"].text
                if name not in fragments:
                    raise PolicyError(node.where, f"there is no fragment {name!r}")
                check_fragment(fragments[name], section)
                included.add(name)
    if unused := sorted(set(fragments) - included):
        raise PolicyError(fragments[unused[0]].where, "is included nowhere")
    compiled = _compile([*sections.values(), *fragments.values()])
    return LoadedPolicy(read_api(directory / "openai-api.yaml"), sections, fragments, compiled)


def _read(path: Path, directory: Path, named_values: NamedValues, root_name: str, limit_bytes: int) -> Node:
    root = read_document(path, str(path.relative_to(directory)), named_values, limit_bytes=limit_bytes)
    if root.name != root_name:
        raise PolicyError(root.where, f"the root element must be <{root_name}>")
    if root.attributes or root.text:
        raise PolicyError(root.where, "takes neither attributes nor text")
    return root


def _compile(roots: list[Node]) -> Compiled | None:
    expressions: list[Expression] = []
    for name, value in _expressions(roots):
        value.expression_id = len(expressions)
        expressions.append(Expression(value.text, value.where, "bool" if name in _CONDITIONS else "object"))
    return compile_expressions(expressions) if expressions else None


def _expressions(roots: list[Node]) -> Iterator[tuple[str, Value]]:
    for root in roots:
        for node in root.walk():
            yield from ((name, value) for name, value in node.values() if value.is_expression)


def _defaults(path: Path) -> dict[str, str | None]:
    if not path.exists():
        return {}
    listed: list[dict[str, Any]] = yaml.safe_load(path.read_text()) or []
    return {entry["name"]: None if entry.get("default") is None else str(entry["default"]) for entry in listed}


def _declare(node: Node, coverage: Coverage, *, runs: bool) -> None:
    if node.name == "base":
        return  # the outer scopes hold nothing here
    if runs or node.name in ("when", "otherwise"):
        coverage.expect(node.key, f"{node.where} was never executed")
    for name, value in node.values():
        if not value.is_expression:
            continue
        if name == "condition":
            for outcome in ("true", "false"):
                coverage.expect(f"{node.key}:{outcome}", f"{value.where} was never {outcome}")
        else:
            coverage.expect(f"{node.key}:{name}", f"{value.where} was never evaluated")
    if node.name == "choose" and node.child("otherwise") is None:
        coverage.expect(f"{node.key}:none", f"{node.where} never fell through")
