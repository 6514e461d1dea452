"""Commands that read and mend the ledger, over real Redis, Table and Blob Storage and a hub."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from local.eventhub.embedded import EmbeddedHub
from shared.bootstrap import Services
from shared.ledger.hours import HourIndex
from shared.ledger.rollup_job import RollupJob
from shared.money import decimal_from_nano
from shared.months import month_of
from shared.settings import Settings
from tests.support.command import CALL_NANO_USD, Command

THIS_MONTH = month_of(datetime.now(UTC))


def test_spend_shows_counters_for_people_and_programs(tollkeeper: Command) -> None:
    """The same figures as GET /spend; of one scope also where it is heading."""
    shown = tollkeeper("spend", "--tenant", "acme")
    assert (shown.code, shown.err) == (0, "")
    assert "team:search" in shown.out
    (row,) = tollkeeper("spend", "team", "--tenant", "acme", "--json").json["budgets"]
    assert (row["id"], row["scope"], row["limit"]) == ("every/team", "team:search", "100.00")
    assert int(row["spent"].replace(".", "")) > 0
    (one,) = tollkeeper("spend", "team:search", "--tenant", "acme", "--json").json["budgets"]
    assert (one["spent"], set(one) - set(row)) == (row["spent"], {"rate", "projection"})
    assert tollkeeper("spend", "team:search", "--tenant", "acme").code == 0


def test_report_adds_up_and_goes_into_files(tollkeeper: Command, tmp_path: Path) -> None:
    """The table, JSON and a file in a finance form are the one statement that the ledger gives."""
    shown = tollkeeper("report", "--tenant", "acme")
    assert shown.code == 0
    assert decimal_from_nano(CALL_NANO_USD) in shown.out
    document = tollkeeper("report", "--tenant", "acme", "--json").json
    assert (document["period"], document["totals"]["cost"]) == (THIS_MONTH, decimal_from_nano(CALL_NANO_USD))
    assert document["unpriced"][0]["model"] == "fresh"
    file = tmp_path / "focus.csv"
    ended = tollkeeper("report", "--tenant", "acme", "--format", "focus", "-o", str(file))
    assert (ended.code, ended.err) == (0, "")
    assert "BilledCost" in file.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["focus.csv"]


def test_replay_puts_letters_back_once_asked(
    tollkeeper: Command, environment: dict[str, str], hub: EmbeddedHub
) -> None:
    """A dry run lists, --all sends byte for byte, an unknown id is an error that names it."""
    letters = tollkeeper("replay", "--all", "--dry-run", "--json").json["dead_letters"]
    assert [letter["code"] for letter in letters] == ["tenant_unknown"]
    assert "tenant_unknown" in tollkeeper("replay", "--code", "tenant_unknown", "--dry-run").out
    assert tollkeeper("replay", "--code", "other", "--dry-run", "--json").json == {"dead_letters": []}
    before = len(hub.log(environment["USAGE_HUB"]))
    assert tollkeeper("replay", letters[0]["id"], "--json").json == {"replayed": 1, "unknown": []}
    assert len(hub.log(environment["USAGE_HUB"])) == before + 1
    unknown = tollkeeper("replay", "no-such-letter")
    assert (unknown.code, unknown.out) == (1, "0 replayed\nunknown: no-such-letter\n")


def test_re_rate_counts_before_it_changes(tollkeeper: Command, environment: dict[str, str], hub: EmbeddedHub) -> None:
    """Once the price has landed a dry run says what would change, and the run asks ingest for it over the hub."""
    prices = Path(environment["CONFIG_DIR"]) / "prices.yaml"
    text = prices.read_text()
    fresh = "  - {model: fresh, effective_from: 2020-01-01, usd_per_million: {input: 5.00, output: 5.00}}\n"
    prices.write_text(text + fresh)
    try:
        common = ("re-rate", "--period", THIS_MONTH, "--tenant", "acme", "--why", "price landed", "--json")
        said = tollkeeper(*common, "--dry-run").json
        # 10 tokens in and 10 out at 5 micro-USD each
        assert (said["changed"], said["newly_priced"]) == (1, 1)
        assert said["cost_difference"] == decimal_from_nano(20 * 5_000)
        before = len(hub.log(environment["USAGE_HUB"]))
        assert tollkeeper(*common).json["changed"] == 1
        (sent,) = hub.log(environment["USAGE_HUB"])[before:]
        assert b"tollkeeper.re_rate.v1" in sent.body
    finally:
        prices.write_text(text)


def test_names_are_set_listed_and_erased(tollkeeper: Command) -> None:
    """Erasing is for good, and asks first."""
    assert tollkeeper("names", "set", "u-1", "Ada", "--tenant", "acme", "--json").json["name"] == "Ada"
    assert "Ada" in tollkeeper("names", "list", "--tenant", "acme").out
    unasked = tollkeeper("names", "erase", "u-1", "--tenant", "acme", "--json")
    assert (unasked.code, msgspec.json.decode(unasked.err)["error"]["param"]) == (1, "yes")
    assert tollkeeper("names", "erase", "u-1", "--tenant", "acme", "--yes").code == 0
    assert tollkeeper("names", "list", "--tenant", "acme", "--json").json["users"] == []
    assert tollkeeper("names", "erase", "u-1", "--tenant", "acme", "--yes").code == 1


def test_a_name_is_kept_under_the_key_that_stands_for_an_address(
    tollkeeper: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    """Where addresses are hashed none gets into the table of names, and erasing by the address finds the name."""
    hashed = tmp_path / "hashed.env"
    hashed.write_text(Path(environment["file"]).read_text() + f"PSEUDONYM_KEY={'k' * 32}\n")
    tollkeeper.env_file = hashed
    given = tollkeeper("names", "set", "Ada@acme.example", "Ada", "--tenant", "acme", "--json").json
    assert given["user"].startswith("hmac-")
    listed = tollkeeper("names", "list", "--tenant", "acme", "--json")
    assert [each["user"] for each in listed.json["users"]] == [given["user"]]
    assert tollkeeper("names", "erase", "ada@acme.example", "--tenant", "acme", "--yes").code == 0
    assert tollkeeper("names", "list", "--tenant", "acme", "--json").json["users"] == []


def test_an_open_month_is_not_closed(tollkeeper: Command) -> None:
    """The error names what is wrong, and the code is the one of a refusal."""
    ended = tollkeeper("close", THIS_MONTH, "--tenant", "acme", "--yes")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"tollkeeper: period: {THIS_MONTH} runs until ")
    assert ended.err.count("\n") == 1


def test_a_store_that_is_away_is_told_apart(tollkeeper: Command, environment: dict[str, str], tmp_path: Path) -> None:
    """Exit code 3: the same command may help later. One line, no traceback."""
    away = tmp_path / "away.env"
    text = Path(environment["file"]).read_text()
    away.write_text(text.replace(environment["REDIS_URL"], "redis://127.0.0.1:1"))
    tollkeeper.env_file = away
    ended = tollkeeper("spend", "--tenant", "acme")
    assert (ended.code, ended.err.count("\n")) == (3, 1)


@pytest.mark.parametrize("unknown", [("spend", "--tenant", "nobody"), ("report", "--tenant", "nobody")])
def test_an_unknown_tenant_is_named(tollkeeper: Command, unknown: tuple[str, ...]) -> None:
    """As at the doors: a mistyped tenant is no empty answer."""
    ended = tollkeeper(*unknown)
    assert ended.code == 1
    assert "'nobody'" in ended.err


async def _settle_and_archive(environment: dict[str, str]) -> int:
    """What the nightly timer does two days later; the number of rows it exported."""
    services = Services(Settings.for_operator(environment))
    try:
        await services.open()
        hours = HourIndex(services.tables.hours, cover_seconds=10, grace_seconds=-10)  # which wait for nothing
        await RollupJob(services.tables, hours, services.ledger.reader).run()
        return (await services.ledger_export.run(now_utc=datetime.now(UTC) + timedelta(days=2))).rows
    finally:
        await services.close()


def test_export_and_restore_carry_the_ledger_into_empty_tables(
    tollkeeper: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    """What is verified is what comes back; tables that hold rows are refused; another run finds nothing to add."""
    assert asyncio.run(_settle_and_archive(environment)) >= 2
    again = tollkeeper("export", "--json").json
    assert (again["parts"], again["rows"]) == (0, 0)
    checked = tollkeeper("restore", "--verify", "--json").json
    assert checked["sums"]["cost"] == decimal_from_nano(CALL_NANO_USD)
    refused = tollkeeper("restore")
    assert (refused.code, "the ledger holds rows" in refused.err) == (1, True)

    elsewhere = tmp_path / "elsewhere.env"
    text = Path(environment["file"]).read_text()
    elsewhere.write_text(text.replace(environment["LEDGER_TABLE_PREFIX"], f"r{uuid.uuid4().hex[:12]}"))
    tollkeeper.env_file = elsewhere
    restored = tollkeeper("restore", "--json").json
    assert (restored["rows"], restored["present"], restored["tenants"]) == (checked["sums"]["rows"], 0, ["acme"])
    assert tollkeeper("report", "--tenant", "acme", "--json").json["totals"]["cost"] == decimal_from_nano(CALL_NANO_USD)


def test_reconcile_says_when_there_is_no_invoice(tollkeeper: Command) -> None:
    """A month without an export is no variance of zero; what was published can be shown again, of one tenant too."""
    month = "2021-03"  # of which nobody else publishes anything
    assert tollkeeper("reconcile", month, "--published").code == 1
    body = tollkeeper("reconcile", month, "--json").json
    assert (body["period"], body["status"], body["meters"]) == (month, "no_export", [])
    assert f"{month}, no_export: invoice 0.00 USD" in tollkeeper("reconcile", month).out
    assert tollkeeper("reconcile", month, "--published", "--json").json["status"] == "no_export"
