"""The Azure invoice against the ledger, with exports and published variances on a real blob service."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.storage.blob.aio import ContainerClient

from local.azurite import Azurite
from shared.config.billing import Billing, Pool, PoolTerm
from shared.config.model import Config, Model, Tenant
from shared.config.reconciliation import Account, MeterRule, Reconciliation
from shared.errors import NotFound
from shared.ledger.rollup import CellLine, RollupCell
from shared.reports.files import BlobFiles
from shared.reports.reconcile.service import Reconciliations
from tests.support.cost_exports import SUBSCRIPTION, Export, account_id, charge, csv_bytes, gz
from tests.support.engine import budget, config, usd
from tests.support.stack import delivery, open_stack

USD = 1_000_000_000
OCTOBER = date(2026, 10, 1)
FIRST, SECOND = date(2026, 10, 3), date(2026, 10, 4)
DONE = datetime(2026, 11, 8, 4, 50, tzinfo=UTC)  # after Azure closed October
FINAL_RUN = "2026-11-05T06:12:44.1234567Z"
INPUT, OUTPUT = "gpt 4o 0806 Inp glbl Tokens", "gpt 4o 0806 Outp glbl Tokens"


class Ledger:
    """Cells in a list."""

    def __init__(self) -> None:
        self.all: list[RollupCell] = []

    async def cells(self, tenant: str | None, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]:
        for cell in self.all:
            if start_utc <= cell.quarter_utc < end_utc:
                yield cell


class Reconciled:
    """A reconciliation over real containers, with a ledger in memory and a hub that books corrections into it."""

    def __init__(self, exports: ContainerClient, reports: ContainerClient) -> None:
        self.exports, self.reports = exports, reports
        self.ledger = Ledger()
        self.sent: list[dict[str, Any]] = []
        self.rules = Reconciliation(accounts=(Account("aoai-weu"),))
        self.pools: tuple[Pool, ...] = ()
        self.folder = "prod"

    @property
    def service(self) -> Reconciliations:
        models = {
            "gpt-4o": Model(id="gpt-4o", deployments=("gpt-4o-weu", "gpt-4o-swc", "gpt-4o-ptu")),
            "gpt-4o-mini": Model(id="gpt-4o-mini", deployments=("mini-reg",), deployment_type="regional"),
        }
        configured = Config(
            version="v",
            tenants={name: Tenant(id=name) for name in ("contoso", "fabrikam")},
            teams={},
            budgets=(),
            models=models,
            billing=Billing(reconciliation=self.rules, pools=self.pools),
        )
        return Reconciliations(
            lambda: configured,
            self.ledger,
            BlobFiles(self.exports),
            self.folder,
            BlobFiles(self.reports),
            self._publish,
        )

    async def _publish(self, events: Sequence[tuple[str, bytes]]) -> None:
        self.sent += [json.loads(body) for _, body in events]

    def arrive(self) -> None:
        """Let what was sent reach the ledger, each id once."""
        for event in {event["id"]: event for event in self.sent}.values():
            data = event["data"]
            amount = int(Decimal(data["amount"]) * USD)
            self.ledger.all.append(
                RollupCell(
                    tenant=data["tenant"],
                    quarter_utc=datetime.fromisoformat(event["time"]),
                    scopes=data["scopes"],
                    correction="adjustment",
                    remark=data["why"],
                    cost_nano_usd=amount,
                )
            )
        self.sent = []

    async def export(self, *files: dict[str, bytes]) -> None:
        for each in files:
            for name, body in each.items():
                await self.exports.upload_blob(name, body, overwrite=True)

    async def october(self, rows: Sequence[dict[str, Any]], submitted: str = FINAL_RUN) -> None:
        """A final run of October in one partition."""
        await self.export(Export().run(OCTOBER, submitted, [(gz(rows), len(rows))]))

    async def run(self, now_utc: datetime = DONE) -> dict[str, Any]:
        return await self.service.run("2026-10", now_utc)


def used(day: date, usd: str, kind: str = "input", team: str = "search", **fields: Any) -> RollupCell:
    """What the ledger holds of a day."""
    nano = int(Decimal(usd) * USD)
    values: dict[str, Any] = {
        "tenant": "contoso",
        "scopes": {"team": team},
        "provider": "azure-openai",
        "model": "gpt-4o-2024-08-06",
        "deployment": "gpt-4o-weu",
        "region": "westeurope",
        "requests": 1,
        "cost_nano_usd": nano,
        "lines": [CellLine(kind, "p", 2_500_000, 2_500_000, "", 1000, nano)],
    }
    return RollupCell(quarter_utc=datetime(day.year, day.month, day.day, 9, tzinfo=UTC), **{**values, **fields})


@pytest.fixture
async def reconciled(azurite: Azurite) -> AsyncIterator[Reconciled]:
    """Two fresh containers."""
    mark = uuid.uuid4().hex[:8]
    async with (
        ContainerClient.from_connection_string(azurite.connection_string, f"cost-exports-{mark}") as exports,
        ContainerClient.from_connection_string(azurite.connection_string, f"statements-{mark}") as reports,
    ):
        await exports.create_container()
        yield Reconciled(exports, reports)


async def test_invoice_that_agrees_is_published_to_the_last_decimal(reconciled: Reconciled) -> None:
    """Fractions far below a nano-dollar sum up first and are rounded once; JSON and CSV say the same."""
    parts = ["0.1000000000000004", "0.2000000000000003", "8e-07"]
    await reconciled.october(
        [charge(FIRST, parts[0], INPUT), charge(FIRST, parts[1], INPUT), charge(SECOND, parts[2], INPUT)]
    )
    reconciled.ledger.all = [used(FIRST, "0.3"), used(SECOND, "0.0000008")]
    body = await reconciled.run()
    assert (body["status"], body["problems"], body["corrections"]) == ("final", [], [])
    (meter,) = body["meters"]
    assert (meter["meter"], meter["account"], meter["verdict"]) == ("gpt-4o input global", "aoai-weu", "agrees")
    assert (meter["invoice"], meter["ledger"], meter["variance"]) == ("0.3000008", "0.3000008", "0.00")
    assert await reconciled.service.latest(None, "2026-10") == body
    blob = await reconciled.reports.download_blob("_all/reconciliation/2026-10/variance.csv")
    table = list(csv.DictReader(io.StringIO((await blob.readall()).decode())))
    assert [(row["day"], row["invoice"], row["variance"]) for row in table] == [
        ("2026-10-03", "0.30", "0.00"),
        ("2026-10-04", "0.0000008", "0.00"),
    ]


async def test_variance_above_tolerance_opens_one_correction_per_team(reconciled: Reconciled) -> None:
    """The invoice is 30 USD above 90: split 2 to 1 over the teams that used the meter, on the month's last day."""
    await reconciled.october([charge(FIRST, "120.00", INPUT)])
    reconciled.ledger.all = [used(FIRST, "60", team="search"), used(FIRST, "30", team="ads")]
    body = await reconciled.run()
    assert [(each["team"], each["amount"]) for each in body["corrections"]] == [("ads", "10.00"), ("search", "20.00")]
    assert {event["type"] for event in reconciled.sent} == {"tollkeeper.correction.v1"}
    assert {event["time"][:10] for event in reconciled.sent} == {"2026-10-31"}
    assert {event["data"]["why"] for event in reconciled.sent} == {
        "Azure invoice 2026-10, aoai-weu, gpt-4o input global: invoice less ledger"
    }


async def test_running_twice_opens_one(reconciled: Reconciled) -> None:
    """Before the correction reaches the ledger and after it, a second run sends nothing and still tells of it."""
    await reconciled.october([charge(FIRST, "120.00", INPUT)])
    reconciled.ledger.all = [used(FIRST, "90")]
    first = await reconciled.run()
    (sent,) = reconciled.sent
    assert (await reconciled.run(DONE + timedelta(hours=1)))["corrections"] == first["corrections"]
    assert reconciled.sent == [sent]
    reconciled.arrive()
    after = await reconciled.run(DONE + timedelta(days=1))
    assert reconciled.sent == []
    assert (after["meters"][0]["verdict"], after["meters"][0]["corrected"]) == ("corrected", "30.00")
    assert after["totals"]["variance"] == "0.00"


async def test_changed_invoice_is_corrected_by_the_difference(reconciled: Reconciled) -> None:
    """Azure takes 50 USD back after 30 were corrected: a second correction of -50, and none while the first is on its
    way, which would count it twice."""
    await reconciled.october([charge(FIRST, "120.00", INPUT)])
    reconciled.ledger.all = [used(FIRST, "90")]
    await reconciled.run()
    await reconciled.october([charge(FIRST, "70.00", INPUT)], "2026-11-06T06:00:00Z")
    await reconciled.run()
    assert len(reconciled.sent) == 1
    reconciled.arrive()
    body = await reconciled.run()
    assert [event["data"]["amount"] for event in reconciled.sent] == ["-50.00"]
    assert [each["amount"] for each in body["corrections"]] == ["30.00", "-50.00"]
    reconciled.arrive()
    assert (await reconciled.run())["totals"]["variance"] == "0.00"


async def test_opened_corrections_stay_told_when_exports_are_gone(reconciled: Reconciled) -> None:
    """Exports are deleted after a while: comparing the month again then forgets no correction, so none opens twice."""
    await reconciled.october([charge(FIRST, "120.00", INPUT)])
    reconciled.ledger.all = [used(FIRST, "90")]
    opened = (await reconciled.run())["corrections"]
    names = [blob.name async for blob in reconciled.exports.list_blobs()]
    for name in names:
        await reconciled.exports.delete_blob(name)
    gone = await reconciled.run(DONE + timedelta(days=400))
    assert (gone["status"], gone["corrections"], len(opened)) == ("no_export", opened, 1)
    await reconciled.october([charge(FIRST, "120.00", INPUT)])
    assert (await reconciled.run(DONE + timedelta(days=401)))["corrections"] == opened
    assert len(reconciled.sent) == 1


async def test_small_variance_is_shown_and_not_corrected(reconciled: Reconciled) -> None:
    """0.90 USD of 1 are below the floor in money, 5 of 1000 below the percentage: both are within tolerance."""
    await reconciled.october([charge(FIRST, "1.00", INPUT), charge(FIRST, "1000.00", OUTPUT)])
    reconciled.ledger.all = [used(FIRST, "0.10"), used(FIRST, "995", kind="output")]
    body = await reconciled.run()
    assert {meter["verdict"] for meter in body["meters"]} == {"within_tolerance"}
    assert (body["corrections"], reconciled.sent) == ([], [])
    assert body["totals"]["variance"] == "5.90"


async def test_newest_run_counts_and_no_older_one(reconciled: Reconciled) -> None:
    """Each daily run repeats the month so far: only the last is read, whatever order the names sort in."""
    rows = [charge(FIRST, "10.00", INPUT)]
    await reconciled.october(rows, "2026-11-05T06:12:44Z")
    await reconciled.october([charge(FIRST, "4.00", INPUT)], "2026-10-05T06:12:44Z")
    await reconciled.october([charge(FIRST, "7.00", INPUT)], "2026-11-04T23:59:59Z")
    reconciled.ledger.all = [used(FIRST, "10")]
    body = await reconciled.run()
    assert (body["totals"]["invoice"], len(body["exports"])) == ("10.00", 1)


async def test_partitions_are_read_together_and_one_listed_twice_counts_once(reconciled: Reconciled) -> None:
    """Three partitions, of which the manifest repeats one."""
    parts = [(gz([charge(FIRST, cost, INPUT)]), 1) for cost in ("1.00", "2.00", "4.00")]
    files = Export().run(OCTOBER, FINAL_RUN, parts)
    name = next(name for name in files if name.endswith("manifest.json"))
    manifest = json.loads(files[name])
    manifest["blobs"].append(manifest["blobs"][0])
    files[name] = json.dumps(manifest).encode()
    await reconciled.export(files)
    reconciled.ledger.all = [used(FIRST, "7")]
    body = await reconciled.run()
    assert (body["totals"]["invoice"], body["rows"], body["status"]) == ("7.00", 3, "final")


async def test_export_inside_another_is_left_out(reconciled: Reconciled) -> None:
    """A subscription's export holds its resource groups' rows too: both together would count them twice."""
    rows = [charge(FIRST, "10.00", INPUT)]
    outer = Export(name="focus-subscription", scope=SUBSCRIPTION)
    await reconciled.october(rows)
    await reconciled.export(outer.run(OCTOBER, FINAL_RUN, [(gz(rows), 1)]))
    reconciled.ledger.all = [used(FIRST, "10")]
    body = await reconciled.run()
    assert body["totals"]["invoice"] == "10.00"
    assert [each["export"] for each in body["exports"]] == ["focus-subscription"]
    assert any("focus-tollkeeper-prod is left out" in note for note in body["notes"])


@pytest.mark.parametrize("damage", ["missing", "truncated", "rows", "columns"])
async def test_incomplete_export_says_so_and_corrects_nothing(reconciled: Reconciled, damage: str) -> None:
    """A partition that is missing, cut off, short of rows or of another format makes the comparison incomplete."""
    files = Export().run(OCTOBER, FINAL_RUN, [(gz([charge(FIRST, "50.00", INPUT)]), 1)] * 2)
    first, second = (name for name in files if "part_" in name)
    if damage == "missing":
        del files[second]
    elif damage == "truncated":
        files[second] = files[second][:-20]
    elif damage == "rows":
        files[second] = gz([])
    else:
        files[second] = csv_bytes([charge(FIRST, "50.00", INPUT)]).replace(b"BilledCost", b"Cost")
    await reconciled.export(files)
    reconciled.ledger.all = [used(FIRST, "1")]
    body = await reconciled.run()
    assert body["status"] == "incomplete"
    assert any(second in problem for problem in body["problems"])
    assert not any(first in problem for problem in body["problems"])
    assert reconciled.sent == []


async def test_month_that_azure_may_still_change_is_provisional(reconciled: Reconciled) -> None:
    """On the 20th the export holds the 18th for certain: later days are compared on neither side, nothing is opened."""
    rows = [charge(FIRST, "10.00", INPUT), charge(date(2026, 10, 19), "5.00", INPUT)]
    await reconciled.export(Export().run(OCTOBER, "2026-10-20T06:00:00Z", [(gz(rows), 2)], end=date(2026, 10, 20)))
    reconciled.ledger.all = [used(FIRST, "90"), used(date(2026, 10, 19), "7")]
    body = await reconciled.run(datetime(2026, 10, 20, 5, tzinfo=UTC))
    assert (body["status"], body["compared_to"], body["rows_not_compared"]) == ("provisional", "2026-10-18", 1)
    assert (body["totals"]["invoice"], body["totals"]["ledger"], reconciled.sent) == ("10.00", "90.00", [])


async def test_tax_credits_purchases_and_other_services_are_apart(reconciled: Reconciled) -> None:
    """What is no usage of an AI account is listed by category and service, never mixed into a meter."""
    redis = f"{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Cache/redisEnterprise/r"
    rows = [
        charge(FIRST, "10.00", INPUT),
        charge(FIRST, "2.10", "", ChargeCategory="Tax", ResourceId="", ServiceName=""),
        charge(FIRST, "-50.00", "", ChargeCategory="Credit", ResourceId=""),
        charge(FIRST, "260.00", "Provisioned Throughput Reservation", ChargeCategory="Purchase"),
        charge(FIRST, "3.00", "E10 Cache Instance", ResourceId=redis, ServiceName="Azure Cache for Redis"),
    ]
    await reconciled.october(rows)
    reconciled.ledger.all = [used(FIRST, "10")]
    body = await reconciled.run()
    assert body["totals"] == {
        "invoice": "10.00",
        "ledger": "10.00",
        "corrected": "0.00",
        "variance": "0.00",
        "variance_percent": "0.0000",
    }
    assert [(each["category"], each["amount"]) for each in body["other_charges"]] == [
        ("Credit", "-50.00"),
        ("Purchase", "260.00"),
        ("Tax", "2.10"),
        ("Usage", "3.00"),
    ]


async def test_another_currency_is_never_added_to_dollars(reconciled: Reconciled) -> None:
    """A row in EUR is listed in EUR, compared with nothing, and holds back the account's corrections."""
    await reconciled.october([charge(FIRST, "10.00", INPUT), charge(FIRST, "9.00", INPUT, BillingCurrency="EUR")])
    reconciled.ledger.all = [used(FIRST, "20")]
    body = await reconciled.run()
    assert (body["held"][0]["why"], reconciled.sent) == ("the account is billed in another currency too", [])
    assert body["totals"]["invoice"] == "10.00"
    (euro,) = body["other_currencies"]
    assert (euro["currency"], euro["amount"], euro["rows"]) == ("EUR", "9.00", 1)


async def test_unknown_meter_is_listed_until_billing_yaml_maps_it(reconciled: Reconciled) -> None:
    """A meter nobody understands keeps its amount and its days; with an override it is compared."""
    await reconciled.october(
        [charge(FIRST, "3.00", "gpt-4o-rt-txt Inp Tokens"), charge(SECOND, "4.00", "gpt-4o-rt-txt Inp Tokens")]
    )
    reconciled.ledger.all = [used(FIRST, "7")]
    (unmatched,) = (await reconciled.run())["unmatched"]
    assert (unmatched["amount"], unmatched["rows"], unmatched["from"], unmatched["to"]) == (
        "7.00",
        2,
        "2026-10-03",
        "2026-10-04",
    )
    rule = MeterRule(model="gpt-4o", kind="input")
    reconciled.rules = Reconciliation(accounts=(Account("aoai-weu"),), meters={"gpt-4o-rt-txt inp tokens": rule})
    body = await reconciled.run()
    assert (body["unmatched"], body["totals"]["invoice"]) == ([], "7.00")


async def test_meter_that_the_ledger_never_saw_goes_to_the_accounts_owner(reconciled: Reconciled) -> None:
    """50 USD billed to an account of one tenant and nowhere in the ledger: its owner's, of no team. Without an owner
    the variance is held."""
    await reconciled.october([charge(FIRST, "50.00", INPUT)])
    (held,) = (await reconciled.run())["held"]
    assert (held["meter"], held["why"]) == (
        "gpt-4o input global",
        "nobody used it and the account has no tenant",
    )
    reconciled.rules = Reconciliation(accounts=(Account("aoai-weu", tenant="fabrikam"),))
    body = await reconciled.run()
    assert [(each["tenant"], each["team"], each["amount"]) for each in body["corrections"]] == [
        ("fabrikam", "", "50.00")
    ]


async def test_accounts_are_told_apart_by_deployment_and_region(reconciled: Reconciled) -> None:
    """The ledger's calls go to the account of their deployment, else of their region; a tenant sees its own alone."""
    reconciled.rules = Reconciliation(
        accounts=(
            Account("aoai-weu", tenant="contoso", deployments=frozenset({"gpt-4o-weu"})),
            Account("aoai-swc", tenant="fabrikam", regions=frozenset({"swedencentral"})),
        )
    )
    await reconciled.october([charge(FIRST, "10.00", INPUT), charge(FIRST, "20.00", INPUT, account="AOAI-SWC")])
    reconciled.ledger.all = [
        used(FIRST, "10"),
        used(FIRST, "20", deployment="other", region="Sweden Central", tenant="fabrikam"),
        used(FIRST, "5", deployment="elsewhere", region="eastus"),
    ]
    body = await reconciled.run()
    assert [(each["account"], each["invoice"], each["ledger"]) for each in body["meters"]] == [
        ("(no account)", "0.00", "5.00"),
        ("aoai-swc", "20.00", "20.00"),
        ("aoai-weu", "10.00", "10.00"),
    ]
    assert [each["why"] for each in body["held"]] == ["the exports hold no charge of the account"]
    mine = await reconciled.service.latest("fabrikam", "2026-10")
    assert [each["account"] for each in mine["meters"]] == ["aoai-swc"]
    assert (mine["totals"]["invoice"], "other_charges" in mine) == ("20.00", False)
    with pytest.raises(NotFound):
        await reconciled.service.latest("default", "2026-10")


async def test_calls_that_capacity_covers_and_other_providers_are_not_compared(reconciled: Reconciled) -> None:
    """Provisioned units are billed by the hour: neither they nor the calls they serve are in a meter of tokens."""
    term = PoolTerm(effective_from=datetime(2026, 1, 1, tzinfo=UTC), units=100, usd_per_unit_hour_nano=USD)
    deployments = frozenset({"gpt-4o-ptu"})
    reconciled.pools = (Pool("ptu", "contoso", "PTU", "ptu", deployments, (term,)),)
    rows = [charge(FIRST, "10.00", INPUT), charge(FIRST, "2400.00", "Provisioned Managed Global Unit")]
    await reconciled.october(rows)
    reconciled.ledger.all = [
        used(FIRST, "10"),
        used(FIRST, "8", deployment="gpt-4o-ptu"),
        used(FIRST, "3", provider="anthropic", deployment=""),
    ]
    body = await reconciled.run()
    assert body["totals"]["variance"] == "0.00"
    assert [each["amount"] for each in body["capacity"]] == ["2400.00"]
    assert body["not_compared"] == {"covered_by_pools": "8.00", "other_providers": "3.00", "unpriced_rows": 0}


async def test_version_1_2_preview_and_parquet_say_the_same(reconciled: Reconciled) -> None:
    """1.2-preview names the meter `SkuMeter`; Parquet has typed columns; all three give the same comparison."""
    rows = [charge(FIRST, "12.50", INPUT), charge(SECOND, "0.25", "gpt-4o-mini-0718-Outp-regnl Tokens")]
    later = [dict(row, ChargePeriodStart=f"{row['ChargePeriodStart'][:16]}:00Z") for row in rows]
    wide = pa.table(
        {
            "BilledCost": pa.array([Decimal(row["BilledCost"]) for row in rows], pa.decimal128(38, 18)),
            "BillingCurrency": [row["BillingCurrency"] for row in rows],
            "ChargeCategory": [row["ChargeCategory"] for row in rows],
            "ChargePeriodStart": pa.array(
                [datetime(d.year, d.month, d.day) for d in (FIRST, SECOND)],  # noqa: DTZ001 - as the file has them
                pa.timestamp("ms"),
            ),
            "ConsumedQuantity": [1000.0, 2.5],
            "ResourceId": [row["ResourceId"] for row in rows],
            "ServiceName": [row["ServiceName"] for row in rows],
            "SkuMeter": [row["x_SkuMeterName"] for row in rows],
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(wide, sink, compression="snappy")
    shapes = [
        Export().run(OCTOBER, FINAL_RUN, [(gz(rows), 2)]),
        Export().run(OCTOBER, FINAL_RUN, [(csv_bytes(later, "1.2-preview", bom=False), 2)], extension="csv"),
        Export().run(OCTOBER, FINAL_RUN, [(sink.getvalue().to_pybytes(), 2)], extension="snappy.parquet"),
    ]
    line = CellLine("output", "p", 600_000, 600_000, "", 10, USD // 4)
    reconciled.ledger.all = [used(FIRST, "12.5"), used(SECOND, "0.25", deployment="mini-reg", lines=[line])]
    found = []
    for number, files in enumerate(shapes):
        reconciled.folder = f"shape{number}"
        await reconciled.export({name.replace("prod/", f"shape{number}/", 1): body for name, body in files.items()})
        body = await reconciled.run()
        assert (body["status"], body["problems"]) == ("final", [])
        found.append(body["meters"])
    assert found[0] == found[1] == found[2]
    assert [each["verdict"] for each in found[0]] == ["agrees", "agrees"]


async def test_without_an_export_nothing_is_claimed(reconciled: Reconciled) -> None:
    """No export is not an invoice of zero; other datasets and broken manifests are named."""
    actual = Export(name="actual").run(OCTOBER, FINAL_RUN, [(b"", 0)], exportConfig={"type": "ActualCost"})
    await reconciled.export(actual, {"prod/broken/manifest.json": b"{"})
    reconciled.ledger.all = [used(FIRST, "90")]
    body = await reconciled.run()
    assert (body["status"], body["meters"], reconciled.sent) == ("no_export", [], [])
    assert len(body["notes"]) == 2


async def test_hostile_names_stay_text(reconciled: Reconciled) -> None:
    """An account that reads as a formula is no formula in the CSV."""
    reconciled.rules = Reconciliation(accounts=(Account("=cmd|calc"),))
    await reconciled.october([charge(FIRST, "1.00", INPUT, ResourceId=account_id("=cmd|calc"))])
    reconciled.ledger.all = [used(FIRST, "1")]
    await reconciled.run()
    blob = await reconciled.reports.download_blob("_all/reconciliation/2026-10/variance.csv")
    assert b"\r\n'=cmd|calc," in await blob.readall()


async def test_correction_reaches_the_ledger_and_the_next_comparison(
    reconciled: Reconciled, redis_server: Any, azurite: Azurite
) -> None:
    """Through the real ingest: the events become rows with the amount and the remark, no counter moves, and read back
    from the ledger they close the variance. A second delivery changes nothing."""
    async with open_stack(redis_server.url, azurite.connection_string, config(budget("team:*", usd(1_000)))) as stack:
        reconciled.ledger.all = [used(FIRST, "60", tenant="acme"), used(FIRST, "30", tenant="acme", team="ads")]
        await reconciled.october([charge(FIRST, "120.000000001", INPUT)])
        await reconciled.run()
        bodies = [json.dumps(event).encode() for event in reconciled.sent]
        await stack.ingest.run([delivery(body, number) for number, body in enumerate(bodies, start=1)])
        await stack.ingest.run([delivery(body, number) for number, body in enumerate(bodies, start=11)])
        start_utc, end_utc = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
        booked = [cell async for cell in stack.ledger.reader.cells("acme", start_utc, end_utc)]
        assert sum(cell.cost_nano_usd for cell in booked) == 30 * USD + 1
        assert await stack.ledger_total_nano_usd("acme") == 0
        reconciled.ledger.all += booked
        reconciled.sent = []
        body = await reconciled.run(DONE + timedelta(days=1))
        assert (body["totals"]["corrected"], body["totals"]["variance"]) == ("30.000000001", "0.00")
        assert reconciled.sent == []
