"""What the YAML files mean once validated: immutable values the rules work on. Amounts are integers already."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from shared.config.billing import Billing

PeriodKind = Literal["hour", "day", "week", "month", "quarter", "year", "total"]
OnStop = Literal["refuse", "downgrade", "allow"]
FailMode = Literal["open", "closed", "cached"]
Enforcement = Literal["on", "observe", "off"]
Channel = Literal["slack", "teams", "email", "webhook"]
CHANNELS: tuple[Channel, ...] = ("slack", "teams", "email", "webhook")
Api = Literal["azure-openai", "openai", "anthropic", "openrouter", "databricks"]
APIS: tuple[Api, ...] = ("azure-openai", "openai", "anthropic", "openrouter", "databricks")


class DowngradeRule(msgspec.Struct, frozen=True):
    """From the degrade threshold on, models matching `sources` (shell-style globs) are served by `target`.

    `target` is a model id, or `cheapest`.
    """

    sources: tuple[str, ...]
    target: str


class Budget(msgspec.Struct, frozen=True):
    """One limit on one scope and period. Thresholds are parts per million of the limit, so they stay integers."""

    id: str  # stable across edits of the amounts: names the notifications and rollover carry of this budget
    tenant: str | None  # None: applies in every tenant
    scope_type: str
    scope_key: str  # "*": one counter per key
    period: PeriodKind
    timezone: str
    limit_nano: int  # nano units of `currency`
    currency: str = "USD"
    warn_ppm: int = 800_000
    degrade_ppm: int = 900_000
    stop_ppm: int = 1_000_000
    downgrade: tuple[DowngradeRule, ...] = ()
    disable_tools: tuple[str, ...] = ()
    on_stop: OnStop = "refuse"
    rollover: bool = False
    rollover_cap_nano: int | None = None  # None: the carry is capped at the limit itself


class BudgetEdit(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one budget that was made beside git, and whether it holds. None: that figure is as in git."""

    budget: str
    who: str
    why: str
    at_utc: datetime
    base: str  # digest of the git entry that was in front of whoever made it
    limit_nano: int | None = None
    warn_ppm: int | None = None
    degrade_ppm: int | None = None
    stop_ppm: int | None = None
    git: Budget | None = None  # what git says; None: git has no such budget any more
    superseded: str | None = None  # why the edit does not hold; None: it is in force


class Tenant(msgspec.Struct, frozen=True):
    """The billing organisation and how its calls are treated."""

    id: str
    fail_mode: FailMode = "closed"
    exhausted_status: Literal[402, 429] = 402
    currency: str = "USD"
    client_asserted_scopes: frozenset[str] = frozenset()
    enforcement: Enforcement = "on"
    cache_seconds: int = 0
    guard_usd_per_million: Mapping[str, int] = msgspec.field(default_factory=dict)  # pico-USD per token: input, output
    allowed_models: tuple[str, ...] = ()  # globs; empty: every model
    finance: frozenset[str] = frozenset()  # object ids (users or groups) that read the whole tenant


class Team(msgspec.Struct, frozen=True):
    """Who a team is: the validated identities that resolve to it."""

    id: str
    tenant: str
    org: str | None = None  # what it is part of: key of the scope `org` that its calls carry
    cost_centre: str | None = None
    owner: str | None = None
    apps: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    subscriptions: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()
    allowed_models: tuple[str, ...] = ()  # globs, on top of the tenant's; empty: every model


class Model(msgspec.Struct, frozen=True):
    """A model that calls may name, and what it can do."""

    id: str
    provider: str = "azure-openai"
    deployments: tuple[str, ...] = ()
    capabilities: frozenset[str] = frozenset()
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    typical_output_tokens: int | None = None  # the estimate before anything was learned
    fallbacks: tuple[str, ...] = ()
    deployment_type: str | None = None  # global, data-zone, regional, batch: which price line applies
    price_as: str | None = None  # the price-book model this id is billed as, when the ids differ
    places: Mapping[str, str] = msgspec.field(default_factory=dict)  # deployment -> endpoint id, where config names it

    @property
    def served_by(self) -> tuple[str, ...]:
        """Its deployments; one of its own name where none is listed."""
        return self.deployments or (self.id,)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the built-in gateway finds deployments of a provider. API Management has backends of its own instead."""

    id: str
    provider: str
    api: Api
    url: str  # without a slash at the end; what an API's paths stand behind
    key: str | None = None  # name of the app setting that holds the key; None: Entra ID, or none is needed
    region: str | None = None
    data_zone: str | None = None  # such as eu: where data may be processed
    timeout_seconds: int = 600  # for the first byte of an answer: reasoning models think for minutes
    stall_seconds: int = 300  # of silence within an answer, after which it counts as broken
    stream_options: bool = True  # whether the server knows this field, by which usage of a stream is asked for


class PriceOverride(msgspec.Struct, frozen=True):
    """A dated price that beats the built-in book; the most specific entry wins, then the newest not after the event."""

    model: str
    effective_from: datetime
    unit_pico: Mapping[str, int]  # token kind -> pico-USD per token
    provider: str | None = None
    deployment: str | None = None
    region: str | None = None
    tenant: str | None = None


class Discount(msgspec.Struct, frozen=True, kw_only=True):
    """A dated share off list prices; the most specific entry wins, then the newest not after the call."""

    effective_from: datetime
    off_ppm: int  # parts per million of the list price; 0 ends an earlier discount
    model: str | None = None  # an id or a glob
    provider: str | None = None
    deployment: str | None = None
    region: str | None = None
    tenant: str | None = None


class ExchangeRate(msgspec.Struct, frozen=True):
    """What one unit of a currency is worth in USD from an instant on. A budget uses the rate at its period's start."""

    currency: str
    effective_from: datetime
    usd_per_unit_nano: int
    source: str = ""  # who published it; statements print it


class AlertRoute(msgspec.Struct, frozen=True):
    """Where kinds of notifications go."""

    kinds: tuple[str, ...]  # "*": every kind
    channel: Channel
    target: str  # name of the app setting that holds the address
    secret: str | None = None  # name of the app setting that holds the signing secret of a webhook
    tenants: frozenset[str] = frozenset()  # empty: every tenant, and what concerns no tenant
    scopes: tuple[str, ...] = ()  # such as team:search or team:*; empty: every notice


class Config(msgspec.Struct, frozen=True):
    """One validated configuration. `version` is a digest of the files, so equal files are equal versions everywhere."""

    version: str
    tenants: Mapping[str, Tenant]
    teams: Mapping[str, Team]  # by team id
    budgets: tuple[Budget, ...]
    models: Mapping[str, Model]  # by model id
    prices: tuple[PriceOverride, ...] = ()
    discounts: tuple[Discount, ...] = ()
    rates: tuple[ExchangeRate, ...] = ()
    alerts: tuple[AlertRoute, ...] = ()
    billing: Billing = Billing()
    edits: Mapping[str, BudgetEdit] = msgspec.field(default_factory=dict)  # by budget id
    entry_digests: Mapping[str, str] = msgspec.field(default_factory=dict)  # budget id -> digest of its git entry
    loaded_at_utc: datetime | None = None
    endpoints: Mapping[str, Endpoint] = msgspec.field(default_factory=dict)  # by id, in the order of models.yaml
