"""rate-limit-by-key and llm-token-limit: counters of this one gateway."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from local.apim.call import Call
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.messages import json_object
from local.apim.schema import Attribute, Element, Policy, literal, needs

MINUTE_SECONDS = 60.0
CHARACTERS_PER_TOKEN = 4
_PERIODS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "Hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "Daily": lambda at: (at.year, at.month, at.day),
    "Weekly": lambda at: tuple(at.isocalendar()[:2]),
    "Monthly": lambda at: (at.year, at.month),
    "Yearly": lambda at: (at.year,),
}


@dataclass
class Window:
    """A sliding window of (monotonic time, amount)."""

    entries: deque[tuple[float, float]] = field(default_factory=deque)

    def total(self, now: float, seconds: float) -> float:
        """What was added in the last `seconds`."""
        while self.entries and self.entries[0][0] <= now - seconds:
            self.entries.popleft()
        return sum(amount for _, amount in self.entries)

    def wait_seconds(self, now: float, seconds: float) -> int:
        """How long until the oldest entry leaves the window."""
        return max(1, math.ceil(self.entries[0][0] + seconds - now)) if self.entries else 1


async def run_rate_limit(call: Call, node: Node) -> None:
    """Refuse with 429 when the key has had its calls."""
    calls, seconds = await call.number(node, "calls"), await call.number(node, "renewal-period")
    window = call.gateway.rate_windows.setdefault(await call.text(node, "counter-key"), Window())
    now = time.monotonic()
    used = window.total(now, seconds)
    if used >= calls:
        wait = window.wait_seconds(now, seconds)
        _set(call, node, "retry-after-variable-name", wait)
        raise CallFailed(
            "RateLimitExceeded",
            f"Rate limit is exceeded. Try again in {wait} seconds.",
            status=429,
            headers={await call.text(node, "retry-after-header-name", "Retry-After"): str(wait)},
        )
    amount = await call.number(node, "increment-count", 1)
    window.entries.append((now, amount))
    left = max(0, int(calls - used - amount))
    _set(call, node, "remaining-calls-variable-name", left)
    _head(call, node, "remaining-calls-header-name", left)
    _head(call, node, "total-calls-header-name", int(calls))


async def run_token_limit(call: Call, node: Node) -> None:
    """Refuse with 429 past the tokens of a minute, with 403 past a quota; the answer's own count follows later."""
    key = await call.text(node, "counter-key")
    per_minute, quota = await call.number(node, "tokens-per-minute"), await call.number(node, "token-quota")
    if not per_minute and not quota:
        raise CallFailed("InvalidTokenLimit", "neither tokens-per-minute nor token-quota is given")
    estimate = _estimate(call) if await call.boolean(node, "estimate-prompt-tokens") or _streams(call) else 0
    now, minute = time.monotonic(), call.gateway.token_windows.setdefault(key, Window())
    used = minute.total(now, MINUTE_SECONDS)
    if per_minute and (used >= per_minute or used + estimate > per_minute):
        wait = minute.wait_seconds(now, MINUTE_SECONDS)
        raise await _refusal(call, node, 429, f"Token limit is exceeded. Try again in {wait} seconds.", wait)
    period = await call.text(node, "token-quota-period")
    quota_key = (key, period, _PERIODS[period](datetime.now(UTC)) if quota else ())
    spent = call.gateway.token_quotas.get(quota_key, 0)
    if quota and (spent >= quota or spent + estimate > quota):
        raise await _refusal(call, node, 403, "Token quota is exceeded.", 3600)
    _set(call, node, "tokens-consumed-variable-name", estimate)
    _set(call, node, "remaining-tokens-variable-name", int(per_minute - used - estimate))
    _set(call, node, "remaining-quota-tokens-variable-name", int(quota - spent - estimate))
    if per_minute:
        _head(call, node, "remaining-tokens-header-name", int(per_minute - used - estimate))
    if quota:
        _head(call, node, "remaining-quota-tokens-header-name", int(quota - spent - estimate))

    def count(tokens: int) -> None:
        minute.entries.append((time.monotonic(), tokens or estimate))
        call.gateway.token_quotas[quota_key] = call.gateway.token_quotas.get(quota_key, 0) + (tokens or estimate)

    call.on_tokens.append(count)


async def _refusal(call: Call, node: Node, status: int, message: str, wait_seconds: int) -> CallFailed:
    _set(call, node, "retry-after-variable-name", wait_seconds)
    headers = {await call.text(node, "retry-after-header-name", "Retry-After"): str(wait_seconds)}
    reason = "TokenLimitExceeded" if status == 429 else "TokenQuotaExceeded"
    return CallFailed(reason, message, status=status, headers=headers)


def _set(call: Call, node: Node, attribute: str, value: int) -> None:
    if (name := node.attributes.get(attribute)) is not None:
        call.bridge.set_variable(name.text, value)


def _head(call: Call, node: Node, attribute: str, value: int) -> None:
    if (name := node.attributes.get(attribute)) is not None:
        call.late_headers[name.text] = str(value)


def _streams(call: Call) -> bool:
    return json_object(call.request.body).get("stream") is True


def _estimate(call: Call) -> int:
    body = json_object(call.request.body)
    prompt = {name: body[name] for name in ("messages", "input", "prompt", "instructions") if name in body}
    return math.ceil(len(json.dumps(prompt)) / CHARACTERS_PER_TOKEN) if prompt else 0


_RATE_LIMIT = Element(
    attributes={
        "calls": needs("integer", least=1),
        "renewal-period": needs("integer", least=1, most=300),
        "counter-key": needs(),
        "increment-count": Attribute(kind="integer", least=1),
        **{
            name: literal()
            for name in (
                "retry-after-header-name",
                "retry-after-variable-name",
                "remaining-calls-header-name",
                "remaining-calls-variable-name",
                "total-calls-header-name",
            )
        },
    }
)
_TOKEN_LIMIT = Element(
    attributes={
        "counter-key": needs(),
        "tokens-per-minute": Attribute(kind="integer", least=1),
        "token-quota": Attribute(kind="integer", least=1),
        "token-quota-period": Attribute(choices=frozenset(_PERIODS)),
        "estimate-prompt-tokens": needs("boolean"),
        **{
            name: literal()
            for name in (
                "retry-after-header-name",
                "retry-after-variable-name",
                "remaining-quota-tokens-header-name",
                "remaining-quota-tokens-variable-name",
                "remaining-tokens-header-name",
                "remaining-tokens-variable-name",
                "tokens-consumed-variable-name",
            )
        },
    }
)

POLICIES = (
    Policy("rate-limit-by-key", frozenset(("inbound",)), _RATE_LIMIT, run_rate_limit),
    Policy("llm-token-limit", frozenset(("inbound",)), _TOKEN_LIMIT, run_token_limit),
)
