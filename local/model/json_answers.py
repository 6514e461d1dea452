"""The smallest JSON value that fits a JSON schema: how the simulated model answers who asks for structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEEPEST = 12  # a schema may name itself; below this its parts are left out or null
_SMALLEST: dict[str, Any] = {"string": "budget", "integer": 1, "number": 0.5, "boolean": True, "null": None}
_ANYTHING: Mapping[str, Any] = {"type": "object", "properties": {"answer": {"type": "string"}}}


def asked_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema that a chat (`response_format`) or Responses (`text.format`) body asks for; None when it asks none.

    For `json_object`, which names no schema, any object will do.
    """
    text = body.get("text")
    wanted = body.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_object":
        return _ANYTHING
    if wanted.get("type") != "json_schema":
        return None
    holder = wanted.get("json_schema")  # Responses have the schema beside the type, chat completions one level below
    schema = (holder if isinstance(holder, dict) else wanted).get("schema")
    return schema if isinstance(schema, dict) else _ANYTHING


def example_of(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """A value that fits `schema`. Knows what OpenAI's structured outputs allow: references, unions, enums, objects."""
    root = schema if root is None else root
    if depth > _DEEPEST:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return example_of(_find(root, reference), root, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if options := schema.get(name):
            best = next((option for option in options if option.get("type") != "null"), options[0])
            return example_of(best, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    return _of_type(schema, root, depth)


def _of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: example_of(part, root, depth + 1) for name, part in properties.items()}
    if kind == "array":
        count = max(1, int(schema.get("minItems") or 1)) if depth < _DEEPEST // 2 else int(schema.get("minItems") or 0)
        return [example_of(schema.get("items") or {}, root, depth + 1) for _ in range(count)]
    if kind in ("integer", "number") and isinstance(schema.get("minimum"), int | float):
        return schema["minimum"]
    return _SMALLEST.get(str(kind))


def _find(root: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """What `#/$defs/Name` points at; anything when it points at nothing."""
    found: Any = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(name) if name and isinstance(found, Mapping) else found
    return found if isinstance(found, Mapping) else _ANYTHING
