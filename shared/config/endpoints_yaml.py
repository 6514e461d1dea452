"""The `endpoints` of models.yaml: where the built-in gateway finds models. API Management needs none of it."""

from __future__ import annotations

import ipaddress
import re
from typing import cast
from urllib.parse import SplitResult, urlsplit

from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.model import APIS, Api, Endpoint
from shared.pricing.book import canonical_provider

ENDPOINT_FIELDS = (
    "id",
    "provider",
    "api",
    "url",
    "key",
    "region",
    "data_zone",
    "timeout_seconds",
    "stall_seconds",
    "stream_options",
    "private",
)
# What a provider's own API answers at; every other provider needs `url`. Paths stand behind these as they are.
KNOWN_URLS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "openrouter": "https://openrouter.ai/api/v1",
}
# The APIs that also take a token of Entra ID. Without a key, every other one is asked without any credential.
ENTRA_APIS = ("azure-openai", "databricks")
LONGEST_TIMEOUT_SECONDS = 3_600
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,100}_API_KEY")


def read_endpoints(top: Section, draft: Draft) -> None:
    """Add the endpoints to the draft, in their order: the first of a provider serves its plain deployment names."""
    for section in top.sections("endpoints", ENDPOINT_FIELDS):
        endpoint = _read_endpoint(section)
        if endpoint is None:
            continue
        if endpoint.id in draft.endpoints:
            section.problem("id", f"endpoint {endpoint.id!r} is listed twice")
        draft.endpoints[endpoint.id] = endpoint


def default_api(provider: str) -> Api:
    """The API that a provider of this name speaks when config does not say: its own, else OpenAI's."""
    known = canonical_provider(provider)
    return next((api for api in APIS if api == known), "openai")


def _read_endpoint(section: Section) -> Endpoint | None:
    endpoint_id, provider = section.text("id", required=True), section.text("provider", required=True)
    if endpoint_id is not None and not _ID.fullmatch(endpoint_id):
        section.problem("id", f"expected letters, digits, dots and dashes, such as azure-weu; got {endpoint_id!r}")
    key = _key(section)
    if endpoint_id is None or provider is None:
        return None
    api = cast("Api", section.choice("api", APIS, default_api(provider)))
    url = _url(section, provider, private=section.flag("private"))
    if provider in KNOWN_URLS and not section.has("url") and not section.has("key"):
        section.problem("key", f"is required for {provider}: an app setting such as {provider.upper()}_API_KEY")
    if url is None:
        return None
    if urlsplit(url).scheme == "http" and not section.has("key") and api in ENTRA_APIS and not _is_loopback(url):
        section.problem("url", "must start with https:// where no key is named: a token of Entra ID needs TLS")
    return Endpoint(
        id=endpoint_id,
        provider=provider,
        api=api,
        url=url,
        key=key,
        region=section.text("region"),
        data_zone=section.text("data_zone"),
        timeout_seconds=section.integer("timeout_seconds", 1, LONGEST_TIMEOUT_SECONDS) or 600,
        stall_seconds=section.integer("stall_seconds", 1, LONGEST_TIMEOUT_SECONDS) or 300,
        stream_options=section.flag("stream_options") if section.has("stream_options") else True,
    )


def _key(section: Section) -> str | None:
    """The name of an app setting. A key in its place is not repeated: it would be in every log."""
    text = section.text("key")
    if text is not None and not _KEY_NAME.fullmatch(text):
        section.problem("key", "expected the name of an app setting that ends in _API_KEY, such as OPENAI_API_KEY")
        return None
    return text


def _url(section: Section, provider: str, *, private: bool) -> str | None:
    text = section.text("url") or KNOWN_URLS.get(provider)
    if text is None:
        if not section.has("url"):
            section.problem("url", f"is required: no address is built in for {provider!r}; known: {_known()}")
        return None
    parts = _split(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        section.problem("url", "expected an address such as https://name.openai.azure.com")
    elif parts.username or parts.password or parts.query or parts.fragment:
        section.problem("url", "holds more than host and path: keys belong into the app setting that `key` names")
    elif parts.scheme == "http" and not (private or _is_loopback(text)):
        section.problem("url", "must start with https://; http:// is for this machine, or a network with private: true")
    else:
        return text.rstrip("/")
    return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a port that is no number shows only when asked for
    except ValueError:
        return None
    return parts


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _known() -> str:
    return ", ".join(sorted(KNOWN_URLS))
