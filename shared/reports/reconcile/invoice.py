"""One row of a Cost Management export in the FOCUS format, as far as a reconciliation reads it. Pure.

Column names are those of Microsoft's dataset "cost and usage details (FOCUS)", versions 1.0, 1.0r2 and 1.2-preview
(learn.microsoft.com/azure/cost-management-billing/dataset-schema/cost-usage-details-focus): 1.2-preview renames
`x_SkuMeterName` to `SkuMeter`, 1.0r2 adds seconds to the dates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Literal

import msgspec

REQUIRED = ("BilledCost", "BillingCurrency", "ChargeCategory", "ChargePeriodStart", "ResourceId", "ServiceName")
METER_COLUMNS = ("SkuMeter", "x_SkuMeterName")  # 1.2-preview, 1.0; one of them must be there
OPTIONAL = ("ConsumedQuantity", "x_SkuMeterCategory")
COLUMNS = (*REQUIRED, *METER_COLUMNS, *OPTIONAL)
ATTO = 10**18
ATTO_PER_NANO = 10**9
_MAX_COST = 10**9
_EXACT = Context(prec=64)  # the default rounds to 28 digits in silence
_ACCOUNTS = "/providers/microsoft.cognitiveservices/accounts/"
Category = Literal["Usage", "Purchase", "Tax", "Credit", "Adjustment"]
_CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")


class NotFocusError(ValueError):
    """A file or row that is not of the format; the message names the column."""


class InvoiceRow(msgspec.Struct, frozen=True):
    """One charge. `cost_atto` is in 10^-18 of the currency: exports carry more decimals than any ledger."""

    day: date  # UTC
    category: Category
    currency: str
    cost_atto: int
    account: str  # ARM id of the AI account in lower case; empty for any other resource
    meter: str
    service: str
    quantity: Decimal | None = None


def reader(header: Sequence[str]) -> Callable[[Sequence[Any]], InvoiceRow]:
    """A function from the cells of a row to the row. Raises NotFocusError when a column is missing."""
    places = {name: i for i, name in enumerate(header)}
    missing = [name for name in REQUIRED if name not in places]
    meters = [places[name] for name in METER_COLUMNS if name in places]
    if missing or not meters:
        wanted = ", ".join(missing or METER_COLUMNS[:1])
        raise NotFocusError(f"column {wanted} is missing: export the dataset `Cost and usage details (FOCUS)`")
    wanted_places = {name: places[name] for name in (*REQUIRED, *OPTIONAL) if name in places}

    def read(cells: Sequence[Any]) -> InvoiceRow:
        values = {name: cells[i] for name, i in wanted_places.items()}
        meter = next((str(cells[i]) for i in meters if cells[i]), "")
        return _row(values, meter)

    return read


def _row(values: Mapping[str, Any], meter: str) -> InvoiceRow:
    category = str(values["ChargeCategory"] or "")
    if category not in _CATEGORIES:
        raise NotFocusError(f"ChargeCategory: {category[:40]!r} is none of {', '.join(_CATEGORIES)}")
    quantity = values.get("ConsumedQuantity")
    return InvoiceRow(
        day=_day(values["ChargePeriodStart"]),
        category=category,  # type: ignore[arg-type]
        currency=str(values["BillingCurrency"] or ""),
        cost_atto=_atto(values["BilledCost"]),
        account=_account(str(values["ResourceId"] or "")),
        meter=meter.strip(),
        service=str(values["ServiceName"] or values.get("x_SkuMeterCategory") or ""),
        quantity=None if quantity in (None, "") else _decimal("ConsumedQuantity", quantity),
    )


@lru_cache(maxsize=65_536)
def _account(resource_id: str) -> str:
    """The AI account that a resource id is, or lies in; empty for what is none."""
    lower = resource_id.lower()
    at = lower.find(_ACCOUNTS)
    if at < 0:
        return ""
    name = lower[at + len(_ACCOUNTS) :].split("/", 1)[0]
    return lower[: at + len(_ACCOUNTS)] + name


@lru_cache(maxsize=4_096)  # an export has some thirty days, on every row one
def _day(value: Any) -> date:
    """CSV writes `2026-10-01T00:00Z`, with seconds from 1.0r2 on; Parquet holds instants, without a zone in UTC."""
    if isinstance(value, datetime):
        instant = value
    else:
        try:
            instant = datetime.fromisoformat(str(value).strip())
        except ValueError:
            raise NotFocusError(f"ChargePeriodStart: {str(value)[:40]!r} is not an instant") from None
    return (instant if instant.tzinfo is None else instant.astimezone(UTC)).date()


def _atto(value: Any) -> int:
    cost = _decimal("BilledCost", value)
    if abs(cost) >= _MAX_COST:
        raise NotFocusError(f"BilledCost: {cost} is beyond any invoice row")
    return int(_EXACT.multiply(cost, ATTO).to_integral_value(context=_EXACT))


def _decimal(column: str, value: Any) -> Decimal:
    """Exact for text; Parquet's doubles go through their shortest text, which is what the CSV would show."""
    try:
        found = Decimal(str(value).strip())
    except InvalidOperation:
        raise NotFocusError(f"{column}: {str(value)[:40]!r} is not a number") from None
    if not found.is_finite():
        raise NotFocusError(f"{column}: {value!r} is not a number")
    return found


def nano_from_atto(amount_atto: int) -> int:
    """An amount in nano units, rounded half away from zero."""
    whole = (abs(amount_atto) + ATTO_PER_NANO // 2) // ATTO_PER_NANO
    return whole if amount_atto >= 0 else -whole
