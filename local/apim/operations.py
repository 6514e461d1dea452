"""The API's operations, read from its OpenAPI document, and which of them a request matches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from local.apim.errors import PolicyError

API_ID = "openai"
API_PATH = "/openai"
_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
_PARAMETER = re.compile(r"\{([A-Za-z0-9_-]+)\}")
_LLM_PATH = re.compile(r"/(chat/completions|responses|embeddings|completions)$")


@dataclass(frozen=True)
class Operation:
    """One operation: how it is called and what it is called."""

    id: str
    name: str
    method: str
    template: str  # /deployments/{deployment-id}/chat/completions

    @property
    def is_llm(self) -> bool:
        """True when API Management's LLM log covers it."""
        return self.method == "POST" and _LLM_PATH.search(self.template) is not None


@dataclass(frozen=True)
class Match:
    """A request's operation and the parameters of its path."""

    operation: Operation
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Api:
    """The API: its operations below one path prefix."""

    name: str
    operations: tuple[Operation, ...]
    path: str = API_PATH
    id: str = API_ID

    def relative(self, path: str) -> str | None:
        """The path below the API's own; None when it belongs to no API."""
        if path == self.path or path.startswith(f"{self.path}/"):
            return path[len(self.path) :] or "/"
        return None

    def match(self, method: str, relative_path: str) -> Match | None:
        """The operation of a request. Literal segments win over parameters, and both over `/*`, as at Azure."""
        found = []
        for operation in self.operations:
            if operation.method == method and (match := _pattern(operation.template).fullmatch(relative_path)):
                names = _PARAMETER.findall(operation.template)
                parameters = {name: unquote(value) for name, value in zip(names, match.groups(), strict=True)}
                found.append((operation.template.endswith("/*"), len(names), Match(operation, parameters)))
        return min(found, key=lambda each: each[:2])[2] if found else None


def read_api(path: Path) -> Api:
    """The API of an OpenAPI document. Raises PolicyError."""
    try:
        document: dict[str, Any] = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise PolicyError(path.name, f"cannot be read: {error}") from None
    operations = tuple(
        Operation(
            id=operation.get("operationId") or f"{method}-{template}",
            name=operation.get("summary") or operation.get("operationId") or template,
            method=method.upper(),
            template=template,
        )
        for template, item in document.get("paths", {}).items()
        for method, operation in item.items()
        if method in _METHODS
    )
    if not operations:
        raise PolicyError(path.name, "lists no operation")
    return Api(document.get("info", {}).get("title", API_ID), operations)


def _pattern(template: str) -> re.Pattern[str]:
    pieces = _PARAMETER.split(template.removesuffix("*"))
    pattern = "".join(re.escape(piece) if index % 2 == 0 else "([^/]+)" for index, piece in enumerate(pieces))
    return re.compile(pattern + ".*" if template.endswith("/*") else pattern)
