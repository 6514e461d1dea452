"""What a source says about one price, before it becomes a catalog entry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal

from shared.pricing.catalog import UNDATED

PICO_PER_USD = 10**12


class NotWholePicoError(ValueError):
    """A unit price finer than one pico-USD per token: it cannot be stored exactly, so it is not stored."""


@dataclass(frozen=True)
class Quote:
    """What one model costs on one deployment type and processing tier from a date on, in pico-USD per token."""

    provider: str
    model: str
    deployment_type: str
    processing_tier: str
    unit_pico: dict[str, int]
    source: str
    bands: dict[int, dict[str, int]] = field(default_factory=dict)  # above_tokens -> token kind -> pico-USD per token
    effective_from: date = UNDATED

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Provider, model, deployment type, processing tier: what a catalog entry is looked up by."""
        return self.provider, self.model, self.deployment_type, self.processing_tier

    @property
    def prices(self) -> tuple[dict[str, int], dict[int, dict[str, int]]]:
        """What the quote charges, to compare two quotes by."""
        return self.unit_pico, self.bands

    def starting(self, effective_from: date) -> Quote:
        """The same prices from another date on."""
        return replace(self, effective_from=effective_from)


def pico(usd_per_token: Decimal) -> int:
    """Exact pico-USD per token. Raises NotWholePicoError rather than round, ValueError for a negative price."""
    exact = usd_per_token * PICO_PER_USD
    if exact != exact.to_integral_value():
        raise NotWholePicoError(f"{usd_per_token} USD per token is finer than one pico-USD")
    if exact < 0:
        raise ValueError(f"{usd_per_token} USD per token is negative")
    return int(exact)
