"""Small fakes of the services behind the doors, and a way to call a door as somebody."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import azure.functions as func

from shared.budgets.answer import CheckAnswer
from shared.budgets.snapshot import Snapshot
from shared.budgets.spend import require_state
from shared.config.model import Budget, Config, Model, PriceOverride, Team, Tenant
from shared.errors import BudgetExhausted, NotFound
from shared.health import Health
from shared.ledger.names import DisplayName
from shared.ledger.rerate import RerateReport
from shared.ledger.rollup import RollupCell
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.pseudonyms import NO_PSEUDONYMS
from shared.reports.budget_outlook import BudgetOutlook
from shared.reports.history import SpendHistory
from shared.reports.outlook import Anomalies, Forecasts
from shared.reports.service import Reports
from shared.routing.router import Router
from shared.settings import Settings
from tests.support.reports import MemoryFiles, MemoryMonths, reports_over

NOW = datetime.now(UTC)
OBJECT_ID = "http://schemas.microsoft.com/identity/claims/objectidentifier"

CONFIG = Config(
    version="v1",
    tenants={
        "default": Tenant(id="default"),
        "contoso": Tenant(id="contoso", finance=frozenset({"finance-group"})),
        "fabrikam": Tenant(id="fabrikam", client_asserted_scopes=frozenset({"user"})),
    },
    teams={
        "search": Team(
            id="search",
            tenant="contoso",
            cost_centre="CC-1001",
            users=frozenset({"ada"}),
            groups=frozenset({"search-group"}),
            apps=frozenset({"search-app"}),
            subscriptions=frozenset({"search-prod"}),
        ),
        "ads": Team(id="ads", tenant="contoso", cost_centre="=cmd()", groups=frozenset({"ads-group"})),
        "fab": Team(id="fab", tenant="fabrikam", users=frozenset({"ada"})),
    },
    budgets=(Budget("b1", None, "team", "*", "month", "UTC", 100 * 10**9),),
    models={
        "gpt-4o": Model(
            id="gpt-4o",
            deployments=("gpt-4o-weu",),
            capabilities=frozenset({"chat", "tools", "vision"}),
            fallbacks=("gpt-4o-mini",),
        ),
        "gpt-4o-mini": Model(id="gpt-4o-mini", capabilities=frozenset({"chat", "tools"})),
    },
    prices=(
        PriceOverride("gpt-4o", datetime(2026, 1, 1, tzinfo=UTC), {"input": 2_500_000, "output": 10_000_000}),
        PriceOverride("gpt-4o-mini", datetime(2026, 1, 1, tzinfo=UTC), {"input": 150_000, "output": 600_000}),
    ),
)


class Recorder:
    """An async callable that records its arguments and answers what it was told to, or raises it."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class FakeLedger:
    """Sums of the ledger, held in a list."""

    def __init__(self, cells: Sequence[RollupCell] = ()) -> None:
        self.all = list(cells)

    async def cells(
        self, tenant: str, start_utc: datetime, end_utc: datetime, *, booked_later: bool = False
    ) -> AsyncIterator[RollupCell]:
        for cell in self.all:
            if cell.tenant == tenant and start_utc <= cell.quarter_utc < end_utc:
                yield cell


class FakeSpend:
    """Counters, held in a list."""

    def __init__(self, rows: Sequence[dict[str, Any]] = ()) -> None:
        self.rows = list(rows)

    async def list(self, tenant: str, scope_type: str | None = None, state: str | None = None) -> list[dict[str, Any]]:
        if state is not None:
            require_state(state)
        return [
            row
            for row in self.rows
            if row["tenant"] == tenant
            and state in (None, row["state"])
            and scope_type in (None, row["scope"].split(":")[0])
        ]

    async def one(self, tenant: str, scope_type: str, scope_key: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["tenant"] == tenant and row["scope"] == f"{scope_type}:{scope_key}"]


def fake_reports(ledger: FakeLedger, files: MemoryFiles, frozen: Sequence[str] = ()) -> Reports:
    """The real reports over fake stores; `frozen` lists closed months."""
    return reports_over(lambda: CONFIG, ledger, files, MemoryMonths(frozen))


def fake_services(**overrides: Any) -> SimpleNamespace:
    """Services that answer happily; give an attribute to replace one."""
    ledger, spend, files = FakeLedger(), FakeSpend(), MemoryFiles()
    history = SpendHistory(ledger)
    pricer = Pricer(PriceBook([]), CONFIG)
    snapshot = Snapshot(CONFIG, pricer, Router(CONFIG, pricer))
    services = SimpleNamespace(
        ledger=ledger,
        files=files,
        settings=Settings(environment="development"),
        config=SimpleNamespace(current=CONFIG),
        budget=SimpleNamespace(check=Recorder(allowed()), release=Recorder(True)),
        reset=SimpleNamespace(reset=Recorder({"accepted": 1})),
        publisher=SimpleNamespace(publish=Recorder()),
        helicone=SimpleNamespace(take=Recorder()),
        config_edits=SimpleNamespace(change=Recorder(CONFIG), revert=Recorder(CONFIG), history=Recorder([])),
        spend=spend,
        reports=fake_reports(ledger, files),
        budget_outlook=BudgetOutlook(spend, history),
        forecasts=Forecasts(history),
        anomalies=SimpleNamespace(find=Anomalies(lambda: CONFIG, history, SimpleNamespace()).find, notify=Recorder(0)),
        reconciliation=SimpleNamespace(run_due=Recorder([]), latest=Recorder({})),
        summaries=SimpleNamespace(summarize=Recorder([])),
        recent_decisions=SimpleNamespace(newest=Recorder([])),
        published=SimpleNamespace(all=Recorder([]), open=Recorder(NotFound("no such file"))),
        dead_letters=SimpleNamespace(list=Recorder([])),
        re_rate=SimpleNamespace(run=Recorder(), re_rate=Recorder(RerateReport(calls=3, changed=2))),
        pseudonyms=NO_PSEUDONYMS,
        ledger_export=SimpleNamespace(run=Recorder()),
        names=SimpleNamespace(all=Recorder({}), put=Recorder(DisplayName("Ada", "somebody", NOW)), erase=Recorder()),
        replay=SimpleNamespace(run=Recorder(SimpleNamespace(replayed=1, unknown=[]))),
        health=SimpleNamespace(check=Recorder(Health({"redis": "ok", "ledger": "ok", "hub": "ok"}, "v1"))),
        repair=SimpleNamespace(run=Recorder([]), reconcile_all=Recorder([])),
        rollups=SimpleNamespace(run=Recorder()),
        close_months=SimpleNamespace(run=Recorder([]), close=Recorder()),
        retention=SimpleNamespace(run=Recorder()),
        ingest=SimpleNamespace(run=Recorder()),
        llm_logs=SimpleNamespace(run=Recorder()),
        standing_log=SimpleNamespace(run=Recorder()),
        stream_sweep=SimpleNamespace(run=Recorder()),
        delivery=SimpleNamespace(run=Recorder()),
        dead_letter_notices=SimpleNamespace(run=Recorder()),
        digest=SimpleNamespace(run=Recorder()),
        router=snapshot.router,
        snapshot=lambda: snapshot,
    )
    for name, value in overrides.items():
        setattr(services, name, value)
    return services


def allowed() -> CheckAnswer:
    """A check's plain allowance."""
    return CheckAnswer(
        decision="allow",
        reason="within_budget",
        tenant="contoso",
        scopes={"team": "search"},
        requested_model="gpt-4o",
        model="gpt-4o",
        provider="azure-openai",
        deployment="gpt-4o",
        state="active",
        disabled_tools=[],
        budget=None,
        admitted_at_utc=NOW,
        reservation="token",
    )


def refused() -> CheckAnswer:
    """A check's refusal of a spent budget."""
    answer = allowed()
    answer.decision, answer.reason, answer.state, answer.reservation = "refuse", "budget_exhausted", "stopped", None
    answer.error = BudgetExhausted("Budget team:search (2026-11) is spent")
    return answer


def principal(*roles: str, oid: str | None = "somebody", groups: Sequence[str] = (), app: str | None = None) -> str:
    """The header the platform sets for a caller of Entra ID."""
    claims = [{"typ": "roles", "val": role} for role in roles]
    claims += [{"typ": "groups", "val": group} for group in groups]
    claims += [{"typ": OBJECT_ID, "val": oid}] if oid else []
    claims += [{"typ": "azp", "val": app}] if app else []
    return encode_principal({"auth_typ": "aad", "name_typ": "name", "role_typ": "roles", "claims": claims})


def encode_principal(document: Any) -> str:
    """The base64 JSON spelling of a principal document."""
    return base64.b64encode(json.dumps(document).encode()).decode()


class Reply:
    """A door's answer, read."""

    def __init__(self, response: func.HttpResponse) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.raw = response.get_body()
        self.media_type = response.mimetype

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> str:
        """The error's stable code."""
        return str(self.json["error"]["code"])

    @property
    def param(self) -> str | None:
        """The field the error names."""
        param = self.json["error"]["param"]
        assert param is None or isinstance(param, str)
        return param


class Doors:
    """The app's functions by name, callable like a client would."""

    def __init__(self, functions: Sequence[func.Function]) -> None:
        self.functions = {each.get_function_name(): each for each in functions}

    async def call(
        self,
        name: str,
        *,
        body: Any = b"",
        query: Mapping[str, str] | None = None,
        route: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        as_: str | None = None,
    ) -> Reply:
        """Call a door; `as_` is a principal header, left out for the local developer."""
        sent = dict(headers or {})
        if as_ is not None:
            sent["x-ms-client-principal"] = as_
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        trigger = self.functions[name].get_trigger()
        method = trigger.methods[0].value
        request = func.HttpRequest(
            method=method,
            url=f"http://127.0.0.1/api/v1/{trigger.route}",
            headers=sent,
            params=dict(query or {}),
            route_params=dict(route or {}),
            body=raw,
        )
        return Reply(await self.functions[name].get_user_function()(request))
