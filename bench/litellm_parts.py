"""What LiteLLM's proxy loads for `bench.gateway`: a key with a budget, and the logger that counts its spend.

Keys live in a database that this benchmark does without. So the proxy's own hook for custom authentication hands out
the key, the proxy runs its common checks and the key's budget on it, and its cost logger, which it registers only
when there is a database, is registered by the configuration. Runs in LiteLLM's virtualenv.
"""

from __future__ import annotations

from typing import Any

from litellm.proxy._types import UserAPIKeyAuth  # type: ignore[import-not-found]
from litellm.proxy.hooks.proxy_track_cost_callback import _ProxyDBLogger  # type: ignore[import-not-found]

TOKEN = "bench-key"
cost_logger = _ProxyDBLogger()


async def authenticate(request: Any, api_key: str) -> Any:
    """The one key, with a budget that no benchmark reaches."""
    return UserAPIKeyAuth(api_key=api_key, token=TOKEN, max_budget=1e9, spend=0.0, models=[])
