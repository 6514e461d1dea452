"""Cost exports in Azure's format, with invented charges.

Columns in the order of Microsoft's page "FOCUS cost and usage details file schema"
(learn.microsoft.com/azure/cost-management-billing/dataset-schema/cost-usage-details-focus), the manifest after the
example of "Tutorial: create and manage exports" (manifestVersion 2024-04-01).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

_COLUMNS_1_0 = """
    BilledCost BillingAccountId BillingAccountName BillingAccountType BillingCurrency BillingPeriodEnd
    BillingPeriodStart ChargeCategory ChargeClass ChargeDescription ChargeFrequency ChargePeriodEnd ChargePeriodStart
    CommitmentDiscountCategory CommitmentDiscountId CommitmentDiscountName CommitmentDiscountStatus
    CommitmentDiscountType ConsumedQuantity ConsumedUnit ContractedCost ContractedUnitPrice EffectiveCost
    InvoiceIssuerName ListCost ListUnitPrice PricingCategory PricingQuantity PricingUnit ProviderName PublisherName
    RegionId RegionName ResourceId ResourceName ResourceType ServiceCategory ServiceName SkuId SkuPriceId SubAccountId
    SubAccountName SubAccountType Tags x_AccountId x_AccountName x_AccountOwnerId x_BilledCostInUsd x_BilledUnitPrice
    x_BillingAccountId x_BillingAccountName x_BillingExchangeRate x_BillingExchangeRateDate x_BillingProfileId
    x_BillingProfileName x_ContractedCostInUsd x_CostAllocationRuleName x_CostCenter x_CustomerId x_CustomerName
    x_EffectiveCostInUsd x_EffectiveUnitPrice x_InvoiceId x_InvoiceIssuerId x_InvoiceSectionId x_InvoiceSectionName
    x_ListCostInUsd x_PartnerCreditApplied x_PartnerCreditRate x_PricingBlockSize x_PricingCurrency
    x_PricingSubcategory x_PricingUnitDescription x_PublisherCategory x_PublisherId x_ResellerId x_ResellerName
    x_ResourceGroupName x_ResourceType x_ServicePeriodEnd x_ServicePeriodStart x_SkuDescription x_SkuDetails
    x_SkuIsCreditEligible x_SkuMeterCategory x_SkuMeterId x_SkuMeterName x_SkuMeterSubcategory x_SkuOfferId
    x_SkuOrderId x_SkuOrderName x_SkuPartNumber x_SkuRegion x_SkuServiceFamily x_SkuTerm x_SkuTier
"""
FOCUS_1_0 = _COLUMNS_1_0.split()
# What of 1.2-preview's own columns matters here; `x_SkuMeterName` is still there, deprecated, and empty in these files.
FOCUS_1_2 = sorted({*FOCUS_1_0, "SkuMeter", "InvoiceId", "PricingCurrency", "ServiceSubcategory", "SkuPriceDetails"})

SUBSCRIPTION = "/subscriptions/0a0b0c0d-0000-4000-8000-000000000001"
GROUP = f"{SUBSCRIPTION}/resourceGroups/rg-tollkeeper-prod"


def account_id(name: str) -> str:
    """The ARM id of an AI account, in mixed case as exports write it."""
    return f"{GROUP}/providers/Microsoft.CognitiveServices/accounts/{name}"


def charge(day: date, cost: str, meter: str, account: str = "aoai-weu", **columns: Any) -> dict[str, Any]:
    """One day's charge of a meter of Azure OpenAI; any column can be stated."""
    resource = account_id(account)
    return {
        "BilledCost": cost,
        "BillingCurrency": "USD",
        "BillingPeriodStart": f"{day:%Y-%m}-01T00:00Z",
        "ChargeCategory": "Usage",
        "ChargeDescription": f"Azure OpenAI - {meter}",
        "ChargePeriodStart": f"{day.isoformat()}T00:00Z",
        "ChargePeriodEnd": f"{(day + timedelta(days=1)).isoformat()}T00:00Z",
        "ConsumedQuantity": "1000",
        "ConsumedUnit": "1K",
        "EffectiveCost": cost,
        "ProviderName": "Microsoft",
        "PublisherName": "Microsoft",
        "RegionId": "westeurope",
        "ResourceId": resource,
        "ResourceName": account,
        "ResourceType": "Azure AI services",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Azure OpenAI Service",
        "SubAccountId": SUBSCRIPTION,
        "Tags": '{"env": "prod", "note": "a, \\"quoted\\"\\nvalue"}',
        "x_SkuMeterCategory": "Foundry Models",
        "x_SkuMeterName": meter,
        **columns,
    }


def csv_bytes(rows: Sequence[Mapping[str, Any]], version: str = "1.0", *, bom: bool = True) -> bytes:
    """A partition as CSV."""
    columns = FOCUS_1_2 if version.startswith("1.2") else FOCUS_1_0
    out = io.StringIO()
    table = csv.DictWriter(out, columns, restval="", lineterminator="\r\n")
    table.writeheader()
    for row in rows:
        values = dict(row)
        if version.startswith("1.2"):
            values["SkuMeter"] = values.pop("x_SkuMeterName")
        table.writerow(values)
    return out.getvalue().encode("utf-8-sig" if bom else "utf-8")


def gz(rows: Sequence[Mapping[str, Any]], version: str = "1.0") -> bytes:
    """A partition as the templates' export writes it: CSV, gzip."""
    return gzip.compress(csv_bytes(rows, version))


class Export:
    """Runs of one export, as files of a container."""

    def __init__(self, folder: str = "prod", name: str = "focus-tollkeeper-prod", scope: str = GROUP) -> None:
        self.folder = f"{folder}/{name}" if folder else name
        self.name = name
        self.scope = scope

    def run(
        self,
        month: date,
        submitted: str,
        parts: Sequence[tuple[bytes, int]],
        *,
        end: date | None = None,
        version: str = "1.0",
        extension: str = "csv.gz",
        **changes: Any,
    ) -> dict[str, bytes]:
        """The files of one run: {blob name: bytes}. `parts`: bytes and rows of each partition."""
        last = (month.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        run_id = f"run-{submitted[:13]}".replace(":", "")
        folder = (
            f"{self.folder}/{month:%Y%m%d}-{last:%Y%m%d}/{submitted[:16].replace('-', '').replace(':', '')}/{run_id}"
        )
        names = [f"{folder}/part_{i}_0001.{extension}" for i in range(len(parts))]
        manifest = {
            "manifestVersion": "2024-04-01",
            "byteCount": sum(len(body) for body, _ in parts),
            "blobCount": len(parts),
            "dataRowCount": sum(rows for _, rows in parts),
            "exportConfig": {
                "exportName": self.name,
                "resourceId": f"{self.scope}/providers/Microsoft.CostManagement/exports/{self.name}",
                "dataVersion": version,
                "apiVersion": "2023-07-01-preview",
                "type": "FocusCost",
                "timeFrame": "MonthToDate",
                "granularity": "Daily",
            },
            "deliveryConfig": {
                "partitionData": True,
                "dataOverwriteBehavior": "OverwritePreviousReport",
                "fileFormat": "Csv",
                "compressionMode": "gzip",
                "rootFolderPath": self.folder.rsplit("/", 1)[0],
            },
            "runInfo": {
                "executionType": "Scheduled",
                "submittedTime": submitted,
                "runId": run_id,
                "startDate": f"{month.isoformat()}T00:00:00",
                "endDate": f"{(end or last).isoformat()}T00:00:00Z",
            },
            "blobs": [
                {"blobName": name, "byteCount": len(body), "dataRowCount": rows}
                for name, (body, rows) in zip(names, parts, strict=True)
            ],
            **changes,
        }
        files = {name: body for name, (body, _) in zip(names, parts, strict=True)}
        return files | {f"{folder}/manifest.json": json.dumps(manifest).encode()}
