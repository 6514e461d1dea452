"""One configuration and all that is derived from it, swapped as a whole when a new version arrives."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from shared.budgets.estimates import learning_levels
from shared.budgets.keys import tenant_keys
from shared.budgets.matching import BudgetIndex
from shared.budgets.plan import CheckPlan, DatedPlan, build_plan, date_plan, for_scopes
from shared.config.model import Config
from shared.pricing.pricer import Pricer
from shared.routing.router import Router

_PLANS_KEPT = 10_000
_Kind = tuple[str, tuple[tuple[str, str], ...], str, frozenset[str]]  # tenant, scopes, model, models that are unable
_NONE: frozenset[str] = frozenset()


class PreparedCheck:
    """Everything about a kind of call that does not change from call to call: keys, plan and script arguments."""

    __slots__ = ("dated", "keys")

    def __init__(self, dated: DatedPlan, scopes: Mapping[str, str], index: BudgetIndex) -> None:
        self.dated = dated
        plan = dated.plan
        keys = tenant_keys(plan.tenant)
        tenant = index.config.tenants[plan.tenant]
        names = [keys.meta, keys.bits, keys.index, keys.asserted, *(keys.cell(cell.id) for cell in dated.cells)]
        for model in plan.candidates:
            levels = learning_levels(plan.tenant, scopes, tenant.client_asserted_scopes, model)
            levels += levels[-1:] * (3 - len(levels))  # the script reads three; repeating the last reads nothing new
            names += [keys.learned(level) for level in levels]
        self.keys = tuple(names)


class Snapshot:
    """A configuration with its budget index, pricer, router and the plans made from it."""

    def __init__(self, config: Config, pricer: Pricer, router: Router) -> None:
        self.config = config
        self.index = BudgetIndex(config)
        self.pricer = pricer
        self.router = router
        self.deployments = router.deployments
        self._prepared: dict[_Kind, PreparedCheck] = {}
        self._patterns: dict[_Kind, DatedPlan] = {}

    def prepare(
        self, tenant: str, scopes: Mapping[str, str], model: str, instant_s: float, unable: frozenset[str] = _NONE
    ) -> PreparedCheck:
        """The prepared check of such a call at this instant; made anew only when one of its periods has ended.

        No downgrade leads to a model that is `unable` to serve the call.
        """
        kind = (tenant, tuple(scopes.items()), model, unable)
        prepared = self._prepared.get(kind)
        if prepared is None or not prepared.dated.valid_at(instant_s):
            if len(self._prepared) >= _PLANS_KEPT:
                self._prepared.clear()  # a burst of invented keys must not hold memory; rebuilding costs microseconds
            dated = for_scopes(self._pattern(tenant, scopes, model, unable, instant_s), scopes)
            prepared = self._prepared[kind] = PreparedCheck(dated, scopes, self.index)
        return prepared

    def _pattern(
        self, tenant: str, scopes: Mapping[str, str], model: str, unable: frozenset[str], instant_s: float
    ) -> DatedPlan:
        """The plan of all calls that differ only in keys which no budget names, be they a million users."""
        keys = ((kind, key if self.index.names(tenant, kind, key) else "*") for kind, key in scopes.items())
        pattern = (tenant, tuple(keys), model, unable)
        dated = self._patterns.get(pattern)
        if dated is None or not dated.valid_at(instant_s):
            if len(self._patterns) >= _PLANS_KEPT:
                self._patterns.clear()
            dated = self._patterns[pattern] = date_plan(self._build_plan(*pattern), self.index, instant_s)
        return dated

    def typical_output_tokens(self, model: str, default: int) -> int:
        """What a model usually writes before anything was learned: as configured, else the default."""
        known = self.config.models.get(model)
        return (known and known.typical_output_tokens) or default

    def _build_plan(
        self, tenant: str, scopes: tuple[tuple[str, str], ...], model: str, unable: frozenset[str]
    ) -> CheckPlan:
        now_utc = datetime.now(UTC)  # of prices, for `to: cheapest`

        def resolve(requested: str, target: str) -> str | None:
            return self.router.downgrade_target(requested, target, tenant, now_utc, exclude=unable)

        return build_plan(self.index, tenant, dict(scopes), model, resolve)
