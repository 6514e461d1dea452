"""The answer to "which model?", with the others that could do the work and why the rest could not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shared.money import decimal_from_nano

if TYPE_CHECKING:
    from shared.routing.router import Bounds


class Choice(msgspec.Struct, frozen=True):
    """A model that can do the work, and what it would cost."""

    model: str
    cost_nano_usd: int
    deployment: str = ""  # where inside the demanded region or data zone it is served


class Route(msgspec.Struct, frozen=True):
    """The answer to "which model?": None when none can do the work. `rejected` says of each other model why not."""

    model: str | None
    cost_nano_usd: int | None
    alternatives: tuple[Choice, ...]  # the other capable models, cheapest first
    rejected: dict[str, str]
    why: str
    deployment: str = ""  # where the model is served

    def body(self) -> dict[str, Any]:
        """The JSON form that `POST /route` answers; money as decimal strings."""
        return {
            "model": self.model,
            "deployment": self.deployment or None,
            "cost": None if self.cost_nano_usd is None else decimal_from_nano(self.cost_nano_usd),
            "currency": "USD",
            "alternatives": [
                {"model": choice.model, "cost": decimal_from_nano(choice.cost_nano_usd)} for choice in self.alternatives
            ],
            "rejected": self.rejected,
            "why": self.why,
        }


def route_of(
    choices: list[Choice],
    rejected: dict[str, str],
    needed: frozenset[str],
    input_tokens: int,
    output_tokens: int,
    bounds: Bounds,
) -> Route:
    """The answer when these models are capable, cheapest first."""
    able = ", ".join(sorted(needed)) or "any capability"
    if bounds:
        able += f" in {bounds}"
    if not choices:
        return Route(
            None, None, (), rejected, f"no configured model with a known price can do {able} on this many tokens"
        )
    best = choices[0]
    why = (
        f"cheapest of {len(choices)} capable models for {able}: {decimal_from_nano(best.cost_nano_usd)} USD "
        f"at {input_tokens} input and {output_tokens} output tokens"
    )
    return Route(best.model, best.cost_nano_usd, tuple(choices[1:]), rejected, why, best.deployment)
