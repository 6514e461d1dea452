"""Where the attempts of a call go, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.providers.base import Target
from shared.errors import NotFound

if TYPE_CHECKING:
    from gateway.upstream import Upstream
    from shared.budgets.answer import CheckAnswer


class Attempts:
    """Of one gateway: which places there are, and which of them answer."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def target(self, answer: CheckAnswer, api_version: str | None) -> Target:
        """Where the model that the check chose is served. Raises NotFound `model_not_served`."""
        endpoint = self._upstream.endpoint_of(answer.provider, answer.deployment)
        if endpoint is None:
            message = f"model: no endpoint of this gateway serves {answer.model!r}"
            raise NotFound(message, code="model_not_served", param="model")
        return Target(answer.model, answer.provider, answer.deployment, endpoint, api_version)
