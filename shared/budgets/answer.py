"""The answer of a budget check: the JSON body, the HTTP status and the headers the caller's client may see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

from shared.budgets.cells import Cell
from shared.budgets.periods import Period
from shared.budgets.rules import BudgetFigures, State
from shared.errors import BudgetExhausted, BudgetReserved, TollkeeperError
from shared.instants import rfc3339
from shared.money import decimal_from_nano
from shared.routing.route import Route

RESERVED_RETRY_SECONDS = 1
_LONGEST_RETRY_SECONDS = 31 * 24 * 3600


class CheckAnswer(msgspec.Struct, kw_only=True):
    """What the caller should do with the call. `error` is set on a refusal."""

    decision: str  # allow, downgrade, refuse
    reason: str
    tenant: str
    scopes: dict[str, str]
    requested_model: str
    model: str
    provider: str  # of the deployment that serves `model`
    deployment: str
    state: State
    disabled_tools: list[str]
    budget: dict[str, Any] | None
    admitted_at_utc: datetime
    reservation: str | None = None
    cache_seconds: int = 0
    observed: dict[str, str] | None = None  # in observe mode: what enforcement would have done
    error: TollkeeperError | None = None
    routing: Route | None = None  # how the model was chosen, when the caller left the choice
    estimate_nano_usd: int | None = None  # of the model that serves, or that was refused; never told to the caller

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return self.error.http_status if self.error else 200

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of the contract; on a refusal with OpenAI's `error` object beside it."""
        body: dict[str, Any] = {
            "decision": self.decision,
            "reason": self.reason,
            "state": self.state,
            "tenant": self.tenant,
            "scopes": self.scopes,
            "requested_model": self.requested_model,
            "model": self.model,
            "provider": self.provider,
            "deployment": self.deployment,
            "disabled_tools": self.disabled_tools,
            "budget": self.budget,
            "admitted_at": rfc3339(self.admitted_at_utc),
            "reservation": self.reservation,
            "cache_seconds": self.cache_seconds,
        }
        if self.observed is not None:
            body["observed"] = self.observed
        if self.routing is not None:
            body["routing"] = self.routing.body()
        return body if self.error is None else {**self.error.body(), **body}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the contract. They name the binding budget only: never another scope's figures."""
        headers: dict[str, str] = {"x-budget-state": self.state}
        if self.budget is not None:
            headers["x-budget-remaining"] = self.budget["remaining"]
            headers["x-budget-scope"] = header_text(self.budget["scope"])
            if self.budget["resets_at"] is not None:
                headers["x-budget-resets-at"] = self.budget["resets_at"]
        if self.model != self.requested_model and self.error is None:
            headers["x-requested-model"] = header_text(self.requested_model)
            headers["x-served-model"] = header_text(self.model)
        if self.error is not None:
            headers.update(self.error.headers())
            if isinstance(self.error, BudgetExhausted):
                headers["x-should-retry"] = "false"  # OpenAI SDKs would otherwise retry a 429
        return headers


def header_text(value: str) -> str:
    """A value that is safe in an HTTP header: percent-encoded where it is no printable ASCII, and a space at its ends.

    HTTP forbids a header value to begin or end with a space; a server that finds one drops the whole answer.
    """
    text = quote(value, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    inner = text.strip(" ")
    if inner == text:
        return text
    before = len(text) - len(text.lstrip(" "))
    return "%20" * before + inner + "%20" * (len(text) - before - len(inner))


def budget_view(cell: Cell, figures: BudgetFigures) -> dict[str, Any]:
    """One budget as the contract shows it; amounts as decimal strings in USD."""
    return {
        "id": figures.budget.id,
        "scope": cell.scope,
        "period": cell.period.label,
        "limit": decimal_from_nano(figures.limit_nano_usd + figures.carry_nano_usd),
        "spent": decimal_from_nano(figures.spent_nano_usd),
        "reserved": decimal_from_nano(figures.held_nano_usd),
        "remaining": decimal_from_nano(figures.remaining_nano_usd),
        "currency": "USD",
        "resets_at": _resets_at(cell.period),
    }


@lru_cache(maxsize=1024)
def _resets_at(period: Period) -> str | None:
    resets_at = period.resets_at_utc
    return None if resets_at is None else rfc3339(resets_at, "seconds")


def most_restrictive(rows: Sequence[BudgetFigures]) -> int | None:
    """The number of the budget that binds: the least remaining, by share of its limit when amounts tie."""
    if not rows:
        return None
    return min(range(len(rows)), key=lambda i: (rows[i].remaining_nano_usd, -rows[i].limit_nano_usd))


def refusal(
    outcome: str, row: BudgetFigures, cell: Cell, exhausted_status: int, now_utc: datetime
) -> BudgetExhausted | BudgetReserved:
    """The error of a refusal. A spent budget asks not to retry; one that is only held asks to retry shortly."""
    scope, period = cell.scope, cell.period.label
    if outcome == "reserved":
        return BudgetReserved(
            f"Budget {scope} ({period}) is held by calls in flight: {decimal_from_nano(row.remaining_nano_usd)} USD of "
            f"{decimal_from_nano(row.limit_nano_usd + row.carry_nano_usd)} is free. Retry shortly.",
            retry_after_seconds=RESERVED_RETRY_SECONDS,
        )
    resets_at = cell.period.resets_at_utc
    until = "never resets" if resets_at is None else f"resets at {rfc3339(resets_at, 'seconds')}"
    limit = decimal_from_nano(row.limit_nano_usd + row.carry_nano_usd)
    left_nano_usd = row.threshold_nano_usd(row.budget.stop_ppm) - row.spent_nano_usd
    if left_nano_usd > 0:  # "is spent" would send people looking for spend that is not there
        left = decimal_from_nano(left_nano_usd)
        why = f"has {left} USD of {limit} left, less than this call is estimated to cost"
    else:
        why = f"is spent: {decimal_from_nano(row.spent_nano_usd)} USD of {limit}"
    error = BudgetExhausted(f"Budget {scope} ({period}) {why}; it {until}.")
    if exhausted_status == 429:
        wait = _LONGEST_RETRY_SECONDS if resets_at is None else (resets_at - now_utc).total_seconds()
        error.http_status = 429
        error.retry_after_seconds = max(1, min(_LONGEST_RETRY_SECONDS, int(wait) + 1))
    return error
