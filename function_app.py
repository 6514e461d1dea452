"""The function app: every door is a blueprint of functions/, registered here and nowhere else."""

import azure.functions as func

from functions import (
    budget,
    chargeback,
    dead_letters,
    health,
    ingest,
    llm_logs,
    models,
    spend,
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
    usage,
    webhooks,
    spend,
    summary,
    chargeback,
    models,
    dead_letters,
    health,
    ingest,
    llm_logs,
    timers,
):
    app.register_functions(part.bp)
