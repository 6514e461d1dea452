"""Which endpoint serves a deployment. Pure."""

from __future__ import annotations

from shared.config.model import Config, Endpoint
from shared.pricing.book import canonical_provider
from shared.routing.deployments import DEFAULT_PROVIDER

DEFAULT_KEY = "AZURE_OPENAI_API_KEY"  # the app setting with the key of the settings' own endpoint

_WITHOUT_RESPONSES = ("anthropic",)  # APIs


class Endpoints:
    """The endpoints of one configuration, with the one that settings name for whoever lists none.

    Without any in config the default serves every model, of whatever provider. With some it serves only its own
    provider's, unless config lists an endpoint of that provider too.
    """

    def __init__(self, config: Config, default: Endpoint | None) -> None:
        self._by_id = config.endpoints
        self._default = default
        self._first: dict[str, Endpoint] = {}
        for endpoint in config.endpoints.values():
            self._first.setdefault(canonical_provider(endpoint.provider), endpoint)
        self._places: dict[tuple[str, str], str] = {
            (canonical_provider(model.provider), deployment): endpoint_id
            for model in config.models.values()
            for deployment, endpoint_id in model.places.items()
        }
        if default is not None and config.endpoints:
            self._first.setdefault(canonical_provider(default.provider), default)

    def of(self, provider: str, deployment: str) -> Endpoint | None:
        """Where calls to a provider's deployment go: the endpoint it names, else the provider's first.

        None: nothing serves this provider.
        """
        known = canonical_provider(provider)
        named = self._places.get((known, deployment))
        if named is not None:
            return self._by_id[named]
        return self._first.get(known) if self._by_id else self._default


def takes(endpoint: Endpoint | None, operation: str) -> bool:
    """Whether an endpoint's API has the operation, as far as anybody knows."""
    return endpoint is None or operation != "responses" or endpoint.api not in _WITHOUT_RESPONSES


def default_endpoint(
    upstream_url: str | None, local_model_url: str | None, *, has_key: bool = False
) -> Endpoint | None:
    """The endpoint of the settings: AZURE_OPENAI_ENDPOINT, else on a laptop the simulated model."""
    url = upstream_url or local_model_url
    if url is None:
        return None
    return Endpoint(
        id="default", provider=DEFAULT_PROVIDER, api="azure-openai", url=url, key=DEFAULT_KEY if has_key else None
    )
