"""Route templates of HTTP triggers: `teams/{team}/cost/{month:int?}` and `{*rest}`."""

from __future__ import annotations

import re

_SEGMENT = re.compile(r"\{(\*{0,2})(\w+)(?::(\w+)(?:\([^)]*\))?)?(\?)?\}")
_CONSTRAINTS = {
    "int": r"-?\d+",
    "long": r"-?\d+",
    "guid": r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}",
    "alpha": "[A-Za-z]+",
    "bool": "(?:true|false)",
}


def compile_route(template: str) -> re.Pattern[str]:
    """Pattern for a whole path, with a named group per parameter. Raises ValueError for an unsupported template."""
    pattern = ""
    for segment in template.strip("/").split("/"):
        match = _SEGMENT.fullmatch(segment)
        if match is None:
            if "{" in segment:
                raise ValueError(f"route {template!r}: the segment {segment!r} is not supported")
            pattern += "/" + re.escape(segment) if segment else ""
            continue
        stars, name, constraint, optional = match.groups()
        if constraint and constraint not in _CONSTRAINTS:
            raise ValueError(f"route {template!r}: the constraint {constraint!r} is not supported")
        if stars:
            pattern += f"(?:/(?P<{name}>.*))?"
        else:
            value = f"/(?P<{name}>{_CONSTRAINTS.get(constraint, '[^/]+')})"
            pattern += f"(?:{value})?" if optional else value
    return re.compile(f"^{pattern}/?$", re.IGNORECASE)


def specificity(template: str) -> tuple[int, ...]:
    """Sort key that puts literal segments before parameters and those before `{*rest}`: `a/b` wins over `a/{x}`."""
    segments = template.strip("/").split("/")
    return tuple(2 if segment.startswith("{*") else 1 if segment.startswith("{") else 0 for segment in segments)
