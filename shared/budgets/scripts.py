"""The Lua scripts, and calling them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

from shared.budgets.redis_errors import is_unknown_script
from shared.budgets.trips import SharedTrips

_LUA = Path(__file__).parent / "lua"


class Script:
    """A Lua file, called by its digest; loaded again when the server has forgotten it (restart, failover, flush)."""

    def __init__(self, name: str) -> None:
        self.text = (_LUA / name).read_text()
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def call(self, redis: SharedTrips, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The script's reply. Errors of the client pass through."""
        try:
            return await redis.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
        except Exception as error:
            if not is_unknown_script(error):
                raise
        return await redis.execute_command("EVAL", self.text, len(keys), *keys, *args)
