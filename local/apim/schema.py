"""What an element may hold and where it may stand, as API Management's policy reference says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from local.apim.call import Call
    from local.apim.document import Node

SECTIONS = ("inbound", "backend", "outbound", "on-error")
ALL_SECTIONS = frozenset(SECTIONS)

Run = Callable[["Call", "Node"], Awaitable[None]]


@dataclass(frozen=True)
class Attribute:
    """One attribute: whether it must be there, may be an expression, and which literal values it takes."""

    required: bool = False
    expression: bool = True
    kind: Literal["text", "boolean", "integer", "number"] = "text"
    choices: frozenset[str] = frozenset()
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Children:
    """Sub-elements of one name: what they hold and how many there may be."""

    element: Element
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Element:
    """An element's form. `policies` means that its children are policies of the section it stands in."""

    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    children: Mapping[str, Children] = field(default_factory=dict)
    policies: bool = False
    text: Literal["none", "optional", "required"] = "none"
    text_expression: bool = True


@dataclass(frozen=True)
class Policy:
    """An element that is executed: its form, the sections it may stand in, and what it does."""

    name: str
    sections: frozenset[str]
    form: Element
    run: Run


def needs(kind: Literal["text", "boolean", "integer", "number"] = "text", **options: object) -> Attribute:
    """A required attribute."""
    return Attribute(required=True, kind=kind, **options)  # type: ignore[arg-type]


def literal(
    kind: Literal["text", "boolean", "integer", "number"] = "text",
    *,
    required: bool = False,
    choices: frozenset[str] = frozenset(),
) -> Attribute:
    """An attribute that takes no expression."""
    return Attribute(required=required, expression=False, kind=kind, choices=choices)
