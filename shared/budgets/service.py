"""The budget check: one script call per question, and a stated answer when the counters cannot be read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from shared.budgets.answer import CheckAnswer, budget_view, most_restrictive, refusal
from shared.budgets.breaker import CircuitBreaker
from shared.budgets.cells import Cell
from shared.budgets.decisions import DecisionLog
from shared.budgets.last_seen import LastSeen
from shared.budgets.plan import CheckPlan, DatedPlan
from shared.budgets.redis_errors import is_outage, is_refusal
from shared.budgets.request import CheckRequest, canonical, require_allowed_model, resolve_caller
from shared.budgets.reservation import Reservation, ReservationSigner
from shared.budgets.routed import AUTO, bounds_of, route_request, served_place, unable_models, wants_route
from shared.budgets.rules import BudgetFigures, Candidate, decide, worst_state
from shared.budgets.snapshot import PreparedCheck, Snapshot
from shared.budgets.store import BudgetStore, CheckReply
from shared.config.model import Tenant
from shared.errors import DeadlinePassed, Forbidden, InvalidRequest, StateUnavailable
from shared.money import decimal_from_nano, line_nano_usd
from shared.ppm import PPM
from shared.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from shared.routing.route import Route
from shared.scopes import ORGANISATIONAL
from shared.usage.estimate import estimate_input_tokens

log = logging.getLogger("tollkeeper.budgets")

_UNAVAILABLE_RETRY_SECONDS = 2
_MOST_INPUT_NANO_USD = 10**15  # a million dollars for one call is a mistake, and past 2^53 Lua would round it
_ASSUMED_CALLS_PER_SECOND = 50  # of one scope, when judging whether a cached answer could cross a threshold


class BudgetService:
    """Answers `may this call run, and on which model?` and takes reservations back."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        store: BudgetStore,
        signer: ReservationSigner,
        *,
        default_output_tokens: int,
        timeout_seconds: float,
        stalled_ingest_ms: int,
        breaker: CircuitBreaker | None = None,
        decisions: DecisionLog | None = None,
        pseudonyms: Pseudonyms = NO_PSEUDONYMS,
    ) -> None:
        self._snapshot = snapshot
        self._store = store
        self._signer = signer
        self._default_output_tokens = default_output_tokens
        self._timeout_seconds = timeout_seconds
        self._stalled_ingest_ms = stalled_ingest_ms
        self._breaker = breaker or CircuitBreaker()
        self._clock_offset_ms = 0  # Redis time minus ours
        self._last_seen = LastSeen()
        self._decisions = decisions
        self._pseudonyms = pseudonyms

    async def check(self, request: CheckRequest) -> CheckAnswer:
        """Decide one call.

        A refusal is an answer; InvalidRequest, Forbidden, StateUnavailable and DeadlinePassed are raised.
        """
        _require_time_left(request)
        snapshot = self._snapshot()
        tenant, scopes = resolve_caller(request, snapshot.config)
        scopes = self._pseudonyms.scopes(scopes)
        bounds = bounds_of(request)
        route: Route | None = None
        if wants_route(request, snapshot):
            request, route = route_request(request, snapshot, tenant, scopes, self._now_utc())
        else:
            request = canonical(request, snapshot.deployments)
            if bounds:
                request.deployment = served_place(snapshot, request.model, bounds, request.deployment).deployment
        try:
            require_allowed_model(snapshot.config, tenant, scopes, request.model)
            answer = await self._decide(snapshot, request, tenant, scopes)
        except (Forbidden, StateUnavailable) as error:
            if self._decisions is not None and request.attempt == 1:
                self._decisions.note_denied(tenant, scopes, request.model, error.code)
            raise
        try:
            if answer.model != request.model:
                served = served_place(snapshot, answer.model, bounds)
                answer.provider, answer.deployment = served.provider, served.deployment
            _require_time_left(request)
        except (DeadlinePassed, InvalidRequest):
            if answer.reservation is not None:  # nobody is left to give it back, and it would tie up budget for minutes
                await self.release(answer.reservation)
            raise
        if route is not None:
            answer.requested_model, answer.routing = AUTO, route
            answer.cache_seconds = 0  # another call of the same caller may need another model
        if self._decisions is not None:
            self._decisions.note(answer, request, tenant)
        return answer

    async def _decide(
        self, snapshot: Snapshot, request: CheckRequest, tenant: Tenant, scopes: dict[str, str]
    ) -> CheckAnswer:
        """The answer, with the place of the requested model as if that were served."""
        if tenant.enforcement == "off":
            return self._allow_unchecked(request, tenant, scopes, "enforcement_off")
        estimates = self._candidate_args(snapshot, tenant, request)
        unable = unable_models(request, snapshot)
        reply: CheckReply | None = None
        for _ in range(3):  # a reply `stale` means that a period ended between our clock and Redis's: look again
            prepared = snapshot.prepare(tenant.id, scopes, request.model, self._now_ms() / 1000, unable)
            args = estimates(prepared.dated.plan)
            reply = await self._ask(prepared, args, tenant)
            if reply is None or reply.outcome != "stale":
                break
        if reply is None or reply.outcome in ("unready", "stale"):
            return self._without_state(request, tenant, scopes, prepared, args)
        if reply.outcome == "crowded":
            family, key = prepared.dated.plan.cells[reply.binding]
            raise Forbidden(
                f"scopes.{family.scope_type}: too many live keys in this tenant; {key!r} cannot be added now",
                code="scope_not_allowed",
                param=f"scopes.{family.scope_type}",
            )
        stalled = reply.now_ms - reply.watermark_ms > self._stalled_ingest_ms
        if stalled and reply.outcome == "reserved" and tenant.enforcement == "on":
            log.error("ingest_stalled", extra={"tenant": tenant.id, "behind_ms": reply.now_ms - reply.watermark_ms})
            return self._without_state(request, tenant, scopes, prepared, args)
        return self._answer(request, tenant, scopes, prepared.dated, reply)

    async def release(self, token: str) -> bool:
        """Give a reservation back at once. False when the token is not one of ours; twice is harmless.

        Raises StateUnavailable when the counters cannot be reached.
        """
        reservation = self._signer.read(token)
        if reservation is None:
            return False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._store.release(reservation)
        except Exception as error:
            if not is_outage(error):
                raise
            raise self._unavailable() from error
        return True

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._clock_offset_ms

    def _now_utc(self) -> datetime:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)

    async def _ask(self, prepared: PreparedCheck, candidates: Sequence[int], tenant: Tenant) -> CheckReply | None:
        """The reply, or None when Redis cannot be asked."""
        if not self._breaker.allows():
            return None
        observe = tenant.enforcement == "observe"
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reply = await self._store.check(prepared.keys, prepared.dated.script_plan, candidates, observe)
        except Exception as error:
            if not is_outage(error):
                raise
            if not is_refusal(error):  # an answer came, and only this tenant's data or slot may be wrong
                self._breaker.failed()
            log.warning("redis_unavailable", extra={"tenant": tenant.id, "error": str(error) or type(error).__name__})
            return None
        self._breaker.succeeded()
        self._clock_offset_ms = reply.now_ms - time.time_ns() // 1_000_000
        return reply

    def _candidate_args(
        self, snapshot: Snapshot, tenant: Tenant, request: CheckRequest
    ) -> Callable[[CheckPlan], list[int]]:
        """The part of check.lua's arguments that depends on the call: what each candidate would cost."""
        input_tokens = estimate_input_tokens(request.input_tokens, request.input_bytes)
        cap = -1 if request.max_output_tokens is None else request.max_output_tokens
        at_utc = datetime.fromtimestamp(self._now_ms() / 1000, UTC)

        def arguments(plan: CheckPlan) -> list[int]:
            args: list[int] = []
            for i, model in enumerate(plan.candidates):
                provider, deployment = request.provider, request.deployment
                if i > 0:
                    _, provider, deployment = snapshot.deployments.serving(model)
                region = request.region or snapshot.router.region_of(provider, deployment)
                place = (tenant.id, provider, model, deployment, region, at_utc)
                input_pico, output_pico = snapshot.pricer.hold_prices(*place, input_tokens, request.service_tier)
                input_nano_usd = line_nano_usd(input_tokens, input_pico)
                if input_nano_usd > _MOST_INPUT_NANO_USD:
                    raise InvalidRequest("input_tokens: one call cannot cost over a million USD", param="input_tokens")
                default = 0  # embeddings write nothing
                if request.operation != "embeddings":
                    default = snapshot.typical_output_tokens(model, self._default_output_tokens)
                # What was learned is the length of one answer; each further one is held at its usual length.
                further = (request.choices - 1) * (default if cap < 0 else min(default, cap // request.choices))
                fixed_nano_usd = input_nano_usd + line_nano_usd(further, output_pico)
                args += (fixed_nano_usd, output_pico, cap if cap < 0 else cap - further, default)
            return args

        return arguments

    def _answer(
        self, request: CheckRequest, tenant: Tenant, scopes: dict[str, str], dated: DatedPlan, reply: CheckReply
    ) -> CheckAnswer:
        plan = dated.plan
        self._last_seen.remember(dated, reply.figures)
        refused = reply.outcome != "ok"
        observing = tenant.enforcement == "observe"
        held = not refused or observing
        before = _figures(dated, reply.figures)
        flags = plan.flags[reply.candidate]
        mine = [i for i, flag in enumerate(flags) if flag != "x"]
        state = worst_state([before[i].state for i in mine])
        after = [_with_hold(row, reply.estimate_nano_usd if held else 0) for row in before]
        binding = reply.binding if refused else most_restrictive([after[i] for i in mine])
        number = binding if refused or binding is None else mine[binding]
        cell = None if number is None else dated.cells[plan.budgets[number].cell]
        admitted = datetime.fromtimestamp(reply.now_ms / 1000, UTC)
        answer = CheckAnswer(
            decision="allow",
            reason="within_budget",
            tenant=tenant.id,
            scopes=scopes,
            requested_model=request.model,
            model=plan.candidates[reply.candidate],
            provider=request.provider,
            deployment=request.deployment,
            state=state,
            disabled_tools=_disabled_tools([before[i] for i in mine], request.tools),
            budget=None if number is None or cell is None else budget_view(cell, after[number]),
            admitted_at_utc=admitted,
            reservation=self._token(request, dated, reply) if held else None,
            estimate_nano_usd=reply.estimate_nano_usd,
        )
        if refused and number is not None and cell is not None:
            error = refusal(reply.outcome, before[number], cell, tenant.exhausted_status, admitted)
            if observing:
                answer.reason, answer.observed = "observe_only", {"decision": "refuse", "reason": error.code}
            else:
                answer.decision, answer.reason, answer.error, answer.model = "refuse", error.code, error, request.model
                answer.state = "stopped"
                if request.attempt == 1:  # a fallback that is refused spares nothing: its call was never made
                    _log_refused(answer, cell, reply.estimate_nano_usd)
        elif reply.candidate > 0:
            degraded = state in ("degraded", "stopped")
            answer.decision = "downgrade"
            answer.reason = "budget_degraded" if degraded else "requested_model_does_not_fit"
            if observing:
                answer.observed = {"decision": "downgrade", "model": answer.model}
                answer.decision, answer.reason, answer.model = "allow", "observe_only", request.model
        elif state == "stopped":
            answer.reason = "stopped_alert_only"
        if observing:
            answer.disabled_tools = []
        answer.cache_seconds = _cache_seconds(tenant, answer, [after[i] for i in mine], reply.estimate_nano_usd)
        return answer

    def _token(self, request: CheckRequest, dated: DatedPlan, reply: CheckReply) -> str:
        holds = dated.plan.holds[reply.candidate]
        return self._signer.sign(
            Reservation(
                dated.plan.tenant,
                reply.generation,
                reply.now_ms,
                reply.bucket,
                reply.ordinal,
                reply.estimate_nano_usd,
                tuple(cell.id for cell, held in zip(dated.cells, holds, strict=True) if held == "1"),
                dated.plan.candidates[reply.candidate],
                estimate_input_tokens(request.input_tokens, request.input_bytes),
                reply.output_tokens_mean,
            )
        )

    def _without_state(
        self,
        request: CheckRequest,
        tenant: Tenant,
        scopes: dict[str, str],
        prepared: PreparedCheck,
        candidates: Sequence[int],
    ) -> CheckAnswer:
        """What the tenant's fail mode says while the counters cannot be read."""
        if tenant.fail_mode == "open" or tenant.enforcement == "observe":
            return self._allow_unchecked(request, tenant, scopes, "state_unavailable_open")
        if tenant.fail_mode == "cached" and (answer := self._from_cache(request, tenant, scopes, prepared, candidates)):
            return answer
        raise self._unavailable()

    def _from_cache(
        self,
        request: CheckRequest,
        tenant: Tenant,
        scopes: dict[str, str],
        prepared: PreparedCheck,
        candidates: Sequence[int],
    ) -> CheckAnswer | None:
        """Decide on the last figures this process saw; None when one is missing, too old, or the call does not fit."""
        dated, plan = prepared.dated, prepared.dated.plan
        figures = self._last_seen.figures(dated)
        if figures is None:
            return None
        rows = _figures(dated, (*figures, *([0] * len(plan.budgets))))
        models = []
        for i, model in enumerate(plan.candidates):
            input_nano, output_pico, cap, default = candidates[i * 4 : i * 4 + 4]
            tokens = default if cap < 0 else min(cap, default)
            models.append(Candidate(model, input_nano + line_nano_usd(tokens, output_pico), plan.flags[i]))
        verdict = decide(rows, models)
        if verdict.outcome != "ok":
            return None
        answer = self._allow_unchecked(request, tenant, scopes, "state_unavailable_cached")
        answer.model = models[verdict.candidate].model
        answer.decision = "allow" if verdict.candidate == 0 else "downgrade"
        answer.state = worst_state([row.state for row in rows])
        return answer

    def _allow_unchecked(
        self, request: CheckRequest, tenant: Tenant, scopes: dict[str, str], reason: str
    ) -> CheckAnswer:
        return CheckAnswer(
            decision="allow",
            reason=reason,
            tenant=tenant.id,
            scopes=scopes,
            requested_model=request.model,
            model=request.model,
            provider=request.provider,
            deployment=request.deployment,
            state="active",
            disabled_tools=[],
            budget=None,
            admitted_at_utc=datetime.fromtimestamp(self._now_ms() / 1000, UTC),
        )

    @staticmethod
    def _unavailable() -> StateUnavailable:
        return StateUnavailable(
            "The budget counters cannot be read right now and this tenant fails closed. Retry shortly.",
            retry_after_seconds=_UNAVAILABLE_RETRY_SECONDS,
        )


def _require_time_left(request: CheckRequest) -> None:
    """Raise DeadlinePassed when the caller has stopped waiting: it has gone on by its own fail mode.

    The instant comes from the caller's clock. A clock of ours that is ahead by more than the caller's whole patience
    would refuse every call, and says so in the log.
    """
    if request.deadline is not None and (late := datetime.now(UTC) - request.deadline).total_seconds() > 0:
        log.warning("check_too_late", extra={"late_seconds": late.total_seconds()})
        raise DeadlinePassed("deadline: it has passed; nothing is held for this call", param="deadline")


def _log_refused(answer: CheckAnswer, cell: Cell, estimate_nano_usd: int) -> None:
    """What a call would have cost that was not made. The scope stays out where it may name a person."""
    scope_type = cell.family.scope_type
    log.info(
        "call_refused",
        extra={
            "tenant": answer.tenant,
            "team": answer.scopes.get("team", ""),
            "model": answer.requested_model,
            "reason": answer.reason,
            "scope": cell.scope if scope_type in ORGANISATIONAL else scope_type,
            "estimate_usd": decimal_from_nano(estimate_nano_usd),
        },
    )


def _figures(dated: DatedPlan, numbers: Sequence[int]) -> list[BudgetFigures]:
    """Each budget beside its counter, from the flat reply: spent and held per cell, then a carry per budget."""
    carries = numbers[2 * len(dated.cells) :]
    return [
        BudgetFigures(planned.budget, limit, numbers[2 * planned.cell], max(0, numbers[2 * planned.cell + 1]), carry)
        for planned, limit, carry in zip(dated.plan.budgets, dated.limits_nano_usd, carries, strict=True)
    ]


def _with_hold(row: BudgetFigures, amount_nano_usd: int) -> BudgetFigures:
    return BudgetFigures(
        row.budget, row.limit_nano_usd, row.spent_nano_usd, row.held_nano_usd + amount_nano_usd, row.carry_nano_usd
    )


def _disabled_tools(rows: Sequence[BudgetFigures], requested: Sequence[str] | None) -> list[str]:
    """Tools that degraded budgets switch off; only those the call asked for, when it says which."""
    disabled: dict[str, None] = {}
    for row in rows:
        if row.budget.disable_tools and row.state in ("degraded", "stopped"):
            disabled.update(dict.fromkeys(row.budget.disable_tools))
    return [tool for tool in disabled if requested is None or tool in requested]


def _cache_seconds(tenant: Tenant, answer: CheckAnswer, rows: Sequence[BudgetFigures], estimate_nano_usd: int) -> int:
    """How long an `active` answer may be reused without crossing a threshold unseen; 0 unless config allows it."""
    if not tenant.cache_seconds or answer.state != "active" or answer.decision != "allow":
        return 0
    dearest = _ASSUMED_CALLS_PER_SECOND * tenant.cache_seconds * estimate_nano_usd
    warned_at = [row.limit_nano_usd * row.budget.warn_ppm // PPM for row in rows]
    roomy = all(row.used_nano_usd + dearest < at for row, at in zip(rows, warned_at, strict=True))
    return tenant.cache_seconds if roomy else 0
