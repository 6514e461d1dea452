"""From a charge to a FOCUS row. One builder for every version and file type: they differ in columns, not in figures.

Numbers are exact Decimals, texts are the names as they are, what does not apply is None. Writers spell them out.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import lru_cache

import msgspec

from shared.money import NANO_PER_USD, scale_half_up
from shared.months import month_span
from shared.reports.charge import Allocation, Charge
from shared.reports.exact import plain, scaled
from shared.reports.statement import Statement

Cell = str | Decimal | datetime | None
Row = dict[str, Cell]

TOKENS = "Tokens"
MILLION_TOKENS = "1000000 Tokens"
DEFAULT_ISSUER = "Tollkeeper"
_PICO, _NANO, _MILLION = 12, 9, 6
_NOUGHT, _ONE = Decimal(0), Decimal(1)

# provider -> (whose machines serve, what the service is called)
_PROVIDERS = {
    "azure-openai": ("Microsoft", "Azure OpenAI"),
    "openai": ("OpenAI", "OpenAI API"),
    "anthropic": ("Anthropic", "Anthropic API"),
    "databricks": ("Databricks", "Databricks Foundation Model APIs"),
    "openrouter": ("OpenRouter", "OpenRouter"),
}
# token kind -> (direction, what the prompt cache did); FOCUS 1.5 is about to name these two
_KINDS = {
    "input": ("Input", "Uncached"),
    "cached_input": ("Input", "Read"),
    "cache_write": ("Input", "Write"),
    "cache_write_1h": ("Input", "Write"),
    "input_audio": ("Input", "Uncached"),
    "input_image": ("Input", "Uncached"),
    "output": ("Output", "Other"),
    "output_audio": ("Output", "Other"),
    "output_image": ("Output", "Other"),
}
_STATUS = {"priced": "Priced", "unpriced": "Unpriced", "none": None}
_CORRECTION = {"negative": "Negative", "new": "New", "adjustment": "Adjustment", "": None}
_FREQUENCY = {"Usage": "Usage-Based", "Purchase": "Recurring", "Tax": "Recurring"}
_encode = msgspec.json.Encoder(order="sorted").encode


class FocusRows:
    """Builds the rows of one statement."""

    def __init__(self, statement: Statement) -> None:
        start_utc, end_utc = month_span(statement.period)
        self._issuer = statement.issuer or DEFAULT_ISSUER
        self._currency = statement.currency
        self._usd_per_unit_nano = statement.rate.usd_per_unit_nano if statement.rate else NANO_PER_USD
        # What every row of the statement says; writers spell it once.
        self.constant: Row = {
            "BillingAccountId": statement.tenant,
            "BillingAccountName": statement.tenant,
            "BillingAccountType": "Tenant",
            "BillingCurrency": statement.currency,
            "BillingPeriodStart": start_utc,
            "BillingPeriodEnd": end_utc,
            "InvoiceId": statement.number,
            "InvoiceIssuerName": self._issuer,
            "PricingCurrency": "USD",
            # Who sells to the teams is who bills them; Microsoft and the like are hosts behind it.
            "ProviderName": self._issuer,
            "ServiceProviderName": self._issuer,
            "ServiceCategory": "AI and Machine Learning",
            "ServiceSubcategory": "Generative AI",
            "SubAccountType": "Team",
            "x_StatementStatus": statement.status.capitalize(),
        }

    def row(self, charge: Charge) -> Row:
        """The row of a charge; columns that are not in it are null."""
        return self.constant | self.varying(charge)

    def varying(self, charge: Charge) -> Row:
        """The row of a charge without what every row says."""
        host, service = _PROVIDERS.get(charge.provider) or (charge.provider or self._issuer,) * 2
        row: Row = {
            "ChargeCategory": charge.category,
            "ChargeClass": "Correction" if charge.correction else None,
            "ChargeDescription": charge.description,
            "ChargeFrequency": _FREQUENCY.get(charge.category, "One-Time"),
            "ChargePeriodStart": charge.starts_utc,
            "ChargePeriodEnd": charge.ends_utc,
            "BilledCost": scaled(charge.billed_pico, _PICO),
            "EffectiveCost": scaled(charge.effective_pico, _PICO),
            "ListCost": scaled(charge.list_cost_pico, _PICO),
            "ContractedCost": scaled(charge.contracted_cost_pico, _PICO),
            "PricingCurrencyEffectiveCost": scaled(self._effective_pico_usd(charge), _PICO),
            "HostProviderName": host,
            "PublisherName": host,
            "ServiceName": service,
            "SubAccountId": charge.team,
            "SubAccountName": charge.team,
            "Tags": _tags(charge.team, charge.cost_centre, charge.app),
            "x_AppId": charge.app or None,
            "x_CostCenter": charge.cost_centre or None,
            "x_Operation": charge.operation or None,
            "x_CorrectionType": _CORRECTION[charge.correction],
            "x_LedgerCostUSD": scaled(charge.ledger_nano_usd, _NANO),
            "x_PricingStatus": _STATUS[charge.pricing_status],
        }
        if charge.region:
            row["RegionId"] = row["RegionName"] = charge.region
        if charge.deployment:
            row["ResourceId"] = row["ResourceName"] = charge.deployment
            row["ResourceType"] = "Deployment"
        if charge.token_kind:
            self._price_tokens(row, charge)
        elif charge.category in ("Usage", "Purchase"):
            self._price_amount(row, charge)
        if charge.commitment_id:
            _commit(row, charge)
        if charge.allocation is not None:
            row["AllocatedMethodId"] = charge.allocation.method
            row["AllocatedMethodDetails"] = allocation_details(charge.allocation)
            row["AllocatedResourceId"] = row["AllocatedResourceName"] = charge.allocation.origin
        return row

    def _price_tokens(self, row: Row, charge: Charge) -> None:
        """What was used, by the million, at the price of that."""
        sku = f"{charge.provider}/{charge.model}/{charge.token_kind}"
        tokens = Decimal(charge.tokens)
        price_pico, list_pico = charge.price_pico, charge.list_price_pico
        row |= {
            "ConsumedQuantity": tokens,
            "ConsumedUnit": TOKENS,
            "PricingCategory": "Committed" if charge.commitment_status else "Standard",
            "PricingQuantity": scaled(charge.tokens, _MILLION),
            "PricingUnit": MILLION_TOKENS,
            "SkuId": sku,
            "SkuMeter": f"{charge.model} {charge.token_kind.replace('_', ' ')} tokens",
            "x_Tokens": tokens,
            "x_TokenKind": charge.token_kind,
            "x_ProcessingTier": charge.tier or None,
            "x_Measured": "true" if charge.measured else "false",
            "x_PriceId": charge.price_id or None,
        }
        row["SkuPriceDetails"] = _sku_details(charge.model, charge.token_kind, charge.tier)
        if price_pico is None:
            self._price_unknown(row, charge, sku)
            return
        unit_pico = charge.unit_pico if charge.unit_pico is not None else price_pico
        listed_pico = charge.list_pico if charge.list_pico is not None else unit_pico
        listed = scaled(price_pico if list_pico is None else list_pico, _MILLION)
        if list_pico is None:
            row["ListCost"] = row["ContractedCost"]
        row |= {
            "ListUnitPrice": listed,
            "ContractedUnitPrice": scaled(price_pico, _MILLION),
            "PricingCurrencyListUnitPrice": scaled(listed_pico, _MILLION),
            "PricingCurrencyContractedUnitPrice": scaled(unit_pico, _MILLION),
            "SkuPriceId": _sku_price_id(sku, charge.price_id, charge.tier, listed_pico),
        }

    def _price_unknown(self, row: Row, charge: Charge, sku: str) -> None:
        """Tokens without a price per token: not priced yet, or rated before prices were kept beside the amounts.

        FOCUS knows no usage without a price, and a cost cannot be null: nought, and x_PricingStatus says that it is not
        known rather than free. An amount is bought by the unit of currency, as what has no tokens.
        """
        if charge.pricing_status == "unpriced":
            price, quantity, unit = _NOUGHT, scaled(charge.tokens, _MILLION), MILLION_TOKENS
        else:
            price, quantity, unit = _ONE, scaled(charge.contracted_cost_pico, _PICO), self._currency
        row |= {"PricingQuantity": quantity, "PricingUnit": unit, "SkuPriceId": f"{sku}/{charge.pricing_status}"}
        row["ListUnitPrice"] = row["ContractedUnitPrice"] = price
        usd = price * scaled(self._usd_per_unit_nano, _NANO)
        row["PricingCurrencyListUnitPrice"] = row["PricingCurrencyContractedUnitPrice"] = usd

    def _price_amount(self, row: Row, charge: Charge) -> None:
        """A pool's share and the like are bought by the unit of currency: so much of it at one each."""
        bought = scaled(charge.billed_pico, _PICO)
        sku = charge.commitment_id or (charge.allocation.origin if charge.allocation else "") or "amount"
        row |= {
            "PricingCategory": "Committed" if charge.commitment_status else "Standard",
            "PricingQuantity": bought,
            "PricingUnit": self._currency,
            "ListUnitPrice": _ONE,
            "ContractedUnitPrice": _ONE,
            "PricingCurrencyListUnitPrice": scaled(self._usd_per_unit_nano, _NANO),
            "PricingCurrencyContractedUnitPrice": scaled(self._usd_per_unit_nano, _NANO),
            "SkuId": f"allocated/{sku}",
            "SkuMeter": charge.description,
            "SkuPriceId": f"allocated/{sku}/{self._currency}",
        }
        if charge.category == "Usage" and charge.commitment_status != "Unused":
            row["ConsumedQuantity"], row["ConsumedUnit"] = bought, self._currency

    def _effective_pico_usd(self, charge: Charge) -> int:
        """The effective cost in USD: the product of the tokens where that is what is owed, else at the rate."""
        if self._currency == "USD":
            return charge.effective_pico
        price_pico, unit_pico = charge.price_pico, charge.unit_pico
        if price_pico is not None and unit_pico is not None and charge.effective_pico == charge.tokens * price_pico:
            return charge.tokens * unit_pico
        return scale_half_up(charge.effective_pico, self._usd_per_unit_nano, NANO_PER_USD)


def _commit(row: Row, charge: Charge) -> None:
    row |= {
        "CommitmentDiscountCategory": "Usage",
        "CommitmentDiscountId": charge.commitment_id,
        "CommitmentDiscountName": charge.commitment_id,
        "CommitmentDiscountType": "Pool",
        "CommitmentDiscountStatus": charge.commitment_status or None,
        "CommitmentDiscountQuantity": Decimal(charge.commitment_quantity),
        "CommitmentDiscountUnit": TOKENS,
    }


@lru_cache(maxsize=4096)
def _tags(team: str, cost_centre: str, app: str) -> str:
    tags = {"app": app, "cost_centre": cost_centre, "team": team}
    return _encode({name: value for name, value in tags.items() if value}).decode()


@lru_cache(maxsize=4096)
def _sku_details(model: str, kind: str, tier: str) -> str:
    direction, cache = _KINDS.get(kind, ("Other", "Other"))
    details = {"x_ModelId": model, "x_TokenDirection": direction, "x_TokenCacheAction": cache}
    modality = "Audio" if kind.endswith("audio") else "Image" if kind.endswith("image") else "Text"
    return _encode(details | {"x_TokenModality": modality, "x_ProcessingTier": tier or "standard"}).decode()


@lru_cache(maxsize=4096)
def _sku_price_id(sku: str, price_id: str, tier: str, list_pico: int) -> str:
    """One id per list price: an entry of the price book holds several, by kind, tier and length of the prompt."""
    return f"{sku}/{price_id or 'price'}/{tier or 'standard'}/{plain(scaled(list_pico, _MILLION))}"


def allocation_details(allocation: Allocation) -> str | None:
    """The elements as the JSON that FOCUS defines. Written by hand: ratios and quantities are exact decimals."""
    elements = []
    for element in allocation.elements:
        quantity = plain(scaled(element.quantity, _NANO)) if element.unit == "USD" else str(element.quantity)
        unit = _encode(element.unit).decode()
        elements.append(f'{{"AllocatedRatio":{element.ratio},"UsageUnit":{unit},"UsageQuantity":{quantity}}}')
    return f'{{"Elements":[{",".join(elements)}]}}' if elements else None
