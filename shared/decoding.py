"""What msgspec says about JSON that does not have the expected shape, as a field and what is wrong with it."""

from __future__ import annotations

import re

import msgspec

_MISSING_FIELD = re.compile(r"Object missing required field `(.*)`")


def field_and_problem(error: msgspec.ValidationError) -> tuple[str, str]:
    """``Expected `int` - at `$.data.attempt` `` as `data.attempt` and the rest; the field of the whole is empty."""
    problem, _, where = str(error).rpartition(" - at `$")
    if not problem:
        problem, where = where, ""
    field = where.rstrip("`").lstrip(".")
    if missing := _MISSING_FIELD.fullmatch(problem):
        return f"{field}.{missing[1]}".lstrip("."), "required, but missing"
    return field, problem
