"""Which models may stand in for one that does not answer. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from shared.config.model import Model
from shared.routing.router import EMBEDDING_ONLY, unfit


def fallback_models(
    models: Mapping[str, Model],
    served: str,
    alternatives: Sequence[str],
    *,
    operation: str,
    needs: Collection[str],
    input_tokens: int,
    max_output_tokens: int | None,
) -> Iterator[str]:
    """The alternatives of a routed call, cheapest first; then the `fallbacks` of the served model, in their order.

    None that is known to lack what the call needs or to be too small for it, `max_output_tokens` being of one choice.
    None at all for embeddings: vectors of another model cannot be compared with those already stored, so a silent
    change would ruin an index.
    """
    model = models.get(served)
    if operation == "embeddings" or (model is not None and model.capabilities and model.capabilities <= EMBEDDING_ONLY):
        return
    listed = () if model is None else model.fallbacks
    needed = frozenset(needs)
    for name in dict.fromkeys((*alternatives, *listed)):
        known = models.get(name)
        if known is None or name == served:
            continue
        stated = needed if known.capabilities else frozenset[str]()  # one that states nothing may well be able
        if unfit(known, stated, input_tokens, max_output_tokens) is None:
            yield name
