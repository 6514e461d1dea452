"""The composition root: the only place that wires services to stores, stores to clients, and clients to settings.

Everything is built at first use, so a worker that only answers budget checks never imports the ledger's SDKs.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from shared.settings import Settings
from shared.telemetry import Telemetry

if TYPE_CHECKING:
    from shared.budgets.decisions import DecisionLog
    from shared.budgets.decisions_store import DecisionStore
    from shared.budgets.recent import RecentDecisions
    from shared.budgets.reservation import ReservationSigner
    from shared.budgets.reset import ResetService
    from shared.budgets.service import BudgetService
    from shared.budgets.simulations import Simulations
    from shared.budgets.snapshot import Snapshot
    from shared.budgets.spend import SpendService
    from shared.budgets.standing import StandingLog
    from shared.budgets.store import BudgetStore
    from shared.config.edits import ConfigEdits
    from shared.config.publish import Publication
    from shared.config.store import ConfigStore
    from shared.health import HealthService
    from shared.ledger.deadletters import DeadLetters
    from shared.ledger.ingest import IngestService
    from shared.ledger.llm_logs import LlmLogs
    from shared.ledger.names import Names
    from shared.ledger.repair import RepairService
    from shared.ledger.replay import ReplayService
    from shared.ledger.rerate import RerateService
    from shared.ledger.retention import RetentionJob
    from shared.ledger.rollup_job import RollupJob
    from shared.ledger.settlement import TenantSettler
    from shared.ledger.state import ProcessingState
    from shared.ledger.store import LedgerStore
    from shared.ledger.streams import Streams
    from shared.ledger.streams_store import StreamTable
    from shared.ledger.streams_sweep import StreamSweep
    from shared.ledger.summary import Summaries
    from shared.ledger.tables import Tables
    from shared.notify.dead_letter_notices import DeadLetterNotices
    from shared.notify.delivery import Delivery
    from shared.notify.digest import WeeklyDigest
    from shared.notify.outbox import Outbox
    from shared.pricing.book import PriceBook
    from shared.pricing.pricer import Pricer
    from shared.pseudonyms import Pseudonyms
    from shared.record.archive import Archive
    from shared.record.export import LedgerExport
    from shared.record.restore import Restore
    from shared.reports.budget_outlook import BudgetOutlook
    from shared.reports.building import StatementBuilder
    from shared.reports.close import CloseService
    from shared.reports.files import BlobFiles
    from shared.reports.freshness import LedgerFreshness
    from shared.reports.history import SpendHistory
    from shared.reports.outlook import Anomalies, Forecasts
    from shared.reports.published import PublishedStatements
    from shared.reports.publishing import Publisher
    from shared.reports.reconcile.service import Reconciliations
    from shared.reports.service import Reports
    from shared.routing.router import Router
    from shared.usage.first_heard import FirstHeard
    from shared.usage.helicone import HeliconeWebhook
    from shared.usage.hub import UsagePublisher

_EXPORT_CONTAINER = "ledger-export"
_MINUTE_MS = 60_000
_STATEMENTS_CONTAINER = "statements"
_COST_EXPORTS_CONTAINER = "cost-exports"


class Services:
    """All services of one process. Built lazily; `close` closes what was opened."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry = Telemetry()
        self._snapshot: Snapshot | None = None
        self._config_bodies: dict[str, bytes] = {}  # the published files, shared by who reads and who edits them

    async def start(self, *, knows_callers: bool = False) -> None:
        """Load the configuration; on a laptop also create the tables, which in Azure the templates create.

        `knows_callers`: the door finds out itself who calls, so the platform need not.
        """
        settings = self.settings
        if not knows_callers:
            settings.require_platform_auth()
        self.telemetry.start(
            settings.telemetry_connection,
            settings.otlp_signals,
            with_people=settings.telemetry_people,
            calls_to_azure=settings.azure_monitor_calls,
        )
        await self.open()

    async def open(self) -> None:
        """As `start`, for a command: no doors that must be guarded, no telemetry."""
        await self.config.load()
        if self.settings.environment == "development" and self.settings.storage_connection:
            from shared.ledger.tables import create_missing

            await create_missing(self.tables, self.settings)

    async def operator(self) -> str:
        """Who runs this command: who is signed in to Azure, else this machine's user."""
        from shared.config.operator import operator_name

        return await operator_name(self.settings)

    def snapshot(self) -> Snapshot:
        """The configuration in force with what is derived from it. A memory read; a newer version loads behind it."""
        from shared.budgets.snapshot import Snapshot

        self.config.refresh_if_due()
        config = self.config.current
        if self._snapshot is None or self._snapshot.config is not config:
            from shared.pricing.pricer import Pricer
            from shared.routing.router import Router

            pricer = Pricer(self.price_book, config)
            self._snapshot = Snapshot(config, pricer, Router(config, pricer))
        return self._snapshot

    @property
    def pricer(self) -> Pricer:
        """Prices under the configuration in force."""
        return self.snapshot().pricer

    @property
    def router(self) -> Router:
        """Routes under the configuration in force."""
        return self.snapshot().router

    @cached_property
    def config(self) -> ConfigStore:
        from shared.config.source import open_source
        from shared.config.store import ConfigStore

        prepare = self.pseudonyms.config
        source = open_source(self.settings, self._config_bodies)
        return ConfigStore(source, self.settings.config_poll_seconds, prepare=prepare)

    @cached_property
    def pseudonyms(self) -> Pseudonyms:
        from shared.pseudonyms import Pseudonyms

        return Pseudonyms(self.settings.pseudonym_key)

    @cached_property
    def config_edits(self) -> ConfigEdits:
        from shared.config.edits import ConfigEdits
        from shared.config.place import open_place

        bodies = self._config_bodies
        return ConfigEdits(
            lambda: open_place(self.settings, bodies), lambda: self.config.refresh(force=True), self.pseudonyms
        )

    @cached_property
    def publication(self) -> Publication:
        from shared.config.place import open_place
        from shared.config.publish import Publication

        return Publication(lambda: open_place(self.settings))

    @cached_property
    def price_book(self) -> PriceBook:
        from shared.pricing.book import PriceBook

        return PriceBook.load()

    @cached_property
    def signer(self) -> ReservationSigner:
        from shared.budgets.reservation import ReservationSigner

        return ReservationSigner([key.encode() for key in self.settings.token_keys])

    @cached_property
    def counters(self) -> BudgetStore:
        from shared.budgets.connect import open_redis
        from shared.budgets.store import BudgetStore

        settings = self.settings
        return BudgetStore(open_redis(settings), settings.hold_ttl_seconds * 1000, settings.hold_bucket_seconds * 1000)

    @cached_property
    def budget(self) -> BudgetService:
        from shared.budgets.service import BudgetService

        return BudgetService(
            self.snapshot,
            self.counters,
            self.signer,
            default_output_tokens=self.settings.default_output_tokens,
            timeout_seconds=self.settings.redis_timeout_seconds,
            stalled_ingest_ms=self.settings.hold_ttl_seconds * 1000 + 10 * _MINUTE_MS,
            decisions=self.decisions,
            pseudonyms=self.pseudonyms,
        )

    @cached_property
    def decision_store(self) -> DecisionStore:
        from shared.budgets.connect import open_redis
        from shared.budgets.decisions_store import DecisionStore

        return DecisionStore(open_redis(self.settings))

    @cached_property
    def decisions(self) -> DecisionLog:
        from shared.budgets.decisions import DecisionLog

        return DecisionLog(self.decision_store, self.publisher.publish, self.publisher.load)

    @cached_property
    def recent_decisions(self) -> RecentDecisions:
        from shared.budgets.recent import RecentDecisions

        return RecentDecisions(self.decision_store)

    @cached_property
    def spend(self) -> SpendService:
        from shared.budgets.spend import SpendService

        return SpendService(self.snapshot, self.counters)

    @cached_property
    def standing_log(self) -> StandingLog:
        from shared.budgets.standing import StandingLog

        return StandingLog(self.snapshot, self.spend)

    @cached_property
    def publisher(self) -> UsagePublisher:
        from shared.usage.hub import UsagePublisher

        return UsagePublisher(self.settings)

    @cached_property
    def log_publisher(self) -> UsagePublisher:
        """Onto the LLM log hub, for replays."""
        from shared.usage.hub import UsagePublisher

        return UsagePublisher(self.settings, llm_logs=True)

    @cached_property
    def reset(self) -> ResetService:
        from shared.budgets.reset import ResetService

        return ResetService(self.spend, self.publisher.publish, self.first_heard.time)

    @cached_property
    def tables(self) -> Tables:
        from shared.ledger.tables import connect_tables

        return connect_tables(self.settings)

    @cached_property
    def ledger(self) -> LedgerStore:
        from shared.ledger.store import LedgerStore

        return LedgerStore(self.tables)

    @cached_property
    def settler(self) -> TenantSettler:
        from shared.ledger.settlement import TenantSettler

        return TenantSettler(self.counters)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        from shared.ledger.deadletters import DeadLetters

        return DeadLetters(self.tables.deadletters, self.tables.bodies)

    @cached_property
    def replay(self) -> ReplayService:
        from shared.ledger.replay import ReplayService

        is_of_logs = self.settings.is_llm_log_stream
        return ReplayService(self.dead_letters, self.publisher.publish, self.log_publisher.publish, is_of_logs)

    @cached_property
    def outbox(self) -> Outbox:
        from shared.notify.outbox import Outbox

        return Outbox(self.tables.outbox)

    @cached_property
    def delivery(self) -> Delivery:
        from shared.notify.channels import Channels
        from shared.notify.delivery import Delivery

        async def mail_token() -> str:
            from shared.credential import open_credential

            async with open_credential(self.settings) as credential:
                return (await credential.get_token("https://communication.azure.com/.default")).token

        channels = Channels(self.settings, mail_token)
        return Delivery(self.outbox, lambda: self.snapshot().config.alerts, channels)

    @cached_property
    def dead_letter_notices(self) -> DeadLetterNotices:
        from shared.notify.dead_letter_notices import DeadLetterNotices

        return DeadLetterNotices(self.dead_letters, self.outbox)

    @cached_property
    def digest(self) -> WeeklyDigest:
        from shared.notify.digest import WeeklyDigest

        return WeeklyDigest(lambda: self.snapshot().config.tenants, self.summaries, self.spend, self.outbox)

    @cached_property
    def state(self) -> ProcessingState:
        from shared.ledger.state import ProcessingState

        return ProcessingState(self.tables.state)

    @cached_property
    def ingest(self) -> IngestService:
        from shared.ledger.ingest import IngestService

        return IngestService(
            self.snapshot,
            self.ledger,
            self.settler,
            self.signer,
            self.dead_letters,
            self.outbox,
            self.state,
            self.streams,
            default_output_tokens=self.settings.default_output_tokens,
            refresh_config=lambda: self.config.refresh(force=True),
            pseudonyms=self.pseudonyms,
            on_billed=self.telemetry.billed,
        )

    @cached_property
    def stream_table(self) -> StreamTable:
        from shared.ledger.streams_store import StreamTable

        return StreamTable(self.tables.streams)

    @cached_property
    def streams(self) -> Streams:
        from shared.ledger.streams import Streams

        return Streams(self.stream_table, self.publisher.publish)

    @cached_property
    def llm_logs(self) -> LlmLogs:
        from shared.ledger.llm_logs import LlmLogs

        return LlmLogs(self.streams, self.dead_letters, self.outbox)

    @cached_property
    def stream_sweep(self) -> StreamSweep:
        from shared.ledger.streams_sweep import StreamSweep
        from shared.telemetry.unmeasured import Unmeasured

        wait, ledger = self.settings.stream_wait_minutes, self.ledger
        tell = Unmeasured(ledger.pairs, self.telemetry).tell
        return StreamSweep(self.stream_table, self.streams, ledger.is_trued_up, self.outbox, wait, tell)

    @cached_property
    def repair(self) -> RepairService:
        from shared.ledger.reconcile import Reconciler
        from shared.ledger.repair import RepairService

        return RepairService(
            self.snapshot,
            self.counters,
            Reconciler(self.snapshot, self.counters, self.ledger, self.settler, self.outbox),
            self.state,
            self.outbox,
            self.publisher.partition_state,
            self.settings.usage_hub,
        )

    @cached_property
    def rollups(self) -> RollupJob:
        from shared.ledger.rollup_job import RollupJob

        return RollupJob(self.tables, self.ledger.hours, self.ledger.reader)

    @cached_property
    def archive(self) -> Archive:
        from shared.record.archive import Archive

        return Archive(self.tables.blob_service.get_container_client(_EXPORT_CONTAINER))

    @cached_property
    def ledger_export(self) -> LedgerExport:
        from shared.record.export import LedgerExport

        return LedgerExport(self.tables.ledger, self.ledger.hours, self.tables.periods, self.archive)

    @cached_property
    def restore(self) -> Restore:
        from shared.record.restore import Restore

        return Restore(self.tables, self.ledger.hours, self.archive, self.state)

    @cached_property
    def names(self) -> Names:
        from shared.ledger.names import Names

        return Names(self.tables.names)

    @cached_property
    def re_rate(self) -> RerateService:
        from shared.ledger.rerate import RerateService
        from shared.ledger.standing_rows import StandingRows

        ledger, rows = self.ledger, StandingRows(self.tables.ledger)
        return RerateService(self.snapshot, ledger.hours, ledger.reader, rows, self.publisher.publish)

    @cached_property
    def summaries(self) -> Summaries:
        from shared.ledger.summary import Summaries

        return Summaries(self.ledger.reader, timedelta(minutes=self.settings.stream_wait_minutes))

    @cached_property
    def retention(self) -> RetentionJob:
        from shared.ledger.retention import RetentionJob

        return RetentionJob(self.tables, self.ledger.hours, self.settings.ledger_retention_days)

    @cached_property
    def statement_files(self) -> BlobFiles:
        from shared.reports.files import BlobFiles

        return BlobFiles(self.tables.blob_service.get_container_client(_STATEMENTS_CONTAINER))

    @cached_property
    def statement_builder(self) -> StatementBuilder:
        from shared.reports.building import StatementBuilder

        wait = timedelta(minutes=self.settings.stream_wait_minutes)
        return StatementBuilder(self.ledger.reader, self.ledger.periods.is_frozen, wait)

    @cached_property
    def publisher_of_statements(self) -> Publisher:
        from shared.reports.formats import ASKED, FORMATS
        from shared.reports.publishing import Publisher

        return Publisher(self.statement_files, {name: FORMATS[name] for name in ASKED})

    @cached_property
    def published(self) -> PublishedStatements:
        from shared.reports.published import PublishedStatements

        return PublishedStatements(self.statement_files)

    @cached_property
    def freshness(self) -> LedgerFreshness:
        from shared.reports.freshness import LedgerFreshness

        return LedgerFreshness(self.ledger.hours, self._watermark_ms)

    @cached_property
    def reports(self) -> Reports:
        from shared.reports.service import Reports

        return Reports(
            lambda: self.config.current,
            self.statement_builder,
            self.ledger.periods,
            self.statement_files,
            self.publisher_of_statements,
            self.freshness,
            self.forecasts.of_statement,
        )

    @cached_property
    def close_months(self) -> CloseService:
        from shared.reports.close import CloseService

        return CloseService(
            lambda: self.config.current,
            self.reports,
            self.statement_builder,
            self.ledger.periods,
            self.statement_files,
            self.publisher_of_statements,
            self.freshness,
        )

    async def _watermark_ms(self) -> int | None:
        """Up to when every event on the usage hub has been processed."""
        from shared.ledger.watermark import find_watermark_ms

        progress = await self.state.progress()  # before the ends are read: what is enqueued in between is behind
        now_ms = time.time_ns() // 1_000_000
        ends = await self.publisher.partition_state()
        return await find_watermark_ms(self.settings.usage_hub, ends, progress, now_ms, self.outbox)

    @cached_property
    def spend_history(self) -> SpendHistory:
        from shared.reports.history import SpendHistory

        return SpendHistory(self.ledger.reader)

    @cached_property
    def budget_outlook(self) -> BudgetOutlook:
        from shared.reports.budget_outlook import BudgetOutlook

        return BudgetOutlook(self.spend, self.spend_history)

    @cached_property
    def simulations(self) -> Simulations:
        from shared.budgets.simulations import Simulations

        return Simulations(self.snapshot, self.ledger.reader)

    @cached_property
    def reconciliation(self) -> Reconciliations:
        from shared.reports.files import BlobFiles
        from shared.reports.reconcile.service import Reconciliations

        exports = BlobFiles(self.tables.blob_service.get_container_client(_COST_EXPORTS_CONTAINER))
        ledger, files = self.ledger.reader, self.statement_files
        return Reconciliations(lambda: self.config.current, ledger, exports, "", files, self.publisher.publish)

    @cached_property
    def forecasts(self) -> Forecasts:
        from shared.reports.outlook import Forecasts

        return Forecasts(self.spend_history)

    @cached_property
    def anomalies(self) -> Anomalies:
        from shared.reports.outlook import Anomalies

        return Anomalies(lambda: self.config.current, self.spend_history, self.outbox)

    @cached_property
    def helicone(self) -> HeliconeWebhook:
        from shared.usage.helicone import HeliconeWebhook

        return HeliconeWebhook(self.publisher, self.first_heard, self.settings.helicone_secret)

    @cached_property
    def first_heard(self) -> FirstHeard:
        from shared.usage.first_heard import FirstHeard

        return FirstHeard(self.tables.state)

    @cached_property
    def health(self) -> HealthService:
        from shared.health import HealthService

        async def storage() -> None:
            await self.state.dirty_tenants()

        async def hub() -> None:
            await self.publisher.partition_state()

        probes = {"redis": self.counters.ping, "storage": storage, "event_hub": hub}
        return HealthService(probes, lambda: self.config.current.version)

    async def close(self) -> None:
        """Close every connection that was opened."""
        opened = vars(self)
        for name in ("decisions", "decision_store", "config", "publisher", "log_publisher", "tables", "counters"):
            if name in opened:
                await opened[name].close()
        await asyncio.to_thread(self.telemetry.close)


_services: Services | None = None
_starting: asyncio.Lock | None = None


async def app() -> Services:
    """This process's services, started at the first call.

    Raises ConfigInvalid when settings or configuration are wrong; the next call tries again.
    """
    global _services, _starting
    if _services is None:
        _starting = _starting or asyncio.Lock()
        async with _starting:
            if _services is None:
                services = Services(Settings.from_env())
                await services.start()
                _services = services
    return _services


async def gateway() -> Services:
    """Services of the built-in gateway's process, started; its own door authenticates callers.

    Raises ConfigInvalid when settings or configuration are wrong.
    """
    services = Services(Settings.for_gateway())
    await services.start(knows_callers=True)
    return services
