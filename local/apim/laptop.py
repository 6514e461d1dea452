"""What `make run GATEWAY=apim` tells the policy runner about the other parts of the laptop."""

from __future__ import annotations

import json
import os

from local.entra import Issuer
from shared.config.model import Config
from shared.config.named_values import generated_named_values

BACKEND_ID, LOGGER_ID = "openai-pool", "usage-logger"  # as named-values.yaml calls them by default


def laptop_environment(config: Config, functions_url: str, model_url: str, issuer: Issuer) -> dict[str, str]:
    """Settings of `python -m local.apim` on top of those that it shares with the function app."""
    named_values = {
        **generated_named_values(config),
        "tk-service-url": functions_url,
        "tk-entra-openid-config": issuer.metadata_url,
        "tk-entra-issuer": issuer.issuer,
        "tk-entra-audience": issuer.audience,
        # A person's own settings come last: APIM_NAMED_VALUES='{"tk-fail-mode": "open"}' make run GATEWAY=apim
        **json.loads(os.environ.get("APIM_NAMED_VALUES", "{}")),
    }
    return {
        "APIM_NAMED_VALUES": json.dumps(named_values),
        "APIM_BACKENDS": json.dumps({BACKEND_ID: f"{model_url.rstrip('/')}/openai"}),
        "APIM_LOGGERS": json.dumps({LOGGER_ID: "usage"}),
        "MODEL_URL": model_url,
    }
