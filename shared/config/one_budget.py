"""One budget from JSON, read by the very rules of budgets.yaml: same fields, same defaults, same problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.config.budgets_yaml import BUDGET_FIELDS, read_budget
from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.model import Budget, Config
from shared.config.problems import Place, Problems
from shared.config.yaml_lines import MAX_DEPTH, Value
from shared.errors import InvalidRequest

_FIELD = "budget"


def budget_from_json(config: Config, tenant: str, content: Mapping[str, Any]) -> Budget:
    """The budget that the fields mean in a tenant. Numbers may be texts, which keep every digit.

    Raises InvalidRequest naming every wrong field, with the first as `param`: `budget.limit`.
    """
    problems = Problems()
    draft = Draft(problems, tenants=dict(config.tenants), rates=list(config.rates), models=dict(config.models))
    read_budget(Section(_value(content, Place("", 0, ""), 1), BUDGET_FIELDS, problems), draft)
    if problems.found:
        found = [(f"{_FIELD}.{place.path}" if place.path else _FIELD, message) for place, message in problems.found]
        lines = "\n".join(f"{field}: {message}" for field, message in found)
        raise InvalidRequest(lines, param=found[0][0])
    (budget,) = draft.budgets
    if budget.tenant not in (None, tenant):
        raise InvalidRequest(f"{_FIELD}.tenant: is {budget.tenant!r}, the question is about {tenant!r}", param="budget")
    return budget


def _value(content: Any, place: Place, depth: int) -> Value:
    """JSON as the YAML reader would hand it over: every scalar is text."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"{_FIELD}: is nested more than {MAX_DEPTH} levels deep", param=_FIELD)
    if content is None or content == "":
        return Value(place, None)
    if isinstance(content, Mapping):
        return Value(place, {str(k): _value(v, place.inside(str(k), 0), depth + 1) for k, v in content.items()})
    if isinstance(content, list):
        return Value(place, [_value(item, place.item(i, 0), depth + 1) for i, item in enumerate(content)])
    return Value(place, str(content).lower() if isinstance(content, bool) else str(content).strip())
