"""`POST /route`: which model a call should use, and why. Nothing is called and nothing held."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.answers import Caller
from gateway.call import Operation, call_of, read_object
from gateway.media import may_hold_media
from gateway.needs import capabilities_needed
from shared.budgets.request import CheckRequest, resolve_caller
from shared.budgets.routed import AUTO, RouteQuestion, answer_route
from shared.decoding import field_and_problem
from shared.errors import InvalidRequest

if TYPE_CHECKING:
    from shared.budgets.snapshot import Snapshot

_BESIDE_A_CALL = ("capabilities", "region", "data_zone")  # what may be asked for that no call says itself


def route(raw: bytes, caller: Caller, snapshot: Snapshot) -> dict[str, Any]:
    """The answer to a question, or to the body of a chat completion or a response, whose needs are then read from it.

    Tenant and scopes are the caller's own. Raises InvalidRequest naming the field, NotFound `model_unknown`.
    """
    body = read_object(raw)
    check = CheckRequest(model=AUTO, identity=dict(caller.identity), scopes=dict(caller.scopes))
    tenant, scopes = resolve_caller(check, snapshot.config)
    question = _question(body, raw)
    question.tenant, question.scopes = tenant.id, scopes
    question.region = question.region or caller.bounds.region
    question.data_zone = question.data_zone or caller.bounds.data_zone
    return answer_route(question, snapshot, datetime.now(UTC)).body()


def _question(body: dict[str, Any], raw: bytes) -> RouteQuestion:
    operation: Operation | None = "chat" if "messages" in body else "responses" if "input" in body else None
    if operation is None:
        question = _asked(body)
        if question.model is None and not question.capabilities:
            question.capabilities = ["chat"]
        return question
    call = call_of(operation, {"model": AUTO, **body}, len(raw), has_media=may_hold_media(raw))
    question = _asked({name: body[name] for name in _BESIDE_A_CALL if name in body})
    question.model, question.operation = None if call.model == AUTO else call.model, operation
    question.capabilities = sorted({*question.capabilities, *capabilities_needed(call)})
    question.input_tokens, question.max_output_tokens = call.input_tokens, call.max_output_tokens
    question.choices, question.service_tier = call.choices, call.service_tier
    return question


def _asked(fields: dict[str, Any]) -> RouteQuestion:
    """The question that the fields ask. Raises InvalidRequest naming the field."""
    try:
        return msgspec.convert(fields, RouteQuestion)
    except msgspec.ValidationError as error:
        field, problem = field_and_problem(error)
        raise InvalidRequest(f"{field}: {problem}" if field else problem, param=field) from None
