"""Timed jobs. Each is safe to run twice, late or in two places at once."""

from __future__ import annotations

import azure.functions as func

from functions.blueprints import new_blueprint

bp = new_blueprint()


@bp.function_name("repair")
@bp.timer_trigger(arg_name="timer", schedule="*/10 * * * * *", run_on_startup=True, use_monitor=False)
async def repair(timer: func.TimerRequest) -> None:
    """Publish how far ingest has come; rebuild and reconcile the counters of tenants that need it."""
    from shared.bootstrap import app

    await (await app()).repair.run()


@bp.function_name("reconcile")
@bp.timer_trigger(arg_name="timer", schedule="0 20 * * * *")
async def reconcile(timer: func.TimerRequest) -> None:
    """Compare all counters with the ledger, every hour; mend what drifted and say how much it was."""
    from shared.bootstrap import app

    await (await app()).repair.reconcile_all()


@bp.function_name("rollup")
@bp.timer_trigger(arg_name="timer", schedule="0 */5 * * * *", use_monitor=False)
async def rollup(timer: func.TimerRequest) -> None:
    """Sum up again the hours that got rows since they were last summed."""
    from shared.bootstrap import app

    await (await app()).rollups.run()


@bp.function_name("log_budgets")
@bp.timer_trigger(arg_name="timer", schedule="45 */15 * * * *", use_monitor=False)
async def log_budgets(timer: func.TimerRequest) -> None:
    """Log where every budget stands, for the workbook."""
    from shared.bootstrap import app

    await (await app()).standing_log.run()


@bp.function_name("sweep_streams")
@bp.timer_trigger(arg_name="timer", schedule="30 */5 * * * *", use_monitor=False)
async def sweep_streams(timer: func.TimerRequest) -> None:
    """Count and notice accrued calls that the LLM log never measured, and streams that nobody reported."""
    from shared.bootstrap import app

    await (await app()).stream_sweep.run()


@bp.function_name("statements")
@bp.timer_trigger(arg_name="timer", schedule="0 10 2 * * *")
async def statements(timer: func.TimerRequest) -> None:
    """Write the statements of the open month and of the one before to Blob Storage, every night."""
    from shared.bootstrap import app

    await (await app()).reports.publish_statements()


@bp.function_name("close_months")
@bp.timer_trigger(arg_name="timer", schedule="0 30 5 * * *")
async def close_months(timer: func.TimerRequest) -> None:
    """Close the month before from the configured day on, and go on with closes that were begun."""
    from shared.bootstrap import app

    await (await app()).close_months.run()


@bp.function_name("retention")
@bp.timer_trigger(arg_name="timer", schedule="0 40 3 * * *")
async def retention(timer: func.TimerRequest) -> None:
    """Delete ledger hours past the retention setting; nothing when it is not set."""
    from shared.bootstrap import app

    await (await app()).retention.run()


@bp.function_name("find_anomalies")
@bp.timer_trigger(arg_name="timer", schedule="0 25 3 * * *")
async def find_anomalies(timer: func.TimerRequest) -> None:
    """Add a notice of every tenant, team and model of a team that cost far more than usual the day before."""
    from shared.bootstrap import app

    await (await app()).anomalies.notify()


@bp.function_name("deliver_notices")
@bp.timer_trigger(arg_name="timer", schedule="*/30 * * * * *", use_monitor=False)
async def deliver_notices(timer: func.TimerRequest) -> None:
    """Send the notices that wait in the outbox to the routes of alerts.yaml."""
    from shared.bootstrap import app

    await (await app()).delivery.run()


@bp.function_name("notice_dead_letters")
@bp.timer_trigger(arg_name="timer", schedule="20 */5 * * * *", use_monitor=False)
async def notice_dead_letters(timer: func.TimerRequest) -> None:
    """Add a notice of each code of dead letters, once a day."""
    from shared.bootstrap import app

    await (await app()).dead_letter_notices.run()


@bp.function_name("weekly_digest")
@bp.timer_trigger(arg_name="timer", schedule="0 0 7 * * 1")
async def weekly_digest(timer: func.TimerRequest) -> None:
    """Add the digest of the last week of every tenant, on Monday morning."""
    from shared.bootstrap import app

    await (await app()).digest.run()


@bp.function_name("re_rate_unpriced")
@bp.timer_trigger(arg_name="timer", schedule="0 35 * * * *")
async def re_rate_unpriced(timer: func.TimerRequest) -> None:
    """Rate calls again that had no price when they were billed and have one now, every hour."""
    from shared.bootstrap import app

    await (await app()).re_rate.run()


@bp.function_name("export_ledger")
@bp.timer_trigger(arg_name="timer", schedule="0 5 4 * * *")
async def export_ledger(timer: func.TimerRequest) -> None:
    """Write the ledger's settled days to immutable Blob Storage, every night."""
    from shared.bootstrap import app

    await (await app()).ledger_export.run()


@bp.function_name("reconcile_invoice")
@bp.timer_trigger(arg_name="timer", schedule="0 50 4 * * *")
async def reconcile_invoice(timer: func.TimerRequest) -> None:
    """Compare the Azure invoice with the ledger; correct what differs once Azure has closed a month."""
    from shared.bootstrap import app

    await (await app()).reconciliation.run_due()
