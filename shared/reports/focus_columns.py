"""The columns of a FOCUS Cost and Usage file, by version of the specification. The project's own begin with `x_`."""

from __future__ import annotations

from typing import Literal

from shared.errors import InvalidRequest

FocusVersion = Literal["1.4", "1.2"]
DEFAULT_VERSION: FocusVersion = "1.4"

_SHARED = (
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency"),
    *("BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription"),
    *("ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart"),
    *("CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountQuantity"),
    *("CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit"),
    *("ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost"),
    *("InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice"),
    *("PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost"),
    *("PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit"),
    *("RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType"),
    *("ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId"),
    *("SubAccountId", "SubAccountName", "SubAccountType", "Tags"),
)
# The split columns came with 1.3; 1.4 dropped the two old names of a provider.
_OF_1_4 = (
    *("AllocatedMethodDetails", "AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName", "AllocatedTags"),
    *("HostProviderName", "ServiceProviderName"),
)
# 1.2 readers expect every column of theirs, even one that nothing here fills.
_OF_1_2 = ("AvailabilityZone", "CapacityReservationId", "CapacityReservationStatus", "ProviderName", "PublisherName")
OWN = (
    *("x_AppId", "x_CostCenter", "x_Operation", "x_TokenKind", "x_Tokens", "x_ProcessingTier", "x_Measured"),
    *("x_PricingStatus", "x_PriceId", "x_LedgerCostUSD", "x_CorrectionType", "x_StatementStatus"),
)

COLUMNS: dict[FocusVersion, tuple[str, ...]] = {
    "1.4": (*sorted((*_SHARED, *_OF_1_4)), *OWN),
    "1.2": (*sorted((*_SHARED, *_OF_1_2)), *OWN),
}
TIMES = frozenset({"BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"})
# Decimals of each number: amounts are pico-units, prices those of a million tokens, quantities millions of tokens or
# amounts. Nothing has more, so nothing is rounded.
DECIMALS = {
    **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingCurrencyEffectiveCost"), 12),
    **dict.fromkeys(("ContractedUnitPrice", "ListUnitPrice"), 6),
    **dict.fromkeys(("PricingCurrencyContractedUnitPrice", "PricingCurrencyListUnitPrice"), 9),  # or a rate
    **dict.fromkeys(("PricingQuantity", "ConsumedQuantity"), 12),
    **dict.fromkeys(("CommitmentDiscountQuantity", "x_Tokens"), 0),
    "x_LedgerCostUSD": 9,
}


def require_version(wanted: str) -> FocusVersion:
    """A version that can be written. Raises InvalidRequest `unsupported_format`, naming those."""
    for version in COLUMNS:
        if wanted == version:
            return version
    message = f"focus_version: {wanted[:20]!r} is not available; expected {' or '.join(COLUMNS)}"
    raise InvalidRequest(message, code="unsupported_format", param="focus_version")
