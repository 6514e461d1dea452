"""One run: look, disturb if asked to, judge."""

from __future__ import annotations

from collections.abc import Collection

from scripts.azure.arm import ArmError
from scripts.azure.verify.disturb import DISTURBANCES, LIST, Disturbance, Workshop
from scripts.azure.verify.errors import CannotRunError
from scripts.azure.verify.observe import Observer, System
from scripts.azure.verify.points import PROBES, place, points
from scripts.azure.verify.probe import Probe, Result, Verdict, not_measured

_NANO = 10**9


def wanted_points(asked: Collection[str]) -> frozenset[str]:
    """The ids that are asked for; all when none is. Raises CannotRunError for an unknown one."""
    known = {point.id for point in points()}
    if unknown := sorted(set(asked) - known):
        raise CannotRunError(f"{unknown[0]}: is no point; --list shows them")
    return frozenset(asked or known)


def chosen_probes(wanted: Collection[str]) -> list[Probe]:
    """The probes of these points."""
    return [probe for probe in PROBES if probe.point.id in wanted]


def chosen_disturbances(wanted: Collection[str]) -> list[Disturbance]:
    """The disturbances of these points."""
    return [each for each in DISTURBANCES if each.point.id in wanted]


def verify(system: System, wanted: Collection[str], *, disturb: bool) -> tuple[list[Result], str]:
    """The results in order, and what the run cost. Raises CannotRunError when there was nothing to look at."""
    probes = chosen_probes(wanted)
    observer = Observer(system)
    try:
        system.hubs.start()
        observer.look(probes)
        results = {probe.point.id: Result(probe.point, probe.judge(observer.seen)) for probe in probes}
        for each in chosen_disturbances(wanted):
            measured = results.get(each.point.id)
            if measured is None or measured.verdict.word == "not measured":
                verdict = _measure(each, observer) if disturb else _undisturbed(each, measured)
                results[each.point.id] = Result(each.point, verdict)
        if disturb and chosen_disturbances(wanted):
            _wait_until_served(observer)
    finally:
        system.hubs.close()
    cost = _cost(observer) + (", and what was repeated until a change showed" if disturb else "")
    return sorted(results.values(), key=lambda result: place(result.point)), cost


def _measure(disturbance: Disturbance, observer: Observer) -> Verdict:
    try:
        return disturbance.measure(Workshop(observer))
    except ArmError as error:
        return not_measured(f"Azure refuses the change: {error}")


def _undisturbed(disturbance: Disturbance, measured: Result | None) -> Verdict:
    why = f"{measured.verdict.seen}; " if measured else ""
    return not_measured(f"{why}--disturb would change {disturbance.changes}")


def _wait_until_served(observer: Observer) -> None:
    """A restored named value reaches the gateway as late as a changed one did."""
    outcome = Workshop(observer).until("the gateway as before", LIST, lambda answer: answer.status == 200)
    if outcome.answer is None:
        observer.system.say(f"THE GATEWAY STILL REFUSES ({', '.join(outcome.others)}): look at its named values")


def _cost(observer: Observer) -> str:
    """What the ledger says of the calls that are made once."""
    rows = observer.seen.rows
    if not rows:
        return "not known, the ledger was not read"
    charged = sum(row.charge_nano_usd for row in rows) / _NANO
    return f"{charged:.6f} USD in the ledger"
