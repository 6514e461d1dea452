"""Which configured model a name means, and the deployment that serves it: one rule for checks, events and routes.

Azure callers name deployments, others name models; budgets, allowed models and prices must see the model either way,
or a call would pass them by under another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from shared.config.model import Model
from shared.pricing.book import canonical_provider

DEFAULT_PROVIDER = "azure-openai"  # what models.yaml takes a model's to be when it does not say


class Served(NamedTuple):
    """A model and where it is served."""

    model: str
    provider: str
    deployment: str  # the model's id when config lists no deployment


class Deployments:
    """The names of one configuration's models."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._by_id = {model.id: Served(model.id, model.provider, _first(model)) for model in models.values()}
        names = [*self._by_id.items()]
        names += [(name, Served(m.id, m.provider, name)) for m in models.values() for name in m.deployments]
        self._exact: dict[str, list[Served]] = {}
        self._folded: dict[str, list[Served]] = {}
        self._spelling = {name.lower(): name for model in models.values() for name in model.deployments}
        for name, served in names:  # model ids before deployments, then in the order of models.yaml
            self._exact.setdefault(name, []).append(served)
            self._folded.setdefault(name.lower(), []).append(served)

    def named(self, name: str, provider: str = "") -> Served | None:
        """What a caller's name means; None when config knows no such model or deployment of the stated provider.

        A model id wins over a deployment of the same name, and of deployments the one that models.yaml lists first.
        Without an exact match upper and lower case are one: a backend that does not mind the case would otherwise serve
        a dear model under a name that no rule knows.
        """
        wanted = canonical_provider(provider) if provider else ""
        for found in (self._exact.get(name), self._folded.get(name.lower())):
            for served in found or ():
                if not wanted or canonical_provider(served.provider) == wanted:
                    return served
        return None

    def spelled(self, deployment: str) -> str:
        """A deployment's name as config spells it, because prices and reports tell names apart by their letters."""
        return self._spelling.get(deployment.lower(), deployment)

    def serving(self, model: str) -> Served:
        """Where a model is served when nobody named the deployment: on its first one."""
        return self._by_id.get(model) or Served(model, DEFAULT_PROVIDER, model)


def _first(model: Model) -> str:
    """The deployment that the model's own id means: one of that name, else the first."""
    return model.id if model.id in model.deployments else next(iter(model.deployments), model.id)
