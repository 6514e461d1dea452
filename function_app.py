"""The function app: every door is a blueprint of functions/, registered here and nowhere else."""

import azure.functions as func

from functions import (
    budget,
    budgets,
    chargeback,
    dashboard,
    dead_letters,
    decisions,
    health,
    ingest,
    llm_logs,
    models,
    names,
    outlook,
    re_rate,
    reconciliation,
    simulate,
    spend,
    statements,
    summary,
    timers,
    usage,
    webhooks,
)
from shared.settings import Settings

Settings.from_env().require_platform_auth()

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)  # no function keys: see functions/auth.py
for part in (
    budget,
    budgets,
    usage,
    webhooks,
    spend,
    summary,
    chargeback,
    outlook,
    reconciliation,
    simulate,
    models,
    dead_letters,
    decisions,
    re_rate,
    names,
    health,
    dashboard,
    statements,
    ingest,
    llm_logs,
    timers,
):
    app.register_functions(part.bp)
