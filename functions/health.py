"""The only anonymous door: whether the app can do its work. It names states, never addresses or errors."""

from __future__ import annotations

from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door

bp = new_blueprint()


@bp.function_name("health")
@bp.route(route="health", methods=["GET"])
@door(anonymous=True)
async def get_health(call: Call) -> Answer:
    """200 when every dependency answers, else 503; either way with each one's state."""
    health = await call.services.health.check()
    return Answer(health.body(), 200 if health.ok else 503)
